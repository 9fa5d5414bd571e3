"""Frames of posts: what is written is read, and damage is found."""

import hashlib
import io
from datetime import UTC, datetime

import pytest

from include.landing.posts import BrokenFrames, Post, frame, locate, new_group, read_frames

AT = datetime(2026, 3, 1, 23, 59, 59, 7, tzinfo=UTC)


def post(body, number=1):
    return Post(new_group("orders", AT).receipt(number), "shop_1", "k1", AT, "application/json", "identity", len(body), hashlib.sha256(body).hexdigest())


def test_posts_are_read_as_they_were_written():
    bodies = [b'{"a":1}', b"", b"\n\n{\n", bytes(range(256)) * 40]
    posts = [post(body, number) for number, body in enumerate(bodies, start=1)]
    stored = b"".join(frame(head, body) for head, body in zip(posts, bodies, strict=True))
    assert list(read_frames(io.BytesIO(stored))) == list(zip(posts, bodies, strict=True))


def test_damage_anywhere_in_a_frame_is_found():
    body = b'{"order_id":"o-1"}'
    stored = frame(post(body), body) * 2
    for cut in range(len(stored)):
        if cut in (0, len(stored) // 2):
            continue
        with pytest.raises(BrokenFrames):
            list(read_frames(io.BytesIO(stored[:cut])))
    place = stored.rindex(b"o-1")
    with pytest.raises(BrokenFrames, match="frame 2: its bytes are not those"):
        list(read_frames(io.BytesIO(stored[:place] + b"x" + stored[place + 1 :])))


def test_a_receipt_says_where_its_file_lies():
    group = new_group("orders", AT)
    assert locate(group.receipt(17)) == (group, 17)
    assert group.address("shop_1") == f"orders/dt=2026-03-01/hr=23/tenant=shop_1/235959000007-gateway-{group.mark}.posts"


@pytest.mark.parametrize(
    "text", ["", "orders", "orders.20260301235959000007.abcdef01.0", "orders.20261301235959000007.abcdef01.1", "../x.20260301235959000007.abcdef01.1"]
)
def test_what_is_no_receipt_is_none(text):
    assert locate(text) is None
