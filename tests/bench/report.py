"""What every benchmark of the house shares: figures with their spread, targets, the machine, a table and a JSON file.

A benchmark measures its contestants in interleaved rounds (`interleaved`), keeps the seconds of each as a `Figure`, states its `Target`s and hands all of it
to a `Report`, which prints a table and writes `<name>.json`. `targets_met` is true only where every target was measured and met.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, width=None if os.isatty(1) else 150)


@dataclass(frozen=True)
class Figure:
    """What one contestant took.

    Attributes:
        name: Short name, unique within the benchmark.
        what: What was done, for a reader.
        events: Events handled in each measurement.
        seconds: Duration of each measurement, in the order of the rounds.
        note: What a reader must know to compare it, for example that a part was scaled.
    """

    name: str
    what: str
    events: int
    seconds: tuple[float, ...]
    note: str = ""

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) <= 0:
            raise ValueError(f"{self.name}: every figure needs at least one measurement that took time, got {self.seconds}")

    @property
    def median_s(self) -> float:
        """Median duration, seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Events a second at the median duration."""
        return self.events / self.median_s

    @property
    def spread(self) -> float:
        """How far the slowest lies above the fastest measurement, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median_s

    def as_dict(self) -> dict[str, Any]:
        """The figure as it stands in the JSON file."""
        return {
            "name": self.name,
            "what": self.what,
            "events": self.events,
            "seconds": [round(value, 4) for value in self.seconds],
            "median_s": round(self.median_s, 4),
            "events_per_s": round(self.rate),
            "spread": round(self.spread, 4),
            "note": self.note,
        }


@dataclass(frozen=True)
class Target:
    """What was promised, and what came out.

    Attributes:
        name: Short name, unique within the benchmark.
        what: The promise in words, with its unit.
        measured: What came out; None where it was not measured in this run.
        at_least: Lowest value that keeps the promise.
        at_most: Highest value that keeps the promise.
        by_round: The same value computed from each round alone, to show its spread.
    """

    name: str
    what: str
    measured: float | None
    at_least: float | None = None
    at_most: float | None = None
    by_round: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"target {self.name} has no bound, so it could not be missed")

    @property
    def is_met(self) -> bool:
        """Whether it was measured and lies within its bounds."""
        if self.measured is None:
            return False
        return (self.at_least is None or self.measured >= self.at_least) and (self.at_most is None or self.measured <= self.at_most)

    @property
    def bound(self) -> str:
        """The bounds in words."""
        parts = [f"{sign} {value:g}" for sign, value in (("≥", self.at_least), ("≤", self.at_most)) if value is not None]
        return " and ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The target as it stands in the JSON file."""
        return {
            "name": self.name,
            "what": self.what,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "measured": None if self.measured is None else round(self.measured, 4),
            "by_round": [round(value, 4) for value in self.by_round],
            "is_met": self.is_met,
        }


def ratio_target(name: str, what: str, fast: Figure | None, slow: Figure | None, *, at_least: float) -> Target:
    """A target on how many times the rate of `slow` the rate of `fast` must reach; not measured where either figure is missing."""
    if fast is None or slow is None:
        return Target(name, what, None, at_least=at_least)
    share = fast.events / slow.events
    rounds = tuple(share * theirs / ours for ours, theirs in zip(fast.seconds, slow.seconds, strict=True))
    return Target(name, what, fast.rate / slow.rate, at_least=at_least, by_round=rounds)


@dataclass
class Report:
    """A benchmark's outcome.

    Attributes:
        name: Name of the benchmark; `make bench-<name>` runs it.
        options: How it was called.
        facts: What it ran on besides the machine: server, data, versions.
        figures: What was measured.
        targets: What was promised. A benchmark without targets cannot meet them.
    """

    name: str
    options: Mapping[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    @property
    def targets_met(self) -> bool:
        """Whether there are targets, and every one was measured and met."""
        return bool(self.targets) and all(target.is_met for target in self.targets)

    def figure(self, name: str) -> Figure | None:
        """A figure by name, None where it was not measured."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """The whole report as JSON knows it."""
        return {
            "benchmark": self.name,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": dict(self.options),
            "machine": machine_facts(),
            **self.facts,
            "figures": [figure.as_dict() for figure in self.figures],
            "targets": [target.as_dict() for target in self.targets],
            "targets_met": self.targets_met,
        }

    def write(self, path: Path) -> None:
        """Writes the JSON file; an unfinished one never stands under its name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(self.as_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        scratch.replace(path)

    def finish(self, path: Path) -> None:
        """Shows the figures and targets, writes the JSON file and says where it is."""
        self.show()
        self.write(path)
        console.print(f"[dim]{path}[/dim]", soft_wrap=True)

    def show_facts(self) -> None:
        """Prints what is known before the first measurement: machine, server, data."""
        grid = Table(title=f"bench-{self.name}", title_justify="left", title_style="bold", show_header=False)
        for title, facts in {"options": self.options, "machine": machine_facts(), **self.facts}.items():
            for name, value in facts.items():
                shown = (
                    ", ".join(f"{key}={each}" for key, each in value.items()) if isinstance(value, Mapping) else f"{value:,}" if type(value) is int else value
                )
                grid.add_row(title, name, str(shown))
        console.print(grid)

    def show(self) -> None:
        """Prints figures and targets."""
        grid = Table(title=f"bench-{self.name}", title_justify="left", title_style="bold")
        for column, justify in (("", "left"), ("what", "left"), ("median s", "right"), ("events/s", "right"), ("spread", "right"), ("runs", "right")):
            grid.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for figure in self.figures:
            what = f"{figure.what} [dim]({figure.note})[/dim]" if figure.note else figure.what
            grid.add_row(figure.name, what, f"{figure.median_s:.2f}", f"{figure.rate:,.0f}", f"{figure.spread:.0%}", str(len(figure.seconds)))
        console.print(grid)
        promised = Table(title="Targets", title_justify="left", title_style="bold")
        for column, justify in (("target", "left"), ("bound", "right"), ("measured", "right"), ("", "left")):
            promised.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for target in self.targets:
            outcome = "[green]met[/green]" if target.is_met else "[red]missed[/red]" if target.measured is not None else "[yellow]not measured[/yellow]"
            promised.add_row(target.what, target.bound, "–" if target.measured is None else f"{target.measured:.2f}", outcome)
        console.print(promised)
        console.print(f"targets met: {'[green]yes[/green]' if self.targets_met else '[red]no[/red]'}")


def interleaved(contestants: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Every contestant once a round; each round begins with another one, so that nobody always runs behind the same neighbour.

    Yields:
        Round from 0, and the contestant.
    """
    for number in range(rounds):
        start = number % len(contestants)
        for contestant in (*contestants[start:], *contestants[:start]):
            yield number, contestant


def machine_facts() -> dict[str, Any]:
    """What the figures were measured on; nothing that names the machine or its user."""
    return {
        "cpu_model": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "operating_system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average_1_min": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
