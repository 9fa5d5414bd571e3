"""Runs one DAG by `dag.test()` in the environment of a running stack and prints its state: `python dag_run.py DAG CONF`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pendulum
from airflow.dag_processing.dagbag import DagBag


def main() -> None:
    dag_id, conf = sys.argv[1], json.loads(sys.argv[2])
    bag = DagBag(Path(__file__).resolve().parents[2] / "dags" / f"{dag_id}.py")
    run = bag.dags[dag_id].test(run_after=pendulum.now("UTC"), run_conf=conf)
    sys.stdout.write(f"\nstate={run.state}\n")


main()
