"""How the stack and a container see whether the gateway lives, whatever it speaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import REPOSITORY, get_settings
from include.stack.health import gateway_health
from tests.conftest import set_environment
from tests.support.authority import Authority
from tests.support.databases import free_port
from tests.support.gateway import running_gateway


def container_says(settings: dict[str, str]) -> int:
    environment = {"PATH": os.environ["PATH"], **settings}
    return subprocess.run([sys.executable, REPOSITORY / "docker/healthcheck.py", "gateway"], env=environment, capture_output=True).returncode


@pytest.mark.parametrize("speaks", ["http", "tls", "mutual tls"])
def test_health_follows_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: str) -> None:
    settings: dict[str, object] = {}
    if speaks != "http":
        authority = Authority(tmp_path / "authority")
        settings |= dict(zip(("gateway_certificate", "gateway_key"), authority.issue(), strict=True))
        settings |= {"gateway_client_ca": authority.certificate} if speaks == "mutual tls" else {}
    port = free_port()
    environment = {f"TIDEMARK_{name.upper()}": str(value) for name, value in {**settings, "gateway_port": port}.items()}
    # Senders go through a proxy that is not there; the stack asks its own process.
    set_environment(monkeypatch, **environment, TIDEMARK_GATEWAY_URL="https://gateway.invalid")
    try:
        with running_gateway(tmp_path / "home", port=port, **settings) as gateway:
            assert gateway_health() == "healthy"
            assert container_says(environment) == 0
            gateway.stop()
            assert gateway_health() is None
            assert container_says(environment) == 1
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
