"""The retry rule of senders, told by answers that a gateway, a proxy or a broken line may give."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from include.gateway.client import NDJSON, Accepted, ClientError, GatewayClient, GatewayUnavailable, PostRefused

BODY = b'{"a":1}\n'
RECEIPT = "orders.20260301000000000000.0123abcd.1"

Answer = httpx.Response | Exception


class Line:
    """Answers requests in turn and keeps what was sent."""

    def __init__(self, *answers: Answer) -> None:
        self._answers: Iterator[Answer] = iter(answers)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        self.told: list[tuple[str, float]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, patience_s: float = 1e9) -> GatewayClient:
        return GatewayClient(
            "http://gateway.test/",
            "tmk_abc_secret",
            patience_s=patience_s,
            on_retry=lambda reason, pause: self.told.append((reason, pause)),
            transport=httpx.MockTransport(self),
            sleep=self.pauses.append,
        )


def accepted() -> httpx.Response:
    return httpx.Response(202, json={"receipt": RECEIPT})


def problem(status: int, detail: str = "because", headers: dict[str, str] | None = None, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"title": "t", "status": status, "detail": detail, **more}, headers=headers)


def test_a_post_names_stream_key_and_type() -> None:
    line = Line(accepted())
    with line.client() as client:
        assert client.post("orders", BODY, is_strict=True) == Accepted(RECEIPT, may_be_twice=False)
    (request,) = line.requests
    assert str(request.url) == "http://gateway.test/v1/streams/orders/events?validate=strict"
    assert request.headers["Authorization"] == "Bearer tmk_abc_secret"
    assert (request.headers["Content-Type"], request.content) == (NDJSON, BODY)
    assert "Content-Encoding" not in request.headers


def test_gzip_on_the_wire_is_the_same_body() -> None:
    line = Line(accepted())
    with line.client() as client:
        client.post("orders", BODY, compress=True)
    assert line.requests[0].headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(line.requests[0].content) == BODY


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", [lambda: "7", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=7, milliseconds=999), usegmt=True)])
def test_the_gateway_says_when_the_same_body_may_come_again(status: int, form: Callable[[], str]) -> None:
    line = Line(problem(status, "wait", {"Retry-After": form()}), accepted())
    with line.client() as client:
        assert client.post("orders", BODY) == Accepted(RECEIPT, may_be_twice=status == 503), "too early is not stored; 503 may be a store that lost its answer"
    assert [request.content for request in line.requests] == [BODY, BODY]
    assert len(line.pauses) == 1
    assert 5 <= line.pauses[0] <= 9
    assert line.told == [(f"{status} wait", line.pauses[0])]


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut off"),
        httpx.WriteError("broken"),
        problem(500),
        httpx.DecodingError("a proxy says gzip and sends something else"),
        httpx.Response(502, text="<html>Bad Gateway</html>"),
        problem(503),
        problem(408),
        problem(503, headers={"Retry-After": "soon"}),
    ],
)
def test_what_settles_nothing_is_tried_again_with_the_same_body(trouble: Answer) -> None:
    line = Line(trouble, trouble, accepted())
    with line.client() as client:
        assert client.post("orders", BODY) == Accepted(RECEIPT, may_be_twice=True)
    assert [request.content for request in line.requests] == [BODY] * 3


def test_pauses_grow_and_are_a_random_share() -> None:
    pauses = []
    for _ in range(40):
        line = Line(*[httpx.ConnectError("refused")] * 12, accepted())
        with line.client() as client:
            client.post("orders", BODY)
        pauses.append(line.pauses)
    bounds = [min(30, 0.5 * 2**turn) for turn in range(12)]
    for turn, bound in enumerate(bounds):
        drawn = [each[turn] for each in pauses]
        assert 0 <= min(drawn) < bound / 2 < max(drawn) <= bound, f"full jitter: anything up to {bound} s, got {min(drawn)} to {max(drawn)}"


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 415, 422, 501])
def test_what_the_sender_must_mend_is_not_sent_again(status: int) -> None:
    line = Line(problem(status, "field x is missing; send it", refused=[{"row": 2, "errors": [{"code": "missing"}]}]))
    with line.client() as client, pytest.raises(PostRefused) as refused:
        client.post("orders", BODY)
    assert (refused.value.status, str(refused.value)) == (status, f"{status} field x is missing; send it")
    assert refused.value.rows == ({"row": 2, "errors": [{"code": "missing"}]},)
    assert refused.value.is_for_all == (status in {401, 403, 404, 415})
    assert line.pauses == []


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>hello</html>"), httpx.Response(202, json=["no"]), httpx.Response(202, text="ok")])
def test_only_a_receipt_is_an_acknowledgement(answer: httpx.Response) -> None:
    line = Line(answer)
    with line.client() as client, pytest.raises(PostRefused, match="without a receipt"):
        client.post("orders", BODY)


def test_patience_ends_before_a_pause_that_is_too_long() -> None:
    line = Line(problem(503, "disk full", {"Retry-After": "600"}))
    with line.client(patience_s=60) as client, pytest.raises(GatewayUnavailable, match="503 disk full") as gone:
        client.post("orders", BODY)
    assert line.pauses == []
    assert "sent again" in gone.value.hint


def test_a_certificate_that_is_not_trusted_is_no_reason_to_try_again() -> None:
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "unable to get local issuer certificate"
    distrust = httpx.ConnectError("handshake")
    distrust.__cause__ = cause
    line = Line(distrust)
    with line.client() as client, pytest.raises(PostRefused, match="not trusted: unable to get local issuer") as refused:
        client.post("orders", BODY)
    assert refused.value.is_for_all
    assert "--ca" in refused.value.hint
    assert line.pauses == []


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with GatewayClient("gateway:8090", "k") as client, pytest.raises(PostRefused, match="gateway:8090"):
        client.post("orders", BODY)


@pytest.mark.parametrize("key", ["tmk_geheim\x00", "tmk_geheim\nX: y", "tmk_geh\u00e4im"])
def test_a_key_that_is_none_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(ClientError, match="characters that no key has") as caught:
        GatewayClient("http://gateway.test", key)
    assert "geh" not in f"{caught.value}{caught.value.hint}"


def test_a_key_from_a_file_of_windows_is_good() -> None:
    line = Line(accepted())
    with GatewayClient("http://gateway.test", "tmk_abc_secret\r", transport=httpx.MockTransport(line)) as client:
        client.post("orders", BODY)
    assert line.requests[0].headers["authorization"] == "Bearer tmk_abc_secret"


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for file in ("ca.pem", "absent.pem"):
        with pytest.raises(ClientError, match=file):
            GatewayClient("https://gateway.test", "k", ca=tmp_path / file)


def test_a_receipt_is_asked_for_until_there_is_an_answer() -> None:
    line = Line(httpx.ConnectError("refused"), httpx.Response(200, content=json.dumps({"status": "received"})))
    with line.client() as client:
        assert client.receipt(RECEIPT) == {"status": "received"}
    assert {request.url.path for request in line.requests} == {f"/v1/receipts/{RECEIPT}"}
