"""How programs of this machine reach its gateway: the address of the settings, and a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from include.gateway.client import PATIENCE_S, ClientError, GatewayClient
from include.settings import get_settings, read_secrets

OWN_KEY = "GATEWAY_API_KEY"  # the secret that `tidemark up` makes for what runs on this machine


def open_client(
    url: str | None = None,
    key: str | None = None,
    *,
    ca: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
    patience_s: float = PATIENCE_S,
    on_retry: Callable[[str, float], None] | None = None,
) -> GatewayClient:
    """A session; what is not said comes from settings and secrets.

    Args:
        url: Address of the gateway.
        key: API key. The one of this machine is shown to the gateway of this machine and to no other.
        ca, certificate, patience_s, on_retry: See `GatewayClient`.

    Raises:
        ClientError: If there is no key, or a certificate file cannot be used.
    """
    settings = get_settings()
    if not key and (url is None or url.rstrip("/") == settings.gateway_address.rstrip("/")):
        key = read_secrets(settings.secrets_path).get(OWN_KEY)
    if not key:
        raise ClientError("a post needs an API key", "make one with `tidemark key create` and give it as TIDEMARK_API_KEY")
    return GatewayClient(url or settings.gateway_address, key, ca=ca or settings.gateway_ca, certificate=certificate, patience_s=patience_s, on_retry=on_retry)
