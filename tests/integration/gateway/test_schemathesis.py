"""Requests made from the gateway's own OpenAPI, valid ones and broken ones, sent against the real process: every answer is one that the document promises."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs
import pyarrow as pa
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.engine import events, from_schema
from schemathesis.specs.openapi.checks import negative_data_rejection

from include.contracts import load_contract
from include.contracts.json_schema import schema_document
from include.gateway.keys.administration import create
from include.landing.zone import DEFAULT_TENANT
from include.settings import get_settings
from tests.conftest import Warehouse
from tests.support.gateway import running_gateway

SEED = 20240115
EXAMPLES = 10
# Of streams one with nested fields and one with rules stand for all: the path is the same code, and tests/unit/contracts holds every schema against landing.
PATHS = r"^(/v1/streams/(device_telemetry|orders)/events|/v1/receipts/.*|/[a-z.]+)$"
# What no schema can say: see include/contracts/json_schema.py.
UNSAYABLE = {"event_time_out_of_range", "bad_timestamp", "lone_surrogate", "nul_character", "number_out_of_range", "foreign_tenant"}


def packed(context: schemathesis.SerializationContext, plain: bytes) -> bytes:
    """A body as the header of its request says."""
    encoding = str((context.case.headers or {}).get("Content-Encoding"))
    return {"gzip": lambda: gzip.compress(plain), "zstd": lambda: pa.compress(plain, codec="zstd", asbytes=True)}.get(encoding, lambda: plain)()


@schemathesis.serializer("application/x-ndjson")
def lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return packed(context, value.encode() if isinstance(value, str) else json.dumps(value, default=repr).encode())


@schemathesis.serializer("application/json")
def document(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return packed(context, json.dumps(value, default=repr).encode())


@schemathesis.check
def broken_requests_are_refused(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """Without `validate=strict` a post takes rows that break their contract: landing quarantines them."""
    elsewhere = (ParameterLocation.QUERY, ParameterLocation.HEADER, ParameterLocation.PATH)
    is_lenient = "validate" not in (case.query or {}) and not (case.meta and any(case.meta.is_negative_at(place) for place in elsewhere))
    return None if is_lenient and response.status_code == 202 else negative_data_rejection(ctx, response, case)


@schemathesis.check
def strict_posts_are_refused_for_a_reason(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """A row that keeps its schema is refused only for what no schema can say.

    Rows are held against it once more: they are made with Python's patterns, in which `$` also stands before a last line break.
    """
    if response.status_code != 422 or case.media_type != "application/json" or case.meta is None or case.meta.generation.mode.is_negative:
        return
    rows = case.body if isinstance(case.body, list) else [case.body]
    schema = schema_document(load_contract(case.path.split("/")[3]))
    for refused in json.loads(response.content)["refused"]:
        codes = {error["code"] for error in refused["errors"]}
        unexplained = {code for code in codes if code not in UNSAYABLE and not code.startswith("rule:")}
        assert not unexplained or not jsonschema_rs.is_valid(schema, rows[refused["row"] - 1]), f"a row that keeps its schema is refused: {codes}"


def test_the_gateway_keeps_its_document(warehouse: Warehouse, tmp_path: Path) -> None:
    _, token = create(DEFAULT_TENANT, by="test")
    with running_gateway(tmp_path, key=token, gateway_group_ms=0, secrets_file=get_settings().secrets_path) as gateway:
        config = schemathesis.Config.from_dict(
            {
                "seed": SEED,
                "headers": gateway.headers,
                "generation": {"deterministic": True, "database": "none", "max-examples": EXAMPLES},
                "checks": {
                    "negative_data_rejection": {"enabled": False},  # see broken_requests_are_refused
                    "positive_data_acceptance": {"expected-statuses": ["202", "200", "404", "422"]},  # 422: see strict_posts_are_refused_for_a_reason
                },
            }
        )
        schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json", config=config).include(path_regex=PATHS)
        wrong: list[str] = []
        answers: Counter[tuple[str, int]] = Counter()
        checks: Counter[str] = Counter()
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                recorder = event.recorder
                answers.update((event.phase.name, each.response.status_code) for each in recorder.interactions.values() if each.response)
                for found in recorder.checks.values():
                    checks.update(each.name for each in found)
                    wrong += [
                        f"{event.phase.name} {recorder.label}: {each.name}: {each.failure_info.failure.title}\n{each.failure_info.failure.message}\n"
                        f"{each.failure_info.code_sample}"
                        for each in found
                        if each.failure_info
                    ]
            elif isinstance(event, events.NonFatalError | events.FatalError):
                wrong.append(str(getattr(event, "info", event)))
        assert not wrong, "\n\n".join(wrong[:10])
        assert "incident" not in gateway.log
        assert "Traceback" not in gateway.log
    statuses = {status for _, status in answers}
    assert {200, 202, 400, 401, 404, 405, 415, 422} <= statuses <= {200, 202, 400, 401, 404, 405, 415, 422, 431}, answers
    assert {phase for phase, _ in answers} == {"EXAMPLES", "COVERAGE", "FUZZING", "STATEFUL_TESTING"}
    expected = {
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "positive_data_acceptance",
        "broken_requests_are_refused",
        "strict_posts_are_refused_for_a_reason",
        "unsupported_method",
        "ignored_auth",
    }
    assert expected <= {name for name, count in checks.items() if count >= 50}, checks
