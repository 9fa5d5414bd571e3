"""`tidemark quarantine` as people use it: find rows, look, mend, send again, replay, discard."""

from __future__ import annotations

import gzip
import io
import json
import stat
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from include.cli import app
from include.contracts import load_contract
from include.landing import hold, land_pending
from tests.conftest import Warehouse
from tests.integration.test_commands import error_of, run, run_json
from tests.support.landing import assert_balanced
from tests.support.payloads import at, put, telemetry, zone
from tests.support.stricter import land_under, with_field

HEADER = "timestamp,machine_id,temperature,vibration,humidity,pressure,energy_consumption,machine_status,anomaly_flag"
HEADER += ",predicted_remaining_life,failure_type,downtime_risk,maintenance_required"


@pytest.fixture
def cool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yesterday's contract: no more than 50 °C."""
    land_under(monkeypatch, with_field(load_contract("device_telemetry"), "temperature_c", maximum=50.0))


def land() -> None:
    land_pending("device_telemetry", arrived_from=at(-1), arrived_before=at(3))


def listed(*options: str) -> list[dict[str, Any]]:
    found = run_json("quarantine", "list", *options)
    assert isinstance(found, list)
    return found


def exported(folder: Path, *options: str, code: int = 0) -> dict[str, Any]:
    found = run_json("quarantine", "export", str(folder), *options, code=code)
    assert isinstance(found, dict)
    return found


def companion(file: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file["errors"]).read_text().splitlines()]


def test_rows_are_found_replayed_and_their_history_shown(warehouse: Warehouse, cool: None, monkeypatch: Any, capsys: Any) -> None:
    put("device_telemetry", [telemetry("m1", at(0, 1)), "{broken", telemetry("m2", at(0, 1))], arrived_at=at(0, 2))
    land()
    number = str(listed("--code", "malformed_json")[0]["quarantine_id"])
    table = run("quarantine", "list", "--stream", "device_telemetry", "--limit", "2")
    assert "2 of 3 rows" in table
    (tried,) = run_json("quarantine", "replay", "--dry-run")  # type: ignore[misc]
    assert (tried["stream"], tried["tried"], tried["accepted"], tried["failed_again"], tried["is_dry_run"]) == ("device_telemetry", 3, 2, 1, True)
    assert len(listed()) == 3
    assert "Nothing was kept" in run("quarantine", "replay", "--dry-run")
    assert "the marts follow" in run("quarantine", "replay", "--by", "anna")
    assert {row["row_number"]: row["state"] for row in listed("--state", "all")} == {1: "replayed", 2: "open", 3: "replayed"}
    assert [row["outcome"] for row in listed("--state", "replayed")] == ["accepted", "accepted"]
    shown = run_json("quarantine", "show", number)
    assert isinstance(shown, dict)
    assert [(event["action"], event["outcome"], event["done_by"]) for event in shown["history"]] == [
        ("land", "quarantined", None),
        ("replay", "failed", "anna"),
    ]
    several = run_json("quarantine", "show", "--code", "malformed_json")
    assert isinstance(several, list)
    assert several == [shown]
    text = run("quarantine", "show", number)
    assert "{broken" in text
    assert "anna" in text
    assert "no row 99 in quarantine" in error_of(monkeypatch, capsys, "quarantine", "show", "99")
    assert "of those that the options name" in error_of(monkeypatch, capsys, "quarantine", "show", number, "--stream", "orders")


def test_rows_are_discarded_and_reopened_by_name_only(warehouse: Warehouse, monkeypatch: Any, capsys: Any) -> None:
    put("device_telemetry", ["{broken"] * 3, arrived_at=at(0, 2))
    land()
    assert "--all" in error_of(monkeypatch, capsys, "quarantine", "discard", "--reason", "x")
    assert "--all" in error_of(monkeypatch, capsys, "quarantine", "discard", "--state", "open", "--reason", "x")
    assert "reason" in error_of(monkeypatch, capsys, "quarantine", "discard", "--all", "--reason", " ")
    first, second, _ = (str(row["quarantine_id"]) for row in listed())
    assert "2 rows discarded" in run("quarantine", "discard", "--id", first, "--id", second, "--reason", "test pulse")
    assert "1 rows are open again" in run("quarantine", "reopen", "--id", first, "--reason", "was none")
    assert "2 rows discarded" in run("quarantine", "discard", "--all", "--reason", "all test pulses")
    assert warehouse.rows("select state, count(*) from ops.quarantine group by 1") == [("discarded", 3)]
    assert {row[0] for row in warehouse.rows("select done_by from ops.quarantine_event")} != {""}


@pytest.mark.parametrize(
    "options",
    [
        ["replay", "--state", "discarded"],
        ["discard", "--reason", "x", "--state", "replayed"],
        ["list", "--stream", "nothing"],
        ["list", "--from", "yesterday"],
        ["list", "--state", "lost"],
        ["replay", "--code", ""],
        ["discard", "--reason", "x", "--file", ""],
        ["discard", "--reason", "x", "--tenant", " "],
        ["list", "--from", ""],
    ],
)
def test_an_option_that_makes_no_sense_is_refused(warehouse: Warehouse, options: list[str]) -> None:
    assert CliRunner().invoke(app, ["quarantine", *options]).exit_code == 2


def test_a_stream_on_hold_is_named(warehouse: Warehouse, cool: None) -> None:
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    land()
    hold("device_telemetry", "recall")
    done = CliRunner().invoke(app, ["quarantine", "replay"])
    assert done.exit_code == 1
    assert "on hold" in done.stderr


def test_lines_are_exported_mended_sent_again_and_settled(warehouse: Warehouse, tmp_path: Path) -> None:
    wrong = json.dumps(telemetry("m1", at(0, 1), temperature=7000.0))
    for number, tenant in enumerate((None, None, "acme")):
        put("device_telemetry", [telemetry("good", at(0, 1)), wrong, '{"torn": '], arrived_at=at(0, 2, number), tenant=tenant)
    land()
    done = exported(tmp_path / "out", "--code", "out_of_range")
    assert [(Path(file["path"]).name, file["rows"], file["tenant"]) for file in done["files"]] == [
        ("device_telemetry-1.ndjson", 2, "default"),
        ("device_telemetry.acme-2.ndjson", 1, "acme"),
    ]
    path = Path(done["files"][0]["path"])
    assert path.read_text() == f"{wrong}\n{wrong}\n"
    assert [(row["row"], row["row_number"], row["codes"]) for row in companion(done["files"][0])] == [(1, 2, ["out_of_range"]), (2, 2, ["out_of_range"])]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(Path(done["files"][0]["errors"]).stat().st_mode) == 0o600
    path.write_text(path.read_text().replace("7000.0", "70.0"))
    run("import", str(path), "--stream", "device_telemetry")
    assert_balanced()
    assert warehouse.value("select count(*) from raw.device_telemetry where temperature_c = 70.0") == 1
    assert "2 rows discarded" in run("quarantine", "discard", "--exported", done["files"][0]["errors"], "--reason", "mended and sent again")
    assert len(listed("--code", "out_of_range")) == 1
    printed = run("quarantine", "export", str(tmp_path / "more"), "--tenant", "acme")
    assert f"tidemark import {tmp_path}/more/device_telemetry.acme-1.ndjson --stream device_telemetry --tenant acme" in printed


def test_records_are_exported_under_their_header(warehouse: Warehouse, tmp_path: Path) -> None:
    good, bad = "2025-01-05 10:00:00,901,70.5,40.1,50.2,2.1,3.3,1,0,300,Normal,0.0,0", '2025-01-05 10:01:00,902,70.5,40.1,50.2,"2\n,1",3.3,1,0,300,Normal,0.0,0'
    for number, header in enumerate((HEADER, HEADER, f"{HEADER},shift")):
        rows = [row + (",early" if header != HEADER else "") for row in (good, bad, "short,record", bad.replace("902", "903"))]
        data = ("\n".join([header, *rows]) + "\n").encode()
        zone().put("device_telemetry", gzip.compress(data), source="plc", ext="csv.gz", arrived_at=at(0, 2, number), mapping="smart_manufacturing")
    land()
    done = exported(tmp_path / "out")
    assert [(Path(file["path"]).name, file["rows"]) for file in done["files"]] == [
        ("device_telemetry.smart_manufacturing-1.csv", 6),
        ("device_telemetry.smart_manufacturing-2.csv", 3),
    ]
    path = Path(done["files"][0]["path"])
    other = bad.replace("902", "903")
    assert path.read_text() == "\n".join([HEADER, bad, other, bad, other, "short,record", "short,record"]) + "\n"
    assert [row["codes"] for row in companion(done["files"][0])][4:] == [["malformed_csv"]] * 2
    path.write_text(path.read_text().replace('"2\n,1"', "2.1").replace("short,record\n", ""))
    run("import", str(path), "--mapping", "smart_manufacturing")
    assert_balanced()
    assert warehouse.rows("select device_id from raw.device_telemetry order by 1") == [(f"smf_machine_90{n}",) for n in (1, 2, 3)]


def test_parquet_is_exported_as_parquet_and_unreadable_files_whole(warehouse: Warehouse, cool: None, tmp_path: Path, capsys: Any) -> None:
    frame = pl.json_normalize([telemetry(f"m{n}", at(0, n), temperature=45.0 + n) for n in range(9)], separator=".")
    target = io.BytesIO()
    frame.write_parquet(target, row_group_size=4)
    stored = zone().put("device_telemetry", target.getvalue(), source="a", ext="parquet", arrived_at=at(0, 9))
    zone().put("device_telemetry", b"no gzip", source="b", ext="ndjson.gz", arrived_at=at(0, 10))
    land()
    done = exported(tmp_path / "out")
    assert [(Path(file["path"]).suffix, file["rows"]) for file in done["files"]] == [(".parquet", 3), (".gz", 1)]
    assert pl.read_parquet(done["files"][0]["path"]).equals(frame[6:])
    assert Path(done["files"][1]["path"]).read_bytes() == b"no gzip"
    (warehouse.zone_dir / stored.address).unlink()
    gone = exported(tmp_path / "gone", code=1)
    assert gone["missing"] == {stored.address: 3}
    assert [Path(file["path"]).suffix for file in gone["files"]] == [".gz"]
    assert "is not empty" in CliRunner().invoke(app, ["quarantine", "export", str(tmp_path / "out")]).exception.args[0]  # type: ignore[union-attr]


def test_a_companion_that_is_none_is_refused(warehouse: Warehouse, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    other = tmp_path / "other.ndjson"
    other.write_text("{}\n")
    assert "not a companion of an export" in error_of(monkeypatch, capsys, "quarantine", "discard", "--exported", str(other), "--reason", "x")
    other.write_text("")
    assert CliRunner().invoke(app, ["quarantine", "discard", "--exported", str(other), "--reason", "x"]).exit_code == 2


def test_a_file_needs_its_mapping_or_its_stream(warehouse: Warehouse, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file = tmp_path / "a.ndjson"
    file.write_text("{}\n")
    assert "its mapping or its stream" in error_of(monkeypatch, capsys, "import", str(file))
    assert "its mapping or its stream" in error_of(monkeypatch, capsys, "import", str(file), "--stream", "orders", "--mapping", "smart_manufacturing")
