"""The harness of `make bench-files` in small: that it asks every kind of question of an index of the size it says."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import REPOSITORY
from tests.bench.files import _questions, p95_ms


def bench(work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    command = [sys.executable, "-m", "tests.bench.files", "--work", str(work), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)


def test_every_kind_of_question_is_asked_and_planned(tmp_path: Path) -> None:
    done = bench(tmp_path, "--files", "7000", "--questions", "2", "--repeats", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((tmp_path / "files.json").read_text(encoding="utf-8"))
    assert outcome["index"]["files"] == 7000
    assert {"arrival, landed", "arrival, expired", "lake, live"} <= set(outcome["index"])
    kinds = list(_questions(random.Random(0)))
    assert [figure["name"] for figure in outcome["figures"]] == [*kinds, "command"]
    assert list(outcome["plans"]) == kinds
    assert all(plan["scans"] for plan in outcome["plans"].values())
    assert all(outcome["plans"][kind]["rows"] > 0 for kind in ("newest", "since", "failed")), "questions find files"
    assert outcome["plans"]["nothing"]["rows"] == 0
    assert [target["measured"] is not None for target in outcome["targets"]] == [True, True]
    assert not (tmp_path / "run-files").exists(), "the server is removed at the end"


def test_an_index_that_is_too_small_is_refused(tmp_path: Path) -> None:
    done = bench(tmp_path, "--files", "100")
    assert done.returncode == 1
    assert "too small" in done.stdout


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (19, 19), (20, 19), (100, 95), (101, 96)])
def test_one_in_twenty_may_take_longer(count: int, expected: int) -> None:
    assert p95_ms([number / 1000 for number in range(count, 0, -1)]) == expected
