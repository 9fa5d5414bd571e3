"""Landing: from files of the landing zone to rows of `raw.<stream>`, every row counted exactly once."""

from __future__ import annotations

from include.landing.check import check_landing
from include.landing.errors import LandingBusy, LandingCheckFailed, LandingError, LandingUnbalanced, RowsUnaccounted, ZoneError
from include.landing.load import LandingResult, Progress, hold, land_everything, land_pending, release, retry_failed
from include.landing.movements import check_partitions
from include.landing.originals import read_original
from include.landing.zone import Zone, ZoneFile

__all__ = [
    "LandingBusy",
    "LandingCheckFailed",
    "LandingError",
    "LandingResult",
    "LandingUnbalanced",
    "Progress",
    "RowsUnaccounted",
    "Zone",
    "ZoneError",
    "ZoneFile",
    "check_landing",
    "check_partitions",
    "hold",
    "land_everything",
    "land_pending",
    "read_original",
    "release",
    "retry_failed",
]
