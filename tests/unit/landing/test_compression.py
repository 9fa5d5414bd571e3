"""Compressed files: several members or frames are one file, and one that is not complete is refused, never read in part."""

from __future__ import annotations

import gzip
import io
import json

import polars as pl
import pyarrow as pa
import pytest

from include.contracts import load_contract
from include.landing import source as source_module
from include.landing.errors import UnreadableFile, ZoneError
from include.landing.object_store import StoredBytes
from include.landing.readers import read_chunks
from include.landing.source import Source, blocks, format_of, seekable, stored_format

TELEMETRY = load_contract("device_telemetry")
DATA = b"\n".join(json.dumps({"deviceId": f"m{n}", "note": "x" * 100}).encode() for n in range(2000))
SKIPPABLE = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"  # a zstd frame that holds no data


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACK = {"gzip": gzip.compress, "zstd": zstd}


def plain(data: bytes, compression: str) -> bytes:
    return b"".join(blocks(Source(0, io.BytesIO(data), "ndjson", compression)))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_several_members_or_frames_are_one_file(compression):
    pack = PACK[compression]
    assert plain(pack(DATA), compression) == DATA
    assert plain(pack(DATA) + pack(b"") + pack(b"\nlast"), compression) == DATA + b"\nlast"
    assert plain(pack(b""), compression) == b""
    if compression == "zstd":
        assert plain(SKIPPABLE + pack(DATA) + SKIPPABLE + pack(b"!"), compression) == DATA + b"!"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "harm",
    [
        lambda packed: packed[:-5],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed + b"rest of another file",
        lambda packed: packed + packed[:-3],
        lambda _: b"not compressed at all, whatever its name says",
        lambda _: b"",
    ],
    ids=["end missing", "half", "something after", "second part broken", "not compressed", "no bytes"],
)
def test_what_is_not_complete_is_refused(compression, harm):
    with pytest.raises(UnreadableFile, match=f"not a complete {compression} file"):
        plain(harm(PACK[compression](DATA)), compression)


def test_a_flipped_byte_is_seen_where_the_file_has_a_checksum():
    packed = gzip.compress(DATA)
    with pytest.raises(UnreadableFile, match="not a complete gzip file"):
        plain(packed[:200] + bytes([packed[200] ^ 0xFF]) + packed[201:], "gzip")


@pytest.mark.parametrize("compression", ["gzip", "zstd", None])
def test_a_store_that_breaks_off_is_no_broken_file(compression):
    class Broken(io.BytesIO):
        is_used = False

        def read(self, size: int | None = -1) -> bytes:
            if self.is_used:
                raise ConnectionResetError(104, "Connection reset by peer")
            self.is_used = True
            return super().read(size)

    frame = pl.DataFrame({"deviceId": [f"m{n}" for n in range(50_000)]})
    target = io.BytesIO()
    frame.write_parquet(target)
    pack = PACK.get(compression or "", bytes)
    for data, form in ((pack(DATA), "ndjson"), (pack(target.getvalue()), "parquet")):
        stream = StoredBytes(Broken(data), "s3://bucket/zone")
        with pytest.raises(ZoneError, match="Connection reset"):
            list(read_chunks(iter([Source(0, stream, form, compression)]), TELEMETRY))


def test_a_compressed_parquet_file_is_unpacked_to_disk_where_it_is_large(monkeypatch):
    monkeypatch.setattr(source_module, "SPOOL_BYTES", 1000)
    frame = pl.DataFrame({"deviceId": [f"m{n}" for n in range(50_000)], "temperature_c": [float(n) for n in range(50_000)]})
    target = io.BytesIO()
    frame.write_parquet(target)
    for compression, pack in PACK.items():
        spool = seekable(Source(0, io.BytesIO(pack(target.getvalue())), "parquet", compression))
        assert spool._rolled  # type: ignore[attr-defined]
        spool.close()
        found = list(read_chunks(iter([Source(0, io.BytesIO(pack(target.getvalue())), "parquet", compression)]), TELEMETRY))
        assert sum(len(chunk) for chunk in found) == 50_000
        assert [value for chunk in found for value in chunk.columns["temperature_c"]] == frame["temperature_c"].to_list()
        with pytest.raises(UnreadableFile, match=compression):
            list(read_chunks(iter([Source(0, io.BytesIO(pack(target.getvalue())[:-9]), "parquet", compression)]), TELEMETRY))


@pytest.mark.parametrize(
    ("name", "expected", "stored"),
    [
        ("a.ndjson", ("ndjson", None), "ndjson"),
        ("a.b.JSONL.GZ", ("ndjson", "gzip"), "ndjson.gz"),
        ("a.json.zst", ("json", "zstd"), "json.zst"),
        ("a.csv", ("csv", None), "csv"),
        ("a.parquet.zst", ("parquet", "zstd"), "parquet.zst"),
        ("a.gz", ("unknown", "gzip"), "unknown.gz"),
        ("a", ("unknown", None), "unknown"),
        ("a.csv.zip", ("unknown", None), "unknown"),
    ],
)
def test_the_ending_says_format_and_compression(name, expected, stored):
    assert format_of(name) == expected
    assert stored_format(*expected) == stored
