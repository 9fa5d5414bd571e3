"""From a mart row down to its original bytes: row → bucket → input rows → raw rows → batches and files.

The way down is the way up read backwards. An incremental model says in `inputs` how a changed row of an input maps to its buckets; the rows of
that input that map to a given bucket are what the bucket was made of. Models that depend on everything say the same of their rows in `trace`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from include.transform.expiring import WITHIN_A_MONTH
from include.transform.invocation import manifest_json
from include.warehouse import Role, connect

Node = dict[str, Any]
ORIGINALS_SHOWN = 20


class TraceError(RuntimeError):
    """The table or row is not there or not unique; the message says what would make it so."""


@dataclass(frozen=True)
class Step:
    """One level of the way down: an input and how many of its rows made the rows above."""

    relation: str
    made: str
    rows: int


@dataclass(frozen=True)
class RawRow:
    """A raw row with where it came from; `original` are its bytes as they arrived, for the first rows of a trace."""

    stream: str
    event_id: str
    event_at: str
    batch_id: int
    file_id: int
    row_number: int
    address: str
    arrived_at: str
    original: str | None = None


@dataclass
class Trace:
    """All of it. `raw_rows` counts every raw row; `raw` lists them."""

    table: str
    row: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    raw: list[RawRow] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class _Project:
    """The models and sources of the manifest by name."""

    def __init__(self) -> None:
        manifest = manifest_json()
        self.models: dict[str, Node] = {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}
        self.sources: dict[str, Node] = {f"{node['source_name']}.{node['name']}": node for node in manifest["sources"].values()}

    def by_table(self, table: str) -> Node:
        """A model by schema.name or by name alone."""
        for node in self.models.values():
            if table in {f"{node['schema']}.{node['alias']}", node["name"]}:
                return node
        known = ", ".join(sorted(f"{node['schema']}.{node['alias']}" for node in self.models.values()))
        raise TraceError(f"no table {table}; known are {known}")


def relation_of(node: Node) -> str:
    """schema.name of a model or source."""
    return f"{node['schema']}.{node.get('alias') or node.get('identifier') or node['name']}"


def inputs_of(node: Node) -> dict[str, dict[str, str]]:
    """How a model's rows are made of its inputs: `inputs` of an incremental model, else `trace`."""
    config = node["config"]
    return dict(config.get("inputs") or config.get("trace") or {})


def find_row(connection: psycopg.Connection, node: Node, key: Mapping[str, str]) -> dict[str, Any]:
    """The one row that the key names; tenant_id is `default` where the key does not say.

    Raises:
        TraceError: If no row or more than one matches, or a column does not exist.
    """
    relation = relation_of(node)
    columns = list(node["columns"])
    asked = dict(key)
    if "tenant_id" in columns:
        asked.setdefault("tenant_id", "default")
    if unknown := [name for name in asked if name not in columns]:
        raise TraceError(f"{relation} has no column {', '.join(unknown)}; it has {', '.join(columns)}")
    where = sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in asked) if asked else sql.SQL("true")
    statement = sql.SQL("select * from {} where {} limit 2").format(sql.SQL(relation), where)
    try:
        rows = connection.cursor(row_factory=dict_row).execute(statement, list(asked.values())).fetchall()
    except psycopg.DataError as error:
        raise TraceError(f"a value of the key does not fit its column of {relation}: {str(error).splitlines()[0]}") from error
    named = ", ".join(f"{name}={value}" for name, value in asked.items()) or "no key"
    if not rows:
        raise TraceError(f"no row of {relation} has {named}")
    if len(rows) > 1:
        raise TraceError(f"more than one row of {relation} has {named}; add columns as column=value, of {', '.join(columns)}")
    return rows[0]


def parse_key(node: Node, words: Sequence[str]) -> dict[str, str]:
    """`column=value` words as they are; bare values are matched in order with the grain's columns, tenant_id left out."""
    unique = [index["columns"] for index in node["config"].get("indexes") or [] if index.get("unique")]
    grain = [name for name in (unique[0] if unique else node["config"].get("bucket") or []) if name != "tenant_id"]
    key: dict[str, str] = {}
    bare: list[str] = []
    for word in words:
        name, separator, value = word.partition("=")
        if separator and name in node["columns"]:
            key[name] = value
        else:
            bare.append(word)
    if len(bare) > len(grain):
        raise TraceError(f"{relation_of(node)} is found by {', '.join(grain) or 'column=value'}; got {len(bare)} bare values")
    return {**dict(zip(grain, bare, strict=False)), **key}


def trace(table: str, words: Sequence[str], *, originals: int = ORIGINALS_SHOWN) -> Trace:
    """Follows one row of a model down to the bytes that it was made of.

    Args:
        table: `schema.name` of a model.
        words: Its key: bare values in the order of the grain, or `column=value`.
        originals: For how many raw rows the original bytes are read from the zone.

    Raises:
        TraceError: If there is no such table, or not exactly one such row.
    """
    project = _Project()
    node = project.by_table(table)
    with connect(Role.TRANSFORMER, autocommit=True) as connection:
        row = find_row(connection, node, parse_key(node, words))
        found = Trace(table=relation_of(node), row=row)
        found.row = json.loads(json.dumps(row, default=str))
        _descend(connection, project, node, [found.row], found)
        _name_files(connection, found)
        _read_originals(connection, found, originals)
    if not found.raw and not found.files and not found.remarks:
        found.remarks.append(f"{found.table} is generated from the project's vars: no raw rows stand behind it")
    return found


def _descend(connection: psycopg.Connection, project: _Project, node: Node, rows: list[dict[str, Any]], found: Trace) -> None:
    for name, mapping in inputs_of(node).items():
        lower = project.models.get(name) or project.sources.get(name)
        if lower is None:
            raise TraceError(f"{relation_of(node)} names the input {name}, which the project does not have")
        made = _rows_behind(connection, project.models, node, lower, mapping, rows)
        found.steps.append(Step(relation_of(lower), relation_of(node), len(made)))
        if name.startswith("stg_"):
            _remark_gone(connection, name[4:], mapping, rows, found)
        if not made:
            continue
        if name.startswith("stg_"):
            found.raw.extend(_raw_rows(name[4:], made))
        elif name == "ops.file":
            found.files.extend(row["address"] for row in made if row["kind"] == "arrival")
        elif (onward := lower["config"].get("meta", {}).get("traced_to")) is not None:
            _descend_through(connection, project, onward, made, found)
        else:
            _descend(connection, project, lower, made, found)


def _remark_gone(connection: psycopg.Connection, stream: str, mapping: dict[str, str], rows: list[dict[str, Any]], found: Trace) -> None:
    """Says where rows are whose month has left the raw table."""
    columns = [column for column, expression in mapping.items() if expression in WITHIN_A_MONTH]
    wanted = {f"{str(row[column])[:7]}-01" for row in rows for column in columns}
    gone = connection.execute(
        "select month, state, row_count from ops.partition_state where stream = %s and month = any(%s::date[]) and state <> 'restored' order by month",
        (stream, sorted(wanted)),
    )
    for month, state, row_count in gone:
        where = "were deleted from the lake too" if state == "deleted" else f"are in the lake: `tidemark lake restore {stream} {month}` brings them back"
        remark = f"the {row_count:,} rows of {stream} of {month:%B %Y} have left raw and {where}"
        if remark not in found.remarks:
            found.remarks.append(remark)


def _descend_through(connection: psycopg.Connection, project: _Project, onward: str, rows: list[dict[str, Any]], found: Trace) -> None:
    """Follows a source that a model was scored from, by the grain of that model."""
    node = project.models[onward]
    grain = node["config"]["bucket"]
    _descend(connection, project, node, [{column: row[column] for column in grain} for row in rows], found)


def _rows_behind(
    connection: psycopg.Connection, models: Mapping[str, Node], node: Node, lower: Node, mapping: dict[str, str], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of an input that map to the given rows' buckets."""
    this, below = relation_of(node), relation_of(lower)
    if "select" in mapping:
        matched = list(node["config"]["bucket"])
        columns = _changing_columns(lower)
        changes = f"(select {', '.join(f'input_row.{column} as {column}' for column in columns)})"
        select = mapping["select"].replace("{changes}", changes).replace("{this}", this).replace("{input}", below)
        for name in inputs_of(node):  # a mapping may look things up in other inputs
            if f"{{{name}}}" in select:
                select = select.replace(f"{{{name}}}", relation_of(models[name]))
        source = f"{below} as input_row cross join lateral (select * from ({select}) as inner_mapped) as mapped"
        on = " and ".join(f"mapped.{column} = wanted.{column}" for column in matched)
    else:
        matched = list(
            dict.fromkeys(
                [*(node["config"].get("bucket") or [column for column in ("tenant_id",) if column in lower["columns"] and column in node["columns"]]), *mapping]
            )
        )
        expressions = "".join(f", ({mapping[column]}) as traced__{column}" for column in mapping)
        source = f"(select candidate.*{expressions} from {below} as candidate) as input_row"
        on = " and ".join(f"input_row.{f'traced__{column}' if column in mapping else column} = wanted.{column}" for column in matched)
    wanted = [{column: row[column] for column in matched} for row in rows]
    query = (  # only names and expressions of the project; values are parameters
        f"select distinct on (to_jsonb(input_row)) input_row.* from {source} "
        f"inner join (select distinct {', '.join(matched)} from jsonb_populate_recordset(null::{this}, %s::jsonb)) as wanted on {on}"
    )
    cursor = connection.cursor(row_factory=dict_row).execute(query, [json.dumps(wanted)])
    made: list[dict[str, Any]] = json.loads(json.dumps(cursor.fetchall(), default=_as_text))
    return made


def _as_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes | memoryview) else str(value)


def _changing_columns(lower: Node) -> list[str]:
    """Columns by which an input's changes are known: those of its bucket, or of a staging view the ones its contract names."""
    if bucket := lower["config"].get("bucket"):
        return list(bucket)
    from include.contracts import load_contract

    contract = load_contract(lower["name"].removeprefix("stg_"))
    return list(dict.fromkeys(["tenant_id", "event_at", *contract.bucket_columns]))


def _raw_rows(stream: str, rows: list[dict[str, Any]]) -> list[RawRow]:
    return [
        RawRow(stream, row["event_id"], row["event_at"], int(row["_batch_id"]), int(row["_file_id"]), int(row["_row_number"]), "", row["_arrived_at"])
        for row in rows
    ]


def _name_files(connection: psycopg.Connection, found: Trace) -> None:
    """Names the file of every raw row and drops rows that were reached in two ways."""
    addresses: dict[int, str] = dict(
        connection.execute("select file_id, address from ops.file where file_id = any(%s)", ([row.file_id for row in found.raw],)).fetchall()
    )
    unique = {(row.stream, row.event_id): row for row in found.raw}
    ordered = sorted(unique.values(), key=lambda row: (row.stream, row.event_at, row.event_id))
    found.raw = [RawRow(**{**row.__dict__, "address": addresses[row.file_id]}) for row in ordered]
    found.files = sorted({*found.files, *addresses.values()})


def _read_originals(connection: psycopg.Connection, found: Trace, count: int) -> None:
    """Reads the first rows from the zone. Where it has other bytes by now, or none, a remark says so: those would not be what the number was made of."""
    from include.landing import LandingError, read_original

    rows = found.raw[:count]
    files = connection.execute("select file_id, version_tag, content_hash from ops.file where file_id = any(%s)", ([row.file_id for row in rows],))
    landed: dict[int, tuple[str, bytes]] = {file_id: (version_tag, bytes(content_hash)) for file_id, version_tag, content_hash in files}
    for place, row in enumerate(rows):
        try:
            original = read_original(row.address, row.row_number, landed[row.file_id])
        except LandingError as error:
            if str(error) not in found.remarks:
                found.remarks.append(str(error))
        else:
            found.raw[place] = replace(row, original=original.decode("utf-8", errors="replace"))
