"""The harness of `make bench-scoring` in small: that it scores with every candidate, one by one and whole, without MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from include.settings import REPOSITORY
from ml.lifecycle.training import LogisticRegressionCandidate
from ml.usecases.device_failure import DEVICE_FAILURE
from tests.bench.scoring import rows_of, short_name


def test_every_candidate_is_measured(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    options = ("--rows", "2000", "--singles", "20", "--whole", "1500", "--repeats", "1", "--work", str(tmp_path))
    done = subprocess.run([sys.executable, "-m", "tests.bench.scoring", *options], capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((tmp_path / "scoring.json").read_text(encoding="utf-8"))
    candidates = DEVICE_FAILURE.training.candidates
    names = [short_name(candidate.name) for candidate in candidates]
    expected = [name for each in names for name in (each, f"{each}_single")]
    assert [figure["name"] for figure in outcome["figures"]] == [*expected, "load", "whole", "whole_again", "one_day"]
    linear = {short_name(candidate.name) for candidate in candidates if isinstance(candidate, LogisticRegressionCandidate)}
    assert [target["name"] for target in outcome["targets"]] == [name for name in expected if name not in linear], "batch targets are for trees"
    assert all(target["measured"] for target in outcome["targets"])
    assert not (tmp_path / "run-scoring").exists(), "the server is removed at the end"


def test_the_rows_are_those_of_the_use_case_with_values_that_are_not_known() -> None:
    rows, outcome = rows_of(500, 1)
    assert list(rows.columns) == DEVICE_FAILURE.training.schema.names
    assert 0.02 < rows.isna().to_numpy().mean() < 0.04
    assert 0.04 < outcome.mean() < 0.06
