"""docs/runbooks/schema-change.md, command by command: from a field that nobody knows to a column of the migrated table with its values."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from typer.testing import CliRunner

from include.cli import app
from include.contracts import CONTRACTS_FOLDER, compile, load_contract, release
from include.contracts.compile import table_columns, write_generated
from include.contracts.parse import parse_contract_text
from include.landing import land_pending
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.integration.test_commands import error_of, run, run_json
from tests.support.landing import assert_balanced, raw_rows
from tests.support.payloads import at, customer, order, put
from tests.support.press import contracts_of, forget, press
from tests.support.runbooks import commands

WINDOW = {"arrived_from": at(-1), "arrived_before": at(3)}
MIGRATIONS = Path(release.VERSIONS).parent


@pytest.fixture
def house(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Contracts, releases, migrations and generated files in folders of the test's own."""
    versions = tmp_path / "versions"
    shutil.copytree(release.VERSIONS, versions, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(release, "VERSIONS", versions)
    monkeypatch.setattr(release, "REPOSITORY", tmp_path)
    monkeypatch.setattr(compile, "REPOSITORY", tmp_path)
    monkeypatch.setattr(compile, "write_generated", functools.partial(write_generated, tmp_path))
    with contracts_of(tmp_path / "contracts", {path.name: path.read_text(encoding="utf-8") for path in CONTRACTS_FOLDER.glob("*.yaml")}) as folder:
        shutil.copytree(CONTRACTS_FOLDER / "released", folder / "released")
        yield tmp_path


def migrate(versions: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")


def columns(stream: str) -> list[tuple[str, str, bool]]:
    with connect(Role.OWNER) as connection:
        return connection.execute(
            "select column_name::text, data_type::text, is_nullable = 'YES' from information_schema.columns where table_schema = 'raw' and table_name = %s",
            (stream,),
        ).fetchall()


def land(stream: str = "orders") -> None:
    land_pending(stream, **WINDOW)
    assert_balanced()


def test_the_commands_of_the_runbook_in_their_order(house: Path) -> None:
    put("orders", [order(f"o{n}", "c1", at(0), coupon=f"C{n}", loyalty={"points": n}) for n in range(3)], arrived_at=at(0, 1))
    land()
    words = commands("schema-change")
    assert [line[1] for line in words] == ["drift", "drift", "propose", "diff", "revision", "apply"]
    said = {}
    for line in words:
        if line[1] == "apply":
            migrate(house / "versions")  # as `tidemark up` does; `apply` finds the column there
            assert sorted(columns("orders")) == sorted(table_columns(load_contract("orders")))
        said[line[1]] = run(*line)
        forget()
    assert "loyalty.points" in said["drift"]
    assert "version 1.1.0 with coupon, loyalty.points" in said["propose"]
    assert "compatible: 1.0.0 becomes 1.1.0 or later" in said["diff"]
    assert said["revision"].splitlines()[0] == "released orders"
    assert "_columns_orders.py" in said["revision"]
    assert "docs/contracts/orders.md" in said["revision"]
    assert [(row["order_id"], row["coupon"], row["points"], row["_extra"]) for row in raw_rows("orders")] == [(f"o{n}", f"C{n}", n, None) for n in range(3)]
    assert run("contracts", "revision") == "every contract is released as it is\n"
    assert run_json("contracts", "drift", "orders") == []
    assert {line["state"] for line in run_json("contracts", "drift", "orders", "--all")} == {"accepted"}  # type: ignore[union-attr]
    assert run_json("contracts", "apply", "orders") == [{"stream": "orders", "added": [], "loosened": [], "moved": 0, "kept": 0, "batches": 0}]


def test_a_proposal_without_write_is_the_text_and_changes_nothing(house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    put("customers", [customer("k1", at(0), nickName="Ann", score=3, odd=[1])], arrived_at=at(0, 1))
    land("customers")
    text = (house / "contracts" / "customers.yaml").read_text(encoding="utf-8")
    done = CliRunner().invoke(app, ["contracts", "propose", "customers"])
    assert done.exit_code == 0
    assert "odd: a list needs rows of its own" in done.stderr
    added = [line for line in done.stdout.splitlines() if line not in text.splitlines()]
    assert [line.split(":")[1].split()[0] for line in added if "physicalName" in line] == ["nick_name", "score"]
    assert sum("classification: personal" in line for line in done.stdout.splitlines()) == text.count("classification: personal") + 1
    assert "version: 1.1.0" in added
    assert (house / "contracts" / "customers.yaml").read_text(encoding="utf-8") == text
    (house / "proposed.yaml").write_text(done.stdout, encoding="utf-8")
    assert "compatible" in run("contracts", "diff", "customers", str(house / "proposed.yaml"))
    assert "odd cannot be proposed" in error_of(monkeypatch, capsys, "contracts", "propose", "customers", "--field", "odd")
    assert "send nothing that could be proposed" in error_of(monkeypatch, capsys, "contracts", "propose", "orders")
    assert "there is no stream 'nothing'" in error_of(monkeypatch, capsys, "contracts", "drift", "nothing")


def test_what_no_contract_can_hold_does_not_keep_the_rest_out(house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [order("o1", "c1", at(0), coupon="A", on="x", box=1, **{"Größe [cm]": 1}), order("o2", "c1", at(0), box={"size": 2})]
    put("orders", rows, arrived_at=at(0, 1))
    land()
    done = CliRunner().invoke(app, ["contracts", "propose", "orders"])
    assert done.exit_code == 0, done.exception
    said = " ".join(done.stderr.split())
    assert "Größe [cm]: is no name that a contract can hold" in said
    assert "box.size: box is a field of the contract and no group" in said
    proposed = parse_contract_text(done.stdout, "orders.yaml")
    assert {".".join(field.path) for field in proposed.fields} - {".".join(field.path) for field in load_contract("orders").fields} == {"box", "coupon", "on"}
    assert "is no name that a contract can hold" in error_of(monkeypatch, capsys, "contracts", "propose", "orders", "--field", "Größe [cm]")


def test_a_breaking_change_is_refused_by_every_command(house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = house / "contracts" / "orders.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("physicalName: item_count\n        logicalType: integer", "physicalName: item_count\n        logicalType: number"), encoding="utf-8")  # fmt: skip  # noqa: E501
    forget()
    found = json.loads(CliRunner().invoke(app, ["contracts", "diff", "orders@released", "orders", "--json"]).stdout)
    assert (found["is_breaking"], found["needed_version"], [change["place"] for change in found["changes"]]) == (True, "2.0.0", ["quantity"])
    assert "breaking: 1.0.0 becomes 2.0.0 or later" in run("contracts", "diff", "orders@released", "orders", code=1)
    for name in ("compile", "revision"):
        assert "orders.yaml: version: 1.0.0 breaks 1.0.0: quantity" in error_of(monkeypatch, capsys, "contracts", name)
    assert run("contracts", "diff", "customers", "customers@released").startswith("customers 1.0.0 and 1.0.0 say the same")


def test_a_new_stream_and_its_second_major_are_migrated_to_what_is_compiled(house: Path) -> None:
    folder = house / "contracts"
    for name, text in (("press_reading.yaml", press("1.0.0")), ("press_reading.yaml", press("2.0.0")), ("press_reading.v1.yaml", press("1.0.0"))):
        (folder / name).write_text(text, encoding="utf-8")
        forget()
        if name.endswith(".v1.yaml") or text == press("1.0.0"):
            run("contracts", "revision")
            forget()
            migrate(house / "versions")
            assert sorted(columns("press_reading")) == sorted(table_columns(load_contract("press_reading")))
    assert [path.name[5:] for path in sorted((house / "versions").glob("*press_reading.py"))] == ["raw_press_reading.py", "columns_press_reading.py"]
