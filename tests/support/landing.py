"""What tests of landing compare: raw rows with the file they came in, and the books."""

from __future__ import annotations

from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from include.contracts import streams
from include.warehouse import Role, connect

VOLATILE = ("_landed_at", "_batch_id", "_file_id")


def raw_rows(stream: str, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows of a raw table by event, each with the address of its file; columns that differ from load to load may be left out."""
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=dict_row) as cursor:
        query = sql.SQL("select r.*, f.address as file from {} as r join ops.file as f on f.file_id = r._file_id").format(sql.Identifier("raw", stream))
        rows = cursor.execute(query).fetchall()
    key = "order_id" if stream == "orders" else "device_id" if "device_id" in (rows[0] if rows else {}) else "event_id"
    return sorted(({name: value for name, value in row.items() if name not in without} for row in rows), key=lambda row: (row[key], row["event_id"]))


def assert_balanced() -> None:
    """Asserts that ledger, batches, raw tables and quarantine add up, and that no event stands twice."""
    with connect(Role.OWNER) as connection:
        for stream in streams():
            table = sql.Identifier("raw", stream)
            stored = connection.execute(sql.SQL("select count(*), count(distinct event_id) from {}").format(table)).fetchone()
            booked = connection.execute("select coalesce(sum(accepted), 0)::bigint from ops.batch where stream = %s", (stream,)).fetchone()
            assert stored is not None
            assert booked is not None
            assert stored == (booked[0], booked[0]), f"{stream}: {stored[0]} rows, {stored[1]} events, {booked[0]} accepted"
            quarantined = connection.execute(
                "select count(*), (select coalesce(sum(quarantined), 0) from ops.file where stream = %(s)s) + (select coalesce(sum(r.quarantined), 0) "
                "from ops.file_replay as r join ops.file as f using (file_id) where f.stream = %(s)s and r.is_whole) from ops.quarantine where stream = %(s)s",
                {"s": stream},
            ).fetchone()
            assert quarantined is not None
            assert quarantined[0] == quarantined[1]
        unequal = connection.execute(
            "with lines as (select batch_id, 'load' as kind, landed, accepted, quarantined, duplicate, corrected from ops.file where batch_id is not null "
            "union all select batch_id, 'replay', landed, accepted, quarantined, duplicate, corrected from ops.file_replay) "
            "select b.batch_id from ops.batch as b left join lines as l using (batch_id, kind) group by b.batch_id "
            "having b.kind in ('load', 'replay') and (b.files, b.landed, b.accepted, b.quarantined, b.duplicate, b.corrected) is distinct from "
            "(count(l.landed), sum(l.landed), sum(l.accepted), sum(l.quarantined), sum(l.duplicate), sum(l.corrected))"
        ).fetchall()
        assert unequal == []
        # What a replay counts by row stands in the quarantine: rows that landed are marked with it, rows that failed have it in their history.
        unmarked = connection.execute(
            "select r.batch_id, r.file_id from ops.file_replay as r where not r.is_whole and (r.accepted, r.duplicate, r.corrected, r.quarantined) <> "
            "(select count(*) filter (where q.outcome = 'accepted' and q.replay_batch_id = r.batch_id), "
            "count(*) filter (where q.outcome = 'duplicate' and q.replay_batch_id = r.batch_id), "
            "count(*) filter (where q.outcome = 'corrected' and q.replay_batch_id = r.batch_id), "
            "count(*) filter (where exists (select from ops.quarantine_event as e where e.quarantine_id = q.quarantine_id and e.batch_id = r.batch_id "
            "and e.outcome = 'failed')) from ops.quarantine as q where q.file_id = r.file_id)"
        ).fetchall()
        assert unmarked == []
