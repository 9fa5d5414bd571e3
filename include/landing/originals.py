"""The way back: the bytes of one row as they stood in its file of the zone."""

from __future__ import annotations

import numpy as np

from include.landing.errors import LandingError
from include.landing.readers import Source, csv_rows, ndjson_lines, parquet_tables
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


def read_original(address: str, row_number: int) -> bytes:
    """The bytes of a row.

    Args:
        address: Of its file in the zone.
        row_number: 1-based, as `raw.<stream>._row_number` and the quarantine have it.

    Raises:
        LandingError: If the file is not in the zone any more, or has no such row.
    """
    zone = Zone(get_settings().zone_url)
    file = zone.find(address)
    if file is None:
        raise LandingError(f"{address} is not in the zone {zone.url} any more")
    with zone.open(file) as stream:
        source = Source(0, stream, file.file_format, file.compression)
        if file.file_format == "ndjson":
            for lines, numbers in ndjson_lines(source):
                if row_number in numbers:
                    return lines[int(np.flatnonzero(numbers == row_number)[0])]
        elif file.file_format == "csv":
            for rows in csv_rows(source):
                if row_number in rows.numbers:
                    return rows.originals[rows.numbers.index(row_number)]
        else:
            for first, originals, _ in parquet_tables(source):
                if first <= row_number < first + len(originals):
                    return originals[row_number - first]
    raise LandingError(f"{address} has no row {row_number}")
