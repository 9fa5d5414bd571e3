"""What dbt must know of use cases is what the use cases say."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import yaml

from include.settings import get_settings
from ml.lifecycle.reread import use_cases

# Use cases about machines, whose predictions dbt joins with outcomes. Those of other units have what their training report says.
MACHINES = {name: use_case for name, use_case in use_cases().items() if "device_id" in use_case.dataset.features.entity}
PROJECT = yaml.safe_load((get_settings().dbt_project_dir / "dbt_project.yml").read_text(encoding="utf-8"))
QUESTIONS = {question["name"]: question for question in PROJECT["vars"]["prediction_questions"]}


def watched() -> dict[str, dict[str, str]]:
    """Kind by feature by table, of macro watched_features."""
    text = (get_settings().dbt_project_dir / "macros" / "models" / "watched_features.sql").read_text()
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if table := re.match(r"\s+'(\w+)': \{$", line):
            found[table[1]] = {}
        elif feature := re.match(r"\s+'(\w+)': \['(\w+)', \S+, \S+\],$", line):
            found[list(found)[-1]][feature[1]] = feature[2]
    return found


def test_every_use_case_is_joined_with_its_outcomes() -> None:
    assert set(QUESTIONS) == set(MACHINES)


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_outcomes_are_those_that_models_learn_from(name: str) -> None:
    use_case, question = MACHINES[name], QUESTIONS[name]
    outcome = use_case.dataset.outcome
    assert outcome.horizon == timedelta(days=question["horizon_days"])
    assert outcome.settling == timedelta(days=question["settling_days"])
    assert {column: tuple(values) for column, values in question["condition"].items()} == dict(outcome.condition)
    assert (outcome.relation.name, outcome.time_column) == ("fct_maintenance_event", "occurred_at")
    assert question.get("relation", name) == use_case.target.relation.name
    assert tuple(question.get("quantiles") or [question["probability"]]) == use_case.target.value_columns
    assert use_case.dataset.features.entity == ("tenant_id", "device_id", *([question["component"]] if "component" in question else []))


def test_every_feature_that_a_model_learns_from_is_watched() -> None:
    learned: dict[str, dict[str, str]] = {}
    for use_case in MACHINES.values():
        features = learned.setdefault(use_case.dataset.features.relation.name, {})
        features |= {feature.name: str(feature.kind) for feature in use_case.training.schema.features}
    assert watched() == learned
