"""Columns added to raw tables in use, and their values moved out of `_extra`: after it every row is what it would be had it landed under today's contract."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import psycopg
import pytest

from include.contracts import CONTRACTS_FOLDER, load_contract
from include.contracts.compile import table_columns
from include.contracts.propose import NewField, proposal
from include.landing import LandingBusy, LandingError, check_partitions, land_pending
from include.landing.crash import BackfillStep
from include.landing.new_columns import apply_contract
from include.stack.housekeeping import apply_contracts
from include.warehouse import Role, connect
from tests.support.killed import KILLED, killed_at
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, customer, order, put, telemetry, zone
from tests.support.press import contracts_of, forget

WINDOW = {"arrived_from": at(-1), "arrived_before": at(3)}
APPLY = (
    "from pathlib import Path; import include.contracts as c; c.CONTRACTS_FOLDER = Path({folder!r}); "
    "from include.landing.new_columns import apply_contract; apply_contract('orders', batch_rows=2)"
)
CORRECTIONS = "select key, step, is_applied, old_content, new_content, old_content_hash, new_content_hash from ops.correction order by event_id, step"


def land(stream: str = "orders"):
    result = land_pending(stream, **WINDOW)
    assert_balanced()
    return result


@pytest.fixture
def folder(warehouse, tmp_path: Path):
    """Contracts of the house in a folder of the test's own."""
    with contracts_of(tmp_path / "contracts", {path.name: path.read_text(encoding="utf-8") for path in CONTRACTS_FOLDER.glob("*.yaml")}) as here:
        yield here


def widen(folder: Path, stream: str, *fields: tuple[str, str], **changes: str) -> None:
    """Takes fields into the contract, as `tidemark contracts propose` does."""
    file = folder / f"{stream}.yaml"
    text, left_out = proposal(file.read_text(encoding="utf-8"), load_contract(stream), [NewField(path, kind) for path, kind in fields])  # type: ignore[arg-type]
    assert left_out == {}
    for old, new in changes.items():
        assert f"physicalName: {old}\n" in text
        text = text.replace(f"physicalName: {old}\n", f"physicalName: {old}\n{new}")
    file.write_text(text, encoding="utf-8")
    forget()


def rows(stream: str = "orders"):
    return raw_rows(stream, without=VOLATILE)


def send_orders() -> None:
    """Files of three formats with fields that nobody knows, some of which no contract would take, and events said more than once."""
    lines = [
        order("a", "c1", at(0), coupon="SPRING", pos={"till": 3, "clerk": "x"}),
        order("b", "c1", at(0), coupon=None, pos={"till": 4}),
        order("c", "c1", at(0), coupon=7),
        order("d", "c1", at(0), pos="none"),
        order("e", "c1", at(0), pos={}),
        order("f", "c1", at(0), shelf=1),
        order("g", "c1", at(0)),
        order("h", "c1", at(0), coupon="OLD", updated_at=at(0, 1)),
        order("h", "c1", at(0), coupon="NEW", updated_at=at(0, 2)),
        order("i", "c1", at(0), coupon="GONE", updated_at=at(0, 1)),
        order("i", "c1", at(0), updated_at=at(0, 2)),
    ]
    put("orders", lines, arrived_at=at(0, 4))
    flat = pl.DataFrame([{**order(f"p{n}", "c2", at(0)), "coupon": f"F{n}", "pos.till": n} for n in range(3)])
    for number, form in enumerate(("csv", "parquet")):
        buffer = io.BytesIO()
        part = flat.with_columns(pl.col("orderId") + form)
        part.write_csv(buffer) if form == "csv" else part.write_parquet(buffer)
        zone().put("orders", buffer.getvalue(), source="test", arrived_at=at(0, 4, 1 + number), ext=form)


FIELDS = (("coupon", "string"), ("pos.till", "integer"))


def test_rows_are_as_if_they_had_landed_under_the_new_contract(folder, warehouse) -> None:
    send_orders()
    land()
    before = {row["order_id"]: row for row in rows()}
    widen(folder, "orders", *FIELDS)
    put("orders", [order("z", "c1", at(0))], arrived_at=at(0, 5))
    with pytest.raises(LandingError, match=r"lacks a column of its contract.*tidemark contracts apply orders"):
        land_pending("orders", **WINDOW)
    done = apply_contract("orders", batch_rows=4)
    assert (done.added, done.moved, done.kept) == (("coupon", "till"), 10, 2)
    assert done.batches > 2
    check_partitions("orders", everything=True)
    after = {row["order_id"]: row for row in rows()}
    corrections = warehouse.rows(CORRECTIONS)
    assert {name: (row["coupon"], row["till"], row["_extra"]) for name, row in after.items() if len(name) == 1} == {
        "a": ("SPRING", 3, {"pos": {"clerk": "x"}}),
        "b": (None, 4, None),
        "c": (None, None, {"coupon": 7}),
        "d": (None, None, {"pos": "none"}),
        "e": (None, None, None),
        "f": (None, None, {"shelf": 1}),
        "g": (None, None, None),
        "h": ("NEW", None, None),
        "i": (None, None, None),
    }
    unchanged = {"coupon", "till", "_extra", "_content_hash"}
    assert {name: {key: value for key, value in row.items() if key not in unchanged} for name, row in after.items()} == {
        name: {key: value for key, value in row.items() if key not in unchanged} for name, row in before.items()
    }
    assert [(row["coupon"], row["till"], row["_extra"]) for name, row in sorted(after.items()) if name.startswith("p")] == [
        (f"F{n}", n, None) for n in range(3) for _ in ("csv", "parquet")
    ]
    # A later copy of the same bytes is a duplicate, as far as the contract takes it.
    send_again = list(zone().list("orders", None, None))
    for file in send_again:
        zone().put("orders", zone().read(file), source="again", arrived_at=at(0, 6), ext=file.file_format)
    result = land()
    assert (result.duplicate, result.corrected, result.quarantined, result.accepted) == (
        14,
        2,
        2,
        1,
    )  # h and i say two things each; c and d are refused; z is new
    assert warehouse.rows(CORRECTIONS) == corrections
    assert {row["order_id"]: row["_content_hash"] for row in rows() if row["order_id"] != "z"} == {name: row["_content_hash"] for name, row in after.items()}
    # Landed afresh under the new contract, everything is the same.
    warehouse.execute("truncate raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state, ops.correction, ops.movement cascade")
    land_pending("orders", **WINDOW)
    fresh = {row["order_id"]: row for row in rows()}
    content = [name for name, _, _ in table_columns(load_contract("orders")) if name not in {"_arrived_at", "_known_at", "_row_number", *VOLATILE}]
    assert {name: {key: row[key] for key in content} for name, row in fresh.items() if name != "z"} == {
        name: {key: row[key] for key in content} for name, row in after.items() if name not in {"c", "d"}
    }
    assert [row[3:] for row in warehouse.rows(CORRECTIONS)] == [row[3:] for row in corrections]


def test_models_and_books_see_the_rows_as_changed_by_a_batch(folder, warehouse) -> None:
    put("orders", [order(f"o{n}", "c1", at(0), coupon="A") for n in range(3)], arrived_at=at(0, 4))
    land()
    widen(folder, "orders", ("coupon", "string"))
    with connect(Role.LOADER) as other:
        other.execute("select pg_advisory_lock(hashtextextended('tidemark.backfill.customers', 0))")
        with pytest.raises(LandingError, match="columns of customers are being filled by another process"):
            apply_contracts()  # what `keep_house` does by night; one stream does not keep the others waiting
    batch = warehouse.value("select max(batch_id) from ops.batch where kind = 'backfill'")
    assert warehouse.rows("select distinct _batch_id from raw.orders") == [(batch,)]
    assert warehouse.rows("select count(*), min(batch_id) from ops.row_change") == [(3, batch)]
    assert warehouse.value("select last_batch_id from ops.stream_state where stream = 'orders'") == batch
    assert warehouse.rows("select reason, sum(row_count) from ops.movement where batch_id = (select max(batch_id) from ops.batch) group by 1") == [
        ("correction", 0)
    ]
    columns = "select column_name, moved_rows, kept_rows, backfilled_at is not null from ops.added_column where stream = 'orders'"
    assert warehouse.rows(columns) == [("coupon", 3, 0, True)]
    assert warehouse.rows("select statement, asked_by from ops.ddl_log where statement like '%coupon%'") == [
        ("raw.orders add column coupon text", "tidemark_loader")
    ]
    again = apply_contract("orders")
    assert (again.added, again.moved, again.batches) == ((), 0, 0)
    put("orders", [order("o9", "c1", at(0), coupon="B")], arrived_at=at(0, 5))
    land()
    assert next(row["coupon"] for row in rows() if row["order_id"] == "o9") == "B"


def test_ranges_rules_and_personal_data_are_those_of_landing(folder, warehouse) -> None:
    put("customers", [customer("k1", at(0), nick="Ann"), customer("k2", at(0), nick="ann ")], arrived_at=at(0, 4))
    put("device_telemetry", [telemetry(f"m{n}", at(0, n), co2=value) for n, value in enumerate((400.0, -1.0, 900.0))], arrived_at=at(0, 4))
    land("customers")
    land("device_telemetry")
    widen(folder, "customers", ("nick", "string"))
    widen(folder, "device_telemetry", ("co2", "number"), co2="        logicalTypeOptions: {minimum: 0}\n")
    file = folder / "device_telemetry.yaml"
    rule = "\n    quality:\n      - {name: clean_air, type: custom, engine: tidemark, implementation: co2 < 800, description: Else nobody measures.}\n"
    text = file.read_text(encoding="utf-8")
    assert "\n    quality:\n" in text
    file.write_text(text.replace("\n    quality:\n", rule), encoding="utf-8")
    forget()
    assert apply_contract("customers").moved == 2
    nicks = [(row["nick"], row["nick_pseudonym"], row["_extra"]) for row in rows("customers")]
    assert {nick for nick, _, _ in nicks} == {"Ann", "ann "}
    assert len({pseudonym for _, pseudonym, _ in nicks}) == 1
    assert nicks[0][1]
    done = apply_contract("device_telemetry")
    assert (done.moved, done.kept) == (1, 2)
    assert [(row["co2"], row["_extra"]) for row in rows("device_telemetry")] == [(400.0, None), (None, {"co2": -1.0}), (None, {"co2": 900.0})]
    for stream in ("customers", "device_telemetry"):
        with connect(Role.OWNER) as connection:
            found = connection.execute(
                "select column_name::text, data_type::text, is_nullable = 'YES' from information_schema.columns where table_schema = 'raw' and table_name = %s",
                (stream,),
            ).fetchall()
        assert sorted(found) == sorted(table_columns(load_contract(stream)))


def test_mapped_rows_are_left_alone(folder, warehouse) -> None:
    header = "machine_id,timestamp,temperature,vibration,humidity,pressure,energy_consumption,machine_status,coupon"
    data = f"{header}\n8,2026-03-01 01:00:00,60,1,40,1,1,1,A\n".encode()
    zone().put("device_telemetry", data, source="test", arrived_at=at(0, 4), ext="csv", mapping="smart_manufacturing")
    assert land("device_telemetry").accepted == 1
    widen(folder, "device_telemetry", ("coupon", "string"))
    assert apply_contract("device_telemetry").moved == 0
    assert rows("device_telemetry")[0]["_extra"] == {"coupon": "A"}
    zone().put("device_telemetry", data, source="again", arrived_at=at(0, 5), ext="csv", mapping="smart_manufacturing")
    assert land("device_telemetry").duplicate == 1


@pytest.fixture
def sent(folder, warehouse):
    """Orders that landed before the contract took their fields."""
    send_orders()
    land()
    widen(folder, "orders", *FIELDS)
    return folder


def test_killed_at_any_step_it_goes_on_where_it_was(sent, warehouse) -> None:
    for step in (*BackfillStep, *BackfillStep):
        assert killed_at(step, APPLY.format(folder=str(sent))) == KILLED, step
        assert_balanced()
        check_partitions("orders", everything=True)
    done = apply_contract("orders")
    assert done.added == ()
    totals = warehouse.rows("select moved_rows, kept_rows, backfilled_at is not null from ops.added_column where stream = 'orders'")
    assert totals == [(10, 2, True), (10, 2, True)]
    result, corrections = rows(), warehouse.rows(CORRECTIONS)
    # An undisturbed run over the same rows.
    warehouse.execute("truncate raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state, ops.correction, ops.movement cascade")
    warehouse.execute("alter table raw.orders drop column coupon, drop column till")
    warehouse.execute("delete from ops.added_column")
    (sent / "orders.yaml").write_text((CONTRACTS_FOLDER / "orders.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    forget()
    land()
    widen(sent, "orders", *FIELDS)
    assert apply_contract("orders").moved == 10
    assert (rows(), warehouse.rows(CORRECTIONS)) == (result, corrections)


def test_a_column_is_added_beside_readers_who_keep_nobody_waiting(folder, warehouse) -> None:
    put("orders", [order("a", "c1", at(0), coupon="A")], arrived_at=at(0, 4))
    land()
    widen(folder, "orders", ("coupon", "string"))
    waits = "select count(*) from pg_locks where not granted and relation = 'raw.orders'::regclass"
    with ThreadPoolExecutor(1) as other, connect(Role.TRANSFORMER) as reader, connect(Role.TRANSFORMER, autocommit=True) as later:
        reader.execute("select count(*) from raw.orders")
        applied = other.submit(apply_contract, "orders")
        later.execute("set statement_timeout = '10s'")
        for _ in range(2):
            while warehouse.value(waits) == 0:
                assert not applied.done()
            assert later.execute("select count(*) from raw.orders").fetchone() == (1,), "who comes later waits a second at most"
        reader.rollback()
        assert (applied.result().added, applied.result().moved) == (("coupon",), 1)


def test_who_may_add_what(warehouse) -> None:
    call = "select ops.add_column(%s, %s, %s, 'What it is.')"
    with connect(Role.LOADER, autocommit=True) as loader:
        assert loader.execute(call, ("orders", "coupon", "text")).fetchone() == (True,)
        assert loader.execute(call, ("orders", "coupon", "text")).fetchone() == (False,)
        for arguments, problem in (
            (("orders", "coupon", "bigint"), "is there and is text"),
            (("orders", "_extra2", "text"), "no column of a contract"),
            (("orders", 'x" int, add y', "text"), "no column of a contract"),
            (("orders", "x", "text default 'y'"), "no type of a contract"),
            (("nothing", "x", "text"), "has no table"),
            (("orders_h0", "x", "text"), "has no table"),
        ):
            with pytest.raises(psycopg.Error, match=problem):
                loader.execute(call, arguments)
        assert loader.execute("select ops.loosen_column('orders', 'net_usd')").fetchone() == (True,)
        assert loader.execute("select ops.loosen_column('orders', 'net_usd')").fetchone() == (False,)
        with pytest.raises(psycopg.Error, match="no column of a contract"):
            loader.execute("select ops.loosen_column('orders', 'tenant_id')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            loader.execute("select ops.alter_raw('orders', 'drop column coupon')")
    with connect(Role.TRANSFORMER) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.execute("select ops.add_column('orders', 'x', 'text', '')")
    assert (
        warehouse.value(
            "select col_description('raw.orders'::regclass, attnum) from pg_attribute where attrelid = 'raw.orders'::regclass and attname = 'coupon'"
        )
        == "What it is."
    )


def test_what_the_table_cannot_become_is_refused(folder, warehouse) -> None:
    contract = load_contract("orders")
    other = replace(contract.field("item_count"), logical_type="string")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "include.landing.new_columns.load_contract",
            lambda _: replace(contract, fields=tuple(other if f.name == "item_count" else f for f in contract.fields)),
        )
        with pytest.raises(LandingError, match=r"raw\.orders\.item_count is bigint, and the contract says text"):
            apply_contract("orders")
        lacking = replace(contract.field("product_id"), name="shop_id", path=("shop",), required=True)
        patch.setattr("include.landing.new_columns.load_contract", lambda _: replace(contract, fields=(*contract.fields, lacking)))
        with pytest.raises(LandingError, match="lacks the required column shop_id"):
            apply_contract("orders")
    with connect(Role.LOADER) as holder:
        holder.execute("select pg_advisory_lock(hashtextextended('tidemark.backfill.orders', 0))")
        with pytest.raises(LandingBusy, match="being filled by another process"):
            apply_contract("orders")
