"""Group commit: posts wait a moment for others of their stream and tenant, become one file of the zone, and are acknowledged once it is on disk."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

from include.gateway.model import Body, Caller
from include.gateway.problems import Problem
from include.landing.posts import GroupName, Post, frame, new_group

COMMITS = 8  # groups that are written at the same time; each mostly waits for the disk
KEY_SHARE = 2  # one key has at most half of the memory for bodies, so that it cannot keep the others out
RETRY_BUSY_S, RETRY_ZONE_S = 1, 5

logger = logging.getLogger("tidemark.gateway")


class Store(Protocol):
    """What a group is written to: `include.landing.object_store.ObjectStore`."""

    def write(self, address: str, data: bytes, *, is_new: bool) -> None:
        """Writes a file so that it is there, on disk, with all its bytes, or not at all."""


class Budget:
    """Bytes of bodies that are being received or wait to be stored. One key has at most its share of them.

    Args:
        limit: Most bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._by_key: Counter[str] = Counter()

    @contextmanager
    def share(self, key_id: str) -> Iterator[Callable[[int], None]]:
        """Gives what reserves bytes for a post; they are free again at the end.

        The function raises `Problem` (503) where there are none left.
        """
        held = 0

        def reserve(size: int) -> None:
            nonlocal held
            if self.used + size > self.limit or self._by_key[key_id] + size > self.limit // KEY_SHARE:
                detail = "more posts wait to be stored than the gateway may hold in memory; send the same body again after Retry-After seconds"
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_BUSY_S)})
            self.used += size
            self._by_key[key_id] += size
            held += size

        try:
            yield reserve
        finally:
            self.used -= held
            self._by_key[key_id] -= held
            if not self._by_key[key_id]:
                del self._by_key[key_id]


@dataclass
class _Waiting:
    """A post of a group: its key, its body, and who waits for the receipt."""

    key_id: str
    body: Body
    receipt: asyncio.Future[str]


@dataclass
class _Group:
    """Posts that will be one file."""

    stream: str
    tenant: str
    posts: list[_Waiting] = field(default_factory=list)
    size: int = 0
    timer: asyncio.TimerHandle | None = None


class Intake:
    """Takes posts and gives their receipts once they are safe.

    Args:
        store: The zone.
        group_ms: How long a post waits for others, in milliseconds.
        group_bytes: Bytes of bodies at which a group is closed before that. A post that is larger is a file of its own.
        on_failure: Called, on the event loop, when a file could not be written.
        on_stored: Called, on the event loop, with posts and bytes of a file that was written and the seconds that it took.
    """

    def __init__(
        self,
        store: Store,
        *,
        group_ms: int,
        group_bytes: int,
        on_failure: Callable[[], None] = lambda: None,
        on_stored: Callable[[int, int, float], None] = lambda posts, size, seconds: None,  # noqa: ARG005 - names say what is given
    ) -> None:
        self._store, self._group_s, self._group_bytes = store, group_ms / 1000, group_bytes
        self._on_failure, self._on_stored = on_failure, on_stored
        self._groups: dict[tuple[str, str], _Group] = {}
        self._due: dict[tuple[str, str], None] = {}  # groups whose time is over, that which has been so longest first
        self._commits: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(COMMITS, thread_name_prefix="commit")
        self.waiting = 0  # posts that have no receipt yet

    async def take(self, caller: Caller, stream: str, body: Body) -> str:
        """Stores a post.

        Returns:
            Its receipt. From then on its bytes are on disk under their final name.

        Raises:
            Problem: 503 if its file could not be written. It may be there all the same, if only the answer of the store was lost.
        """
        loop = asyncio.get_running_loop()
        key = (stream, caller.tenant_id)
        size = len(body.stored)
        group = self._groups.get(key)
        if group is not None and group.size + size > self._group_bytes:
            self._close(group)
            group = None
        if group is None:
            group = self._groups[key] = _Group(stream, caller.tenant_id)
            group.timer = loop.call_later(self._group_s, self._end_wait, group)
        post = _Waiting(caller.key_id, body, loop.create_future())
        group.posts.append(post)
        group.size += size
        if group.size >= self._group_bytes:
            self._close(group)
        self.waiting += 1
        try:
            return await post.receipt
        finally:
            self.waiting -= 1

    def flush(self) -> None:
        """Closes every group now, and from now on each with its first post: for a gateway that is about to end."""
        self._group_s = 0.0
        for group in list(self._groups.values()):
            self._close(group)

    async def end(self) -> None:
        """Stores what waits, and ends the threads."""
        self.flush()
        while self._commits:
            await asyncio.wait(self._commits)
        self._threads.shutdown()

    def _end_wait(self, group: _Group) -> None:
        """Closes a group whose time is over, once it can be written: until then it would only keep others of its kind from sharing its file."""
        if len(self._commits) < COMMITS:
            self._close(group)
        else:
            self._due[group.stream, group.tenant] = None

    def _close(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
        self._groups.pop((group.stream, group.tenant), None)
        self._due.pop((group.stream, group.tenant), None)
        task = asyncio.get_running_loop().create_task(self._commit(group))
        self._commits.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        if self._due and len(self._commits) < COMMITS:
            self._close(self._groups[next(iter(self._due))])

    async def _commit(self, group: _Group) -> None:
        loop = asyncio.get_running_loop()
        name = new_group(group.stream, datetime.now(UTC))
        started = loop.time()
        try:
            await loop.run_in_executor(self._threads, self._write, name, group)
        except Exception:
            # Whatever it was, the posts are not safe: nobody may wait for ever, and nobody learns more than that.
            logger.exception("%d posts of %s for tenant %s could not be stored as %s", len(group.posts), group.stream, group.tenant, name.file_name)
            self._on_failure()
            for post in group.posts:
                if not post.receipt.done():
                    post.receipt.set_exception(_not_stored())
            return
        for number, post in enumerate(group.posts, start=1):
            if not post.receipt.done():
                post.receipt.set_result(name.receipt(number))
        self._on_stored(len(group.posts), group.size, loop.time() - started)

    def _write(self, name: GroupName, group: _Group) -> None:
        frames = [frame(_header(name, number, group.tenant, post), post.body.stored) for number, post in enumerate(group.posts, start=1)]
        self._store.write(name.address(group.tenant), b"".join(frames), is_new=True)


def _header(name: GroupName, number: int, tenant: str, post: _Waiting) -> Post:
    body = post.body
    return Post(
        receipt=name.receipt(number),
        tenant=tenant,
        key_id=post.key_id,
        received_at=body.received_at,
        content_type=body.content_type,
        encoding=body.encoding,
        length=len(body.stored),
        sha256=hashlib.sha256(body.stored).hexdigest(),
    )


def _not_stored() -> Problem:
    detail = "the post could not be stored; send the same body again after Retry-After seconds"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_ZONE_S)})
