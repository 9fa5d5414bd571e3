"""From a contract to its raw table: columns, DDL, and the Alembic revision that carries the DDL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from include.contracts.errors import ContractError
from include.contracts.model import EVENT_AT, Contract, Field, LogicalType

HASH_PARTITIONS = 8
POSTGRES_TYPES = {
    LogicalType.STRING: "text",
    LogicalType.INTEGER: "bigint",
    LogicalType.NUMBER: "double precision",
    LogicalType.BOOLEAN: "boolean",
    LogicalType.TIMESTAMP: "timestamp with time zone",
    LogicalType.DATE: "date",
}
# name, type, nullable, meaning: the same on every raw table, before the contract's own columns.
ENVELOPE_COLUMNS: tuple[tuple[str, str, bool, str], ...] = (
    ("tenant_id", "text", False, "Whose event it is; default where nobody says otherwise."),
    ("event_id", "bytea", False, "Identity: first 16 bytes of SHA-256 over tenant, stream and key fields."),
    ("event_at", "timestamp with time zone", False, ""),
    ("_arrived_at", "timestamp with time zone", False, "When the file with this row arrived in the landing zone."),
    (
        "_known_at",
        "timestamp with time zone",
        False,
        "Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping's delay.",
    ),
    ("_landed_at", "timestamp with time zone", False, "When the row was written here. Never to be used as knowledge time."),
    ("_batch_id", "bigint", False, "Batch that wrote the row, ops.batch."),
    ("_file_id", "bigint", False, "File the row came in, ops.file."),
    ("_row_number", "integer", False, "Row within the file, from 1."),
    ("_content_hash", "bytea", False, "First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction."),
    ("_extra", "jsonb", True, "Fields the contract does not know; NULL where there are none."),
)
Column = tuple[str, str, bool]


def table_columns(contract: Contract) -> list[Column]:
    """Columns of the raw table in order, as (name, type as information_schema names it, nullable)."""
    return [(name, pg_type, nullable) for name, pg_type, nullable, _ in described_columns(contract)]


def described_columns(contract: Contract) -> list[tuple[str, str, bool, str]]:
    """Columns of the raw table in order, as (name, type, nullable, description)."""
    event_time = contract.field(EVENT_AT)
    columns = [(name, pg_type, nullable, event_time.description if name == EVENT_AT else meaning) for name, pg_type, nullable, meaning in ENVELOPE_COLUMNS]
    for field in contract.columns:
        if field.name == EVENT_AT:
            continue
        nullable = not (field.required or field.key)
        columns.append((field.name, POSTGRES_TYPES[field.logical_type], nullable, field_comment(field)))
        if field.pseudonym is not None:
            columns.append(
                (field.pseudonym, "text", nullable, f"Keyed pseudonym of {field.name}: equal where clear values are, not to be turned back without the key.")
            )
    return columns


def field_comment(field: Field) -> str:
    """Description with unit and classification, as it stands beside a column."""
    unit = f" Unit {field.unit}." if field.unit else ""
    personal = " Personal data." if field.is_personal else ""
    return f"{field.description}{unit}{personal}"


def table_ddl(contract: Contract) -> str:
    """Statements that make the raw table with partitions, indexes, comments and grants.

    Partitions by month are made at run time (`ops.ensure_partitions`); the eight by hash are made here.
    """
    table = f"raw.{contract.stream}"
    columns = ",\n".join(f"    {name} {_short(pg_type)}{'' if nullable else ' not null'}" for name, pg_type, nullable in table_columns(contract))
    by = "range (event_at)" if contract.partition == "month" else "hash (event_id)"
    statements = [f"create table {table} (\n{columns}\n) partition by {by}"]
    if contract.partition == "hash":
        for remainder in range(HASH_PARTITIONS):
            statements.append(f"create table {table}_h{remainder} partition of {table} for values with (modulus {HASH_PARTITIONS}, remainder {remainder})")
    # Time first: events that arrive together stand together in the index, so a load touches few of its pages, however much is stored.
    identity = "event_at, event_id" if contract.partition == "month" else "event_id"
    statements.append(f"create unique index {contract.stream}_identity on {table} ({identity})")
    statements.append(f"create index {contract.stream}_batch on {table} (_batch_id)")
    statements += [f"create index {contract.stream}_by_{column} on {table} (tenant_id, {column}, event_at)" for column in contract.bucket_columns]
    statements.append(f"comment on table {table} is {_quoted(contract.description)}")
    statements += [_comment(table, name, description) for name, _, _, description in described_columns(contract)]
    statements.append(f"grant select, insert, update, delete on {table} to tidemark_loader")
    statements.append(f"grant select on {table} to tidemark_transformer")
    return _script(statements)


def change_ddl(contract: Contract, existing: Sequence[Column]) -> str:
    """Statements that bring an existing raw table to the contract while it is in use; empty where nothing is to do.

    Args:
        contract: What the table should be.
        existing: Its columns now, as `table_columns` gives them.

    Raises:
        ContractError: If the change is not an addition of optional columns: rows that are there would not satisfy it.
    """
    file = f"{contract.stream}.yaml"
    before = {name: (pg_type, nullable) for name, pg_type, nullable in existing}
    statements: list[str] = []
    for name, pg_type, nullable, description in described_columns(contract):
        if name not in before:
            if not nullable:
                raise ContractError(file, name, "is a new required field, which stored rows lack", "add it as optional, or in a new major beside the old one")
            statements.append(f"select ops.add_column({_quoted(contract.stream)}, {_quoted(name)}, {_quoted(pg_type)}, {_quoted(description)})")
        elif before[name][0] != pg_type:
            raise ContractError(file, name, f"is {before[name][0]} in the table and {pg_type} in the contract", "add a field under a new name")
        elif not nullable and before[name][1]:
            raise ContractError(file, name, "is required now, but optional in the table", "keep it optional: stored rows may lack it")
        elif nullable and not before[name][1]:
            statements.append(f"select ops.loosen_column({_quoted(contract.stream)}, {_quoted(name)})")
    return _script(statements) if statements else ""


def revision_text(revision: str, down_revision: str, title: str, scripts: Iterable[str]) -> str:
    """Source of an Alembic revision that runs the given scripts; the DDL stands in it, so later contracts do not change history."""
    parts = [_escaped(script) for script in scripts]
    if not parts:
        raise ValueError("nothing to migrate")
    executed = "\n".join(f'    op.execute(\n        """\n{part}"""\n    )' for part in parts)
    return f'''"""{title}.

Written by `python -m include.contracts revision`; history from here on, so never written again.
"""

from alembic import op

revision = "{revision}"
down_revision = "{down_revision}"
branch_labels = None
depends_on = None


def upgrade() -> None:
{executed}
'''


def _short(pg_type: str) -> str:
    return "timestamptz" if pg_type == "timestamp with time zone" else pg_type


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _comment(table: str, name: str, description: str) -> str:
    return f"comment on column {table}.{name} is {_quoted(description)}"


def _script(statements: list[str]) -> str:
    return "".join(f"{statement};\n" for statement in statements)


def _escaped(script: str) -> str:
    """Script as a Python literal for SQLAlchemy's `text`, which would read `:word` as a parameter."""
    return re.sub(r"(?<!:):(?=\w)", r"\:", script).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
