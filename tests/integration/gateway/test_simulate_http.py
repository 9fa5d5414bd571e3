"""Simulated sources that post: what landing counts is what the ground truth says, also where an interval is sent again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.contracts import streams
from include.gateway.client import Accepted, ClientError, GatewayClient
from include.gateway.keys.administration import ensure_secret_key
from include.gateway.session import OWN_KEY
from include.landing import land_everything
from include.settings import get_settings, read_secrets
from include.stack.sources import Way, simulate_interval
from tests.conftest import Cluster, Warehouse, set_environment
from tests.integration.test_commands import error_of, run
from tests.support.databases import free_port
from tests.support.gateway import Gateway, running_gateway
from tests.support.landing import assert_balanced

START = datetime(2026, 3, 10, 14, tzinfo=UTC)
END = START + timedelta(minutes=2)
COUNTS = ("landed", "accepted", "quarantined", "duplicate", "corrected")


@pytest.fixture
def gateway(cluster: Cluster, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.rmtree(get_settings().truth_dir, ignore_errors=True)  # of another test's zone
    ensure_secret_key(OWN_KEY, tenant="default", note="simulator", by="test")
    port = free_port()
    set_environment(monkeypatch, TIDEMARK_GATEWAY_PORT=str(port))
    key = read_secrets(get_settings().secrets_path)[OWN_KEY]
    with running_gateway(cluster.home, warehouse.zone_dir, port=port, key=key, gateway_free_bytes=0, gateway_group_ms=0) as running:
        yield running


def truth(end: datetime) -> dict[str, Counter[str]]:
    """What landing must count of each stream for an interval, by everything that was recorded of it."""
    found: dict[str, Counter[str]] = {}
    for path in recorded(end):
        for stream, counts in json.loads(path.read_text(encoding="utf-8"))["expected"].items():
            found.setdefault(stream, Counter()).update(counts)
    return {stream: +counts for stream, counts in found.items() if counts["landed"]}


def recorded(end: datetime) -> list[Path]:
    return list((get_settings().truth_dir / "live").glob(f"{end - timedelta(milliseconds=1):%Y%m%dT%H%M%S}*.json"))


def landed(before: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """What landing has counted of each stream, now that it has landed what is there, on top of what it had."""
    total = {stream: Counter(counts) for stream, counts in before.items()}
    for stream in streams():
        result = land_everything(stream)
        total.setdefault(stream, Counter()).update({name: getattr(result, name) for name in COUNTS})
    return {stream: +counts for stream, counts in total.items() if counts["landed"]}


def test_posts_of_the_simulator_land_as_the_truth_says(gateway: Gateway, cluster: Cluster) -> None:
    simulate_interval(START - timedelta(minutes=15), START)  # what this interval repeats
    landed({})
    dropped = set(gateway.zone.rglob("*.ndjson*"))
    said = run("simulate", "interval", "--from", f"{START:%Y-%m-%dT%H:%M}", "--to", f"{END:%Y-%m-%dT%H:%M}", "--via", "http")
    first = landed({})
    events = sum(counts["landed"] for counts in first.values())
    assert f"{events:,} events" in said
    assert events > 300
    assert first == truth(END)
    assert set(gateway.zone.rglob("*.ndjson*")) == dropped, "nothing more is dropped as a file"
    receipts = {file["address"] for path in recorded(END) for file in json.loads(path.read_text(encoding="utf-8"))["files"]}
    assert receipts == {head.receipt for head, _ in gateway.posts()}

    assert simulate_interval(START, END, Way.HTTP) == events
    second = landed(first)
    assert second == truth(END)
    assert sum(counts["accepted"] for counts in second.values()) == sum(counts["accepted"] for counts in first.values()), "no event counts twice"
    assert_balanced()


def test_an_interval_to_come_is_not_posted(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    said = error_of(monkeypatch, capsys, "simulate", "interval", "--from", f"{START:%Y-%m-%dT%H:%M}", "--to", f"{later:%Y-%m-%dT%H:%M}", "--via", "http")
    assert "still to come" in said
    assert gateway.posts() == []


def test_what_was_posted_before_a_failure_is_in_the_truth(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_interval(START - timedelta(minutes=15), START)
    landed({})
    whole, posts = GatewayClient.post, 0

    def post(self: GatewayClient, stream: str, body: bytes) -> Accepted:
        nonlocal posts
        posts += 1
        if posts == 2:
            raise ClientError("the line is cut")
        return whole(self, stream, body)

    monkeypatch.setattr(GatewayClient, "post", post)
    with pytest.raises(ClientError, match="cut"):
        simulate_interval(START, END, Way.HTTP)
    simulate_interval(START, END, Way.HTTP)
    counted = landed({})
    assert counted == truth(END)
    assert counted["device_telemetry"]["duplicate"] >= 400, "the post that was taken before the failure came twice"
