"""What benchmarks share: medians, targets that were not measured, the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.page import PAGE, markdown, markers, with_outcome
from tests.bench.report import Figure, Report, Target, interleaved, ratio_target

FAST = Figure("fast", "loads quickly", 1000, (1.0, 2.0, 1.5))
SLOW = Figure("slow", "loads slowly", 100, (1.0, 0.5, 0.3))


def report(*targets: Target) -> Report:
    return Report("example", {"repeats": 3}, figures=[FAST, SLOW], targets=list(targets))


def test_a_figure_is_the_median_with_its_spread() -> None:
    assert (FAST.median_s, round(FAST.rate), round(FAST.spread, 3)) == (1.5, 667, 0.667)


@pytest.mark.parametrize("seconds", [(), (1.0, 0.0)])
def test_a_figure_that_took_no_time_is_refused(seconds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="needs at least one measurement"):
        Figure("odd", "", 1, seconds)


def test_a_ratio_compares_rates_even_where_one_loads_a_tenth() -> None:
    target = ratio_target("ratio", "fast ÷ slow", FAST, SLOW, at_least=3)
    assert target.measured == pytest.approx((1000 / 1.5) / (100 / 0.5))
    assert target.by_round == pytest.approx((10.0, 2.5, 2.0))
    assert target.is_met


@pytest.mark.parametrize(("fast", "slow"), [(None, SLOW), (FAST, None), (None, None)])
def test_a_ratio_with_a_figure_missing_is_not_measured_and_not_met(fast: Figure | None, slow: Figure | None) -> None:
    target = ratio_target("ratio", "fast ÷ slow", fast, slow, at_least=0)
    assert target.measured is None
    assert not target.is_met


def test_targets_are_met_only_if_all_were_measured_and_met() -> None:
    met, missed = Target("a", "", 1.0, at_least=1.0), Target("b", "", 0.99, at_least=1.0)
    unmeasured, late = Target("c", "", None, at_most=1.0), Target("d", "", 1.01, at_most=1.0)
    assert report(met).targets_met
    for other in (missed, unmeasured, late):
        assert not report(met, other).targets_met
    assert not report().targets_met


def test_a_target_without_a_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="could not be missed"):
        Target("free", "", 1.0)


def test_every_round_holds_everyone_once_and_begins_with_another() -> None:
    assert list(interleaved(["a", "b", "c"], 2)) == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a")]


def test_the_file_holds_every_figure_its_target_and_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "example.json"
    report(ratio_target("ratio", "fast ÷ slow", FAST, SLOW, at_least=4)).write(path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [figure["events_per_s"] for figure in written["figures"]] == [667, 200]
    assert written["figures"][0]["seconds"] == [1.0, 2.0, 1.5]
    assert (written["targets"][0]["measured"], written["targets"][0]["at_least"], written["targets"][0]["is_met"]) == (3.3333, 4, False)
    assert written["targets_met"] is False
    assert {"cpu_model", "cores", "memory_gib"} <= written["machine"].keys()
    assert [path.name for path in path.parent.iterdir()] == ["example.json"]


def test_the_page_takes_figures_from_the_file_and_keeps_its_words() -> None:
    made = report(ratio_target("ratio", "fast ÷ slow", FAST, SLOW, at_least=4), Target("c", "something else", None, at_most=1.0))
    made.name, made.facts = "landing", {"server": {"version": "PostgreSQL 18.4 on x86_64", "settings": {"fsync": "on"}}}
    outcome = made.as_dict()
    page = with_outcome(PAGE.read_text(encoding="utf-8"), outcome)
    assert "| `fast` | loads quickly | 1.50 | 667 | 67% | 3 |" in page
    assert "| fast ÷ slow | ≥ 4 | 3.33 | 10.00, 2.50, 2.00 | missed |" in page
    assert "| something else | ≤ 1 | – |  | not measured |" in page
    assert "All targets met: no." in page
    assert "PostgreSQL 18.4 with `fsync=on`" in page
    start, end = markers("landing")
    assert page.split(start)[0] == PAGE.read_text(encoding="utf-8").split(start)[0]
    assert with_outcome(page, outcome) == page
    assert with_outcome(f"{start}\nold\n{end}\n", outcome) == f"{start}\n{markdown(outcome)}{end}\n"


def test_a_page_without_a_place_for_the_figures_is_refused() -> None:
    with pytest.raises(ValueError, match="figures of example"):
        with_outcome("# Benchmarks", {"benchmark": "example"})
