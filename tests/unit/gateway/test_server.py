"""What the gateway refuses before it starts."""

from __future__ import annotations

import pytest

from include.gateway.server import make_server
from include.settings import Settings, SettingsError


def test_a_body_that_is_not_too_large_finds_room() -> None:
    with pytest.raises(SettingsError, match=r"TIDEMARK_GATEWAY_PENDING_BYTES .* at least 2 times TIDEMARK_GATEWAY_BODY_BYTES"):
        make_server(Settings(gateway_body_bytes=9 << 20, gateway_pending_bytes=16 << 20))
