"""Files of any size with valid telemetry, written without holding them, and a child process that reads or lands them and tells its peak memory.

Run as `python -m tests.support.large_files read FORMAT COMPRESSION PATH` or `land FROM BEFORE`; prints one line of JSON.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from include.settings import REPOSITORY
from tests.support.payloads import DAY_0, iso, telemetry

STREAM = "device_telemetry"
GROUP_ROWS = 1000
CSV_COLUMNS = ("deviceId", "deviceType", "timestamp", "location.facility", "measurements.temperature", "measurements.energy")


def rows_of(number: int) -> list[dict[str, Any]]:
    """A thousand readings of one second; no two groups have a reading in common."""
    when, dice = DAY_0 + timedelta(seconds=number), random.Random(number)
    return [telemetry(f"machine_{n:04d}", when, temperature=dice.uniform(20, 90), vibration=dice.uniform(0, 9)) for n in range(GROUP_ROWS)]


def _json_groups() -> Iterator[list[bytes]]:
    first = [json.dumps(row).encode() for row in rows_of(0)]
    stamp = iso(DAY_0).encode()
    for number in count():
        now = iso(DAY_0 + timedelta(seconds=number)).encode()
        yield [line.replace(stamp, now) for line in first]


def write_large(path: Path, plain_bytes: int) -> int:
    """Writes a file of about so many plain bytes; its endings (.ndjson, .json, .csv, .parquet, then .gz or .zst) say how.

    Returns:
        Number of rows.
    """
    form, _, packing = path.name.partition(".")[2].partition(".")
    if form == "parquet":
        return _write_parquet(path, plain_bytes, packing)
    rows = written = 0
    with _packed(path, packing) as target:
        if form == "csv":
            target.write(",".join(CSV_COLUMNS).encode() + b"\n")
        for number, group in enumerate(_json_groups()):
            if written >= plain_bytes:
                break
            if form == "csv":
                now = iso(DAY_0 + timedelta(seconds=number))
                text = b"".join(f'machine_{n:04d},machine_controller,{now},"factory_01",60.5,1.25\n'.encode() for n in range(GROUP_ROWS))
            elif form == "json":
                text = (b"[" if number == 0 else b",\n") + b",\n".join(group)
            else:
                text = b"\n".join(group) + b"\n"
            target.write(text)
            written += len(text)
            rows += len(group)
        if form == "json":
            target.write(b"]\n")
    return rows


def _write_parquet(path: Path, plain_bytes: int, packing: str) -> int:
    rows = 0
    plain = path.with_name(f".{path.name}.plain")
    with pq.ParquetWriter(plain, pa.Table.from_pylist(rows_of(0)).schema, compression="none", use_dictionary=False) as writer:
        for number in count(0, 100):
            if plain.exists() and plain.stat().st_size >= plain_bytes:
                break
            group = pa.concat_tables(pa.Table.from_pylist(rows_of(second)) for second in range(number, number + 100))
            writer.write_table(group, row_group_size=len(group))
            rows += len(group)
    with plain.open("rb") as source, _packed(path, packing) as target:
        while piece := source.read(8 << 20):
            target.write(piece)
    plain.unlink()
    return rows


@contextmanager
def _packed(path: Path, packing: str) -> Iterator[BinaryIO]:
    if packing == "gz":
        with gzip.open(path, "wb", compresslevel=1) as target:
            yield target  # type: ignore[misc]
    elif packing == "zst":
        with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as target:
            yield target
    else:
        with path.open("wb") as target:
            yield target


def peak_bytes() -> int:
    """Peak resident memory of this process. Not `ru_maxrss`, which begins with the peak of the process that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))


def run_child(*arguments: str, timeout_s: float = 1200) -> dict[str, Any]:
    """Runs this module in a process of its own and gives what it printed."""
    command = [sys.executable, "-m", "tests.support.large_files", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _read(path: Path) -> dict[str, Any]:
    from include.contracts import load_contract
    from include.landing.readers import read_chunks
    from include.landing.source import Source, format_of

    contract = load_contract(STREAM)
    form, compression = format_of(path.name)
    at_start, rows, largest = peak_bytes(), 0, 0
    with path.open("rb") as stream:
        for chunk in read_chunks(iter([Source(0, stream, form, compression)]), contract):
            rows, largest = rows + len(chunk), max(largest, len(chunk))
    return {"rows": rows, "largest_chunk": largest, "at_start_bytes": at_start, "peak_bytes": peak_bytes()}


def _land(arrived_from: str, arrived_before: str) -> dict[str, Any]:
    from include.landing import land_pending

    at_start, started = peak_bytes(), time.monotonic()
    result = land_pending(STREAM, arrived_from=datetime.fromisoformat(arrived_from), arrived_before=datetime.fromisoformat(arrived_before))
    return result.counts() | {"at_start_bytes": at_start, "peak_bytes": peak_bytes(), "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    print(json.dumps(_read(Path(sys.argv[2])) if sys.argv[1] == "read" else _land(*sys.argv[2:])))  # noqa: T201 - what the parent reads
