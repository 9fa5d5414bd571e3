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
            booked = connection.execute("select coalesce(sum(accepted), 0)::bigint from ops.file where stream = %s", (stream,)).fetchone()
            assert stored is not None
            assert booked is not None
            assert stored == (booked[0], booked[0]), f"{stream}: {stored[0]} rows, {stored[1]} events, {booked[0]} accepted"
            quarantined = connection.execute(
                "select count(*), (select coalesce(sum(quarantined), 0) from ops.file where stream = %(s)s) from ops.quarantine where stream = %(s)s",
                {"s": stream},
            ).fetchone()
            assert quarantined is not None
            assert quarantined[0] == quarantined[1]
        unequal = connection.execute(
            "select b.batch_id from ops.batch as b left join ops.file as f using (batch_id) group by b.batch_id "
            "having (b.files, b.landed, b.accepted, b.quarantined, b.duplicate, b.corrected) is distinct from "
            "(count(f.file_id), sum(f.landed), sum(f.accepted), sum(f.quarantined), sum(f.duplicate), sum(f.corrected))"
        ).fetchall()
        assert unequal == []
