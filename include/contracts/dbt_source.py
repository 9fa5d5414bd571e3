"""From contracts to the dbt source `raw`: what staging may read, with freshness out of the ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import yaml

from include.contracts.ddl import described_columns
from include.contracts.model import PSEUDONYM_SUFFIX, Contract

HEADER = "# Written by `python -m include.contracts` from include/contracts/*.yaml. Do not edit: a test compares it with the contracts.\n"
# The arrival of the newest committed file: silence of the source, not of the warehouse.
LOADED_AT_QUERY = "select coalesce(max(last_arrived_at), 'epoch'::timestamptz) from ops.stream_state where stream = '{stream}'"
TYPES_OF_DBT = {"timestamp with time zone": "timestamptz"}


class _Dumper(yaml.SafeDumper):
    """Indents lists under their key, as the rest of the project's YAML does."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - the signature is PyYAML's
        super().increase_indent(flow, False)


def sources_yaml(contracts: list[Contract]) -> str:
    """Text of `_sources_raw.yml`: one table a stream, with columns, classification, buckets and freshness."""
    document = {
        "sources": [
            {
                "name": "raw",
                "schema": "raw",
                "description": "Accepted rows of each stream, as landing wrote them. Read by staging and by nothing else.",
                "tables": [_table(contract) for contract in contracts],
            }
        ]
    }
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=160)


def _table(contract: Contract) -> dict[str, Any]:
    return {
        "name": contract.stream,
        "description": contract.description,
        "config": {
            "loaded_at_query": LOADED_AT_QUERY.format(stream=contract.stream),
            "freshness": {"warn_after": _period(contract.freshness / 2), "error_after": _period(contract.freshness)},
            "meta": {
                "stream": contract.stream,
                "contract_version": contract.version,
                "kind": str(contract.kind),
                "source": str(contract.source),
                "owner": contract.owner,
                "event_time": contract.event_time,
                "key": list(contract.key),
                "bucket_columns": list(contract.bucket_columns),
                "expires": contract.expires,
            },
        },
        "columns": [_column(contract, name, pg_type, nullable, description) for name, pg_type, nullable, description in described_columns(contract)],
    }


def _column(contract: Contract, name: str, pg_type: str, nullable: bool, description: str) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "data_type": TYPES_OF_DBT.get(pg_type, pg_type), "description": description}
    field = contract.column_by_name.get(name)
    meta: dict[str, Any] = {}
    if not nullable:
        meta["required"] = True
    if field is not None:
        meta |= {key: value for key, value in (("classification", field.classification), ("unit", field.unit)) if value is not None}
    elif name.endswith(PSEUDONYM_SUFFIX):
        meta["pseudonym_of"] = name.removesuffix(PSEUDONYM_SUFFIX)
    if meta:
        column["config"] = {"meta": meta}
    return column


def _period(duration: timedelta) -> dict[str, Any]:
    minutes = int(duration / timedelta(minutes=1))
    for period, size in (("day", 1440), ("hour", 60)):
        if minutes % size == 0:
            return {"count": minutes // size, "period": period}
    return {"count": minutes, "period": "minute"}
