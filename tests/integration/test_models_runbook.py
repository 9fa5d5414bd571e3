"""docs/runbooks/models.md, command by command, on a plant whose models are made up and whose marts are real."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from include.settings import get_settings
from include.warehouse import Role, connect
from ml.lifecycle.champions import champion_version, make_champion
from ml.lifecycle.gate import GateDecision
from ml.lifecycle.registry import Registry
from ml.lifecycle.schema import FeatureKind
from ml.lifecycle.training import GradientBoostingCandidate, fit
from ml.lifecycle.versions import MODEL_FILE, ModelCard, StoredVersion, enter_version
from ml.usecases.device_failure import DEVICE_FAILURE
from tests.conftest import Warehouse
from tests.integration.test_commands import error_of, run, run_json
from tests.support.runbooks import commands

SCHEMA = DEVICE_FAILURE.training.schema
LONG_AGO = date(2020, 1, 1)


def rows_of(count: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Feature rows of nothing in particular, and outcomes that the first feature decides."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(count, len(SCHEMA.features)))
    kinds = {feature.name: feature.kind for feature in SCHEMA.features}
    table = pd.DataFrame(numbers, columns=SCHEMA.names).astype(object)
    for name in SCHEMA.names_of(FeatureKind.CATEGORY):
        table[name] = "M1"
    assert kinds
    return table, (numbers[:, 0] + random.normal(size=count) > 1).astype(int)


@pytest.fixture
def house(built: Warehouse) -> Warehouse:
    """A built warehouse with two versions of device_failure that know every feature; the gate has made the first one champion."""
    registry = Registry("device_failure")
    for version in (1, 2):
        from skops.io import dumps

        config = replace(DEVICE_FAILURE.training, candidates=(GradientBoostingCandidate(trees=5, depth=2),))
        data = dumps(fit(config, *rows_of(400, version), *rows_of(200, version + 10)).estimator)
        file = get_settings().home / "mlflow" / f"runbook-{version}" / MODEL_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        number = int(registry._client.create_model_version("device_failure", file.parent.as_uri()).version)
        card = ModelCard(f"s{number}", SCHEMA, LONG_AGO - timedelta(days=8), LONG_AGO, hashlib.sha256(data).hexdigest())
        with connect(Role.ML) as connection:
            enter_version(connection, StoredVersion("device_failure", version, card, file, None, GateDecision(version == 1, f"said of {version}")))
    with connect(Role.ML) as connection:
        make_champion(connection, "device_failure", 1, instead_of=None, by="gate", reason="better than the baseline")
    return built


def champion() -> int | None:
    with connect(Role.ML) as connection:
        return champion_version(connection, "device_failure")


def test_the_commands_of_the_runbook_in_their_order(house: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = commands("models")
    assert [line[:2] for line in words] == [
        *(["model", "list"], ["model", "history"], ["model", "compare"], ["sql", words[3][1]]),
        *(["model", "monitor"], ["model", "monitor"]),
        *(["model", "promote"], ["model", "rollback"], ["model", "plan"]),
    ]
    listed, history, compare, query, monitor, monitor_now, promote, rollback, plan = words
    assert "said of 2" in run(*listed)
    assert "better than the baseline" in run(*history)
    assert "neither has learned from" in error_of(monkeypatch, capsys, *compare), "nothing has failed in this small plant since both were trained"

    assert run_json(*monitor) == []
    (line,) = run_json(*monitor_now)
    assert (line["use_case"], line["model_version"], line["wants_retraining"], line["trained_version"]) == ("device_failure", 1, False, None)
    assert "older than monitoring" in line["reason"]
    assert "no outcome is known yet" in line["reason"]
    shown = run(*monitor)
    assert "not needed" in shown
    assert "component_failure" in run("model", "monitor", "--now"), "no champion yet, nothing to watch"

    assert "version 2 is the champion of device_failure; before it was version 1" in run(*promote)
    assert champion() == 2
    assert "before it was version 2" in run(*rollback)
    assert champion() == 1
    assert [(line["model_version"], line["reason"]) for line in run_json(*history)] == [  # type: ignore[union-attr]
        (1, "alerts of plant 2 are wrong since Monday"),
        (2, "line 3 has new sensors, the old version does not know them"),
        (1, "better than the baseline"),
    ]
    (line,) = [line for line in run_json("model", "list") if line["state"] == "former champion"]  # type: ignore[union-attr]
    assert (line["version"], line["is_usable"], line["figure"]) == (2, True, None)

    # What the champion says, and why; marts read its rows only, also where another version has scored.
    assert house.value("select count(distinct model_version) from predictions.device_failure") == 2
    found = run_json(*query)
    assert isinstance(found, list)
    assert found
    reason = found[0]["reasons"][0]
    assert set(reason) == {"feature", "value", "contribution"}
    assert reason["feature"] in SCHEMA.names
    assert "work orders: " in run(*plan)
    versions = house.rows("select distinct prediction_model_version from maintenance.rpt_maintenance_priority where prediction_model_version is not null")
    assert versions == [(1,)]


def test_what_the_commands_refuse(house: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no former champion to go back to" in error_of(monkeypatch, capsys, "model", "rollback", "device_failure", "--reason", "x")
    assert "has no version 7; versions are 2, 1" in error_of(monkeypatch, capsys, "model", "promote", "device_failure", "7", "--reason", "x")
    assert "champion of device_failure already" in error_of(monkeypatch, capsys, "model", "promote", "device_failure", "1", "--reason", "x")
    assert "compared with itself" in error_of(monkeypatch, capsys, "model", "compare", "device_failure", "1")
    for wrong in (("promote", "device_failure", "2"), ("promote", "device_failure", "2", "--reason", " "), ("rollback", "nothing", "--reason", "x")):
        run("model", *wrong, code=2)
    run("model", "promote", "device_failure", "2", "--reason", "x", "--by", "gate", code=2)
    file = Path(run_json("model", "list")[0]["file"])  # type: ignore[index]
    file.unlink()
    assert "is gone" in error_of(monkeypatch, capsys, "model", "promote", "device_failure", "2", "--reason", "x")
    assert "gone or changed" in run("model", "list")
    assert champion() == 1
