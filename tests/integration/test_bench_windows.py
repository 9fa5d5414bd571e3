"""The harness of `make bench-windows` in small: that a batch of the size it says reaches every level of both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from include.settings import REPOSITORY
from tests.bench.page import markdown


def test_a_batch_reaches_every_level_whatever_is_stored(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    options = ["--devices", "50", "--few", "1", "--many", "2", "--repeats", "1", "--work", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "tests.bench.windows", *options], capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((tmp_path / "windows.json").read_text(encoding="utf-8"))
    assert [outcome[f"stored, {name}"]["readings"] for name in ("3 days", "30 days")] == [50 * (12 + 120), 50 * (24 + 120)]
    assert [figure["events"] for figure in outcome["figures"]] == [500, 500]
    assert [target["measured"] is not None for target in outcome["targets"]] == [True, True]
    plans = outcome["plans"]["30 days"]
    assert len(plans) == 16
    assert all(plan["pages"] > 0 and plan["buckets"] > 0 and plan["rows"] > 0 for plan in plans.values())
    assert "| `fct_device_sliding_1h` | 50 | 150 |" in markdown(outcome)
    assert {"fct_device_window_1min", "fct_device_sliding_1h", "fct_device_session", "fct_facility_window_local_1d"} <= set(
        outcome["seconds by node"]["30 days"]
    )
    assert not (tmp_path / "run-windows").exists(), "the server is removed at the end"
