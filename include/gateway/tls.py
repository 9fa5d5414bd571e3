"""TLS of the gateway: its certificate, and the authority of device certificates where devices must show one."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from include.settings import Settings, SettingsError

logger = logging.getLogger("tidemark.gateway")
RENEW_S = 60.0
SOON = timedelta(days=14)


class ServerTls:
    """The context that connections are made with. A renewed certificate is taken by `renew`, for new connections; open ones go on.

    Raises:
        SettingsError: If a file cannot be used; the message says which setting and why.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key = certificate, key
        self._seen = self._signature()
        self.context = _context(certificate, key)
        if client_ca is not None:
            _demand_certificates(self.context, client_ca)
        self.expires_at = _expiry(certificate)
        self._warn()

    def renew(self) -> bool:
        """Takes certificate and key anew where their files have changed. A pair that cannot be used is logged, and the one before stays.

        Returns:
            Whether there is a new certificate.
        """
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature  # a pair that is bad is said once; when its second file is replaced too, the signature changes again
        try:
            _context(self._certificate, self._key)  # apart first: a pair that does not fit must not reach the context in use
            expires_at = _expiry(self._certificate)
            self.context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (SettingsError, OSError) as error:
            logger.error("the renewed certificate is not used: %s", error)
            return False
        self.expires_at = expires_at
        logger.info("the certificate was renewed; it is good until %s", expires_at.isoformat())
        self._warn()
        return True

    def _signature(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self._certificate, self._key):
            try:
                status = path.stat()
                found += [status.st_ino, status.st_size, status.st_mtime_ns]
            except OSError:
                found.append(None)
        return tuple(found)

    def _warn(self) -> None:
        left = self.expires_at - datetime.now(UTC)
        if left < SOON:
            logger.warning("the gateway's certificate %s at %s", "has expired" if left < timedelta(0) else "expires", self.expires_at.isoformat())


def server_tls(settings: Settings) -> ServerTls | None:
    """What the settings say; None where they name no certificate.

    Raises:
        SettingsError: If they do not go together or a file cannot be used.
    """
    certificate, key, client_ca = settings.gateway_certificate, settings.gateway_key, settings.gateway_client_ca
    if certificate is None and key is None:
        if client_ca is not None:
            raise SettingsError("TIDEMARK_GATEWAY_CLIENT_CA is set without TLS: set TIDEMARK_GATEWAY_CERTIFICATE and TIDEMARK_GATEWAY_KEY too")
        return None
    if certificate is None or key is None:
        missing, given = ("CERTIFICATE", "KEY") if certificate is None else ("KEY", "CERTIFICATE")
        raise SettingsError(f"TIDEMARK_GATEWAY_{given} is set without TIDEMARK_GATEWAY_{missing}: TLS needs both")
    return ServerTls(certificate, key, client_ca)


def tls_options(tls: ServerTls | None) -> dict[str, Any]:
    """Arguments of `uvicorn.Config`."""
    if tls is None:
        return {}
    context = tls.context
    return {"ssl_context_factory": lambda config, default: context}  # noqa: ARG005  the context is complete


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _readable(certificate, "TIDEMARK_GATEWAY_CERTIFICATE")
    _readable(key, "TIDEMARK_GATEWAY_KEY")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"the key {key} (TIDEMARK_GATEWAY_KEY) is not that of the certificate {certificate}: give both of one pair") from None
        raise SettingsError(
            f"{certificate} (TIDEMARK_GATEWAY_CERTIFICATE) and {key} (TIDEMARK_GATEWAY_KEY) must be a PEM certificate chain, its own first, "
            f"and its PEM private key without a passphrase: {error.reason or error}"
        ) from None
    return context


def _demand_certificates(context: ssl.SSLContext, client_ca: Path) -> None:
    _readable(client_ca, "TIDEMARK_GATEWAY_CLIENT_CA")
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise SettingsError(f"{client_ca} (TIDEMARK_GATEWAY_CLIENT_CA) must hold PEM certificates: {error.reason or error}") from None
    if not context.cert_store_stats()["x509_ca"]:
        raise SettingsError(f"{client_ca} (TIDEMARK_GATEWAY_CLIENT_CA) holds no certificate of an authority")
    context.verify_mode = ssl.CERT_REQUIRED


def _readable(path: Path, setting: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror}") from None


def _expiry(certificate: Path) -> datetime:
    """When the gateway's own certificate, the first of its file, ends."""
    return x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc


def _no_password() -> str:
    """Where OpenSSL would ask on the terminal and wait."""
    return ""
