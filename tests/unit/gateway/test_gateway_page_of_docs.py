"""docs/gateway.md names every answer and every metric, and none that there is not."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from include.contracts import load_contract
from include.gateway import bodies
from include.gateway.metrics import PREFIX, Metrics
from include.gateway.openapi import PROBLEMS, Limits, openapi_document
from include.gateway.strict import MAX_ROWS
from include.settings import REPOSITORY, Settings
from tests.unit.gateway.test_operation import CALM

TEXT = (REPOSITORY / "docs" / "gateway.md").read_text(encoding="utf-8")


def first_cells(heading: str, column: str) -> list[str]:
    """Code in the first column of the table whose head begins so, below a heading."""
    table = TEXT.partition(f"## {heading}")[2].partition(f"| {column}")[2].partition("\n\n")[0]
    return [code for line in table.splitlines()[2:] for code in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_every_answer_is_listed() -> None:
    assert first_cells("Answers", "Status") == ["202", *(str(int(status)) for status in PROBLEMS)]
    members = openapi_document([load_contract("orders")], Limits(1, 1))["components"]["schemas"]["Problem"]["properties"]
    listed = set(re.findall(r"`([a-z_]+)`", TEXT.partition("## Answers")[2].partition("## ")[0]))
    assert members.keys() <= listed


def test_every_metric_is_listed_with_its_labels() -> None:
    metrics = Metrics()
    metrics.follow(CALM)
    families = text_string_to_metric_families(metrics.text().decode())
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families if family.name.startswith(PREFIX)}
    assert {f"{PREFIX}_{name}" for name in first_cells("Operation", "Metric")} == names


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"TIDEMARK_(GATEWAY_[A-Z_]*[A-Z])", TEXT))))
def test_every_setting_exists(setting: str) -> None:
    assert setting.lower() in Settings.model_fields


def test_limits_are_those_of_the_settings() -> None:
    fields = Settings.model_fields
    assert f"{fields['gateway_body_bytes'].default >> 20} MiB as sent" in TEXT
    assert f"{fields['gateway_plain_bytes'].default >> 20} MiB unpacked" in TEXT
    assert f"headers within {fields['gateway_head_seconds'].default} s, the body within {fields['gateway_body_seconds'].default} s" in TEXT
    assert f"is kept {fields['gateway_idle_seconds'].default} s" in TEXT
    assert f"waits up to {fields['gateway_group_ms'].default} ms" in TEXT
    assert f"up to {MAX_ROWS:,} rows" in TEXT
    assert f"{bodies.MAX_ROWS:,} lines or elements" in TEXT
