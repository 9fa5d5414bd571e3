"""From a post over HTTP to a row in the warehouse and a receipt that says so, through a real process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from include.gateway.keys import administration
from include.landing import land_pending
from include.settings import get_settings
from tests.support.gateway import Gateway, running_gateway
from tests.support.landing import assert_balanced, raw_rows
from tests.support.payloads import telemetry

STREAM = "device_telemetry"


@pytest.fixture
def keys(warehouse):
    """A key of each of two tenants."""
    return {tenant: administration.create(tenant, by="tester")[1] for tenant in ("acme", "beta")}


@pytest.fixture
def gateway(warehouse, keys, tmp_path):
    """A gateway with the test's warehouse and zone; whoever posts is acme."""
    with running_gateway(
        tmp_path / "home", warehouse.zone_dir, key=keys["acme"], secrets_file=get_settings().secrets_path, warehouse_url=warehouse.url, gateway_group_ms=20
    ) as running:
        yield running


def ask(gateway: Gateway, receipt: str, key: str) -> httpx.Response:
    return httpx.get(f"{gateway.url}/v1/receipts/{receipt}", headers={"Authorization": f"Bearer {key}"}, timeout=60)


def land():
    now = datetime.now(UTC)
    result = land_pending(STREAM, arrived_from=now - timedelta(hours=1), arrived_before=now + timedelta(hours=1))
    assert_balanced()
    return result


def reading(device, **more):
    return json.dumps(telemetry(device, datetime.now(UTC).replace(microsecond=0), **more)).encode()


def test_a_post_is_received_lands_and_tells_its_sender_and_nobody_else(gateway, keys, warehouse):
    body = b"\n".join([reading("m1"), reading("m2", tenantId="beta"), b"{"])
    answer = gateway.post(body)
    assert answer.status_code == 202
    receipt = answer.json()["receipt"]
    waiting = ask(gateway, receipt, keys["acme"])
    assert (waiting.status_code, waiting.json()["status"]) == (200, "received")
    land()
    landed = ask(gateway, receipt, keys["acme"]).json()
    assert (landed["status"], landed["rows"]["accepted"], landed["rows"]["quarantined"]) == ("landed", 1, 2)
    assert [(row["row"], row["errors"][0]["code"]) for row in landed["refused"]] == [(2, "foreign_tenant"), (3, "malformed_json")]
    assert ask(gateway, receipt, keys["beta"]).status_code == 404
    assert ask(gateway, receipt, "tmk_nobody_nothing").status_code == 401
    assert [(row["tenant_id"], row["device_id"]) for row in raw_rows(STREAM)] == [("acme", "m1")]
    again = gateway.post(body).json()["receipt"]
    land()
    assert ask(gateway, again, keys["acme"]).json()["rows"]["duplicate"] == 1


def test_strict_stores_all_rows_or_nothing(gateway, warehouse):
    url = f"{gateway.url}/v1/streams/{STREAM}/events?validate=strict"
    headers = {**gateway.headers, "Content-Type": "application/json"}
    bad = httpx.post(url, content=b"[" + reading("m1") + b"," + reading("m2", tenantId="beta") + b"]", headers=headers, timeout=60)
    assert (bad.status_code, bad.headers["content-type"]) == (422, "application/problem+json")
    assert [(row["row"], [error["code"] for error in row["errors"]]) for row in bad.json()["refused"]] == [(2, ["foreign_tenant"])]
    assert gateway.files() == []
    good = httpx.post(url, content=b"[" + reading("m1") + b"]", headers=headers, timeout=60)
    assert good.status_code == 202
    assert land().accepted == 1
