"""What is acknowledged must be readable: every body that the gateway takes gives landing exactly the rows that it was acknowledged with."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from include.gateway.bodies import Kind, read_body
from include.gateway.problems import Problem
from include.landing.post_rows import JSON, NDJSON, LostPost, post_rows
from include.landing.posts import new_group
from include.landing.source import Source
from tests.support.posts import PACK, Sent, frames

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='"\\[]{},:a\n\t é\u2028', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TEXTS = (
    st.builds(lambda value, indent: json.dumps(value, indent=indent, ensure_ascii=False).encode(), VALUES, st.sampled_from([None, 1]))
    | st.text(alphabet='{}[]",:a1N \\\r\n\t\v\f\ufeff\x00\x1c\x85', max_size=14).map(str.encode)
    | st.binary(max_size=10)
)
BODIES = st.lists(TEXTS, min_size=1, max_size=4).flatmap(lambda parts: st.sampled_from([b"\n", b"\r\n", b"\n\n", b"", b","]).map(lambda by: by.join(parts)))


@settings(max_examples=1500, deadline=None)
@given(
    plain=BODIES | BODIES.map(lambda body: b"[" + body + b"]") | BODIES.map(lambda body: b"\xef\xbb\xbf" + body),
    content_type=st.sampled_from([JSON, NDJSON]),
    encoding=st.sampled_from(["identity", "gzip", "zstd"]),
    cut=st.sampled_from([0, 0, 0, 3]),
)
def test_a_body_that_is_taken_has_the_rows_it_was_acknowledged_with(plain, content_type, encoding, cut):
    stored = PACK[encoding](plain)
    stored = stored[: len(stored) - cut]
    try:
        body = read_body(stored, Kind(content_type, encoding), 1 << 20, AT)
    except Problem:
        return
    neighbour = Sent(b"{}", JSON)
    opened = Source(0, io.BytesIO(frames(new_group("orders", AT), "acme", [neighbour, Sent(stored, content_type, encoding), neighbour])), "posts", None)
    parts = list(post_rows(opened))
    assert not any(isinstance(part, LostPost) for part in parts)
    assert sum(len(lines) for lines, _ in parts) == body.rows + 2
