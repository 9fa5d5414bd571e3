"""Removing rows of raw as an erasure does."""

from __future__ import annotations

from include.warehouse import Role, connect


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
