"""Slow, broken and hostile senders: they are told so where they can be, nothing of theirs is stored, and others are served."""

from __future__ import annotations

import gzip
import os
import selectors
import socket
from collections.abc import Iterator

import pyarrow as pa
import pytest

from tests.support.gateway import Gateway, read_all, running_gateway, status_of

ROW = b'{"device_id": "m-1"}'
MIB = 1 << 20
HEAD = {"gateway_head_seconds": 1, "gateway_body_seconds": 2, "gateway_idle_seconds": 1}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with little patience."""
    with running_gateway(tmp_path_factory.mktemp("gateway"), gateway_group_ms=20, **HEAD) as running:
        yield running


@pytest.fixture(autouse=True)
def others_are_served(gateway: Gateway) -> Iterator[None]:
    """After each test the gateway is well, has logged no stack trace and stored what it acknowledged."""
    before = len(gateway.posts())
    yield
    assert gateway.post(ROW).status_code == 202
    assert len(gateway.posts()) == before + 1
    assert "Traceback" not in gateway.log


def dribble(connection: socket.socket, data: bytes, each: int = 1) -> bytes:
    """Sends little by little until the other side has had enough. Returns what it said."""
    connection.settimeout(0.05)
    said = b""
    for start in range(0, len(data), each):
        try:
            connection.sendall(data[start : start + each])
            if part := connection.recv(1 << 16):
                said += part
            else:
                break
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    return said


def test_headers_that_never_end(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        said = dribble(connection, gateway.request()[:-2] + b"X-A: b\r\n" * 10_000)
    assert status_of(said) == 408


def test_a_silent_connection_is_closed_without_a_word(gateway: Gateway) -> None:
    assert gateway.talk() == b""


def test_headers_that_are_too_long(gateway: Gateway) -> None:
    huge = gateway.request("X-Huge: " + "x" * MIB, "Content-Length: 2")
    for sent in (huge, gateway.request()[:-2] + b"X: y\r\n" * 5000, gateway.request(path="/" + "x" * MIB), b"POST /" + b"x" * MIB):
        assert status_of(gateway.talk(sent)) == 431


def test_a_body_that_stops_half_way(gateway: Gateway) -> None:
    assert status_of(gateway.talk(gateway.request("Content-Length: 1000") + ROW)) == 408
    assert status_of(gateway.talk(gateway.request("Transfer-Encoding: chunked") + b"14\r\n" + ROW + b"\r\n")) == 408


def test_a_body_that_dribbles(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.sendall(gateway.request("Content-Length: 100000"))
        said = dribble(connection, ROW * 5000)
    assert status_of(said) == 408


def test_a_sender_that_leaves_in_the_middle(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.sendall(gateway.request("Content-Length: 1000") + ROW)
    assert status_of(gateway.talk(gateway.request("Content-Length: 1000") + ROW, is_over=True)) == 400
    assert status_of(gateway.talk(gateway.request("Transfer-Encoding: chunked") + b"14\r\n" + ROW + b"\r\n", is_over=True)) == 400


def test_a_length_that_is_too_short(gateway: Gateway) -> None:
    # What follows is no request, so the length was wrong and the row may be half a row.
    assert status_of(gateway.talk(gateway.request(f"Content-Length: {len(ROW)}") + ROW + b"\n" + ROW)) == 400


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: -1"],
        ["Content-Length: 20", "Content-Length: 21"],
        ["Content-Length: 20", "Transfer-Encoding: chunked"],
        ["Content-Length: 99999999999999999999999"],
        ["Transfer-Encoding: chunked, identity"],
        ["Content-Length: 0x14"],
        ["Content Length: 20"],
    ],
)
def test_lengths_that_are_none(gateway: Gateway, headers: list[str]) -> None:
    assert status_of(gateway.talk(gateway.request(*headers) + ROW)) == 400


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"14\r\n" + ROW + b"xx"])
def test_chunks_that_are_none(gateway: Gateway, chunk: bytes) -> None:
    assert status_of(gateway.talk(gateway.request("Transfer-Encoding: chunked") + chunk)) == 400


def test_chunks_without_end(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.sendall(gateway.request("Transfer-Encoding: chunked"))
        said = flood(connection, b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert status_of(said) == 413
    with gateway.connect() as connection:
        connection.sendall(gateway.request("Transfer-Encoding: chunked") + b"1;")
        assert status_of(flood(connection, b"x" * 0x10000)) == 413


def flood(connection: socket.socket, piece: bytes) -> bytes:
    """Sends the same again and again until there is an answer, and then as long as it goes. Returns the answer."""
    said = b""
    connection.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        rest = piece
        while True:
            ((_, events),) = selector.select()
            try:
                if events & selectors.EVENT_READ:
                    part = connection.recv(1 << 16)
                    if not part:
                        return said
                    said += part
                if events & selectors.EVENT_WRITE:
                    rest = rest[connection.send(rest) :] or piece
            except (BrokenPipeError, ConnectionResetError):
                return said


@pytest.mark.parametrize("key", ["", "wrong"])
def test_a_refusal_arrives_whatever_is_still_being_sent(gateway: Gateway, key: str) -> None:
    body = b"x" * (4 * MIB)
    refused = gateway.request(f"Content-Length: {len(body)}", "Connection: close").replace(gateway.key.encode(), key.encode())
    for _ in range(5):
        assert status_of(gateway.talk(refused + body)) == 401
    again = gateway.request(f"Content-Length: {len(body)}").replace(gateway.key.encode(), key.encode())
    good = gateway.request(f"Content-Length: {len(ROW)}", "Connection: close")
    answer = gateway.talk(again + body, good + b" " * len(ROW))
    assert answer.count(b"HTTP/1.1 ") == 2, "the connection goes on after the body that was not wanted"


def test_a_length_that_is_too_large_is_refused_before_the_body(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.sendall(gateway.request("Content-Length: 1000000000"))
        answer = connection.recv(1 << 16)  # of which more may follow
        assert status_of(answer) == 413
        assert (answer + flood(connection, b"x" * 65536)).count(b"HTTP/1.1 ") == 1  # not read for ever
    with gateway.connect() as connection:
        connection.sendall(gateway.request("Content-Length: 1000000000", "Expect: 100-continue"))
        assert status_of(read_all(connection)) == 413


def test_leave_to_send_is_given_to_those_who_may(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.sendall(gateway.request(f"Content-Length: {len(b' ')}", "Expect: 100-continue", "Connection: close"))
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b" ")
        assert status_of(read_all(connection)) == 400


def test_requests_one_behind_the_other(gateway: Gateway) -> None:
    empty = gateway.request("Content-Length: 1") + b" "
    answer = gateway.talk(empty * 4 + gateway.request("Content-Length: 1", "Connection: close") + b" ")
    assert answer.count(b"HTTP/1.1 400 ") == 5
    # Thousands in one packet, or large ones, are not kept: the connection ends, and a sender repeats what was not answered.
    many = gateway.talk(empty * 2000)
    assert 1 <= many.count(b"HTTP/1.1 400 ") < 2000


def test_a_change_of_protocol_is_not_taken(gateway: Gateway) -> None:
    sent = gateway.request("Content-Length: 1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA") + b" "
    assert status_of(gateway.talk(sent)) == 400
    assert status_of(gateway.talk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) == 400
    assert status_of(gateway.talk(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")) == 400
    assert status_of(gateway.talk(gateway.request("Content-Length: 0", "Connection: close", method="CONNECT"))) >= 400


def test_trailers_do_not_become_headers(gateway: Gateway) -> None:
    chunks = b"1\r\n \r\n0\r\n" + b"Authorization: Bearer other\r\n" * 500 + b"\r\n"
    assert status_of(gateway.talk(gateway.request("Transfer-Encoding: chunked", "Connection: close") + chunks)) == 400


def test_noise_is_answered_and_logged_without_a_trace(gateway: Gateway) -> None:
    noise = [os.urandom(2000) for _ in range(50)]
    head = gateway.request("Content-Length: 40", "Connection: close")
    broken = [head[:cut] + bytes([head[cut] ^ 0x80]) + head[cut + 1 :] + b" " * 40 for cut in range(0, len(head), 7)]
    for sent in noise + broken:
        answer = gateway.talk(sent, is_over=True)
        assert status_of(answer) in {0, 400, 401, 404, 405, 408, 411, 413, 415, 431, 501}, (sent, answer)
        assert b"Traceback" not in answer
        assert b".py" not in answer


@pytest.mark.parametrize("cut", [1, 5, 20])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_packed_bodies_that_break_off(gateway: Gateway, encoding: str, cut: int) -> None:
    whole = gzip.compress(ROW) if encoding == "gzip" else pa.compress(ROW, "zstd", asbytes=True)
    for sent in (whole[:-cut], whole + whole[:-cut], whole + b"rubbish", b"", b"\x1f\x8b\x08", ROW):
        answer = gateway.post(sent, encoding=encoding)
        assert answer.status_code == 400, (sent, answer.text)
        assert encoding in answer.json()["detail"]
