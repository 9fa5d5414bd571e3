"""What is acknowledged is never lost: the gateway is killed under load, PostgreSQL while it lands, and every event is counted once. See docs/proofs.md."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import sql

from include.gateway.keys.administration import create
from include.landing import land_everything
from include.settings import REPOSITORY
from include.warehouse import Role, connect
from tests.support.chaos.letters import KEYS, TENANTS, Letter, faults
from tests.support.chaos.post_office import Landing, PostOffice, Record
from tests.support.gateway import Gateway, running_gateway
from tests.support.landing import assert_balanced
from tests.support.own_server import lasting_port, own_server

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("chaos")]

# Read when this file is: other fixtures clear what begins with TIDEMARK_.
SEED = os.environ.get("TIDEMARK_CHAOS_SEED")


def run(seed: int, *, gateway_kills: int, postgres_kills: int) -> dict[str, Any]:
    """The whole proof. Returns its report."""
    began, record = time.monotonic(), Record()
    with own_server() as home:
        keys = {tenant: create(tenant, by="proof")[1] for tenant in TENANTS}
        port = lasting_port()
        landing = Landing("tidemark", seed, postgres_kills, record)
        office = PostOffice(home, port, keys, seed, gateway_kills, landing, record)
        landing.start()
        try:
            asyncio.run(office.run())
        finally:
            landing.finish()
        for stream in KEYS:
            land_everything(stream)
        with running_gateway(home, port=port, key=keys["default"], gateway_free_bytes=0) as gateway:
            outcomes = ask_for_receipts(gateway, keys, office.letters)
            frames = [post.receipt for post, _ in gateway.posts()]
        wrong = faults(office.letters, stored_events(), outcomes) + book_faults(home / "zone", Counter(frames), office.letters)
        scratch = [path for path in (home / "zone").rglob(".*") if path.is_file()]
        assert_balanced()
    acknowledged = [letter for letter in office.letters if letter.receipts]
    unanswered = sum(letter.unanswered for letter in office.letters)
    return {
        "seed": seed,
        "wrong": wrong,
        "gateway_kills": len(record.gateway_kills),
        "gateway_kills_that_hit_nothing": record.missed,
        "posts_lost_by_kills": sum(record.gateway_kills),
        "postgres_kills": dict(record.postgres_kills),
        "letters": len(office.letters),
        "letters_acknowledged": len(acknowledged),
        "events_acknowledged": sum(len(letter.events) for letter in acknowledged),
        "posts_without_answer": unanswered,
        "posts_stored_without_answer": len(frames) - len(acknowledged),
        "scratch_files_left": len(scratch),
        "refused": dict(record.refused),
        "log": record.log,
        "duration_s": round(time.monotonic() - began, 1),
    }


def ask_for_receipts(gateway: Gateway, keys: dict[str, str], letters: list[Letter]) -> dict[str, dict[str, Any]]:
    """What the gateway says about every acknowledged letter, asked with the key of its tenant."""
    found = {}
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        for letter in letters:
            for receipt in letter.receipts:
                answer = client.get(f"/v1/receipts/{receipt}", headers={"Authorization": f"Bearer {keys[letter.tenant]}"})
                found[receipt] = answer.json() if answer.status_code == 200 else {"status": answer.text, "rows": None}
    return found


def stored_events() -> dict[str, Counter[tuple[str, str]]]:
    """How often raw holds each event, by stream."""
    with connect(Role.OWNER) as connection:
        return {
            stream: Counter(connection.execute(sql.SQL("select tenant_id, {} from {}").format(sql.Identifier(key), sql.Identifier("raw", stream))).fetchall())
            for stream, key in KEYS.items()
        }


def book_faults(zone: Path, frames: Counter[str], letters: list[Letter]) -> list[str]:
    """What zone and ledger have against the letters, one line each."""
    with connect(Role.OWNER) as connection:
        ledger = connection.execute("select address, state, attempts, landed, accepted, quarantined, duplicate, corrected from ops.file").fetchall()
    stored = {path.relative_to(zone).as_posix() for path in zone.rglob("*.posts") if not path.name.startswith(".")}
    lines = []
    if {row[0] for row in ledger} != stored:
        lines.append(f"the ledger has {len(ledger)} files and the zone {len(stored)}, e.g. {sorted({row[0] for row in ledger} ^ stored)[0]}")
    wrong = [row for row in ledger if row[1] != "landed" or row[2] or row[3] != sum(row[4:])]
    if wrong:
        lines.append(f"{len(wrong)} files are not landed, were blamed or do not add up, e.g. {wrong[0]}")
    if max(frames.values(), default=0) > 1:
        lines.append(f"{frames.most_common(1)[0][0]} is in the zone twice")
    acknowledged = {receipt for letter in letters for receipt in letter.receipts}
    if missing := acknowledged - frames.keys():
        lines.append(f"{len(missing)} acknowledged posts are not in the zone, e.g. {min(missing)}")
    if (surplus := len(frames) - len(acknowledged)) > (unanswered := sum(letter.unanswered for letter in letters)):
        lines.append(f"{surplus} posts are in the zone without an acknowledgement, and only {unanswered} were not answered")
    return lines


def assert_passed(report: dict[str, Any], *, gateway_kills: int, postgres_kills: int) -> None:
    assert not report["wrong"], f"seed {report['seed']} found something; replay it with TIDEMARK_CHAOS_SEED={report['seed']}:\n" + "\n".join(report["wrong"])
    assert report["gateway_kills"] == gateway_kills
    assert sum(report["postgres_kills"].values()) == postgres_kills
    assert report["posts_lost_by_kills"] >= gateway_kills


def test_five_kills_lose_nothing_that_was_acknowledged() -> None:
    report = run(int(SEED or 1), gateway_kills=5, postgres_kills=2)
    assert_passed(report, gateway_kills=5, postgres_kills=2)
    assert report["letters_acknowledged"] > 50


@pytest.mark.prove
def test_forty_kills_lose_nothing_that_was_acknowledged() -> None:
    seed = int(SEED) if SEED else secrets.randbelow(1_000_000)
    print(f"seed {seed}")  # noqa: T201
    report = run(seed, gateway_kills=60, postgres_kills=20)
    path = REPOSITORY / "build" / "prove" / "gateway.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    assert_passed(report, gateway_kills=60, postgres_kills=20)
    assert report["letters_acknowledged"] > 1_000
    assert report["posts_stored_without_answer"] > 0, "no kill fell between the disk and the answer"
    assert report["posts_stored_without_answer"] < report["posts_lost_by_kills"], "no kill fell before the disk"
