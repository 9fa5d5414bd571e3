"""Which posts share a file."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

from include.gateway.intake import COMMITS, Intake
from include.gateway.model import Body, Caller

ROW = b'{"a": 1}'
BODY = Body(ROW, "application/json", "identity", ROW, 1, datetime(2026, 3, 1, tzinfo=UTC), len(ROW))


class SlowDisk:
    """A zone that takes files when it is told to."""

    def __init__(self) -> None:
        self.is_free = threading.Event()
        self.begun = threading.Semaphore(0)
        self.addresses: list[str] = []

    def write(self, address: str, data: bytes, *, is_new: bool) -> None:
        self.addresses.append(address)
        self.begun.release()
        assert self.is_free.wait(60)


def test_posts_go_on_sharing_files_while_the_disk_has_no_time_for_them() -> None:
    disk = SlowDisk()

    async def talk() -> list[str]:
        intake = Intake(disk, group_ms=0, group_bytes=1 << 20)

        def post(tenant: str) -> asyncio.Task[str]:
            return asyncio.create_task(intake.take(Caller("key", tenant, None, None), "orders", BODY))

        posts = [post(f"busy{number}") for number in range(COMMITS)]
        for _ in range(COMMITS):
            await asyncio.to_thread(disk.begun.acquire)
        for _ in range(5):  # each would have been a file of its own
            posts += [post("late"), post("later")]
            for _ in range(5):  # until their time, of nothing, is over
                await asyncio.sleep(0)
        assert intake.waiting == len(posts)
        disk.is_free.set()
        receipts = await asyncio.gather(*posts)
        await intake.end()
        return receipts

    receipts = asyncio.run(talk())
    assert len(set(receipts)) == COMMITS + 10
    assert len(disk.addresses) == COMMITS + 2
    assert [address.split("/")[3] for address in disk.addresses[COMMITS:]] == ["tenant=late", "tenant=later"]


def test_what_waits_for_the_disk_is_stored_at_the_end() -> None:
    disk = SlowDisk()

    async def talk() -> None:
        intake = Intake(disk, group_ms=0, group_bytes=1 << 20)
        posts = [asyncio.create_task(intake.take(Caller("key", f"t{number}", None, None), "orders", BODY)) for number in range(3 * COMMITS)]
        for _ in range(COMMITS):
            await asyncio.to_thread(disk.begun.acquire)
        ending = asyncio.create_task(intake.end())
        await asyncio.sleep(0)
        disk.is_free.set()
        await ending
        await asyncio.gather(*posts)

    asyncio.run(talk())
    assert len(disk.addresses) == 3 * COMMITS
