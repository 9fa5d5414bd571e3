"""After the commit: a stream that breaks its contract's promises is red, and its good rows are there all the same."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.contracts import load_contract
from include.landing import LandingCheckFailed, check_landing, land_pending
from tests.support.payloads import at, put, telemetry


def land():
    return land_pending("device_telemetry", arrived_from=at(-1), arrived_before=at(3))


def test_a_renamed_field_turns_the_stream_red(warehouse):
    check_landing("device_telemetry", now=at(0))
    put("device_telemetry", [telemetry(f"m{n}", at(0, 1)) for n in range(100)], arrived_at=at(0, 2))
    land()
    check_landing("device_telemetry", now=at(0, 3))
    renamed = [telemetry(f"m{n}", at(0, 2)) for n in range(20)]
    for payload in renamed:
        payload["device_id"] = payload.pop("deviceId")
    put("device_telemetry", renamed, arrived_at=at(0, 3))
    land()
    with pytest.raises(LandingCheckFailed, match=r"20 of the newest 120 rows are in quarantine \(16.7%, allowed 5.0%\): missing_required 20"):
        check_landing("device_telemetry", now=at(0, 3))
    assert warehouse.value("select count(*) from raw.device_telemetry") == 100


def test_only_the_newest_rows_count_even_within_a_large_file(warehouse):
    window = load_contract("device_telemetry").quarantine_window
    good = [telemetry(f"m{n}", at(0, 1)) for n in range(window)]
    put("device_telemetry", ["{broken"] * window + good, arrived_at=at(0, 2))
    land()
    check_landing("device_telemetry", now=at(0, 3))
    put("device_telemetry", ["{broken"] * (window // 10), arrived_at=at(0, 3))
    land()
    with pytest.raises(LandingCheckFailed, match="100 of the newest 1,000 rows"):
        check_landing("device_telemetry", now=at(0, 3))


def test_silence_longer_than_promised_and_files_set_aside_are_red(warehouse):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    land()
    freshness = load_contract("device_telemetry").freshness
    check_landing("device_telemetry", now=at(0, 2) + freshness)
    with pytest.raises(LandingCheckFailed, match="nothing has arrived since 2026-03-01 02:00 UTC"):
        check_landing("device_telemetry", now=at(0, 2) + freshness + timedelta(seconds=1))
    warehouse.execute("update ops.file set state = 'failed', batch_id = null, error = 'no idea', landed = 0, accepted = 0")
    with pytest.raises(LandingCheckFailed, match=r"1 files failed three times and are set aside, first device_telemetry/dt=2026-03-01/hr=02/.*: no idea"):
        check_landing("device_telemetry", now=at(0, 2))
