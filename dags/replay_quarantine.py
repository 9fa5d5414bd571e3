"""Replay quarantine: try refused rows again, after a contract or mapping was mended.

**Purpose.** Rows that no table could take wait in the quarantine with every reason. When the cause is mended, this brings them in without asking the source
again: each row that passes now lands exactly once. The same as `tidemark quarantine replay`, from the UI.

**Reads and writes.** Reads open rows of `ops.quarantine` that the params choose, and their files in the zone. Writes `raw.<stream>`, a batch of kind
replay, the state of the rows and their history. Emits one asset event a stream that got rows, so that the marts are built. A dry run writes nothing.

**Schedule and lateness.** By hand only. Rows keep the arrival of their file; they count as known from the replay on.

**On failure.** Clear the failed task: rows that landed are not tried again, rows that failed stay open. A task that skips had nothing to land; its log says
why. See `tidemark quarantine list` and docs/runbooks/quarantine.md.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag

from include.contracts import streams
from include.stack.landing_tasks import add_replay_tasks, replay_params
from include.tags import Tag


@dag(
    # No schedule: by hand, with params.
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params=replay_params(streams()),
    tags=[Tag.LANDING, Tag.OPERATIONS],
    doc_md=__doc__,
)
def replay_quarantine():
    add_replay_tasks(streams())


replay_quarantine()
