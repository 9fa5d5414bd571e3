# ruff: noqa: E501 - a line a case reads best
"""What is generated from the contracts: the migrated tables, the dbt source, the pages."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import psycopg
import pytest
import yaml

from include.contracts import ContractError, load_contract, streams
from include.contracts.__main__ import main
from include.contracts.compile import (
    REPOSITORY,
    change_ddl,
    compile_files,
    generated_files,
    revision_text,
    stale_files,
    table_columns,
    table_ddl,
    write_generated,
)
from include.contracts.ddl import HASH_PARTITIONS
from include.contracts.model import EVENT_AT, LogicalType
from include.warehouse import Role, connect


def existing_columns(connection: psycopg.Connection, stream: str) -> list[tuple[str, str, bool]]:
    return connection.execute(
        "select column_name::text, data_type::text, is_nullable = 'YES' from information_schema.columns where table_schema = 'raw' and table_name = %s order by ordinal_position",
        (stream,),
    ).fetchall()


@pytest.mark.parametrize("stream", streams())
def test_migrated_table_is_what_the_contract_says(warehouse, stream):
    with connect(Role.OWNER) as connection:
        assert sorted(existing_columns(connection, stream)) == sorted(table_columns(load_contract(stream)))  # by name: a column that came later stands last


def test_a_field_added_to_a_contract_is_a_migration_of_one_column(warehouse):
    contract = load_contract("orders")
    coupon = dataclasses.replace(contract.field("product_id"), name="coupon_code", path=("coupon",), description="Coupon: 10% off; the customer's.")
    wider = dataclasses.replace(contract, fields=(*contract.fields, coupon))
    with connect(Role.OWNER) as connection:
        assert table_columns(wider) != existing_columns(connection, "orders"), "the comparison with the table must be able to fail"
        connection.execute(change_ddl(wider, existing_columns(connection, "orders")))
        assert table_columns(wider) == existing_columns(connection, "orders")
        assert change_ddl(wider, existing_columns(connection, "orders")) == ""


def test_hash_partitions_indexes_and_comments_are_there(warehouse):
    with connect(Role.OWNER) as connection:
        partitions = dict(
            connection.execute(
                "select inhparent::regclass::text, count(*) from pg_inherits where inhparent::regclass::text like 'raw.%%' group by 1"
            ).fetchall()
        )
        indexes = {row[0] for row in connection.execute("select indexdef from pg_indexes where schemaname = 'raw' and tablename = 'orders'")}
        undescribed = connection.execute(
            "select c.relname, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace = 'raw'::regnamespace and c.relkind = 'p'"
            " and not c.relispartition and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null"
        ).fetchall()
    for stream in streams():
        if load_contract(stream).partition == "hash":
            assert partitions[f"raw.{stream}"] == HASH_PARTITIONS
    assert any("UNIQUE" in index and index.endswith("(event_id)") for index in indexes)
    assert {re.search(r"\((.*)\)", index).group(1) for index in indexes} == {  # type: ignore[union-attr]
        "event_id", "_batch_id", "tenant_id, order_id, event_at", "tenant_id, customer_id, event_at",
    }  # fmt: skip
    assert undescribed == []


def test_loader_writes_and_transformer_only_reads(warehouse):
    with connect(Role.OWNER) as connection:
        for stream in streams():
            rights = connection.execute(
                "select grantee, array_agg(privilege_type::text order by privilege_type) from information_schema.role_table_grants"
                " where table_schema = 'raw' and table_name = %s and grantee <> 'tidemark_owner' group by 1 order by 1",
                (stream,),
            ).fetchall()
            assert rights == [("tidemark_loader", ["DELETE", "INSERT", "SELECT", "UPDATE"]), ("tidemark_transformer", ["SELECT"])]


def test_only_optional_fields_can_be_added():
    contract = load_contract("orders")
    existing = table_columns(contract)
    required = dataclasses.replace(contract.field("product_id"), name="shop_id", path=("shop",), required=True)
    with pytest.raises(ContractError, match="shop_id: is a new required field"):
        change_ddl(dataclasses.replace(contract, fields=(*contract.fields, required)), existing)
    retyped = tuple(dataclasses.replace(field, logical_type=LogicalType.NUMBER) if field.name == "item_count" else field for field in contract.fields)
    with pytest.raises(ContractError, match="item_count: is bigint in the table and double precision in the contract"):
        change_ddl(dataclasses.replace(contract, fields=retyped), existing)
    stricter = tuple(dataclasses.replace(field, required=True) if field.name == "product_id" else field for field in contract.fields)
    with pytest.raises(ContractError, match="product_id: is required now"):
        change_ddl(dataclasses.replace(contract, fields=stricter), existing)
    looser = tuple(dataclasses.replace(field, required=False) if field.name == "net_usd" else field for field in contract.fields)
    assert change_ddl(dataclasses.replace(contract, fields=looser), existing) == "select ops.loosen_column('orders', 'net_usd');\n"


def test_generated_files_are_not_stale():
    assert stale_files() == []


def test_staleness_is_noticed(tmp_path: Path):
    written = write_generated(tmp_path)
    assert set(written) == set(generated_files())
    assert write_generated(tmp_path) == []
    page = tmp_path / "docs/contracts/orders.md"
    page.write_text(page.read_text().replace("Orders of the shop", "Orders of a shop"))
    (tmp_path / "docs/contracts/customers.md").unlink()
    (tmp_path / "docs/contracts/gone.md").write_text("a stream that was removed")
    assert stale_files(tmp_path) == [
        "docs/contracts/customers.md: is missing",
        "docs/contracts/orders.md: differs from its contract",
        "docs/contracts/gone.md: belongs to no contract",
    ]
    write_generated(tmp_path)
    assert stale_files(tmp_path) == []


def test_a_changed_contract_makes_its_files_stale():
    contracts = [load_contract(stream) for stream in streams()]
    changed = [dataclasses.replace(contract, version="1.1.0") if contract.stream == "orders" else contract for contract in contracts]
    assert stale_files(expected=compile_files(changed)) == [
        "dbt_project/models/staging/_sources_raw.yml: differs from its contract",
        "docs/contracts/README.md: differs from its contract",
        "docs/contracts/orders.md: differs from its contract",
    ]


def test_check_names_what_is_stale(monkeypatch, capsys):
    assert main(["--check"]) == 0
    monkeypatch.setattr("include.contracts.__main__.stale_files", lambda: ["docs/contracts/orders.md: is missing"])
    assert main(["--check"]) == 1
    assert "docs/contracts/orders.md: is missing; run `python -m include.contracts`" in capsys.readouterr().err


def test_a_revision_is_never_overwritten(capsys):
    assert main(["revision", "0002", "0001", "orders"]) == 1
    assert "revision 0002 exists already" in capsys.readouterr().err
    assert main(["revision", "9999", "0003", "no_such_stream"]) == 1
    assert "no_such_stream.yaml: contract: does not exist" in capsys.readouterr().err


def test_revision_keeps_colons_quotes_and_backslashes(warehouse):
    contract = load_contract("customers")
    nasty = 'Says """it\'s""" 10% :word a::b \\d'
    contract = dataclasses.replace(contract, stream="nasty", description=nasty)
    source = revision_text("9999", "0003", "Try", [table_ddl(contract)])
    from sqlalchemy import create_engine, text

    from include.warehouse.connection import sqlalchemy_url

    class Recorder:
        @staticmethod
        def execute(statement: str) -> None:
            engine = create_engine(sqlalchemy_url(Role.OWNER, driver="psycopg"))
            with engine.begin() as connection:
                connection.execute(text(statement))
                assert connection.execute(text("select obj_description('raw.nasty'::regclass)")).scalar_one() == nasty
            engine.dispose()

    namespace: dict = {}
    exec(compile(source.replace("from alembic import op", ""), "revision", "exec"), namespace | {"op": Recorder}, namespace)
    namespace["upgrade"].__globals__["op"] = Recorder
    namespace["upgrade"]()


def test_every_column_of_the_dbt_source_is_described_and_personal_ones_are_marked():
    document = yaml.safe_load((REPOSITORY / "dbt_project/models/staging/_sources_raw.yml").read_text())
    tables = {table["name"]: table for table in document["sources"][0]["tables"]}
    assert tuple(sorted(tables)) == streams()
    for stream, table in tables.items():
        contract = load_contract(stream)
        assert [column["name"] for column in table["columns"]] == [name for name, _, _ in table_columns(contract)]
        assert all(column["description"] for column in table["columns"])
        marked = {column["name"] for column in table["columns"] if column.get("config", {}).get("meta", {}).get("classification") == "personal"}
        assert marked == {field.name for field in contract.personal_fields}
        assert table["config"]["meta"]["bucket_columns"] == list(contract.bucket_columns)
        assert table["config"]["meta"]["event_time"] == EVENT_AT
