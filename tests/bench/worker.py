"""One measurement of the product, in a process of its own: everything is imported and a small load has run before the clock starts.

Reads a job as JSON from standard input and writes the outcome as JSON to standard output. The environment names warehouse and zone, as for any process of
the house.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from include.contracts import load_contract
from include.landing import land_pending
from include.landing.store import raw_columns
from include.settings import get_settings
from include.warehouse import Role, connect
from tests.bench.telemetry import STREAM

PIECE_BYTES = 256 << 10


def land(job: dict[str, Any]) -> dict[str, Any]:
    """Lands what the zone holds, after a small zone into a database for that purpose."""
    since, before = datetime.fromisoformat(job["arrived_from"]), datetime.fromisoformat(job["arrived_before"])
    there = {name: os.environ[name] for name in job["warm_up"]}
    _point_to(job["warm_up"])
    land_pending(STREAM, arrived_from=since, arrived_before=before)
    _point_to(there)
    started = time.perf_counter()
    result = land_pending(STREAM, arrived_from=since, arrived_before=before)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, **result.counts()}


def _point_to(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    get_settings.cache_clear()


def copy(job: dict[str, Any]) -> dict[str, Any]:
    """Copies rows prepared in memory into the raw table, in one transaction on one connection, as landing does."""
    rows, few = memoryview(Path(job["rows"]).read_bytes()), memoryview(Path(job["warm_up_rows"]).read_bytes())
    _copy(few, job["form"], job["warm_up_database"])
    started = time.perf_counter()
    count = _copy(rows, job["form"], None)
    return {"seconds": time.perf_counter() - started, "accepted": count}


def _copy(rows: memoryview, form: str, database: str | None) -> int:
    columns = sql.SQL(", ").join(map(sql.Identifier, raw_columns(load_contract(STREAM))))
    statement = sql.SQL("copy {} ({}) from stdin (format {})").format(sql.Identifier("raw", STREAM), columns, sql.SQL(form))
    with connect(Role.LOADER, database=database) as connection, connection.cursor() as cursor:
        with cursor.copy(statement) as stream:
            for at in range(0, len(rows), PIECE_BYTES):
                stream.write(rows[at : at + PIECE_BYTES])
        return cursor.rowcount


def export(connection: psycopg.Connection, form: str, path: Path, limit: int | None = None) -> None:
    """Writes the rows of the raw table as COPY wants them, in the order in which landing stored them.

    Args:
        connection: As a role that may read raw.
        form: `text`, `csv` or `binary`.
        path: Where to.
        limit: At most so many rows; all when None.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, raw_columns(load_contract(STREAM))))
    query = sql.SQL("copy (select {} from {} order by tableoid, ctid limit {}) to stdout (format {})")
    statement = query.format(columns, sql.Identifier("raw", STREAM), sql.Literal(limit), sql.SQL(form))
    with path.open("wb") as file, connection.cursor() as cursor, cursor.copy(statement) as stream:
        for piece in stream:
            file.write(piece)


if __name__ == "__main__":
    request = json.load(sys.stdin)
    outcome = {"land": land, "copy": copy}[request["do"]](request)
    json.dump(outcome, sys.stdout)
