"""The zone is looked at before posts are taken, and what killed gateways left goes."""

from __future__ import annotations

from pathlib import Path

from include.gateway.disk import FULL, ZoneWatch, sweep_scratch
from include.landing.object_store import ObjectStore


def test_posts_are_taken_again_when_there_is_space_again(tmp_path: Path) -> None:
    free = iter([1000, 999, 1000])
    watch = ZoneWatch(ObjectStore(tmp_path.as_uri(), "ZONE"), 1000, free_space=lambda folder: next(free))
    said = []
    for _ in range(3):
        watch.look(is_doubtful=False)
        said.append((watch.trouble, watch.free))
    assert said == [(None, 1000), (FULL, 999), (None, 1000)]


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    watch = ZoneWatch(ObjectStore((tmp_path / "zone").as_uri(), "ZONE"), 0)
    watch.look(is_doubtful=True)
    assert watch.trouble is None
    assert list((tmp_path / "zone").iterdir()) == []


def test_what_somebody_may_still_be_writing_stays(tmp_path: Path) -> None:
    names = [f".000000000001-gateway-00000000.posts.{'0' * 32}", f".gateway-probe-{'1' * 32}"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    store = ObjectStore(tmp_path.as_uri(), "ZONE")
    assert sweep_scratch(store) == 0
    assert sweep_scratch(store, older_than_s=-1) == 2
    assert list(tmp_path.iterdir()) == []
