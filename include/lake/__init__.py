"""The lake: rows that landed, as Parquet by day of event time, for as long as the contract says and at a fraction of their size."""

from __future__ import annotations

from include.lake.errors import LakeBusy, LakeDamaged, LakeError
from include.lake.export import Export, export_days, export_stream
from include.lake.files import LakeFile, live_files
from include.lake.restore import Restored, restore_month, restore_stream
from include.lake.verify import verify

__all__ = [
    "Export",
    "LakeBusy",
    "LakeDamaged",
    "LakeError",
    "LakeFile",
    "Restored",
    "export_days",
    "export_stream",
    "live_files",
    "restore_month",
    "restore_stream",
    "verify",
]
