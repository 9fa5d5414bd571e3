"""Writes docs/evaluation.md: lands public and simulated data into a server of its own, fits the models and judges them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from include.settings import REPOSITORY, get_settings
from ml.lifecycle.registry import library_versions
from tests.bench.report import console
from tests.bench.server import BenchServer, bench_server, scratch_folder
from tests.evaluate import azure, simulator

REPORT = REPOSITORY / "docs" / "evaluation.md"
PARTS = ("azure", "simulator")
HEADER = """# Evaluation

Written by `make evaluate`; do not edit. Every figure is of days that no model had seen: parts are cut by time, with the horizon left out between them.
Intervals are 95 %, by drawing whole machines with replacement ({replicates} times), because days of one machine are alike.

*Alert budget:* one alert a machine and 30 days. An alert of a day silences the machine for the horizon. Each ranking gets the highest threshold that
spends the budget on the days that are judged, the same rule for models and rules; equal scores are put in a drawn order. *Recall*: share of failures that an
alert came before, within the horizon. *Precision*: share of alerts that a failure followed within the horizon. *Lead time*: from the end of the day whose
features raised the alert to the failure, median. Two components that fail at once are one failure of the machine.

Libraries: {libraries}.
"""


def _use(server: BenchServer, database: str, zone: Path) -> None:
    """Points the settings of this process to a fresh database and zone."""
    server.fresh(database)
    zone.mkdir(parents=True)
    os.environ.update(server.environment(database, zone))
    get_settings.cache_clear()


def main(
    only: Annotated[str, typer.Option(help=f"Parts, with commas: {', '.join(PARTS)}. A part alone writes a report of that part.")] = ",".join(PARTS),
    output: Annotated[Path, typer.Option(help="The report.")] = REPORT,
    work: Annotated[Path, typer.Option(help="Folder for the server and the zone; removed at the end.")] = REPOSITORY / "build" / "evaluate",
    days: Annotated[int, typer.Option(min=60, help="Length of the simulated history.")] = 180,
    machines: Annotated[int, typer.Option(min=4, help="Machines of the simulated plant.")] = 60,
) -> None:
    """Evaluates the use cases on public and simulated data.

    Example: python -m tests.evaluate --only azure --output /tmp/evaluation.md
    """
    from tests.evaluate.question import REPLICATES

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the server goes too
    parts = only.split(",")
    if unknown := sorted({*parts} - {*PARTS}):
        raise typer.BadParameter(f"there is no part {', '.join(unknown)}; parts are {', '.join(PARTS)}")
    public = get_settings().public_data
    if "azure" in parts and not (public / "maintenance").is_dir():
        console.print(
            f"[red]✗[/red] {public}/maintenance is absent: set TIDEMARK_PUBLIC_DATA to the folder of public data sets, or leave azure out with --only"
        )
        raise typer.Exit(1)

    def step(title: str) -> None:
        console.print(f"• {title}")

    libraries = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    lines = [*HEADER.format(replicates=REPLICATES, libraries=libraries).splitlines(), ""]
    with scratch_folder(work), bench_server(work / "home") as server:
        for part in parts:
            _use(server, f"evaluate_{part}", work / part / "zone")
            if part == "azure":
                lines += azure.evaluate(public, step)
            else:
                lines += simulator.evaluate(work / part / "truth", step, days=days, machines=machines)
    output.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")
    console.print(f"written: {output}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
