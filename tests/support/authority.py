"""A throwaway certificate authority, and files of what it issues."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key


class Authority:
    """An authority whose files lie in a folder.

    Args:
        folder: Where they are written; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._authority = folder, trustme.CA()
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.certificate)

    def issue(self, name: str = "server", *, ends: datetime | None = None) -> tuple[Path, Path]:
        """Certificate chain and key for 127.0.0.1 and a name, as files. Issuing a name again replaces its files.

        Args:
            name: Of the device or server, and of the files.
            ends: When the certificate ends.
        """
        begins = datetime(2020, 1, 1, tzinfo=UTC) if ends is not None else None
        issued = self._authority.issue_cert("127.0.0.1", f"{name}.example", not_before=begins, not_after=ends)
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key


def serial_of(certificate: Path | bytes) -> int:
    """Serial number of the first certificate of a file, or of one as a connection gives it."""
    if isinstance(certificate, bytes):
        return x509.load_der_x509_certificate(certificate).serial_number
    return x509.load_pem_x509_certificates(certificate.read_bytes())[0].serial_number


def lock_key(key: Path) -> None:
    """Puts a key file under a passphrase."""
    loaded = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
