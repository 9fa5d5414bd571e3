"""Whether a component is well: `healthcheck.py scheduler`. Exit code 0 means healthy.

Airflow's components report themselves to the API server, the gateway answers for itself. Standard library only: it runs every half minute in five containers,
and importing Airflow takes seconds.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request
from urllib.parse import urljoin

REPORTED_AS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
TIMEOUT_S = 8


def airflow_is_well(component: str) -> bool:
    """Asks the API server, whose address every container knows because tasks talk to it."""
    address = urljoin(os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"], "/api/v2/monitor/health")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310  an http address from the compose file
            report = json.load(answer)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"no answer from {address}: {error}\n")
        return False
    wanted = REPORTED_AS.get(component, "metadatabase")
    status = str(report.get(wanted, {}).get("status"))
    sys.stdout.write(f"{wanted}: {status}\n")
    return status == "healthy"


def gateway_is_alive() -> bool:
    """Asks the gateway of this container. Its certificate is for the names that senders use, not for this address."""
    has_certificate = bool(os.environ.get("TIDEMARK_GATEWAY_CERTIFICATE"))
    address = f"{'https' if has_certificate else 'http'}://127.0.0.1:{os.environ['TIDEMARK_GATEWAY_PORT']}/healthz"
    context = ssl._create_unverified_context() if has_certificate else None  # noqa: S323
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310
            sys.stdout.write(answer.read(100).decode(errors="replace"))
            return True
    except OSError as error:
        sys.stdout.write(f"{address}: {error}\n")
        # With mutual TLS it shakes hands and then asks for a device's certificate, which we are not.
        return bool(os.environ.get("TIDEMARK_GATEWAY_CLIENT_CA")) and isinstance(getattr(error, "reason", error), ssl.SSLError | ConnectionResetError)


if __name__ == "__main__":
    sys.exit(0 if (gateway_is_alive() if sys.argv[1] == "gateway" else airflow_is_well(sys.argv[1])) else 1)
