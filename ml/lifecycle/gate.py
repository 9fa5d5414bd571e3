"""Who may become champion: a challenger that beats the naive baseline and is no worse than the champion, on the same rows."""

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


@dataclass(frozen=True)
class GateDecision:
    """Whether the challenger becomes champion, and why in a sentence."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class Gate:
    """Bounds a challenger must keep."""

    sureness: float = 0.90  # share of bootstrap replicates in which it must beat the baseline
    tolerance: float = 0.0  # how far its PR-AUC may lie below the champion's

    def decide(
        self, against_baseline: Interval, baseline: str, champion: ChampionResult | None, no_champion_because: str = "there is no champion yet"
    ) -> GateDecision:
        """Judge a challenger.

        Args:
            against_baseline: Challenger minus naive baseline.
            baseline: Name of the baseline.
            champion: None where there is none to compare with.
            no_champion_because: Why there is none.
        """
        share = f"{against_baseline.share_above_zero:.0%} of bootstrap replicates"
        if against_baseline.difference <= 0 or against_baseline.share_above_zero < self.sureness:
            return GateDecision(False, f"not better than the baseline '{baseline}': better in {share}, {self.sureness:.0%} needed")
        beats = f"better than the baseline '{baseline}' in {share}"
        if champion is None:
            return GateDecision(True, f"{beats}; {no_champion_because}")
        compared = f"version {champion.version} ({champion.challenger_pr_auc:.3f} against {champion.pr_auc:.3f} on {champion.rows} rows)"
        if champion.challenger_pr_auc < champion.pr_auc - self.tolerance:
            return GateDecision(False, f"{beats}, but worse than the champion {compared}")
        return GateDecision(True, f"{beats} and no worse than the champion {compared}")
