"""The same with a zone in S3: the acknowledgement follows the PUT."""

from __future__ import annotations

import io
from pathlib import Path

from s3fs import S3FileSystem

from include.landing.posts import locate, read_frames
from tests.support.gateway import running_gateway

ROW = b'{"device_id": "m-1"}'


def test_an_acknowledged_post_is_an_object(tmp_path: Path, s3_url: str) -> None:
    with running_gateway(tmp_path, s3_url, gateway_group_ms=20) as gateway:
        answer = gateway.post(ROW)
        assert answer.status_code == 202, answer.text
        group, _ = locate(answer.json()["receipt"]) or (None, 0)
        assert group is not None
        stored = S3FileSystem(use_listings_cache=False).cat_file(f"{s3_url}/{group.address('default')}")
        assert [body for _, body in read_frames(io.BytesIO(stored))] == [ROW]


def test_senders_wait_while_the_bucket_is_away(tmp_path: Path, s3_url: str) -> None:
    store, bucket = S3FileSystem(use_listings_cache=False), s3_url.split("/")[2]
    with running_gateway(tmp_path, s3_url, gateway_group_ms=0) as gateway:
        store.rmdir(bucket)
        answer = gateway.post(ROW)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert bucket not in answer.text
        gateway.wait_for_log("cannot be written to")
        assert "cannot be written to" in gateway.post(ROW).json()["detail"]
        store.mkdir(bucket)
        gateway.wait_for_log("takes posts again")
        assert gateway.post(ROW).status_code == 202
        assert len(store.find(s3_url)) == 1
