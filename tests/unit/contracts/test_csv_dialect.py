"""Dialects of CSV files, as mappings and contracts declare them."""

from __future__ import annotations

import pytest

from include.contracts import load_contract
from include.contracts.csv_dialect import RFC_4180, CsvDialect
from include.contracts.errors import ContractError, MappingError
from include.contracts.mapping_definition import parse_mapping_text
from include.contracts.parse import parse_contract_text
from include.contracts.reference import stream_page
from include.settings import REPOSITORY

MAPPING = """
name: trial
stream: maintenance_log
version: 1.0.0
description: Trial.
known_after: arrival
columns:
  log_id: {column: id}
  device_id: {column: machine}
  event_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}
  updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}
  maintenance_type: {constant: repair}
"""
CONTRACT = (REPOSITORY / "include" / "contracts" / "orders.yaml").read_text()


def of_mapping(csv: str) -> CsvDialect:
    return parse_mapping_text(f"{MAPPING}csv: {csv}\n", "trial.yaml").csv


def of_contract(csv: str) -> CsvDialect:
    return parse_contract_text(CONTRACT.replace("customProperties:\n", f"customProperties:\n  - {{property: csv, value: {csv}}}\n", 1), "orders.yaml").csv


@pytest.mark.parametrize("declared", [of_mapping, of_contract])
@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("{delimiter: ';'}", CsvDialect(";")),
        ('{delimiter: "\\t", quote: none}', CsvDialect("\t", None)),
        ("{quote: \"'\", escape: '\\'}", CsvDialect(quote="'", escape="\\")),
        ("{escape: doubled, encoding: Windows-1252}", CsvDialect(encoding="cp1252")),
        ("{encoding: UTF-16LE}", CsvDialect(encoding="utf-16-le")),
        ("{encoding: latin1}", CsvDialect(encoding="iso8859-1")),
        ("{delimiter: ' ', repeated: true, columns: [a, b], number: row}", CsvDialect(" ", columns=("a", "b"), repeated=True, number="row")),
    ],
)
def test_a_declared_dialect_is_read(declared, text, dialect):
    assert declared(text) == dialect


@pytest.mark.parametrize(("declared", "error"), [(of_mapping, MappingError), (of_contract, ContractError)])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "give one or more of delimiter"),
        ("semicolon", "give one or more of delimiter"),
        ("{separator: ';'}", "unknown key separator"),
        ("{delimiter: ';;'}", "one quoted character"),
        ("{delimiter: x}", "one quoted character"),
        ('{delimiter: "\\n"}', "one quoted character"),
        ("{delimiter: 1}", "one quoted character"),
        ("{quote: ''}", "or none where quotes have no meaning"),
        ("{delimiter: ';', quote: ';'}", "two meanings"),
        ("{escape: '\"'}", "two meanings"),
        ("{encoding: klingon}", "no encoding that is read"),
        ("{encoding: utf-32}", "no encoding that is read"),
        ("{encoding: utf-7}", "no encoding that is read"),
        ("{encoding: cp500}", "no encoding that is read"),
        ("{encoding: base64}", "no encoding that is read"),
        ("{encoding: 1252}", "no encoding that is read"),
        ("{columns: []}", "list the names of the columns"),
        ("{columns: [a, a]}", "list the names of the columns"),
        ("{columns: [' a']}", "list the names of the columns"),
        ("{repeated: 'yes'}", "write true"),
        ("{columns: [a], number: a}", "a column that the file does not have"),
    ],
)
def test_a_dialect_that_cannot_be_kept_is_refused_with_what_to_write(declared, error, text, told):
    with pytest.raises(error, match=told):
        declared(text)


def test_without_a_word_csv_is_rfc_4180_and_the_page_tells_a_declared_dialect_only():
    assert parse_mapping_text(MAPPING, "trial.yaml").csv == load_contract("orders").csv == RFC_4180
    assert "CSV files" not in stream_page(load_contract("orders"))
    declared = CONTRACT.replace("customProperties:\n", "customProperties:\n  - {property: csv, value: {delimiter: '|', encoding: windows-1252}}\n", 1)
    assert '| CSV files | delimiter `\\|`, quote `"`, quotes within quotes doubled, cp1252 |' in stream_page(parse_contract_text(declared, "orders.yaml"))
