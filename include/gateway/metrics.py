"""What monitors read at `/metrics`, in the text format of Prometheus.

Labels are streams of the house, HTTP status and reasons that the code names, so their number is bounded whatever is sent. No tenant, key, address of a sender
or name of an unknown stream is among them: the page is open to everybody who reaches the port. Counters begin at zero with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

from include.gateway.app import Outcome

PREFIX = "tidemark_gateway"
UNKNOWN = "unknown"  # stands for every stream that there is not
ACK_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.225, 0.25, 0.3, 0.4, 0.5, 1.0, 2.5, 5.0, 10.0)  # fine around the 250 ms that are promised
COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True)
class State:
    """What is read when a monitor asks; None where it is not known then.

    Attributes:
        pending_posts: Posts that wait to be stored.
        pending_bytes: Bytes of bodies in memory.
        connections: Open connections.
        is_writable: Whether the zone takes files.
        free_bytes: Free bytes of the zone's disk; None for S3.
        keys_age_s: Seconds since the warehouse last gave the list of keys; None where it has not yet.
        is_warehouse_reachable: Whether it gave the list when it was last asked.
        refused: Connections that were refused or ended, by reason.
    """

    pending_posts: Callable[[], float]
    pending_bytes: Callable[[], float]
    connections: Callable[[], float]
    is_writable: Callable[[], bool]
    free_bytes: Callable[[], float | None]
    keys_age_s: Callable[[], float | None]
    is_warehouse_reachable: Callable[[], bool]
    refused: Callable[[], Mapping[str, int]]


class Metrics:
    """Counts what the gateway does. Everything but `text` is called on the event loop and takes microseconds."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second series for each counter, that says when it began
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._posts = Counter(f"{PREFIX}_posts", "Posts by stream and status; 499 where the sender left.", ["stream", "status"], registry=registry)
        self._rows = Counter(f"{PREFIX}_rows", "Rows of acknowledged posts.", ["stream"], registry=registry)
        self._bytes = Counter(f"{PREFIX}_body_bytes", "Bytes of acknowledged bodies, as stored and unpacked.", ["stream", "form"], registry=registry)
        self._ack = Histogram(f"{PREFIX}_ack_seconds", "From the end of a post's headers to its acknowledgement.", buckets=ACK_BUCKETS_S, registry=registry)
        self._commit = Histogram(f"{PREFIX}_commit_seconds", "Writing a file of posts, with fsync.", buckets=COMMIT_BUCKETS_S, registry=registry)
        self._stored = Counter(f"{PREFIX}_stored_posts", "Posts in files that were written.", registry=registry)
        self._stored_bytes = Counter(f"{PREFIX}_stored_bytes", "Bytes of bodies in files that were written.", registry=registry)

    def observe(self, outcome: Outcome) -> None:
        """Counts a post."""
        stream = outcome.stream or UNKNOWN
        self._posts.labels(stream, str(outcome.status)).inc()
        if outcome.status == 202:
            self._rows.labels(stream).inc(outcome.rows)
            self._bytes.labels(stream, "stored").inc(outcome.size)
            self._bytes.labels(stream, "plain").inc(outcome.plain_size)
            self._ack.observe(outcome.seconds)

    def stored(self, posts: int, size: int, seconds: float) -> None:
        """Counts a file: posts, bytes of their bodies, and the seconds that writing it took."""
        self._commit.observe(seconds)
        self._stored.inc(posts)
        self._stored_bytes.inc(size)

    def follow(self, state: State) -> None:
        """Has the state shown as well. To be called once."""
        self.registry.register(_StateCollector(state))

    def text(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)

    def router(self) -> APIRouter:
        """Route `/metrics`."""
        router = APIRouter()

        @router.get("/metrics")
        async def metrics() -> Response:
            return Response(self.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

        return router


class _StateCollector(Collector):
    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        state = self._state
        gauges: list[tuple[str, str, float | None]] = [
            ("pending_posts", "Posts that wait to be stored.", state.pending_posts()),
            ("pending_bytes", "Bytes of bodies in memory, being received or waiting to be stored.", state.pending_bytes()),
            ("connections", "Open connections.", state.connections()),
            ("zone_writable", "1 where the zone takes files, 0 where posts are answered 503.", float(state.is_writable())),
            ("zone_free_bytes", "Free bytes of the disk of the zone; absent for S3.", state.free_bytes()),
            ("keys_age_seconds", "Since the warehouse last gave the list of keys; absent while it has not since the start.", state.keys_age_s()),
            ("warehouse_reachable", "1 where the warehouse gave the list of keys when it was last asked.", float(state.is_warehouse_reachable())),
        ]
        for name, help_text, value in gauges:
            if value is not None:
                yield GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=value)
        refused = CounterMetricFamily(f"{PREFIX}_refused_connections", "Connections that were refused or ended by the gateway, by reason.", labels=["reason"])
        for reason, count in sorted(state.refused().items()):
            refused.add_metric([reason], count)
        yield refused
