"""Simulated sources that post: what landing counts is what the ground truth says, also where an interval is sent again."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.contracts import streams
from include.gateway.client import ClientError
from include.gateway.keys.administration import ensure_secret_key
from include.gateway.session import OWN_KEY
from include.landing import land_pending
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
    (get_settings().home / "gateway").mkdir(exist_ok=True)
    ensure_secret_key(OWN_KEY, tenant="default", note="simulator", by="test")
    port = free_port()
    set_environment(monkeypatch, TIDEMARK_GATEWAY_PORT=str(port))
    key = read_secrets(get_settings().secrets_path)[OWN_KEY]
    with running_gateway(cluster.home, warehouse.zone_dir, port=port, key=key, gateway_free_bytes=0, gateway_group_ms=0) as running:
        yield running


def truth(folder: Path) -> dict[str, Counter[str]]:
    """What landing must count of each stream, by everything that was recorded."""
    found: dict[str, Counter[str]] = {}
    for path in folder.glob("*.json"):
        for stream, counts in json.loads(path.read_text(encoding="utf-8"))["expected"].items():
            found.setdefault(stream, Counter()).update(counts)
    return found


def land(total: dict[str, Counter[str]]) -> None:
    for stream in streams():
        result = land_pending(stream)
        total.setdefault(stream, Counter()).update({name: getattr(result, name) for name in COUNTS})


def test_posts_of_the_simulator_land_as_the_truth_says(gateway: Gateway, cluster: Cluster) -> None:
    folder = get_settings().truth_dir / "live"
    counted: dict[str, Counter[str]] = {}
    said = run("simulate", "interval", "--from", f"{START:%Y-%m-%dT%H:%M}", "--to", f"{END:%Y-%m-%dT%H:%M}", "--via", "http")
    land(counted)
    events = sum(each["landed"] for each in counted.values())
    assert f"{events:,} events" in said
    assert events > 300
    assert not list(gateway.zone.rglob("*.ndjson*")), "nothing is dropped as a file"
    first = truth(folder)
    assert {stream: +counts for stream, counts in counted.items() if counts["landed"]} == {
        stream: +counts for stream, counts in first.items() if counts["landed"]
    }
    receipts = {file["address"] for path in folder.glob("*.json") for file in json.loads(path.read_text(encoding="utf-8"))["files"]}
    assert receipts == {head.receipt for head, _ in gateway.posts()}

    assert simulate_interval(START, END, Way.HTTP) == events
    land(counted)
    assert {stream: +counts for stream, counts in counted.items() if counts["landed"]} == {
        stream: +counts for stream, counts in truth(folder).items() if counts["landed"]
    }
    assert sum(counts["accepted"] for counts in counted.values()) == sum(counts["accepted"] for counts in first.values()), "no event counts twice"
    assert_balanced()


def test_an_interval_to_come_is_not_posted(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    said = error_of(monkeypatch, capsys, "simulate", "interval", "--from", f"{START:%Y-%m-%dT%H:%M}", "--to", f"{later:%Y-%m-%dT%H:%M}", "--via", "http")
    assert "still to come" in said
    assert gateway.posts() == []


def test_what_was_posted_before_a_refusal_is_in_the_truth(gateway: Gateway, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from include.gateway.client import GatewayClient

    posts = 0
    real = GatewayClient.post

    def post(self: GatewayClient, stream: str, body: bytes):
        nonlocal posts
        posts += 1
        if posts == 2:
            raise ClientError("the line is cut")
        return real(self, stream, body)

    monkeypatch.setattr(GatewayClient, "post", post)
    with pytest.raises(ClientError, match="cut"):
        simulate_interval(START + timedelta(hours=1), END + timedelta(hours=1), Way.HTTP)
    simulate_interval(START + timedelta(hours=1), END + timedelta(hours=1), Way.HTTP)
    counted: dict[str, Counter[str]] = {}
    land(counted)
    recorded: dict[str, Counter[str]] = {}
    for path in (get_settings().truth_dir / "live").glob(f"{START:%Y%m%d}T15*.json"):
        for stream, counts in json.loads(path.read_text(encoding="utf-8"))["expected"].items():
            recorded.setdefault(stream, Counter()).update(counts)
    assert {stream: +counts for stream, counts in counted.items() if counts["landed"]} == {
        stream: +counts for stream, counts in recorded.items() if counts["landed"]
    }
