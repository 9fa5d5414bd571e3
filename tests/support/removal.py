"""Removing rows of raw as an erasure does, and as the retention of months does."""

from __future__ import annotations

from datetime import date

from include.warehouse import Role, connect


def forget_month(stream: str, month: date) -> None:
    """Takes a month out of raw as retention does, without a lake to hold it.

    Args:
        stream: The stream.
        month: First day of the month.
    """
    with connect(Role.OWNER) as connection:
        gone = connection.execute(
            f"delete from raw.{stream} where date_trunc('month', event_at at time zone 'UTC')::date = %s",  # type: ignore[arg-type]
            (month,),
        ).rowcount
        assert gone > 0
        connection.execute(
            "insert into ops.partition_state (stream, month, state, row_count, content_digest) values (%s, %s, 'expired', %s, '\\x00')", (stream, month, gone)
        )


def remove_event(stream: str, where: str, *, may_be_none: bool = False) -> int:
    """Removes raw rows of a device stream under the stream's lock, with a batch id, logging where they stood.

    Args:
        stream: The stream.
        where: Condition of the rows.
        may_be_none: Whether it is fine when no row meets the condition.

    Returns:
        Number of rows removed.
    """
    with connect(Role.LOADER) as connection:
        connection.execute("select ops.lock_stream(%s)", (stream,))
        batch = connection.execute("select nextval('ops.batch_id_seq')").fetchone()[0]  # type: ignore[index]
        connection.execute("select ops.lock_raw_changes()")
        removed = connection.execute(
            f"with gone as (delete from raw.{stream} where {where} returning tenant_id, device_id, event_at) "  # type: ignore[arg-type]
            f"insert into ops.row_change (stream, batch_id, tenant_id, position) "
            f"select '{stream}', {batch}, tenant_id, jsonb_build_object('tenant_id', tenant_id, 'device_id', device_id, 'event_at', event_at) from gone"
        ).rowcount
        assert removed > 0 or may_be_none
        connection.execute("update ops.stream_state set last_batch_id = %s where stream = %s", (batch, stream))
    return removed
