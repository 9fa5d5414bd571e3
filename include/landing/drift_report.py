"""What `ops.schema_drift` holds, for people: which fields nobody knows yet, and which are sent no longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import psycopg
from psycopg.rows import class_row

from include.contracts import load_contract, streams
from include.contracts.model import Contract
from include.landing.drift import OTHERS, OWN_SHAPE, Inferred, Kind, merged
from include.warehouse import Role, connect

NEWS = timedelta(days=1)
_NAMED = 5  # fields that a warning names


class State(StrEnum):
    """Where a finding stands."""

    OPEN = "open"
    ACCEPTED = "accepted"  # the contract knows the field now
    ENDED = "ended"  # the field has values again, or no major that is taken has it


@dataclass(frozen=True)
class DriftLine:
    """A row of `ops.schema_drift`.

    Attributes:
        stream: The stream.
        kind: Unknown or vanished.
        mapping: Mapping of the files; empty for rows of the stream's own shape.
        tenant_id: Whose rows; empty for vanished columns.
        field: Dotted payload path, or column.
        first_seen_at: First batch with the unknown field, UTC; of a vanished column the last batch with a value.
        last_seen_at: Last batch that showed it, UTC.
        row_count: Rows with the unknown field; of a vanished column the rows since its last value.
        inferred_type: What the values seem to be; None for vanished columns.
        sample: The first value, shortened, masked where the stream holds personal data.
        contract_version: Contract that the last batch was judged by.
        ended_at: When a vanished column had values again, UTC.
    """

    stream: str
    kind: str
    mapping: str
    tenant_id: str
    field: str
    first_seen_at: datetime
    last_seen_at: datetime
    row_count: int
    inferred_type: str | None
    sample: str | None
    contract_version: str
    ended_at: datetime | None

    @property
    def state(self) -> State:
        """Whether anything is left to do, by today's contract."""
        contract = load_contract(self.stream)
        if self.kind == Kind.VANISHED:
            is_retired = self.mapping == OWN_SHAPE and not any(self.field in each.by_name for each in contract.majors)
            return State.OPEN if self.ended_at is None and not is_retired else State.ENDED
        is_known = self.mapping == OWN_SHAPE and any(self.field in each.paths for each in contract.majors)
        return State.ACCEPTED if is_known else State.OPEN


def list_drift(stream: str | None = None, *, everything: bool = False) -> list[DriftLine]:
    """Findings, the latest first.

    Args:
        stream: Only of this stream.
        everything: Also what is accepted or ended.
    """
    with connect(Role.LOADER) as connection:
        found = _lines(connection, [stream] if stream else streams())
    return found if everything else [line for line in found if line.state is State.OPEN]


def proposable(stream: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Unknown fields of rows in the stream's own shape, over all tenants: path and type of those that a contract can hold; the others, each with why not."""
    kinds: dict[str, Inferred] = {}
    for line in list_drift(stream):
        if line.kind == Kind.UNKNOWN and line.mapping == OWN_SHAPE and line.field != OTHERS:
            kind = Inferred(line.inferred_type or Inferred.NULL)
            kinds[line.field] = merged(kinds[line.field], kind) if line.field in kinds else kind
    reasons = {
        Inferred.MIXED: "its values are of several types",
        Inferred.LIST: "a list needs rows of its own",
        Inferred.OBJECT: "it is an empty object",
        Inferred.NULL: "it never had a value",
    }
    fitting = [(path, kind.value) for path, kind in sorted(kinds.items()) if kind not in reasons]
    return fitting, [f"{path}: {reasons[kind]}" for path, kind in sorted(kinds.items()) if kind in reasons]


def warnings(connection: psycopg.Connection, contract: Contract, now: datetime) -> list[str]:
    """What people should hear of: columns that files of the last day lack, and fields that nobody knew before it.

    A mapping that no file comes by any more lacks its columns for ever: that is said for a day and listed since.
    """
    found = [line for line in _lines(connection, [contract.stream]) if line.state is State.OPEN]
    vanished = [line.field for line in found if line.kind == Kind.VANISHED and line.last_seen_at > now - NEWS]
    unknown = [line.field for line in found if line.kind == Kind.UNKNOWN and line.first_seen_at > now - NEWS]
    said = []
    if vanished:
        said.append(f"{_named(vanished)} had values and has none any more")
    if unknown:
        said.append(f"{_named(unknown)} is sent and not in the contract")
    return [f"{what}; see `tidemark contracts drift {contract.stream}`" for what in said]


def _named(fields: Sequence[str]) -> str:
    names = list(dict.fromkeys(fields))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _lines(connection: psycopg.Connection, names: Sequence[str]) -> list[DriftLine]:
    with connection.cursor(row_factory=class_row(DriftLine)) as cursor:
        return cursor.execute(
            "select stream, kind, mapping, tenant_id, field, first_seen_at, last_seen_at, row_count, inferred_type, sample, contract_version, ended_at "
            "from ops.schema_drift where stream = any(%s) order by last_seen_at desc, stream, kind, mapping, tenant_id, field",
            (list(names),),
        ).fetchall()
