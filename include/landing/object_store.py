"""Files in a folder (`file://`) or in S3 (`s3://`), as the zone and the lake keep them, and failures of a store in words that say what to do.

A file is there with all its bytes or not at all. Names that start with `.` are files that are not complete yet.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec
from fsspec import AbstractFileSystem

from include.landing.errors import ZoneError
from include.settings import get_settings, read_secrets

READ_BYTES = 8 << 20  # of one request to S3; a reader holds about twice that
_COPY_BYTES = 4 << 20
_REMEMBERED = 1000  # folders
# Names of botocore's own variables. Where the secrets file has none of them, botocore looks at the environment, ~/.aws and the machine's role, as everywhere.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}


class ObjectStore:
    """A store below one URL, through fsspec. Addresses are paths relative to it.

    Every method raises `ZoneError` if the store cannot be reached or refuses.

    Args:
        url: `file:///folder`, which need not exist yet, or `s3://bucket/prefix`, whose bucket must.
        setting: Name of the variable that states it, for messages.

    Raises:
        ZoneError: If the URL is neither.
    """

    def __init__(self, url: str, setting: str) -> None:
        self.url, self.setting = url, setting
        self.fs, self.root = open_store(url, setting)
        self.is_local = url.startswith("file:")
        self._lasting: set[Path] = set()

    def full(self, address: str) -> str:
        """Path of an address in the file system."""
        return f"{self.root}/{address}"

    def relative(self, path: str) -> str:
        """Address of a path in the file system."""
        return path[len(self.root) :].lstrip("/")

    def check(self) -> None:
        """Asks the store for its root, which costs one request.

        Raises:
            ZoneError: If it does not answer, refuses, or the bucket does not exist.
        """
        self.folders("")

    def exists(self, address: str) -> bool:
        """Whether there is a file."""
        with failures_told(self.url, f"looking for {address} in"):
            return bool(self.fs.exists(self.full(address)))

    def info(self, address: str) -> dict[str, Any]:
        """What the store says about a file: `type`, `size`, and its time and tag by the names of the store.

        Raises:
            FileNotFoundError: If there is none.
        """
        with failures_told(self.url, f"looking for {address} in"):
            return dict(self.fs.info(self.full(address)))

    def open(self, address: str) -> BinaryIO:
        """Opens a file for reading; what fails while reading is a `ZoneError` too.

        Raises:
            FileNotFoundError: If there is none.
        """
        with failures_told(self.url, f"opening {address} in"):
            return cast(BinaryIO, StoredBytes(self.fs.open(self.full(address), "rb"), self.url))

    def read(self, address: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: If there is none.
        """
        with failures_told(self.url, f"reading {address} in"):
            return cast(bytes, self.fs.cat_file(self.full(address)))

    def content_hash(self, address: str) -> bytes:
        """SHA-256 of a file, read in pieces.

        Raises:
            FileNotFoundError: If there is none.
        """
        with self.open(address) as stream:
            return hash_of(stream)

    def files_below(self, parent: str, name: str) -> dict[str, dict[str, Any]]:
        """What `info` says about each file below folder `name` of `parent` (empty: the root), by path in the file system. No folder: no files."""
        inner = f"{parent}/{name}" if parent else name
        with failures_told(self.url, f"listing {inner} in"):
            if self.is_local:
                return dict(self._walk(self.full(inner)))
            try:
                # One request a thousand objects, none where there are none.
                return dict(self.fs.find(self.full(parent).rstrip("/"), prefix=f"{name}/", detail=True))
            except FileNotFoundError:
                raise self._no_bucket() from None

    def folders(self, prefix: str) -> Sequence[str]:
        """Names of the folders in a folder (empty: the root), in order."""
        with failures_told(self.url, f"listing {prefix or 'the root'} in"):
            try:
                entries = self.fs.ls(self.full(prefix).rstrip("/"), detail=True)
            except FileNotFoundError:
                if not self.is_local and not self.fs.exists(self.root.partition("/")[0]):
                    raise self._no_bucket() from None
                return []
        return sorted(str(entry["name"]).rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def write(self, address: str, data: bytes | Path, *, is_new: bool) -> None:
        """Writes a file so that readers see it complete or not at all.

        Args:
            address: Where.
            data: The bytes, or a file of this machine that holds them.
            is_new: Refuse a name that is taken, as far as the store can; else write over it.

        Raises:
            FileExistsError: If the name is taken and `is_new`.
        """
        with failures_told(self.url, f"writing {address} in"):
            if self.is_local:
                with self._scratch_beside(address) as scratch:
                    with scratch.open("wb") as file:
                        if isinstance(data, Path):
                            with data.open("rb") as given:
                                shutil.copyfileobj(given, file, _COPY_BYTES)
                        else:
                            file.write(data)
                    self._name_local(scratch, address, is_new=is_new)
            elif isinstance(data, Path):  # an object shows when it is complete, in one piece or several
                self.fs.put_file(str(data), self.full(address), mode="create" if is_new else "overwrite")
            else:
                self.fs.pipe_file(self.full(address), data, mode="create" if is_new else "overwrite")

    @contextmanager
    def scratch(self, address: str) -> Iterator[Path]:
        """A local file to write what `publish` then names: beside its final place in a folder store, in the machine's temporary folder for S3."""
        if self.is_local:
            with failures_told(self.url, f"writing {address} in"), self._scratch_beside(address) as path:
                yield path
        else:
            with tempfile.TemporaryDirectory(prefix="tidemark-") as folder:
                yield Path(folder) / "scratch"

    def publish(self, scratch: Path, address: str) -> None:
        """Gives a complete scratch file its final name, written over what had it; its bytes are on disk before."""
        with failures_told(self.url, f"writing {address} in"):
            if self.is_local:
                self._name_local(scratch, address, is_new=False)
            else:
                self.fs.put_file(str(scratch), self.full(address))

    def remove(self, address: str) -> bool:
        """Removes a file, and in a folder store the folders that it leaves empty. Returns whether it was there."""
        with failures_told(self.url, f"removing {address} in"):
            try:
                self.fs.rm_file(self.full(address))
            except FileNotFoundError:
                return False
            if self.is_local:
                self._remove_empty(Path(self.full(address)).parent)
            return True

    def _remove_empty(self, folder: Path) -> None:
        while folder != Path(self.root):
            try:
                folder.rmdir()
            except OSError:
                return  # something is in it, or somebody else was faster
            folder = folder.parent

    def _walk(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Files below a folder of this machine, links left out.

        fsspec's own `find` passes over a folder that may not be read as if it were empty, and its `ls` takes three times as long for a file.
        """
        try:
            entries = os.scandir(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # it went meanwhile
                    yield entry.path, {"type": "file", "size": found.st_size, "mtime": found.st_mtime, "ino": found.st_ino}

    @contextmanager
    def _scratch_beside(self, address: str) -> Iterator[Path]:
        target = Path(self.full(address))
        self._make_folder(target.parent)
        scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """Makes a folder and those above it; each name is on disk, else a power cut could take a file with its folder."""
        if folder in self._lasting and folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        # Not only where it was missing: who made it a moment ago may not have come so far, and our file must not be lost with it.
        for made in (folder, *folder.parents):
            _sync(made.parent)
            if made == Path(self.root):
                break
        if len(self._lasting) >= _REMEMBERED:
            self._lasting.clear()
        self._lasting.add(folder)

    def _name_local(self, scratch: Path, address: str, *, is_new: bool) -> None:
        target = Path(self.full(address))
        _sync(scratch)
        if not (is_new and _link(scratch, target)):
            scratch.replace(target)
        _sync(target.parent)

    def _no_bucket(self) -> ZoneError:
        """An empty store and a missing bucket must not look alike: the one has nothing in it, the other is a mistake."""
        return ZoneError(f"the bucket of {self.url} does not exist; make it, or correct {self.setting}")


def hash_of(stream: BinaryIO) -> bytes:
    """SHA-256 of what a stream still holds, read in pieces."""
    digest = hashlib.sha256()
    while piece := stream.read(_COPY_BYTES):
        digest.update(piece)
    return digest.digest()


def modified_at(info: dict[str, Any]) -> datetime:
    """When a file was last written, UTC, from what its store says about it."""
    value = info.get("mtime", info.get("LastModified", 0))
    return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)


def _sync(path: Path) -> None:
    """Has a file's bytes or a folder's names on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(scratch: Path, target: Path) -> bool:
    """Gives a complete file its final name if nothing has it yet; False where the file system has no hard links and the name must be taken by renaming."""
    try:
        os.link(scratch, target)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            return False
        raise
    return True


def open_store(url: str, setting: str = "TIDEMARK_LANDING_URL") -> tuple[AbstractFileSystem, str]:
    """The file system of a store's URL, and the store's root in it.

    Raises:
        ZoneError: If the URL is neither `file://` nor `s3://` with a bucket, or holds credentials.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise ZoneError(f"{setting} holds credentials or options; put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the secrets file instead")
    if parts.scheme == "file":
        store, root = fsspec.core.url_to_fs(url)
    elif parts.scheme == "s3" and parts.netloc:
        store, root = fsspec.filesystem("s3", **_s3_options()), f"{parts.netloc}{parts.path}"
    else:
        raise ZoneError(f"{setting} must look like file:///srv/folder or s3://bucket/folder, got {url!r}")
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
