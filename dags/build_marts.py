"""Build marts: every table that follows its inputs bucket by bucket, whenever a stream got rows.

**Purpose.** Marts show what landed within a minute. One dbt call a domain, because a task a model would cost more than its SQL.

**Reads and writes.** Fixes a horizon (last committed batch a stream) in `ops.build`, then brings every model tagged `micro_batch` to that horizon.
Reads the ledger, never the events that started it. Announces the features, which are made of the marts before them.

**Schedule and lateness.** On any stream's asset, or when a backfill asked for spans to be recomputed; events that come while it runs make one more run,
not one each. A late event touches its own old buckets only.

**On failure.** Clear the failed task and those after it: it goes on with the horizon of its run, or with a newer one where stored rows changed since or a
later run has passed it. A failed run may also be left alone: the next one picks up everything, because state is in Postgres. A red data test means wrong
numbers: see `ops.dbt_run_result`.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any

import pendulum
from airflow.sdk import chain, dag, task

from include.assets import DEVICE_FEATURES, TOUCH_REQUESTS, raw_asset
from include.contracts import streams
from include.tags import Pool, Tag

# In the order of their dependencies; with what each announces.
DOMAINS: dict[str, list[Any]] = {"core": [], "maintenance": [], "features": [DEVICE_FEATURES], "customers": []}


@dag(
    # No cron: whenever any stream, or a backfill, announces something.
    schedule=reduce(or_, [raw_asset(stream) for stream in streams()], TOUCH_REQUESTS),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30), "pool": Pool.DBT},
    tags=[Tag.TRANSFORM, Tag.MARTS],
    doc_md=__doc__,
)
def build_marts():
    @task
    def fix_horizon() -> dict[str, Any]:
        from include.transform import fix_horizon

        return asdict(fix_horizon())

    @task
    def build(domain: str, horizon: dict[str, Any]) -> None:
        from include.transform import Build, build

        build(f"tag:{domain},tag:micro_batch", Build(**horizon))

    horizon = fix_horizon()
    chain(*[build.override(task_id=f"build_{domain}", outlets=outlets)(domain, horizon) for domain, outlets in DOMAINS.items()])


build_marts()
