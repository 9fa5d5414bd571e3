"""Who may become champion: a challenger that beats the naive baseline and the champion, each by a margin and on the same rows."""

from __future__ import annotations

from dataclasses import dataclass

from ml.lifecycle.evaluation import Interval


@dataclass(frozen=True)
class ChampionResult:
    """The champion on the rows that judge the challenger, as far as the champion has not learned from them."""

    version: int
    rows: int
    positives: int
    pr_auc: float
    challenger_pr_auc: float  # on the same rows
    difference: Interval | None = None  # challenger minus champion; None in reports older than the comparison by interval

    @property
    def told(self) -> str:
        """Both figures in words."""
        return f"{self.challenger_pr_auc:.3f} against {self.pr_auc:.3f} on {self.rows} rows"


@dataclass(frozen=True)
class QuantileChampion:
    """The champion of a question for quantiles on the rows that judge the challenger, as far as the champion has not learned from them; losses in days."""

    version: int
    rows: int
    loss: float
    coverage: float
    challenger_loss: float  # on the same rows
    difference: Interval  # share of the champion's loss that the challenger saves

    @property
    def told(self) -> str:
        """Both figures in words."""
        return f"{self.challenger_loss:.3f} days of loss against {self.loss:.3f} on {self.rows} rows"


@dataclass(frozen=True)
class GateDecision:
    """Whether the challenger becomes champion, and why in a sentence."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class Gate:
    """Bounds a challenger must keep, against the naive baseline and against the champion alike.

    Attributes:
        margin: By how much its PR-AUC must be greater, or which share of the loss it must save where it answers in quantiles. Model versions that come out of
            the daily training differ a little by chance alone, and a change of champion that brings nothing costs trust.
        sureness: In which share of the bootstrap replicates it must be greater by the margin: the margin lies below the one-sided interval of that confidence.
        undercoverage: How much less than it promises an interval may hold on the test part. An interval that holds more is not refused: its width costs loss.
    """

    margin: float = 0.01
    sureness: float = 0.90
    undercoverage: float = 0.05

    def __post_init__(self) -> None:
        if self.margin < 0 or not 0.5 <= self.sureness < 1:
            raise ValueError(f"a gate has a margin of at least 0 and a sureness of 0.5 to 1, got {self}")

    def decide(
        self,
        against_baseline: Interval,
        baseline: str,
        against_champion: ChampionResult | QuantileChampion | None,
        *,
        no_champion: str = "",
        undecided: str = "",
    ) -> GateDecision:
        """Judge a challenger.

        Args:
            against_baseline: Challenger minus naive baseline, judged by the gate's margin.
            baseline: Name of the baseline.
            against_champion: None where there is nothing to compare.
            no_champion: Why no champion has to be beaten: there is none, or it can score no more.
            undecided: Why a champion that goes on scoring cannot be compared; then the challenger does not take its place.
        """
        is_better, compared = self._compare(against_baseline)
        if not is_better:
            return GateDecision(False, f"not better than the baseline '{baseline}': {compared}")
        beats = f"better than the baseline '{baseline}' ({compared})"
        if against_champion is None or against_champion.difference is None:
            if undecided:
                return GateDecision(False, f"{beats}, but {undecided}")
            return GateDecision(True, f"{beats}; {no_champion or 'there is no champion yet'}")
        is_better, compared = self._compare(against_champion.difference)
        champion = f"the champion version {against_champion.version} ({against_champion.told}, {compared})"
        return GateDecision(is_better, f"{beats} and than {champion}" if is_better else f"{beats}, but not better than {champion}")

    def decide_coverage(self, coverage: float, nominal: float) -> GateDecision:
        """Judge whether an interval keeps its promise; both are shares of outcomes."""
        found = f"the interval of {nominal:.0%} holds {coverage:.1%} of the outcomes"
        if coverage < nominal - self.undercoverage:
            return GateDecision(False, f"{found}, at least {nominal - self.undercoverage:.0%} needed")
        return GateDecision(True, found)

    def _compare(self, difference: Interval) -> tuple[bool, str]:
        if difference.margin != self.margin or difference.share_above_margin is None:
            raise ValueError(f"the difference was drawn for a margin of {difference.margin:g}, the gate asks for {self.margin:g}")
        share = difference.share_above_margin
        more = f"by more than {self.margin:g} " if self.margin else ""
        compared = f"better {more}in {share:.0%} of bootstrap replicates, {self.sureness:.0%} needed"
        return difference.difference > self.margin and share >= self.sureness, compared
