"""Rows into the warehouse: what is stored already, COPY, replacement of rows, quarantine. Everything runs inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from include.contracts.model import EVENT_AT, Contract, LogicalType
from include.landing import binary
from include.landing.columns import DTYPES, MICROSECONDS
from include.landing.crash import Step, crash_point
from include.landing.errors import RowsRefused
from include.landing.identity import CONTENT_HASH, EVENT_ID, EXTRA
from include.landing.rows import TENANT, Code, RowError
from include.landing.validate import ARRIVED_AT, FILE_POSITION, ROW_NUMBER, RejectedRow
from include.landing.winner import STORED, Copy

KNOWN_AT = "_known_at"
LANDED_AT = "_landed_at"
BATCH_ID = "_batch_id"
FILE_ID = "_file_id"
MAX_REFUSED_ROWS = 1000
_ENVELOPE: dict[str, pl.DataType] = {
    EVENT_ID: pl.Binary(),
    ARRIVED_AT: MICROSECONDS,
    KNOWN_AT: MICROSECONDS,
    LANDED_AT: MICROSECONDS,
    BATCH_ID: pl.Int64(),
    FILE_ID: pl.Int64(),
    ROW_NUMBER: pl.Int32(),
    CONTENT_HASH: pl.Binary(),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SPANS = 256
_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)


def raw_columns(contract: Contract) -> list[str]:
    """Columns that landing writes, in the order of the raw table."""
    columns = [TENANT, EVENT_ID, EVENT_AT, ARRIVED_AT, KNOWN_AT, LANDED_AT, BATCH_ID, FILE_ID, ROW_NUMBER, CONTENT_HASH, EXTRA]
    for field in contract.columns:
        columns += [name for name in (field.name, field.pseudonym) if name is not None and name != EVENT_AT]
    return columns


def planned_columns(contract: Contract) -> list[str]:
    """Columns that plans are made by: those of the raw table's indexes. Autovacuum looks at the others."""
    return list(dict.fromkeys([TENANT, EVENT_ID, EVENT_AT, BATCH_ID, *contract.bucket_columns]))


def prefer_index_probes(connection: psycopg.Connection) -> None:
    """For the rest of the transaction, finds stored rows by one index probe each: the cost follows the batch, however much is stored."""
    connection.execute("set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_seqscan = off; set local enable_material = off")


def stored_query(contract: Contract, bounds: tuple[datetime, datetime] | None) -> sql.Composed:
    """The query for stored copies; its parameters are `key_parameters`.

    Args:
        contract: The stream's contract.
        bounds: Least and greatest event time sought, where the table is partitioned by it: literal, so that the planner leaves other partitions out.
    """
    version: sql.Composable = sql.SQL("null::bigint")
    if contract.version_field:
        version = _physical(sql.Identifier("r", contract.version_field), contract.by_name[contract.version_field].logical_type)
    return sql.SQL(
        "select k.event_id, r._content_hash, {version}, {arrived}, f.content_hash, r._row_number, {known}, {published}, r._file_id, r.event_at, r._batch_id "
        "from {keys} cross join lateral (select * from {table} r where {match} offset 0) r join ops.file f on f.file_id = r._file_id"
    ).format(
        version=version,
        arrived=_physical(sql.SQL("r._arrived_at"), LogicalType.TIMESTAMP),
        known=_physical(sql.SQL("r._known_at"), LogicalType.TIMESTAMP),
        published=_physical(sql.SQL("f.published_at"), LogicalType.TIMESTAMP),
        keys=_keys(contract),
        table=_table(contract),
        match=_match(bounds),
    )


def stored_copies(connection: psycopg.Connection, contract: Contract, frame: pl.DataFrame) -> dict[bytes, tuple[Copy, datetime, int]]:
    """Copies in the raw table of the events of a frame.

    Where the table is partitioned by event time, spans of time in which nothing is stored are found first, by one probe each: most of what is on time is new.

    Returns:
        By event_id: the copy, its event time, and the batch that wrote it.
    """
    keys = frame.select(EVENT_ID, EVENT_AT)
    if contract.partition == "month" and keys.height:
        keys = _in_occupied_spans(connection, contract, keys)
    if not keys.height:
        return {}
    keys = keys.unique(EVENT_ID)
    query = stored_query(contract, _bounds(contract, keys[EVENT_AT]))
    rows = connection.execute(query, key_parameters(contract, keys[EVENT_ID], keys[EVENT_AT]), prepare=False, binary=True)
    return {row[0]: (Copy(STORED, *row[1:9]), row[9], row[10]) for row in rows}


@dataclass(frozen=True)
class StoredRow:
    """A row of a raw table: where it came from, and as JSON text its fields and `_extra`."""

    tenant_id: str
    file_id: int
    row_number: int
    arrived_at: datetime
    content: str


def stored_rows(connection: psycopg.Connection, contract: Contract, events: Mapping[bytes, datetime]) -> dict[bytes, StoredRow]:
    """Rows of the raw table by event_id, for events that are given with the event time they are stored under."""
    if not events:
        return {}
    ids, moments = list(events), pl.Series([moment.replace(tzinfo=None) for moment in events.values()], dtype=pl.Datetime("us"))
    query = sql.SQL("select k.event_id, r.tenant_id, r._file_id, r._row_number, r._arrived_at, {content}::text from {keys} join {table} r on {match}").format(
        content=content_of(contract, sql.SQL("r")), keys=_keys(contract), table=_table(contract), match=_match(_bounds(contract, moments))
    )
    rows = connection.execute(query, key_parameters(contract, pl.Series(ids, dtype=pl.Binary), moments), prepare=False)
    return {bytes(row[0]): StoredRow(*row[1:]) for row in rows}


def whole_rows(connection: psycopg.Connection, contract: Contract, events: Mapping[bytes, datetime]) -> tuple[pl.DataFrame, list[str]]:
    """Rows of the raw table, for events that are given with the event time they are stored under.

    Returns:
        The rows with all raw columns, as `write_rows` takes them and `_extra` as JSON text; and the file format of each.
    """
    names = raw_columns(contract)
    moments = pl.Series([moment.replace(tzinfo=None) for moment in events.values()], dtype=pl.Datetime("us"))
    query = sql.SQL("select {columns}, f.file_format from {keys} join {table} r on {match} join ops.file f on f.file_id = r._file_id").format(
        columns=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("r", name)) if name == EXTRA else sql.Identifier("r", name) for name in names),
        keys=_keys(contract),
        table=_table(contract),
        match=_match(_bounds(contract, moments)),
    )
    rows = connection.execute(query, key_parameters(contract, pl.Series(list(events), dtype=pl.Binary), moments), prepare=False, binary=True).fetchall()
    own = {name: DTYPES[field.logical_type] for name, field in contract.column_by_name.items()}
    zoned = pl.Datetime("us", "UTC")
    kinds = {name: zoned if kind == pl.Datetime("us") else kind for name, kind in (_ENVELOPE | own).items()}
    frame = pl.DataFrame([row[:-1] for row in rows], schema={name: kinds.get(name, pl.String()) for name in names}, orient="row")
    return frame.with_columns(pl.col(zoned).dt.replace_time_zone(None)), [row[-1] for row in rows]


def content_of(contract: Contract, row: sql.Composable) -> sql.Composed:
    """What a row of the raw table says, as jsonb: the contract's fields and `_extra`."""
    left_out = sorted(set(raw_columns(contract)) - set(contract.column_by_name) - {EXTRA})
    return sql.SQL("(to_jsonb({}) - {}::text[])").format(row, sql.Literal(left_out))


def restate(connection: psycopg.Connection, contract: Contract, events: Mapping[bytes, tuple[Copy, datetime]], batch_id: int) -> None:
    """Gives stored rows the envelope of a copy that says the same; nothing is copied anew.

    A row whose knowledge time changes counts as changed by the batch, so that models read it again. A row that only changes hands keeps its batch: models read
    nothing of it that changed.

    Args:
        connection: In a transaction.
        contract: The stream's contract.
        events: By event_id the copy whose envelope counts, and the event time that the row is stored under.
        batch_id: The batch.
    """
    moments = pl.Series([moment.replace(tzinfo=None) for _, moment in events.values()], dtype=pl.Datetime("us"))
    place = [TENANT, EVENT_AT, *contract.bucket_columns]
    query = sql.SQL(
        "with given as (select * from unnest(%(ids)s::bytea[], %(at)s::timestamptz[], %(arrived)s::timestamptz[], %(file)s::bigint[], %(row)s::int[], "
        "%(known)s::timestamptz[]) as k (event_id, event_at, arrived_at, file_id, row_number, known_at)), "
        "changed as (update {table} r set _arrived_at = k.arrived_at, _file_id = k.file_id, _row_number = k.row_number, _known_at = k.known_at, "
        "_batch_id = case when r._known_at = k.known_at then r._batch_id else %(batch)s end, "
        "_landed_at = case when r._known_at = k.known_at then r._landed_at else clock_timestamp() end "
        "from given k where {match} returning {place}, old._batch_id is distinct from new._batch_id as is_read_again) "
        "insert into ops.row_change (stream, batch_id, tenant_id, position) "
        "select %(stream)s, %(batch)s, tenant_id, jsonb_build_object({position}) from changed where is_read_again"
    ).format(
        table=_table(contract),
        match=_match(_bounds(contract, moments)),
        place=sql.SQL(", ").join(sql.Identifier("r", name) for name in place),
        position=sql.SQL(", ").join(sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier(name)) for name in place),
    )
    copies = [copy for copy, _ in events.values()]
    parameters = {
        "ids": list(events),
        "at": [moment for _, moment in events.values()],
        "arrived": [moment_of(copy.arrived_us) for copy in copies],
        "file": [copy.file_id for copy in copies],
        "row": [copy.row_number for copy in copies],
        "known": [moment_of(copy.known_us) for copy in copies],
        "batch": batch_id,
        "stream": contract.stream,
    }
    connection.execute(query, parameters, prepare=False)


def moment_of(microseconds: int) -> datetime:
    """A time from microseconds since 1970 UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _in_occupied_spans(connection: psycopg.Connection, contract: Contract, keys: pl.DataFrame) -> pl.DataFrame:
    """Of the keys those in whose span of event time the table has any row; the spans are equal parts of the time that the keys cover."""
    moments = keys[EVENT_AT].to_physical().to_numpy()
    first, last = int(moments.min()), int(moments.max())
    width = (last - first) // min(_MAX_SPANS, keys.height) + 1
    spans = (moments - first) // width
    starts = pl.Series(first + np.unique(spans) * width).cast(pl.Datetime("us"))
    query = sql.SQL(
        "select ((extract(epoch from s.span_start) * 1000000)::bigint - {first}) / {width} from unnest(%s) as s (span_start) "
        "where exists (select from {table} r where r.event_at >= s.span_start and r.event_at < s.span_start + {width} * interval '1 microsecond' and {bounds})"
    ).format(
        first=sql.Literal(first),
        width=sql.Literal(width),
        table=_table(contract),
        bounds=_between(_bounds(contract, keys[EVENT_AT])),
    )
    occupied = [row[0] for row in connection.execute(query, [binary.timestamptz_array(starts)], prepare=False)]
    return keys.filter(pl.Series(np.isin(spans, occupied)))


def write_rows(connection: psycopg.Connection, contract: Contract, frame: pl.DataFrame, data: bytes, replaced: dict[bytes, datetime], batch_id: int) -> int:
    """Writes rows, removing first the stored rows that they replace, whose positions go to `ops.row_change`.

    Args:
        connection: In a transaction.
        contract: The stream's contract.
        frame: Rows with all raw columns.
        data: The same rows, `encoded`.
        replaced: Event time of the stored row, by event_id, for rows that replace one.
        batch_id: The batch.

    Returns:
        Number of rows written minus number of rows removed.

    Raises:
        RowsRefused: If the server refuses rows; all culprits are named. The caller rolls back.
    """
    refused: dict[tuple[int, int], str] = {}
    grown = _write(connection, contract, frame, data, replaced, batch_id, refused)
    if refused:
        raise RowsRefused(refused)
    return grown


def write_quarantine(
    connection: psycopg.Connection,
    stream: str,
    batch_id: int,
    rows: Sequence[tuple[int, str, datetime, RejectedRow]],
    unreadable: Sequence[tuple[int, str, datetime, str, bytes]],
) -> int:
    """Writes rejected rows and unreadable files.

    Args:
        connection: In a transaction.
        stream: The stream.
        batch_id: The batch.
        rows: file_id, tenant of the file, arrival and row.
        unreadable: file_id, tenant, arrival, reason and first bytes of files quarantined whole.

    Returns:
        Number of rows written.
    """
    statement = "copy ops.quarantine (stream, tenant_id, file_id, row_number, batch_id, codes, errors, original, arrived_at) from stdin (format binary)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["text", "text", "int8", "int4", "int8", "text[]", "jsonb", "bytea", "timestamptz"])
        for file_id, tenant, arrived_at, row in rows:
            codes, errors = codes_and_errors(row.errors)
            copy.write_row((stream, row.tenant_id or tenant, file_id, row.row_number, batch_id, codes, Jsonb(errors), row.original, arrived_at))
        for file_id, tenant, arrived_at, reason, head in unreadable:
            codes, errors = codes_and_errors([RowError(Code.UNREADABLE_FILE, None, None, reason)])
            copy.write_row((stream, tenant, file_id, None, batch_id, codes, Jsonb(errors), head, arrived_at))
    return len(rows) + len(unreadable)


def codes_and_errors(errors: Sequence[RowError]) -> tuple[list[str], list[dict[str, str | None]]]:
    """Distinct codes in the order of the errors, and the errors as they are stored."""
    return list(dict.fromkeys(str(error.code) for error in errors)), [error.as_dict() for error in errors]


def encoded(contract: Contract, frame: pl.DataFrame) -> bytes:
    """A frame with all raw columns as `write_rows` sends it: COPY's binary format. Touches no connection."""
    return binary.copy_data(frame.select(raw_columns(contract)), [EXTRA])


def _write(
    connection: psycopg.Connection,
    contract: Contract,
    frame: pl.DataFrame,
    data: bytes,
    replaced: dict[bytes, datetime],
    batch_id: int,
    refused: dict[tuple[int, int], str],
) -> int:
    """Writes a frame in a savepoint; where the server refuses it, halves it until the culprits are found."""
    if not frame.height:
        return 0
    try:
        with connection.transaction():
            removed = _remove(connection, contract, frame, replaced, batch_id) if replaced else 0
            return _copy(connection, contract, data) - removed
    except _REFUSALS as error:
        if frame.height == 1:
            refused[int(frame[FILE_POSITION][0]), int(frame[ROW_NUMBER][0])] = str(error).splitlines()[0]
            if len(refused) > MAX_REFUSED_ROWS:
                raise
            return 0
    half = frame.height // 2
    return sum(_write(connection, contract, part, encoded(contract, part), replaced, batch_id, refused) for part in (frame[:half], frame[half:]))


def _copy(connection: psycopg.Connection, contract: Contract, data: bytes) -> int:
    columns = sql.SQL(", ").join(map(sql.Identifier, raw_columns(contract)))
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(_table(contract), columns)
    half = len(data) // 2
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            view = memoryview(data)
            copy.write(view[:half])
            crash_point(Step.MID_COPY)
            copy.write(view[half:])
        return cursor.rowcount


def _remove(connection: psycopg.Connection, contract: Contract, frame: pl.DataFrame, replaced: dict[bytes, datetime], batch_id: int) -> int:
    """Removes stored rows. Rows that this very batch wrote have no position that anyone could have seen, so they are not logged."""
    ids = [event_id for event_id in frame[EVENT_ID].to_list() if event_id in replaced]
    if not ids:
        return 0
    moments = pl.Series([replaced[event_id].replace(tzinfo=None) for event_id in ids], dtype=pl.Datetime("us"))
    position = sql.SQL(", ").join(sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier(name)) for name in (TENANT, EVENT_AT, *contract.bucket_columns))
    returned = sql.SQL(", ").join(sql.Identifier("r", name) for name in (TENANT, EVENT_AT, *contract.bucket_columns, BATCH_ID))
    query = sql.SQL(
        "with gone as (delete from {table} r using {keys} where {match} returning {returned}), "
        "logged as (insert into ops.row_change (stream, batch_id, tenant_id, position) "
        "select %(stream)s, %(batch)s, tenant_id, jsonb_build_object({position}) from gone where _batch_id <> %(batch)s) select count(*) from gone"
    ).format(table=_table(contract), keys=_keys(contract), match=_match(_bounds(contract, moments)), returned=returned, position=position)
    parameters = key_parameters(contract, pl.Series(ids, dtype=pl.Binary), moments) | {"stream": contract.stream, "batch": batch_id}
    row = connection.execute(query, parameters, prepare=False).fetchone()
    return int(row[0]) if row else 0


def _table(contract: Contract) -> sql.Identifier:
    return sql.Identifier("raw", contract.stream)


def _keys(contract: Contract) -> sql.SQL:
    if contract.partition == "month":
        return sql.SQL("unnest(%(ids)s, %(ats)s) as k (event_id, event_at)")
    return sql.SQL("unnest(%(ids)s) as k (event_id)")


def _match(bounds: tuple[datetime, datetime] | None) -> sql.Composable:
    if bounds is None:
        return sql.SQL("r.event_id = k.event_id")
    return sql.SQL("r.event_id = k.event_id and r.event_at = k.event_at and {}").format(_between(bounds))


def _between(bounds: tuple[datetime, datetime] | None) -> sql.Composable:
    """Literal bounds of event time, by which the planner leaves out partitions."""
    if bounds is None:
        return sql.SQL("true")
    low, high = (sql.Literal(f"{moment.isoformat()}+00") for moment in bounds)
    return sql.SQL("r.event_at between {}::timestamptz and {}::timestamptz").format(low, high)


def _bounds(contract: Contract, moments: pl.Series) -> tuple[datetime, datetime] | None:
    if contract.partition != "month":
        return None
    low, high = moments.min(), moments.max()
    if not isinstance(low, datetime) or not isinstance(high, datetime):
        raise TypeError("event times are missing")
    return low, high


def key_parameters(contract: Contract, ids: pl.Series, moments: pl.Series) -> dict[str, Any]:
    """Parameters of `stored_query`: event ids, and their event times where the table is partitioned by them."""
    parameters: dict[str, Any] = {"ids": binary.bytea_array(ids)}
    return parameters | {"ats": binary.timestamptz_array(moments)} if contract.partition == "month" else parameters


def _physical(column: sql.Composable, logical_type: LogicalType) -> sql.Composable:
    """The number by which a frame holds a time or date; other types as they are."""
    if logical_type is LogicalType.TIMESTAMP:
        return sql.SQL("(extract(epoch from {}) * 1000000)::bigint").format(column)
    if logical_type is LogicalType.DATE:
        return sql.SQL("({} - date '1970-01-01')::bigint").format(column)
    return column
