"""The OpenAPI document follows the contracts, is valid, and its own examples keep what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31
from typer.testing import CliRunner

from include.cli import app
from include.contracts import load_contract, streams
from include.contracts.model import Contract
from include.gateway.openapi import PROBLEMS, RECEIPT, Limits, openapi_document
from include.landing.posts import locate
from tests.support.stricter import with_field, with_rule

LIMITS = Limits(8 << 20, 16 << 20)
CONTRACTS = [load_contract(stream) for stream in streams()]


def document(contracts: list[Contract] = CONTRACTS) -> dict[str, Any]:
    """As a client reads it: through JSON."""
    return json.loads(json.dumps(openapi_document(contracts, LIMITS), allow_nan=False))


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
        for each in node.values():
            yield from nodes(each)
    elif isinstance(node, list):
        for each in node:
            yield from nodes(each)


def resolved(root: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = root
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        node = target
    return node


def test_the_document_is_valid_openapi_and_every_reference_leads_somewhere() -> None:
    found = document()
    Draft202012Validator(OPENAPI_31).validate(found)
    for node in nodes(found):
        resolved(found, node)
    for schema in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids = [operation["operationId"] for path in found["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == len(streams()) + 6


def test_the_command_prints_the_document() -> None:
    assert json.loads(CliRunner().invoke(app, ["contracts", "openapi"]).stdout) == document()


def test_the_check_of_validity_can_fail() -> None:
    found = document()
    found["paths"]["/v1/streams/orders/events"]["post"]["parameters"] = [{"name": "nowhere"}]
    assert not Draft202012Validator(OPENAPI_31).is_valid(found)


def test_every_stream_has_a_path_with_its_schema_and_all_answers() -> None:
    found = document()
    for stream in streams():
        post = found["paths"][f"/v1/streams/{stream}/events"]["post"]
        assert set(post["requestBody"]["content"]) == {"application/json", "application/x-ndjson"}
        one, several = post["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
        assert one == several["items"] == {"$ref": f"#/components/schemas/{stream}"}
        assert set(post["responses"]) == {"202", *(str(int(status)) for status in PROBLEMS)} >= {"400", "401", "403", "404", "413", "415", "422", "429", "503"}
        assert {resolved(found, each)["name"] for each in post["parameters"]} == {"validate", "Content-Encoding"}
    keyless = {path for path, item in found["paths"].items() for operation in item.values() if operation.get("security") == []}
    assert keyless == {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}


def test_every_example_keeps_its_schema() -> None:
    found = document()
    seen = 0
    for node in nodes({name: part for name, part in found.items() if name != "components"} | {"responses": found["components"]["responses"]}):
        if "schema" not in node:
            continue
        values = [each["value"] for each in node.get("examples", {}).values()] + ([node["example"]] if "example" in node else [])
        schema = {**found, "$ref": "#/wanted", "wanted": node["schema"]}
        for value in values:
            Draft202012Validator(schema).validate(value)
            seen += 1
    assert seen >= 4 * len(streams()) + len(PROBLEMS)
    for status, response in ((status, found["components"]["responses"][f"Problem{int(status)}"]) for status in PROBLEMS):
        (media,) = response["content"].items()
        assert media[0] == "application/problem+json"
        assert (media[1]["example"]["status"], media[1]["example"]["title"]) == (int(status), status.phrase)
    assert locate(RECEIPT) is not None


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        (with_field(load_contract("orders"), "item_count", maximum=7.0), "7"),
        (with_rule(load_contract("orders"), "no_gifts", "gross_usd > 0"), "rule:no_gifts"),
        (replace(load_contract("orders"), version="1.2.3"), "1.2.3"),
    ],
)
def test_another_contract_makes_another_document(changed: Contract, place: str) -> None:
    before, after = document(), document([changed if each.stream == "orders" else each for each in CONTRACTS])
    assert before["components"]["schemas"]["orders"] != after["components"]["schemas"]["orders"]
    assert place in json.dumps(after["components"]["schemas"]["orders"])
    assert document() == before
    assert "/v1/streams/orders/events" not in document([each for each in CONTRACTS if each.stream != "orders"])["paths"]
