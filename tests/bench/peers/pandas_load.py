"""One measurement of pandas, in a process and an environment of its own (requirements.txt beside this file); nothing of the product is imported.

Reads a job as JSON from standard input, loads a small file first, and writes the outcome as JSON to standard output.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pandas as pd
import sqlalchemy


def load(job: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    """Loads an NDJSON.gz file into a table `name` that does not exist yet; seconds, and rows in the table afterwards."""
    engine = sqlalchemy.create_engine(job["url"].replace("postgresql://", "postgresql+psycopg2://", 1))
    started = time.perf_counter()
    read = pd.read_json(path, lines=True, compression="gzip")
    flat = pd.json_normalize(read.to_dict(orient="records"))  # nested objects cannot be written as they are
    with engine.begin() as connection:
        flat.to_sql(name, connection, index=False, method="multi", chunksize=job["chunk_rows"])
    seconds = time.perf_counter() - started
    with engine.connect() as connection:
        rows: int = connection.execute(sqlalchemy.text(f"select count(*) from {name}")).scalar_one()
    return {"seconds": seconds, "rows": rows, "version": f"pandas {pd.__version__}"}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    load(request, request["warm_up"], "warm_up")
    json.dump(load(request, request["file"], "measured"), sys.stdout)
