"""What is acknowledged is never lost: the gateway is killed under load, PostgreSQL while it lands, and every event is counted once. See docs/proofs.md."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import sql

from include.gateway.keys.administration import create
from include.landing import land_everything
from include.landing.posts import read_frames
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
        keys = {tenant: create(tenant=tenant)[1] for tenant in TENANTS}
        port = lasting_port()
        office = PostOffice(home, port, keys, seed, gateway_kills, record)
        landing = Landing("tidemark", seed, postgres_kills, record)
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
        wrong = faults(office.letters, stored_events(), outcomes)
        wrong += books(home / "zone", Counter(frames), office.letters)
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
        "scratch_files_left": sum(path.name.startswith(".") for path in (home / "zone").rglob("*")),
        "refused": dict(record.refused),
        "log": record.log,
        "duration_s": round(time.monotonic() - began, 1),
    }
