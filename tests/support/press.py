"""A stream of a test's own, in two major versions: presses that first said °F and a word, and then °C and a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import include.contracts as contracts
from include.contracts import load_contract
from include.contracts.compile import change_ddl, table_columns, table_ddl
from include.warehouse import Role, connect

STREAM = "press_reading"
_CONTRACT = """
apiVersion: v3.2.0
kind: DataContract
id: tidemark-press-reading
name: press_reading
version: {version}
status: {status}
team: {{name: pressers}}
schema:
  - name: press_reading
    physicalName: raw.press_reading
    logicalType: object
    description: What presses say.
    properties:
      - name: pressId
        physicalName: press_id
        logicalType: string
        required: true
        primaryKey: true
        primaryKeyPosition: 1
        description: Which press.
      - name: at
        physicalName: event_at
        logicalType: timestamp
        required: true
        primaryKey: true
        primaryKeyPosition: 2
        description: When.
{fields}
      - name: schemaVersion
        physicalName: schema_version
        logicalType: string
        description: Version of the contract that the sender follows.
slaProperties:
  - {{property: freshness, value: 90, unit: min}}
customProperties:
  - {{property: streamKind, value: event}}
  - {{property: source, value: device}}
  - {{property: eventTime, value: event_at}}
  - {{property: onConflict, value: keep_latest}}
  - {{property: partitioning, value: month}}
  - {{property: bucketColumns, value: [press_id]}}
  - {{property: earliest, value: '2020-01-01T00:00:00Z'}}
  - {{property: futureToleranceMinutes, value: 10}}
  - {{property: maxQuarantinedShare, value: 0.05}}
  - {{property: quarantineWindow, value: 1000}}
  - {{property: schemaVersionField, value: schema_version}}
"""
_FIELDS_1 = """\
      - name: temp
        physicalName: temperature_f
        logicalType: number
        required: true
        description: Temperature of the plate.
        customProperties: [{property: unit, value: °F}]
      - name: state
        physicalName: state_word
        logicalType: string
        enum: [{value: running}, {value: idle}]
        description: What it does.
      - {name: shift, physicalName: shift_code, logicalType: string, description: Who works.}
      - {name: force, physicalName: force_kn, logicalType: number, description: Force.}"""
_FIELDS_2 = """\
      - name: plate
        logicalType: object
        properties:
          - name: temperature
            physicalName: temperature_c
            logicalType: number
            required: true
            description: Temperature of the plate.
            customProperties: [{property: unit, value: °C}]
      - {name: state, physicalName: state_code, logicalType: integer, description: '0 idle, 1 running.'}
      - {name: force, physicalName: force_kn, logicalType: number, description: Force.}"""


def press(version: str, *, status: str = "active") -> str:
    """Text of the contract in a version; of major 2 on it has the fields of the second kind."""
    return _CONTRACT.format(version=version, status=status, fields=_FIELDS_1 if version.startswith("1.") else _FIELDS_2)


@contextmanager
def contracts_of(folder: Path, files: Mapping[str, str]) -> Iterator[Path]:
    """Makes a folder with these files the one that contracts are read from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contracts, "CONTRACTS_FOLDER", folder)
        forget()
        yield folder
    forget()


def forget() -> None:
    """Lets contracts be read anew."""
    contracts.streams.cache_clear()
    contracts.load_contract.cache_clear()


def make_table(folder: Path) -> None:
    """The raw table as it comes about: made for major 1, then widened for what the folder says now."""
    newest = folder / f"{STREAM}.yaml"
    text, first = newest.read_text(encoding="utf-8"), press("1.0.0")
    with connect(Role.OWNER) as connection:
        newest.write_text(first, encoding="utf-8")
        forget_older = [(path, path.read_text(encoding="utf-8")) for path in folder.glob(f"{STREAM}.v*.yaml")]
        for path, _ in forget_older:
            path.unlink()
        forget()
        before = load_contract(STREAM)
        connection.execute(table_ddl(before).encode())
        newest.write_text(text, encoding="utf-8")
        for path, older in forget_older:
            path.write_text(older, encoding="utf-8")
        forget()
        script = change_ddl(load_contract(STREAM), table_columns(before))
        if script:
            connection.execute(script.encode())
