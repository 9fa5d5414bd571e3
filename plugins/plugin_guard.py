"""Airflow plugin: pages of plugins need the same login as Airflow itself.

Airflow mounts plugin applications without any authentication (the dbt docs of Cosmos, for example). This root middleware asks for a
valid Airflow login before any of them: people are sent to the login page and come back, programs get 401.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LEGACY_PLUGINS_PREFIX = "/pluginsv2"  # where Airflow mounts Flask plugins


def guarded_prefixes() -> tuple[str, ...]:
    """Where plugins are mounted: read from Airflow, so that a plugin installed tomorrow is guarded too."""
    from airflow import plugins_manager

    apps, _ = plugins_manager.get_fastapi_plugins()
    return (LEGACY_PLUGINS_PREFIX, *(str(app["url_prefix"]).rstrip("/") for app in apps if app.get("url_prefix")))


class PluginGuard:
    """ASGI middleware that lets only people who are logged in to Airflow through to plugins."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._prefixes: tuple[str, ...] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it where it is anonymous and for a plugin."""
        if scope["type"] not in {"http", "websocket"} or not self._is_guarded(scope):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            if await self._is_allowed(HTTPConnection(scope), None):
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        if await self._is_allowed(request, request):
            await self.app(scope, receive, send)
        else:
            await _refusal(request)(scope, receive, send)

    def _is_guarded(self, scope: Scope) -> bool:
        if self._prefixes is None:
            self._prefixes = guarded_prefixes()
        path = str(scope["path"])
        root = str(scope.get("root_path", ""))
        if root and path.startswith(root):
            path = path[len(root) :]
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self._prefixes)

    async def _is_allowed(self, connection: HTTPConnection, request: Request | None) -> bool:
        """Airflow's own rule: a bearer token in the header wins, else the session cookie; expired, revoked and forged ones do not count."""
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
        from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
        from airflow.api_fastapi.core_api.security import bearer_scheme, resolve_user_from_token
        from fastapi import HTTPException

        try:
            credentials = await bearer_scheme(request) if request is not None else None
            user = await resolve_user_from_token(credentials.credentials if credentials else connection.cookies.get(COOKIE_NAME_JWT_TOKEN))
        except HTTPException:
            return False
        return bool(get_auth_manager().is_authorized_view(access_view=AccessView.WEBSITE, user=user))


def _refusal(request: Request) -> Response:
    if request.method in {"GET", "HEAD"} and "text/html" in request.headers.get("accept", ""):
        from airflow.api_fastapi.app import get_auth_manager

        return RedirectResponse(get_auth_manager().get_url_login(next_url=str(request.url)), status_code=302)
    return JSONResponse({"detail": "Not authenticated"}, status_code=401, headers={"WWW-Authenticate": "Bearer"})


class PluginGuardPlugin(AirflowPlugin):
    """Registers the guard."""

    name = "tidemark_plugin_guard"
    fastapi_root_middlewares = [{"middleware": PluginGuard, "args": [], "kwargs": {}, "name": "plugin guard"}]  # noqa: RUF012  the base class declares it as it is
