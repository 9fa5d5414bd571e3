"""One measurement of dlt, in a process and an environment of its own (requirements.txt beside this file); nothing of the product is imported.

Reads a job as JSON from standard input, loads a small file into another schema first, and writes the seconds as JSON to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Fastest as tried: no gzip between the steps, and pieces that both cores and several COPYs at once can work on.
os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": os.environ.get("TRY_ITEMS", "250000"),
    "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": os.environ.get("TRY_ITEMS", "250000"),
    "NORMALIZE__WORKERS": os.environ.get("TRY_NORM", "2"),
    "LOAD__WORKERS": os.environ.get("TRY_LOAD", "4"),
}

import dlt  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

KEY = ("device_id", "event_at")
BATCH_ROWS = int(os.environ.get("TRY_BATCH", "250000"))


def load(job: dict[str, Any], path: str, name: str) -> float:
    """Loads a Parquet file as a pipeline named `name` into a schema of that name; seconds."""
    disposition = {"disposition": "merge", "strategy": job["strategy"]} if job["strategy"] else "append"

    @dlt.resource(name="device_telemetry", write_disposition=disposition, primary_key=KEY if job["strategy"] else None)
    def events() -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS)

    pipeline = dlt.pipeline(
        pipeline_name=name, dataset_name=name, pipelines_dir=str(Path(job["folder"]) / name), destination=dlt.destinations.postgres(credentials=job["url"])
    )
    started = time.perf_counter()
    info = pipeline.run(events(), loader_file_format=job["file_format"])
    seconds = time.perf_counter() - started
    info.raise_on_failed_jobs()
    if os.environ.get("TRY_ITEMS"): print(pipeline.last_trace, file=sys.stderr)
    return seconds


if __name__ == "__main__":
    request = json.load(sys.stdin)
    load(request, request["warm_up_parquet"], "warm_up")
    json.dump({"seconds": load(request, request["parquet"], "measured"), "version": dlt.__version__}, sys.stdout)
