"""`tidemark lake` as people and scripts use it."""

from __future__ import annotations

from include.lake.store import open_lake
from include.landing import land_pending
from tests.integration.test_commands import error_of, run, run_json
from tests.support.lake import assert_lake_is_raw, drop_month
from tests.support.payloads import at, put, telemetry
from tests.support.runbooks import commands

STREAM = "device_telemetry"


def test_the_lake_is_exported_listed_verified_compacted_and_swept(warehouse, monkeypatch, capsys):
    for hour in (1, 2):
        put(STREAM, [telemetry("m1", at(1, hour)), telemetry("m1", at(2, hour))], arrived_at=at(3, hour))
        land_pending(STREAM, arrived_before=at(4))
        (done,) = run_json("lake", "export", STREAM)
        assert (done["files"], done["rows"]) == (2, 2)
    assert STREAM in run("lake", "export")  # every stream; those without rows have nothing to write
    assert_lake_is_raw(STREAM)
    files = run_json("lake", "list", STREAM, "--from", "2026-03-02", "--to", "2026-03-02")
    assert [(file["event_date"], file["row_count"], file["stream"]) for file in files] == [("2026-03-02", 1, STREAM)] * 2
    assert files[0]["address"] in run("lake", "list")
    assert run_json("lake", "verify", STREAM, "--raw") == [{"stream": STREAM, "days": 2, "rows": 4, "compared_with_raw": 2}]
    warehouse.execute(f"update raw.{STREAM} set _row_number = 9 where event_at < '2026-03-03'")
    assert f"{STREAM} on 2026-03-02" in error_of(monkeypatch, capsys, "lake", "verify", "--raw")
    (done,) = run_json("lake", "export", STREAM, "--day", "2026-03-02")
    assert (done["files"], done["rows"], done["rewritten"]) == (1, 2, ["2026-03-02"])
    assert run_json("lake", "verify", STREAM, "--raw")[0]["rows"] == 4
    (compacted,) = run_json("lake", "compact", STREAM)
    assert (compacted["days"], compacted["files"]) == (1, 2)
    assert run_json("lake", "sweep", STREAM)[0]["replaced"] == 0
    assert run_json("lake", "sweep", STREAM, "--grace-hours", "0")[0]["replaced"] == 4
    assert STREAM in run("lake", "compact", STREAM)
    assert STREAM in run("lake", "sweep", STREAM)
    drop_month(STREAM, at(0).date())
    assert "2" in run("lake", "verify", STREAM, "--raw")
    (file, *_) = run_json("lake", "list", STREAM)
    open_lake().remove(file["address"])
    assert f"{file['address']} is gone" in error_of(monkeypatch, capsys, "lake", "verify", STREAM)


def test_the_commands_of_the_runbook_run(built):
    listed = commands("lake")
    assert {words[1] for words in listed if words[0] == "lake"} == {"list", "export", "verify", "compact", "sweep"}
    run("lake", "export")
    for words in listed:
        run(*words)
    assert_lake_is_raw(STREAM)


def test_the_lakes_commands_say_what_is_wrong_in_one_line(warehouse, monkeypatch, capsys):
    assert "there is no stream 'nothing'" in error_of(monkeypatch, capsys, "lake", "export", "nothing")
    assert "--from 'soon' is no day" in error_of(monkeypatch, capsys, "lake", "list", "--from", "soon")
    monkeypatch.setenv("TIDEMARK_LAKE_URL", "ftp://nowhere")
    from include.settings import get_settings

    get_settings.cache_clear()
    assert "TIDEMARK_LAKE_URL must look like" in error_of(monkeypatch, capsys, "lake", "export", STREAM)
