"""The gateway's interface as OpenAPI 3.1, made from the contracts: a path for each stream, with the schema of its rows, and what each answer looks like.

`/openapi.json` and `/docs` need no key: contracts say how data is sent and hold neither data nor tenants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from include.contracts.json_schema import DIALECT, example_row, row_schema
from include.contracts.model import Contract
from include.gateway.bodies import ENCODINGS, JSON, MAX_ROWS, NDJSON
from include.gateway.problems import MEDIA_TYPE
from include.gateway.receipts import Receipt

Part = dict[str, Any]

VERSION = "1"
RECEIPT = "orders.20240115103000250000.0f3a9c1e.1"
_RECEIPT_PATTERN = r"^[a-z][a-z0-9_]{0,62}\.[0-9]{20}\.[0-9a-f]{8}\.[1-9][0-9]{0,6}$"
_A_ROW = r"[^ \t\r\n\v\f]"

INTRODUCTION = """\
Devices, tills and shops post events; `202` means that the bytes are on disk, and its receipt tells later what became of each row.

**Body.** A JSON object, a JSON array of objects, or NDJSON (an object a line), in UTF-8, as it is or compressed with gzip or zstd: at most {body_bytes:,} bytes
as sent and {plain_bytes:,} unpacked, and {most_rows:,} lines or elements. Rows that break their contract do not stop the others: they go to the quarantine,
and the receipt says why. With `?validate=strict` the answer says so at once, and nothing is stored if any row fails.

**Sending again.** 429 and 503: the same body again after `Retry-After` seconds. No answer, 408 or 5xx: the same body again, later and later, by chance.
Any other 4xx: mend the request first. The same body again does no harm: each event has an identity, and a copy of one is counted as `duplicate`.
"""

# Why each status is answered: who reads this writes a client.
PROBLEMS: dict[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "The body cannot be read (not JSON, not UTF-8, broken compression), has no row, or the query is not understood. Mend it.",
    HTTPStatus.UNAUTHORIZED: "No key, or one that is unknown, revoked or expired.",
    HTTPStatus.FORBIDDEN: "The key is good and not for this stream; `detail` names those that it may use.",
    HTTPStatus.NOT_FOUND: "There is no such stream, or no such receipt for this key's tenant.",
    HTTPStatus.REQUEST_TIMEOUT: "The body came too slowly. Send it again, in smaller posts.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large, as sent or unpacked, or has too many rows. Send its rows in several posts.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The content type or encoding is none that the gateway takes; the headers `Accept` and `Accept-Encoding` name them.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Only with `validate=strict`: rows break the contract; `refused` says which and how. Nothing was stored.",
    HTTPStatus.TOO_MANY_REQUESTS: "The key posts more often than it may. Send the same body again after `Retry-After` seconds.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Request line and headers are too long.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A fault of the gateway, with a number for its operator. Send the same body again later.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The gateway takes nothing now (disk nearly full, zone not writable, too much waits). Send the same body again after "
    "`Retry-After` seconds.",
}
_DETAILS: dict[HTTPStatus, Part] = {
    HTTPStatus.BAD_REQUEST: {"detail": "the body has no row; send at least one"},
    HTTPStatus.UNAUTHORIZED: {"detail": "This needs an API key, as the header `Authorization: Bearer tmk_…`. `tidemark key create` makes one."},
    HTTPStatus.FORBIDDEN: {"detail": "This key is not for stream customers. It may use: orders."},
    HTTPStatus.NOT_FOUND: {"detail": "There is no stream 'order'. This key may use: orders.", "streams": ["orders"]},
    HTTPStatus.REQUEST_TIMEOUT: {"detail": "a body must come within 120 s, and with at least 1024 bytes a second; send fewer rows in a post"},
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"detail": "a body has at most 8,388,608 bytes as sent; send its rows in several posts", "limit_bytes": 8388608},
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: {"detail": "a body is sent as it is or compressed once, with gzip or zstd; say which in Content-Encoding"},
    HTTPStatus.UNPROCESSABLE_ENTITY: {
        "detail": "1 of 2 rows break the contract of orders, so nothing was stored: mend them, or post without validate=strict",
        "rows": 2,
        "refused_rows": 1,
        "refused": [{"row": 2, "errors": [{"code": "missing_required", "field": "order_id", "value": None, "message": "orderId is required"}]}],
    },
    HTTPStatus.TOO_MANY_REQUESTS: {"detail": "The key may post 50 times a second; send the same body again after Retry-After seconds."},
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: {"detail": "the request line and the headers have together at most 32,768 bytes and 100 lines"},
    HTTPStatus.INTERNAL_SERVER_ERROR: {"detail": "the gateway failed; send the same body again after some seconds", "incident": "9f86d081"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"detail": "the disk of the landing zone is nearly full; send the same body again after Retry-After seconds"},
}
_RETRY = {"Retry-After": {"description": "Seconds until it makes sense to try again.", "required": True, "schema": {"type": "integer", "minimum": 0}}}
_HEADERS: dict[HTTPStatus, Part] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": {"description": "What kind of key is asked for.", "required": True, "schema": {"type": "string"}}},
    HTTPStatus.TOO_MANY_REQUESTS: _RETRY,
    HTTPStatus.SERVICE_UNAVAILABLE: _RETRY,
}
_RECEIPT_ANSWER = {
    "receipt": RECEIPT,
    "stream": "orders",
    "status": "landed",
    "detail": "1 rows wait in quarantine",
    "stored_at": "2024-01-15T10:30:00.250000Z",
    "landed_at": "2024-01-15T10:35:07.113000Z",
    "rows": {"landed": 2, "accepted": 1, "quarantined": 1, "duplicate": 0, "corrected": 0},
    "refused_rows": 1,
    "open_rows": 1,
    "refused": [
        {
            "row": 2,
            "state": "open",
            "outcome": None,
            "errors": [{"code": "missing_required", "field": "order_id", "message": "orderId is required"}],
        }
    ],
}
_POST_PROBLEMS = tuple(PROBLEMS)
_READ_PROBLEMS = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


@dataclass(frozen=True)
class Limits:
    """Largest bodies, in bytes: as sent, and unpacked."""

    body_bytes: int
    plain_bytes: int


def openapi_document(contracts: Sequence[Contract], limits: Limits) -> Part:
    """The interface of a gateway that takes these streams, as an OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {"title": "Tidemark gateway", "version": VERSION, "description": INTRODUCTION.format(**vars(limits), most_rows=MAX_ROWS)},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [
            {"name": "events", "description": "Send events."},
            {"name": "receipts", "description": "Learn what became of them."},
            {"name": "operation", "description": "Whether the gateway is well, and what it takes. No key is needed."},
        ],
        "paths": {
            **{f"/v1/streams/{contract.stream}/events": {"post": _post(contract)} for contract in contracts},
            "/v1/receipts/{receipt}": {"get": _receipt()},
            **_operation(),
        },
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key: `tmk_<id>_<secret>`. `tidemark key create` makes one."},
            },
            "parameters": {"validate": _validate_parameter(), "encoding": _encoding_parameter()},
            "responses": {_name(status): _problem(status) for status in PROBLEMS},
            "schemas": {**{contract.stream: row_schema(contract) for contract in contracts}, **_schemas()},
        },
    }


def example_receipt(stream: str) -> str:
    """A receipt as posts to a stream are given."""
    return stream + RECEIPT[RECEIPT.index(".") :]


def _post(contract: Contract) -> Part:
    return {
        "operationId": f"post_{contract.stream}",
        "tags": ["events"],
        "summary": f"Send events of {contract.stream}",
        "description": contract.description,
        "parameters": [{"$ref": "#/components/parameters/validate"}, {"$ref": "#/components/parameters/encoding"}],
        "requestBody": {"required": True, "content": _bodies(contract)},
        "responses": {
            "202": {
                "description": "Stored: the bytes are on disk, and their rows will be landed within minutes.",
                "headers": {"Location": {"description": "Where the receipt is asked for.", "required": True, "schema": {"type": "string"}}},
                "content": {
                    JSON: {
                        "schema": {"$ref": "#/components/schemas/Accepted"},
                        "example": {"receipt": example_receipt(contract.stream), "rows": 1, "status": f"/v1/receipts/{example_receipt(contract.stream)}"},
                    }
                },
            },
            **_problems(_POST_PROBLEMS),
        },
    }


def _bodies(contract: Contract) -> Part:
    row = {"$ref": f"#/components/schemas/{contract.stream}"}
    lines = {
        "type": "string",
        "pattern": _A_ROW,
        "description": f"One object of {contract.stream} a line; blank lines do not count, and a line that is no object goes to the quarantine.",
    }
    content: Part = {JSON: {"schema": {"anyOf": [row, {"type": "array", "minItems": 1, "items": row}]}}, NDJSON: {"schema": lines}}
    example = example_row(contract)
    if example is not None:
        content[JSON]["examples"] = {"one": {"summary": "An event", "value": example}, "several": {"summary": "Several events", "value": [example]}}
        content[NDJSON]["example"] = json.dumps(example, ensure_ascii=False) + "\n"
    return content


def _receipt() -> Part:
    parameter = {"name": "receipt", "in": "path", "required": True, "schema": {"type": "string", "pattern": _RECEIPT_PATTERN}, "example": RECEIPT}
    return {
        "operationId": "get_receipt",
        "tags": ["receipts"],
        "summary": "Ask what became of a post",
        "description": "How far it has come, what became of its rows, and which of them wait in quarantine and why. Ask again while it says `received`.",
        "parameters": [parameter],
        "responses": {
            "200": {
                "description": "The post is stored.",
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Receipt"}, "example": _RECEIPT_ANSWER}},
            },
            **_problems(_READ_PROBLEMS),
        },
    }


def _operation() -> Part:
    """Paths that need no key."""
    states = {"type": "object", "required": ["zone", "disk", "keys"], "additionalProperties": {"type": "string"}, "description": "`ok`, or what is wrong."}
    ready = {"type": "object", "required": ["status", "checks"], "properties": {"status": {"const": "ready"}, "checks": states}}
    unready = {"allOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "object", "required": ["checks"], "properties": {"checks": states}}]}
    is_ready, is_not = dict.fromkeys(("zone", "disk", "keys"), "ok"), "the disk of the landing zone is nearly full"
    return {
        "/healthz": _open("get_alive", "Is the process alive?", {"200": _text("It is.")}),
        "/readyz": _open(
            "get_ready",
            "Can posts be taken?",
            {
                "200": {"description": "They can.", "content": {JSON: {"schema": ready, "example": {"status": "ready", "checks": is_ready}}}},
                "503": {
                    "description": "Not now: `checks` says why.",
                    "headers": _RETRY,
                    "content": {
                        MEDIA_TYPE: {
                            "schema": unready,
                            "example": _example(
                                HTTPStatus.SERVICE_UNAVAILABLE,
                                {"detail": f"posts cannot be taken now (disk: {is_not})", "checks": is_ready | {"disk": is_not}},
                            ),
                        }
                    },
                },
            },
        ),
        "/metrics": _open("get_metrics", "Figures for monitors, in the text format of Prometheus", {"200": _text("Totals of the gateway, of all tenants.")}),
        "/openapi.json": _open(
            "get_openapi", "This document", {"200": {"description": "OpenAPI 3.1.", "content": {JSON: {"schema": {"type": "object", "required": ["openapi"]}}}}}
        ),
        "/docs": _open("get_docs", "The same for people", {"200": {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}}),
    }


def _open(operation: str, summary: str, responses: Part) -> Part:
    found = {**responses, **_problems((HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HTTPStatus.INTERNAL_SERVER_ERROR))}
    return {"get": {"operationId": operation, "tags": ["operation"], "summary": summary, "security": [], "responses": found}}


def _text(description: str) -> Part:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _validate_parameter() -> Part:
    description = "`strict`: judge the rows now; if one fails, answer 422 with what is wrong and store nothing."
    return {"name": "validate", "in": "query", "required": False, "description": description, "schema": {"type": "string", "enum": ["strict"]}}


def _encoding_parameter() -> Part:
    description = "How the body is compressed."
    schema = {"type": "string", "enum": list(ENCODINGS), "default": ENCODINGS[0]}
    return {"name": "Content-Encoding", "in": "header", "required": False, "description": description, "schema": schema}


def _schemas() -> Part:
    text = {"type": "string"}
    receipt = {"type": "string", "pattern": _RECEIPT_PATTERN, "examples": [RECEIPT]}
    bad_row = {
        "type": "object",
        "description": "A row that breaks the contract.",
        "required": ["row", "errors"],
        "properties": {
            "row": {"type": "integer", "minimum": 1, "description": "Element of the array, or line of NDJSON, from 1."},
            "errors": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["code", "field", "value", "message"],
                    "properties": {
                        "code": {"type": "string", "description": "What is wrong, e.g. `missing_required`; `rule:<name>` for a condition between fields."},
                        "field": {"type": ["string", "null"], "description": "Column, or place in the payload; null for the row as a whole."},
                        "value": {"type": ["string", "null"], "description": "The value, shortened."},
                        "message": {"type": "string", "description": "What was expected."},
                    },
                },
            },
        },
    }
    problem = {
        "type": "object",
        "description": "RFC 9457: what was wrong, where, and what to do.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "const": "about:blank"},
            "title": text,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": text,
            "streams": {"type": "array", "items": text, "description": "404: streams that the key may use."},
            "limit_bytes": {"type": "integer", "description": "413: largest body, as sent or unpacked."},
            "limit_rows": {"type": "integer", "description": "413: most lines or elements of a body, or rows that `validate=strict` judges at once."},
            "rows": {"type": "integer", "description": "422: rows of the body."},
            "refused_rows": {"type": "integer", "description": "422: rows that break the contract."},
            "refused": {"type": "array", "items": {"$ref": "#/components/schemas/BadRow"}, "description": "422: the first of them, and what is wrong."},
            "incident": {"type": "string", "description": "500: what to tell the operator."},
        },
    }
    accepted = {
        "type": "object",
        "required": ["receipt", "rows", "status"],
        "properties": {
            "receipt": receipt,
            "rows": {"type": "integer", "minimum": 1, "description": "Rows of the body."},
            "status": {"type": "string", "description": "Path at which the receipt is asked for."},
        },
    }
    outcome = Receipt.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    return {"Accepted": accepted, "Problem": problem, "BadRow": bad_row, **outcome.pop("$defs"), "Receipt": outcome}


def _problems(statuses: Sequence[HTTPStatus]) -> Part:
    return {str(int(status)): {"$ref": f"#/components/responses/{_name(status)}"} for status in statuses}


def _name(status: HTTPStatus) -> str:
    return f"Problem{int(status)}"


def _problem(status: HTTPStatus) -> Part:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": _example(status, _DETAILS[status])}}
    return {"description": PROBLEMS[status], "content": content, **({"headers": _HEADERS[status]} if status in _HEADERS else {})}


def _example(status: HTTPStatus, members: Part) -> Part:
    return {"type": "about:blank", "title": status.phrase, "status": int(status), **members}
