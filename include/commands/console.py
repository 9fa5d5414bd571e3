"""How commands talk: steps with their time, tables, JSON, and one line for an error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)  # a log file is wider than a terminal that is not there
errors = Console(stderr=True, highlight=False)

STATE_STYLES = {True: "[green]●[/green]", False: "[red]●[/red]"}


class Steps:
    """Prints each step with the seconds it took, and remembers them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        """Shows a spinner while the step runs and its time when it is done."""
        started = time.monotonic()
        try:
            with console.status(f"{title} …"):
                yield
        except BaseException:
            console.print(f"[red]✗[/red] {title}")
            raise
        self.done(title, time.monotonic() - started)

    def done(self, title: str, seconds: float) -> None:
        """Prints a step that is over."""
        self.seconds[title] = round(seconds, 1)
        console.print(f"[green]✓[/green] {title:<58} [dim]{seconds:6.1f} s[/dim]")


def progress_bars() -> Progress:
    """Bars with counts that vanish when they are done; the step's line stays."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # a log file gets the line of each step
    )


def plain(value: Any) -> Any:  # noqa: ANN401  anything that a table or a row may hold
    """A value as JSON knows it."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("utf-8", errors="replace")
    if hasattr(value, "value"):
        return value.value
    return str(value)


def print_json(document: Any) -> None:  # noqa: ANN401  anything that JSON can hold
    """Writes one JSON document to standard output, for scripts."""
    print(json.dumps(document, default=plain, ensure_ascii=False, indent=2))  # noqa: T201  not for people


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, unbroken: str | None = None) -> None:
    """Prints a table; numbers stand right. Where it is too wide, every column but `unbroken` is folded."""
    grid = Table(title=title or None, title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[position], (int, float, Decimal)) and not isinstance(row[position], bool) for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=column == unbroken)
    for row in rows:
        grid.add_row(*[_cell(value) for value in row])
    console.print(grid)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (float, Decimal)):
        return f"{float(value):,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(plain(value)) if not isinstance(value, str) else value


def duration(seconds: float | None) -> str:
    """Seconds for humans: 45 s, 12 min, 3.5 h, 2.1 d."""
    if seconds is None:
        return "–"
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if abs(seconds) < limit:
            return f"{seconds / divisor:.0f} {unit}" if divisor < 3600 else f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"
