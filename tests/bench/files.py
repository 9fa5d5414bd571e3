"""`make bench-files`: how long `tidemark files find` takes to answer when the index holds 100,000 files.

docs/benchmarks.md says how it is measured, and what the figures mean.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from include.file_index.find import FileFilter, find_files, find_statement
from include.file_index.kinds import FileState, Kind
from include.settings import REPOSITORY, get_settings
from include.warehouse import Role, connect
from tests.bench.report import Figure, Report, Target
from tests.bench.server import BenchmarkError, BenchServer, bench_server, scratch_folder

DATABASE = "bench_files"
DAYS = 400
END = datetime(2026, 3, 1, tzinfo=UTC)
START = END - timedelta(days=DAYS)
STREAMS = ("device_telemetry", "orders", "device_registry", "maintenance_log", "customers")
LAKE_SHARE = 0.2
LIMIT = 100
TARGET_MS = 50
COMMAND = ("files", "find", "--stream", "orders", "--from", "2026-01-31", "--to", "2026-02-01", "--json")

# Two years hence: a file every few minutes, most of them gone from the zone after thirty days; in the lake a file a day and stream, and the small ones that it
# was merged from. A few arrivals hold late rows or months of history, so that spans of event time overlap.
_BATCHES = """
insert into ops.batch (batch_id, stream, started_at, committed_at, files, landed, accepted, quarantined, duplicate, corrected)
select n, (%(streams)s::text[])[1 + n %% 5], at, at, 10, 5000, 5000, 0, 0, 0
from generate_series(1, %(arrivals)s / 10 + 5) as n cross join lateral (select %(start)s + %(span)s * n / (%(arrivals)s / 10 + 5) as at) as moment
"""
_ARRIVALS = """
with drawn as (
    select n, random() as tenant, random() as late, random() as fate, random() as jitter from generate_series(1, %(arrivals)s) as n
), timed as (
    select *, (array['device_telemetry', 'device_telemetry', 'device_telemetry', 'device_telemetry', 'device_telemetry', 'orders', 'orders', 'device_registry',
        'maintenance_log', 'customers'])[1 + n %% 10] as stream, %(start)s + %(span)s * n / %(arrivals)s as arrived_at
    from drawn
), stated as (
    select *, case
            when n > %(arrivals)s - 20 then 'pending' when fate < 0.001 then 'failed' when fate < 0.004 then 'quarantined'
            when arrived_at < %(end)s - interval '30 days' then 'expired' else 'landed' end as state,
        arrived_at - interval '5 minutes' * jitter - case when late < 0.02 then interval '20 days' * jitter else interval '0' end as last_event_at
    from timed
)
insert into ops.file (stream, tenant_id, address, content_hash, version_tag, size_bytes, file_format, contract_version, arrived_at, state, batch_id,
    landed, accepted, first_event_at, last_event_at, landed_at, expired_at, error)
select stream, case when tenant < 0.001 then 'rare' when tenant < 0.1 then 'acme' else 'default' end,
    format('%%s/dt=%%s/hr=%%s/%%s-gateway-0.ndjson.gz', stream, to_char(arrived_at, 'YYYY-MM-DD'), to_char(arrived_at, 'HH24'),
        to_char(arrived_at, 'HH24MISSUS')),
    sha256(int8send(n)), n::text, 20000 + n %% 5000, 'ndjson.gz', '1.0.0', arrived_at, state,
    case when state in ('pending', 'failed') then null else 1 + n / 10 end,
    case when state in ('landed', 'expired') then 500 else 0 end, case when state in ('landed', 'expired') then 500 else 0 end,
    case when state in ('landed', 'expired') then last_event_at - case when late > 0.998 then interval '60 days' else interval '10 minutes' * jitter end end,
    case when state in ('landed', 'expired') then last_event_at end,
    case when state in ('landed', 'expired', 'quarantined') then arrived_at + interval '5 minutes' end,
    case when state = 'expired' then arrived_at + interval '30 days' end, case when state = 'failed' then 'failed three times' end
from stated
"""
_LAKE = """
insert into ops.file (kind, stream, address, content_hash, version_tag, size_bytes, file_format, contract_version, arrived_at, state, event_date,
    first_batch_id, last_batch_id, row_count, content_digest, first_event_at, last_event_at, replaced_by, replaced_at, expired_at)
select 'lake', s.stream, format('%%s/event_date=%%s/b%%s-%%s.parquet', s.stream, day::date, covered.first, covered.last),
    sha256(convert_to(s.stream || day || edition, 'UTF8')), 't', 400000, 'parquet', '1.0.0', day + interval '1 day', fate.state, day::date,
    covered.first, covered.last, 20000, '', day, day + interval '23 hours', live.file_id,
    case when edition > 0 then day + interval '2 days' end, case when fate.state = 'expired' then day + interval '3 days' end
from unnest(%(streams)s::text[]) as s (stream)
cross join generate_series(%(start)s, %(end)s - interval '1 day', interval '1 day') as day
cross join generate_series(%(first)s::integer, %(last)s::integer) as edition
cross join lateral (
    select case when edition = 0 then 1 else 1 + edition * 100 end as first, case when edition = 0 then 9999 else 100 + edition * 100 end as last
) as covered
cross join lateral (
    select case when edition = 0 then 'live' when day < %(end)s - interval '3 days' then 'expired' else 'replaced' end as state
) as fate
left join ops.file as live on edition > 0 and live.kind = 'lake' and live.state = 'live' and live.stream = s.stream and live.event_date = day::date
"""


def fill(files: int) -> dict[str, Any]:
    """Fills the index of the warehouse that the settings name.

    Args:
        files: How many files, arrivals and lake together.

    Returns:
        Facts for the report: files by kind and state.
    """
    small = max(1, round(files * LAKE_SHARE / (DAYS * len(STREAMS))) - 1)  # small files that a day's live one was merged from
    arrivals = files - (small + 1) * DAYS * len(STREAMS)
    if arrivals < 1000:
        raise BenchmarkError(f"an index of {files} files is too small to be one of {DAYS} days: give at least {2 * DAYS * len(STREAMS) + 1000}")
    values = {"arrivals": arrivals, "start": START, "end": END, "span": END - START, "streams": list(STREAMS)}
    with connect(Role.OWNER) as connection:
        connection.execute("select setseed(0.42)")
        connection.execute(_BATCHES, values)
        connection.execute(_ARRIVALS, values)
        for first, last in ((0, 0), (1, small)):
            connection.execute(_LAKE, {**values, "first": first, "last": last})
        counts = connection.execute("select kind, state, count(*) from ops.file group by 1, 2 order by 1, 2").fetchall()
    with connect(Role.OWNER, autocommit=True) as connection:
        connection.execute("vacuum (analyze) ops.file")
    return {"files": sum(count for _, _, count in counts), **{f"{kind}, {state}": count for kind, state, count in counts}}


def _questions(source: random.Random) -> dict[str, tuple[str, Callable[[], FileFilter]]]:
    """What people ask: a name, what it is in words, and a way to draw one."""

    def moment() -> datetime:
        return START + (END - START) * source.random()

    def day_of(stream: str) -> FileFilter:
        start = moment()
        return FileFilter(stream=stream, event_from=start, event_before=start + timedelta(days=1))

    def any_stream() -> str:
        return source.choice(STREAMS)

    def hour() -> FileFilter:
        start = moment()
        return FileFilter(event_from=start, event_before=start + timedelta(hours=1))

    def quarter() -> FileFilter:
        start = moment()
        return FileFilter(stream=any_stream(), kind=Kind.ARRIVAL, state=FileState.LANDED, event_from=start, event_before=start + timedelta(days=90))

    def arrived() -> FileFilter:
        start = moment()
        return FileFilter(stream=any_stream(), arrived_from=start, arrived_before=start + timedelta(hours=6))

    def lake_month() -> FileFilter:
        start = moment()
        return FileFilter(stream=any_stream(), kind=Kind.LAKE, state=FileState.LIVE, event_from=start, event_before=start + timedelta(days=30))

    return {
        "newest": ("nothing said: the newest", lambda: FileFilter()),
        "day": ("a stream and a day of event time", lambda: day_of(any_stream())),
        "hour": ("an hour of event time, all streams", hour),
        "quarter": ("landed arrivals of a stream and 90 days of event time", quarter),
        "since": ("a stream from a moment of event time on", lambda: FileFilter(stream=any_stream(), event_from=moment())),
        "arrived": ("what arrived for a stream in six hours", arrived),
        "failed": ("failed files", lambda: FileFilter(state=FileState.FAILED)),
        "stream_quarantined": ("quarantined files of a stream", lambda: FileFilter(stream=any_stream(), state=FileState.QUARANTINED)),
        "lake_month": ("live lake files of a stream and month", lake_month),
        "tenant": ("files of a tenant on a day of event time", lambda: _of_tenant(source, moment())),
        "rare_tenant": ("arrivals of a tenant that has one in a thousand", lambda: FileFilter(kind=Kind.ARRIVAL, tenant="rare")),
        "nothing": (
            "a stream and a day that has no file",
            lambda: FileFilter(stream=any_stream(), event_from=START - timedelta(days=900), event_before=START - timedelta(days=899)),
        ),
    }


def _of_tenant(source: random.Random, start: datetime) -> FileFilter:
    return FileFilter(tenant=source.choice(("default", "acme", "rare")), event_from=start, event_before=start + timedelta(days=1))


def p95_ms(seconds: list[float]) -> float:
    """The 95th percentile, milliseconds: no more than one in twenty took longer."""
    ordered = sorted(seconds)
    return 1000 * ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]


def plan_of(selection: FileFilter) -> dict[str, Any]:
    """How PostgreSQL answers a question: its scans, how many pages it reads, and how long it takes on an open connection."""
    query, parameters = find_statement(selection, limit=LIMIT)
    with connect(Role.ANALYST) as connection:
        row = connection.execute("explain (analyze, buffers, format json) " + query.as_string(connection), parameters).fetchone()
    assert row is not None
    top = row[0][0]
    scans = [f"{node['Node Type']}{f' on {name}' if (name := node.get('Index Name')) else ''}" for node in _nodes(top["Plan"]) if "Scan" in node["Node Type"]]
    return {
        "scans": scans,
        "pages": top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"],
        "rows": top["Plan"]["Actual Rows"],
        "ms": round(top["Planning Time"] + top["Execution Time"], 2),
    }


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def measure(report: Report, questions: int, repeats: int) -> None:
    """Asks every kind of question in every round, one after another in mixed order, each on a connection of its own as the command does."""
    source = random.Random(7)
    kinds = _questions(source)
    taken: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name in kinds:
            taken[name].append([])
        drawn = [(name, draw()) for name, (_, draw) in kinds.items() for _ in range(questions)]
        source.shuffle(drawn)
        for name, selection in drawn:
            started = time.perf_counter()
            find_files(selection, limit=LIMIT)
            taken[name][-1].append(time.perf_counter() - started)
    for name, (what, draw) in kinds.items():
        every = [seconds for each in taken[name] for seconds in each]
        report.facts["plans"][name] = plan_of(draw())
        report.figures.append(Figure(name, what, questions, tuple(sum(each) for each in taken[name]), f"p95 {p95_ms(every):.1f} ms"))
    rounds = [[seconds for name in kinds for seconds in taken[name][number]] for number in range(repeats)]
    slowest = max(kinds, key=lambda name: p95_ms([seconds for each in taken[name] for seconds in each]))
    report.targets = [
        Target("p95", "p95 of all questions, ms", p95_ms([s for each in rounds for s in each]), at_most=TARGET_MS, by_round=tuple(map(p95_ms, rounds))),
        Target(
            "p95_slowest",
            f"p95 of the slowest kind of question ({slowest}), ms",
            p95_ms([seconds for each in taken[slowest] for seconds in each]),
            at_most=TARGET_MS,
            by_round=tuple(p95_ms(each) for each in taken[slowest]),
        ),
    ]


def time_command(server: BenchServer, work: Path, repeats: int) -> Figure:
    """The whole command as a person types it: what a new process costs is no part of the target."""
    environment = server.environment(DATABASE, work)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "include.cli", *COMMAND], env=environment, cwd=REPOSITORY, capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        if done.returncode != 0 or not done.stdout.startswith("["):
            raise BenchmarkError(f"tidemark {' '.join(COMMAND)} failed: {done.stderr.strip()}")
    return Figure("command", f"tidemark {' '.join(COMMAND)}", 1, tuple(seconds), "with the start of its process")


def main(
    files: Annotated[int, typer.Option(min=1, help="Files in the index.")] = 100_000,
    questions: Annotated[int, typer.Option(min=1, help="Questions of each kind in a round.")] = 20,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    work: Annotated[Path, typer.Option(help="Folder for the server's home and the JSON file.")] = REPOSITORY / "build" / "bench",
    output: Annotated[Path | None, typer.Option(help="The JSON file; <work>/files.json when not given.")] = None,
) -> None:
    """Measures how fast the file index answers.

    Example: python -m tests.bench.files --files 20000 --repeats 2
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the server goes too
    report = Report("files", {"files": files, "questions": questions, "repeats": repeats})
    run, target = work / "run-files", output or work / "files.json"
    with scratch_folder(run), bench_server(run / "home") as server:
        server.fresh(DATABASE)
        os.environ["TIDEMARK_WAREHOUSE_URL"] = server.url(DATABASE)
        get_settings.cache_clear()
        report.facts |= {"server": server.facts(), "index": fill(files), "plans": {}}
        report.show_facts()
        server.settle()
        measure(report, questions, repeats)
        report.figures.append(time_command(server, run, min(repeats, 3)))
    report.finish(target)


if __name__ == "__main__":
    typer.run(main)
