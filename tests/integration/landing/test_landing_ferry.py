"""Two publications of one series that disagree: Toronto's ferry tickets as published in September 2024 and in June 2025. Nobody here made them up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from include.landing import LandingResult, land_pending
from include.landing.quarantine import Filter, list_quarantined
from tests.conftest import Warehouse
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import zone

OLDER, NEWER = "toronto_ferry_snapshot_2024-09-24_full.csv.gz", "toronto_ferry_snapshot_2025-06-25_last60000.csv.gz"
SLOTS, REVISED, SHARED = 247_985, 548, 41_294
PUBLISHED = {OLDER: datetime(2024, 9, 24, 14, 45, tzinfo=UTC), NEWER: datetime(2025, 6, 25, 18, 45, tzinfo=UTC)}
# Arrivals are the wrong way round: somebody fetched the newer publication first. What is newer is said by the publications.
ARRIVED = {NEWER: datetime(2026, 3, 1, 12, tzinfo=UTC), OLDER: datetime(2026, 3, 1, 13, tzinfo=UTC)}
DOUBLED = {"2021-11-07T01:30:00": datetime(2021, 11, 7, 5, 30, tzinfo=UTC), "2022-11-06T01:45:00": datetime(2022, 11, 6, 5, 45, tzinfo=UTC)}
DOUBLED |= {"2023-11-05T01:45:00": datetime(2023, 11, 5, 5, 45, tzinfo=UTC)}
CORRECTIONS = """
select key, is_applied, old_content, new_content, old_known_from, old_known_to, new_known_from, old_row_number, new_row_number, o.address, n.address
from ops.correction join ops.file o on o.file_id = old_file_id join ops.file n on n.file_id = new_file_id order by event_id, step
"""


def land(folder: Path, name: str) -> LandingResult:
    zone().put("ticket_counts", (folder / name).read_bytes(), arrived_at=ARRIVED[name], source="import", ext="csv.gz", mapping="toronto_ferry")
    return land_pending("ticket_counts", arrived_from=ARRIVED[NEWER], arrived_before=datetime(2026, 3, 1, 14, tzinfo=UTC))


def published(folder: Path, name: str) -> dict[str, tuple[int, int]]:
    """Sold and redeemed by local time, read without the house."""
    frame = pl.read_csv(folder / name, infer_schema=False)
    counts = zip(frame["Timestamp"], frame["Sales Count"].cast(int), frame["Redemption Count"].cast(int), strict=True)
    return {slot: (sold, redeemed) for slot, sold, redeemed in counts}


@pytest.fixture
def folder(real_data: Path) -> Path:
    return real_data / "ferry"


def test_the_newer_publication_counts_whichever_is_landed_first(warehouse: Warehouse, folder: Path) -> None:
    older, newer = published(folder, OLDER), published(folder, NEWER)
    expected = older | newer
    revised = {slot for slot in older.keys() & newer.keys() if older[slot] != newer[slot]}
    assert (len(expected), len(revised), len(older.keys() & newer.keys())) == (SLOTS, REVISED, SHARED)
    tables: list[tuple[Any, ...]] = []
    for order in ((OLDER, NEWER), (NEWER, OLDER)):
        first, second = (land(folder, name) for name in order)
        assert (first.landed, first.accepted, first.corrected, first.duplicate, first.quarantined) == (first.landed, first.landed, 0, 0, 0)
        assert (second.accepted, second.corrected, second.duplicate, second.quarantined) == (SLOTS - first.landed, REVISED, SHARED - REVISED, 0)
        assert_balanced()
        assert list_quarantined(Filter()) == []

        rows = raw_rows("ticket_counts", without=VOLATILE)
        found = {local_time(row): (row["sold_count"], row["redeemed_count"]) for row in rows}
        assert len(rows) == SLOTS
        assert found == expected
        assert {row["_extra"]["event_at_ambiguous"]: row["event_at"] for row in rows if row["_extra"]} == DOUBLED
        # What was revised, or new, is known since the newer publication; everything else since the older one.
        assert {row["_known_at"] for row in rows} == set(PUBLISHED.values())
        assert {local_time(row) for row in rows if row["_known_at"] == PUBLISHED[NEWER]} == revised | (newer.keys() - older.keys())

        corrections = warehouse.rows(CORRECTIONS)
        assert len(corrections) == REVISED
        for key, is_applied, old, new, old_from, old_to, new_from, *_ in corrections:
            slot = local_time({"event_at": datetime.fromisoformat(key["event_at"]), "_extra": old["_extra"]})
            assert key["location_id"] == "toronto_island_ferry"
            assert slot in revised
            assert (old["sold_count"], old["redeemed_count"]) == older[slot]
            assert (new["sold_count"], new["redeemed_count"]) == newer[slot]
            assert (is_applied, old_from, old_to, new_from) == (True, PUBLISHED[OLDER], PUBLISHED[NEWER], PUBLISHED[NEWER])
        tables.append((rows, corrections))
        if order == (OLDER, NEWER):
            # Models read again what was revised or is new, and nothing else.
            assert (
                warehouse.value("select count(*) from raw.ticket_counts where _batch_id = (select max(batch_id) from ops.batch)") == second.accepted + REVISED
            )
            assert warehouse.value("select count(*) from ops.row_change") == REVISED
        again = land_pending("ticket_counts", arrived_from=ARRIVED[NEWER], arrived_before=datetime(2026, 3, 1, 14, tzinfo=UTC))
        assert again.files == 0
        warehouse.execute("truncate raw.ticket_counts, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state, ops.correction cascade")
        for path in warehouse.zone_dir.rglob("*.csv.gz"):
            path.unlink()
    assert tables[0] == tables[1]


def local_time(row: dict[str, Any]) -> str:
    """The slot as the publisher names it."""
    return row["event_at"].astimezone(ZoneInfo("America/Toronto")).strftime("%Y-%m-%dT%H:%M:%S")
