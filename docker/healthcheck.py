"""Whether a component is well, as it reports itself to the API server: `healthcheck.py scheduler`. Exit code 0 means healthy.

Standard library only: it runs every half minute in four containers, and importing Airflow takes seconds.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from urllib.parse import urljoin

REPORTED_AS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
TIMEOUT_S = 8


def main() -> int:
    """Asks the API server, whose address every container knows because tasks talk to it."""
    component = sys.argv[1]
    address = urljoin(os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"], "/api/v2/monitor/health")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310  an http address from the compose file
            report = json.load(answer)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"no answer from {address}: {error}\n")
        return 1
    wanted = REPORTED_AS.get(component, "metadatabase")
    status = str(report.get(wanted, {}).get("status"))
    sys.stdout.write(f"{wanted}: {status}\n")
    return 0 if status == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main())
