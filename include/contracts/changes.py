"""What differs between two versions of a contract, and whether senders and readers of the older one can go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from include.contracts.model import Contract, Field


class Level(IntEnum):
    """How far a change reaches, which is the part of the version that it must raise."""

    PATCH = 0
    MINOR = 1
    MAJOR = 2


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        place: Payload path of the field, or the part of the contract.
        what: What is otherwise.
        why: What that means for those who rely on the older version.
        level: How far it reaches; `MAJOR` is breaking.
    """

    place: str
    what: str
    why: str
    level: Level

    @property
    def is_breaking(self) -> bool:
        """Whether rows or readers of the older version cannot go on."""
        return self.level is Level.MAJOR


_REFUSED = "rows that were accepted would be refused"
_ACCEPTED = "everything that was accepted still is"
_WORDS = "words only"
# Parts of a contract: their name in the file and why they cannot change.
_FIXED = {
    "stream": ("name", "it is another stream"),
    "kind": ("streamKind", "models rely on it"),
    "key": ("primaryKey", "stored events would have another identity, and copies of them would be counted twice"),
    "version_field": ("versionField", "another copy of the same event would count"),
    "on_conflict": ("onConflict", "another copy of the same event would count"),
    "partition": ("partitioning", "the stored table is partitioned otherwise"),
    "bucket_columns": ("bucketColumns", "logged positions of changed rows lack the new columns, or models lose theirs"),
    "csv": ("csv", "files that were read would be read otherwise"),
}
_WORDING = {"owner": "team.name", "description": "schema.description"}
_COMPARED_APART = {"version", "fields", "rules", "earliest", "future_tolerance", "older", "is_retired", "schema_version_field"}


def compare(old: Contract, new: Contract) -> list[Change]:
    """Every difference, breaking ones first, each kind in the order of the contract."""
    found = [*_fields(old, new), *_rules(old, new), *_parts(old, new)]
    return sorted(found, key=lambda change: -change.level)


def required_level(changes: list[Change]) -> Level | None:
    """The part of the version that the changes must raise; None where nothing changed."""
    return max((change.level for change in changes), default=None)


def raised(version: str, level: Level) -> str:
    """The next version of a level: 1.2.3 is followed by 1.2.4, 1.3.0 or 2.0.0."""
    major, minor, patch = map(int, version.split("."))
    return {Level.PATCH: f"{major}.{minor}.{patch + 1}", Level.MINOR: f"{major}.{minor + 1}.0", Level.MAJOR: f"{major + 1}.0.0"}[level]


def is_raised(old: str, new: str, level: Level) -> bool:
    """Whether the step from one version to another is large enough for changes of a level."""
    before, after = ([int(part) for part in version.split(".")] for version in (old, new))
    parts = 3 - level
    return after[:parts] > before[:parts]


def _fields(old: Contract, new: Contract) -> Iterator[Change]:
    for name, field in old.by_name.items():
        if name not in new.by_name:
            place = ".".join(field.path)
            yield Change(place, f"column {name} is gone", "readers lose it, and values that are still sent go to _extra", Level.MAJOR)
        else:
            yield from _field(field, new.by_name[name])
    for name, field in new.by_name.items():
        if name not in old.by_name:
            place = ".".join(field.path)
            if field.required:
                yield Change(place, f"column {name} is new and required", "rows that do not have it yet would be refused, and stored rows lack it", Level.MAJOR)
            else:
                why = "optional: rows without it are as good as before; only a value that does not fit is refused"
                yield Change(place, f"column {name} is new", why, Level.MINOR)


def _field(old: Field, new: Field) -> Iterator[Change]:
    place = ".".join(new.path)
    if old.path != new.path:
        yield Change(place, f"column {old.name} stood at {'.'.join(old.path)}", "values at the old place go to _extra", Level.MAJOR)
    for attribute, why, is_breaking in (
        ("logical_type", "values of the old type are refused, and the stored column cannot hold the new one", True),
        ("unit", "the same number means something else", old.unit is not None),
        ("classification", "whether readers see the clear value changes", old.is_personal != new.is_personal),
    ):
        before, after = getattr(old, attribute), getattr(new, attribute)
        if before != after:
            what = f"{attribute.replace('_', ' ')} {_shown(before)} becomes {_shown(after)}"
            if is_breaking:
                yield Change(place, what, why, Level.MAJOR)
            else:
                yield Change(place, what, _WORDS, Level.PATCH)
    if old.required != new.required:
        yield Change(place, "is required now", _REFUSED, Level.MAJOR) if new.required else Change(place, "is optional now", _ACCEPTED, Level.MINOR)
    yield from _allowed(place, old, new)
    if old.description != new.description:
        yield Change(place, "description", _WORDS, Level.PATCH)


def _allowed(place: str, old: Field, new: Field) -> Iterator[Change]:
    before, after = (set(field.enum) if field.enum is not None else None for field in (old, new))
    if before != after:
        narrowed = after is not None and (before is None or not before <= after)
        yield _narrowed_or_not(place, f"allowed values {_shown(old.enum)} become {_shown(new.enum)}", is_narrowed=narrowed)
    for attribute, sign in (("minimum", 1), ("maximum", -1), ("max_length", -1)):
        least, limit = getattr(old, attribute), getattr(new, attribute)
        if least != limit:
            narrowed = limit is not None and (least is None or (limit - least) * sign > 0)
            yield _narrowed_or_not(place, f"{attribute.replace('_', ' ')} {_shown(least)} becomes {_shown(limit)}", is_narrowed=narrowed)
    if old.pattern != new.pattern:
        yield _narrowed_or_not(place, f"pattern {_shown(old.pattern)} becomes {_shown(new.pattern)}", is_narrowed=new.pattern is not None)


def _narrowed_or_not(place: str, what: str, *, is_narrowed: bool) -> Change:
    return Change(place, what, _REFUSED if is_narrowed else _ACCEPTED, Level.MAJOR if is_narrowed else Level.MINOR)


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = ({rule.name: rule for rule in contract.rules} for contract in (old, new))
    for name in before | after:
        place = f"quality.{name}"
        if name not in after:
            yield Change(place, "the rule is gone", _ACCEPTED, Level.MINOR)
        elif name not in before or before[name].expression != after[name].expression:
            yield Change(place, "the rule is new" if name not in before else "the rule says something else", _REFUSED, Level.MAJOR)
        elif before[name].description != after[name].description:
            yield Change(place, "description", _WORDS, Level.PATCH)


def _parts(old: Contract, new: Contract) -> Iterator[Change]:
    for attribute, (place, why) in _FIXED.items():
        before, after = getattr(old, attribute), getattr(new, attribute)
        if before != after:
            yield Change(place, f"{_shown(before)} becomes {_shown(after)}", why, Level.MAJOR)
    if old.earliest != new.earliest:
        yield _narrowed_or_not("earliest", f"{old.earliest:%Y-%m-%d} becomes {new.earliest:%Y-%m-%d}", is_narrowed=new.earliest > old.earliest)
    if old.future_tolerance != new.future_tolerance:
        narrowed = new.future_tolerance < old.future_tolerance
        yield _narrowed_or_not("futureToleranceMinutes", f"{old.future_tolerance} becomes {new.future_tolerance}", is_narrowed=narrowed)
    if old.schema_version_field != new.schema_version_field:
        yield _version_field(old, new)
    for attribute, place in _WORDING.items():
        if getattr(old, attribute) != getattr(new, attribute):
            yield Change(place, "is worded otherwise", _WORDS, Level.PATCH)
    if old.is_retired != new.is_retired:
        retired = new.is_retired
        yield Change("status", "is retired" if retired else "is taken again", "meant: its senders have moved on" if retired else _ACCEPTED, Level.MINOR)
    for part in dataclasses.fields(Contract):
        name = part.name
        if name not in _COMPARED_APART | _FIXED.keys() | _WORDING.keys() and getattr(old, name) != getattr(new, name):
            yield Change(
                name,
                f"{_shown(getattr(old, name))} becomes {_shown(getattr(new, name))}",
                "the house acts otherwise; rows and readers do not notice",
                Level.MINOR,
            )


def _version_field(old: Contract, new: Contract) -> Change:
    """A field that comes with it held no values before; one that was there may hold texts that are no versions, and another one is where nobody looks."""
    what = f"{_shown(old.schema_version_field)} becomes {_shown(new.schema_version_field)}"
    if old.schema_version_field is None and new.schema_version_field not in old.by_name:
        return Change("schemaVersionField", what, "rows that name no version are judged as before", Level.MINOR)
    why = "rows that are on their way name their version elsewhere" if old.schema_version_field else "values that were accepted may be no versions"
    return Change("schemaVersionField", what, why, Level.MAJOR)


def _shown(value: Any) -> str:  # noqa: ANN401 - any attribute
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
