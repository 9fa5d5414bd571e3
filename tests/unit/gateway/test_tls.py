"""TLS by settings: what is refused at the start, who may connect, and how a certificate is renewed. A real process is in tests/integration/gateway."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.gateway.tls import ServerTls, server_tls, tls_options
from include.settings import Settings, SettingsError
from tests.support.authority import Authority, lock_key, serial_of


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "house")


def settings(certificate: Path | None = None, key: Path | None = None, client_ca: Path | None = None) -> Settings:
    return Settings(gateway_certificate=certificate, gateway_key=key, gateway_client_ca=client_ca)


def meet(tls: ServerTls, trusted: Path, device: tuple[Path, Path] | None = None, most: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> tuple[int, str]:
    """A handshake in memory. Returns the serial number of the server's certificate and the version."""
    context = ssl.create_default_context(cafile=trusted)
    context.maximum_version = most
    if device is not None:
        context.load_cert_chain(*device)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    given = client.getpeercert(binary_form=True)
    assert given is not None
    return serial_of(given), str(client.version())


def test_without_a_certificate_there_is_no_tls() -> None:
    assert server_tls(settings()) is None
    assert tls_options(None) == {}


def test_the_certificate_is_shown_from_version_1_2_on(authority: Authority) -> None:
    certificate, key = authority.issue()
    tls = server_tls(settings(certificate, key))
    assert tls is not None
    assert meet(tls, authority.certificate) == (serial_of(certificate), "TLSv1.3")
    assert meet(tls, authority.certificate, most=ssl.TLSVersion.TLSv1_2) == (serial_of(certificate), "TLSv1.2")
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_devices_must_show_a_certificate_of_the_authority(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue()
    fleet, strangers = Authority(tmp_path / "fleet"), Authority(tmp_path / "strangers")
    tls = server_tls(settings(certificate, key, fleet.certificate))
    assert tls is not None
    assert meet(tls, authority.certificate, fleet.issue("till"))[0] == serial_of(certificate)
    reasons = []
    for device in (None, strangers.issue("till"), fleet.issue("old", ends=datetime(2020, 2, 1, tzinfo=UTC)), authority.issue("self")):
        with pytest.raises(ssl.SSLError) as refused:
            meet(tls, authority.certificate, device)
        reasons.append(refused.value.reason)
    assert reasons == ["PEER_DID_NOT_RETURN_A_CERTIFICATE", *["CERTIFICATE_VERIFY_FAILED"] * 3]


def test_settings_that_cannot_work_are_refused_by_name(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue()
    _, other = authority.issue("other")
    text, locked, absent = tmp_path / "text.pem", tmp_path / "locked.pem", tmp_path / "absent.pem"
    text.write_text("no PEM\n")
    locked.write_bytes(key.read_bytes())
    lock_key(locked)
    wrong = {
        "TIDEMARK_GATEWAY_CERTIFICATE is set without TIDEMARK_GATEWAY_KEY": (certificate, None, None),
        "TIDEMARK_GATEWAY_KEY is set without TIDEMARK_GATEWAY_CERTIFICATE": (None, key, None),
        "TIDEMARK_GATEWAY_CLIENT_CA is set without TLS": (None, None, authority.certificate),
        f"TIDEMARK_GATEWAY_CERTIFICATE: cannot read {absent}: No such file": (absent, key, None),
        f"TIDEMARK_GATEWAY_KEY: cannot read {tmp_path}: Is a directory": (certificate, tmp_path, None),
        f"the key {other} (TIDEMARK_GATEWAY_KEY) is not that of the certificate {certificate}": (certificate, other, None),
        f"{text} (TIDEMARK_GATEWAY_CERTIFICATE) and {key} (TIDEMARK_GATEWAY_KEY) must be a PEM": (text, key, None),
        f"{certificate} (TIDEMARK_GATEWAY_CERTIFICATE) and {locked} (TIDEMARK_GATEWAY_KEY) must be a PEM": (certificate, locked, None),
        f"TIDEMARK_GATEWAY_CLIENT_CA: cannot read {absent}": (certificate, key, absent),
        f"{text} (TIDEMARK_GATEWAY_CLIENT_CA) must hold PEM": (certificate, key, text),
        f"{certificate} (TIDEMARK_GATEWAY_CLIENT_CA) holds no certificate of an authority": (certificate, key, certificate),
    }
    for said, files in wrong.items():
        with pytest.raises(SettingsError) as refused:
            server_tls(settings(*files))
        assert str(refused.value).startswith(said)


def test_a_renewed_certificate_is_taken_for_new_connections(authority: Authority) -> None:
    certificate, key = authority.issue()
    tls = ServerTls(certificate, key, None)
    first = serial_of(certificate)
    assert not tls.renew()
    authority.issue(ends=datetime(2199, 1, 1, tzinfo=UTC))
    assert meet(tls, authority.certificate)[0] == first
    assert tls.renew()
    assert meet(tls, authority.certificate)[0] == serial_of(certificate) != first
    assert tls.expires_at == datetime(2199, 1, 1, tzinfo=UTC)
    assert not tls.renew()


def test_a_renewal_that_is_half_done_keeps_the_pair_in_use(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = authority.issue()
    tls = ServerTls(certificate, key, None)
    first, old_key = serial_of(certificate), key.read_bytes()
    authority.issue()
    new_key = key.read_bytes()
    key.write_bytes(old_key)  # the certificate is there, its key not yet
    with caplog.at_level(logging.ERROR, "tidemark.gateway"):
        assert not tls.renew()
        assert not tls.renew()
    assert len(caplog.records) == 1
    assert meet(tls, authority.certificate)[0] == first
    fresh = key.with_name("fresh.key")
    fresh.write_bytes(new_key)
    fresh.replace(key)
    assert tls.renew()
    assert meet(tls, authority.certificate)[0] == serial_of(certificate) != first
    certificate.unlink()
    assert not tls.renew()
    assert meet(tls, authority.certificate)[0] != first


def test_a_certificate_that_has_ended_is_said_at_the_start(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    ServerTls(*authority.issue(ends=datetime(2199, 1, 1, tzinfo=UTC)), None)
    assert caplog.text == ""
    ServerTls(*authority.issue(ends=datetime(2020, 2, 1, tzinfo=UTC)), None)
    assert "certificate has expired at 2020-02-01" in caplog.text
