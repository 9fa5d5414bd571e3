"""Health and metrics: what is wrong is named, what is counted is bounded, and nobody is told of tenants."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from include.gateway.app import Outcome
from include.gateway.disk import FULL, REFUSES
from include.gateway.health import health_router, readiness
from include.gateway.metrics import ACK_BUCKETS_S, Metrics, State

CALM = State(
    pending_posts=lambda: 3,
    pending_bytes=lambda: 4096,
    connections=lambda: 7,
    is_writable=lambda: True,
    free_bytes=lambda: 5e9,
    keys_age_s=lambda: 2.5,
    is_warehouse_reachable=lambda: True,
    refused=lambda: {"idle": 2, "slow_body": 1},
)
TAKEN = Outcome("orders", 202, 100, 900, 12_000, 0.231)


@dataclass
class Zone:
    trouble: str | None = None


@dataclass
class Keys:
    is_loaded: bool = True


def ask(path: str, zone: Zone, keys: Keys) -> httpx.Response:
    app = FastAPI()
    app.include_router(health_router(readiness(zone, keys)))

    async def talk() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.get(path)

    return asyncio.run(talk())


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name without prefix and label values in alphabetical order."""
    return {
        (sample.name.removeprefix("tidemark_gateway_"), tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("zone", "keys", "wrong"),
    [(Zone(FULL), Keys(), {"disk"}), (Zone(REFUSES), Keys(), {"zone"}), (Zone(), Keys(is_loaded=False), {"keys"}), (Zone(FULL), Keys(False), {"disk", "keys"})],
)
def test_a_gateway_that_is_not_ready_says_why(zone: Zone, keys: Keys, wrong: set[str]) -> None:
    answer = ask("/readyz", zone, keys)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert {name for name, state in answer.json()["checks"].items() if state != "ok"} == wrong
    assert all(name in answer.json()["detail"] for name in wrong)
    assert ask("/healthz", zone, keys).status_code == 200  # alive it is


def test_a_gateway_that_is_ready_says_so() -> None:
    answer = ask("/readyz", Zone(), Keys())
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"zone": "ok", "disk": "ok", "keys": "ok"}}


def test_posts_are_counted_by_stream_and_status() -> None:
    metrics = Metrics()
    for outcome in (TAKEN, TAKEN, replace(TAKEN, status=503, rows=0, size=0, plain_size=0), Outcome(None, 404, 0, 0, 0, 0.001)):
        metrics.observe(outcome)
    metrics.stored(17, 1800, 0.004)
    found = samples(metrics)
    assert found["posts_total", ("202", "orders")] == 2
    assert found["posts_total", ("503", "orders")] == 1
    assert found["posts_total", ("404", "unknown")] == 1
    assert found["rows_total", ("orders",)] == 200
    assert (found["body_bytes_total", ("orders", "stored")], found["body_bytes_total", ("orders", "plain")]) == (1800, 24_000)
    assert (found["ack_seconds_count", ()], found["ack_seconds_sum", ()]) == (2, pytest.approx(0.462))
    assert (found["ack_seconds_bucket", ("0.225",)], found["ack_seconds_bucket", ("0.25",)]) == (0, 2)
    assert (found["commit_seconds_count", ()], found["stored_posts_total", ()], found["stored_bytes_total", ()]) == (1, 17, 1800)


def test_the_state_is_read_when_it_is_asked_for() -> None:
    metrics, age = Metrics(), iter([2.5, None])
    metrics.follow(replace(CALM, keys_age_s=lambda: next(age), free_bytes=lambda: None, is_writable=lambda: False))
    found, later = samples(metrics), samples(metrics)
    assert found["keys_age_seconds", ()] == 2.5
    assert ("keys_age_seconds", ()) not in later
    assert ("zone_free_bytes", ()) not in found  # S3
    assert (found["zone_writable", ()], found["warehouse_reachable", ()]) == (0, 1)
    assert (found["pending_posts", ()], found["pending_bytes", ()], found["connections", ()]) == (3, 4096, 7)
    assert (found["refused_connections_total", ("idle",)], found["refused_connections_total", ("slow_body",)]) == (2, 1)


def test_buckets_tell_whether_the_promise_of_250_ms_is_kept() -> None:
    assert 0.25 in ACK_BUCKETS_S
    assert sum(0.15 <= bucket <= 0.4 for bucket in ACK_BUCKETS_S) >= 5


def test_no_name_that_a_sender_made_up_becomes_a_label() -> None:
    metrics = Metrics()
    metrics.follow(CALM)
    metrics.observe(TAKEN)
    metrics.observe(replace(TAKEN, stream=None, status=404))
    labels = {name for family in text_string_to_metric_families(metrics.text().decode()) for sample in family.samples for name in sample.labels}
    assert labels == {"stream", "status", "form", "le", "reason"}
