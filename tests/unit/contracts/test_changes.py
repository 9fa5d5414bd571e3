"""Two versions of a contract compared, and what may be released: a breaking change needs a new major."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import include.contracts as contracts
from include.contracts import ContractError, LogicalType, load_contract
from include.contracts import release as release_module
from include.contracts.__main__ import main
from include.contracts.changes import Level, compare, is_raised, raised, required_level
from include.contracts.model import Contract
from include.contracts.parse import parse_contract_text
from include.contracts.release import read_version, release_problems, released, unreleased_changes, unreleased_streams, write_release
from tests.support.press import STREAM, contracts_of, forget, press
from tests.support.stricter import with_field, with_rule

ORDERS = load_contract("orders")
COUPON = replace(ORDERS.field("product_id"), name="coupon_code", path=("coupon",), required=False)


def added(contract: Contract, **changes: object) -> Contract:
    return replace(contract, fields=(*contract.fields, replace(COUPON, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("new", "place", "level"),
    [
        (added(ORDERS), "coupon", Level.MINOR),
        (added(ORDERS, required=True), "coupon", Level.MAJOR),
        (replace(ORDERS, fields=ORDERS.fields[:-1]), ".".join(ORDERS.fields[-1].path), Level.MAJOR),
        (with_field(ORDERS, "item_count", logical_type=LogicalType.NUMBER), "quantity", Level.MAJOR),
        (with_field(ORDERS, "item_count", path=("pieces",)), "pieces", Level.MAJOR),
        (with_field(ORDERS, "gross_usd", unit="EUR"), "grossAmount", Level.MAJOR),
        (with_field(ORDERS, "product_id", required=True), "productId", Level.MAJOR),
        (with_field(ORDERS, "net_usd", required=False), "netAmount", Level.MINOR),
        (with_field(ORDERS, "order_status", enum=("placed",)), "status", Level.MAJOR),
        (with_field(ORDERS, "order_status", enum=(*(ORDERS.field("order_status").enum or ()), "lost")), "status", Level.MINOR),
        (with_field(ORDERS, "order_status", enum=None), "status", Level.MINOR),
        (with_field(ORDERS, "product_id", enum=("p1",)), "productId", Level.MAJOR),
        (with_field(ORDERS, "gross_usd", maximum=1.0), "grossAmount", Level.MAJOR),
        (with_field(ORDERS, "gross_usd", maximum=1e12), "grossAmount", Level.MINOR),
        (with_field(ORDERS, "gross_usd", minimum=None), "grossAmount", Level.MINOR),
        (with_field(ORDERS, "gross_usd", minimum=1.0), "grossAmount", Level.MAJOR),
        (with_field(ORDERS, "product_id", max_length=1), "productId", Level.MAJOR),
        (with_field(ORDERS, "product_id", pattern="^p$"), "productId", Level.MAJOR),
        (with_field(ORDERS, "order_id", pattern=None), "orderId", Level.MINOR),
        (with_field(ORDERS, "product_id", classification="personal"), "productId", Level.MAJOR),
        (with_field(ORDERS, "product_id", classification="internal"), "productId", Level.PATCH),
        (with_field(ORDERS, "product_id", unit="article"), "productId", Level.PATCH),
        (with_field(ORDERS, "gross_usd", unit=None), "grossAmount", Level.MAJOR),
        (replace(ORDERS, schema_version_field="product_id"), "schemaVersionField", Level.MAJOR),
        (with_field(ORDERS, "product_id", description="What."), "productId", Level.PATCH),
        (with_rule(ORDERS, "cheap", "gross_usd < 5"), "quality.cheap", Level.MAJOR),
        (replace(ORDERS, rules=ORDERS.rules[1:]), f"quality.{ORDERS.rules[0].name}", Level.MINOR),
        (replace(ORDERS, key=("order_id", "customer_id")), "primaryKey", Level.MAJOR),
        (replace(ORDERS, version_field="event_at"), "versionField", Level.MAJOR),
        (replace(ORDERS, bucket_columns=("order_id",)), "bucketColumns", Level.MAJOR),
        (replace(ORDERS, earliest=ORDERS.earliest + timedelta(days=1)), "earliest", Level.MAJOR),
        (replace(ORDERS, earliest=ORDERS.earliest - timedelta(days=1)), "earliest", Level.MINOR),
        (replace(ORDERS, future_tolerance=timedelta(0)), "futureToleranceMinutes", Level.MAJOR),
        (replace(ORDERS, freshness=timedelta(days=9)), "freshness", Level.MINOR),
        (replace(ORDERS, owner="somebody"), "team.name", Level.PATCH),
    ],
)
def test_each_change_has_its_level(new: Contract, place: str, level: Level) -> None:
    (change,) = compare(ORDERS, new)
    assert (change.place, change.level, change.is_breaking) == (place, level, level is Level.MAJOR)
    assert change.why


def test_nothing_changed_and_the_worst_change_comes_first() -> None:
    assert compare(ORDERS, replace(ORDERS, version="9.9.9")) == []
    assert required_level([]) is None
    found = compare(ORDERS, replace(added(ORDERS), owner="somebody", key=("customer_id",)))
    assert [change.level for change in found] == [Level.MAJOR, Level.MINOR, Level.PATCH]
    assert required_level(found) is Level.MAJOR


def test_versions_are_raised_far_enough() -> None:
    assert [raised("1.2.3", level) for level in Level] == ["1.2.4", "1.3.0", "2.0.0"]
    assert [is_raised("1.2.3", "1.3.0", level) for level in Level] == [True, True, False]
    assert not is_raised("1.2.3", "1.2.3", Level.PATCH)
    assert not is_raised("1.10.0", "1.9.0", Level.MINOR)


def test_the_contracts_of_the_house_are_released() -> None:
    assert release_problems() == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with one released contract, and one for its migrations."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "0011_schema_evolution.py").write_text('revision = "0011"\ndown_revision = "0008"\n')
    (tmp_path / "versions" / "0008_before.py").write_text('revision = "0008"\ndown_revision = None\n')
    monkeypatch.setattr(release_module, "VERSIONS", tmp_path / "versions")
    with contracts_of(tmp_path / "contracts", {f"{STREAM}.yaml": press("1.0.0")}) as here:
        assert unreleased_streams() == [STREAM]
        first = write_release([STREAM])
        assert first is not None
        assert first.name == f"0012_raw_{STREAM}.py"
        assert 'down_revision = "0011"' in first.read_text()
        assert (release_problems(), unreleased_streams()) == ([], [])
        yield here


def change(folder: Path, text: str, name: str = f"{STREAM}.yaml") -> None:
    (folder / name).write_text(text, encoding="utf-8")
    forget()


def test_a_compatible_change_needs_a_version_and_becomes_a_migration(folder: Path) -> None:
    wider = press("1.0.0").replace(
        "      - name: schemaVersion",
        "      - {name: noise, physicalName: noise_db, logicalType: number, description: It's loud.}\n      - name: schemaVersion",
    )
    change(folder, wider)
    with pytest.raises(ContractError, match=r"version: is still 1\.0\.0, but the contract changed: noise: column noise_db is new; give 1\.1\.0"):
        unreleased_changes(STREAM)
    change(folder, wider.replace("1.0.0", "1.1.0"))
    assert [each.place for each in unreleased_changes(STREAM)] == ["noise"]
    assert "version 1.1.0 is not released" in release_problems()[0]
    migration = write_release(unreleased_streams())
    assert migration is not None
    assert migration.name == f"0013_columns_{STREAM}.py"
    assert "select ops.add_column('press_reading', 'noise_db', 'double precision', 'It''s loud.')" in migration.read_text()
    assert release_problems() == []
    change(folder, wider.replace("1.0.0", "1.1.1").replace("What presses say.", "What a press says."))
    assert write_release(unreleased_streams()) is None, "words need no migration"
    assert read_version(f"{STREAM}@released").version == "1.1.1"


def test_a_breaking_change_is_refused_everywhere_unless_the_major_is_raised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, press("2.0.0").replace("2.0.0", "1.1.0"))
    with pytest.raises(
        ContractError, match=r"1\.1\.0 breaks 1\.0\.0: .*temperature_f is gone.*give version 2\.0\.0 and keep the released contract as press_reading\.v1\.yaml"
    ):
        unreleased_changes(STREAM)
    assert "breaks 1.0.0" in release_problems()[0]
    with pytest.raises(ContractError, match="breaks"):
        write_release([STREAM])
    for arguments in ([], ["--check"], ["revision", "0013", "0012", STREAM]):
        assert main(arguments) == 1
        assert "breaks 1.0.0" in capsys.readouterr().err
    change(folder, press("2.0.0"))
    with pytest.raises(ContractError, match=r"major 1 is released and its file press_reading\.v1\.yaml is missing"):
        unreleased_changes(STREAM)
    change(folder, press("1.0.0"), f"{STREAM}.v1.yaml")
    migration = write_release(unreleased_streams())
    assert migration is not None
    text = migration.read_text()
    assert [text.count(part) for part in ("'temperature_c'", "'state_code'", "ops.loosen_column('press_reading', 'temperature_f')", "'force_kn'")] == [
        1,
        1,
        1,
        0,
    ]
    assert (release_problems(), read_version(f"{STREAM}@1").version) == ([], "1.0.0")
    (folder / f"{STREAM}.v1.yaml").unlink()
    forget()
    with pytest.raises(ContractError, match=r"press_reading\.v1\.yaml: file: was released and is gone"):
        unreleased_changes(STREAM)


def test_an_older_major_takes_compatible_changes_only(folder: Path) -> None:
    change(folder, press("2.0.0"))
    change(folder, press("1.0.0"), f"{STREAM}.v1.yaml")
    write_release(unreleased_streams())
    change(folder, press("1.1.0", status="retired"), f"{STREAM}.v1.yaml")
    assert [(each.place, each.what) for each in unreleased_changes(STREAM)] == [("status", "is retired")]
    change(folder, press("1.1.0").replace("{value: idle}", "{value: stopped}"), f"{STREAM}.v1.yaml")
    with pytest.raises(ContractError, match=r"press_reading\.v1\.yaml: version: 1\.1\.0 breaks 1\.0\.0.*an older major takes compatible changes only"):
        unreleased_changes(STREAM)


def test_a_contract_whose_rows_named_no_version_gets_a_second_major(folder: Path) -> None:
    """As the runbook says: the field by which rows name their version comes to both files, and the older one only raises its minor."""
    field = press("1.0.0")[press("1.0.0").index("      - name: schemaVersion") : press("1.0.0").index("slaProperties")]
    mark = "  - {property: schemaVersionField, value: schema_version}\n"
    nameless = press("1.0.0").replace(field, "").replace(mark, "")
    for path in (folder / "released" / f"{STREAM}.yaml", folder / f"{STREAM}.yaml"):
        path.write_text(nameless, encoding="utf-8")
    forget()
    assert release_problems() == []
    change(folder, press("2.0.0"))
    change(folder, press("1.1.0"), f"{STREAM}.v1.yaml")
    assert {(each.place, each.level) for each in unreleased_changes(STREAM) if not each.is_breaking} >= {
        ("schemaVersion", Level.MINOR),
        ("schemaVersionField", Level.MINOR),
    }
    write_release(unreleased_streams())
    assert (release_problems(), read_version(f"{STREAM}@1").version) == ([], "1.1.0")
    change(folder, press("1.2.0").replace(mark, ""), f"{STREAM}.v1.yaml")
    with pytest.raises(ContractError, match="schemaVersionField: differs"):
        unreleased_changes(STREAM)
    with_mark, without = (parse_contract_text(text, f"{STREAM}.yaml") for text in (press("1.1.0"), press("1.1.0").replace(mark, "")))
    assert [each.level for each in compare(with_mark, without)] == [Level.MAJOR]


def test_names_of_versions(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text(press("1.0.0"))
    (tmp_path / f"{STREAM}.v1.yaml").write_text(press("1.0.0", status="retired"))
    assert read_version(str(tmp_path / "elsewhere.yaml")).stream == STREAM
    assert read_version(str(tmp_path / f"{STREAM}.v1.yaml")).is_retired
    for name, problem in (("no.yaml", "does not exist"), (f"{STREAM}@7", "no major '7'"), ("nothing", "does not exist")):
        with pytest.raises(ContractError, match=problem):
            read_version(name)
    assert released("nothing") is None
    assert contracts.streams() == (STREAM,)
