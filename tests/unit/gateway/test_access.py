"""Keys as a gateway without a warehouse knows them, and what a sender is told who may not do what he asks for."""

from __future__ import annotations

import hmac
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from include.gateway.access import Access
from include.gateway.keys.ring import KeyRing
from include.gateway.keys.token import digest_of, id_of, named_id, new_token
from include.gateway.model import Caller
from include.gateway.problems import Problem
from include.gateway.rates import Rates
from tests.support.gateway import lend_keys

STREAMS = ("customers", "device_telemetry", "orders")
NOON = 1_800_000_000.0


def ring(home: Path, clock=lambda: NOON) -> KeyRing:
    made = KeyRing(home / "gateway" / "keys.json", clock=clock)
    made.load_copy()
    return made


def access(home: Path) -> Access:
    return Access(ring(home), Rates(), STREAMS)


def request(authorization: str | None) -> Request:
    headers = [(b"authorization", authorization.encode("latin-1"))] if authorization is not None else []
    return Request({"type": "http", "headers": headers})


def problem_of(call, *arguments: object) -> Problem:
    with pytest.raises(Problem) as raised:
        call(*arguments)
    return raised.value


def test_a_key_is_found_by_all_of_it_and_by_nothing_less(tmp_path: Path) -> None:
    token, other = lend_keys(tmp_path, {"tenant_id": "shop_7", "streams": ["orders"], "rate": "5/second"}, {})
    key_id = id_of(token.encode())
    assert key_id is not None
    assert ring(tmp_path).find(token.encode()) == Caller(key_id, "shop_7", frozenset({"orders"}), "5/second")
    assert access(tmp_path).authenticate(request(f"bearer  {token}")).tenant_id == "shop_7"
    mixed = f"tmk_{key_id}_{other[21:]}"  # the id of one, the secret of the other
    for wrong in (new_token(), mixed, token[:-1], f"{token}0", f"{token[:-1]}g", token.upper(), token[4:], f"tmk_{key_id}_", key_id, "", "ü" * 85):
        assert ring(tmp_path).find(wrong.encode("latin-1")) is None, wrong


def test_an_unknown_id_takes_the_same_way_as_a_known_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (token,) = lend_keys(tmp_path)
    compared = []

    def compare(kept: bytes, shown: bytes) -> bool:
        compared.append((len(kept), shown))
        return hmac.compare_digest(kept, shown)

    sent = [token, new_token(), f"{token[:-1]}x", "no key at all"]
    monkeypatch.setattr("include.gateway.keys.ring.hmac", SimpleNamespace(compare_digest=compare))
    assert [ring(tmp_path).find(each.encode()) is not None for each in sent] == [True, False, False, False]
    assert compared == [(32, digest_of(each.encode())) for each in sent]


def test_a_key_ends_by_the_clock_alone(tmp_path: Path) -> None:
    (token,) = lend_keys(tmp_path, {"expires_at": "2027-01-15T08:00:00+00:00"})  # NOON
    assert ring(tmp_path, lambda: NOON - 0.001).find(token.encode()) is not None
    assert ring(tmp_path, lambda: NOON).find(token.encode()) is None


@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "tmk_0123456789abcdef_00"])
def test_without_a_key_the_challenge_says_how(tmp_path: Path, sent: str | None) -> None:
    lend_keys(tmp_path)
    problem = problem_of(access(tmp_path).authenticate, request(sent))
    assert problem.status == 401
    assert problem.headers["WWW-Authenticate"] == 'Bearer realm="tidemark"'


def test_a_bad_key_is_refused_without_a_word_about_why(tmp_path: Path) -> None:
    expired, good = lend_keys(tmp_path, {"expires_at": "2020-01-01T00:00:00Z"}, {})
    said = set()
    for token in (new_token(), expired, good[:-4] + "zzzz", "Bearer ÿ"):
        problem = problem_of(access(tmp_path).authenticate, request(f"Bearer {token}"))
        assert problem.status == 401
        assert problem.headers["WWW-Authenticate"].endswith('error="invalid_token"')
        assert token not in problem.detail
        said.add(problem.detail)
    assert len(said) == 1


def test_streams_beyond_the_key_are_forbidden_and_unknown_ones_are_answered_with_its_own(tmp_path: Path) -> None:
    door = access(tmp_path)
    orders, everything, gone = (Caller("a", "t", streams, None) for streams in (frozenset({"orders"}), None, frozenset({"retired"})))
    door.check_stream(orders, "orders")
    for stream in STREAMS:
        door.check_stream(everything, stream)
    forbidden = problem_of(door.check_stream, orders, "customers")
    assert (forbidden.status, forbidden.extensions) == (403, {})
    assert "orders" in forbidden.detail
    assert "device_telemetry" not in forbidden.detail
    unknown = problem_of(door.check_stream, orders, "order")
    assert (unknown.status, unknown.extensions) == (404, {"streams": ["orders"]})
    assert problem_of(door.check_stream, everything, "x").extensions == {"streams": list(STREAMS)}
    assert problem_of(door.check_stream, gone, "retired").status == 404
    assert len(problem_of(door.check_stream, orders, "x" * 100_000).detail) < 200


def test_before_there_is_a_list_nobody_is_told_that_his_key_is_wrong(tmp_path: Path) -> None:
    problem = problem_of(access(tmp_path).authenticate, request(f"Bearer {new_token()}"))
    assert problem.status == 503
    assert int(problem.headers["Retry-After"]) > 0


@pytest.mark.parametrize("damage", ["", "{", "[{}]", '[{"key_id": 3}]', "\0" * 100, '{"keys": []}'])
def test_a_damaged_copy_is_reported_and_not_used(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    (token,) = lend_keys(tmp_path)
    copy = tmp_path / "gateway" / "keys.json"
    copy.write_text(damage)
    with caplog.at_level(logging.ERROR, "tidemark.gateway"):
        found = ring(tmp_path)
    assert not found.is_loaded
    assert found.find(token.encode()) is None
    assert [record.message.startswith(f"{copy}, the copy of the API keys, is not used: ") for record in caplog.records] == [True]


def test_a_copy_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    lend_keys(tmp_path)
    copy = tmp_path / "gateway" / "keys.json"
    assert ring(tmp_path).is_loaded
    copy.chmod(0o620)
    assert not ring(tmp_path).is_loaded
    copy.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(copy, 12345, -1)
        assert not ring(tmp_path).is_loaded


def test_one_bad_key_does_not_spoil_the_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = lend_keys(tmp_path, {"rate": "sometimes"}, {})
    found = ring(tmp_path)
    assert found.find(bad.encode()) is None
    assert found.find(good.encode()) is not None
    assert str(id_of(bad.encode())) in caplog.text


def test_a_key_is_named_by_its_id_or_by_all_of_it() -> None:
    token = new_token()
    key_id = token.split("_")[1]
    assert {named_id(text) for text in (key_id, f"tmk_{key_id}", token, f" {key_id}\n")} == {key_id}
    assert [named_id(text) for text in ("", "nobody", key_id[:-1], f"{token}0")] == [None] * 4
    assert len(digest_of(token.encode())) == 32
