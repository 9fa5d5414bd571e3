"""Exactly once, under fire: loader, dbt and PostgreSQL are killed at work, and nothing is lost, doubled, blamed or different. See docs/proofs.md."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.support.chaos import plan, storm
from tests.support.chaos.proof import Outcome, Proof, prove, write_report
from tests.support.own_server import own_server

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("chaos")]

# Read when this file is: other fixtures clear what begins with TIDEMARK_.
SEED = os.environ.get("TIDEMARK_CHAOS_SEED")


def run(proof: Proof) -> Outcome:
    with own_server() as home:
        return prove(proof, home)


def assert_passed(outcome: Outcome, proof: Proof, replay: str) -> None:
    lines = "\n".join(outcome.wrong)
    assert not outcome.wrong, f"seed {proof.seed} found something; replay it with `TIDEMARK_CHAOS_SEED={proof.seed} {replay}`:\n{lines}"
    assert outcome.report["kills"] == {
        "loader": proof.count.loader,
        "dbt": proof.count.dbt,
        "postgres": proof.count.postgres + proof.count.postmaster + proof.count.backend,
    }


def test_twenty_kills_lose_and_double_nothing() -> None:
    proof = Proof(int(SEED or 1), storm.SHORT, plan.SHORT)
    assert_passed(run(proof), proof, f"python -m pytest {__file__}")


@pytest.mark.prove
def test_hundreds_of_kills_lose_and_double_nothing() -> None:
    proof = Proof(int(SEED) if SEED else secrets.randbelow(1_000_000), storm.LONG, plan.LONG)
    print(f"seed {proof.seed}")  # noqa: T201
    outcome = run(proof)
    write_report(outcome.report)
    assert_passed(outcome, proof, "make prove")
    assert outcome.report["events"] >= 50_000
    assert min(outcome.report["kills"].values()) >= 60
