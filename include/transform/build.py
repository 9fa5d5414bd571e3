"""One build: a horizon fixed at its start, and the dbt calls that read up to it (decisions 6 and 7)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime

import psycopg

from include.transform.invocation import NodeResult, invoke
from include.warehouse import Role, WarehouseUnavailable, connect

ALL_TABLES = ("tag:micro_batch", "tag:hourly", "tag:priorities")


class TransformFailed(RuntimeError):
    """dbt failed; the message names every failed node with its reason. What had committed stays, and the next build goes on from there."""


@dataclass(frozen=True)
class Build:
    """A build and its horizon: last committed batch a stream that all of its models read up to, and the last touch request under 'touch'."""

    build_id: str
    horizon: dict[str, int]

    def as_vars(self) -> dict[str, object]:
        """The vars that every dbt call of this build gets."""
        return {"build_id": self.build_id, "horizon": self.horizon}


@dataclass(frozen=True)
class BuildResult:
    """What one dbt call did."""

    nodes: tuple[NodeResult, ...]

    @property
    def models(self) -> int:
        """Number of models built."""
        return sum(1 for node in self.nodes if node.resource_type == "model")

    @property
    def tests(self) -> int:
        """Number of data tests run."""
        return sum(1 for node in self.nodes if node.resource_type == "test")

    @property
    def warnings(self) -> tuple[NodeResult, ...]:
        """Tests that ask for a look."""
        return tuple(node for node in self.nodes if node.status == "warn")


def fix_horizon(upto: Mapping[str, int] | None = None) -> Build:
    """Fixes how far all models of one build read: for each stream its last committed batch.

    Ids of one stream become visible in order, so everything up to the horizon is there; a batch of another stream that commits
    later with a smaller id has its own stream's horizon and is not lost.

    Args:
        upto: Batch by stream that no model is to read beyond; a stream that it does not name is not read at all. None: everything that has landed.
    """
    with connect(Role.TRANSFORMER) as connection:
        row = connection.execute(
            """
            insert into ops.build (build_id, horizon)
            select uuidv7()::text,
                coalesce((
                    select jsonb_object_agg(stream, case
                        when %(upto)s::jsonb is null then last_batch_id else least(last_batch_id, coalesce((%(upto)s::jsonb ->> stream)::bigint, 0))
                    end) from ops.stream_state
                ), '{}'::jsonb)
                || jsonb_build_object('touch', coalesce((select max(request_id) from ops.touch_request), 0))
            returning build_id, horizon
            """,
            {"upto": None if upto is None else json.dumps(upto)},
        ).fetchone()
    assert row is not None
    return Build(build_id=row[0], horizon={name: int(position) for name, position in row[1].items()})


def request_touch(event_from: datetime, event_to: datetime, reason: str) -> int:
    """Asks every model to recompute the buckets whose event time lies in [event_from, event_to) in its next build.

    Returns:
        The id of the request.

    Raises:
        ValueError: If the span is empty or a bound has no time zone.
    """
    if event_from.tzinfo is None or event_to.tzinfo is None:
        raise ValueError(f"a span of event time needs time zones, got {event_from} to {event_to}")
    if event_from >= event_to:
        raise ValueError(f"the span {event_from} to {event_to} is empty; the end is exclusive")
    with connect(Role.TRANSFORMER) as connection:
        # Ids must become visible in order, or a build could move past a request that commits later.
        connection.execute("select pg_advisory_xact_lock(hashtextextended('tidemark.touch_request', 0))")
        row = connection.execute(
            "insert into ops.touch_request (event_from, event_to, reason) values (%s, %s, %s) returning request_id", (event_from, event_to, reason)
        ).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def stored_rows_hold_still() -> Iterator[None]:
    """Keeps loads that change or remove stored rows waiting; plain inserts go on.

    Raises:
        TransformFailed: If such a load is under way for longer than 30 s.
        WarehouseUnavailable: If the warehouse went away meanwhile, and the lock with it: what ran without it may have seen rows change.
    """
    with connect(Role.TRANSFORMER, autocommit=True) as connection:
        try:
            connection.execute("select pg_advisory_lock_shared(ops.raw_changes_key())")
        except psycopg.errors.LockNotAvailable as error:
            raise TransformFailed("a load that changes stored rows is under way for longer than 30 s; nothing was built, run it again") from error
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        try:
            connection.execute("select 1")
        except psycopg.OperationalError as error:
            raise WarehouseUnavailable("the warehouse was restarted during the build; what had committed stays, run the build again for the rest") from (
                failure or error
            )
        if failure is not None:
            raise failure


def readable(of: Build) -> Build:
    """The build itself, or a new one where its horizon cannot be read any more.

    Rows that were changed or removed since a horizon was fixed are no longer there as of it: between two tasks of a run, or before a failed one is tried
    again, loads that change stored rows do go on. And a model that a later build has brought further must not go back.
    """
    with connect(Role.TRANSFORMER) as connection:
        row = connection.execute(
            """
            select exists (
                select from ops.stream_state as s, lateral (select coalesce((%(horizon)s::jsonb ->> s.stream)::bigint, 0) as upto) as h
                where exists (select from ops.row_change as c where c.stream = s.stream and c.batch_id > h.upto)
                    or exists (select from ops.model_state as m where m.input = 'stg_' || s.stream and m.position > h.upto)
            )
            """,
            {"horizon": json.dumps(of.horizon)},
        ).fetchone()
    assert row is not None
    return fix_horizon() if row[0] else of


def build(
    selector: str,
    of: Build,
    *,
    exclude: str | None = None,
    run_tests: bool = True,
    rebuild: bool = False,
    full_tests: bool = False,
    in_raw_only: bool = False,
    months: Sequence[date] = (),
) -> BuildResult:
    """Builds the selected models up to the horizon of a build, with their data tests; up to now where that horizon cannot be read any more.

    Args:
        selector: dbt's selection syntax, for example `tag:maintenance,tag:micro_batch`.
        of: The build whose horizon counts.
        exclude: What to leave out, in the same syntax.
        run_tests: Whether data tests run behind each model.
        rebuild: Recompute every bucket of the selected incremental models, in place.
        full_tests: Let data tests look at whole tables instead of the touched buckets.
        in_raw_only: Where months have left the raw table, rebuild what it still holds instead of refusing: for `include.lake.rebuild`, which brings them back.
        months: First days of months whose buckets are recomputed whether anything changed or not.

    Raises:
        TransformFailed: If a model or a test of severity error failed.
        WarehouseUnavailable: If the warehouse went away meanwhile.
    """
    command = ["build" if run_tests else "run", "--select", *selector.split()]
    if run_tests:
        command += ["--exclude-resource-type", "unit_test", "--indirect-selection", "cautious"]
    if exclude:
        command += ["--exclude", *exclude.split()]
    with stored_rows_hold_still():
        of = readable(of)
        variables = of.as_vars()
        if rebuild:
            variables["rebuild"] = True
        if full_tests:
            variables["full_tests"] = True
        if in_raw_only:
            variables["rebuild_in_raw"] = True
        if months:
            variables["rebuild_months"] = [month.isoformat() for month in months]
        nodes = invoke([*command, "--vars", json.dumps(variables)], purpose=of.build_id)
    record_results(of.build_id, nodes)
    raise_for_failures(nodes, of)
    return BuildResult(nodes)


def check_everything(of: Build) -> BuildResult:
    """Brings every table to one horizon and runs every data test over whole tables, as every night.

    That is what the micro-batch path looks at in touched buckets only, and what it leaves out. Both happen while stored rows hold still: a row that changed
    in between would be missed in the tables or in what they are compared with.

    Raises:
        TransformFailed: If a model or a test of severity error failed.
        WarehouseUnavailable: If the warehouse went away meanwhile.
    """
    with stored_rows_hold_still():
        of = readable(of)
        variables = json.dumps({**of.as_vars(), "full_tests": True})
        nodes = invoke(["run", "--select", *ALL_TABLES, "--vars", variables], purpose=of.build_id)
        if not _failed(nodes):
            nodes += invoke(["test", "--exclude-resource-type", "unit_test", "--vars", variables], purpose=of.build_id)
    record_results(of.build_id, nodes)
    raise_for_failures(nodes, of)
    return BuildResult(nodes)


def raise_for_failures(nodes: tuple[NodeResult, ...], of: Build | None = None) -> None:
    """Raises TransformFailed when a node failed, with its table and the streams and batches it was built up to; what was skipped behind it is counted."""
    failed = _failed(nodes)
    if failed:
        lines = [f"{node.unique_id}: {node.message or node.status}{_place(node, of) if of else ''}" for node in failed]
        skipped = sum(1 for node in nodes if node.status == "skipped")
        raise TransformFailed(f"{len(failed)} dbt nodes failed, {skipped} were skipped behind them:\n" + "\n".join(lines))


def _failed(nodes: tuple[NodeResult, ...]) -> list[NodeResult]:
    return [node for node in nodes if node.status in {"error", "fail", "runtime error"}]


def _place(node: NodeResult, of: Build) -> str:
    if node.table is None:
        return ""
    batches = ", ".join(f"{stream} up to batch {of.horizon.get(stream, 0)}" for stream in node.streams)
    return f" [table {node.table}{': ' if batches else ''}{batches}]"


def record_results(build_id: str, nodes: tuple[NodeResult, ...]) -> None:
    """Writes timing and outcome of every node to ops.dbt_run_result."""
    with connect(Role.TRANSFORMER) as connection, psycopg.Cursor(connection) as cursor:
        cursor.executemany(
            """
            insert into ops.dbt_run_result (build_id, unique_id, resource_type, status, execution_s, rows_affected, failures, message)
            values (%s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [(build_id, n.unique_id, n.resource_type, n.status, n.execution_s, n.rows_affected, n.failures, (n.message or "")[:2000]) for n in nodes],
        )
