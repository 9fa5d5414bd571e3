"""What must be in the warehouse after a storm, computed from how the files were made and by the written rules of the contracts, not by the code of landing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from include.landing import check_partitions
from include.landing.errors import RowsUnaccounted
from include.warehouse import Role, connect
from tests.support.chaos.storm import Columns, Delivery, Row, iso

# The natural key in the raw table; a time is compared in the form in which sources write it.
KEYS = {
    "device_telemetry": ("device_id", "event_at"),
    "device_registry": ("device_id", "event_at"),
    "maintenance_log": ("log_id",),
    "orders": ("order_id",),
    "customers": ("customer_id", "event_at"),
}
# Which copy of an event counts, from the contracts: the newest version; the first arrival; the last one.
NEWEST_VERSION = {"device_registry", "maintenance_log", "orders"}
LAST_ARRIVAL = {"customers"}

Key = tuple[str, ...]
Place = tuple[bytes, int]
"""Where a row came from: SHA-256 of the file, line."""


@dataclass(frozen=True)
class Expected:
    """One stream.

    Attributes:
        events: The copy that counts, by tenant and key: its place and some of its columns.
        quarantined: How often each place must be in quarantine; line 0 stands for a whole file.
        landed: Rows in all files.
        files: Files as (address, SHA-256), with whether the file can be read.
    """

    events: dict[Key, tuple[Place, Columns]]
    quarantined: Counter[Place]
    landed: int
    files: dict[tuple[str, bytes], bool]


def expected(deliveries: Sequence[Delivery]) -> dict[str, Expected]:
    """What must come out, whatever the order of loading."""
    found: dict[str, Expected] = {}
    for stream in KEYS:
        arrived = [delivery for delivery in deliveries if delivery.stream == stream and not delivery.is_touch]
        copies: dict[Key, list[tuple[Any, Place, Columns]]] = defaultdict(list)
        quarantined: Counter[Place] = Counter()
        for delivery in arrived:
            if not delivery.rows:
                quarantined[delivery.sha, 0] += 1
            for line, row in enumerate(delivery.rows, start=1):
                if row.key is None:
                    quarantined[delivery.sha, line] += 1
                else:
                    copies[delivery.tenant, *row.key].append((_rank(stream, delivery, row, line), (delivery.sha, line), row.columns))
        events = {key: max(group, key=lambda copy: copy[0])[1:] for key, group in copies.items()}
        landed = sum(len(delivery.rows) or 1 for delivery in arrived)
        found[stream] = Expected(events, quarantined, landed, {(delivery.address, delivery.sha): bool(delivery.rows) for delivery in arrived})
    return found


def _rank(stream: str, delivery: Delivery, row: Row, line: int) -> tuple[Any, ...]:
    """Greatest for the copy that counts."""
    place = (delivery.arrived_at.timestamp(), int.from_bytes(delivery.sha, "big"), line)
    earliest = tuple(-part for part in place)
    if stream in NEWEST_VERSION:
        assert row.version is not None
        return (row.version.timestamp(), earliest)
    return place if stream in LAST_ARRIVAL else earliest


def faults(deliveries: Sequence[Delivery]) -> list[str]:
    """What is not as it must be in the warehouse, one line each; empty where every event is there exactly once and the books say so."""
    lines: list[str] = []
    for stream, truth in expected(deliveries).items():
        lines += [f"{stream}: {line}" for line in [*_events(stream, truth), *_quarantine(stream, truth), *_ledger(stream, truth)]]
    return lines + _books() + _movements()


def _rows(query: str | sql.Composed, *parameters: object) -> list[tuple[Any, ...]]:
    with connect(Role.OWNER) as connection:
        return connection.execute(query, parameters).fetchall()  # type: ignore[arg-type]


def _events(stream: str, truth: Expected) -> list[str]:
    names = sorted({name for _, columns in truth.events.values() for name in columns})
    listed = sql.SQL(", ").join(sql.Identifier("r", name) for name in ("tenant_id", *KEYS[stream], *names))
    rows = _rows(
        sql.SQL("select f.content_hash, r._row_number, r.event_id, {} from {} as r left join ops.file as f on f.file_id = r._file_id").format(
            listed, sql.Identifier("raw", stream)
        )
    )
    width = 4 + len(KEYS[stream])
    stored = {}
    for row in rows:
        key = tuple(value if isinstance(value, str) else iso(value) for value in row[3:width])
        stored[key] = ((bytes(row[0]), row[1]), dict(zip(names, row[width:], strict=True)))
    lines = []
    if len(rows) != len(stored) or len({bytes(row[2]) for row in rows}) != len(rows):
        lines.append(f"{len(rows)} rows in raw for {len(stored)} events")
    for what, keys in (("missing from raw", truth.events.keys() - stored.keys()), ("in raw and never sent", stored.keys() - truth.events.keys())):
        if keys:
            lines.append(f"{len(keys)} events {what}, e.g. {min(keys)}")
    other = [key for key in stored.keys() & truth.events.keys() if stored[key] != truth.events[key]]
    if other:
        lines.append(f"{len(other)} events in raw are not the copy that counts, e.g. {min(other)}: {stored[min(other)]} instead of {truth.events[min(other)]}")
    return lines


def _quarantine(stream: str, truth: Expected) -> list[str]:
    query = "select f.content_hash, coalesce(q.row_number, 0) from ops.quarantine as q join ops.file as f using (file_id) where q.stream = %s"
    stored = Counter((bytes(sha), line) for sha, line in _rows(query, stream))
    if stored == truth.quarantined:
        return []
    missing, surplus = truth.quarantined - stored, stored - truth.quarantined
    return [f"quarantine lacks {missing.total()} rows and has {surplus.total()} too many, e.g. line {[line for _, line in (missing + surplus)][:1]}"]


def _ledger(stream: str, truth: Expected) -> list[str]:
    rows = _rows(
        "select address, content_hash, state, attempts, error, landed, accepted, quarantined, duplicate + corrected from ops.file "
        "where kind = 'arrival' and stream = %s",
        stream,
    )
    lines = []
    stored = {(address, bytes(sha)): state for address, sha, state, *_ in rows}
    wanted = {file: "landed" if is_readable else "quarantined" for file, is_readable in truth.files.items()}
    wrong = sorted(file[0] for file in stored.keys() | wanted.keys() if stored.get(file) != wanted.get(file))
    if wrong or len(rows) != len(wanted):
        lines.append(f"{len(wrong)} files are not in the state they should be in, e.g. {wrong[:1]}")
    blamed = [f"{address} ({attempts} attempts, {error})" for address, _, state, attempts, error, *_ in rows if attempts or (error and state != "quarantined")]
    if blamed:
        lines.append(f"{len(blamed)} files are blamed for what was not their fault, e.g. {blamed[0]}")
    totals = [sum(row[column] for row in rows) for column in (5, 6, 7, 8)]
    events, quarantined = len(truth.events), truth.quarantined.total()
    if totals != [truth.landed, events, quarantined, truth.landed - events - quarantined]:
        lines.append(
            f"landed, accepted, quarantined, duplicate and corrected rows in ops.file: {totals}; sent: {truth.landed}, {events}, {quarantined}, the rest"
        )
    return lines


def _movements() -> list[str]:
    try:
        check_partitions(everything=True)
    except RowsUnaccounted as error:
        return [str(error)]
    return []


def _books() -> list[str]:
    """Balance of the ledger with its batches, the watermarks and the tables; and nothing half-made is left."""
    checks = {
        "batches that do not add up to their files": """
            select b.batch_id from ops.batch as b left join ops.file as f using (batch_id) group by b.batch_id
            having (b.files, b.landed, b.accepted, b.quarantined, b.duplicate, b.corrected)
                is distinct from (count(f.file_id), sum(f.landed), sum(f.accepted), sum(f.quarantined), sum(f.duplicate), sum(f.corrected))""",
        "watermarks that are not the last batch": """
            select s.stream from ops.stream_state as s
            where s.is_held or s.last_batch_id <> (select max(batch_id) from ops.batch as b where b.stream = s.stream)""",
        "quarantined rows without their batch": "select quarantine_id from ops.quarantine left join ops.batch using (batch_id) where batch.batch_id is null",
        "partitions that are not attached": """
            select oid::regclass::text from pg_class where relnamespace = 'raw'::regnamespace and relkind = 'r'
            and not relispartition""",
        "indexes that are not valid": "select indexrelid::regclass::text from pg_index where not indisvalid",
        "prepared transactions": "select gid from pg_prepared_xacts",
    }
    lines = []
    for what, query in checks.items():
        found = _rows(query)
        if found:
            lines.append(f"{what}: {len(found)}, e.g. {found[0][0]}")
    return lines
