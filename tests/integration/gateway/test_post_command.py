"""`tidemark post` against a real gateway: what it says, what it stores, and what became of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from include.gateway.keys.administration import create
from include.landing import land_pending
from include.settings import REPOSITORY
from tests.conftest import Cluster, Warehouse
from tests.support.gateway import Gateway, running_gateway
from tests.support.landing import assert_balanced
from tests.support.payloads import at, telemetry

STREAM = "device_telemetry"


@pytest.fixture
def gateway(cluster: Cluster, warehouse: Warehouse) -> Iterator[Gateway]:
    _, token = create("acme", by="test", only=[STREAM])
    with running_gateway(cluster.home, warehouse.zone_dir, key=token, gateway_free_bytes=0, gateway_group_ms=5) as running:
        yield running


def start(gateway: Gateway, file: Path, *options: str, key: str | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "TIDEMARK_API_KEY": key or gateway.key, "TIDEMARK_GATEWAY_PORT": str(gateway.port), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "include.cli", "post", str(file), "--stream", STREAM, *options]
    return subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def post(gateway: Gateway, file: Path, *options: str, code: int = 0, key: str | None = None) -> tuple[str, str]:
    process = start(gateway, file, *options, key=key)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == code, said + complained
    return said, complained


def file_of(folder: Path, rows: Sequence[Any]) -> Path:
    path = folder / "readings.ndjson"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def readings(count: int) -> list[dict[str, Any]]:
    return [telemetry("m1", at(0, 0, minute)) for minute in range(count)]


def test_what_was_posted_lands_once_and_the_command_tells(gateway: Gateway, tmp_path: Path) -> None:
    rows: list[Any] = readings(5)
    rows[3] = {**rows[3], "measurements": {"temperature": 9999.0}}
    file = file_of(tmp_path, [*rows[:2], "", *rows[2:]])
    process = start(gateway, file, "--rows", "2", "--wait", "--gzip")
    assert process.stdout is not None
    receipts = [process.stdout.readline() for _ in range(3)]
    assert [line.split(":")[0] for line in receipts] == ["rows 1 to 2", "rows 4 to 5", "row 6"]
    land_pending(STREAM)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    assert "5 rows are safe, posts: 3" in said
    assert "1 rows are in quarantine" in said
    assert "row 5: out_of_range temperature_c" in complained
    assert [(head.tenant, head.encoding) for head, _ in gateway.posts()] == [("acme", "gzip")] * 3

    again = json.loads(post(gateway, file, "--json")[0])
    assert (again["rows"], again["not_taken"], [each["outcome"] for each in again["posts"]]) == (5, [], [None])
    assert land_pending(STREAM).duplicate == 4
    assert_balanced()


def test_strict_names_the_lines_of_the_file_and_stores_only_good_posts(gateway: Gateway, tmp_path: Path) -> None:
    rows = [*readings(3), {"deviceId": "m1"}, "no json", *readings(1)]
    said, complained = post(gateway, file_of(tmp_path, rows), "--rows", "3", "--validate", "strict", code=1)
    assert said.splitlines()[0].startswith("rows 1 to 3: ")
    assert "3 rows are safe, posts: 1" in said
    assert "rows 4 to 6 not taken: 422" in complained
    assert "row 4: " in complained
    assert "row 5: malformed_json" in complained
    assert "row 6: " not in complained
    told = json.loads(post(gateway, file_of(tmp_path, rows), "--rows", "3", "--validate", "strict", "--json", code=1)[0])
    assert [(each["first"], each["last"], each["status"], [row["row"] for row in each["refused"]]) for each in told["not_taken"]] == [(4, 6, 422, [4, 5])]


def test_a_key_that_is_not_good_ends_it_and_says_from_where(gateway: Gateway, tmp_path: Path) -> None:
    said, complained = post(gateway, file_of(tmp_path, readings(3)), "--rows", "1", code=1, key="tmk_aaaaaaaaaaaa_wrong")
    assert "0 rows are safe" in said
    assert complained.count("not taken") == 1
    assert "rows from 1 on not taken: 401" in complained
    assert gateway.posts() == []


def test_nobody_there_is_told_with_each_try_and_the_rows(gateway: Gateway, tmp_path: Path) -> None:
    gateway.stop()
    _, complained = post(gateway, file_of(tmp_path, readings(3)), "--patience", "1", code=1)
    assert "again in" in complained
    assert "rows from 1 on not taken" in complained
    assert "may be sent again" in complained


def test_receipts_are_told_also_where_nobody_answers_for_them(gateway: Gateway, tmp_path: Path) -> None:
    process = start(gateway, file_of(tmp_path, readings(3)), "--wait", "--json", "--patience", "1")
    while not gateway.posts():
        assert process.poll() is None
    gateway.stop()
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 1
    (told,) = json.loads(said)["posts"]
    assert (told["receipt"], told["outcome"]) == (gateway.posts()[0][0].receipt, None)
    assert "what became of the posts cannot be asked" in complained


@pytest.mark.parametrize(("options", "reason"), [(["--validate", "lax"], "--validate strict"), (["--cert", __file__], "--cert-key")])
def test_options_that_make_no_sense_are_refused(gateway: Gateway, tmp_path: Path, options: list[str], reason: str) -> None:
    assert reason in post(gateway, file_of(tmp_path, readings(1)), *options, code=1)[1]


def test_formats_that_are_not_posted_are_sent_to_import(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n", encoding="utf-8")
    _, complained = post(gateway, tmp_path / "a.csv", code=1)
    assert "tidemark import" in complained
    assert len(complained.strip().splitlines()) == 1
