"""Writes the outcome of a benchmark into docs/benchmarks.md: `python -m tests.bench.page build/bench/landing.json`.

The page keeps its words; only what stands between `<!-- figures of NAME -->` and `<!-- end of figures of NAME -->` is replaced, by what the JSON file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from include.settings import REPOSITORY
from tests.bench.report import console

PAGE = REPOSITORY / "docs" / "benchmarks.md"


def markers(name: str) -> tuple[str, str]:
    """What the figures of a benchmark stand between."""
    return f"<!-- figures of {name} -->", f"<!-- end of figures of {name} -->"


def with_outcome(page: str, outcome: Mapping[str, Any]) -> str:
    """The page with the figures of a benchmark replaced.

    Raises:
        ValueError: If the page has no place for them.
    """
    start, end = markers(outcome["benchmark"])
    if page.count(start) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must hold {start} and {end} once each")
    before, rest = page.split(start)
    return f"{before}{start}\n{markdown(outcome)}{end}{rest.split(end)[1]}"


def markdown(outcome: Mapping[str, Any]) -> str:
    """Machine, figures and targets as Markdown."""
    machine, server = outcome["machine"], outcome["server"]
    settings = ", ".join(f"`{name}={value}`" for name, value in server["settings"].items())
    options = " ".join(f"{name}={value}" for name, value in outcome["options"].items())
    lines = [
        f"Measured {outcome['measured_at'][:10]} on {machine['cores']} cores of {machine['cpu_model']}, {machine['memory_gib']} GiB, "
        f"{machine['operating_system']}, load {machine['load_average_1_min']} at the end.",
        f"{server['version'].split(' on ')[0]} with {settings}. Options: {options}.",
        "",
        "| line | what | median s | events/s | slowest − fastest | rounds |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for figure in outcome["figures"]:
        what = f"{figure['what']} ({figure['note']})" if figure["note"] else figure["what"]
        lines.append(
            f"| `{figure['name']}` | {what} | {figure['median_s']:.2f} | {figure['events_per_s']:,} | {figure['spread']:.0%} | {len(figure['seconds'])} |"
        )
    lines += ["", "| target | bound | measured | by round | |", "|---|--:|--:|---|---|"]
    for target in outcome["targets"]:
        bounds = [f"{sign} {target[name]:g}" for sign, name in (("≥", "at_least"), ("≤", "at_most")) if target[name] is not None]
        measured = "–" if target["measured"] is None else f"{target['measured']:.2f}"
        state = "met" if target["is_met"] else "not measured" if target["measured"] is None else "missed"
        lines.append(f"| {target['what']} | {' and '.join(bounds)} | {measured} | {', '.join(f'{each:.2f}' for each in target['by_round'])} | {state} |")
    lines += ["", f"All targets met: {'yes' if outcome['targets_met'] else 'no'}."]
    if outcome["benchmark"] == "windows":
        lines += ["", *_plans(outcome["plans"])]
    return "\n".join(lines) + "\n"


def _plans(by_figure: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What one batch reads, model by model: pages beside each other, scans of the last figure."""
    last = by_figure[list(by_figure)[-1]]
    lines = [
        f"| model | touched buckets | rows | {' | '.join(f'pages, {name}' for name in by_figure)} | select, ms | delete, ms | what the select reads |",
        f"|---|--:|--:|{'--:|' * len(by_figure)}--:|--:|---|",
    ]
    for model, plan in sorted(last.items(), key=lambda item: -item[1]["select ms"] - item[1]["delete ms"]):
        pages = " | ".join(f"{plans[model]['pages']:,}" for plans in by_figure.values())
        scans = "; ".join(dict.fromkeys(plan["select"]))
        lines.append(f"| `{model}` | {plan['buckets']:,} | {plan['rows']:,} | {pages} | {plan['select ms']:,} | {plan['delete ms']:,} | {scans} |")
    return lines


def main(outcome: Annotated[Path, typer.Argument(help="The JSON file of a run.")]) -> None:
    """Writes the outcome of a run into docs/benchmarks.md."""
    PAGE.write_text(with_outcome(PAGE.read_text(encoding="utf-8"), json.loads(outcome.read_text(encoding="utf-8"))), encoding="utf-8")
    console.print(str(PAGE))


if __name__ == "__main__":
    typer.run(main)
