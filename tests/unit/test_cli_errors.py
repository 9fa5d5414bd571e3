"""Errors that say themselves what was wrong and what to do are a line, not a traceback."""

from __future__ import annotations

import importlib

import pytest

from include import cli
from ml.decisions.work_orders import CostsInvalid
from ml.lifecycle.explain import NotExplainable
from ml.lifecycle.monitoring import MonitoringFailed
from ml.lifecycle.provenance import DatasetUntraceable


@pytest.mark.parametrize("kind", [CostsInvalid, DatasetUntraceable, MonitoringFailed, NotExplainable])
def test_what_models_and_decisions_refuse_is_a_line(kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise kind("build the marts first")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "build the marts first" in capsys.readouterr().err


def test_every_expected_error_exists() -> None:
    for name in cli.EXPECTED:
        module, _, attribute = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), attribute), Exception), name
