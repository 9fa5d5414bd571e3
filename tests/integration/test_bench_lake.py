"""The harness of `make bench-lake` in small: that it measures the files that are there, and that what it drops from raw comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from include.contracts import load_contract
from include.landing.store import raw_columns
from include.settings import REPOSITORY
from tests.bench.telemetry import STREAM


def test_a_tiny_run_weighs_every_column_of_every_row(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    command = [sys.executable, "-m", "tests.bench.lake", "--work", str(tmp_path), "--events", "2000", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "run-lake").exists(), "server, zone and lake are removed at the end"
    outcome = json.loads((tmp_path / "lake.json").read_text(encoding="utf-8"))
    lake, facts = outcome["lake"], outcome["data"]
    assert (lake["rows"], lake["files"], lake["ndjson_bytes"]) == (2000, 6, facts["ndjson_bytes"])
    assert set(lake["column_bytes"]) == set(raw_columns(load_contract(STREAM)))
    assert 2 * 16 * 2000 < sum(lake["column_bytes"].values()) < lake["lake_bytes"]
    assert [figure["name"] for figure in outcome["figures"]] == ["export", "verify", "restore"]
    (target,) = outcome["targets"]
    assert target["measured"] == round(facts["ndjson_bytes"] / lake["lake_bytes"], 4)
