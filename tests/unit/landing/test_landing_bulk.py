"""Decoding in bulk says the same as decoding each line alone, whatever the lines are and whichever lines stand beside them."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys

import numpy as np
import pytest

from include.contracts import load_contract
from include.landing.bulk import bulk_columns
from include.landing.lines import Lines, join_lines, line_buffers, split_lines
from include.landing.payload import chunk_of_lines
from include.landing.readers import Source, read_chunks
from include.landing.rows import Chunk
from include.landing.validate import ROW_NUMBER, validate
from include.settings import REPOSITORY

TELEMETRY = load_contract("device_telemetry")
LEAVES: list[object] = [
    *(1, 0, -1, 1.5, -0.0, 1e-400, 123456789012345678901234567890, 10**400, True, None, "", "x", "1.5", "a\x00b", "é😀", "\ud800", [], [1], {}, {"x": 1}),
    *(float("nan"), float("inf"), "2026-03-01T00:00:00Z", "2026-03-01T00:00:00+02:00", "2026-03-01", "never"),
]
ODD_BYTES = [b"\x00", b"\xff", b"\x01", b"{", b"}", b"null", b"{}", b",", b'"', b" ", b"\r", b"\t", b"\\", b"NaN", b"1e400", b"\xef\xbb\xbf", b"[", b"]"]


def random_line(random: random.Random) -> bytes:
    row: dict = {"deviceId": f"m{random.randrange(5)}", "deviceType": "thermostat", "timestamp": f"2026-03-01T00:00:{random.randrange(60):02d}Z"}
    groups = {"location": ["facility", "line"], "measurements": ["temperature", "humidity", "errorCode"], "quality": ["accuracy", "calibration_date"]}
    for group, keys in groups.items():
        if random.random() < 0.7:
            row[group] = {key: random.choice([20.5, 7, None]) if key not in {"facility", "line", "errorCode", "calibration_date"} else None for key in keys}
    for _ in range(random.choice([0, 0, 0, 1, 2])):
        place = random.choice([row, *(value for value in row.values() if isinstance(value, dict))])
        place[random.choice([*place, "unknown", "tenantId", ""])] = random.choice(LEAVES)
    text = json.dumps(row, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.1:
        text = text[:-1] + b', "deviceId": "twice"}'
    for _ in range(random.choice([0, 0, 0, 0, 1, 2])):
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice(ODD_BYTES) + text[at + random.randrange(3) :]
    return text.replace(b"\n", b"")


def verdicts(chunks: list[Chunk]) -> dict[int, tuple]:
    """What becomes of each row, by its number."""
    found: dict[int, tuple] = {}
    for chunk in chunks:
        validated = validate(chunk, TELEMETRY, np.full(len(chunk), 1_775_000_000_000_000))
        for row in validated.accepted.iter_rows(named=True):
            assert found.setdefault(row[ROW_NUMBER], tuple(map(repr, row.values()))) is not None
        for rejected in validated.rejected:
            found[rejected.row_number] = (rejected.original, rejected.tenant_id, rejected.errors)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_line_is_read_alike_alone_and_among_others(seed):
    maker = random.Random(seed)
    # Some texts hold hardly an unusual line, some many: both ways of falling back are taken.
    usual = json.dumps({"deviceId": "m", "deviceType": "thermostat", "timestamp": "2026-03-01T00:00:00Z", "measurements": {"temperature": 20}}).encode()
    lines = [random_line(maker) if maker.random() < seed / 11 else usual for _ in range(300)]
    together = list(read_chunks(iter([Source(0, io.BytesIO(b"\n".join(lines)), "ndjson", None)]), TELEMETRY, 100))
    alone = []
    for number, line in enumerate(lines, start=1):
        if line.strip(b" \r\t"):
            line = (line if number > 1 else line.removeprefix(b"\xef\xbb\xbf")).removesuffix(b"\r")
            alone.append(chunk_of_lines(TELEMETRY, [line], np.array([0], dtype=np.int32), np.array([number], dtype=np.int32)))
    found = verdicts(together)
    assert sum(map(len, together)) == len(found)
    assert found == verdicts(alone)


def test_usual_lines_are_read_in_bulk():
    lines = [json.dumps({"deviceId": f"m{n}", "timestamp": "t", "location": {"coordinates": {"lat": n}} if n % 2 else None}).encode() for n in range(4)]
    columns = bulk_columns(TELEMETRY, split_lines(b"\r\n".join(lines), 1)[0])
    assert columns is not None
    assert columns["device_id"].to_list() == ["m0", "m1", "m2", "m3"]
    assert columns["latitude_deg"].to_list() == [None, 1.0, None, 3.0]
    assert columns["tenant_id"].null_count() == 4


@pytest.mark.parametrize("text", [b"null", b"{}\nnull\n{}", b"{}null", b"{}null{}", b"null{}", b" null", b"{}\x00{}", b"[]", b"5", b""])
def test_no_text_brings_the_parser_down(text):
    code = (
        "import sys; from include.contracts import load_contract; from include.landing.bulk import bulk_columns; from include.landing.lines import split_lines;"
        "print(bulk_columns(load_contract('device_telemetry'), split_lines(sys.stdin.buffer.read(), 1)[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=text, cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stdout.strip()) == (0, b"None")


def test_lines_of_several_buffers_are_joined():
    parts = [split_lines(text, 1)[0] for text in (b"a\nbb\r\n", b"\n  \nccc", b"\n")]
    joined = join_lines(parts)
    assert list(joined) == [b"a", b"bb", b"ccc"]
    assert joined[1] == b"bb"
    assert isinstance(joined[1:], Lines)
    assert list(joined[1:]) == [b"bb", b"ccc"]


def test_buffers_end_where_lines_end():
    assert list(line_buffers(iter([b"a\nb", b"b", b"b\nc\nd", b"d"]))) == [b"a\n", b"bbb\nc\n", b"dd"]
