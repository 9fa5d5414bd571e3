"""The winner among copies is a function of the copies: any order of loading, cut anywhere into batches, ends with the same one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.contracts import load_contract
from include.contracts.model import Contract, OnConflict
from include.landing.winner import STORED, Copy, Refused, Verdict, settle

KEEP_FIRST = replace(load_contract("device_telemetry"), version_field=None, on_conflict=OnConflict.KEEP_FIRST)
KEEP_LATEST = replace(KEEP_FIRST, on_conflict=OnConflict.KEEP_LATEST)
STRICT = replace(KEEP_FIRST, on_conflict=OnConflict.QUARANTINE)
VERSIONED = replace(KEEP_FIRST, version_field="updated_at", on_conflict=None)


def a_copy(content: str, arrived: int, *, version: int | None = None, file: bytes = b"f", number: int = 1, row: int = 0) -> Copy:
    return Copy(row, content.encode(), version, arrived, file, number, arrived)


copies = st.lists(
    st.builds(
        a_copy,
        st.sampled_from("abc"),
        st.integers(0, 3),
        version=st.none() | st.integers(0, 2),
        file=st.sampled_from([b"f", b"g"]),
        number=st.integers(1, 3),
    ),
    min_size=1,
    max_size=7,
    unique_by=lambda copy: (copy.file_hash, copy.row_number),
)


@pytest.mark.parametrize("contract", [KEEP_FIRST, KEEP_LATEST, VERSIONED], ids=["keep_first", "keep_latest", "versioned"])
@given(data=st.data())
def test_the_winner_does_not_depend_on_the_order_of_loading(contract: Contract, data: st.DataObject):
    some = data.draw(copies)
    expected = settle(some, None, contract).winner
    stored = None
    for copy in data.draw(st.permutations(some)):
        stored = replace(settle([copy], stored, contract).winner, row=STORED)
    assert stored is not None
    assert (stored.content, stored.file_hash, stored.row_number, stored.arrived_us) == (
        expected.content,
        expected.file_hash,
        expected.row_number,
        expected.arrived_us,
    )


@pytest.mark.parametrize("contract", [KEEP_FIRST, KEEP_LATEST, VERSIONED], ids=["keep_first", "keep_latest", "versioned"])
@given(some=copies, cut=st.integers(0, 7))
def test_counts_do_not_depend_on_where_batches_are_cut(contract: Contract, some: list[Copy], cut: int):
    whole = settle(some, None, contract).verdicts
    first, second = some[:cut], some[cut:]
    stored = None
    verdicts: list[Verdict] = []
    for part in (first, second):
        if part:
            outcome = settle(part, stored, contract)
            stored, verdicts = replace(outcome.winner, row=STORED), verdicts + list(outcome.verdicts)
    assert tuple(verdicts) == whole


def test_a_greater_version_wins_however_early_it_arrived():
    outcome = settle([a_copy("old", 9, version=1)], a_copy("new", 1, version=2, row=STORED), VERSIONED)
    assert outcome.winner.content == b"new"
    assert outcome.verdicts == (Verdict.CORRECTED,)


def test_an_equal_copy_that_arrived_earlier_takes_over_the_envelope():
    outcome = settle([a_copy("same", 1)], a_copy("same", 5, file=b"g", row=STORED), KEEP_FIRST)
    assert (outcome.winner.row, outcome.winner.arrived_us, outcome.verdicts) == (0, 1, (Verdict.DUPLICATE,))


def test_an_equal_later_copy_leaves_the_time_of_knowledge():
    outcome = settle([a_copy("same", 5)], a_copy("same", 1, file=b"g", row=STORED), KEEP_LATEST)
    assert (outcome.winner.arrived_us, outcome.winner.known_us, outcome.verdicts) == (5, 1, (Verdict.DUPLICATE,))


def test_the_same_bytes_under_another_address_are_duplicates_also_where_the_arrival_is_the_same():
    """A file that was copied with its name or its time of modification stands at the place of the first."""
    first, second = a_copy("same", 1), a_copy("same", 1, row=1)
    assert settle([first, second], None, STRICT).verdicts == (Verdict.ACCEPTED, Verdict.DUPLICATE)
    assert settle([first], replace(second, row=STORED), STRICT).verdicts == (Verdict.DUPLICATE,)
    other, again = a_copy("other", 2), a_copy("other", 2, row=1)
    assert settle([other, again], replace(first, row=STORED), STRICT).verdicts == (Verdict.QUARANTINED, Verdict.DUPLICATE)
    refused = Refused(7, other, is_untouched=True)
    outcome = settle([again], replace(first, row=STORED), STRICT, [refused])
    assert (outcome.verdicts, outcome.released) == ((Verdict.DUPLICATE,), ())


def test_no_copies_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        settle([], None, KEEP_FIRST)
