"""From contracts to pages that people read: docs/contracts."""

from __future__ import annotations

from datetime import timedelta

from include.contracts.csv_dialect import RFC_4180
from include.contracts.model import Contract, Field, OnConflict

FIELDS_HEAD = "| In the payload | Column | Type | Unit | Required | Allowed | Description |\n|---|---|---|---|---|---|---|\n"
RULES_HEAD = "| Error code | Must hold | Why |\n|---|---|---|\n"
NOTE = "<!-- Written by `python -m include.contracts` from include/contracts/{file}. Do not edit: a test compares it with the contract. -->\n"


def index_page(contracts: list[Contract]) -> str:
    """Text of docs/contracts/README.md: the list of streams."""
    rows = "\n".join(f"| [{c.stream}]({c.stream}.md) | {c.kind} | {c.source} | {c.owner} | {c.version} | {_cell(c.description)} |" for c in contracts)
    return (
        NOTE.format(file="*.yaml")
        + f"""# Streams

Every stream is described by one contract file. To add one, or a field to one, see [the runbook](../runbooks/add-a-stream.md).

| Stream | Kind | Source | Owner | Version | What it is |
|---|---|---|---|---|---|
{rows}
"""
    )


def stream_page(contract: Contract) -> str:
    """Text of docs/contracts/<stream>.md: what a sender may send and what a reader may rely on."""
    fields = "\n".join(_field_row(field) for field in contract.fields)
    rules = "\n".join(f"| `rule:{rule.name}` | `{_cell(rule.expression)}` | {_cell(rule.description)} |" for rule in contract.rules)
    rules_section = f"\n## Rules within a row\n\nA rule with a missing value passes.\n\n{RULES_HEAD}{rules}\n" if rules else ""
    codes = "\n".join(f"- `{field.name}`: {', '.join(f'`{value}`' for value in field.enum)}" for field in contract.fields if field.enum)
    codes_section = f"\n## Allowed values\n\n{codes}\n" if codes else ""
    return (
        NOTE.format(file=f"{contract.stream}.yaml")
        + f"""# {contract.stream}

{contract.description}

| | |
|---|---|
| Version | {contract.version} |
| Kind, source | {contract.kind}, {contract.source} |
| Owner | {contract.owner} |
| Identity of an event | tenant, stream, {", ".join(f"`{name}`" for name in contract.key)} |
| Of several copies | {_copies(contract)} |
| Event time | `{contract.event_time}`, not before {contract.earliest:%Y-%m-%d} and at most {_duration(contract.future_tolerance)} after arrival |
| Raw table | `raw.{contract.stream}`, partitioned by {"month of event time" if contract.partition == "month" else "hash of `event_id`"} |
| Kept | {_retention(contract)} |
| Models bucket by | {", ".join(f"`{name}`" for name in contract.bucket_columns)} |
{_csv_row(contract)}| Silence is red after | {_duration(contract.freshness)} |
| Refused rows are red above | {contract.max_quarantined_share:.0%} of the last {contract.quarantine_window:,} |

## Fields

`tenantId` may stand beside these fields; without it the tenant is that of the file, else `default`. Fields that are not listed are kept in `_extra`.
{_version_line(contract)}
{FIELDS_HEAD}{fields}
{codes_section}{rules_section}{"".join(_older_major(each) for each in contract.older)}"""
    )


def _version_line(contract: Contract) -> str:
    if contract.schema_version_field is None:
        return ""
    path = ".".join(contract.field(contract.schema_version_field).path)
    return f"A row may name the version it follows in `{path}`; without it, it follows the major that accepts it and knows its fields best.\n"


def _older_major(contract: Contract) -> str:
    fields = "\n".join(_field_row(field) for field in contract.fields)
    taken = "Retired: its rows are stored, and no new ones are taken." if contract.is_retired else "Still taken, into the same table."
    return f"\n## Major {contract.major} ({contract.version})\n\n{taken}\n\n{FIELDS_HEAD}{fields}\n"


def _field_row(field: Field) -> str:
    column = f"`{field.name}`" + (f"<br>personal; models read `{field.pseudonym}`" if field.pseudonym else "")
    required = "key" if field.key else "yes" if field.required else ""
    cells = (f"`{'.'.join(field.path)}`", column, str(field.logical_type), field.unit or "", required, _cell(_allowed(field)), _cell(field.description))
    return f"| {' | '.join(cells)} |"


def _allowed(field: Field) -> str:
    parts = []
    if field.enum is not None:
        parts.append("see below")
    if field.minimum is not None or field.maximum is not None:
        parts.append(f"{_number(field.minimum)} to {_number(field.maximum)}")
    if field.max_length is not None:
        parts.append(f"at most {field.max_length} characters")
    if field.pattern is not None:
        parts.append(f"`{field.pattern}`")
    return ", ".join(parts)


def _copies(contract: Contract) -> str:
    if contract.on_conflict is None:
        return f"the one with the greatest `{contract.version_field}` counts"
    return {
        OnConflict.KEEP_FIRST: "the one that arrived first counts (`keep_first`)",
        OnConflict.KEEP_LATEST: "the one that arrived last counts (`keep_latest`)",
        OnConflict.QUARANTINE: "the one that arrived first counts, and any other that says something else goes to the quarantine (`quarantine`)",
    }[contract.on_conflict]


def _retention(contract: Contract) -> str:
    zone = f"files {_duration(contract.zone_retention)} in the zone after landing and export"
    if contract.hot_retention is None or contract.lake_retention is None:
        return f"rows for ever; {zone}"
    rows = f"rows {_duration(contract.hot_retention)} in raw and {_duration(contract.lake_retention)} in the lake, by whole months of event time"
    in_marts = "rows of marts with its pseudonyms go with those of the lake; " if any(field.is_personal for field in contract.fields) else ""
    return f"{rows}; {in_marts}{zone}"


def _csv_row(contract: Contract) -> str:
    return "" if contract.csv == RFC_4180 else f"| CSV files | {_cell(contract.csv.told())} |\n"


def _number(value: float | None) -> str:
    return "…" if value is None else f"{value:,.10g}"


def _duration(duration: timedelta) -> str:
    minutes = int(duration / timedelta(minutes=1))
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes % size == 0:
            return f"{minutes // size} {unit}{'' if minutes == size else 's'}"
    raise AssertionError("every whole number of minutes is a multiple of one")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
