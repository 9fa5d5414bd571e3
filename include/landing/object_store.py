"""The file systems a zone may lie in, and their failures in words that say what to do."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec import AbstractFileSystem

from include.landing.errors import ZoneError
from include.settings import get_settings, read_secrets

READ_BYTES = 8 << 20  # of one request to S3; a reader holds about twice that
# Names of botocore's own variables. Where the secrets file has none of them, botocore looks at the environment, ~/.aws and the machine's role, as everywhere.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}


def open_store(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a zone's URL, and the zone's root in it.

    Raises:
        ZoneError: If the URL is neither `file://` nor `s3://` with a bucket, or holds credentials.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise ZoneError("TIDEMARK_LANDING_URL holds credentials or options; put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the secrets file instead")
    if parts.scheme == "file":
        store, root = fsspec.core.url_to_fs(url)
    elif parts.scheme == "s3" and parts.netloc:
        store, root = fsspec.filesystem("s3", **_s3_options()), f"{parts.netloc}{parts.path}"
    else:
        raise ZoneError(f"TIDEMARK_LANDING_URL must look like file:///srv/zone or s3://bucket/zone, got {url!r}")
    return store, str(root).rstrip("/")


def _s3_options() -> dict[str, Any]:
    settings = get_settings()
    secrets = read_secrets(settings.secrets_path)
    options: dict[str, Any] = {option: secrets[name] for name, option in _CREDENTIALS.items() if name in secrets}
    if settings.landing_endpoint:
        options["endpoint_url"] = settings.landing_endpoint
    return {**options, "use_listings_cache": False, "default_block_size": READ_BYTES}


@contextmanager
def failures_told(url: str, doing: str) -> Iterator[None]:
    """Turns what a store raises into a `ZoneError` with a remedy; a file that is or is not there stays what it is.

    Raises:
        ZoneError: If the store cannot be reached, refuses, or breaks off.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] != "botocore":
            raise
        raise ZoneError(f"{doing} {url} failed: {error or type(error).__name__}{_remedy(error, url)}") from error


def _remedy(error: Exception, url: str) -> str:
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return f"; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment or in {get_settings().secrets_path}"
    if isinstance(error, PermissionError):
        need = "s3:ListBucket, s3:GetObject and s3:PutObject" if url.startswith("s3:") else "reading and writing"
        return f"; allow {need} there"
    return "; run it again once the store answers"


class StoredBytes(io.BufferedIOBase):
    """A file of a store, opened for reading. What the store raises is a `ZoneError`, so that no reader takes a broken connection for a broken file."""

    def __init__(self, stream: Any, url: str) -> None:  # noqa: ANN401 - fsspec has a class of its own for each store
        self._stream, self._url = stream, url

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes: `size` of them unless the file ends before, all of them if it is negative or None."""
        with failures_told(self._url, "reading"):
            data: bytes = self._stream.read(-1 if size is None else size)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves, and says where to."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """Where it is."""
        return int(self._stream.tell())

    def close(self) -> None:
        """Closes the file in the store."""
        self._stream.close()
        super().close()
