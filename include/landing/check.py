"""The check after the commit: good rows flow, and a stream that breaks its contract's promises is red."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import psycopg

from include.contracts import load_contract
from include.contracts.model import Contract
from include.landing import drift_report, ledger
from include.landing.errors import LandingCheckFailed
from include.landing.movements import check_partitions
from include.warehouse import Role, connect

log = logging.getLogger(__name__)


def check_landing(stream: str, *, now: datetime | None = None) -> None:
    """Compares what landed with what the contract promises. Fields that are new or sent no longer are a warning in the log.

    Args:
        stream: The stream.
        now: Clock for the silence; the present if not given.

    Raises:
        RowsUnaccounted: If a partition that moved since it was last compared does not hold what its movements say.
        LandingCheckFailed: If too large a share of the newest rows is in quarantine, the stream has been silent for too long, or files are set aside.
            The message names each broken promise. A stream in which nothing ever arrived breaks none.
    """
    check_partitions(stream)
    contract = load_contract(stream)
    with connect(Role.LOADER) as connection:
        moment = now or datetime.now(UTC)
        for line in drift_report.warnings(connection, contract, moment):
            log.warning("%s: %s", stream, line)
        problems = [*_quarantine(connection, contract), *_silence(connection, contract, moment), *_failed(connection, stream)]
    if problems:
        raise LandingCheckFailed(f"{stream}: {'; '.join(problems)}")


def newest_rows(connection: psycopg.Connection, stream: str, window: int) -> tuple[int, int]:
    """Rows and rows that are still open in quarantine, among the newest `window` rows of a stream, in order of batch, arrival and place in the file."""
    rows = quarantined = 0
    newest = connection.execute(
        "select f.file_id, f.landed, least(f.landed, (select count(*) from ops.quarantine as q where q.file_id = f.file_id and q.state = 'open')) "
        "from ops.file as f where f.kind = 'arrival' and f.stream = %s and f.state not in ('pending', 'failed', 'restored') and f.landed > 0 "
        "order by f.batch_id desc, f.arrived_at desc, f.address desc limit %s",
        (stream, window),
    )
    for file_id, landed, bad in newest:
        room = window - rows
        if landed > room and bad:
            row = connection.execute(
                "select count(*) from ops.quarantine where file_id = %(file)s and state = 'open' and row_number > %(room)s * -1 + greatest(%(landed)s, "
                "(select max(row_number) from ops.quarantine where file_id = %(file)s))",
                {"file": file_id, "landed": landed, "room": room},
            ).fetchone()
            bad = int(row[0]) if row else bad
        rows += min(landed, room)
        quarantined += min(bad, room)
        if rows >= window:
            break
    return rows, quarantined


def _quarantine(connection: psycopg.Connection, contract: Contract) -> list[str]:
    rows, quarantined = newest_rows(connection, contract.stream, contract.quarantine_window)
    if not rows or quarantined / rows <= contract.max_quarantined_share:
        return []
    reasons = connection.execute(
        "with last as (select codes from ops.quarantine where stream = %s and state = 'open' order by quarantine_id desc limit %s) "
        "select code, count(*) from last, unnest(codes) as code group by code order by 2 desc, 1 limit 3",
        (contract.stream, quarantined),
    ).fetchall()
    named = ", ".join(f"{code} {count:,}" for code, count in reasons)
    return [
        f"{quarantined:,} of the newest {rows:,} rows are in quarantine ({quarantined / rows:.1%}, allowed {contract.max_quarantined_share:.1%}): {named}. "
        f"See `tidemark quarantine list --stream {contract.stream}`"
    ]


def _silence(connection: psycopg.Connection, contract: Contract, now: datetime) -> list[str]:
    state = ledger.stream_state(connection, contract.stream)
    if state is None or state.last_arrived_at is None or now - state.last_arrived_at <= contract.freshness:
        return []
    return [f"nothing has arrived since {state.last_arrived_at:%Y-%m-%d %H:%M} UTC, longer than the {contract.freshness} that the contract allows"]


def _failed(connection: psycopg.Connection, stream: str) -> list[str]:
    rows = connection.execute(
        "select address, error from ops.file where kind = 'arrival' and stream = %s and state = 'failed' order by address", (stream,)
    ).fetchall()
    if not rows:
        return []
    address, error = rows[0]
    return [f"{len(rows)} files failed three times and are set aside, first {address}: {error}"]
