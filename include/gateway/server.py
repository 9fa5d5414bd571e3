"""The gateway's process: what it is put together from, how it starts and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from include.contracts import load_contract, streams
from include.gateway.access import Access
from include.gateway.app import Parts, make_app
from include.gateway.background import Repeated
from include.gateway.connection import Guard, GuardedProtocol
from include.gateway.disk import ZoneWatch, sweep_scratch
from include.gateway.handshakes import BACKLOG, TlsListener
from include.gateway.health import health_router, readiness
from include.gateway.intake import KEY_SHARE, Budget, Intake
from include.gateway.keys.ring import REFRESH_S, KeyRing
from include.gateway.metrics import Metrics, State
from include.gateway.openapi import Limits
from include.gateway.page import reference_router
from include.gateway.rates import Rates
from include.gateway.receipts import Ledger, Receipts, receipts_router
from include.gateway.strict import refuse_bad_rows
from include.gateway.tls import RENEW_S, ServerTls, server_tls, tls_options
from include.landing.object_store import ObjectStore
from include.landing.zone import Zone
from include.settings import Settings, SettingsError

STOP_S = 8  # the supervisor kills after 15
SPARE_FILES = 200  # descriptors that are not connections
SWEEP_EVERY_S = 3600.0

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}},
    "loggers": {name: {"handlers": ["stdout"], "level": "INFO", "propagate": False} for name in ("tidemark", "uvicorn")},
}

logger = logging.getLogger("tidemark.gateway")


class GatewayError(RuntimeError):
    """The gateway cannot start; the message says why and what to do."""


class GatewayServer(uvicorn.Server):
    """uvicorn with the gateway's own start and end."""

    def __init__(self, config: uvicorn.Config, guard: Guard, intake: Intake) -> None:
        super().__init__(config)
        self._guard, self._intake = guard, intake
        self._listener: TlsListener | None = None
        self._tending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then listens."""
        del sockets
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise GatewayError("the gateway did not start; its log above says why")
        loop, config = asyncio.get_running_loop(), self.config

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop)  # type: ignore[call-arg]
            return made

        self.servers = []
        try:
            if config.ssl is not None:
                self._listener = TlsListener(config.host, config.port, config.ssl, protocol, self._guard, self.server_state)
            else:
                self.servers = [await loop.create_server(protocol, config.host, config.port, backlog=BACKLOG)]
        except OSError as error:
            await self.lifespan.shutdown()
            raise GatewayError(f"cannot listen on {config.host}:{config.port}: {error.strerror}; stop what does, or set TIDEMARK_GATEWAY_PORT") from error
        self._tending = loop.create_task(self._guard.tend(self.server_state))
        self.started = True
        scheme = "https" if config.ssl else "http"
        logger.info("listens on %s://%s:%d, at most %d connections", scheme, config.host, config.port, self._guard.connections)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes nothing more, stores and acknowledges what it has, and ends."""
        self._intake.flush()
        if self._listener is not None:
            self._listener.close()
        try:
            await super().shutdown(sockets)
        finally:
            if self._tending is not None:
                self._tending.cancel()


def make_server(settings: Settings) -> GatewayServer:
    """The gateway as the settings describe it.

    Raises:
        ZoneError: If the zone's address is none.
        SettingsError: If certificate, key or authority cannot be used, or a body that is not too large would never find room.
    """
    tls = server_tls(settings)
    if settings.gateway_body_bytes > settings.gateway_pending_bytes // KEY_SHARE:
        raise SettingsError(
            f"TIDEMARK_GATEWAY_PENDING_BYTES ({settings.gateway_pending_bytes}) must be at least {KEY_SHARE} times TIDEMARK_GATEWAY_BODY_BYTES "
            f"({settings.gateway_body_bytes}): no key has more than that share, so its largest bodies would be told to come again for ever"
        )
    keys = KeyRing(settings.home / "gateway" / "keys.json")
    store = ObjectStore(settings.zone_url, "TIDEMARK_LANDING_URL")
    watch = ZoneWatch(store, settings.gateway_free_bytes)
    metrics = Metrics()
    intake = Intake(store, group_ms=settings.gateway_group_ms, group_bytes=settings.gateway_group_bytes, on_failure=watch.doubt, on_stored=metrics.stored)
    access, budget, receipts = Access(keys, Rates(), streams()), Budget(settings.gateway_pending_bytes), Receipts(Zone(settings.zone_url), Ledger())
    limits = Limits(settings.gateway_body_bytes, settings.gateway_plain_bytes)
    parts = Parts(
        access=access,
        intake=intake,
        budget=budget,
        watch=watch,
        streams=streams(),
        body_bytes=settings.gateway_body_bytes,
        plain_bytes=settings.gateway_plain_bytes,
        strict=refuse_bad_rows,
        routers=(
            receipts_router(access.authenticate, receipts),
            health_router(readiness(watch, keys)),
            metrics.router(),
            reference_router([load_contract(stream) for stream in streams()], limits, settings.gateway_address),
        ),
        lifespan=functools.partial(_lifespan, store, watch, intake, keys, tls, receipts),
        observe=metrics.observe,
    )
    guard = Guard(
        connections=min(settings.gateway_connections, _raise_open_files() - SPARE_FILES),
        head_s=settings.gateway_head_seconds,
        body_s=settings.gateway_body_seconds,
        body_bytes=settings.gateway_body_bytes,
    )
    config = uvicorn.Config(
        make_app(parts),
        host=settings.gateway_host,
        port=settings.gateway_port,
        loop="uvloop",
        http=functools.partial(GuardedProtocol, guard),  # type: ignore[arg-type]  # it is called like the class
        ws="none",
        lifespan="on",
        log_config=LOGGING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.gateway_idle_seconds,
        timeout_graceful_shutdown=STOP_S,
        **tls_options(tls),
    )
    server = GatewayServer(config, guard, intake)
    metrics.follow(
        State(
            pending_posts=lambda: intake.waiting,
            pending_bytes=lambda: budget.used,
            connections=lambda: len(server.server_state.connections),
            is_writable=lambda: watch.trouble is None,
            free_bytes=lambda: watch.free,
            keys_age_s=lambda: keys.age_s,
            is_warehouse_reachable=lambda: keys.age_s is not None and keys.age_s < 3 * REFRESH_S,
            refused=lambda: guard.refused,
        )
    )
    return server


@asynccontextmanager
async def _lifespan(
    store: ObjectStore,
    watch: ZoneWatch,
    intake: Intake,
    keys: KeyRing,
    tls: ServerTls | None,
    receipts: Receipts,
    app: FastAPI,  # noqa: ARG001 - Starlette gives it
) -> AsyncIterator[None]:
    keys.start()
    renewing = Repeated("certificate", RENEW_S, tls.renew) if tls is not None else None
    if renewing is not None:
        renewing.start()
    await asyncio.to_thread(watch.look, is_doubtful=True)
    tasks = [asyncio.create_task(watch.watch()), asyncio.create_task(_sweep(store))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await intake.end()
        await receipts.close()
        keys.stop()
        if renewing is not None:
            renewing.stop()


async def _sweep(store: ObjectStore) -> None:
    """Removes unfinished files now and every hour: what a gateway left that was killed just before this one started is still too young now."""
    while True:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(sweep_scratch, store)
        await asyncio.sleep(SWEEP_EVERY_S)


def _raise_open_files() -> int:
    """Lets this process open as many files as the system allows. Returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
