"""What a training run found: written as JSON, shown as a table, fit for a sceptic."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import TypeAdapter

from include.settings import get_settings
from ml.lifecycle.evaluation import CalibrationBin, Interval, QuantileSlice, SliceResult
from ml.lifecycle.gate import ChampionResult, GateDecision, QuantileChampion
from ml.lifecycle.provenance import DatasetReference
from ml.lifecycle.search import Search

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


@dataclass(frozen=True)
class PartSummary:
    """One part of the split."""

    name: str
    first: date
    last: date
    rows: int
    positives: int
    entities: int  # or blocks of them, such as machines of components
    entities_with_positives: int  # what the figures really rest on: rows of one entity are alike


@dataclass(frozen=True)
class BaselineResult:
    """A naive ranking, judged as the model is."""

    name: str
    description: str
    pr_auc_validation: float
    pr_auc_test: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What every training run tells, whatever it predicts."""

    use_case: str
    question: str
    model_version: int
    snapshot: str
    known_until: datetime
    gap_days: int
    parts: tuple[PartSummary, ...]
    rows_in_gaps: int
    rows_without_complete_outcome: int
    candidate: str
    slices: tuple[Any, ...]
    loses_on: tuple[str, ...]
    baseline_name: str  # the naive answer that was best on the validation part
    difference: Interval  # to it, on the test part; greater than 0 where the model is better
    gate: GateDecision
    libraries: Mapping[str, str]
    seconds: Mapping[str, float]
    dataset: DatasetReference | None = None  # None in reports older than ops.dataset
    rows_of_departed: int = 0  # left out because their entity left before the outcome window was over
    search: Search | None = None  # None in reports older than the search in folds, which chose on the validation part

    def to_json(self) -> str:
        """As written to the reports folder and to MLflow."""
        return TypeAdapter(type(self)).dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return TypeAdapter(cls).validate_json(text)

    def write(self) -> Path:
        """Write the report to <home>/reports/<use case>/v<version>.json, replacing what stands there."""
        folder = get_settings().home / "reports" / self.use_case
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"v{self.model_version}.json"
        scratch = path.with_suffix(".tmp")
        scratch.write_text(self.to_json() + "\n", encoding="utf-8")
        scratch.replace(path)
        return path

    def metrics(self) -> dict[str, float]:
        """Figures for MLflow."""
        figures = {"difference": self.difference.difference, "difference_low": self.difference.low, "difference_high": self.difference.high}
        figures |= {f"{part.name}_{figure}": float(getattr(part, figure)) for part in self.parts for figure in ("rows", "positives")}
        for result in self.slices:
            name = f"slice/{result.dimension}/{_NOT_IN_A_NAME.sub('_', result.value)}"
            values = {key: value for key, value in asdict(result).items() if isinstance(value, int | float) and key != "positives"}
            figures |= {f"{name}/{figure}": float(value) for figure, value in values.items()}
        return figures


@dataclass(frozen=True, kw_only=True)
class TrainingReport(Report):
    """Everything that a reader needs to believe a model of a probability, or not. All figures but those of validation are of the test part."""

    validation_pr_auc: Mapping[str, float]
    pr_auc_model: float
    pr_auc_baseline: float
    prevalence: float  # PR-AUC of a ranking by chance
    baselines: tuple[BaselineResult, ...]
    brier_model: float
    brier_prevalence: float  # of always promising the share that train and validation showed
    calibration: tuple[CalibrationBin, ...]
    slices: tuple[SliceResult, ...]
    champion: ChampionResult | None

    def metrics(self) -> dict[str, float]:
        """Figures for MLflow."""
        return super().metrics() | {
            "pr_auc_model": self.pr_auc_model,
            "pr_auc_baseline": self.pr_auc_baseline,
            "prevalence": self.prevalence,
            "brier_model": self.brier_model,
            "brier_prevalence": self.brier_prevalence,
        }


@dataclass(frozen=True)
class NaiveResult:
    """A naive answer in quantiles, judged as the model is; losses in days."""

    name: str
    description: str
    loss_validation: float
    loss_test: float
    coverage: float
    interval_score: float


@dataclass(frozen=True, kw_only=True)
class QuantileReport(Report):
    """Everything that a reader needs to believe a model of the days until something happens, or not.

    Attributes:
        levels: Quantiles.
        horizon_days: Lives end there: "14 days" is "14 or more".
        validation_loss: Pinball loss by candidate, in days.
        loss_model: Pinball loss on the test part, in days, like all that follows.
        loss_baseline: Of the naive answer that was best on the validation part.
        coverage: Share of outcomes in the interval.
        coverage_low: End of its bootstrap interval, by drawing whole entities,
        coverage_high: and the other.
        nominal: Share that the interval promises.
        coverage_of_events: Share in the interval of the outcomes whose event came within the horizon. Where few come, an interval that never holds one still
            holds most outcomes. None in reports older than this figure.
        coverage_of_events_low: End of its bootstrap interval,
        coverage_of_events_high: and the other.
        width_days: Mean width of the interval.
        widening_days: What conformalising added on either side, where the median lies below the horizon.
        widening_at_ceiling_days: The same where the median is the horizon. None in reports older than the two groups.
        interval_score_model: Width and what was missed, in days.
        interval_score_baseline: Of the naive answer.
        median_error_model: Mean distance of median and outcome, in days.
        median_error_baseline: Of the naive answer.
        censored_rows: Rows whose entity left before its outcome showed; they weigh in those that were seen.
    """

    kind: Literal["quantiles"] = "quantiles"
    levels: tuple[float, ...]
    horizon_days: float
    validation_loss: Mapping[str, float]
    loss_model: float
    loss_baseline: float
    baselines: tuple[NaiveResult, ...]
    coverage: float
    coverage_low: float
    coverage_high: float
    nominal: float
    coverage_of_events: float | None = None
    coverage_of_events_low: float | None = None
    coverage_of_events_high: float | None = None
    width_days: float
    widening_days: float
    widening_at_ceiling_days: float | None = None
    interval_score_model: float
    interval_score_baseline: float
    median_error_model: float
    median_error_baseline: float
    censored_rows: int
    slices: tuple[QuantileSlice, ...]
    champion: QuantileChampion | None

    def metrics(self) -> dict[str, float]:
        """Figures for MLflow."""
        names = ["loss_model", "loss_baseline", "coverage", "width_days", "interval_score_model", "interval_score_baseline"]
        names += ["median_error_model", "median_error_baseline"]
        if self.coverage_of_events is not None:
            names.append("coverage_of_events")
        return super().metrics() | {name: float(getattr(self, name)) for name in names}


def read_report(text: str) -> TrainingReport | QuantileReport:
    """The report of a training run from its JSON, of whichever kind it is."""
    is_of_quantiles = json.loads(text).get("kind") == "quantiles"  # reports older than that kind name none
    return QuantileReport.from_json(text) if is_of_quantiles else TrainingReport.from_json(text)


_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_ :-]")  # of an MLflow metric; a slash would begin a folder


def render(report: TrainingReport | QuantileReport) -> Group:
    """The report as Rich tables for the terminal."""
    return _render_quantiles(report) if isinstance(report, QuantileReport) else _render_ranking(report)


def _parts(report: Report) -> Table:
    from rich.table import Table

    parts = Table("part", "days", "rows", "positives", "entities (with positives)", title=f"{report.use_case} v{report.model_version}: {report.question}")
    for part in report.parts:
        parts.add_row(part.name, f"{part.first} to {part.last}", f"{part.rows:,}", f"{part.positives:,}", f"{part.entities} ({part.entities_with_positives})")
    return parts


def _told(search: Search) -> str:
    found = "; ".join(f"{name}: {score:.3f}" for name, score in search.scores.items())
    return f"Chosen by the mean over {search.folds} folds, each judged by its past: {found}."


def _left_out(report: Report) -> list[str]:
    searched = [] if report.search is None else [_told(report.search)]
    return [
        *searched,
        f"Left out: {report.rows_in_gaps:,} rows in the gaps of {report.gap_days} days, "
        f"{report.rows_without_complete_outcome:,} whose outcome window is not over, {report.rows_of_departed:,} whose entity left before it was over.",
        *_data_set(report.dataset),
        f"Loses on: {', '.join(report.loses_on) or 'no slice with positives'}.",
        f"{'Champion' if report.gate.passed else 'Stays challenger'}: {report.gate.reason}.",
    ]


def _render_ranking(report: TrainingReport) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    figures = Table("ranking", "PR-AUC validation", "PR-AUC test")
    figures.add_row(report.candidate, f"{report.validation_pr_auc[report.candidate]:.3f}", f"{report.pr_auc_model:.3f}", style="bold")
    for baseline in report.baselines:
        chosen = " (the baseline)" if baseline.name == report.baseline_name else ""
        figures.add_row(baseline.name + chosen, f"{baseline.pr_auc_validation:.3f}", f"{baseline.pr_auc_test:.3f}")
    figures.add_row("by chance (prevalence)", "", f"{report.prevalence:.3f}")
    by_slice = Table("slice", "rows", "positives", "PR-AUC model", "PR-AUC baseline")
    for result in report.slices:
        values = ["-" if value is None else f"{value:.3f}" for value in (result.pr_auc_model, result.pr_auc_baseline)]
        by_slice.add_row(f"{result.dimension} = {result.value}", f"{result.rows:,}", f"{result.positives:,}", *values, style="red" if result.is_lost else None)
    difference = report.difference
    lines = [
        f"Model minus baseline: {difference.difference:+.3f}, {difference.confidence:.0%} interval {difference.low:+.3f} to {difference.high:+.3f}"
        f" ({difference.replicates} draws of whole entities, {difference.blocks} entities).",
        f"Brier score {report.brier_model:.4f}; of a constant probability {report.brier_prevalence:.4f}.",
        *_left_out(report),
    ]
    return Group(_parts(report), figures, by_slice, Text("\n".join(lines)))


def _render_quantiles(report: QuantileReport) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    figures = Table("answer", "pinball loss validation (d)", "pinball loss test (d)", f"coverage of {report.nominal:.0%}", "interval score (d)")
    model = (f"{report.loss_model:.3f}", f"{report.coverage:.1%}", f"{report.interval_score_model:.1f}")
    figures.add_row(report.candidate, f"{report.validation_loss[report.candidate]:.3f}", *model, style="bold")
    for naive in report.baselines:
        chosen = " (the baseline)" if naive.name == report.baseline_name else ""
        found = (f"{naive.loss_test:.3f}", f"{naive.coverage:.1%}", f"{naive.interval_score:.1f}")
        figures.add_row(naive.name + chosen, f"{naive.loss_validation:.3f}", *found)
    by_slice = Table("slice", "rows", "loss model (d)", "loss baseline (d)", "coverage")
    for piece in report.slices:
        values = (f"{piece.loss_model:.3f}", f"{piece.loss_baseline:.3f}", f"{piece.coverage:.1%}")
        by_slice.add_row(f"{piece.dimension} = {piece.value}", f"{piece.rows:,}", *values, style="red" if piece.is_lost else None)
    skill = report.difference
    lines = [
        f"Less loss than the baseline: {skill.difference:+.1%}, {skill.confidence:.0%} interval {skill.low:+.1%} to {skill.high:+.1%}"
        f" ({skill.replicates} draws of whole entities, {skill.blocks} entities).",
        f"The interval of {report.nominal:.0%} holds {report.coverage:.1%} of the outcomes ({report.coverage_low:.1%} to {report.coverage_high:.1%}); it is "
        f"{report.width_days:.1f} days wide of {report.horizon_days:g}. {_told_of_events(report)}"
        f"The median is {report.median_error_model:.1f} days off; that of the baseline {report.median_error_baseline:.1f}.",
        f"{report.censored_rows:,} rows are of entities that left before their outcome showed: they weigh in those that were seen.",
        *_left_out(report),
    ]
    return Group(_parts(report), figures, by_slice, Text("\n".join(lines)))


def _told_of_events(report: QuantileReport) -> str:
    share, low, high = report.coverage_of_events, report.coverage_of_events_low, report.coverage_of_events_high
    if share is None or low is None or high is None:
        return ""
    return f"Of the events within {report.horizon_days:g} days it holds {share:.1%} ({low:.1%} to {high:.1%}). "


def _data_set(reference: DatasetReference | None) -> list[str]:
    if reference is None:
        return []
    horizon = ", ".join(f"{stream} {batch}" for stream, batch in reference.horizon.items())
    return [
        f"Data set {reference.dataset_id}: {reference.rows:,} rows, made of {reference.files:,} files up to batch {horizon};"
        f" `tidemark files dataset {reference.dataset_id}` says where they lie."
    ]
