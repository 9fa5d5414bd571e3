"""Whether the landing zone can take posts: free space, a file that can be written, and no litter of gateways that were killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from include.landing.object_store import ObjectStore

LOOK_EVERY_S = 1.0
SCRATCH_AGE_S = 3600.0  # a group is written within seconds; another gateway may share the zone
_PROBE = ".gateway-probe-"
_SCRATCH = re.compile(r"\.[0-9]{12}-gateway-[0-9a-f]{8}\.posts\.[0-9a-f]{32}|\.gateway-probe-[0-9a-f]{32}")
FULL = "the disk of the landing zone is nearly full"
REFUSES = "the landing zone cannot be written to"

logger = logging.getLogger("tidemark.gateway")


class ZoneWatch:
    """Looks after the zone all the time, so that posts are refused before their bodies are read.

    Args:
        store: The zone.
        free_bytes: Free space below which nothing is taken; without meaning for S3.
        free_space: Free bytes of a folder's disk.

    Attributes:
        trouble: Why nothing can be stored now, in words for senders; None while all is well.
        free: Free bytes of the zone's disk when last looked at; None for S3 and before the first look.
    """

    def __init__(self, store: ObjectStore, free_bytes: int, free_space: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free) -> None:
        self._store, self._free_bytes, self._free_space = store, free_bytes, free_space
        self._doubt = asyncio.Event()
        self.trouble: str | None = None
        self.free: int | None = None

    def doubt(self) -> None:
        """Has the zone looked at now, by writing to it: somebody failed."""
        self._doubt.set()

    def look(self, *, is_doubtful: bool) -> None:
        """Looks once. Blocks while the store does.

        Args:
            is_doubtful: Also try whether the zone can be written to.
        """
        before = self.trouble
        try:
            self.trouble = self._local_trouble(is_doubtful) if self._store.is_local else self._remote_trouble(is_doubtful)
        except Exception as error:  # whatever it is, nobody would look again
            logger.warning("%s: %s", self._store.url, error)
            self.trouble = REFUSES
        if self.trouble != before:
            logger.warning("%s: %s", self._store.url, self.trouble or "takes posts again")

    async def watch(self) -> None:
        """Looks every second, and at once where there is doubt, until it is cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), LOOK_EVERY_S)
            is_doubtful = self._doubt.is_set() or self.trouble is not None
            self._doubt.clear()
            await asyncio.to_thread(self.look, is_doubtful=is_doubtful)

    def _local_trouble(self, is_doubtful: bool) -> str | None:
        root = Path(self._store.root)
        if is_doubtful:
            root.mkdir(parents=True, exist_ok=True)
            _try_writing(root)
        self.free = self._free_space(root)
        return FULL if self.free < self._free_bytes else None

    def _remote_trouble(self, is_doubtful: bool) -> str | None:
        # An object of our own that proves that the bucket can be written to might have to stay in it: writers need no right to remove.
        if is_doubtful:
            self._store.check()
        return None


def sweep_scratch(store: ObjectStore, older_than_s: float = SCRATCH_AGE_S) -> int:
    """Removes what gateways that were killed while writing left in the zone. Objects of S3 are whole or not there.

    Args:
        store: The zone.
        older_than_s: Leave what was written in so many seconds: it may be another gateway's.

    Returns:
        How many files were removed.
    """
    if not store.is_local:
        return 0
    removed, oldest = 0, time.time() - older_than_s
    for path in _scratch_files(Path(store.root)):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()
                removed += 1
    if removed:
        logger.info("removed %d files that a killed gateway had not finished", removed)
    return removed


def _scratch_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder) / name for name in names if name.startswith(".") and _SCRATCH.fullmatch(name))


def _try_writing(folder: Path) -> None:
    probe = folder / f"{_PROBE}{uuid.uuid4().hex}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
