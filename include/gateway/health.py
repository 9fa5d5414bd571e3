"""Is the process alive, and can it take posts: `/healthz` and `/readyz`. Open to everybody who reaches the port; they name no tenant, no key and no path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from include.gateway.disk import FULL
from include.gateway.intake import RETRY_ZONE_S
from include.gateway.problems import Problem

OK = "ok"
Checks = Mapping[str, Callable[[], str | None]]


class Zone(Protocol):
    """State of the zone: `include.gateway.disk.ZoneWatch`."""

    trouble: str | None


class Keys(Protocol):
    """The keys: `include.gateway.keys.ring.KeyRing`."""

    @property
    def is_loaded(self) -> bool:
        """Whether there is a list at all."""


def readiness(zone: Zone, keys: Keys) -> Checks:
    """What a gateway needs to take posts: each gives what is wrong, in words for everybody, or None.

    The warehouse is not among them: posts are taken without it.
    """
    return {
        "zone": lambda: zone.trouble if zone.trouble != FULL else None,
        "disk": lambda: zone.trouble if zone.trouble == FULL else None,
        "keys": lambda: None if keys.is_loaded else "no API keys are known yet; the warehouse has not answered since the gateway began, and there is no copy",
    }


def health_router(checks: Checks) -> APIRouter:
    """Routes `/healthz` and `/readyz`."""
    router = APIRouter()

    @router.get("/healthz")
    async def alive() -> Response:
        return PlainTextResponse("alive\n")

    @router.get("/readyz")
    async def ready() -> Response:
        found = {name: check() or OK for name, check in checks.items()}
        wrong = [f"{name}: {state}" for name, state in found.items() if state != OK]
        if not wrong:
            return JSONResponse({"status": "ready", "checks": found})
        detail = f"posts cannot be taken now ({'; '.join(wrong)})"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_ZONE_S)}, checks=found).response()

    return router
