"""Which key is shown to which gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.gateway.client import ClientError, GatewayClient
from include.gateway.session import OWN_KEY, open_client
from include.settings import get_settings, store_secret


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TIDEMARK_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEMARK_SECRETS_FILE", raising=False)
    monkeypatch.setenv("TIDEMARK_GATEWAY_PORT", "18999")
    get_settings.cache_clear()
    store_secret(OWN_KEY, "tmk_own_secret")
    yield
    get_settings.cache_clear()


def shown(client: GatewayClient) -> str:
    with client:
        return client._http.headers["authorization"]


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:18999", "http://127.0.0.1:18999/"])
def test_the_key_of_this_machine_opens_its_own_gateway(url: str | None) -> None:
    assert shown(open_client(url)) == "Bearer tmk_own_secret"
    assert shown(open_client(url, "tmk_given")) == "Bearer tmk_given"


@pytest.mark.parametrize("url", ["http://elsewhere.example:8090", "http://127.0.0.1:18998", "https://127.0.0.1:18999"])
def test_the_key_of_this_machine_is_shown_to_no_other(url: str) -> None:
    with pytest.raises(ClientError, match="needs an API key"):
        open_client(url)
    assert shown(open_client(url, "tmk_given")) == "Bearer tmk_given"
