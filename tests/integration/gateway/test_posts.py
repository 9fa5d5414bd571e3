"""Posts to a real process: what is acknowledged, where it lies, and what is refused with which words."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pyarrow as pa
import pytest

from include.landing.posts import locate
from include.landing.zone import Zone
from tests.support.gateway import STREAM, Gateway, read_all, running_gateway, status_of

ROW = b'{"device_id": "m-1", "temperature_c": 20.5}'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), gateway_group_ms=20) as running:
        yield running


def problem(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status
    assert found["title"]
    assert "Traceback" not in found["detail"]
    assert "/" + "tmp" not in found["detail"]
    return found


def test_an_acknowledged_post_is_a_file_of_the_zone_with_its_bytes(gateway: Gateway) -> None:
    text = ROW + b"\r\n\n" + ROW
    answer = gateway.post(text)
    assert answer.status_code == 202
    receipt = answer.json()["receipt"]
    assert answer.json() == {"receipt": receipt, "rows": 2, "status": f"/v1/receipts/{receipt}"}
    assert answer.headers["location"] == f"/v1/receipts/{receipt}"
    group, number = locate(receipt) or pytest.fail("no receipt")
    file = Zone(gateway.zone.as_uri()).find(group.address("default"))
    assert file is not None
    assert (file.stream, file.tenant_id, file.arrived_at) == (STREAM, "default", group.closed_at)
    post, body = next((post, body) for post, body in gateway.posts() if post.receipt == receipt)
    assert body == text
    assert (post.tenant, post.content_type, post.encoding, post.length) == ("default", "application/x-ndjson", "identity", len(text))
    assert post.sha256 == hashlib.sha256(text).hexdigest()
    assert post.received_at <= group.closed_at
    assert number == 1


@pytest.mark.parametrize("encoding", [None, "gzip", "zstd", "x-gzip"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson; charset=UTF-8"])
def test_every_kind_of_body_is_kept_as_it_came(gateway: Gateway, content_type: str, encoding: str | None) -> None:
    plain = b"[" + ROW + b", " + ROW + b"]" if "json;" not in content_type and "ndjson" not in content_type else ROW + b"\n" + ROW
    packed = {
        None: lambda: plain,
        "gzip": lambda: gzip.compress(plain[:9]) + gzip.compress(plain[9:]),
        "zstd": lambda: pa.compress(plain, "zstd", asbytes=True),
    }
    sent = packed[None if encoding is None else encoding.removeprefix("x-")]()
    answer = gateway.post(sent, content_type=content_type, encoding=encoding)
    assert (answer.status_code, answer.json()["rows"]) == (202, 2)
    post, body = next((post, body) for post, body in gateway.posts() if post.receipt == answer.json()["receipt"])
    assert body == sent
    assert (post.content_type, post.encoding) == (content_type.partition(";")[0], (encoding or "identity").removeprefix("x-"))


def test_posts_of_the_same_moment_share_a_file(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_group_ms=1000) as gateway, ThreadPoolExecutor(20) as senders:
        bodies = [json.dumps({"n": number}).encode() for number in range(20)]
        receipts = [answer.json()["receipt"] for answer in senders.map(gateway.post, bodies)]
        assert len(gateway.files()) < 5
        stored = {post.receipt: body for post, body in gateway.posts()}
        assert [stored[receipt] for receipt in receipts] == bodies


def test_a_group_is_closed_when_it_is_full(tmp_path: Path) -> None:
    half, larger = ROW.ljust(1000), ROW.ljust(5000)
    with running_gateway(tmp_path, gateway_group_ms=10_000, gateway_group_bytes=2000) as gateway, ThreadPoolExecutor(8) as senders:
        answers = [*senders.map(gateway.post, [half] * 4), gateway.post(larger)]
        assert {answer.status_code for answer in answers} == {202}
        assert sorted(sum(post.length for post in posts) for posts in _by_file(gateway).values()) == [2000, 2000, 5000]
        assert max(answer.elapsed.total_seconds() for answer in answers) < 10  # nobody waited for others


def _by_file(gateway: Gateway) -> dict[str, list]:
    files: dict[str, list] = {}
    for post, _ in gateway.posts():
        files.setdefault(post.receipt.rpartition(".")[0], []).append(post)
    return files


def test_what_is_no_stream_names_those_that_are(gateway: Gateway) -> None:
    found = problem(gateway.post(ROW, stream="telemetry"), 404)
    assert found["streams"] == sorted(found["streams"])
    assert STREAM in found["streams"]
    assert STREAM in found["detail"]
    assert problem(httpx.get(f"{gateway.url}/v2/nothing"), 404)
    # No redirection: a sender that does not follow it, and takes what is not 4xx for success, would lose the post.
    assert problem(httpx.post(f"{gateway.url}/v1/streams/{STREAM}/events/", content=ROW, headers=gateway.headers), 404)
    assert problem(httpx.put(f"{gateway.url}/v1/streams/{STREAM}/events", content=ROW, headers=gateway.headers), 405)


@pytest.mark.parametrize(
    ("content_type", "encoding", "hint"),
    [
        ("text/csv", None, ("accept", "application/json, application/x-ndjson")),
        ("", None, ("accept", "application/json, application/x-ndjson")),
        ("application/json; charset=utf-16", None, ("accept", "application/json, application/x-ndjson")),
        ("application/json", "br", ("accept-encoding", "zstd, gzip, identity")),
        ("application/json", "gzip, gzip", ("accept-encoding", "zstd, gzip, identity")),
    ],
)
def test_what_cannot_be_read_says_what_can(gateway: Gateway, content_type: str, encoding: str | None, hint: tuple[str, str]) -> None:
    answer = gateway.post(ROW, content_type=content_type, encoding=encoding)
    assert problem(answer, 415)
    assert answer.headers[hint[0]] == hint[1]


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"", "application/json", "not one JSON"),
        (b"", "application/x-ndjson", "no row"),
        (b" \r\n\t\n", "application/x-ndjson", "no row"),
        (b"[]", "application/json", "no row"),
        (b'{"a": 1', "application/json", "not one JSON"),
        (b'{"a": 1}\n{"a": 2}', "application/json", "application/x-ndjson"),
        (b"17", "application/json", "neither"),
        (b"[" * 50_000, "application/json", "nested"),
        (b'{"a": "\xff"}', "application/json", "UTF-8"),
        (b'{"a": "\xff"}', "application/x-ndjson", "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "application/json", "UTF-16"),
    ],
)
def test_what_is_no_rows_is_not_taken(gateway: Gateway, body: bytes, content_type: str, words: str) -> None:
    before = gateway.files()
    assert words in problem(gateway.post(body, content_type=content_type), 400)["detail"]
    assert gateway.files() == before


def test_who_is_unknown_learns_nothing(gateway: Gateway) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {gateway.key}"}):
        answer = httpx.post(f"{gateway.url}/v1/streams/nothing/events", content=ROW, headers=headers)
        assert STREAM not in problem(answer, 401)["detail"]
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_parameters_that_do_nothing_are_refused(gateway: Gateway) -> None:
    for query in ("?validate=maybe", "?strict=true", "?validate=strict&x=1"):
        answer = httpx.post(f"{gateway.url}/v1/streams/{STREAM}/events{query}", content=ROW, headers={**gateway.headers, "Content-Type": "application/json"})
        assert "validate=strict" in problem(answer, 400)["detail"]


def test_term_stores_and_acknowledges_what_was_taken(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_group_ms=10_000) as gateway, gateway.connect() as complete, gateway.connect() as idle, gateway.connect() as half:
        complete.sendall(gateway.request(f"Content-Length: {len(ROW)}") + ROW)
        half.sendall(gateway.request(f"Content-Length: {len(ROW)}", "Expect: 100-continue"))
        assert half.recv(100).startswith(b"HTTP/1.1 100 ")  # it is being served
        # Ends only because the gateway stops: the group would stay open for ten seconds.
        gateway.process.send_signal(signal.SIGTERM)
        answer = read_all(complete)
        assert status_of(answer) == 202
        assert read_all(idle) == b""
        half.sendall(ROW)
        assert status_of(read_all(half)) == 202
        assert gateway.process.wait(timeout=30) in (0, -signal.SIGTERM)
        assert len(gateway.posts()) == 2
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["receipt"] in {post.receipt for post, _ in gateway.posts()}
        assert "Traceback" not in gateway.log


def test_a_post_whose_sender_has_left_stays_stored(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_group_ms=1000) as gateway:
        with gateway.connect() as connection:
            connection.sendall(gateway.request(f"Content-Length: {len(ROW)}", "Expect: 100-continue"))
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(ROW)
        gateway.post(ROW)  # of the same group or a later one
        assert [body for _, body in gateway.posts()] == [ROW, ROW]
        assert "Traceback" not in gateway.log


def test_a_killed_gateway_leaves_nothing_half_visible(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_group_ms=5) as gateway:
        acknowledged: set[str] = set()
        in_flight = threading.Event()

        def send() -> None:
            while True:
                try:
                    acknowledged.add(gateway.post(ROW * 200).json()["receipt"])
                    in_flight.set()
                except httpx.HTTPError:
                    return

        senders = [threading.Thread(target=send) for _ in range(4)]
        for sender in senders:
            sender.start()
        assert in_flight.wait(30)
        gateway.stop(signal.SIGKILL)
        for sender in senders:
            sender.join()
        stored = {post.receipt for post, _ in gateway.posts()}  # reading them checks every frame and hash
        assert acknowledged <= stored
        assert all(path.name.endswith(".posts") for path in gateway.files() if not path.name.startswith("."))


def test_litter_of_a_killed_gateway_goes_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "zone" / STREAM / "dt=2026-01-01" / "hr=00" / "tenant=default"
    folder.mkdir(parents=True)
    names = [f".000000000001-gateway-0000000{number}.posts.{'0' * 32}" for number in range(2)]
    others = [".000000000001-other-0.ndjson." + "0" * 32, "000000000001-gateway-00000000.posts"]
    for name in [*names, *others]:
        (folder / name).write_bytes(b"half")
    for name in [names[0], *others]:
        os.utime(folder / name, (0, 0))
    with running_gateway(tmp_path) as gateway:
        gateway.wait_for_log("removed 1 files")
        assert sorted(path.name for path in gateway.files()) == sorted([names[1], *others])


def test_senders_wait_while_the_disk_is_nearly_full(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_free_bytes=1 << 60) as gateway:
        answer = gateway.post(ROW)
        assert "nearly full" in problem(answer, 503)["detail"]
        assert int(answer.headers["retry-after"]) > 0
        assert gateway.files() == []


def test_senders_wait_while_the_zone_cannot_be_written_to(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_group_ms=0) as gateway:
        assert gateway.post(ROW).status_code == 202
        # No byte can be written to a file any more, whoever we are.
        psutil.Process(gateway.process.pid).rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        answer = gateway.post(ROW)
        assert problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        gateway.wait_for_log("cannot be written to")
        assert "cannot be written to" in problem(gateway.post(ROW), 503)["detail"]
        psutil.Process(gateway.process.pid).rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        gateway.wait_for_log("takes posts again")
        assert gateway.post(ROW).status_code == 202
        assert len(gateway.files()) == len(gateway.posts()) == 2


def test_senders_wait_while_the_zone_is_away(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_group_ms=0) as gateway:
        gateway.zone.rename(tmp_path / "away")
        gateway.zone.write_bytes(b"a file where the folder was")
        assert problem(gateway.post(ROW), 503)
        gateway.wait_for_log("cannot be written to")
        gateway.zone.unlink()
        shutil.move(tmp_path / "away", gateway.zone)
        gateway.wait_for_log("takes posts again")
        assert gateway.post(ROW).status_code == 202


def test_a_second_gateway_says_that_the_port_is_taken(gateway: Gateway, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"cannot listen on 127\.0\.0\.1:.*TIDEMARK_GATEWAY_PORT"), running_gateway(tmp_path, port=gateway.port):
        pass
