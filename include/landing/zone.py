"""The landing zone: original bytes under addresses that say when they arrived.

An address is `<stream>/dt=YYYY-MM-DD/hr=HH/[tenant=<t>/][mapping=<m>/]<name>`, relative to the zone. A name that starts with `HHMMSSffffff-` states the
arrival's time of day in UTC; a file without such a stamp arrived at its modification time, clamped into its hour. Names that start with `.` or `_` are
not files of the zone: writers use them for what is not complete yet.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from include.landing.errors import ZoneError

DEFAULT_TENANT = "default"
UNKNOWN_FORMAT = "unknown"

_HOUR = timedelta(hours=1)
_SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$")
_STAMP = re.compile(r"^([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])([0-9]{6})-")
_DATE = re.compile(r"^dt=([0-9]{4}-[0-9]{2}-[0-9]{2})$")
_HOUR_FOLDER = re.compile(r"^hr=([01][0-9]|2[0-3])$")
_FORMATS = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class ZoneFile:
    """A complete file of the zone.

    Attributes:
        address: Path relative to the zone.
        stream: Stream that the file belongs to.
        arrived_at: When it arrived, UTC.
        modified_at: When its bytes were last written, UTC, as the store says.
        size_bytes: Size as stored.
        version_tag: Changes whenever the bytes are written anew; cheap to get.
        tenant_id: Tenant named by the address; None where it names none.
        mapping: Mapping named by the address; None for files in the stream's own shape.
        file_format: `ndjson`, `csv`, `parquet`, or `unknown`.
        compression: `gzip` or None.
    """

    address: str
    stream: str
    arrived_at: datetime
    modified_at: datetime
    size_bytes: int
    version_tag: str
    tenant_id: str | None
    mapping: str | None
    file_format: str
    compression: str | None


class Zone:
    """A landing zone at an fsspec URL (`file://…` now).

    Args:
        url: Root of the zone. It need not exist yet.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._is_local = "file" in ((self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol)

    def put(
        self,
        stream: str,
        data: bytes,
        *,
        arrived_at: datetime,
        name: str | None = None,
        source: str | None = None,
        ext: str | None = None,
        tenant: str | None = None,
        mapping: str | None = None,
    ) -> ZoneFile:
        """Writes a file so that readers see it complete or not at all.

        Args:
            stream: Stream the file belongs to.
            data: The bytes, kept as they are.
            arrived_at: When they arrived, with a time zone. Decides the folder, and the stamp in a generated name.
            name: Name to use as it is; an existing file of that name is replaced, which makes a new arrival.
            source: Who wrote it, for a generated name `<HHMMSSffffff>-<source>-<n>.<ext>`.
            ext: Extension of a generated name, e.g. `ndjson.gz`.
            tenant: Tenant of rows that do not name their own.
            mapping: Mapping that turns the file into the stream.

        Raises:
            ZoneError: If a part of the address is unfit, or neither a name nor source and extension are given.
        """
        if arrived_at.tzinfo is None:
            raise ZoneError(f"arrived_at must have a time zone, got {arrived_at!r}")
        at = arrived_at.astimezone(UTC)
        segments = [_safe("stream", stream), f"dt={at:%Y-%m-%d}", f"hr={at:%H}"]
        segments += [f"tenant={_safe('tenant', tenant)}"] if tenant is not None else []
        segments += [f"mapping={_safe('mapping', mapping)}"] if mapping is not None else []
        folder = "/".join(segments)
        if name is None:
            if source is None or ext is None:
                raise ZoneError("a file of the zone needs a name, or a source and an extension")
            stem, number = f"{at:%H%M%S%f}-{_safe('source', source)}", 0
            while self._fs.exists(self._full(f"{folder}/{stem}-{number}.{ext}")):
                number += 1
            name = f"{stem}-{number}.{ext}"
        address = f"{folder}/{_safe('name', name)}"
        self._write(address, data)
        file = self._describe(address, self._info(address))
        if file is None:
            raise ZoneError(f"{address} is not an address of the zone")
        return file

    def list(self, stream: str, arrived_from: datetime | None, arrived_before: datetime | None) -> list[ZoneFile]:
        """Complete files of a stream that arrived in `[arrived_from, arrived_before)`, in order of arrival and address.

        Only folders of the hours asked for are listed, so the cost follows the span and not the age of the zone. None means no bound.
        """
        found: list[ZoneFile] = []
        for date_folder, hour_folder in self._hour_folders(stream, arrived_from, arrived_before):
            prefix = f"{stream}/{date_folder}/{hour_folder}"
            for path, info in self._fs.find(self._full(prefix), detail=True).items():
                file = self._describe(self._relative(path), info)
                if file is None or (arrived_from and file.arrived_at < arrived_from) or (arrived_before and file.arrived_at >= arrived_before):
                    continue
                found.append(file)
        return sorted(found, key=lambda file: (file.arrived_at, file.address))

    def find(self, address: str) -> ZoneFile | None:
        """The file at an address, or None where there is none."""
        try:
            return self._describe(address, self._info(address))
        except FileNotFoundError:
            return None

    def open(self, file: ZoneFile) -> BinaryIO:
        """Opens the stored bytes (still compressed) for reading."""
        return cast(BinaryIO, self._fs.open(self._full(file.address), "rb"))

    def read(self, file: ZoneFile) -> bytes:
        """The stored bytes, still compressed."""
        return cast(bytes, self._fs.cat_file(self._full(file.address)))

    def content_hash(self, file: ZoneFile) -> bytes:
        """SHA-256 of the stored bytes, read in pieces."""
        digest = hashlib.sha256()
        with self.open(file) as stream:
            while piece := stream.read(4 << 20):
                digest.update(piece)
        return digest.digest()

    def _hour_folders(self, stream: str, arrived_from: datetime | None, arrived_before: datetime | None) -> Iterator[tuple[str, str]]:
        lowest = arrived_from.astimezone(UTC).replace(minute=0, second=0, microsecond=0) if arrived_from else None
        for date_folder in self._folders(stream):
            date = _DATE.match(date_folder)
            if not date:
                continue
            try:
                day = datetime.fromisoformat(date[1]).replace(tzinfo=UTC)
            except ValueError:
                continue
            if (lowest and day + timedelta(days=1) <= lowest) or (arrived_before and day >= arrived_before):
                continue
            for hour_folder in self._folders(f"{stream}/{date_folder}"):
                hour = _HOUR_FOLDER.match(hour_folder)
                if not hour:
                    continue
                start = day + int(hour[1]) * _HOUR
                if (lowest and start < lowest) or (arrived_before and start >= arrived_before):
                    continue
                yield date_folder, hour_folder

    def _folders(self, prefix: str) -> Sequence[str]:
        try:
            entries = self._fs.ls(self._full(prefix), detail=True)
        except FileNotFoundError:
            return []
        return sorted(str(entry["name"]).rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def _full(self, address: str) -> str:
        return f"{self._root}/{address}"

    def _relative(self, path: str) -> str:
        return path[len(self._root) :].lstrip("/")

    def _info(self, address: str) -> dict[str, Any]:
        return dict(self._fs.info(self._full(address)))

    def _write(self, address: str, data: bytes) -> None:
        if not self._is_local:
            self._fs.pipe_file(self._full(address), data)  # object stores show an object when it is complete
            return
        target = Path(self._full(address))
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _describe(self, address: str, info: dict[str, Any]) -> ZoneFile | None:
        if info.get("type") != "file":
            return None
        parts = address.split("/")
        name = parts[-1]
        date = _DATE.match(parts[1]) if len(parts) >= 4 else None
        hour = _HOUR_FOLDER.match(parts[2]) if date else None
        if not date or not hour or name.startswith((".", "_")):
            return None
        options = dict(part.split("=", 1) for part in parts[3:-1] if "=" in part)
        start = datetime.fromisoformat(date[1]).replace(hour=int(hour[1]), tzinfo=UTC)
        modified_at = _modified_at(info)
        stem, compression = (name[:-3], "gzip") if name.endswith(".gz") else (name, None)
        return ZoneFile(
            address=address,
            stream=parts[0],
            arrived_at=_arrived_at(name, start, modified_at),
            modified_at=modified_at,
            size_bytes=int(info["size"]),
            version_tag=_version_tag(info),
            tenant_id=options.get("tenant"),
            mapping=options.get("mapping"),
            file_format=_FORMATS.get(Path(stem).suffix.lower(), UNKNOWN_FORMAT),
            compression=compression,
        )


def _arrived_at(name: str, hour: datetime, modified_at: datetime) -> datetime:
    stamp = _STAMP.match(name)
    if stamp and int(stamp[1]) == hour.hour:
        return hour.replace(minute=int(stamp[2]), second=int(stamp[3]), microsecond=int(stamp[4]))
    return min(max(modified_at, hour), hour + _HOUR - timedelta(microseconds=1))


def _modified_at(info: dict[str, Any]) -> datetime:
    value = info.get("mtime", info.get("LastModified", info.get("last_modified", 0)))
    return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)


def _version_tag(info: dict[str, Any]) -> str:
    tag = info.get("VersionId") or info.get("ETag") or info.get("etag")
    return str(tag).strip('"') if tag else f"{info['size']}-{info.get('mtime', 0)!r}-{info.get('ino', 0)}"


def _safe(part: str, text: str) -> str:
    if not _SAFE.match(text):
        raise ZoneError(f"{part} {text!r} is unfit for an address: use letters, digits and ._@+- (at most 128, no leading dot)")
    return text
