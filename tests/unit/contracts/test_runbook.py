"""The runbook's example is a mapping that works."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import polars as pl
import pytest

from include.contracts.compile import REPOSITORY
from include.contracts.mapping import apply_mapping, mappings
from include.contracts.mapping_definition import parse_mapping_text

RUNBOOK = (REPOSITORY / "docs/runbooks/add-a-stream.md").read_text(encoding="utf-8")


def test_the_mapping_in_the_runbook_maps():
    example = re.search(r"```yaml\n(name: press_export.*?)```", RUNBOOK, re.DOTALL)
    assert example is not None
    mapping = parse_mapping_text(example.group(1), "press_export.yaml")
    frame = pl.DataFrame(
        {
            "machine": ["M12", "12"], "at": ["01/02/2024 08:30", "02/02/2024"], "kind": ["1", "3"], "hours": ["0.5", None], "cost": ["$1,200.50 ", "n/a"],
            "remark": ["-", "None"], "schicht": ["F", "S"], "row_colour": ["red", ""], "foreman": ["x", ""],
        }
    )  # fmt: skip
    result = apply_mapping(mapping, frame)
    first = result.frame.row(0, named=True)
    assert (first["device_id"], first["event_at"], first["maintenance_type"]) == ("press_12", datetime(2024, 2, 1, 7, 30, tzinfo=UTC), "failure")
    assert (first["downtime_min"], first["cost_usd"], first["notes"]) == (30.0, 1200.5, None)
    assert result.frame["notes"].to_list() == [None, "None"]
    assert [json.loads(text) for text in result.extra] == [{"shift": "early", "foreman": "x"}, {"shift": "late"}]
    assert [(fault.row, fault.field, fault.value) for fault in result.errors] == [(1, "device_id", "12"), (1, "maintenance_type", "3")]


@pytest.mark.parametrize("name", mappings())
def test_every_mapping_is_in_the_runbook(name):
    assert f"| `{name}` |" in RUNBOOK
