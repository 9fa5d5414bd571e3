"""Prints every route of the API server's application as JSON lines `[method, path]`; run in Airflow's environment."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from starlette.routing import Mount


def routes(app: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, mounted applications included; path parameters are filled with `1`."""
    for route in app.routes:
        path = prefix + re.sub(r"\{[^}]*\}", "1", route.path)
        if isinstance(route, Mount):
            inner = getattr(route, "app", None)
            if getattr(inner, "routes", None):
                yield from routes(inner, path)
            else:
                yield "GET", f"{path}/"
        elif type(route).__name__ == "APIWebSocketRoute":
            yield "WEBSOCKET", path
        else:
            for method in sorted((getattr(route, "methods", None) or {"GET"}) - {"HEAD", "OPTIONS"}):
                yield method, path


if __name__ == "__main__":
    from airflow.api_fastapi.app import create_app

    for entry in sorted(set(routes(create_app()))):
        sys.stdout.write(json.dumps(entry) + "\n")
