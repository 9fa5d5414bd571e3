"""A store in S3 beside the folders that other tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3fs import S3FileSystem

from include.settings import get_settings
from tests.support.s3 import credentials, new_bucket, s3_server


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A running S3 server of this test process."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder in a bucket of its own; the environment of this process and its children leads there."""
    for name, value in credentials(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    yield f"s3://{new_bucket()}/landing"
    S3FileSystem.clear_instance_cache()
    monkeypatch.undo()
    get_settings.cache_clear()
