"""What operators and monitors see of a running gateway, without a key."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from include.contracts import load_contract, streams
from include.contracts.json_schema import example_row
from include.gateway.keys.administration import create
from include.gateway.openapi import Limits, openapi_document
from include.landing import land_pending
from include.landing.zone import DEFAULT_TENANT
from include.settings import get_settings
from tests.conftest import Warehouse
from tests.support.gateway import Gateway, running_gateway
from tests.support.landing import assert_balanced

PREFIX = "tidemark_gateway_"


def metrics(gateway: Gateway) -> dict[tuple[str, frozenset[str]], float]:
    """Samples by name without prefix and label values."""
    text = httpx.get(f"{gateway.url}/metrics").text
    found = {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert DEFAULT_TENANT not in text.split()
    assert gateway.key.split("_")[1] not in text
    return found


def test_examples_of_the_document_are_posted_strictly_and_land(warehouse: Warehouse, tmp_path: Path) -> None:
    _, token = create(DEFAULT_TENANT, by="test")
    settings = get_settings()
    with running_gateway(tmp_path, warehouse.zone_dir, key=token, secrets_file=settings.secrets_path) as gateway:
        document = httpx.get(f"{gateway.url}/openapi.json").json()
        limits = Limits(settings.gateway_body_bytes, settings.gateway_plain_bytes)
        assert document == openapi_document([load_contract(stream) for stream in streams()], limits)
        for stream in streams():
            bodies = document["paths"][f"/v1/streams/{stream}/events"]["post"]["requestBody"]["content"]
            example = bodies["application/json"]["examples"]["one"]["value"]
            assert example == example_row(load_contract(stream))
            posted = httpx.post(f"{gateway.url}/v1/streams/{stream}/events", params={"validate": "strict"}, json=example, headers=gateway.headers)
            assert (posted.status_code, posted.json()["rows"]) == (202, 1), posted.text
            again = gateway.post(bodies["application/x-ndjson"]["example"].encode(), stream=stream)
            assert again.status_code == 202
        for stream in streams():
            result = land_pending(stream)
            assert (result.accepted, result.duplicate, result.quarantined) == (1, 1, 0), stream
        assert_balanced()
        found = metrics(gateway)
        assert found["warehouse_reachable", frozenset()] == 1
        assert 0 <= found["keys_age_seconds", frozenset()] < 60
        assert all(found["rows_total", frozenset({stream})] == 2 for stream in streams())


def test_what_is_posted_is_counted_and_nothing_else_tells_of_it(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/readyz").json() == {"status": "ready", "checks": {"zone": "ok", "disk": "ok", "keys": "ok"}}
        body = b'{"deviceId": "d1"}\n' * 50
        assert gateway.post(body).status_code == 202
        assert gateway.post(b"", stream="orders").status_code == 400
        for name in ("made_up_1", "made_up_2", "../../etc"):
            assert httpx.post(f"{gateway.url}/v1/streams/{name}/events", headers=gateway.headers).status_code == 404
        found = metrics(gateway)
        assert found["posts_total", frozenset({"device_telemetry", "202"})] == 1
        assert found["posts_total", frozenset({"orders", "400"})] == 1
        assert found["posts_total", frozenset({"unknown", "404"})] == 2  # the third is no path of a stream
        assert found["rows_total", frozenset({"device_telemetry"})] == 50
        assert found["body_bytes_total", frozenset({"device_telemetry", "plain"})] == len(body)
        assert (found["ack_seconds_count", frozenset()], found["commit_seconds_count", frozenset()], found["stored_posts_total", frozenset()]) == (1, 1, 1)
        assert found["pending_posts", frozenset()] == found["pending_bytes", frozenset()] == 0
        assert found["connections", frozenset()] >= 1
        assert found["zone_writable", frozenset()] == 1
        assert found["zone_free_bytes", frozenset()] > 0
        assert found["warehouse_reachable", frozenset()] == 0
        assert not any("made_up" in label for _, labels in found for label in labels)


def test_readiness_names_what_is_missing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with running_gateway(tmp_path / "blocked", blocked) as gateway:
        assert unready(gateway) == {"zone"}
        assert metrics(gateway)["zone_writable", frozenset()] == 0
    (tmp_path / "keyless").mkdir()
    with running_gateway(tmp_path / "keyless", key="tmk_none", gateway_free_bytes=1 << 60) as gateway:
        assert unready(gateway) == {"disk", "keys"}


def unready(gateway: Gateway) -> set[str]:
    answer = httpx.get(f"{gateway.url}/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert str(gateway.home) not in answer.text
    assert httpx.get(f"{gateway.url}/healthz").text == "alive\n"
    return {name for name, state in answer.json()["checks"].items() if state != "ok"}
