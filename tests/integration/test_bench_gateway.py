"""The harness of `make bench-gateway` in small: that it measures both servers and verifies what was acknowledged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import REPOSITORY
from tests.bench.gateway import Bench, quantile
from tests.bench.server import BenchmarkError
from tests.support.gateway import running_gateway


def test_both_servers_are_measured_and_every_receipt_is_looked_for(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    options = ("--work", str(tmp_path), "--batches", "40", "--singles", "200", "--latency", "0.5", "--repeats", "1")
    done = subprocess.run([sys.executable, "-m", "tests.bench.gateway", *options], capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((tmp_path / "gateway.json").read_text(encoding="utf-8"))
    assert {figure["name"]: figure["events"] for figure in outcome["figures"]} == {
        "batches": 4000,
        "batches_bare": 4000,
        "singles": 200,
        "singles_bare": 200,
    }
    assert [target["measured"] is not None for target in outcome["targets"]] == [True] * 4
    assert outcome["verified"]["posts"] == 200 + 40 + 200 + sum(loop["posts"] for loop in outcome["open_loop"].values())
    assert not (tmp_path / "run-gateway").exists()


def test_a_receipt_without_its_frame_ends_the_run(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "home", gateway_free_bytes=0) as gateway:
        bench = Bench({"gateway": gateway}, 1, tmp_path)
        bench.measure("gateway", posts=4, rows=2, connections=2)
        assert bench.verified_posts == 4
        bench._servers["gateway"].zone = tmp_path / "elsewhere"
        with pytest.raises(BenchmarkError, match="4 acknowledged posts are not in the zone"):
            bench.measure("gateway", posts=4, rows=2, connections=2)


def test_an_answer_that_is_no_acknowledgement_ends_the_run(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "home", gateway_free_bytes=0) as gateway:
        gateway.key = "wrong"
        with pytest.raises(BenchmarkError, match="'401': 4"):
            Bench({"gateway": gateway}, 1, tmp_path).measure("gateway", posts=4, rows=2, connections=2)


def test_a_share_of_the_values_is_not_exceeded() -> None:
    values = [float(value) for value in range(1000, 0, -1)]
    assert [quantile(values, share) for share in (0.5, 0.99, 0.999)] == [500.0, 990.0, 999.0]
    assert quantile([7.0], 0.5) == 7.0
