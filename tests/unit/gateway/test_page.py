"""The page for people: everything of the contracts, nothing from elsewhere, no script."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI

from include.contracts import load_contract, streams
from include.contracts.model import Contract
from include.gateway.openapi import PROBLEMS, Limits, openapi_document
from include.gateway.page import reference_router
from tests.support.stricter import with_field

LIMITS = Limits(8 << 20, 16 << 20)
CONTRACTS = [load_contract(stream) for stream in streams()]


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def get(path: str, contracts: list[Contract] = CONTRACTS) -> httpx.Response:
    app = FastAPI(openapi_url=None)
    app.include_router(reference_router(contracts, LIMITS, "https://gateway.example:8090"))

    async def talk() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.get(path)

    return asyncio.run(talk())


def test_the_page_runs_no_script_and_loads_nothing() -> None:
    answer = get("/docs")
    page = Reader(answer.text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base"})
    places = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"href", "src", "action", "srcset"} and value]
    assert places
    assert all(place.startswith(("#", "/")) and not place.startswith("//") for place in places)
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)
    assert "url(" not in answer.text
    assert "@import" not in answer.text


def test_the_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    answer = get("/docs")
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy.pop("style-src") == f"'sha256-{digest}'"
    assert set(policy.values()) == {"'none'"}
    assert {"default-src", "base-uri", "form-action", "frame-ancestors"} == set(policy)
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_says_everything_of_the_contracts() -> None:
    page = Reader(get("/docs").text)
    anchors = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    assert {attributes["href"] for tag, attributes in page.tags if tag == "a" and (attributes["href"] or "").startswith("#")} == {
        f"#{each}" for each in anchors
    }
    for contract in CONTRACTS:
        assert contract.stream in anchors
        for field in contract.fields:
            assert ".".join(field.path) in page.text
            assert field.description in page.text
        for rule in contract.rules:
            assert f"rule:{rule.name}" in page.text
            assert rule.expression in page.text
    for status in PROBLEMS:
        assert f"{int(status)}" in page.text
    assert "curl https://gateway.example:8090/v1/streams/" in page.text


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "`</code><b onload=x>`", "{{ 7 * 7 }}"])
def test_what_a_contract_says_stays_text(text: str) -> None:
    changed = with_field(replace(load_contract("orders"), description=text), "order_id", description=text)
    page = Reader(get("/docs", [changed]).text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b"})
    assert text in page.text


def test_the_document_is_the_one_of_the_contracts() -> None:
    assert get("/openapi.json").json() == openapi_document(CONTRACTS, LIMITS)
    changed = with_field(load_contract("orders"), "item_count", maximum=7.0)
    assert get("/openapi.json", [changed]).json()["components"]["schemas"]["orders"]["properties"]["quantity"]["maximum"] == 7
    assert "1 to 7 pieces" in Reader(get("/docs", [changed]).text).text
