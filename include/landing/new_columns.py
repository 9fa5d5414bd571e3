"""New columns of raw tables in use: added in an instant, then filled from `_extra` in small batches that a crash interrupts at no harm.

A row is then what it would be had it landed under today's contract: the value stands in its column, typed and checked as landing does it; its key is gone from
`_extra`; its content hash is made anew, so that a later copy still counts as a duplicate. A value that the contract does not allow stays in `_extra` and is
counted. Rows of mapped files are left alone, because their `_extra` has the columns of the file, which a mapping has to name.

Every batch is a batch of the stream (kind `backfill`): models and the lake see its rows as changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from include.contracts import load_contract
from include.contracts.ddl import described_columns
from include.contracts.model import EVENT_AT, Contract, Field
from include.landing import store
from include.landing.columns import DTYPES, typed
from include.landing.corrections import row_text
from include.landing.crash import BackfillStep, crash_point
from include.landing.errors import LandingBusy, LandingError, LandingUnbalanced
from include.landing.identity import CONTENT_HASH, EVENT_ID, EXTRA, content_hashes, pseudonyms
from include.landing.load import PSEUDONYM_KEY
from include.landing.majors import judge
from include.landing.movements import Movement, Movements, Reason, rows_by_partition, write_movements
from include.landing.payload import encode_extra
from include.landing.rows import Chunk
from include.landing.validate import FILE_POSITION, ROW_NUMBER, check_field, check_rule
from include.settings import secret
from include.warehouse import Role, connect

BATCH_ROWS = 2000
_TYPELESS = ("csv",)  # formats whose values are text
_NESTED = ("ndjson", "json", "posts")  # formats whose fields stand at paths of an object; in others a column has a name
_ABSENT, _IN_THE_WAY = object(), object()


@dataclass(frozen=True)
class Applied:
    """What `apply_contract` did with the raw table of a stream.

    Attributes:
        stream: The stream.
        added: Columns that it added.
        loosened: Columns that may be empty since.
        moved: Rows, out of whose `_extra` it moved values.
        kept: Rows that keep a value in `_extra` because the contract does not allow it.
        batches: Transactions committed.
    """

    stream: str
    added: tuple[str, ...] = ()
    loosened: tuple[str, ...] = ()
    moved: int = 0
    kept: int = 0
    batches: int = 0


def apply_contract(stream: str, *, again: bool = False, batch_rows: int = BATCH_ROWS, progress: Callable[[Applied], None] | None = None) -> Applied:
    """Brings the raw table of a stream to its contract while it is in use, and fills new columns from `_extra`. Run again, it goes on where it was interrupted.

    Args:
        stream: The stream.
        again: Also look at rows that were looked at before: some may have landed meanwhile under an older contract.
        batch_rows: Most rows of a transaction.
        progress: Called after each transaction.

    Raises:
        LandingBusy: If a lock was not free in time. What was committed is kept; run it again.
        LandingError: If the table has no columns of that kind, or cannot be brought there.
    """
    contract = load_contract(stream)
    with _locks_told(stream), connect(Role.LOADER, autocommit=True) as connection:
        free = connection.execute("select pg_try_advisory_lock(hashtextextended('tidemark.backfill.' || %s, 0))", (stream,)).fetchone()
        if not free or not free[0]:
            raise LandingBusy(f"columns of {stream} are being filled by another process; wait for it")
        added, loosened = _bring_columns(connection, contract)
        if again:
            connection.execute(
                "update ops.added_column set last_event_at = null, last_event_id = null, moved_rows = 0, kept_rows = 0, backfilled_at = null where stream = %s",
                (stream,),
            )
        return _Backfill(connection, contract, Applied(stream, added, loosened), batch_rows, progress).run()


def fill_restored(stream: str, span: tuple[datetime, datetime] | None = None, *, batch_rows: int = BATCH_ROWS) -> Applied:
    """Moves values out of `_extra` in rows that came back from the lake as they had landed before columns were added; run again, it changes nothing.

    Until then a later copy of such a row would count as a correction. How far `apply_contract` has come with the rest of the table stays as it is.

    Args:
        stream: The stream.
        span: Event time [from, to) of the rows; None: all of them.
        batch_rows: Most rows of a transaction.

    Raises:
        LandingBusy: If a lock was not free in time. What was committed is kept; run it again.
    """
    contract = load_contract(stream)
    with _locks_told(stream), connect(Role.LOADER, autocommit=True) as connection:
        return _Backfill(connection, contract, Applied(stream), batch_rows, None).run_over(span)


@contextmanager
def _locks_told(stream: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        hint = error.diag.message_primary or "a lock was not free in time"
        raise LandingBusy(f"{stream}: {hint}. What was committed is kept; run it again.") from error


def _bring_columns(connection: psycopg.Connection, contract: Contract) -> tuple[tuple[str, ...], tuple[str, ...]]:
    present = {
        name: (pg_type, nullable)
        for name, pg_type, nullable in connection.execute(
            "select attname::text, format_type(atttypid, atttypmod), not attnotnull from pg_attribute "
            "where attrelid = to_regclass('raw.' || quote_ident(%s)) and attnum > 0 and not attisdropped",
            (contract.stream,),
        )
    }
    if not present:
        raise LandingError(f"there is no table raw.{contract.stream}; `tidemark up` makes it")
    added, loosened = [], []
    for name, pg_type, nullable, description in described_columns(contract):
        if name not in present:
            if not nullable:
                raise LandingError(f"raw.{contract.stream} lacks the required column {name}; stored rows have no value for it, so add it as optional")
            connection.execute("select ops.add_column(%s, %s, %s, %s)", (contract.stream, name, pg_type, description))
            added.append(name)
        elif present[name][0] != pg_type:
            raise LandingError(f"raw.{contract.stream}.{name} is {present[name][0]}, and the contract says {pg_type}; give the field another physicalName")
        elif nullable and not present[name][1]:
            connection.execute("select ops.loosen_column(%s, %s)", (contract.stream, name))
            loosened.append(name)
    return tuple(added), tuple(loosened)


class _Backfill:
    """One pass over the rows of a stream that have something in `_extra`."""

    def __init__(self, connection: psycopg.Connection, contract: Contract, done: Applied, batch_rows: int, progress: Callable[[Applied], None] | None) -> None:
        self._connection, self._contract, self._done, self._limit, self._progress = connection, contract, done, batch_rows, progress
        self._key = secret(PSEUDONYM_KEY).encode() if contract.personal_fields else None
        self._within: sql.Composable = sql.SQL("true")

    def run(self) -> Applied:
        """Moves values until no row is left, a transaction each `batch_rows` rows."""
        stream = self._contract.stream
        pending = self._connection.execute(
            "select column_name, last_event_at, last_event_id from ops.added_column where stream = %s and backfilled_at is null", (stream,)
        ).fetchall()
        fields = [field for field in self._contract.columns if field.name in {name for name, *_ in pending}]
        if not fields:
            return self._done
        names = [name for name, *_ in pending if name in {one for field in fields for one in (field.name, field.pseudonym)}]
        positions = [(at, bytes(event_id)) for name, at, event_id in pending if name in names and event_id is not None]
        position = min(positions, key=lambda each: each[1] if self._contract.partition == "hash" else each) if len(positions) == len(names) else None
        self._walk(
            fields,
            position,
            names,
            sql.SQL("last_event_at = %(at)s, last_event_id = %(id)s, moved_rows = moved_rows + %(moved)s, kept_rows = kept_rows + %(kept)s"),
        )
        with self._connection.transaction():
            self._connection.execute("select ops.lock_stream(%s)", (stream,))
            self._rewrite_corrections(fields, None)
            self._connection.execute(
                "update ops.added_column set backfilled_at = clock_timestamp() where stream = %s and column_name = any(%s)", (stream, names)
            )
        return self._done

    def run_over(self, span: tuple[datetime, datetime] | None) -> Applied:
        """Moves values of all columns that were ever added, in rows of a span of event time; None: in all rows."""
        rows = self._connection.execute("select column_name from ops.added_column where stream = %s", (self._contract.stream,))
        added = {name for (name,) in rows}
        fields = [field for field in self._contract.columns if field.name in added]
        names = added & {one for field in fields for one in (field.name, field.pseudonym)}
        if span is not None:
            self._within = sql.SQL("r.event_at >= {} and r.event_at < {}").format(*map(sql.Literal, span))
        if fields:
            # Rows that keep a value were counted when they were looked at first.
            self._walk(fields, None, sorted(names), sql.SQL("moved_rows = moved_rows + %(moved)s"))
        return self._done

    def _walk(self, fields: Sequence[Field], position: tuple[datetime, bytes] | None, names: Sequence[str], note: sql.SQL) -> None:
        """Moves values behind a position until no row is left, and notes in each transaction how far it is."""
        stream = self._contract.stream
        query = sql.SQL("update ops.added_column set {} where stream = %(stream)s and column_name = any(%(names)s)").format(note)
        while found := self._candidates(fields, position):
            crash_point(BackfillStep.AFTER_SELECTION)
            position = (found[-1][1], found[-1][0])
            with self._connection.transaction():
                self._connection.execute("select ops.lock_stream(%s)", (stream,))
                moved, kept = self._move(fields, dict(found))
                values = {"at": position[0], "id": position[1], "moved": moved, "kept": kept, "stream": stream, "names": list(names)}
                self._connection.execute(query, values)
                crash_point(BackfillStep.BEFORE_COMMIT)
            crash_point(BackfillStep.AFTER_COMMIT)
            self._done = replace(self._done, moved=self._done.moved + moved, kept=self._done.kept + kept, batches=self._done.batches + 1)
            if self._progress:
                self._progress(self._done)

    def _candidates(self, fields: Sequence[Field], position: tuple[datetime, bytes] | None) -> list[tuple[bytes, datetime]]:
        """The next events after a position, in order of identity, that may have something to move. Reads without a lock: the rows are looked at again."""
        order = [EVENT_AT, EVENT_ID] if self._contract.partition == "month" else [EVENT_ID]
        columns = sql.SQL(", ").join(sql.Identifier("r", name) for name in order)
        after: sql.Composable = sql.SQL("true")
        if position is not None:
            after = sql.SQL("({}) > ({})").format(columns, sql.SQL(", ").join(sql.Literal(value) for value in position[-len(order) :]))
        query = sql.SQL(
            "select r.event_id, r.event_at from {} as r join ops.file as f on f.file_id = r._file_id "
            "where {} and {} and f.mapping is null and r._extra ?| %s::text[] order by {} limit %s"
        ).format(sql.Identifier("raw", self._contract.stream), self._within, after, columns)
        with self._connection.transaction():
            store.prefer_index_probes(self._connection)
            self._connection.execute("set local enable_sort = off")  # one walk along the identity, however many pages it takes
            rows = self._connection.execute(query, (self._keys(fields), self._limit), prepare=False).fetchall()
        return [(bytes(event_id), event_at) for event_id, event_at in rows]

    def _keys(self, fields: Sequence[Field]) -> list[str]:
        """Keys of `_extra` below which, or as which, the fields may stand."""
        return sorted({key for field in fields for key in (field.path[0], ".".join(field.path), field.name)})

    def _move(self, fields: Sequence[Field], events: dict[bytes, datetime]) -> tuple[int, int]:
        """Moves the values of some rows, inside the caller's transaction. Returns how many rows moved and how many keep a value."""
        connection, contract = self._connection, self._contract
        connection.execute("select ops.lock_raw_changes()")
        store.prefer_index_probes(connection)
        frame, formats = store.whole_rows(connection, contract, events)
        if not frame.height:
            return 0, 0
        frame, changed, kept = moved_values(frame, formats, fields, contract, self._key)
        self._rewrite_corrections(fields, list(events))
        count = int(changed.sum())
        if not count:
            return 0, int(kept.sum())
        row = connection.execute("select nextval('ops.batch_id_seq'), clock_timestamp()").fetchone()
        if row is None:
            raise LandingUnbalanced("the warehouse gave no batch id")
        batch_id, started_at = int(row[0]), row[1]
        frame = frame.filter(pl.Series(changed))
        origins = frame[store.BATCH_ID].to_list()
        frame = frame.with_columns(
            pl.lit(batch_id, dtype=pl.Int64).alias(store.BATCH_ID),
            pl.lit(started_at.astimezone(UTC).replace(tzinfo=None), dtype=pl.Datetime("us")).alias(store.LANDED_AT),
            pl.lit(0, dtype=pl.Int32).alias(FILE_POSITION),
        )
        replaced = {event_id: at.replace(tzinfo=UTC) for event_id, at in frame.select(EVENT_ID, EVENT_AT).iter_rows()}
        grown = store.write_rows(connection, contract, frame, store.encoded(contract, frame), replaced, batch_id)
        if grown:
            raise LandingUnbalanced(f"{contract.stream}: {count} rows were written anew and the table grew by {grown}; nothing of the batch was kept")
        crash_point(BackfillStep.AFTER_REWRITE)
        write_movements(connection, contract.stream, batch_id, self._movements(frame, origins, batch_id))
        connection.execute(
            "insert into ops.batch (batch_id, stream, started_at, kind, files, landed, accepted, quarantined, duplicate, corrected) "
            "values (%s, %s, %s, 'backfill', 0, 0, 0, 0, 0, 0)",
            (batch_id, contract.stream, started_at),
        )
        connection.execute("update ops.stream_state set last_batch_id = %s where stream = %s", (batch_id, contract.stream))
        return count, int(kept.sum())

    def _movements(self, frame: pl.DataFrame, origins: Sequence[int], batch_id: int) -> Movements:
        """Rows leave the batch that had written them and belong to this one."""
        movements: Movements = Counter()
        for origin in set(origins):
            part = frame.filter(pl.Series([each == origin for each in origins]))
            for partition, count in rows_by_partition(self._connection, self._contract, part).items():
                movements[Movement(partition, batch_id, Reason.CORRECTION)] += count
                movements[Movement(partition, origin, Reason.CORRECTION)] -= count
        return movements

    def _rewrite_corrections(self, fields: Sequence[Field], event_ids: list[bytes] | None) -> None:
        """Brings what was said before, of some events or of all, to the same form as the rows: a copy that says it once more is to be recognised."""
        contract, last = self._contract, 0
        while True:
            found = self._connection.execute(
                """
                select c.correction_id, c.old_content::text, c.new_content::text, o.file_format, n.file_format, o.mapping, n.mapping
                from ops.correction as c left join ops.file as o on o.file_id = c.old_file_id left join ops.file as n on n.file_id = c.new_file_id
                where c.stream = %(stream)s and (%(ids)s::bytea[] is null or c.event_id = any(%(ids)s)) and c.correction_id > %(last)s
                    and (c.old_content -> '_extra' ?| %(keys)s::text[] or c.new_content -> '_extra' ?| %(keys)s::text[])
                order by c.correction_id limit %(limit)s
                """,
                {"stream": contract.stream, "ids": event_ids, "last": last, "keys": self._keys(fields), "limit": self._limit},
                prepare=False,
            ).fetchall()
            if not found:
                return
            last = found[-1][0]
            for side in (0, 1):
                chosen = [row for row in found if row[5 + side] is None]
                self._rewrite_side(
                    fields, ("old", "new")[side], [row[0] for row in chosen], [row[1 + side] for row in chosen], [row[3 + side] for row in chosen]
                )

    def _rewrite_side(self, fields: Sequence[Field], side: str, ids: list[int], contents: list[str], formats: list[str | None]) -> None:
        if not ids:
            return
        contract = self._contract
        documents = [json.loads(content) for content in contents]
        columns = {
            field.name: typed([document.get(field.name) for document in documents], field.logical_type, is_text=False).values for field in contract.columns
        }
        extras = [None if document.get(EXTRA) is None else encode_extra(document[EXTRA]) for document in documents]
        frame = pl.DataFrame([*(values.alias(name) for name, values in columns.items()), pl.Series(EXTRA, extras, dtype=pl.String)])
        # What landed before a file could be traced is taken for JSON, as most is.
        result, changed, _ = moved_values(frame, [form or _NESTED[0] for form in formats], fields, contract, self._key)
        query = sql.SQL(
            "update ops.correction as c set {content} = {form}, {hash} = %s "
            "from jsonb_populate_record(null::{table}, %s::jsonb) as row_of where c.correction_id = %s"
        ).format(
            content=sql.Identifier(f"{side}_content"),
            form=store.content_of(contract, sql.SQL("row_of")),
            hash=sql.Identifier(f"{side}_content_hash"),
            table=sql.Identifier("raw", contract.stream),
        )
        with self._connection.cursor() as cursor:
            cursor.executemany(query, [(result[CONTENT_HASH][row], row_text(result, row, contract), ids[row]) for row in np.flatnonzero(changed).tolist()])


def moved_values(
    frame: pl.DataFrame, formats: Sequence[str], fields: Sequence[Field], contract: Contract, key: bytes | None
) -> tuple[pl.DataFrame, NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows with the values of new columns moved out of `_extra`, by the rules of landing.

    Args:
        frame: Rows with all columns of the contract, and `_extra` as JSON text.
        formats: File format of each.
        fields: The new columns.
        contract: The stream's contract.
        key: The pseudonym key, where the stream has personal data.

    Returns:
        The rows with columns, pseudonyms, `_extra` and content hash; shape (rows,) which of them changed; and shape (rows,) which keep a value of these
        columns because the contract does not allow it.
    """
    count = frame.height
    before = frame[EXTRA].to_list()
    extras = [json.loads(extra) if extra is not None else {} for extra in before]
    kept = np.zeros(count, dtype=bool)
    places: dict[str, NDArray[np.bool_]] = {}
    for field in fields:
        is_empty = frame[field.name].is_null().to_list()
        found = [_value(extra, field, form) if empty else _ABSENT for extra, form, empty in zip(extras, formats, is_empty, strict=True)]
        values, wrong = _typed_values(found, formats, replace(field, required=False))
        fits = np.array([value is not _ABSENT for value in found], dtype=bool)
        fits[list(wrong)] = False
        kept[list(wrong)] = True
        places[field.name] = fits
        frame = frame.with_columns(values.zip_with(pl.Series(fits), frame[field.name]).alias(field.name))
    if contract.older:
        frame, refused = _along_majors(frame, places, contract)
        kept |= refused
    for rule in () if contract.older else contract.rules:
        named = set(pl.sql_expr(rule.expression).meta.root_names()) & places.keys()
        if named:
            chunk = _bare_chunk(count)
            check_rule(rule, frame, chunk)
            for name in named:
                broken = np.zeros(count, dtype=bool)
                broken[list(chunk.errors)] = True
                broken &= places[name]
                kept |= broken
                places[name] &= ~broken
                frame = frame.with_columns(pl.when(pl.Series(broken)).then(None).otherwise(pl.col(name)).alias(name))
    for field in fields:
        for row in np.flatnonzero(places[field.name]).tolist():
            _remove(extras[row], field, formats[row])
    after = [encode_extra(extra) if extra else None for extra in extras]
    changed = np.any(list(places.values()), axis=0) if places else np.zeros(count, dtype=bool)
    # What did not change keeps its text: jsonb writes numbers otherwise than their source did.
    frame = frame.with_columns(
        pl.Series(EXTRA, [new if moved else old for new, old, moved in zip(after, before, changed.tolist(), strict=True)], dtype=pl.String)
    )
    if key is not None:
        personal = [field for field in fields if field.is_personal]
        frame = frame.with_columns([pseudonyms(frame[field.name], key).alias(str(field.pseudonym)) for field in personal])
    return frame.with_columns(content_hashes(frame, contract.columns)), changed, kept


def _along_majors(frame: pl.DataFrame, places: dict[str, NDArray[np.bool_]], contract: Contract) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Takes back values that the major which a row follows does not know: of a copy that lands later they are in `_extra` too.

    A row that no major takes with its new values, or that would follow another one now and lose a column by that, stays as it is.

    Args:
        frame: Rows with the new values in place.
        places: By new column, shape (rows,), which rows got a value; changed here.
        contract: The stream's contract, which has older majors.

    Returns:
        The rows, and shape (rows,) which of them no major takes.
    """
    zoned = frame.with_columns(pl.col(pl.Datetime("us")).dt.replace_time_zone("UTC"))

    def along(major: Contract, rows: Sequence[int]) -> Chunk:
        part, chunk = zoned[list(rows)], _bare_chunk(len(rows))
        others = {name: part[name].is_not_null().to_list() for name in contract.column_by_name if name not in major.by_name}
        strangers = [dict.fromkeys((name for name, filled in others.items() if filled[row]), True) for row in range(len(rows))]
        extra = [encode_extra(names) if names else None for names in strangers]
        return replace(chunk, row_number=np.array(rows, dtype=np.int32), columns={name: part[name] for name in major.by_name}, extra=extra)

    chunk = replace(along(contract, range(frame.height)), again=along)
    judged = judge(chunk, contract, frame[EVENT_AT].to_physical().to_numpy()).accepted
    unknown: dict[int, set[str]] = {row: set(json.loads(extra or "{}")) for row, extra in judged.select(ROW_NUMBER, EXTRA).iter_rows()}
    refused, placed = np.zeros(frame.height, dtype=bool), {name: fits.copy() for name, fits in places.items()}
    for row in np.flatnonzero(np.any(list(placed.values()), axis=0)).tolist():
        refused[row] = row not in unknown
        loses_column = any(name not in placed or not placed[name][row] for name in unknown.get(row, ()))
        for name, fits in places.items():
            fits[row] &= not (refused[row] or loses_column or name in unknown[row])
    taken_back = {name: pl.Series(placed[name] & ~fits) for name, fits in places.items()}
    return frame.with_columns([pl.when(back).then(None).otherwise(pl.col(name)).alias(name) for name, back in taken_back.items()]), refused


def _typed_values(found: Sequence[object], formats: Sequence[str], field: Field) -> tuple[pl.Series, set[int]]:
    """Values typed and checked as landing does it, and the rows whose value the field may not have."""
    values = pl.Series([None] * len(found), dtype=DTYPES[field.logical_type])
    wrong: set[int] = set()
    is_text = np.array([form.partition(".")[0] in _TYPELESS for form in formats], dtype=bool)
    for typeless in (False, True):
        given: list[Any] = [None if value is _ABSENT or typeless != bool(text) else value for value, text in zip(found, is_text, strict=True)]
        if all(value is None for value in given):
            continue
        chunk = _bare_chunk(len(found))
        column = typed(given, field.logical_type, is_text=typeless)
        check_field(field, column, chunk)
        values = values.zip_with(column.values.is_null(), column.values)
        wrong |= chunk.errors.keys()
    return values, wrong


def _bare_chunk(count: int) -> Chunk:
    return Chunk(np.zeros(count, dtype=np.int32), np.arange(count, dtype=np.int32), [b""] * count, {}, [None] * count, [None] * count)


def _value(extra: dict[str, Any], field: Field, file_format: str) -> object:
    """The value of a field in `_extra`; `_ABSENT` where there is none."""
    if file_format.partition(".")[0] not in _NESTED:
        return next((extra[key] for key in (".".join(field.path), field.name) if key in extra), _ABSENT)
    node: Any = extra
    for part in field.path:
        if node is None or node == {}:
            return None  # a group without values, which the contract knows now
        if not isinstance(node, dict):
            return _IN_THE_WAY
        if part not in node:
            return _ABSENT
        node = node[part]
    return node


def _remove(extra: dict[str, Any], field: Field, file_format: str) -> None:
    """Takes a field out of `_extra`, with the groups that it leaves empty."""
    if file_format.partition(".")[0] not in _NESTED:
        for key in (".".join(field.path), field.name):
            if key in extra:
                del extra[key]
                return
        return
    above = [extra]
    for part in field.path[:-1]:
        node = above[-1].get(part)
        if not isinstance(node, dict):
            break
        above.append(node)
    for depth in range(len(above) - 1, -1, -1):
        part = field.path[depth]
        if depth == len(above) - 1 or not above[depth][part]:
            above[depth].pop(part, None)
