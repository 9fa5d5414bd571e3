"""A stored row, made a payload again, follows the major that it came by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.contracts import load_contract
from include.landing.conflicts import rebuilt
from include.landing.store import StoredRow
from tests.support.payloads import at
from tests.support.press import STREAM, contracts_of, press

EMPTY = dict.fromkeys(("temperature_c", "state_code", "temperature_f", "state_word", "shift_code", "force_kn", "schema_version", "_extra"))


@pytest.mark.parametrize(
    ("content", "payload"),
    [
        ({"temperature_f": 212.0, "state_word": "idle", "force_kn": 3.5}, {"temp": 212.0, "state": "idle", "kilonewtons": 3.5}),
        ({"temperature_c": 100.0, "state_code": 1}, {"plate": {"temperature": 100.0}, "state": 1}),
        ({"force_kn": 3.5}, {"force": 3.5}),
        ({"force_kn": 3.5, "schema_version": "1.2"}, {"kilonewtons": 3.5, "schemaVersion": "1.2"}),
        ({"temperature_c": 100.0, "temperature_f": 212.0, "_extra": {"odd": 1}}, {"plate": {"temperature": 100.0}, "temp": 212.0, "odd": 1}),  # of both
    ],
)
def test_a_row_is_rebuilt_along_its_major(tmp_path: Path, content: dict, payload: dict) -> None:
    with contracts_of(tmp_path, {f"{STREAM}.yaml": press("2.0.0"), f"{STREAM}.v1.yaml": press("1.0.0").replace("name: force,", "name: kilonewtons,")}):
        stored = EMPTY | {"press_id": "p", "event_at": "2026-03-01T00:00:00+00:00"} | content
        row = StoredRow("acme", 1, 1, at(0), json.dumps(stored))
        assert json.loads(rebuilt(row, load_contract(STREAM))) == {"tenantId": "acme", "pressId": "p", "at": "2026-03-01T00:00:00+00:00"} | payload
