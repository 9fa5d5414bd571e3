"""Two majors of one contract, side by side: through landing into one raw table, and from there into one staging model."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.contracts import load_contract
from include.contracts.compile import table_columns
from include.landing import batch, check_partitions, land_pending
from include.landing.new_columns import apply_contract
from include.landing.quarantine import Filter, list_quarantined
from include.landing.replay import replay
from include.settings import REPOSITORY
from include.warehouse import Role, connect
from tests.support.landing import assert_balanced
from tests.support.payloads import at, iso, put, zone
from tests.support.press import STREAM, contracts_of, forget, make_table, press

RUNBOOK = REPOSITORY / "docs/runbooks/schema-change.md"


@pytest.fixture
def folder(warehouse, tmp_path: Path):
    """Majors 1 and 2 are taken, and the table was widened from one to the other."""
    with contracts_of(tmp_path / "contracts", {f"{STREAM}.yaml": press("2.0.0"), f"{STREAM}.v1.yaml": press("1.0.0")}) as here:
        make_table(here)
        yield here


def first(name: str, temp: float = 212.0, **more: Any) -> dict[str, Any]:
    return {"pressId": name, "at": iso(at(0, 1)), "temp": temp, "state": "running", "force": 3.5, **more}


def second(name: str, temperature: float = 100.0, **more: Any) -> dict[str, Any]:
    return {"pressId": name, "at": iso(at(0, 1)), "plate": {"temperature": temperature}, "state": 1, "force": 3.5, **more}


def land() -> dict[str, int]:
    result = land_pending(STREAM, arrived_from=at(-1), arrived_before=at(3))
    assert_balanced()
    check_partitions(STREAM, everything=True)
    assert result.failed_files == ()
    return {name: value for name, value in result.counts().items() if value and name not in {"files", "batches"}}


def rows(warehouse) -> dict[str, dict[str, Any]]:
    names = ["temperature_c", "state_code", "temperature_f", "state_word", "shift_code", "force_kn", "schema_version", "_extra"]
    with connect(Role.LOADER) as connection:
        found = connection.execute(f"select press_id, {', '.join(names)} from raw.{STREAM}").fetchall()
    return {row[0]: {name: value for name, value in zip(names, row[1:], strict=True) if value is not None} for row in found}


V1 = {"temperature_f": 212.0, "state_word": "running", "force_kn": 3.5}
V2 = {"temperature_c": 100.0, "state_code": 1, "force_kn": 3.5}


def test_the_widened_table_is_the_compiled_one(folder, warehouse) -> None:
    with connect(Role.OWNER) as connection:
        existing = connection.execute(
            "select column_name::text, data_type::text, is_nullable = 'YES' from information_schema.columns where table_schema = 'raw' and table_name = %s",
            (STREAM,),
        ).fetchall()
    assert sorted(existing) == sorted(table_columns(load_contract(STREAM)))


def test_rows_follow_the_version_they_name_else_the_one_that_knows_them(folder, warehouse) -> None:
    lines = [
        second("new"), second("new_named", schemaVersion="2.0.0"), first("old"), first("old_named", schemaVersion="1"),
        first("old_more", oddity=1),                     # unknown to both: the one that knows the rest
        {"pressId": "mixed", "at": iso(at(0, 1)), "temp": 212.0, "plate": {"temperature": 100.0}},  # each knows one of the two: the newer one
        {"pressId": "mostly_old", "at": iso(at(0, 1)), "temp": 212.0, "shift": "early", "plate": {"temperature": 100.0}},  # both take it, the older knows more
        {"pressId": "no_state", "at": iso(at(0, 1)), "temp": 212.0, "plate": None},
    ]  # fmt: skip
    put(STREAM, lines, arrived_at=at(0, 2))
    assert land() == {"landed": 8, "accepted": 8}
    assert rows(warehouse) == {
        "new": V2,
        "new_named": V2 | {"schema_version": "2.0.0"},
        "old": V1,
        "old_named": V1 | {"schema_version": "1"},
        "old_more": V1 | {"_extra": {"oddity": 1}},
        "mixed": {"temperature_c": 100.0, "_extra": {"temp": 212.0}},
        "mostly_old": {"temperature_f": 212.0, "shift_code": "early", "_extra": {"plate": {"temperature": 100.0}}},
        "no_state": {"temperature_f": 212.0, "_extra": {"plate": None}},
    }


def test_what_no_major_takes_is_refused_for_what_the_right_one_says(folder, warehouse) -> None:
    lines = [
        second("named_wrongly", schemaVersion="1.0.0"), first("unknown", schemaVersion="7.1.0"), first("no_version", schemaVersion="latest"),
        {"pressId": "neither", "at": iso(at(0, 1)), "state": "asleep"}, "{broken", second("good"),
    ]  # fmt: skip
    put(STREAM, lines, arrived_at=at(0, 2))
    assert land() == {"landed": 6, "accepted": 1, "quarantined": 5}
    errors = {row.row_number: {(error["code"], error["field"]) for error in row.errors} for row in list_quarantined(Filter(STREAM))}
    assert errors == {
        1: {("missing_required", "temperature_f"), ("wrong_type", "state_word")},
        2: {("unknown_version", "schema_version")},
        3: {("unknown_version", "schema_version")},
        4: {("missing_required", "temperature_c"), ("wrong_type", "state_code")},
        5: {("malformed_json", None)},
    }
    messages = {error["message"] for row in list_quarantined(Filter(STREAM, code="unknown_version")) for error in row.errors}
    assert messages == {"names a version that press_reading does not take; it takes 2 (2.0.0), 1 (1.0.0)"}


def test_an_event_said_in_both_versions_is_one_event(folder, warehouse) -> None:
    put(STREAM, [first("a"), second("b")], arrived_at=at(0, 2))
    land()
    put(STREAM, [second("a"), second("b"), first("b")], arrived_at=at(0, 3))
    assert land() == {"landed": 3, "duplicate": 1, "corrected": 2}
    assert rows(warehouse) == {"a": V2, "b": V1}
    assert warehouse.value("select count(*) from ops.correction") == 2
    put(STREAM, [first("b"), first("a")], arrived_at=at(0, 1, 30))
    assert land() == {"landed": 2, "duplicate": 1, "corrected": 1}, "what was corrected is recognised, whatever version said it"
    assert rows(warehouse) == {"a": V2, "b": V1}


@pytest.mark.parametrize("form", ["json", "csv"])
def test_what_the_server_refuses_is_not_tried_along_another_major(folder, warehouse, monkeypatch, form: str) -> None:
    warehouse.execute(f"alter table raw.{STREAM} add constraint odd check (press_id <> 'bad')")
    attempts: list[object] = []
    begin = batch.Attempt.run

    def counted(self: batch.Attempt) -> Any:
        attempts.append(self)
        assert len(attempts) < 9, "the same row is refused again and again"
        return begin(self)

    monkeypatch.setattr("include.landing.batch.Attempt.run", counted)
    old, new = [first("bad"), first("a"), first("bad", schemaVersion="1")], [second("bad"), second("b")]
    if form == "json":
        put(STREAM, [*old, *new], arrived_at=at(0, 2))
    else:
        zone().put(STREAM, pl.DataFrame(old, infer_schema_length=None).write_csv().encode(), source="test", arrived_at=at(0, 2), ext="csv")
        put(STREAM, new, arrived_at=at(0, 2, 1))
    assert land() == {"landed": 5, "accepted": 2, "quarantined": 3}
    assert set(rows(warehouse)) == {"a", "b"}
    assert all("copy_refused" in row.codes for row in list_quarantined(Filter(STREAM)))


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_every_format_knows_both(folder, warehouse, form: str) -> None:
    old, new = [first(f"old{n}") for n in range(3)], [{**second(f"new{n}"), "plate.temperature": 100.0} for n in range(3)]
    for each in new:
        del each["plate"]
    for number, part in enumerate((old, new)):
        if form == "json":
            data = json.dumps([second(f"new{n}") for n in range(3)] if number else part).encode()
        else:
            frame, buffer = pl.DataFrame(part), io.BytesIO()
            frame.write_csv(buffer) if form == "csv" else frame.write_parquet(buffer)
            data = buffer.getvalue()
        zone().put(STREAM, data, source="test", arrived_at=at(0, 2, number), ext=form)
    assert land() == {"landed": 6, "accepted": 6}
    assert rows(warehouse) == {f"old{n}": V1 for n in range(3)} | {f"new{n}": V2 for n in range(3)}


def test_a_row_that_was_too_early_lands_when_its_major_comes(warehouse, tmp_path: Path) -> None:
    with contracts_of(tmp_path / "contracts", {f"{STREAM}.yaml": press("1.0.0")}) as here:
        make_table(here)
        put(STREAM, [first("a"), second("b", schemaVersion="2.0.0"), second("c")], arrived_at=at(0, 2))
        assert land() == {"landed": 3, "accepted": 1, "quarantined": 2}
        (here / f"{STREAM}.yaml").write_text(press("2.0.0"))
        (here / f"{STREAM}.v1.yaml").write_text(press("1.0.0"))
        forget()
        applied = apply_contract(STREAM)
        assert (applied.added, applied.loosened, applied.moved) == (("temperature_c", "state_code"), ("temperature_f",), 0)
        result = replay(STREAM, Filter(), by="tester")
        assert (result.landed, result.accepted) == (2, 2)
        assert rows(warehouse) == {"a": V1, "b": V2 | {"schema_version": "2.0.0"}, "c": V2}
        (here / f"{STREAM}.v1.yaml").write_text(press("1.1.0", status="retired"))
        forget()
        put(STREAM, [first("d"), first("e", schemaVersion="1.0.0")], arrived_at=at(0, 3))
        assert land() == {"landed": 2, "quarantined": 2}
        assert {tuple(row.codes) for row in list_quarantined(Filter(STREAM))} == {("missing_required", "wrong_type"), ("unknown_version",)}


def test_new_columns_are_filled_along_the_major_of_each_row(folder, warehouse) -> None:
    """A column that one major takes in is not filled in rows of the other: their copies go on to leave it in `_extra`."""
    lines = [
        first("old", noise=3.5), second("new", noise=4.5), second("bad", noise="loud"), second("named", noise=5.5, schemaVersion="2"),
        {"pressId": "mixed", "at": iso(at(0, 1)), "temp": 212.0, "plate": {"temperature": 100.0}, "noise": 6.5},
    ]  # fmt: skip
    put(STREAM, lines, arrived_at=at(0, 2))
    assert land() == {"landed": 5, "accepted": 5}
    before = rows(warehouse)
    noise = "      - {name: noise, physicalName: noise_db, logicalType: number, description: How loud.}\n      - name: schemaVersion"
    (folder / f"{STREAM}.yaml").write_text(press("2.1.0").replace("      - name: schemaVersion", noise))
    forget()
    done = apply_contract(STREAM)
    assert (done.added, done.moved, done.kept) == (("noise_db",), 3, 1)
    assert dict(warehouse.rows(f"select press_id, noise_db from raw.{STREAM}")) == {"old": None, "new": 4.5, "bad": None, "named": 5.5, "mixed": 6.5}
    after = rows(warehouse)
    assert {name: after[name] for name in ("old", "bad")} == {name: before[name] for name in ("old", "bad")}
    put(STREAM, lines, arrived_at=at(0, 3))
    assert land() == {"landed": 5, "duplicate": 4, "quarantined": 1}


def test_the_staging_model_of_the_runbook_maps_both(folder, warehouse) -> None:
    put(STREAM, [first("old"), second("new", 20.0, state=0), first("odd", state="idle")], arrived_at=at(0, 2))
    land()
    model = re.search(r"```sql\n(-- stg_press_reading.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    assert model is not None
    query = model.group(1).replace("{{ source('raw', 'press_reading') }}", f"raw.{STREAM}")
    with connect(Role.TRANSFORMER) as connection:
        found = connection.execute(
            f"with model as ({query.rstrip().rstrip(';')}) select press_id, temperature_c, state_code, force_kn from model order by 1".encode()
        ).fetchall()
    assert found == [("new", 20.0, 0, 3.5), ("odd", 100.0, 0, 3.5), ("old", 100.0, 1, 3.5)]
