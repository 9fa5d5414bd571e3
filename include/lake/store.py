"""Where files of the lake lie and what they are called, the manifest of each stream, and bytes that are checked before they are read.

`<stream>/event_date=YYYY-MM-DD/b<first>-<last>.parquet`, relative to the lake: the UTC day of event time, and the inclusive range of `_batch_id` that the file
covers, zero-padded so that names sort. Where a range is written again with other bytes, `.<n>` stands before the suffix. A name is given once; a file without a
line in `ops.file` was never there for readers.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import psycopg

from include.lake import files
from include.lake.errors import LakeDamaged, LakeError
from include.lake.files import LakeFile
from include.landing.object_store import ObjectStore
from include.settings import get_settings

MANIFEST = "_manifest.json"
_FORMAT = 1
_COPY_BYTES = 4 << 20


def open_lake() -> ObjectStore:
    """The lake that the settings name.

    Raises:
        ZoneError: If its URL is neither `file://` nor `s3://`.
    """
    return ObjectStore(get_settings().lake_root, "TIDEMARK_LAKE_URL")


def address_of(stream: str, day: date, first_batch_id: int, last_batch_id: int, edition: int = 0) -> str:
    """Address of a file; `edition` counts the files that were entered for the same day and batches before."""
    again = f".{edition}" if edition else ""
    return f"{stream}/event_date={day:%Y-%m-%d}/b{first_batch_id:012d}-{last_batch_id:012d}{again}.parquet"


def is_own_name(stream: str, address: str) -> bool:
    """Whether an address is one that only the lake gives, for a file of rows or for one that it did not get through with; the manifest is none of them."""
    return address.startswith((f"{stream}/event_date=", f"{stream}/.{MANIFEST}."))


@dataclass(frozen=True)
class Manifest:
    """What the lake says about a stream without a warehouse.

    Attributes:
        stream: The stream.
        exported_batch_id: Up to which batch it holds the rows.
        last_file_id: No file that its rows came in has a greater number.
        files: Its live files; `file_id` is 0, because numbers are the warehouse's.
    """

    stream: str
    exported_batch_id: int
    last_file_id: int
    files: tuple[LakeFile, ...]


def read_manifest(lake: ObjectStore, stream: str) -> Manifest | None:
    """The manifest of a stream; None where there is none.

    Raises:
        LakeDamaged: If it cannot be read.
    """
    address = f"{stream}/{MANIFEST}"
    try:
        document = json.loads(lake.read(address))
        if document["format"] != _FORMAT:
            raise LakeError(f"{address} in {lake.url} has format {document['format']}, this version reads {_FORMAT}: upgrade Tidemark")
        found = tuple(_from_entry(stream, day, entry) for day, entries in document["days"].items() for entry in entries)
        return Manifest(stream, int(document["exported_batch_id"]), int(document["last_file_id"]), found)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LakeDamaged(f"{address} in {lake.url} is no manifest of the lake: {error!r}") from error


def write_manifest(lake: ObjectStore, connection: psycopg.Connection, stream: str) -> None:
    """Writes the manifest from `ops.file` where it does not say so already, and once there are files. Derived: a lost one is written by the next export."""
    live = files.live_files(connection, stream)
    days: dict[str, list[dict[str, Any]]] = {}
    for file in live:
        days.setdefault(file.event_date.isoformat(), []).append(_entry(file))
    before = read_manifest(lake, stream)
    if before is None and not live:
        return
    exported = files.exported_batch(connection, stream) or 0
    if before is not None and before.exported_batch_id == exported and [_entry(file) for file in before.files] == [_entry(file) for file in live]:
        return
    document = {"format": _FORMAT, "stream": stream, "exported_batch_id": exported, "last_file_id": files.last_file_id(connection), "days": days}
    lake.write(f"{stream}/{MANIFEST}", json.dumps(document, indent=1).encode(), is_new=False)


def refuse_strangers(lake: ObjectStore, connection: psycopg.Connection, stream: str) -> None:
    """Refuses to write where another warehouse did: its files would be swept, and its rows lost.

    Raises:
        LakeError: If the manifest names a file that `ops.file` does not know.
    """
    manifest = read_manifest(lake, stream)
    unknown = files.unknown(connection, [file.address for file in manifest.files]) if manifest else []
    if unknown:
        raise LakeError(
            f"the lake {lake.url} holds {len(unknown)} files of {stream} that this warehouse never wrote, first {unknown[0]}. To get their rows back "
            f"into an empty warehouse, run `tidemark rebuild --from-lake`; to give them up, remove {stream}/{MANIFEST} from the lake; "
            "else name another TIDEMARK_LAKE_URL"
        )


@contextmanager
def checked(lake: ObjectStore, file: LakeFile) -> Iterator[Path]:
    """The bytes of a file as a file of this machine, once it is known that they are those that were entered.

    Raises:
        LakeDamaged: If they are gone or differ.
    """
    digest, size = hashlib.sha256(), 0
    with ExitStack() as stack:
        path = Path(lake.full(file.address))
        if not lake.is_local:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemark-"))) / "copy"
        try:
            with lake.open(file.address) as stored, nullcontext() if lake.is_local else path.open("wb") as copy:
                while piece := stored.read(_COPY_BYTES):
                    digest.update(piece)
                    size += len(piece)
                    if copy is not None:
                        copy.write(piece)
        except FileNotFoundError:
            raise LakeDamaged(f"{file.address} is gone from {lake.url}") from None
        if (digest.digest(), size) != (file.content_hash, file.size_bytes):
            raise LakeDamaged(f"{file.address} in {lake.url} has other bytes than were entered ({size:,} instead of {file.size_bytes:,}, or other content)")
        yield path


def _entry(file: LakeFile) -> dict[str, Any]:
    return {
        "address": file.address,
        "rows": file.row_count,
        "bytes": file.size_bytes,
        "sha256": file.content_hash.hex(),
        "digest": file.content_digest.hex(),
        "batches": [file.first_batch_id, file.last_batch_id],
        "event_time": [file.first_event_at.isoformat(), file.last_event_at.isoformat()],
        "contract_version": file.contract_version,
    }


def _from_entry(stream: str, day: str, entry: dict[str, Any]) -> LakeFile:
    first_event_at, last_event_at = (datetime.fromisoformat(text) for text in entry["event_time"])
    return LakeFile(
        file_id=0,
        stream=stream,
        event_date=date.fromisoformat(day),
        address=str(entry["address"]),
        content_hash=bytes.fromhex(entry["sha256"]),
        size_bytes=int(entry["bytes"]),
        row_count=int(entry["rows"]),
        content_digest=bytes.fromhex(entry["digest"]),
        first_batch_id=int(entry["batches"][0]),
        last_batch_id=int(entry["batches"][1]),
        first_event_at=first_event_at,
        last_event_at=last_event_at,
        contract_version=str(entry["contract_version"]),
    )
