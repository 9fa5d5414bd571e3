"""`make bench-gateway`: how many events a second the gateway acknowledges, and how long a post waits for it.

docs/benchmarks.md says how it is measured, and what the figures mean.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from include.landing.posts import read_frames
from include.settings import REPOSITORY, get_settings
from tests.bench.posting import Answers, Load, body
from tests.bench.report import Figure, Report, Target, interleaved
from tests.bench.server import BenchmarkError, scratch_folder
from tests.support.gateway import Gateway, running_gateway

EVENTS_PER_S, POSTS_PER_S, P99_MS = 20_000, 1_500, 250.0
ROWS = 100
SETTINGS = ("gateway_group_ms", "gateway_group_bytes", "gateway_pending_bytes", "gateway_body_bytes", "gateway_plain_bytes")
_HEAD_START_S = 0.3


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        seconds: From the first post to the last answer.
        latencies_ms: Of each post, in no order.
        cpu: Processor seconds that the server took, as a share of the time.
    """

    seconds: float
    latencies_ms: list[float]
    cpu: float


@dataclass(frozen=True)
class OpenLoop:
    """Posts that were due whatever the server did: their load, and how long each took from the moment it was due."""

    events_per_s: float
    latencies_ms: list[float]


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    Attributes:
        name: Name in table and JSON.
        what: What it does, for a reader.
        server: Which server it is posted to: `gateway` or `bare`.
        posts: Posts of a measurement.
        rows: Events a post.
        connections: Connections of all processes together.
    """

    name: str
    what: str
    server: str
    posts: int
    rows: int
    connections: int


class Bench:
    """The running servers, and what is posted to them.

    Args:
        servers: By name.
        processes: Processes that post.
        folder: For their output.
    """

    def __init__(self, servers: dict[str, Gateway], processes: int, folder: Path) -> None:
        self._servers, self._processes, self._folder = servers, processes, folder
        self.verified_posts = 0

    def measure(self, server: str, *, posts: int, rows: int, connections: int, rate: float | None = None) -> Measured:
        """Posts from several processes at once.

        Args:
            server: Which one.
            posts: Posts of all processes together.
            rows: Events a post.
            connections: Connections of all processes together.
            rate: Posts a second that are due whatever the server does; None: each connection posts as soon as it has its answer.

        Raises:
            BenchmarkError: If an answer is not 202, or a receipt's frame or a row is not in the zone.
        """
        gateway = self._servers[server]
        share = Load(gateway.port, gateway.key, 0, posts // self._processes, rows, connections // self._processes, rate and rate / self._processes, "")
        loads = [replace(share, number=number, output=str(self._folder / f"answers-{number}")) for number in range(self._processes)]
        with ExitStack() as stack:
            clients = [stack.enter_context(_client(load)) for load in loads]
            for client in clients:
                _line(client)  # ready
            process = psutil.Process(gateway.process.pid)
            before = sum(process.cpu_times()[:2])
            start = time.monotonic() + _HEAD_START_S
            for client in clients:
                assert client.stdin is not None
                client.stdin.write(f"{start}\n")
                client.stdin.flush()
            answers = [Answers(**json.loads(_line(client))) for client in clients]
            seconds = max(answer.finished_at for answer in answers) - start
            cpu = (sum(process.cpu_times()[:2]) - before) / seconds
        refused = {status: count for answer in answers for status, count in answer.statuses.items() if status != "202"}
        if refused:
            raise BenchmarkError(f"{server}: {refused} of {posts} posts were not acknowledged; {gateway.log[-2000:]}")
        lines = [line.split(" ") for load in loads for line in Path(load.output).read_text(encoding="utf-8").splitlines()]
        if server == "gateway":
            self._verify(gateway, {receipt for _, receipt in lines}, share.posts * self._processes, rows)
        return Measured(seconds, [float(latency) for latency, _ in lines], cpu)

    def _verify(self, gateway: Gateway, receipts: set[str], posts: int, rows: int) -> None:
        """Every acknowledged post is in the zone, whole, under its receipt; then makes room for the next ones."""
        if len(receipts) != posts:
            raise BenchmarkError(f"{posts} posts have {len(receipts)} different receipts")
        stored: dict[str, int] = {}
        for path in gateway.zone.rglob("*.posts"):
            with path.open("rb") as stream:
                stored |= {post.receipt: content.count(b"\n") for post, content in read_frames(stream)}
        missing = [receipt for receipt in receipts if stored.get(receipt) != rows]
        if missing or len(stored) != posts:
            raise BenchmarkError(f"{len(missing)} acknowledged posts are not in the zone as they were sent, e.g. {missing[:1]}; {len(stored)} are there")
        self.verified_posts += posts
        shutil.rmtree(gateway.zone)
        gateway.zone.mkdir()


def _client(load: Load) -> subprocess.Popen[str]:
    client = subprocess.Popen([sys.executable, "-m", "tests.bench.posting"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None
    client.stdin.write(json.dumps(asdict(load)) + "\n")
    client.stdin.flush()
    return client


def _line(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise BenchmarkError("a process that posts ended before it was done; its error is above")
    return line


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at most `1 - share` of them exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(1000 * share) // 1000) - 1)]


def sync_ms(folder: Path, size: int, turns: int = 30) -> float:
    """Median time to write a file of so many bytes and have it on disk, milliseconds."""
    taken = []
    data = os.urandom(size)
    for _ in range(turns):
        started = time.perf_counter()
        with (folder / "probe").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        taken.append(1000 * (time.perf_counter() - started))
    (folder / "probe").unlink()
    return round(statistics.median(taken), 2)


def measure(bench: Bench, report: Report, *, batches: int, singles: int, latency_s: float, repeats: int) -> None:
    """Every line once a round; then the open loops: at half of the promised load, and at half of what the batches of the round reached."""
    contestants = [
        Contestant("batches", f"posts of {ROWS} events, acknowledged on disk", "gateway", batches, ROWS, 64),
        Contestant("batches_bare", "the same posts to the bare framework, which reads them and answers", "bare", batches, ROWS, 64),
        Contestant("singles", "posts of one event, acknowledged on disk, group commit", "gateway", singles, 1, 800),
        Contestant("singles_bare", "the same posts to the bare framework", "bare", singles, 1, 800),
    ]
    by_name = {each.name: each for each in contestants}
    measured: dict[str, list[Measured]] = {each.name: [] for each in contestants}
    loops: dict[str, list[OpenLoop]] = {"promised": [], "measured": []}
    for number, name in interleaved(list(by_name), repeats):
        each = by_name[name]
        measured[name].append(bench.measure(each.server, posts=each.posts, rows=each.rows, connections=each.connections))
        if all(len(done) == number + 1 for done in measured.values()):
            for load, events_per_s in (("promised", EVENTS_PER_S / 2), ("measured", batches * ROWS / measured["batches"][-1].seconds / 2)):
                rate = events_per_s / ROWS
                run = bench.measure("gateway", posts=max(2, round(rate * latency_s)), rows=ROWS, connections=256, rate=rate)
                loops[load].append(OpenLoop(events_per_s, run.latencies_ms))
    for each in contestants:
        done = measured[each.name]
        note = f"p50 {_of(done, 0.5):.0f} ms, p99 {_of(done, 0.99):.0f} ms at full load; the server took {statistics.median(run.cpu for run in done):.2f} cores"
        report.figures.append(Figure(each.name, each.what, each.posts * each.rows, tuple(run.seconds for run in done), note))
    report.facts["open_loop"] = {load: _distribution(runs) for load, runs in loops.items()}
    report.facts["verified"] = {"posts": bench.verified_posts}
    half = statistics.median(run.events_per_s for run in loops["measured"])
    report.targets = [
        _rate_target("batches", f"events a second in posts of {ROWS}, acknowledged on disk", report, EVENTS_PER_S),
        _p99_target("p99", f"p99 at half of that promise ({EVENTS_PER_S // 2:,} events/s), ms", loops["promised"]),
        _p99_target("p99_at_half", f"p99 at half of what was measured ({half:,.0f} events/s), ms", loops["measured"]),
        _rate_target("singles", "posts a second of one event, acknowledged on disk", report, POSTS_PER_S),
    ]


def _distribution(runs: Sequence[OpenLoop]) -> dict[str, Any]:
    every = [latency for run in runs for latency in run.latencies_ms]
    shares = {f"p{100 * share:g}_ms": round(quantile(every, share), 1) for share in (0.5, 0.9, 0.99, 0.999)}
    return {"events_per_s": [round(run.events_per_s) for run in runs], "posts": len(every), **shares, "longest_ms": round(max(every), 1)}


def _p99_target(name: str, what: str, runs: Sequence[OpenLoop]) -> Target:
    every = [latency for run in runs for latency in run.latencies_ms]
    return Target(name, what, quantile(every, 0.99), at_most=P99_MS, by_round=tuple(quantile(run.latencies_ms, 0.99) for run in runs))


def _rate_target(name: str, what: str, report: Report, at_least: float) -> Target:
    figure = report.figure(name)
    assert figure is not None
    return Target(name, what, figure.rate, at_least=at_least, by_round=tuple(figure.events / seconds for seconds in figure.seconds))


def _of(runs: Sequence[Measured], share: float) -> float:
    return quantile([latency for run in runs for latency in run.latencies_ms], share)


def main(
    batches: Annotated[int, typer.Option(min=2, help=f"Posts of {ROWS} events in a measurement.")] = 8_000,
    singles: Annotated[int, typer.Option(min=2, help="Posts of one event in a measurement.")] = 15_000,
    latency_s: Annotated[float, typer.Option("--latency", min=0.1, help="Seconds of the open loop in a round.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    processes: Annotated[int, typer.Option(min=1, help="Processes that post.")] = 2,
    work: Annotated[Path, typer.Option(help="Folder for the gateway's home and the JSON file.")] = REPOSITORY / "build" / "bench",
    output: Annotated[Path | None, typer.Option(help="The JSON file; <work>/gateway.json when not given.")] = None,
) -> None:
    """Measures the gateway beside the bare framework.

    Example: python -m tests.bench.gateway --repeats 2
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the gateway goes too
    options = {"batches": batches, "singles": singles, "latency": latency_s, "repeats": repeats, "processes": processes}
    report = Report("gateway", options)
    run, target = work / "run-gateway", output or work / "gateway.json"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    settings = get_settings()
    packages = {name: version(name) for name in ("fastapi", "starlette", "uvloop", "httptools")}
    report.facts |= {
        "server": {"version": f"uvicorn {version('uvicorn')}, one process", "settings": packages | {name: getattr(settings, name) for name in SETTINGS}},
        "disk": {"file_system": _file_system(run), "sync_4_kib_ms": sync_ms(run, 4 << 10), "sync_1_mib_ms": sync_ms(run, 1 << 20)},
        "posts": {"bytes_of_100_events": len(body(ROWS, 1)), "bytes_of_one_event": len(body(1, 1))},
    }
    report.show_facts()
    with (
        scratch_folder(run),
        running_gateway(run / "gateway", gateway_free_bytes=0) as gateway,
        running_gateway(run / "bare", module="tests.bench.bare") as bare,
    ):
        bench = Bench({"gateway": gateway, "bare": bare}, processes, run)
        bench.measure("gateway", posts=200, rows=ROWS, connections=64)  # warms up
        bench.measure("bare", posts=200, rows=ROWS, connections=64)
        measure(bench, report, batches=batches, singles=singles, latency_s=latency_s, repeats=repeats)
    report.finish(target)


def _file_system(folder: Path) -> str:
    """Kind of the file system that holds a folder."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype


if __name__ == "__main__":
    typer.run(main)
