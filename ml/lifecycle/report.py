"""What a training run found: written as JSON, shown as a table, fit for a sceptic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from include.settings import get_settings
from ml.lifecycle.evaluation import CalibrationBin, Interval, SliceResult
from ml.lifecycle.gate import ChampionResult, GateDecision
from ml.lifecycle.provenance import DatasetReference

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class PartSummary:
    """One part of the split."""

    name: str
    first: date
    last: date
    rows: int
    positives: int
    entities: int
    entities_with_positives: int  # what the figures really rest on: rows of one entity are alike


@dataclass(frozen=True)
class BaselineResult:
    """A naive ranking, judged as the model is."""

    name: str
    description: str
    pr_auc_validation: float
    pr_auc_test: float


@dataclass(frozen=True)
class TrainingReport:
    """Everything that a reader needs to believe a model or not."""

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
    validation_pr_auc: Mapping[str, float]
    pr_auc_model: float  # on the test part, like all that follows
    baseline_name: str  # the naive ranking that was best on the validation part
    pr_auc_baseline: float
    prevalence: float  # PR-AUC of a ranking by chance
    difference: Interval
    baselines: tuple[BaselineResult, ...]
    brier_model: float
    brier_prevalence: float  # of always promising the share that train and validation showed
    calibration: tuple[CalibrationBin, ...]
    slices: tuple[SliceResult, ...]
    loses_on: tuple[str, ...]  # where the naive baseline, or a constant probability, is better
    champion: ChampionResult | None
    gate: GateDecision
    libraries: Mapping[str, str]
    seconds: Mapping[str, float]
    dataset: DatasetReference | None = None  # None in reports older than ops.dataset

    def to_json(self) -> str:
        """As written to the reports folder and to MLflow."""
        return _ADAPTER.dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str) -> TrainingReport:
        """Read what `to_json` wrote."""
        return _ADAPTER.validate_json(text)

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
        figures = {
            "pr_auc_model": self.pr_auc_model,
            "pr_auc_baseline": self.pr_auc_baseline,
            "prevalence": self.prevalence,
            "difference": self.difference.difference,
            "difference_low": self.difference.low,
            "difference_high": self.difference.high,
            "brier_model": self.brier_model,
            "brier_prevalence": self.brier_prevalence,
        }
        figures |= {f"{part.name}_{figure}": float(getattr(part, figure)) for part in self.parts for figure in ("rows", "positives")}
        return figures


_ADAPTER: TypeAdapter[TrainingReport] = TypeAdapter(TrainingReport)


def render(report: TrainingReport) -> Group:
    """The report as Rich tables for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts = Table("part", "days", "rows", "positives", "entities (with positives)", title=f"{report.use_case} v{report.model_version}: {report.question}")
    for part in report.parts:
        parts.add_row(part.name, f"{part.first} to {part.last}", f"{part.rows:,}", f"{part.positives:,}", f"{part.entities} ({part.entities_with_positives})")
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
        f"Left out: {report.rows_in_gaps:,} rows in the gaps of {report.gap_days} days, "
        f"{report.rows_without_complete_outcome:,} whose outcome window is not over.",
        *_data_set(report.dataset),
        f"Loses on: {', '.join(report.loses_on) or 'no slice with positives'}.",
        f"{'Champion' if report.gate.passed else 'Stays challenger'}: {report.gate.reason}.",
    ]
    return Group(parts, figures, by_slice, Text("\n".join(lines)))


def _data_set(reference: DatasetReference | None) -> list[str]:
    if reference is None:
        return []
    horizon = ", ".join(f"{stream} {batch}" for stream, batch in reference.horizon.items())
    return [
        f"Data set {reference.dataset_id}: {reference.rows:,} rows, made of {reference.files:,} files up to batch {horizon};"
        f" `tidemark files dataset {reference.dataset_id}` says where they lie."
    ]
