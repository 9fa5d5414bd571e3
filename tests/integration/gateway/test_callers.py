"""A real gateway in front of a real warehouse: whom it lets in, for whom he writes, and who may connect at all."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from include.gateway.client import GatewayClient, GatewayUnavailable
from include.gateway.keys import administration
from include.landing import land_pending
from include.landing.posts import locate
from include.settings import REPOSITORY, get_settings
from tests.conftest import Warehouse
from tests.support.authority import Authority, serial_of
from tests.support.gateway import STREAM, Gateway, read_all, running_gateway
from tests.support.payloads import at, telemetry

IN_FORCE_S = 30
BODY = json.dumps(telemetry("m1", at(1))).encode()


def token(tenant: str = "default", **special) -> str:
    return administration.create(tenant, by="test", **special)[1]


def post(gateway: Gateway, key: str, stream: str = "device_telemetry", body: bytes = BODY) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return httpx.post(f"{gateway.url}/v1/streams/{stream}/events", content=body, headers=headers, timeout=30)


def within_30_s(holds) -> bool:
    """Whether something becomes true in the time that the gateway has for it."""
    end = time.monotonic() + IN_FORCE_S
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.2)
    return held


@pytest.fixture
def gateway(warehouse: Warehouse, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway over the test's warehouse and zone, with a key of tenant `default`."""
    with running_gateway(tmp_path / "home", warehouse.zone_dir, key=token(), secrets_file=get_settings().secrets_path, gateway_group_ms=5) as running:
        assert within_30_s(lambda: running.post(BODY, content_type="application/json").status_code == 202)
        yield running


def test_keys_of_the_command_are_in_force_within_30_s(gateway: Gateway) -> None:
    key, made = administration.create("shop_7", by="test", only=["orders"], rate="2/hour")
    assert within_30_s(lambda: post(gateway, made, "customers").status_code == 403)  # known, and not for this stream
    missing = post(gateway, made, "order")
    assert (missing.status_code, missing.json()["streams"]) == (404, ["orders"])
    sent = [post(gateway, made, "orders", b'{"order_id": "o1"}') for _ in range(3)]
    assert [answer.status_code for answer in sent] == [202, 202, 429]
    assert 3590 < int(sent[2].headers["retry-after"]) <= 3600
    assert sent[2].headers["content-type"] == "application/problem+json"
    old, new, successor = administration.rotate(key.key_id, grace=timedelta(hours=1), by="test")
    assert within_30_s(lambda: post(gateway, successor, "orders").status_code == 202)
    assert post(gateway, made, "orders").status_code == 429  # good still
    administration.revoke(old.key_id, by="test")
    assert within_30_s(lambda: post(gateway, made, "orders").status_code == 401)
    assert post(gateway, successor, "orders").status_code == 202
    gateway.stop()
    with running_gateway(gateway.home, gateway.zone, key=successor, warehouse_url="postgresql://127.0.0.1:1/nothing") as alone:
        assert post(alone, successor, "orders").status_code == 202
        assert post(alone, made, "orders").status_code == 401
        alone.stop()
        assert not any(made_here in alone.log + gateway.log for made_here in (made, successor, gateway.key))
    assert new.key_id != old.key_id


def test_a_key_writes_for_its_own_tenant_only(gateway: Gateway) -> None:
    mine, theirs = token("shop_7"), token("shop_8")
    assert within_30_s(lambda: post(gateway, theirs, "none").status_code == 404)
    before = set(gateway.files())
    answers = [post(gateway, key) for key in (mine, theirs)]
    assert [answer.status_code for answer in answers] == [202, 202]
    tenants = {part.removeprefix("tenant=") for path in set(gateway.files()) - before for part in path.parts if part.startswith("tenant=")}
    assert tenants == {"shop_7", "shop_8"}
    assert {post.tenant for post, _ in gateway.posts()} == {"default", "shop_7", "shop_8"}
    for key, answer, tenant, other in ((mine, answers[0], "shop_7", "shop_8"), (theirs, answers[1], "shop_8", "shop_7")):
        located = locate(answer.json()["receipt"])
        assert located is not None
        assert (gateway.zone / located[0].address(tenant)).exists()
        assert not (gateway.zone / located[0].address(other)).exists()
        # Neither path, parameter nor header makes a key write for another.
        for path, headers in (("?tenant=other", {}), ("/../../tenant=other/events", {}), ("", {"X-Tenant": "other"})):
            said = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
            httpx.post(f"{gateway.url}/v1/streams/device_telemetry/events{path}", content=BODY, headers=said, timeout=30)
    assert {post.tenant for post, _ in gateway.posts()} == {"default", "shop_7", "shop_8"}


def test_a_key_reads_the_receipts_of_its_own_tenant_and_streams_only(gateway: Gateway) -> None:
    mine, theirs, narrow = token("shop_7"), token("shop_8"), token("shop_7", only=["orders"])
    assert within_30_s(lambda: post(gateway, narrow, "none").status_code == 404)
    sent = post(gateway, mine)
    place = f"{gateway.url}{sent.json()['status']}"

    def seen(key: str) -> tuple[int, dict]:
        answer = httpx.get(place, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        return answer.status_code, answer.json()

    nothing = httpx.get(f"{place[:-1]}9", headers={"Authorization": f"Bearer {theirs}"}, timeout=30).json()
    for status in ("received", "landed"):
        assert (seen(mine)[0], seen(mine)[1]["status"]) == (200, status)
        assert (seen(theirs)[0], seen(narrow)[0], seen("none")[0]) == (404, 404, 401)
        assert seen(theirs)[1]["detail"].replace(sent.json()["receipt"], "") == nothing["detail"].replace(f"{sent.json()['receipt'][:-1]}9", "")
        land_pending("device_telemetry")


@pytest.fixture
def house(tmp_path: Path) -> SimpleNamespace:
    """A server's certificate and its authority."""
    authority = Authority(tmp_path / "house")
    certificate, key = authority.issue()
    return SimpleNamespace(ca=authority, certificate=certificate, key=key, settings={"gateway_certificate": certificate, "gateway_key": key})


def secure(trusted: Path, device: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trusted)
    if device is not None:
        context.load_cert_chain(*device)
    return context


def test_devices_post_over_tls_with_a_certificate_of_their_own(house: SimpleNamespace, tmp_path: Path) -> None:
    fleet, strangers = Authority(tmp_path / "fleet"), Authority(tmp_path / "strangers")
    with running_gateway(tmp_path, gateway_group_ms=5, gateway_client_ca=fleet.certificate, **house.settings) as gateway:
        url = f"https://127.0.0.1:{gateway.port}/v1/streams/device_telemetry/events"
        headers = {**gateway.headers, "Content-Type": "application/json"}
        with httpx.Client(verify=secure(house.ca.certificate, fleet.issue("till")), timeout=30) as client:
            assert client.post(url, content=BODY, headers=headers).status_code == 202
            assert client.post(url, content=BODY, headers={"Content-Type": "application/json"}).status_code == 401  # a certificate is no key
            with client.stream("GET", f"https://127.0.0.1:{gateway.port}/healthz") as answer:
                shown = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True)
            assert serial_of(shown) == serial_of(house.certificate)
        for device in (None, strangers.issue("till"), fleet.issue("old", ends=datetime(2020, 2, 1, tzinfo=UTC))):
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                httpx.post(url, content=BODY, headers=headers, verify=secure(house.ca.certificate, device), timeout=30)
        with GatewayClient(f"https://127.0.0.1:{gateway.port}", gateway.key, ca=house.ca.certificate, patience_s=0) as sender:
            with pytest.raises(GatewayUnavailable) as given_up:
                sender.post(STREAM, BODY)
            assert "--cert" in given_up.value.hint
        with pytest.raises(httpx.TransportError):
            httpx.post(url.replace("https", "http"), content=BODY, headers=headers, timeout=30)
        assert len(gateway.posts()) == 1
        assert "Traceback" not in gateway.log


def test_connections_that_never_agree_on_tls_make_room(house: SimpleNamespace, tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_connections=20, gateway_free_bytes=0, **house.settings) as gateway, ExitStack() as open_ones:
        silent = [open_ones.enter_context(gateway.connect()) for _ in range(60)]
        address = f"https://127.0.0.1:{gateway.port}/v1/streams/{STREAM}/events"
        with httpx.Client(verify=secure(house.ca.certificate), timeout=60) as sender:
            for _ in range(2):
                answer = sender.post(address, content=b"{}", headers={**gateway.headers, "Content-Type": "application/json"})
                assert answer.status_code == 202
            assert gateway.connections() <= 20
            assert read_all(silent[0]) == b""  # the oldest went
            gateway.stop()
            assert "Cancel" not in gateway.log  # it did not wait for those that are left


def test_settings_of_tls_that_cannot_work_are_one_line_at_the_start(house: SimpleNamespace, tmp_path: Path) -> None:
    _, other = house.ca.issue("other")
    for settings, said in (({"gateway_key": ""}, "TIDEMARK_GATEWAY_CERTIFICATE is set without"), ({"gateway_key": other}, "is not that of the certificate")):
        environment = {f"TIDEMARK_{name.upper()}": str(value) for name, value in ({**house.settings, "home": tmp_path} | settings).items() if value}
        done = subprocess.run([sys.executable, "-m", "include.gateway"], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert done.stderr.startswith("gateway: ")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_damaged_copy_and_no_warehouse_is_an_answer_and_no_crash(tmp_path: Path) -> None:
    copy = tmp_path / "gateway" / "keys.json"
    copy.parent.mkdir()
    copy.write_text("[{")
    with running_gateway(tmp_path, key=f"tmk_{'0' * 16}_{'0' * 64}", warehouse_url="postgresql://127.0.0.1:1/nothing") as gateway:
        answer = gateway.post(BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert f"{copy}, the copy of the API keys, is not used" in gateway.log
