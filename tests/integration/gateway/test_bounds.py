"""Memory and connections have bounds, whatever is sent: figures of the gateway's process as Linux counts them."""

from __future__ import annotations

import gzip
import resource
import selectors
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pytest

from include.gateway.bodies import MAX_ROWS
from tests.support.gateway import Gateway, read_all, running_gateway, status_of

ROW = b'{"device_id": "m-1"}'
MIB = 1 << 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), gateway_group_ms=20) as running:
        for encoding, sent in (("gzip", gzip.compress(ROW)), ("zstd", pa.compress(ROW, "zstd", asbytes=True))):
            assert running.post(sent, encoding=encoding).status_code == 202  # what is loaded at first use is no growth
        yield running


@cache
def bombs() -> dict[str, tuple[bytes, str]]:
    def packed(data: bytes) -> bytes:
        return gzip.compress(data, 9)

    zeros, blanks = bytes(64 * MIB), b" " * (64 * MIB)
    zstd = pa.compress(zeros, "zstd", asbytes=True)
    empty = pa.compress(b"", "zstd", asbytes=True)
    return {
        "gzip": (packed(bytes(256 * MIB)), "gzip"),
        "gzip of many members": (packed(blanks) * 100, "gzip"),
        "gzip of members that are just small enough": (packed(b" " * (15 * MIB)) * 500, "gzip"),
        "gzip of empty members": (packed(b"") * 400_000, "gzip"),
        "zstd": (pa.compress(bytes(256 * MIB), "zstd", asbytes=True), "zstd"),
        "zstd of many frames": (zstd * 500, "zstd"),
        "zstd of empty frames": (empty * (7 * MIB // len(empty)), "zstd"),
        "zstd of frames to skip": ((b"\x50\x2a\x4d\x18" + (1 * MIB).to_bytes(4, "little") + bytes(MIB)) * 7, "zstd"),
        # A header that asks for a window of 128 MiB, and then hardly anything: the decompressor is to hold no more than it needs.
        "zstd of a wide window": ((b"\x28\xb5\x2f\xfd\x00\x88" + b"\x0b\x00\x00" + b" ") * 1000, "zstd"),
    }


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
def test_bombs_take_little_memory(gateway: Gateway, content_type: str) -> None:
    for name, (sent, encoding) in bombs().items():
        assert len(sent) < 8 * MIB, name
        before = gateway.reset_peak()
        with ThreadPoolExecutor(4) as senders:
            answers = list(senders.map(partial(gateway.post, content_type=content_type, encoding=encoding), [sent] * 4))
        grown = (gateway.peak() - before) / MIB
        assert {answer.status_code for answer in answers} <= {400, 413, 503}, (name, [answer.text for answer in answers])
        assert grown < 250, f"{name}: {grown:.0f} MiB"


def test_the_worst_bodies_that_fit_take_little_memory(gateway: Gateway) -> None:
    most = MAX_ROWS - 1
    shapes = {"brackets": b"[" + b"[" * 500 + b"]" * 500 + b",[]" * most + b"]", "numbers": b"[0" + b",0" * most + b"]", "lines": b"1\n" * most}
    shapes |= {"line ends": b"{" + b"\n" * most + b"}"}
    for name, text in shapes.items():
        before = gateway.reset_peak()
        content_type = "application/x-ndjson" if name == "lines" else "application/json"
        stored = gzip.compress(text + b" " * (15 * MIB - len(text)), 9)
        answer = gateway.post(stored, content_type=content_type, encoding="gzip")
        grown = (gateway.peak() - before) / MIB
        assert answer.status_code == 202, answer.text
        assert grown < 250, f"{name}: {grown:.0f} MiB"


@pytest.mark.parametrize(
    ("content_type", "text"), [("application/x-ndjson", b"\n" * (15 * MIB) + b"{}"), ("application/json", b"{" + b"\n" * (15 * MIB) + b"}")]
)
def test_blank_lines_take_little_memory_where_they_are_judged(gateway: Gateway, content_type: str, text: bytes) -> None:
    before = gateway.reset_peak()
    answer = gateway.post(gzip.compress(text, 9), content_type=content_type, encoding="gzip", query="?validate=strict")
    grown = (gateway.peak() - before) / MIB
    assert (answer.status_code, answer.json()["limit_rows"]) == (413, MAX_ROWS)
    assert grown < 250, f"{grown:.0f} MiB"


def test_ten_thousand_idle_connections(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10_500:
        pytest.skip(f"this machine lets a process open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with running_gateway(tmp_path, gateway_group_ms=20, gateway_head_seconds=120) as gateway, ExitStack() as open_ones:
            before = gateway.reset_peak()
            for number in range(10_000):
                connection = open_ones.enter_context(gateway.connect())
                if number % 3 == 0:
                    connection.sendall(b"POST /v1/streams/")
            assert gateway.post(ROW).status_code == 202
            grown = (gateway.peak() - before) / MIB
            assert gateway.connections() >= 10_000
            assert grown < 200, f"{grown:.0f} MiB"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_make_room(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_group_ms=20, gateway_connections=20) as gateway, ExitStack() as open_ones:
        idle = [open_ones.enter_context(gateway.connect()) for _ in range(60)]
        assert gateway.post(ROW).status_code == 202
        assert read_all(idle[0]) == b""  # the oldest went


def test_busy_connections_do_not_make_room(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_connections=10) as gateway, ExitStack() as open_ones:
        for _ in range(10):
            busy = open_ones.enter_context(gateway.connect())
            busy.sendall(gateway.request("Content-Length: 100", "Expect: 100-continue"))
            assert busy.recv(100).startswith(b"HTTP/1.1 100 ")
        answer = gateway.talk()
        assert status_of(answer) == 503
        assert b"retry-after: 1" in answer


def test_bodies_in_flight_have_a_bound(tmp_path: Path) -> None:
    with running_gateway(tmp_path, gateway_pending_bytes=16 * MIB, gateway_group_ms=20) as gateway, ExitStack() as open_ones:
        before = gateway.reset_peak()
        answers = []
        for _ in range(12):  # each with a MiB of a body that does not end
            half = open_ones.enter_context(gateway.connect())
            half.sendall(gateway.request("Content-Length: 2000000", "Expect: 100-continue"))
            assert half.recv(100).startswith(b"HTTP/1.1 100 ")
            half.sendall(bytes(MIB))
            answers.append(half)
        refused = 0
        with selectors.DefaultSelector() as selector:
            for connection in answers:
                selector.register(connection, selectors.EVENT_READ)
            while refused < 4:  # one key may hold half of the 16 MiB
                for key, _ in selector.select(60) or pytest.fail("nobody was refused"):
                    assert status_of(key.fileobj.recv(1 << 16)) == 503
                    selector.unregister(key.fileobj)
                    refused += 1
        assert (gateway.peak() - before) / MIB < 100
