"""`validate=strict` says before anything is stored what landing says afterwards, row by row and word by word."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from http import HTTPStatus

import pytest

from include.contracts import load_contract
from include.gateway.model import Body, Caller
from include.gateway.problems import Problem
from include.gateway.strict import MAX_ROWS, refuse_bad_rows
from include.landing import land_pending
from include.landing.post_rows import JSON, NDJSON, UnreadableBody, plain_body
from include.landing.quarantine import Filter, list_quarantined
from include.landing.row_errors import row_errors
from include.landing.rows import Code
from tests.support.landing import assert_balanced
from tests.support.payloads import at, customer, maintenance, order, registry, telemetry
from tests.support.posts import PACK, Sent, put_posts

ARRIVED_AT = at(3)
MADE = {
    "device_telemetry": lambda n: telemetry(f"m{n}", at(0, n % 48)),
    "device_registry": lambda n: registry(f"m{n}", at(0, n % 48)),
    "maintenance_log": lambda n: maintenance(f"l{n}", "m1", at(0, n % 48)),
    "orders": lambda n: order(f"o{n}", "c1", at(0, n % 48)),
    "customers": lambda n: customer(f"c{n}", at(0, n % 48)),
}
ODD = [None, "", "x", "a\x00b", "\ud800", -1, 0, 1.5, 1e308, 10**30, True, [], {}, [1], {"x": 1}, float("nan"), "2026-03-02T00:00:00Z", "2036-03-01T00:00:00Z"]
NOT_ROWS = ["{", "null", "7", "[]", '"x"', "{}", '{"a": 1}}', '{"a": 1e999}', "\ufeff{}", '{"a": "\x01"}', "{'a': 1}"]
# What only the warehouse can say; nothing else may differ.
WAREHOUSE_ONLY = {Code.PARTITION_EXPIRED, Code.CONFLICT, Code.COPY_REFUSED}


def changed(payload, dice):
    """A payload with something odd in it, in most cases."""
    groups = [payload, *(value for value in payload.values() if isinstance(value, dict))]
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        group = dice.choice(groups)
        what = dice.randrange(5)
        if what == 0:
            group.pop(dice.choice([*group]), None)
        elif what == 1:
            group["somethingNew"] = dice.choice(ODD)
        elif what == 2:
            payload["tenantId"] = dice.choice(["acme", "beta", "", " acme", 7, None, "x" * 200])
        else:
            group[dice.choice([*group])] = dice.choice(ODD)
    return payload


def sent_bodies(stream, dice, count):
    """Bodies of every kind, most with something odd in them."""
    number, found = 0, []
    for _ in range(count):
        rows = []
        for _ in range(dice.choice((1, 1, 2, 4))):
            number += 1
            rows.append(json.dumps(changed(MADE[stream](number), dice)) if dice.random() < 0.85 else dice.choice(NOT_ROWS))
        kind = dice.randrange(4)
        if kind == 0:
            data, content_type = "\n".join(rows), NDJSON
        elif kind == 1:
            data, content_type = "\r\n\n".join(rows) + "\n", NDJSON
        elif kind == 2:
            data, content_type = "[" + ",\n".join(rows) + "]", JSON
        else:
            data, content_type = rows[0], JSON
        encoding = dice.choice(["identity", "gzip", "zstd"])
        found.append(Sent(PACK[encoding](data.encode("utf-8", "surrogatepass")), content_type, encoding))
    return found


@pytest.mark.parametrize("stream", MADE)
def test_strict_says_of_every_row_what_landing_says_of_it(warehouse, stream):
    dice = random.Random(stream)
    contract, bodies = load_contract(stream), sent_bodies(stream, dice, 250)
    said = []
    for body in bodies:
        bad = row_errors(contract, plain_body(body.stored, body.encoding), body.content_type, "acme", ARRIVED_AT)
        said.append({row.row: [error.as_dict() for error in row.errors] for row in bad})
    put_posts(stream, bodies, arrived_at=ARRIVED_AT)
    land_pending(stream, arrived_from=at(-1), arrived_before=at(30))
    assert_balanced()
    (first_rows,) = warehouse.rows("select first_rows from ops.post_result")[0]
    found = [{} for _ in bodies]
    codes = set()
    for row in list_quarantined(Filter(stream), limit=10_000):
        post = sum(first <= row.row_number for first in first_rows) - 1
        found[post][row.row_number - first_rows[post] + 1] = row.errors
        codes |= set(row.codes)
    assert not codes & WAREHOUSE_ONLY  # the bodies are such that the warehouse has nothing to add
    assert said == found
    clean = sum(not errors for errors in said)
    assert 40 < clean < 210
    assert {"missing_required", "wrong_type", "malformed_json", "not_an_object", "foreign_tenant", "lone_surrogate", "nul_character"} <= codes


def body_of(*rows, content_type=NDJSON):
    plain = "\n".join(json.dumps(row) for row in rows).encode()
    return Body(plain, content_type, "identity", plain, len(rows), ARRIVED_AT)


def asked(body, stream="device_telemetry", tenant="acme"):
    """The problem that a body is answered with; None where it would be stored."""
    try:
        asyncio.run(refuse_bad_rows(Caller("k1", tenant, None, None), stream, body))
    except Problem as problem:
        return problem
    return None


def test_a_body_with_a_bad_row_is_answered_with_every_error():
    good, bad = telemetry("m1", at(0, 1)), telemetry("m2", at(0, 1), temperature=5000.0, tenantId="beta")
    assert asked(body_of(good, good)) is None
    problem = asked(body_of(good, bad, good))
    assert problem.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert problem.extensions["rows"] == 3
    (row,) = problem.extensions["refused"]
    assert (row["row"], {error["code"] for error in row["errors"]}) == (2, {"out_of_range", "foreign_tenant"})
    assert {error["value"] for error in row["errors"]} == {"5000.0", "beta"}
    assert asked(body_of(bad), tenant="beta").extensions["refused_rows"] == 1
    assert "1 of 3 rows break the contract of device_telemetry, so nothing was stored" in problem.detail
    assert json.loads(problem.response().body)["refused_rows"] == 1


def test_many_bad_rows_are_told_in_part_and_too_many_rows_are_not_judged():
    problem = asked(body_of(*[{}] * 300))
    assert (problem.extensions["refused_rows"], len(problem.extensions["refused"])) == (300, 100)
    assert [row["row"] for row in problem.extensions["refused"]] == list(range(1, 101))
    problem = asked(replace(body_of({}), rows=MAX_ROWS + 1))
    assert (problem.status, problem.extensions["limit_rows"]) == (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, MAX_ROWS)


def test_time_is_judged_by_when_the_body_came():
    late = body_of(telemetry("m1", at(3, 0, 15)))
    assert {error["code"] for error in asked(late).extensions["refused"][0]["errors"]} == {"event_time_out_of_range"}
    assert asked(replace(late, received_at=at(3, 0, 10))) is None


def test_a_body_that_cannot_be_read_is_one_row():
    (row,) = row_errors(load_contract("orders"), b'[{"a": 1}, {', JSON, "acme", ARRIVED_AT)
    assert (row.row, row.errors[0].code) == (1, Code.MALFORMED_JSON)
    with pytest.raises(UnreadableBody):
        plain_body(b"x", "gzip")
