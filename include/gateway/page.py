"""The gateway's interface for people, at `/docs`: rendered once from the contracts, without a script and without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import Response

from include.contracts.json_schema import example_row, rules
from include.contracts.model import Contract, Field, LogicalType
from include.gateway.bodies import MAX_ROWS
from include.gateway.openapi import PROBLEMS, Limits, example_receipt, openapi_document

_FOLDER = Path(__file__).parent
_CODE = re.compile(r"`([^`]+)`")


def reference_router(contracts: Sequence[Contract], limits: Limits, address: str) -> APIRouter:
    """Routes `/docs` and `/openapi.json`, made here once: what a process takes does not change.

    Args:
        contracts: The streams that are taken.
        limits: Largest bodies.
        address: Where senders reach the gateway, for the examples, e.g. `http://127.0.0.1:8090`.
    """
    document = json.dumps(openapi_document(contracts, limits), ensure_ascii=False).encode()
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    page = render_page(contracts, limits, address, style).encode()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # The style of the page and nothing else: no script, no font, no picture, no frame around it.
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    router = APIRouter()

    @router.get("/docs")
    async def docs() -> Response:
        return Response(page, media_type="text/html", headers=headers)

    @router.get("/openapi.json")
    async def openapi() -> Response:
        return Response(document, media_type="application/json")

    return router


def render_page(contracts: Sequence[Contract], limits: Limits, address: str, style: str) -> str:
    """The page as HTML; arguments as for `reference_router`, and its style sheet."""
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    environment.filters["code"] = _with_code
    streams = [_stream(contract) for contract in contracts]
    first = min(streams, key=lambda stream: len(stream["compact"]) or math.inf)
    return environment.get_template("page.html").render(
        style=Markup(style),  # noqa: S704 - a file of ours
        address=address,
        limits=limits,
        most_rows=MAX_ROWS,
        streams=streams,
        first=first,
        receipt=example_receipt(first["name"]),
        problems=list(PROBLEMS.items()),
    )


def _stream(contract: Contract) -> dict[str, Any]:
    example = example_row(contract)
    minutes = contract.future_tolerance // timedelta(minutes=1)
    event_time = ".".join(contract.field(contract.event_time).path)
    return {
        "name": contract.stream,
        "version": contract.version,
        "description": contract.description,
        "example": json.dumps(example, indent=2, ensure_ascii=False) if example is not None else "",
        "compact": shlex.quote(json.dumps(example, ensure_ascii=False)) if example is not None else "",
        "majors": [{"version": major.version, "fields": [_field(field) for field in major.fields]} for major in contract.majors],
        "when": f"`{event_time}` lies not before {contract.earliest:%Y-%m-%d} and at most {minutes} minutes after the arrival.",
        "rules": rules(contract),
    }


def _field(field: Field) -> dict[str, Any]:
    return {
        "path": ".".join(field.path),
        "is_required": field.required,
        "type": field.logical_type,
        "allowed": allowed(field),
        "description": field.description,
    }


def allowed(field: Field) -> str:
    """What a field may hold, in words; code in backticks."""
    parts = [", ".join(f"`{value}`" for value in field.enum)] if field.enum is not None else []
    parts += {LogicalType.TIMESTAMP: ["ISO 8601 with `Z` or an offset"], LogicalType.DATE: ["`YYYY-MM-DD`"]}.get(field.logical_type, [])
    unit = f" {field.unit}" if field.unit else ""
    if field.minimum is not None and field.maximum is not None:
        parts.append(f"{field.minimum:,.10g} to {field.maximum:,.10g}{unit}")
    elif field.minimum is not None:
        parts.append(f"at least {field.minimum:,.10g}{unit}")
    elif field.maximum is not None:
        parts.append(f"at most {field.maximum:,.10g}{unit}")
    elif unit:
        parts.append(f"in{unit}")
    if field.max_length is not None:
        parts.append(f"at most {field.max_length} characters")
    if field.pattern is not None:
        parts.append(f"`{field.pattern}`")
    return ", ".join(parts)


def _with_code(text: str) -> Markup:
    """Escaped text, with what stands in backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before
