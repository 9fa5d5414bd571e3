"""From fields that sources send beyond their contract to a draft of the next one: the text of the file with the fields in it, everything else as it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from include.contracts.changes import Level, raised
from include.contracts.errors import ContractError
from include.contracts.model import COLUMN_NAME, PSEUDONYM_SUFFIX, Contract, LogicalType

_VERSION_LINE = re.compile(r"(?m)^version: *['\"]?([0-9.]+)['\"]?")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]*")


@dataclass(frozen=True)
class NewField:
    """A field that sources send.

    Attributes:
        path: Dotted payload path.
        logical_type: What its values are.
    """

    path: str
    logical_type: LogicalType


def proposal(text: str, contract: Contract, fields: Sequence[NewField]) -> tuple[str, dict[str, ContractError]]:
    """The contract's text with new optional fields, and its version raised by a minor.

    Descriptions say that they are to be written; a text or date of a stream with personal data is taken for personal until somebody says otherwise.

    Args:
        text: Text of the contract file.
        contract: What it says.
        fields: The new fields.

    Returns:
        The text; and by path, why a field is not in it: it cannot stand where it is sent, or the file's lists are not written in lines.
    """
    left_out: dict[str, ContractError] = {}
    names = {name for field in contract.columns for name in (field.name, field.pseudonym) if name is not None}
    for field in sorted(fields, key=lambda each: each.path):
        name = _column_name(field.path, names)
        try:
            text = _with_field(text, contract, field, name)
        except ContractError as error:
            left_out[field.path] = error
        else:
            names |= {name, f"{name}{PSEUDONYM_SUFFIX}"}
    return _VERSION_LINE.sub(f"version: {raised(contract.version, Level.MINOR)}", text, count=1), left_out


def _column_name(path: str, taken: set[str]) -> str:
    parts = [re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part).lower()).strip("_") for part in path.split(".")]
    for count in range(1, len(parts) + 1):
        name = "_".join(part for part in parts[-count:] if part)[:50]
        if COLUMN_NAME.fullmatch(name) and name not in taken:
            return name
    name = f"field_{'_'.join(parts)}"[:50]
    return name if name not in taken else f"{name[:46]}_{len(taken)}"


def _with_field(text: str, contract: Contract, field: NewField, name: str) -> str:
    """The text with one more field, in its group where there is one, else in a new group at the end."""
    file = f"{contract.stream}.yaml"
    *groups, leaf = field.path.split(".")
    if not all(_KEY.fullmatch(part) for part in (*groups, leaf)):
        raise ContractError(file, field.path, "is no name that a contract can hold", "add the field by hand, or ask the sender for another name")
    properties = _properties(yaml.compose(text, Loader=yaml.SafeLoader), file)
    while groups:
        below = _group(properties, groups[0], file, field.path)
        if below is None:
            break
        properties, groups = below, groups[1:]
    if properties.flow_style:
        raise ContractError(file, field.path, "stands in a list that is written on one line", "write that list with a line an entry")
    indent = " " * properties.value[0].start_mark.column
    block = _block(contract, field, leaf, groups, name, indent[2:])
    lines = text.splitlines(keepends=True)
    at = properties.value[-1].end_mark.line
    if at < len(lines) and properties.value[-1].end_mark.column > 0 and lines[at][: properties.value[-1].end_mark.column].strip():
        at += 1  # an entry in braces ends within its line
    while at and not (lines[at - 1].strip() and not lines[at - 1].lstrip().startswith("#")):
        at -= 1
    return "".join([*lines[:at], *block, *lines[at:]])


def _block(contract: Contract, field: NewField, leaf: str, groups: Sequence[str], name: str, margin: str) -> list[str]:
    """Lines of the new entry; `margin` is where the dash of the list stands."""
    lines: list[str] = []
    for group in groups:
        lines += [f"{margin}- name: {_scalar(group)}", f"{margin}  logicalType: object", f"{margin}  properties:"]
        margin += "    "
    lines += [f"{margin}- name: {_scalar(leaf)}", f"{margin}  physicalName: {_scalar(name)}", f"{margin}  logicalType: {field.logical_type}"]
    if contract.personal_fields and field.logical_type in (LogicalType.STRING, LogicalType.DATE):
        lines += [
            f"{margin}  classification: personal  # taken for personal as the stream holds such data; remove both lines if it is not",
            f"{margin}  encryptedName: {name}{PSEUDONYM_SUFFIX}",
        ]
    lines.append(f"{margin}  description: Sent since before version {raised(contract.version, Level.MINOR)}; say what it is, and its unit.")
    return [f"{line}\n" for line in lines]


def _scalar(name: str) -> str:
    """The name as YAML reads it back: `on` and `no` need quotes."""
    return name if yaml.safe_load(name) == name else f"'{name}'"


def _properties(document: yaml.Node | None, file: str) -> yaml.SequenceNode:
    schema = _child(document, "schema")
    found = _child(schema.value[0], "properties") if isinstance(schema, yaml.SequenceNode) and schema.value else None
    if not isinstance(found, yaml.SequenceNode):
        raise ContractError(file, "schema", "has no list of properties", "start from a contract beside it")
    return found


def _group(properties: yaml.SequenceNode, name: str, file: str, path: str) -> yaml.SequenceNode | None:
    for entry in properties.value:
        given = _child(entry, "name")
        if given is not None and given.value == name:
            found = _child(entry, "properties")
            if not isinstance(found, yaml.SequenceNode):
                raise ContractError(file, path, f"{name} is a field of the contract and no group", "a field cannot be both: this needs a new major")
            return found
    return None


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
