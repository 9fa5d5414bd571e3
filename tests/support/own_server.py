"""An embedded server that nobody else uses, so that it may be killed."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from include.settings import REPOSITORY, get_settings
from include.warehouse import bootstrap, migrate, server
from tests.conftest import set_environment

# Below the ports that the kernel gives to clients: while a process is down, nobody else may get its port.
PORTS = range(20_000, 32_000)


def lasting_port() -> int:
    """A port of 127.0.0.1 that stays free while its process is killed and started again."""
    return next(port for port in random.sample(PORTS, len(PORTS)) if not server.port_is_taken("127.0.0.1", port))


@contextmanager
def own_server() -> Iterator[Path]:
    """A home with an embedded server that nobody else uses, migrated; it may be killed. Gives the home."""
    home = Path(tempfile.mkdtemp(prefix="tidemark-chaos-"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TIDEMARK_")]:
            patch.delenv(name)
        set_environment(patch, TIDEMARK_HOME=str(home), TIDEMARK_POSTGRES_PORT=str(lasting_port()), PYTHONPATH=str(REPOSITORY))
        try:
            server.start()
            bootstrap()
            migrate()
            yield home
        finally:
            server.purge()
            shutil.rmtree(home, ignore_errors=True)
    get_settings.cache_clear()
