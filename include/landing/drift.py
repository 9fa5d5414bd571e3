"""What sources send beyond their contract, and what they send no longer: counted in the load's own transaction, at a cost that follows the batch.

Unknown fields are those of `_extra`, of rows that landed and of rows that were refused. A field has vanished when it had values and has none in so many rows
that, by its former share of values, `EXPECTED_VALUES` of them should have had one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import Any

import msgspec
import polars as pl
import psycopg

from include.contracts.model import Contract
from include.landing.identity import EXTRA
from include.landing.ledger import Arrival
from include.landing.rows import TENANT, Chunk
from include.landing.validate import RejectedRow

SILENT_ROWS = 1000
EXPECTED_VALUES = 50
MAX_FIELDS = 300
OTHERS = "(others)"
OWN_SHAPE = ""  # instead of a mapping
_SAMPLE_CHARACTERS = 60
_NAME_CHARACTERS = 200
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}.*(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/ -]*")
_decode = msgspec.json.Decoder().decode


class Inferred(StrEnum):
    """What the values of an unknown field seem to be; the first six are types that a contract can give it."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"
    LIST = "list"
    OBJECT = "object"
    MIXED = "mixed"
    NULL = "null"


_KINDS: dict[type, Inferred] = {
    type(None): Inferred.NULL,
    bool: Inferred.BOOLEAN,
    int: Inferred.INTEGER,
    float: Inferred.NUMBER,
    list: Inferred.LIST,
    dict: Inferred.OBJECT,
}


class Kind(StrEnum):
    """What is wrong with a field: nobody knows it, or it is sent no longer."""

    UNKNOWN = "unknown"
    VANISHED = "vanished"


@dataclass
class Seen:
    """Sightings of one unknown field: rows, type and the first value."""

    rows: int
    inferred: Inferred
    sample: str | None


@dataclass
class Drift:
    """What one chunk, or one batch, shows.

    Attributes:
        unknown: By mapping (empty for rows of the stream's own shape), tenant and dotted path.
        rows: Accepted rows by mapping.
        values: Accepted rows with a value, by mapping and column, for columns that may be empty.
        lost: Columns that a mapping reads and a file lacks, by mapping; the rows are not known.
        names: Unknown fields by mapping, without those that are counted together.
    """

    unknown: dict[tuple[str, str, str], Seen] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: set[tuple[str, str]] = field(default_factory=set)
    names: set[tuple[str, str]] = field(default_factory=set)

    def add(self, other: Drift) -> None:
        """Adds what another chunk shows."""
        for key, seen in other.unknown.items():
            self.see(*key, seen)
        self.rows += other.rows
        self.values += other.values
        self.lost |= other.lost

    def see(self, mapping: str, tenant: str, name: str, seen: Seen) -> None:
        """Adds sightings of a field; of too many different names the rest is counted together, however many tenants send the same ones."""
        key = (mapping, tenant, name)
        if (mapping, name) not in self.names and name != OTHERS:
            if len(self.names) < MAX_FIELDS:
                self.names.add((mapping, name))
            else:
                key = (mapping, tenant, OTHERS)
        known = self.unknown.get(key)
        if known is None:
            self.unknown[key] = seen
        else:
            known.rows += seen.rows
            known.inferred = merged(known.inferred, seen.inferred)
            known.sample = seen.sample if known.sample is None else known.sample


def chunk_drift(chunk: Chunk, accepted: pl.DataFrame, refused: Sequence[RejectedRow], contract: Contract, arrivals: Sequence[Arrival]) -> Drift:
    """What a chunk shows; reads nothing but rows that have unknown fields.

    Args:
        chunk: The chunk; all of its rows come by the same mapping, or by none.
        accepted: Its accepted rows: `tenant_id`, columns and `_extra`.
        refused: The others.
        contract: The stream's contract.
        arrivals: Files of the batch.
    """
    if not len(chunk):
        return Drift()
    mapping = arrivals[int(chunk.file_position[0])].file.mapping
    extras = [(row.tenant_id or arrivals[row.file_position].tenant_id, row.extra) for row in refused if row.extra is not None]
    return drift_of(accepted, extras, contract, mapping, is_text=chunk.is_text or mapping is not None)


def drift_of(accepted: pl.DataFrame, refused: Sequence[tuple[str, str]], contract: Contract, mapping: str | None, *, is_text: bool) -> Drift:
    """What rows show.

    Args:
        accepted: Accepted rows: `tenant_id`, columns and `_extra`.
        refused: Tenant and `_extra` of refused rows that have one.
        contract: The stream's contract.
        mapping: Mapping of their file.
        is_text: Values are text of a format without types.
    """
    drift, source = Drift(), mapping or OWN_SHAPE
    mask = _masked if contract.personal_fields else str
    rows = [(tenant, extra, 1) for tenant, extra in refused]
    if accepted.height:
        drift.rows[source] = accepted.height
        for column in contract.columns:
            count = 0 if column.required else accepted.height - accepted[column.name].null_count()
            if count:
                drift.values[source, column.name] = count
        if accepted[EXTRA].null_count() < accepted.height:
            rows += accepted.select(TENANT, EXTRA).drop_nulls(EXTRA).group_by(TENANT, EXTRA, maintain_order=True).len().rows()
    counts: Counter[tuple[str, str]] = Counter()
    kinds: dict[tuple[str, str], set[Inferred]] = {}
    samples: dict[tuple[str, str], Any] = {}
    for tenant, extra, count in rows:
        for name, value in flattened(extra):
            key = (tenant, name)
            counts[key] += count
            kinds.setdefault(key, set()).add(_KINDS.get(type(value)) or inferred(value, is_text=is_text))
            if value is not None:
                samples.setdefault(key, value)
    for (tenant, name), count in counts.items():
        seen = Seen(count, reduce(merged, kinds[tenant, name]), _sample(samples.get((tenant, name)), mask))
        drift.see(source, tenant, _shown_name(name, contract), seen)
    return drift


def flattened(extra: str) -> list[tuple[str, Any]]:
    """Unknown fields of a row with their values, by dotted path: `{"a": {"b": 1}}` is `a.b`."""
    try:
        value = _decode(extra)
    except msgspec.DecodeError:  # half of a surrogate pair, or a number that strict JSON refuses
        value = json.loads(extra)
    leaves: list[tuple[str, Any]] = []
    _gather(value, "", leaves)
    return leaves


def inferred(value: object, *, is_text: bool) -> Inferred:
    """What a value seems to be."""
    return _inferred_text(value, is_text=is_text) if isinstance(value, str) else _KINDS[type(value)]


def merged(one: Inferred, other: Inferred) -> Inferred:
    """What the values of a field seem to be, of which some seem to be one thing and some another."""
    kinds = {one, other} - {Inferred.NULL}
    if len(kinds) < 2:
        return next(iter(kinds), Inferred.NULL)
    if kinds == {Inferred.INTEGER, Inferred.NUMBER}:
        return Inferred.NUMBER
    return Inferred.STRING if kinds <= {Inferred.STRING, Inferred.DATE, Inferred.TIMESTAMP} else Inferred.MIXED


def lost_columns(columns: Mapping[int, tuple[Sequence[str], Sequence[str]]], contract: Contract, arrivals: Sequence[Arrival]) -> Drift:
    """Drift of files that could not be read because their columns changed.

    Args:
        columns: Missing and unknown columns, by position of the file.
        contract: The stream's contract.
        arrivals: Files of the batch.
    """
    drift = Drift()
    for position, (missing, unknown) in columns.items():
        mapping, tenant = arrivals[position].file.mapping or OWN_SHAPE, arrivals[position].tenant_id
        drift.lost |= {(mapping, name) for name in missing}
        for name in unknown:
            drift.see(mapping, tenant, _shown_name(name, contract), Seen(0, Inferred.NULL, None))
    return drift


def write_drift(connection: psycopg.Connection, contract: Contract, batch_id: int, at: datetime, drift: Drift, *, is_load: bool) -> None:
    """Enters what a batch showed. A batch of a stream without optional fields that shows nothing writes nothing.

    Args:
        connection: In the transaction of the load, under the stream's lock.
        contract: The stream's contract.
        batch_id: The batch.
        at: When it began.
        drift: What it showed.
        is_load: Its rows came with files; rows of a replay say nothing about what is sent no longer.
    """
    if drift.unknown:
        _write_unknown(connection, contract, batch_id, at, drift)
    if drift.lost:
        _write_vanished(connection, contract, batch_id, at, dict.fromkeys(drift.lost, (at, 0)))
    if is_load and drift.rows:
        _write_values(connection, contract, batch_id, at, drift)


def _gather(group: dict[str, Any], above: str, leaves: list[tuple[str, Any]]) -> None:
    for key, value in group.items():
        if value and type(value) is dict:
            _gather(value, f"{above}{key}.", leaves)
        else:
            leaves.append((above + key, value))


def _inferred_text(value: str, *, is_text: bool) -> Inferred:
    if not is_text and not value[:4].isdigit():
        return Inferred.STRING
    if is_text and _INTEGER.fullmatch(value):
        return Inferred.INTEGER
    if is_text and _NUMBER.fullmatch(value):
        return Inferred.NUMBER
    if is_text and value.lower() in {"true", "false"}:
        return Inferred.BOOLEAN
    if _DATE.fullmatch(value):
        return Inferred.DATE
    return Inferred.TIMESTAMP if _TIME.fullmatch(value) else Inferred.STRING


def _sample(value: object, mask: Any) -> str | None:  # noqa: ANN401 - str or _masked
    if value is None:
        return None
    text = mask(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:_SAMPLE_CHARACTERS]}…"


def _shown_name(name: str, contract: Contract) -> str:
    """A field's name. Where the stream holds personal data, one that is no plain name may be a value: an address as a key, a first row taken for a header."""
    return (name if not contract.personal_fields or _PLAIN_NAME.fullmatch(name) else _masked(name))[:_NAME_CHARACTERS]


def _masked(text: str) -> str:
    """The shape of a text: letters become a, digits 9. What remains says how a value is written and not what it is."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", text))


def _write_unknown(connection: psycopg.Connection, contract: Contract, batch_id: int, at: datetime, drift: Drift) -> None:
    there = {
        (mapping, tenant, name): Inferred(found)
        for mapping, tenant, name, found in connection.execute(
            "select mapping, tenant_id, field, inferred_type from ops.schema_drift where stream = %s and kind = %s", (contract.stream, Kind.UNKNOWN)
        )
    }
    lines: dict[tuple[str, str, str], Seen] = {}
    names = {(mapping, name) for mapping, _, name in there if name != OTHERS}
    for key, seen in drift.unknown.items():
        mapping, tenant, name = key
        if (mapping, name) not in names and name != OTHERS:
            if len(names) < MAX_FIELDS:
                names.add((mapping, name))
            else:
                key = (mapping, tenant, OTHERS)
        if key in lines:
            lines[key].rows += seen.rows
        else:
            lines[key] = Seen(seen.rows, merged(seen.inferred, there[key]) if key in there else seen.inferred, seen.sample)
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.schema_drift as d
                (stream, kind, mapping, tenant_id, field, first_seen_at, last_seen_at, row_count, inferred_type, sample, contract_version, batch_id)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            on conflict (stream, kind, mapping, tenant_id, field) do update
            set last_seen_at = excluded.last_seen_at, row_count = d.row_count + excluded.row_count, inferred_type = excluded.inferred_type,
                sample = coalesce(d.sample, excluded.sample), contract_version = excluded.contract_version, batch_id = excluded.batch_id, ended_at = null
            """,
            [
                (contract.stream, Kind.UNKNOWN, *key, at, at, seen.rows, seen.inferred, seen.sample, contract.version, batch_id)
                for key, seen in sorted(lines.items())
            ],
        )


def _write_values(connection: psycopg.Connection, contract: Contract, batch_id: int, at: datetime, drift: Drift) -> None:
    """Notes which optional columns had values. A column that never had one is not listed; one that only retired majors have is to fall silent."""
    taken = {name for each in contract.majors for name in each.by_name}
    optional = [column.name for column in contract.columns if not column.required and column.name in taken]
    keys = [(mapping, name) for mapping in drift.rows for name in optional]
    rows = connection.execute(
        """
        with given as (select * from unnest(%(mappings)s::text[], %(fields)s::text[], %(rows)s::bigint[], %(values)s::bigint[]) as g (mapping, field, n, v))
        insert into ops.field_seen as s (stream, mapping, field, row_count, value_count, silent_rows, last_value_at)
        select %(stream)s, g.mapping, g.field, g.n, g.v, 0, %(at)s from given as g
        where g.v > 0 or exists (select from ops.field_seen as e where e.stream = %(stream)s and e.mapping = g.mapping and e.field = g.field)
        on conflict (stream, mapping, field) do update
        set row_count = s.row_count + excluded.row_count, value_count = s.value_count + excluded.value_count,
            silent_rows = case when excluded.value_count > 0 then 0 else s.silent_rows + excluded.row_count end,
            last_value_at = case when excluded.value_count > 0 then excluded.last_value_at else s.last_value_at end
        returning mapping, field, row_count, value_count, silent_rows, last_value_at
        """,
        {
            "stream": contract.stream,
            "mappings": [mapping for mapping, _ in keys],
            "fields": [name for _, name in keys],
            "rows": [drift.rows[mapping] for mapping, _ in keys],
            "values": [drift.values[key] for key in keys],
            "at": at,
        },
    ).fetchall()
    silent = {
        (mapping, name): (last, silent_rows)
        for mapping, name, row_count, value_count, silent_rows, last in rows
        if silent_rows >= SILENT_ROWS and value_count * silent_rows >= EXPECTED_VALUES * (row_count - silent_rows)
    }
    if silent:
        _write_vanished(connection, contract, batch_id, at, silent)
    mapped = [mapping for mapping in drift.rows if mapping != OWN_SHAPE]
    if mapped:  # a file that could be read has every column that its mapping reads
        connection.execute(
            "update ops.schema_drift set ended_at = %s where stream = %s and kind = %s and mapping = any(%s) and field <> all(%s) and ended_at is null "
            "and batch_id < %s",
            (at, contract.stream, Kind.VANISHED, mapped, optional, batch_id),
        )
    back = [(mapping, name) for mapping, name, *_, silent_rows, _ in rows if not silent_rows]
    if back:
        connection.execute(
            "update ops.schema_drift as d set ended_at = %(at)s from unnest(%(mappings)s::text[], %(fields)s::text[]) as k (mapping, field) "
            "where d.stream = %(stream)s and d.kind = %(kind)s and d.mapping = k.mapping and d.field = k.field and d.ended_at is null",
            {
                "at": at,
                "mappings": [mapping for mapping, _ in back],
                "fields": [name for _, name in back],
                "stream": contract.stream,
                "kind": Kind.VANISHED,
            },
        )


def _write_vanished(
    connection: psycopg.Connection, contract: Contract, batch_id: int, at: datetime, fields: dict[tuple[str, str], tuple[datetime, int]]
) -> None:
    """Enters fields that are sent no longer, given with the time of the last value and the rows since."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.schema_drift (stream, kind, mapping, tenant_id, field, first_seen_at, last_seen_at, row_count, contract_version, batch_id)
            values (%s, %s, %s, '', %s, %s, %s, %s, %s, %s)
            on conflict (stream, kind, mapping, tenant_id, field) do update
            set first_seen_at = excluded.first_seen_at, last_seen_at = excluded.last_seen_at, row_count = excluded.row_count,
                contract_version = excluded.contract_version, batch_id = excluded.batch_id, ended_at = null
            """,
            [
                (contract.stream, Kind.VANISHED, mapping, name, since, at, rows, contract.version, batch_id)
                for (mapping, name), (since, rows) in sorted(fields.items())
            ],
        )
