"""What is recorded about an event is a function of its copies: any order of loading, cut anywhere into batches, ends with the same corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.contracts import load_contract
from include.contracts.model import Contract, OnConflict
from include.landing.history import PAST, Correction, corrections, is_disputed, merge, past_statements
from include.landing.winner import STORED, Copy, precedence, settle

KEEP_FIRST = replace(load_contract("device_telemetry"), version_field=None, on_conflict=OnConflict.KEEP_FIRST)
KEEP_LATEST = replace(KEEP_FIRST, on_conflict=OnConflict.KEEP_LATEST)
VERSIONED = replace(KEEP_FIRST, version_field="updated_at", on_conflict=None)
RULES = pytest.mark.parametrize("contract", [KEEP_FIRST, KEEP_LATEST, VERSIONED], ids=["keep_first", "keep_latest", "versioned"])


def a_copy(content: str, issued: int, *, version: int | None = None, number: int = 1) -> Copy:
    return Copy(0, content.encode(), version, issued, b"f", number, issued, file_id=number)


def load(batches: Sequence[Sequence[Copy]], contract: Contract) -> tuple[Copy, list[Correction]]:
    """Loads batch after batch as landing does it: what is stored is the winner, and what is recorded are rows of the table."""
    stored: Copy | None = None
    recorded: list[Correction] = []
    for batch in batches:
        outcome = settle(batch, stored, contract)
        winner = outcome.winner
        if is_disputed(batch, stored, contract):
            statements = merge(past_statements(recorded, stored, contract), batch, contract)
            recorded = [replace(each, old=_written(each.old), new=_written(each.new)) for each in corrections(statements, contract)]
            assert statements[-1].content == winner.content
            assert statements[-1].place == winner.place
            winner = replace(winner, known_us=statements[-1].known_us)
        stored = replace(winner, row=STORED)
    assert stored is not None
    return stored, recorded


def _written(copy: Copy) -> Copy:
    return replace(copy, row=PAST)


def told(recorded: Sequence[Correction]) -> list[tuple[str, str, int, int | None, int, bool]]:
    return [(c.old.content.decode(), c.new.content.decode(), c.old.known_us, c.known_to_us, c.new.known_us, c.is_applied) for c in recorded]


@RULES
@given(data=st.data())
def test_distinct_statements_leave_the_same_record_in_any_order(contract: Contract, data: st.DataObject):
    """Every copy says something else, or repeats word for word what a neighbour in time said."""
    contents = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    copies, at = [], 0
    for version, content in enumerate(contents):
        for _ in range(data.draw(st.integers(1, 2))):
            at += 1
            copies.append(a_copy(content, at, version=version, number=at))
    in_order = load([[copy] for copy in copies], contract)
    batches: list[list[Copy]] = [[]]
    for copy in data.draw(st.permutations(copies)):
        if batches[-1] and data.draw(st.booleans()):
            batches.append([])
        batches[-1].append(copy)
    stored, recorded = load(batches, contract)
    assert (stored.content, stored.place, stored.known_us) == (in_order[0].content, in_order[0].place, in_order[0].known_us)
    assert told(recorded) == told(in_order[1])
    assert len(recorded) == len(contents) - 1


copies = st.lists(
    st.builds(a_copy, st.sampled_from("abc"), st.integers(0, 5), version=st.none() | st.integers(0, 2), number=st.integers(1, 9)),
    min_size=1,
    max_size=6,
    unique_by=lambda copy: (copy.issued_us, copy.row_number),
)


@pytest.mark.parametrize("contract", [KEEP_FIRST, VERSIONED], ids=["keep_first", "versioned"])
@given(data=st.data())
def test_any_copies_leave_the_same_record_where_a_content_is_one_statement(contract: Contract, data: st.DataObject):
    some = data.draw(copies)
    # A version is part of the content, as in every contract that has one.
    some = [replace(copy, content=copy.content + str(copy.version).encode()) for copy in some] if contract is VERSIONED else some
    whole = load([some], contract)
    stored, recorded = load([[copy] for copy in data.draw(st.permutations(some))], contract)
    assert (stored.content, stored.place, stored.known_us) == (whole[0].content, whole[0].place, whole[0].known_us)
    assert told(recorded) == told(whole[1])
    assert len(recorded) == len({copy.content for copy in some}) - 1


def test_two_copies_in_either_order_are_one_row():
    for order in permutations([a_copy("a", 1, version=1), a_copy("b", 5, version=2, number=2)]):
        for contract, row in ((KEEP_LATEST, ("a", "b", 1, 5, 5, True)), (VERSIONED, ("a", "b", 1, 5, 5, True)), (KEEP_FIRST, ("a", "b", 1, None, 5, False))):
            assert told(load([[copy] for copy in order], contract)[1]) == [row]
            assert told(load([order], contract)[1]) == [row]


def test_a_version_that_was_never_the_best_known_has_an_empty_span():
    """Version 1 is known at 1, version 3 at 3, version 2 only at 5: it stands between them and was never believed."""
    some = [a_copy("a", 1, version=1), a_copy("c", 3, version=3, number=2), a_copy("b", 5, version=2, number=3)]
    for order in permutations(some):
        assert told(load([[copy] for copy in order], VERSIONED)[1]) == [("a", "b", 1, 3, 5, True), ("b", "c", 5, 3, 3, True)]


def test_copies_of_one_version_that_differ_stand_beside_the_first():
    some = [a_copy("a", 1, version=1), a_copy("b", 2, version=1, number=2), a_copy("c", 3, version=2, number=3)]
    for order in permutations(some):
        assert told(load([[copy] for copy in order], VERSIONED)[1]) == [("a", "b", 1, 3, 2, False), ("a", "c", 1, 3, 3, True)]


def test_a_source_that_returns_to_what_it_said_makes_three_statements_in_any_order():
    """A, B, A with keep_latest: A held until B came, B until A came back."""
    some = [a_copy("a", 1), a_copy("b", 3, number=2), a_copy("a", 5, number=3)]
    for order in permutations(some):
        stored, recorded = load([[copy] for copy in order], KEEP_LATEST)
        assert (stored.content, stored.known_us) == (b"a", 5)
        assert told(recorded) == [("a", "b", 1, 3, 3, True), ("b", "a", 3, 5, 5, True)]


@given(data=st.data())
def test_statements_made_at_most_twice_leave_the_same_record_in_any_order(data: st.DataObject):
    """keep_latest: the two copies of a content stand anywhere, also one of each between the two of another."""
    contents = data.draw(st.permutations("aabbcc"))[: data.draw(st.integers(1, 6))]
    some = [a_copy(content, at, number=at) for at, content in enumerate(contents, start=1)]
    in_order = load([[copy] for copy in some], KEEP_LATEST)
    stored, recorded = load([[copy] for copy in data.draw(st.permutations(some))], KEEP_LATEST)
    assert (stored.content, stored.place, stored.known_us) == (in_order[0].content, in_order[0].place, in_order[0].known_us)
    assert told(recorded) == told(in_order[1])


def test_two_statements_made_in_turn_make_four_in_any_order():
    """A, B, A, B: the second A lands last, when both copies of B have been counted as one."""
    some = [a_copy("a", 1), a_copy("b", 2, number=2), a_copy("a", 3, number=3), a_copy("b", 4, number=4)]
    for order in permutations(some):
        stored, recorded = load([[copy] for copy in order], KEEP_LATEST)
        assert (stored.content, stored.known_us) == (b"b", 4)
        assert [step[:4] for step in told(recorded)] == [("a", "b", 1, 2), ("b", "a", 2, 3), ("a", "b", 3, 4)]


def test_of_a_statement_made_three_times_around_another_the_return_is_dated_by_its_last_copy():
    """The documented limit: a run that was counted before something came in between keeps its first and its last copy only."""
    some = [a_copy("a", 1), a_copy("b", 3, number=2), a_copy("a", 5, number=3), a_copy("a", 7, number=4)]
    assert told(load([[copy] for copy in some], KEEP_LATEST)[1]) == [("a", "b", 1, 3, 3, True), ("b", "a", 3, 5, 5, True)]
    late = [some[0], some[2], some[3], some[1]]
    assert told(load([[copy] for copy in late], KEEP_LATEST)[1]) == [("a", "b", 1, 3, 3, True), ("b", "a", 3, 7, 7, True)]


@given(some=copies, data=st.data())
def test_keep_latest_ends_with_the_statement_that_counts(some: list[Copy], data: st.DataObject):
    stored, recorded = load([[copy] for copy in data.draw(st.permutations(some))], KEEP_LATEST)
    best = max(some, key=lambda copy: precedence(copy, KEEP_LATEST))
    assert (stored.content, stored.place) == (best.content, best.place)
    steps = told(recorded)
    assert all(earlier[1] == later[0] for earlier, later in pairwise(steps))
    assert all(old != new for old, new, *_ in steps)
    assert not steps or steps[-1][1] == best.content.decode()


def test_nothing_is_recorded_for_what_agrees_or_is_quarantined():
    one, same = a_copy("a", 1), a_copy("a", 5, number=2)
    assert not is_disputed([same], one, KEEP_FIRST)
    assert not is_disputed([one, same], None, KEEP_FIRST)
    assert is_disputed([one], same, KEEP_FIRST)  # known earlier than what is stored
    assert not is_disputed([a_copy("b", 3)], one, replace(KEEP_FIRST, on_conflict=OnConflict.QUARANTINE))


@given(data=st.data())
def test_knowledge_is_the_earliest_of_equal_copies_whatever_their_place(data: st.DataObject):
    """Imported history is known by its event time, rows of a replay since the replay: neither follows the arrival."""
    some = [replace(copy, known_us=data.draw(st.integers(0, 9))) for copy in data.draw(copies)]
    stored, recorded = load([[copy] for copy in data.draw(st.permutations(some))], KEEP_FIRST)
    known = {content: min(copy.known_us for copy in some if copy.content == content) for content in {copy.content for copy in some}}
    assert stored.known_us == known[stored.content]
    assert all(each.old.known_us == known[stored.content] and each.new.known_us == known[each.new.content] for each in recorded)
