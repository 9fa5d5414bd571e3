"""The generated dbt source is asked for freshness: the answer is the ledger's newest arrival."""

from __future__ import annotations

from include.contracts import streams
from include.transform.invocation import invoke


def test_freshness_reads_the_ledger(warehouse):
    warehouse.execute(
        "insert into ops.stream_state (stream, last_batch_id, last_arrived_at) values"
        " ('orders', 1, now() - interval '1 minute'), ('device_telemetry', 1, now() - interval '90 minutes'), ('customers', 1, now() - interval '3 days')"
    )
    found = {node.unique_id.rpartition(".")[2]: node.status for node in invoke(["source", "freshness", "--select", "source:raw"], purpose="freshness")}
    # The bound is the contract's: 6 hours for orders, 2 hours (a warning after one) for telemetry, 2 days for customers; a stream that never arrived is stale.
    arrived = {"orders", "device_telemetry", "customers"}
    never = dict.fromkeys(set(streams()) - arrived, "error")
    assert found == {"orders": "pass", "device_telemetry": "warn", "customers": "error"} | never
