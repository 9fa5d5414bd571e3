"""Which files a data set names: exactly those that hold the rows it was made of, wherever they lay when it was read."""

from __future__ import annotations

from datetime import date, timedelta

import psycopg
import pytest

from include.landing import land_pending
from include.landing.quarantine import Filter
from include.landing.replay import replay
from include.warehouse import Role, connect
from ml.lifecycle.dataset import Dataset, load_dataset
from ml.lifecycle.provenance import DatasetReference, DatasetUntraceable, record_dataset, sources_of
from ml.lifecycle.versions import ModelCard
from tests.ml.conftest import FIRST_DAY, SCHEMA, SPEC, Pumps
from tests.support.payloads import at, put, telemetry

STREAM = "device_telemetry"


def read(connection: psycopg.Connection) -> DatasetReference:
    """Reads the made-up data set and enters it."""
    dataset: Dataset = load_dataset(connection, SPEC)
    return record_dataset(connection, "pump_leak", dataset, sources_of(connection, SPEC))


def land(day: float, *payloads: object) -> tuple[int, int]:
    """Lands one file that arrived on a day of March; gives its number and batch."""
    put(STREAM, payloads, arrived_at=at(day))  # type: ignore[arg-type]
    land_pending(STREAM, arrived_from=at(-100), arrived_before=at(200))
    with connect(Role.LOADER) as connection:
        row = connection.execute("select file_id, batch_id from ops.file order by file_id desc limit 1").fetchone()
    assert row is not None
    return row


def lake(owner: psycopg.Connection, day: str, first: int, last: int, state: str = "live", *, replaced_by: int | None = None) -> int:
    """Enters a lake file of a day as an export does."""
    row = owner.execute(
        "insert into ops.file (kind, stream, address, content_hash, version_tag, size_bytes, file_format, contract_version, arrived_at, state, event_date,"
        " first_batch_id, last_batch_id, row_count, content_digest, first_event_at, last_event_at, replaced_by, replaced_at, expired_at) values ('lake',"
        f" '{STREAM}', 'device_telemetry/event_date={day}/b{first}-{last}.parquet', '{state}', 't', 9, 'parquet', '1.0.0', now(), %(state)s, %(day)s,"
        " %(first)s, %(last)s, 1, '', %(day)s::timestamp at time zone 'UTC', %(day)s::timestamp at time zone 'UTC', %(by)s::bigint,"
        " case when %(state)s = 'replaced' or %(by)s::bigint is not null then now() end, case when %(state)s = 'expired' then now() end) returning file_id",
        {"state": state, "day": date.fromisoformat(day), "first": first, "last": last, "by": replaced_by},
    ).fetchone()
    assert row is not None
    return int(row[0])


def named(owner: psycopg.Connection, reference: DatasetReference) -> list[int]:
    return [row[0] for row in owner.execute("select file_id from ops.dataset_file where dataset_id = %s order by 1", (reference.dataset_id,))]


def test_a_data_set_names_the_files_up_to_its_horizon(pumps: Pumps, ml: psycopg.Connection) -> None:
    pumps.fill(days=90)  # January to March: the last outcome window ends at the start of 29 March
    owner = pumps.connection
    exported, first = land(1, telemetry("p1", at(0, 1)), telemetry("p1", at(1, 1), temperature=1e6))
    second, batch = land(2, telemetry("p1", at(1, 2)))
    late, _ = land(3, telemetry("p1", at(60)))
    owner.execute("update ops.file set first_event_at = null, last_event_at = null where file_id = %s", (late,))
    beyond, newest = land(4, telemetry("p1", at(2, 1)))
    assert first < batch < newest
    owner.execute("insert into ops.lake_state (stream, exported_batch_id) values (%s, %s)", (STREAM, first))
    live = lake(owner, "2026-03-01", 1, first)
    lake(owner, "2026-03-01", 1, first - 1 or 1, "replaced", replaced_by=live)
    lake(owner, "2026-02-01", 1, first + 1, "expired", replaced_by=live)  # merged, and swept since
    lost = lake(owner, "2026-02-01", 1, first, "expired")
    after = lake(owner, "2026-03-30", 1, first)
    owner.execute("update platform.rpt_freshness set consumed_batch_id = %s where stream = %s", (batch, STREAM))
    owner.execute("insert into platform.rpt_freshness values ('maintenance.fct_leak', %s, %s)", (STREAM, first))

    reference = read(ml)
    assert named(owner, reference) == sorted([live, lost, second])
    assert reference.files == 3
    assert reference.horizon == {"device_registry": 0, STREAM: batch, "maintenance_log": 0}
    assert {exported, late, beyond, after}.isdisjoint(named(owner, reference)), "in the lake, without rows, after the horizon, after the last outcome"
    shown = owner.execute("select shown, first_date, last_date, row_count, event_until from ops.dataset").fetchone()
    assert shown is not None
    assert shown[0]["maintenance.fct_leak"] == {STREAM: first, "maintenance_log": 0}
    assert shown[1:] == (FIRST_DAY, FIRST_DAY + timedelta(days=79), 24 * 80, at(28))

    # The same content again keeps the files it first had; other content is another data set.
    owner.execute("update platform.rpt_freshness set consumed_batch_id = %s where stream = %s", (newest, STREAM))
    assert read(ml) == reference
    pumps.execute(f"update features.feat_pump_daily set wear = 3 where device_id = 'pump_03' and feature_date = '{FIRST_DAY}'")
    other = read(ml)
    assert other.dataset_id != reference.dataset_id
    assert named(owner, other) == sorted([live, lost, second, beyond])


def test_rows_that_a_replay_landed_lead_to_their_file(pumps: Pumps, ml: psycopg.Connection) -> None:
    from include.contracts import load_contract
    from tests.support.stricter import land_under, with_field

    pumps.fill(days=90)
    with pytest.MonkeyPatch.context() as strict:
        land_under(strict, with_field(load_contract(STREAM), "temperature_c", maximum=50.0))
        file, batch = land(1, telemetry("p1", at(0, 1)), telemetry("p2", at(0, 1), temperature=20.0))
    assert replay(STREAM, Filter(), by="tester").accepted == 1
    again = pumps.connection.execute("select max(batch_id) from ops.batch").fetchone()
    assert again is not None
    pumps.connection.execute("insert into ops.lake_state (stream, exported_batch_id) values (%s, %s)", (STREAM, batch))
    pumps.connection.execute("update platform.rpt_freshness set consumed_batch_id = %s where stream = %s", (again[0], STREAM))
    assert named(pumps.connection, read(ml)) == [file]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("delete from platform.rpt_freshness where mart_name = 'maintenance.fct_leak'", "does not know maintenance.fct_leak"),
        ("update platform.rpt_freshness set consumed_batch_id = null where stream = 'device_telemetry'", "stream device_telemetry was never built"),
        ("drop table platform.rpt_freshness", "run `tidemark up`"),
    ],
)
def test_a_table_of_unknown_origin_is_not_trained_on(pumps: Pumps, ml: psycopg.Connection, change: str, message: str) -> None:
    pumps.execute(change)
    with pytest.raises(DatasetUntraceable, match=message):
        sources_of(ml, SPEC)


def test_who_trains_cannot_rewrite_what_was_trained_on(pumps: Pumps, ml: psycopg.Connection) -> None:
    pumps.fill(days=90)
    read(ml)
    for statement in ("update ops.dataset set horizon = '{}'", "delete from ops.dataset_file"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ml.execute(statement)  # type: ignore[call-overload]
        ml.rollback()


def test_cards_of_older_versions_are_still_read() -> None:
    card = ModelCard("s", SCHEMA, FIRST_DAY, FIRST_DAY, "0", 7)
    assert ModelCard.from_dict(card.to_dict()) == card
    older = card.to_dict()
    del older["dataset_id"]
    assert ModelCard.from_dict(older).dataset_id is None
