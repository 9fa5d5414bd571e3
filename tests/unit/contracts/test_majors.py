# ruff: noqa: E501 - a line a case reads best
"""Major versions side by side: one table with the columns of all, and what cannot stand in one table is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.contracts import ContractError, load_contract, streams
from include.contracts.compile import compile_files, table_columns
from include.contracts.errors import MappingError
from include.contracts.mapping_definition import parse_mapping_text
from include.contracts.model import named_major
from include.contracts.parse import parse_contract_text
from tests.support.press import STREAM, contracts_of, forget, press

BOTH = {f"{STREAM}.yaml": press("2.0.0"), f"{STREAM}.v1.yaml": press("1.3.0")}


def test_the_table_has_the_columns_of_all_majors_and_requires_what_all_require(tmp_path: Path) -> None:
    with contracts_of(tmp_path, BOTH):
        assert streams() == (STREAM,)
        contract = load_contract(STREAM)
        assert [each.version for each in contract.majors] == ["2.0.0", "1.3.0"]
        own = {name: nullable for name, _, nullable in table_columns(contract) if name in contract.column_by_name and name != "event_at"}
        assert own == {
            "press_id": False, "temperature_c": True, "state_code": True, "force_kn": True, "schema_version": True, "temperature_f": True, "state_word": True, "shift_code": True,
        }  # fmt: skip
        assert list(contract.by_name) == ["press_id", "event_at", "temperature_c", "state_code", "force_kn", "schema_version"]
        (tmp_path / f"{STREAM}.v1.yaml").write_text(press("1.3.0", status="retired"))
        forget()
        retired = load_contract(STREAM)
        assert [each.version for each in retired.majors] == ["2.0.0"]
        assert table_columns(retired) == table_columns(contract), "rows of a retired major are stored"
        page = compile_files([contract])[Path(f"docs/contracts/{STREAM}.md")]
        assert "## Major 1 (1.3.0)" in page
        assert "`temperature_f`" in page


@pytest.mark.parametrize(
    ("older", "problem"),
    [
        (press("3.0.0").replace("3.0.0", "1.0.0").replace("physicalName: force_kn, logicalType: number", "physicalName: force_kn, logicalType: string"), "column force_kn has logical type string here and number in a newer major"),
        (press("1.0.0").replace("keep_latest", "keep_first"), "onConflict: differs"),
        (press("1.0.0").replace("value: month", "value: hash"), "partitioning: differs"),
        (press("1.0.0").replace("- name: schemaVersion", "- name: version"), "names the version stands elsewhere"),
    ],
)  # fmt: skip
def test_what_cannot_share_a_table_is_refused(tmp_path: Path, older: str, problem: str) -> None:
    with contracts_of(tmp_path, BOTH | {f"{STREAM}.v1.yaml": older}), pytest.raises(ContractError, match=problem):
        load_contract(STREAM)


def test_files_are_named_after_their_major() -> None:
    with pytest.raises(ContractError, match=r"<stream>\.v<major>\.yaml for an older major"):
        parse_contract_text(press("1.0.0"), f"{STREAM}.v2.yaml")
    with pytest.raises(ContractError, match="retired, but this is the newest"):
        parse_contract_text(press("1.0.0", status="retired"), f"{STREAM}.yaml")
    with pytest.raises(ContractError, match="no field in which a row could name its version"):
        parse_contract_text(press("1.0.0").replace("value: schema_version", "value: temperature_f"), f"{STREAM}.yaml")


def test_an_older_major_must_be_older(tmp_path: Path) -> None:
    with (
        contracts_of(tmp_path, {f"{STREAM}.yaml": press("1.0.0"), f"{STREAM}.v2.yaml": press("2.0.0")}),
        pytest.raises(ContractError, match="is no older major than"),
    ):
        load_contract(STREAM)


@pytest.mark.parametrize(
    ("value", "major"), [("2", 2), ("2.1", 2), ("2.1.0", 2), (2, 2), ("v2", None), ("", None), (True, None), (2.0, None), ("2.1.0.0", None)]
)
def test_versions_that_rows_name(value: object, major: int | None) -> None:
    assert named_major(value) == major


MAPPING = """
name: press_file
stream: press_reading
version: 1.0.0
{major}
description: A file.
known_after: arrival
columns:
  press_id: {{column: press}}
  event_at: {{column: at, formats: ['%Y-%m-%d %H:%M'], time_zone: UTC}}
  temperature_f: {{column: temp}}
"""


def test_a_mapping_may_stay_with_an_older_major(tmp_path: Path) -> None:
    with contracts_of(tmp_path, BOTH):
        assert parse_mapping_text(MAPPING.format(major="major: 1"), "press_file.yaml").contract.version == "1.3.0"
        with pytest.raises(MappingError, match="temperature_f: is no column of stream press_reading"):
            parse_mapping_text(MAPPING.format(major=""), "press_file.yaml")
        with pytest.raises(MappingError, match="takes no rows of major version 7; it takes 2, 1"):
            parse_mapping_text(MAPPING.format(major="major: 7"), "press_file.yaml")
        with pytest.raises(MappingError, match="is no major version"):
            parse_mapping_text(MAPPING.format(major="major: one"), "press_file.yaml")
