"""`tidemark twin` on a built warehouse: what it shows, as whom it reads, and what it says of devices that are not there."""

from __future__ import annotations

import re

import pytest

from include.commands.twin import find_twin
from include.settings import REPOSITORY
from include.warehouse import Role
from tests.conftest import Warehouse
from tests.integration.test_commands import error_of, run, run_json
from tests.support.marts import build_marts
from tests.support.payloads import at, device_event, registry, telemetry
from tests.support.scenario import File, land
from tests.support.twin_story import TWINS


def test_a_twin_shows_what_is_desired_reported_and_known(built: Warehouse) -> None:
    shown = run("twin", "m1")
    assert all(part in shown for part in ("drifting", "machine_controller, press_100", "factory_02, line_a", "1.3.0", "1.2.3", "drifts", "error_restart_error"))
    found = run_json("twin", "m1")
    assert isinstance(found, dict)
    assert (found["target_firmware_version"], found["reported_firmware_version"], found["is_firmware_drifting"]) == ("1.3.0", "1.2.3", True)
    # Asked for at the start of the second of March, and m1 was last heard of at the end of the fifth day.
    assert (found["firmware_drifting_since_at"], found["last_contact_at"]) == ("2026-03-02T00:00:00+00:00", "2026-03-05T22:00:00+00:00")
    assert found["firmware_drift_s"] == pytest.approx(94 * 3600)
    assert (found["reported_state"], found["last_error_code"], found["silent_s"]) == ("running", "E110", 0)
    assert [(row["pattern_code"], row["event_codes"]) for row in found["patterns"]] == [("error_restart_error", "E110 > watchdog > E110")]
    assert not any(name.startswith("_") for name in found)


def test_a_device_that_never_spoke_and_one_of_another_tenant_have_twins(built: Warehouse) -> None:
    assert "as desired" not in run("twin", "m4")
    assert run_json("twin", "m1", "--tenant", "acme")["tenant_id"] == "acme"  # type: ignore[call-overload,index]
    thermostat = run_json("twin", "t1")
    assert isinstance(thermostat, dict)
    assert (thermostat["target_setpoint_c"], thermostat["reported_setpoint_c"]) == (20.0, 22.5)
    assert thermostat["setpoint_drifting_since_at"] == "2026-03-02T03:00:00+00:00"


def test_brackets_in_names_and_codes_are_no_markup(deployed: Warehouse) -> None:
    land(File("device_registry", at(1), (registry("m[/x]", at(-9), facility="plant[red]", firmwareVersion="1.0[beta]"),)))
    land(File("device_telemetry", at(1), (telemetry("m[/x]", at(0, 9)) | {"metadata": {"firmware_version": "1.0[rc]"}},)))
    land(File("device_events", at(1), (device_event("m[/x]", at(0, 9), "error", "E[1]"),)))
    build_marts(TWINS)
    shown = run("twin", "m[/x]")
    assert all(part in shown for part in ("m[/x] of tenant default", "plant[red]", "1.0[beta]", "1.0[rc]", "E[1] since"))


def test_it_reads_as_the_analyst_who_sees_the_marts_only(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    roles: list[Role] = []

    def watched(role: Role, **arguments: object) -> object:
        from include.warehouse.connection import connect

        roles.append(role)
        return connect(role, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("include.warehouse.connect", watched)
    find_twin("m1", "default")
    assert roles == [Role.ANALYST]


def test_an_unknown_device_is_answered_with_near_names(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = error_of(monkeypatch, capsys, "twin", "m11")
    assert "tenant default has no device 'm11'" in said
    assert "near names are m1" in said
    said = error_of(monkeypatch, capsys, "twin", "t1", "--tenant", "acme")
    assert "tenant default has a device of this name: add --tenant default" in said
    assert "tenants with devices are acme, default" in error_of(monkeypatch, capsys, "twin", "m1", "--tenant", "nobody")


def test_before_the_first_build_it_says_what_to_do(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tidemark build" in error_of(monkeypatch, capsys, "twin", "m1")


def test_the_queries_of_the_page_about_twins_run_for_an_analyst(built: Warehouse) -> None:
    queries = re.findall(r"```sql\n(.*?)```", (REPOSITORY / "docs" / "device-twin.md").read_text(encoding="utf-8"), re.DOTALL)
    answers = [built.rows(query, Role.ANALYST) for query in queries]
    assert len(answers) == 3
    assert answers[0] == [("m1", "1.3.0", "1.2.3", at(1))]
    assert answers[1][0][0] == "m4"
    assert ("m1", "failed") in {row[:2] for row in answers[2]}
