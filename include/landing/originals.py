"""The way back: the bytes of rows as they stood in their file of the zone."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from include.contracts import load_contract
from include.contracts.csv_dialect import CsvDialect
from include.contracts.mapping import load_mapping
from include.landing.csv_files import csv_rows
from include.landing.errors import LandingError, UnreadableFile
from include.landing.json_files import json_lines
from include.landing.lines import Lines
from include.landing.post_rows import LostPost, post_rows
from include.landing.readers import parquet_tables
from include.landing.source import POSTS, Source
from include.landing.zone import Zone, ZoneFile
from include.settings import get_settings


def find_landed(zone: Zone, address: str, version_tag: str, content_hash: bytes) -> ZoneFile | None:
    """The file at an address, if it still holds the bytes that landed.

    Args:
        zone: The landing zone.
        address: Of the file.
        version_tag: As the ledger has it; where it is the same, the bytes are not read.
        content_hash: SHA-256 of the bytes that landed.
    """
    file = zone.find(address)
    is_same = file is not None and (file.version_tag == version_tag or zone.content_hash(file) == content_hash)
    return file if is_same else None


def read_original(address: str, row_number: int, landed: tuple[str, bytes] | None = None) -> bytes:
    """The bytes of a row.

    Args:
        address: Of its file in the zone.
        row_number: 1-based, as `raw.<stream>._row_number` and the quarantine have it.
        landed: Version tag and content hash of the file that landed; where given, other bytes under its address are none of its rows.

    Raises:
        LandingError: If the file is not in the zone any more, or has no such row.
    """
    zone = Zone(get_settings().zone_url)
    file = zone.find(address) if landed is None else find_landed(zone, address, *landed)
    if file is None:
        raise LandingError(f"{address} is not in the zone {zone.url} any more{'' if landed is None else ' as it landed'}")
    try:
        found = read_originals(zone, file, {row_number})
    except UnreadableFile as error:
        raise LandingError(f"{address} cannot be read: {error.reason}") from error
    if row_number not in found:
        raise LandingError(f"{address} has no row {row_number}")
    return found[row_number]


def read_originals(zone: Zone, file: ZoneFile, row_numbers: Collection[int]) -> dict[int, bytes]:
    """The bytes of several rows of a file, read in one go; rows that it does not have are left out.

    Raises:
        UnreadableFile: If the file cannot be read.
    """
    found: dict[int, bytes] = {}
    with zone.open(file) as stream:
        for number, original in _numbered(Source(0, stream, file.file_format, file.compression), file, row_numbers):
            found[number] = original
            if len(found) == len(row_numbers):
                break
    return found


def _numbered(source: Source, file: ZoneFile, wanted: Collection[int]) -> Iterator[tuple[int, bytes]]:
    if source.file_format in ("ndjson", "json"):
        for lines, numbers in json_lines(source):
            yield from _among(lines, numbers, wanted)
    elif source.file_format == POSTS:
        for part in post_rows(source):
            if not isinstance(part, LostPost):
                yield from _among(*part, wanted)
            elif part.number in wanted:
                yield part.number, part.body
    elif source.file_format == "csv":
        for rows in csv_rows(source, dialect=csv_dialect(file.stream, file.mapping)):
            yield from ((number, rows.originals[at]) for at, number in enumerate(rows.numbers) if number in wanted)
    else:
        for first, originals, _ in parquet_tables(source):
            yield from ((number, originals[number - first]) for number in sorted(wanted) if first <= number < first + len(originals))


def _among(lines: Lines, numbers: NDArray[np.int32], wanted: Collection[int]) -> Iterator[tuple[int, bytes]]:
    yield from ((int(numbers[at]), lines[int(at)]) for at in np.flatnonzero(np.isin(numbers, list(wanted))))


def csv_dialect(stream: str, mapping: str | None) -> CsvDialect:
    """How CSV files of a mapping, or without one of a stream, are written."""
    return load_mapping(mapping).csv if mapping is not None else load_contract(stream).csv
