"""Named steps of the lake at which a test can kill the process (`include.landing.crash`)."""

from __future__ import annotations

from enum import StrEnum


class LakeStep(StrEnum):
    """Steps of an export, a compaction, a sweep, a restore, an expiry, a forgetting and a rebuild, in their order."""

    EXPORT_AFTER_SNAPSHOT = "export_after_snapshot"
    EXPORT_MID_WRITE = "export_mid_write"
    EXPORT_AFTER_RENAME = "export_after_rename"
    EXPORT_BEFORE_ENTRY = "export_before_entry"
    EXPORT_AFTER_ENTRY = "export_after_entry"
    COMPACT_AFTER_WRITE = "compact_after_write"
    COMPACT_BEFORE_ENTRY = "compact_before_entry"
    COMPACT_AFTER_ENTRY = "compact_after_entry"
    SWEEP_MID = "sweep_mid"
    RESTORE_MID_COPY = "restore_mid_copy"
    RESTORE_BEFORE_COMMIT = "restore_before_commit"
    RESTORE_AFTER_COMMIT = "restore_after_commit"
    EXPIRE_AFTER_VERIFY = "expire_after_verify"
    EXPIRE_BEFORE_COMMIT = "expire_before_commit"
    EXPIRE_AFTER_COMMIT = "expire_after_commit"
    LAKE_AFTER_MARK = "lake_after_mark"
    FORGET_BEFORE_COMMIT = "forget_before_commit"
    FORGET_AFTER_COMMIT = "forget_after_commit"
    ZONE_AFTER_MARK = "zone_after_mark"
    ZONE_MID_DELETE = "zone_mid_delete"
    REBUILD_AFTER_TAKE_OVER = "rebuild_after_take_over"
    REBUILD_AFTER_RESTORE = "rebuild_after_restore"
    REBUILD_BETWEEN_MONTHS = "rebuild_between_months"
