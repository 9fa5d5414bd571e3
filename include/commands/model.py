"""`tidemark model`: which versions there are, who was champion when and why, and changing it."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.commands.console import console, print_json, table
from include.commands.stack import Json

if TYPE_CHECKING:
    from ml.lifecycle.use_case import UseCase

app = typer.Typer(no_args_is_help=True, help="Models: their versions, who was champion from when to when and why, and changing it.")

Name = Annotated[str, typer.Argument(metavar="USE_CASE", help="Such as device_failure.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="USE_CASE…", help="All if not given.")]
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="As `tidemark model list` shows it.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides, for the history; the login name if not given.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who ask later.")]


@app.command()
def train(name: Name) -> None:
    """Train on everything the warehouse knows, judge, and make the model champion where the gate lets it. The DAGs look daily whether there is a reason to.

    Example: tidemark model train turbofan_life
    """
    from ml.lifecycle import use_case as lifecycle
    from ml.lifecycle.monitoring import train_if_due
    from ml.lifecycle.report import render

    use_case = _use_case(name)
    with console.status("training …"):
        report, _ = train_if_due(use_case, lambda because: lifecycle.train(use_case, because), by_hand=True)
    assert report is not None
    console.print(render(report))


@app.command()
def score(name: Name) -> None:
    """Score with the champion and write the predictions back; nothing is written where nothing changed.

    Example: tidemark model score turbofan_life
    """
    from ml.lifecycle import use_case as lifecycle

    use_case = _use_case(name)
    with console.status("scoring …"):
        written = lifecycle.score(use_case)
    console.print(f"{written:,} predictions written to {use_case.target.relation}")


@app.command()
def plan() -> None:
    """Rank machines and propose work orders by what the champions say now, as DAG build_priorities does after scoring and build_hourly every hour.

    Example: tidemark model plan
    """
    from include.transform import build, deploy, fix_horizon
    from ml.decisions import work_orders

    deploy()
    with console.status("ranking and proposing …"):
        build("tag:priorities", fix_horizon())
        proposed = work_orders.propose()
        build("rpt_maintenance_schedule rpt_maintenance_cost", fix_horizon())
    counts = ", ".join(f"{count} {state.value}" for state, count in proposed.by_state.items() if count) or "none"
    console.print(f"work orders: {counts}; {proposed.changed} written or removed")
    if proposed.without_costs:
        console.print(f"[yellow]look:[/yellow] device types without costs get no proposals: {', '.join(proposed.without_costs)}")


@app.command("list")
def list_versions(names: Names = None, as_json: Json = False) -> None:
    """Show every version, newest first: its figures, what the gate said, and whether its file is the registered one.

    Example: tidemark model list device_failure
    """
    from ml.lifecycle import promotion

    lines = [line for name in _names(names) for line in promotion.list_versions(name)]
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    rows = [
        (
            *(line.use_case, line.version, line.state, line.measure, line.figure, line.figure_of_baseline, line.learned_until),
            *("yes" if line.is_usable else "[red]gone or changed[/red]", escape(line.gate_reason)),
        )
        for line in lines
    ]
    table("", ("use case", "version", "state", "measure", "model", "baseline", "learned until", "usable", "gate"), rows)


@app.command()
def history(names: Names = None, as_json: Json = False) -> None:
    """Show who was champion from when to when (UTC), decided by whom and why, newest first.

    Example: tidemark model history device_failure
    """
    from ml.lifecycle import promotion

    reigns = [reign for name in _names(names) for reign in promotion.list_reigns(name)]
    if as_json:
        print_json([asdict(reign) for reign in reigns])
        return
    rows = [
        (
            *(reign.use_case, reign.model_version, reign.champion_from, reign.champion_until or "now"),
            *("rollback" if reign.is_rollback else "promotion", escape(reign.decided_by), escape(reign.reason)),
        )
        for reign in reigns
    ]
    table("", ("use case", "version", "from", "until", "by a", "decided by", "reason"), rows)


@app.command()
def compare(
    name: Name,
    version: Version,
    other: Annotated[int | None, typer.Argument(metavar="OTHER", min=1, help="The champion if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Judge two versions on the newest days whose outcomes neither has learned from, with the bootstrap interval of their difference.

    Examples: tidemark model compare device_failure 2; tidemark model compare device_failure 3 2
    """
    from ml.lifecycle import promotion

    use_case = _use_case(name)
    with console.status("judging …"):
        found = promotion.compare(use_case, version, other)
    if as_json:
        print_json(asdict(found))
        return
    title = f"{found.first_date} to {found.last_date}: {found.rows:,} rows of {found.entities} entities, {found.positives:,} positive"
    difference = found.difference
    if isinstance(found, promotion.QuantileComparison):
        quantiles = [(f"version {judged.version}", judged.loss, judged.coverage, judged.width, judged.median_error) for judged in (found.first, found.second)]
        table(title, ("", "pinball loss (d)", f"coverage of {found.nominal:.0%}", "width (d)", "error of the median (d)"), quantiles)
        told = f"Version {found.first.version} saves {difference.difference:+.1%} of the loss of version {found.second.version}"
        limits = f"{difference.low:+.1%} to {difference.high:+.1%}"
    else:
        rows: list[tuple[object, ...]] = [(f"version {judged.version}", judged.pr_auc, judged.brier) for judged in (found.first, found.second)]
        table(title, ("", "PR-AUC", "Brier score"), [*rows, ("by chance", found.prevalence, None)])
        told = f"Version {found.first.version} minus version {found.second.version}: {difference.difference:+.3f}"
        limits = f"{difference.low:+.3f} to {difference.high:+.3f}"
    console.print(f"{told}, {difference.confidence:.0%} interval {limits} ({difference.replicates} draws of whole entities)", soft_wrap=True)


@app.command()
def monitor(
    names: Names = None,
    look_now: Annotated[bool, typer.Option("--now", help="Look at the champions first, as the DAG monitor_models does daily.")] = False,
    days: Annotated[int, typer.Option("--days", min=1, help="How many days to show, the newest ones.")] = 14,
    as_json: Json = False,
) -> None:
    """Show what monitoring found about the champions, day by day: drift, performance by outcomes, whether a training was asked for, and why.

    Examples: tidemark model monitor; tidemark model monitor device_failure --now --json
    """
    from include.warehouse import Role, connect
    from ml.lifecycle import monitoring

    chosen = [_use_case(name) for name in _names(names)]
    if not as_json:
        for use_case in chosen:
            if not monitoring.has_calendar(use_case):
                console.print(f"{use_case.name} is not monitored: {monitoring.NO_CALENDAR}", soft_wrap=True)
    if look_now:
        with console.status("looking …"):
            unwatched = [use_case.name for use_case in chosen if monitoring.has_calendar(use_case) and monitoring.monitor(use_case) is None]
        if unwatched and not as_json:
            console.print(f"no champion yet, nothing to watch: {', '.join(unwatched)}")
    with connect(Role.ML) as connection:
        lines = [line for use_case in chosen for line in monitoring.lines(connection, use_case.name, limit=days)]
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    rows = [
        (
            *(line.use_case, line.as_of_date, line.model_version, "asked for" if line.is_due else "wanted" if line.wants_retraining else "not needed"),
            *(line.trained_version or "-", escape(line.reason)),
        )
        for line in lines
    ]
    table("", ("use case", "data until", "version", "training", "made version", "reason"), rows)


@app.command()
def promote(name: Name, version: Version, reason: Reason, by: By = None, as_json: Json = False) -> None:
    """Make a version champion, whatever the gate said. It scores first; one that cannot score does not become champion.

    Example: tidemark model promote device_failure 2 --reason "the new sensors of line 3 need it"
    """
    from ml.lifecycle import promotion

    use_case = _use_case(name)
    with console.status("scoring, so that its predictions are there …"):
        before = promotion.promote(use_case, version, by=_who(by), reason=_why(reason))
    _say(name, version, before, as_json)


@app.command()
def rollback(
    name: Name,
    reason: Reason,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", min=1, help="A former champion; the last one if not given.")] = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Take a former champion back. Where its file is gone, the champion stays.

    Example: tidemark model rollback device_failure --reason "alerts of plant 2 are wrong since Monday"
    """
    from ml.lifecycle import promotion

    use_case = _use_case(name)
    with console.status("scoring, so that its predictions are there …"):
        version, before = promotion.rollback(use_case, to=to, by=_who(by), reason=_why(reason))
    _say(name, version, before, as_json)


def _say(name: str, version: int, before: int | None, as_json: bool) -> None:
    """Tells what is champion now, and then lets MLflow show it: the change is done, and stays done if that fails."""
    from ml.lifecycle.registry import Registry

    if as_json:
        print_json({"use_case": name, "champion": version, "before": before})
    else:
        console.print(f"version {version} is the champion of {name}" + (f"; before it was version {before}" if before else ""))
        console.print("Priorities and work orders follow within the hour; at once: tidemark model plan")
    with console.status("telling MLflow …"):
        Registry(name).follow()


def _use_case(name: str) -> UseCase:
    from ml.lifecycle.reread import UseCaseUnknown, find_use_case

    try:
        return find_use_case(name)
    except UseCaseUnknown as error:
        raise typer.BadParameter(str(error)) from None


def _names(names: list[str] | None) -> list[str]:
    from ml.lifecycle.reread import use_cases

    return [_use_case(name).name for name in names] if names else sorted(use_cases())


def _who(by: str | None) -> str:
    who = by if by is not None else getpass.getuser()
    if not who.strip() or who == "gate":
        raise typer.BadParameter("--by is a person, and not empty: the gate decides by itself")
    return who


def _why(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("--reason is empty: say why, for those who ask later")
    return reason
