"""Runs the gateway: `python -m include.gateway`. SIGTERM ends it once what it has taken is stored and acknowledged."""

from __future__ import annotations

import sys

from include.gateway.server import GatewayError, make_server
from include.landing.errors import ZoneError
from include.settings import SettingsError, get_settings


def main() -> int:
    """Serves until it is told to stop. Returns 1 where it cannot start."""
    try:
        make_server(get_settings()).run()
    except (GatewayError, SettingsError, ZoneError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
