"""The landing zone: original bytes under addresses that say when they arrived, in a folder (`file://`) or in S3 (`s3://`).

An address is `<stream>/dt=YYYY-MM-DD/hr=HH/[tenant=<t>/][mapping=<m>/]<name>`, relative to the zone. A name that starts with `HHMMSSffffff-` states the
arrival's time of day in UTC; a file without such a stamp arrived at its modification time, clamped into its hour. Names that start with `.` or `_` are
not files of the zone: writers use them for what is not complete yet.

What both stores promise (tests/integration/landing/test_zone.py): a file is there with all its bytes or not at all; a name that the zone made is never given
twice; the version tag differs whenever the bytes do; listing costs what the span asked for holds, however old the zone is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from include.landing.errors import ZoneError
from include.landing.object_store import ObjectStore, modified_at
from include.landing.source import format_of

DEFAULT_TENANT = "default"
SCAN_DAYS = 31  # a longer span is listed by the days that are there, a shorter one by the days asked for

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$")
_STAMP = re.compile(r"^([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9])([0-9]{6})-")
_DATE = re.compile(r"^dt=([0-9]{4}-[0-9]{2}-[0-9]{2})$")
_HOUR_FOLDER = re.compile(r"^hr=([01][0-9]|2[0-3])$")


@dataclass(frozen=True)
class ZoneFile:
    """A complete file of the zone.

    Attributes:
        address: Path relative to the zone.
        stream: Stream that the file belongs to.
        arrived_at: When it arrived, UTC.
        modified_at: When its bytes were last written, UTC, as the store says.
        size_bytes: Size as stored.
        version_tag: Changes whenever the bytes change (in a folder also when the same bytes are written anew); cheap to get.
        tenant_id: Tenant named by the address; None where it names none.
        mapping: Mapping named by the address; None for files in the stream's own shape.
        file_format: `ndjson`, `json`, `csv`, `parquet`, `posts`, or `unknown`.
        compression: `gzip`, `zstd` or None.
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
    """A landing zone, through fsspec.

    Args:
        url: Root of the zone: `file:///folder`, which need not exist yet, or `s3://bucket/prefix`, whose bucket must.

    Raises:
        ZoneError: If the URL is neither. Every method raises it if the store cannot be reached or refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = ObjectStore(url, "TIDEMARK_LANDING_URL")

    def put(
        self,
        stream: str,
        data: bytes | Path,
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
            data: The bytes, kept as they are; or a file of this machine that holds them, copied in pieces.
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
            address = self._write_new(folder, f"{at:%H%M%S%f}-{_safe('source', source)}", ext, data)
        else:
            address = f"{folder}/{_safe('name', name)}"
            self._store.write(address, data, is_new=False)
        file = self.find(address)
        if file is None:
            raise ZoneError(f"{address} is not an address of the zone")
        return file

    def list(
        self, stream: str, arrived_from: datetime | None, arrived_before: datetime | None, *, is_settled: Callable[[str, str], bool] | None = None
    ) -> list[ZoneFile]:
        """Complete files of a stream that arrived in `[arrived_from, arrived_before)`, in order of arrival and address.

        Lists a folder a day, at the edges of the span a folder an hour: the cost follows the span and not the age of the zone. None means no bound.

        Args:
            stream: The stream.
            arrived_from: Start of the span, inclusive.
            arrived_before: End of the span, exclusive.
            is_settled: Of address and version tag, whether nobody needs the file; asked day by day. Such files cost little and are left out.
        """
        found: list[ZoneFile] = []
        for folder, name in self._folders_of(stream, arrived_from, arrived_before):
            for path, info in self._store.files_below(folder, name).items():
                address = self._store.relative(path)
                if is_settled is not None and is_settled(address, _version_tag(info)):
                    continue
                file = self._describe(address, info)
                if file is None or (arrived_from and file.arrived_at < arrived_from) or (arrived_before and file.arrived_at >= arrived_before):
                    continue
                found.append(file)
        return sorted(found, key=lambda file: (file.arrived_at, file.address))

    def check(self) -> None:
        """Asks the store for the zone's root, which costs one request.

        Raises:
            ZoneError: If it does not answer, refuses, or the bucket does not exist.
        """
        self._store.check()

    def find(self, address: str) -> ZoneFile | None:
        """The file at an address, or None where there is none."""
        try:
            return self._describe(address, self._store.info(address))
        except FileNotFoundError:
            return None

    def open(self, file: ZoneFile) -> BinaryIO:
        """Opens the stored bytes (still compressed) for reading.

        Raises:
            FileNotFoundError: If the file is not there any more.
            ZoneError: From here on and while reading, if the store fails.
        """
        return self._store.open(file.address)

    def read(self, file: ZoneFile) -> bytes:
        """The stored bytes, still compressed.

        Raises:
            FileNotFoundError: If the file is not there any more.
        """
        return self._store.read(file.address)

    def content_hash(self, file: ZoneFile) -> bytes:
        """SHA-256 of the stored bytes, read in pieces."""
        return self._store.content_hash(file.address)

    def remove(self, address: str) -> bool:
        """Removes the bytes at an address. Returns whether there were any."""
        return self._store.remove(address)

    def _folders_of(self, stream: str, arrived_from: datetime | None, arrived_before: datetime | None) -> Iterator[tuple[str, str]]:
        """Folders to list, each as its parent and its name: days that lie wholly in the span, hours of the others."""
        lowest = arrived_from.astimezone(UTC).replace(minute=0, second=0, microsecond=0) if arrived_from else None
        for day in self._days(stream, lowest, arrived_before):
            hours = [day + hour * _HOUR for hour in range(24)]
            wanted = [hour for hour in hours if not (lowest and hour < lowest) and not (arrived_before and hour >= arrived_before)]
            date_folder = f"dt={day:%Y-%m-%d}"
            if len(wanted) == len(hours):
                yield stream, date_folder
            else:
                yield from ((f"{stream}/{date_folder}", f"hr={hour:%H}") for hour in wanted)

    def _days(self, stream: str, lowest: datetime | None, before: datetime | None) -> Iterator[datetime]:
        if lowest and before and before - lowest <= SCAN_DAYS * _DAY:
            day = lowest.replace(hour=0)
            while day < before:
                yield day
                day += _DAY
            return
        for folder in self._store.folders(stream):
            date = _DATE.match(folder)
            day_found = _day(date[1]) if date else None
            if day_found and not (lowest and day_found + _DAY <= lowest) and not (before and day_found >= before):
                yield day_found

    def _write_new(self, folder: str, stem: str, ext: str, data: bytes | Path) -> str:
        """Writes under the first free name, also where another process writes at the same moment."""
        number = 0
        while True:
            address = f"{folder}/{_safe('name', f'{stem}-{number}.{ext}')}"
            try:
                if not self._store.exists(address):
                    self._store.write(address, data, is_new=True)
                    return address
            except FileExistsError:
                pass
            number += 1

    def _describe(self, address: str, info: dict[str, Any]) -> ZoneFile | None:
        if info.get("type") != "file":
            return None
        self._refuse_odd(address, info)
        above, _, name = address.rpartition("/")
        folder = _folder(above)
        if folder is None or name.startswith((".", "_")) or not name:
            return None
        written_at = modified_at(info)
        file_format, compression = format_of(name)
        return ZoneFile(
            address=address,
            stream=folder.stream,
            arrived_at=_arrived_at(name, folder.hour, written_at),
            modified_at=written_at,
            size_bytes=int(info["size"]),
            version_tag=_version_tag(info),
            tenant_id=folder.tenant_id,
            mapping=folder.mapping,
            file_format=file_format,
            compression=compression,
        )

    def _refuse_odd(self, address: str, info: dict[str, Any]) -> None:
        """Refuses names that cannot be read back under the address that the ledger would keep: passing over them would lose their rows."""
        try:
            address.encode()
        except UnicodeEncodeError:
            raise ZoneError(f"the name {address.encode(errors='surrogateescape')!r} in {self.url} is not UTF-8; rename the file") from None
        if not self._store.is_local and ("?versionId=" in address or (address.endswith("/") and int(info["size"]) > 0)):
            raise ZoneError(f"the key {address!r} in {self.url} cannot be read by its name; rename the object")


@dataclass(frozen=True)
class _Folder:
    stream: str
    hour: datetime
    tenant_id: str | None
    mapping: str | None


@lru_cache(maxsize=1024)
def _folder(path: str) -> _Folder | None:
    """What the folder of a file says; None where it is none of the zone's. Many files lie in one."""
    parts = path.split("/")
    date = _DATE.match(parts[1]) if len(parts) >= 3 else None
    hour = _HOUR_FOLDER.match(parts[2]) if date else None
    if not date or not hour:
        return None
    options = dict(part.split("=", 1) for part in parts[3:] if "=" in part)
    start = datetime.fromisoformat(date[1]).replace(hour=int(hour[1]), tzinfo=UTC)
    return _Folder(parts[0], start, options.get("tenant"), options.get("mapping"))


def _day(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def _arrived_at(name: str, hour: datetime, modified_at: datetime) -> datetime:
    stamp = _STAMP.match(name)
    if stamp and int(stamp[1]) == hour.hour:
        return hour.replace(minute=int(stamp[2]), second=int(stamp[3]), microsecond=int(stamp[4]))
    return min(max(modified_at, hour), hour + _HOUR - timedelta(microseconds=1))


def _version_tag(info: dict[str, Any]) -> str:
    tag = info.get("ETag")  # a listing has no VersionId, whatever the bucket keeps
    return str(tag).strip('"') if tag else f"{info['size']}-{info.get('mtime', 0)!r}-{info.get('ino', 0)}"


def _safe(part: str, text: str) -> str:
    if not _SAFE.match(text):
        raise ZoneError(f"{part} {text!r} is unfit for an address: use letters, digits and ._@+- (at most 128, no leading dot)")
    return text
