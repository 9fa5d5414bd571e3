"""Readers: what is a row, what is its original text, and what is wrong with it before any contract looks at it."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import polars as pl
import pytest

from include.contracts import load_contract
from include.landing.errors import UnreadableFile
from include.landing.readers import read_chunks
from include.landing.rows import Chunk
from include.landing.source import Source

TELEMETRY = load_contract("device_telemetry")
ROW = {"deviceId": "m1", "deviceType": "machine_controller", "timestamp": "2026-03-01T00:00:00Z"}


def read(data: bytes, file_format: str = "ndjson", compression: str | None = None, rows: int = 3) -> list[Chunk]:
    return list(read_chunks(iter([Source(0, io.BytesIO(data), file_format, compression)]), TELEMETRY, rows))


def one(data: bytes, file_format: str = "ndjson") -> Chunk:
    (chunk,) = read(data, file_format, rows=1000)
    return chunk


def codes(chunk: Chunk) -> dict[int, list[tuple[str, str | None]]]:
    return {row: [(str(error.code), error.field) for error in errors] for row, errors in chunk.errors.items()}


def line(**more: object) -> bytes:
    return json.dumps(ROW | more).encode()


def test_lines_end_in_lf_or_crlf_blank_ones_are_no_rows_and_numbers_are_line_numbers():
    chunk = one(b"\xef\xbb\xbf" + line() + b"\r\n\n  \n" + line(deviceId="m2") + b"\n" + line(deviceId="m3"))
    assert chunk.row_number.tolist() == [1, 4, 5]
    assert list(chunk.columns["device_id"]) == ["m1", "m2", "m3"]
    assert list(chunk.originals) == [line(), line(deviceId="m2"), line(deviceId="m3")]


def test_many_small_files_make_one_chunk_and_a_large_one_makes_several():
    sources = (Source(position, io.BytesIO(line(deviceId=f"m{position}")), "ndjson", None) for position in range(5))
    (chunk,) = read_chunks(sources, TELEMETRY, 100)
    assert chunk.file_position.tolist() == [0, 1, 2, 3, 4]
    parts = read(b"\n".join([line()] * 10))
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert np.concatenate([part.row_number for part in parts]).tolist() == list(range(1, 11))


def test_the_first_chunk_is_small_so_that_the_server_begins_soon():
    lines = (Source(position, io.BytesIO(line()), "ndjson", None) for position in range(20))
    assert [len(chunk) for chunk in read_chunks(lines, TELEMETRY, 8)] == [2, 8, 8, 2]
    table = io.BytesIO()
    pl.DataFrame({"deviceId": ["m1"] * 20}).write_parquet(table)
    chunks = read(table.getvalue(), "parquet", rows=8)
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 2, 8, 4]
    assert np.concatenate([chunk.row_number for chunk in chunks]).tolist() == list(range(1, 21))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"deviceId": "m1"', [("malformed_json", None)]),
        (b'{"deviceId": "m\xff1"}', [("malformed_json", None)]),
        (b'{"deviceId": "m\x011"}', [("malformed_json", None)]),
        (b'{"a": 01}', [("malformed_json", None)]),
        (b"[" * 20_000, [("malformed_json", None)]),
        (b"[1, 2]", [("not_an_object", None)]),
        (b'"text"', [("not_an_object", None)]),
        (b"null", [("not_an_object", None)]),
        (b'{"measurements": {"temperature": NaN, "humidity": -Infinity}}', [("non_finite", "temperature_c"), ("non_finite", "humidity_pct")]),
        (b'{"measurements": {"temperature": 1e400}}', [("number_out_of_range", "temperature_c")]),
        (b'{"measurements": {"temperature": 1' + b"0" * 5000 + b"}}", [("number_out_of_range", "temperature_c")]),
        (b'{"deviceId": "\\ud800"}', [("lone_surrogate", "device_id")]),
        (b'{"note": ["\\udc00x"]}', [("lone_surrogate", "note")]),
        (b'{"\\ud800": 1}', [("lone_surrogate", "\\ud800")]),
        (b'{"note": {"a": "\\u0000"}}', [("nul_character", "note")]),
        (b'{"location": "Hamburg", "measurements": 5}', [("wrong_type", "location"), ("wrong_type", "measurements")]),
    ],
)
def test_a_bad_line_says_what_is_wrong_and_where(raw, expected):
    assert codes(one(raw)) == {0: expected}


def test_what_is_unusual_but_fine_passes():
    chunk = one(b'{"deviceId": "a", "deviceId": "b", "note": "\\ud83d\\ude00 \\\\u0000", "measurements": {"temperature": null, "new": 1}, "quality": null}')
    assert not chunk.errors
    assert list(chunk.columns["device_id"]) == ["b"]
    assert json.loads(chunk.extra[0] or "") == {"measurements": {"new": 1}, "note": "😀 \\u0000"}
    huge = one(b'{"note": 123456789012345678901234567890}')
    assert huge.extra == ['{"note":123456789012345678901234567890}']


def test_gzip_may_have_several_members_and_must_be_complete():
    data = gzip.compress(line() + b"\n") + gzip.compress(line(deviceId="m2"))
    (chunk,) = read(data, compression="gzip", rows=10)
    assert len(chunk) == 2
    for broken in (data[:-5], b"not gzip at all", data + b"rest"):
        with pytest.raises(UnreadableFile, match="gzip"):
            read(broken, compression="gzip")


def test_csv_keeps_the_text_of_each_record():
    header = b"\xef\xbb\xbfdeviceId,deviceType,timestamp,temperature_c,note\r\n"
    data = header + b'm1,machine_controller,2026-03-01T00:00:00Z,1.5,"two\r\nlines, ""quoted"""\r\nm2,x,y,,\r\n'
    chunk = one(data, "csv")
    assert chunk.is_text
    assert chunk.row_number.tolist() == [1, 2]
    assert chunk.originals[0] == b'm1,machine_controller,2026-03-01T00:00:00Z,1.5,"two\r\nlines, ""quoted"""'
    assert chunk.columns["temperature_c"] == ["1.5", None]
    assert chunk.extra == ['{"note":"two\\r\\nlines, \\"quoted\\""}', None]


def test_a_ragged_or_broken_record_is_malformed_and_its_neighbours_are_not():
    chunk = one(b'deviceId,temperature_c\nm1\nm2,1,2\nm3,1\nm\xff,1\n"m4" x,1\nm5,2\n', "csv")
    assert {row: errors[0].code for row, errors in chunk.errors.items()} == dict.fromkeys((0, 1, 3, 4), "malformed_csv")
    assert chunk.originals[1] == b"m2,1,2"
    assert chunk.originals[4] == b'"m4" x,1'
    assert [chunk.columns["device_id"][row] for row in (2, 5)] == ["m3", "m5"]


@pytest.mark.parametrize("data", [b"a,a\n1,2\n", b"a,\n1,2\n", b'"a\n'])
def test_a_csv_file_without_a_usable_header_is_unreadable(data):
    with pytest.raises(UnreadableFile, match="header"):
        read(data, "csv")


def test_an_empty_file_holds_no_rows():
    assert read(b"") == read(b"", "csv") == read(b"deviceId\n", "csv") == []


def parquet(frame: pl.DataFrame) -> bytes:
    target = io.BytesIO()
    frame.write_parquet(target)
    return target.getvalue()


def test_parquet_columns_may_be_nested_or_dotted_or_named_as_in_raw():
    frame = pl.DataFrame(
        {"deviceId": ["m1"], "measurements": [{"temperature": 1.5, "new": 2}], "quality.accuracy": [99.0], "facility_id": ["f"], "tenantId": ["acme"]}
    )
    chunk = one(parquet(frame), "parquet")
    assert [list(chunk.columns[name]) for name in ("temperature_c", "accuracy_pct", "facility_id")] == [[1.5], [99.0], ["f"]]
    assert list(chunk.tenants) == ["acme"]
    assert chunk.extra == ['{"measurements.new":2}']
    assert json.loads(chunk.originals[0])["measurements"] == {"temperature": 1.5, "new": 2}


def test_a_file_that_is_no_parquet_file_or_of_unknown_format_is_unreadable():
    with pytest.raises(UnreadableFile, match="Parquet"):
        read(b"PAR1 no", "parquet")
    with pytest.raises(UnreadableFile, match="format"):
        read(b"x", "unknown")
