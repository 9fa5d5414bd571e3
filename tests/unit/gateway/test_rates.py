"""How often a key may post."""

from __future__ import annotations

import pytest

from include.gateway.model import Caller
from include.gateway.problems import Problem
from include.gateway.rates import Rates, rate_text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def caller(rate: str | None, key_id: str = "a") -> Caller:
    return Caller(key_id, "default", None, rate)


def refused(rates: Rates, who: Caller) -> int:
    """Seconds after which the post would be taken; 0 where it was."""
    problem = None
    try:
        rates.count(who)
    except Problem as raised:
        problem = raised
    if problem is None:
        return 0
    assert problem.status == 429
    assert str(who.rate) in problem.detail
    return int(problem.headers["Retry-After"])


def test_a_post_that_waited_as_long_as_it_was_told_is_taken() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert [refused(rates, caller("3/5second")) for _ in range(3)] == [0, 0, 0]
    clock.now += 1.25
    wait = refused(rates, caller("3/5second"))
    assert wait == 4
    clock.now += wait - 1
    assert refused(rates, caller("3/5second")) == 1
    clock.now += 1
    assert [refused(rates, caller("3/5second")) for _ in range(4)] == [0, 0, 0, 5]


def test_of_several_limits_the_longest_wait_counts_and_a_refused_post_uses_up_none() -> None:
    clock = Clock()
    rates, who = Rates(clock), caller("2/second;4/minute")
    assert [refused(rates, who) for _ in range(3)] == [0, 0, 1]
    for _ in range(50):  # what is refused by the second must not use up the minute
        assert refused(rates, who) == 1
    clock.now += 1
    assert [refused(rates, who) for _ in range(2)] == [0, 0]
    clock.now += 1
    wait = refused(rates, who)
    assert wait == 58
    clock.now += wait
    assert [refused(rates, who) for _ in range(3)] == [0, 0, 1]
    both = caller("1/minute;1/second", "b")  # in whichever order they are written
    assert [refused(rates, both) for _ in range(2)] == [0, 60]


def test_keys_do_not_share_a_rate_and_a_key_without_one_has_no_bound() -> None:
    rates = Rates(Clock())
    assert refused(rates, caller("1/hour")) == 0
    assert refused(rates, caller("1/hour")) == 3600
    assert refused(rates, caller("1/hour", "b")) == 0
    assert [refused(rates, caller(None, "c")) for _ in range(1000)] == [0] * 1000


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("50/second", "50/second"),
        ("50/second;1000/minute", "50/second;1000/minute"),
        (" 10 per 5 minutes , 20/hour", "10/5minute;20/hour"),
        ("7 per 1 day", "7/day"),
    ],
)
def test_a_rate_is_kept_in_one_form(written: str, kept: str) -> None:
    assert rate_text(written) == kept
    assert rate_text(kept) == kept


@pytest.mark.parametrize(
    "rate", ["", "many", "50", "50/fortnight", "50/second and then some", "-1/second", "0/second", "1/second;0/minute", ";".join(["1/day"] * 5)]
)
def test_what_is_no_rate_is_refused_by_name(rate: str) -> None:
    with pytest.raises(ValueError, match=r"rate|lets nothing through"):
        rate_text(rate)
