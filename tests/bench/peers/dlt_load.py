"""One measurement of dlt, in a process and an environment of its own (requirements.txt beside this file); nothing of the product is imported.

Reads a job as JSON from standard input, loads a small file first, and writes the outcome as JSON to standard output. Settings of dlt come by its own
environment variables from whoever starts the process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.parquet as pq

TABLE, KEY = "device_telemetry", ["device_id", "event_at"]


def load(job: dict[str, Any], path: str, name: str, stored: Sequence[str] = ()) -> dict[str, Any]:
    """Loads a Parquet file into a schema `name` that is new or holds `stored`, appended first; seconds, and rows in the table afterwards."""
    merge = {"disposition": "merge", "strategy": job["strategy"]}

    def events(paths: Sequence[str], *, is_merged: bool) -> Any:
        @dlt.resource(name=TABLE, write_disposition=merge if is_merged else "append", primary_key=KEY if is_merged else None)
        def rows() -> Iterator[pa.RecordBatch]:
            for each in paths:
                yield from pq.ParquetFile(each).iter_batches(batch_size=job["piece_rows"])

        return rows()

    destination = dlt.destinations.postgres(credentials=job["url"])
    pipeline = dlt.pipeline(pipeline_name=name, dataset_name=name, pipelines_dir=str(Path(job["folder"]) / "pipelines"), destination=destination)
    for each in stored:
        pipeline.run(events([each], is_merged=False), loader_file_format=job["file_format"])
    started = time.perf_counter()
    pipeline.run(events([path] * job["copies"], is_merged=bool(job["strategy"])), loader_file_format=job["file_format"])
    seconds = time.perf_counter() - started
    with pipeline.sql_client() as client:
        rows = client.execute_sql(f"select count(*) from {name}.{TABLE}")
    return {"seconds": seconds, "rows": rows[0][0], "version": f"dlt {dlt.__version__}"}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    load(request, request["warm_up"], "warm_up")
    json.dump(load(request, request["file"], "measured", request["stored"]), sys.stdout)
