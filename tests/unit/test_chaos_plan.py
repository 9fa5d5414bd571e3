"""The plan of the chaos: the same for the same seed, complete, and without a kill that could never happen."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.chaos.plan import LONG, POSTGRES, SHORT, Count, Model, Part, Victim, make_plan
from tests.support.chaos.storm import SHORT as SMALL
from tests.support.chaos.storm import storm
from tests.support.chaos.truth import expected

MODELS = [Model("dim", 0, True), Model("fct", 1, True), Model("other", 1, True), Model("rpt", 2, False)]


@pytest.mark.parametrize("count", [SHORT, LONG])
@pytest.mark.parametrize("seed", range(40))
def test_every_kill_is_planned_and_can_happen(seed: int, count: Count) -> None:
    plan = make_plan(seed, count, MODELS)
    assert plan == make_plan(seed, count, MODELS)
    kills = [*plan[Victim.LOADER], *plan[Victim.DBT]]
    assert Counter(kill.victim for kill in kills if not kill.is_around) == {
        Victim.LOADER: count.loader,
        Victim.DBT: count.dbt,
        Victim.POSTGRES: count.postgres,
        Victim.POSTMASTER: count.postmaster,
        Victim.BACKEND: count.backend,
    }
    assert len(kills) == count.total
    steps = [(kill, *kill.step.split(":")) for kill in plan[Victim.DBT]]
    creations = [model for _, model, part in steps if part == Part.CREATE]
    assert [part for _, _, part in steps[: len(creations)]] == [Part.CREATE] * len(creations), "a table is made once, so that comes first"
    assert [{model.name: model.task for model in MODELS}[name] for name in creations] == list(range(len(creations)))
    hopeless = {("rpt", Part.COLLECT), ("rpt", Part.CREATE)}
    assert not [kill for kill, model, part in steps if (model, part) in hopeless or (kill.victim in POSTGRES and (model, part) == ("rpt", Part.COMPUTE))]


def test_the_storm_is_the_same_for_a_seed_and_another_for_the_next() -> None:
    assert storm(5, SMALL) == storm(5, SMALL)
    assert storm(5, SMALL) != storm(6, SMALL)


def test_the_storm_holds_everything_that_can_go_wrong() -> None:
    deliveries = storm(1, SMALL)
    truth = expected(deliveries)
    rows = [row for delivery in deliveries for row in delivery.rows]
    assert {delivery.tenant for delivery in deliveries} == {"default", "acme"}
    assert sum(delivery.is_touch for delivery in deliveries) > 0
    assert sum(delivery.replaces is not None and not delivery.is_touch for delivery in deliveries) > 0
    assert sum(not delivery.rows and not delivery.is_touch for delivery in deliveries) >= 6
    assert [delivery.arrived_at for delivery in deliveries] != sorted(delivery.arrived_at for delivery in deliveries)
    for stream, found in truth.items():
        assert found.events, stream
        assert found.quarantined, stream
        assert found.landed > len(found.events) + found.quarantined.total(), f"{stream} has no row twice"
    assert sum(found.landed for found in truth.values()) == len(rows) + sum(not delivery.rows and not delivery.is_touch for delivery in deliveries)
