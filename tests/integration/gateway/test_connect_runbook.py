"""docs/runbooks/connect-a-device.md, typed by a newcomer: from a key to a row in a mart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from include.settings import REPOSITORY
from tests.conftest import Cluster, Warehouse
from tests.support.gateway import running_gateway
from tests.support.runbooks import shell

ADDRESS = "http://127.0.0.1:8090"


def test_from_a_key_to_a_row_in_a_mart(cluster: Cluster, deployed: Warehouse, tmp_path: Path) -> None:
    script = shell("connect-a-device")
    assert script.count(ADDRESS) == 1
    # The commands of this checkout, as a shell with its environment finds them.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "tidemark").write_text(f'#!/bin/sh\nexec {sys.executable} -m include.cli "$@"\n', encoding="utf-8")
    (programs / "tidemark").chmod(0o755)
    desk = tmp_path / "desk"
    desk.mkdir()
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
    with running_gateway(cluster.home, deployed.zone_dir, key="none yet", gateway_free_bytes=0) as gateway:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, gateway.url)], env=environment, cwd=desk, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((desk / "receipt.json").read_text(encoding="utf-8"))["rows"] == 1
    rows = deployed.rows("select reading_count, avg_temperature_c from maintenance.fct_device_reading_hourly where device_id = 'press_7' order by hour_at")
    assert rows == [(3, 62.0), (1, 61.5)], "three readings posted twice count once, and the first event is there"
    assert "press_7" in done.stdout
    receipt = json.loads(done.stdout.splitlines()[-1])
    assert (receipt["status"], receipt["rows"]["accepted"]) == ("landed", 1)
    assert deployed.value("select note from ops.api_key") == "press 7"
