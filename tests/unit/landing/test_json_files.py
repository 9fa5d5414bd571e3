"""JSON arrays, split in bounded memory: exact for JSON, and what is no JSON is said and not lost."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.contracts import load_contract
from include.landing import source as source_module
from include.landing.bulk import bulk_columns
from include.landing.errors import UnreadableFile
from include.landing.json_files import json_lines
from include.landing.readers import read_chunks
from include.landing.source import Source

TELEMETRY = load_contract("device_telemetry")
TEXTS = st.text(alphabet=st.sampled_from('"\\[]{},:ab \n\té€😀\u2028'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def split(data: bytes, block_bytes: int = 1 << 20) -> list[tuple[int, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "BLOCK_BYTES", block_bytes)
        found = json_lines(Source(0, io.BytesIO(data), "json", None))
        return [row for lines, numbers in found for row in zip(numbers.tolist(), lines, strict=True)]


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(VALUES, max_size=6),
    indent=st.sampled_from([None, 2]),
    as_ascii=st.booleans(),
    block=st.integers(1, 40),
    blanks=st.sampled_from(["", "\n ", "\t"]),
)
def test_elements_are_those_of_a_json_parser_wherever_blocks_end(rows, indent, as_ascii, block, blanks):
    text = f"{blanks}{json.dumps(rows, indent=indent, ensure_ascii=as_ascii)}{blanks}"
    found = split(text.encode(), block)
    assert [number for number, _ in found] == list(range(1, len(rows) + 1))
    assert [json.loads(element) for _, element in found] == rows
    assert all(element in text.encode() for _, element in found)


@settings(max_examples=300, deadline=None)
@given(data=st.text(alphabet='"\\[]{},1 a', max_size=30), block=st.integers(1, 8))
def test_what_is_no_json_is_refused_or_gives_the_same_pieces_wherever_blocks_end(data, block):
    def outcome(block_bytes):
        try:
            return split(f"[{data}".encode(), block_bytes)
        except UnreadableFile as error:
            return error.reason

    whole = outcome(1000)
    assert outcome(block) == whole
    if isinstance(whole, list):  # every character of the file is in a piece, is a comma between two, or a blank or bracket around them
        assert b",".join(piece.strip() for _, piece in whole).replace(b" ", b"") == data.rstrip().removesuffix("]").encode().replace(b" ", b"")


def chunks(data: bytes):
    (chunk,) = read_chunks(iter([Source(0, io.BytesIO(data), "json", None)]), TELEMETRY)
    return chunk


def test_a_malformed_element_is_one_row_and_its_neighbours_are_read():
    chunk = chunks(b'\xef\xbb\xbf[{"deviceId": "a"}, {"deviceId": "b",}, {"deviceId": c}, 7, , {"deviceId": "d"], {"deviceId": "e"},\n{"deviceId":\n"f"}]\n')
    assert chunk.row_number.tolist() == list(range(1, 9))
    assert [str(errors[0].code) for _, errors in sorted(chunk.errors.items())] == ["malformed_json"] * 2 + ["not_an_object"] + ["malformed_json"] * 2
    assert [chunk.columns["device_id"][row] for row in (0, 6, 7)] == ["a", "e", "f"]
    assert [chunk.originals[row] for row in (1, 4, 5, 7)] == [b'{"deviceId": "b",}', b"", b'{"deviceId": "d"]', b'{"deviceId":\n"f"}']


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'[{"a": 1}, {"a"', "breaks off in element 2"),
        (b"[", "breaks off in element 1"),
        (b'[{"a": "x}, {"a": 1}]', "quote or bracket is missing"),
        (b'[{"a": 1}}', "closed by }"),
        (b'[{"a": 1}] {"a": 2}', "something stands after"),
        (b'[{"a": 1}]\n[{"a": 2}]', "something stands after"),
        (b"\xff\xfe[\x00]\x00", "must be UTF-8"),
    ],
)
def test_an_array_that_is_not_whole_is_unreadable(data, reason):
    for block in (1000, 1):
        if block == 1 and data.startswith(b"\xff"):
            continue
        with pytest.raises(UnreadableFile, match=reason):
            split(data, block)


def test_an_element_without_an_end_is_unreadable_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr("include.landing.json_files.MAX_ROW_BYTES", 1000)
    with pytest.raises(UnreadableFile, match="element 2 of the JSON array is longer"):
        split(b'[{}, {"a": "' + b"x" * 2000, 100)
    with pytest.raises(UnreadableFile, match="line 2 is longer"):
        list(json_lines(Source(0, io.BytesIO(b"{}\n" + b"x" * 2000), "ndjson", None)))


def test_a_json_file_of_lines_is_read_by_lines_and_an_empty_one_has_no_rows():
    assert split(b'\n {"a": 1}\r\n\n{"a": 2}\n') == [(2, b' {"a": 1}'), (4, b'{"a": 2}')]
    assert split(b"") == split(b"[]") == split(b" [\n] ") == split(b"  \n") == []
    (chunk,) = read_chunks(iter([Source(0, io.BytesIO(b"[1, 2]\n"), "ndjson", None)]), TELEMETRY)
    assert chunk.errors[0][0].code == "not_an_object"  # lines stay lines where the name says so


def test_large_rows_make_small_chunks(monkeypatch):
    monkeypatch.setattr("include.landing.readers.CHUNK_BYTES", 1000)
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 500)
    row = json.dumps({"deviceId": "m" * 300}).encode()
    for data, form in ((b"\n".join([row] * 12), "ndjson"), (b"[" + b",".join([row] * 12) + b"]", "json")):
        sizes = [len(chunk) for chunk in read_chunks(iter([Source(0, io.BytesIO(data), form, None)]), TELEMETRY)]
        assert sum(sizes) == 12
        assert max(sizes) <= 5


@pytest.mark.parametrize("data", [b'[{"deviceId": "a"},]', b'[,{"deviceId": "a"}]', b'[{"deviceId": "a"},,]', b"[,]"])
def test_an_element_that_is_missing_is_a_row_with_an_error_beside_other_files_too(data):
    sources = (Source(position, io.BytesIO(each), "json", None) for position, each in enumerate([data, b"[]", b'[{"deviceId": "b"}]', data]))
    found = [
        (int(chunk.file_position[row]), int(chunk.row_number[row]), chunk.originals[row], row in chunk.errors)
        for chunk in read_chunks(sources, TELEMETRY)
        for row in range(len(chunk))
    ]
    pieces = data[1:-1].split(b",")
    expected = [(at, number, piece, not piece) for at in (0, 3) for number, piece in enumerate(pieces, start=1)] + [(2, 1, b'{"deviceId": "b"}', False)]
    assert sorted(found) == sorted(expected)


def test_elements_are_read_in_bulk_also_where_they_are_indented():
    rows = [{"deviceId": f"m{n}", "timestamp": "t", "measurements": {"temperature": n + 0.5}} for n in range(5)]
    for indent in (None, 2):
        ((lines, _),) = json_lines(Source(0, io.BytesIO(json.dumps(rows, indent=indent).encode()), "json", None))
        columns = bulk_columns(TELEMETRY, lines)
        assert columns is not None
        assert columns["temperature_c"].to_list() == [0.5, 1.5, 2.5, 3.5, 4.5]
