"""Rows of posts: whatever is posted, and however posts stand together in a file, a row is what it would be in a file of its own."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.contracts import load_contract
from include.landing import post_rows as post_rows_module
from include.landing.errors import UnreadableFile
from include.landing.object_store import StoredBytes
from include.landing.post_rows import JSON, NDJSON, LostPost, PostRows, UnreadableBody, plain_body, post_rows
from include.landing.posts import new_group
from include.landing.readers import read_chunks
from include.landing.source import Source, blocks
from tests.support.payloads import at, telemetry
from tests.support.posts import PACK, Sent, array, frames, ndjson, single

TELEMETRY = load_contract("device_telemetry")
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LINES = st.text(alphabet='{}[]",:a1 \\\r\t\v', max_size=12).map(str.encode)


def source(posts, tenant=None):
    return Source(0, io.BytesIO(frames(new_group("orders", AT), "acme", posts)), "posts", None, tenant)


def rows_of(posts, tenant=None):
    """Rows by number, numbers of lost ones, and the first row of each post."""
    opened = source(posts, tenant)
    rows, lost = {}, {}
    for part in post_rows(opened):
        if isinstance(part, LostPost):
            rows[part.number] = part.body
            lost[part.number] = part.reason
        else:
            rows |= dict(zip(part[1].tolist(), part[0], strict=True))
    return rows, lost, opened.first_rows


def test_every_kind_of_body_gives_its_rows_with_their_numbers():
    rows, lost, first = rows_of([
        Sent(b'{"a":1}\n\n{"a":2}\r\n'),
        Sent(b'\xef\xbb\xbf {"a":\n3}\n', JSON),
        Sent(b'[{"a":4},\n {"a":\n5}]', JSON),
        Sent(b"[]", JSON),
        Sent(PACK["gzip"](b'[{"a":6}]'), JSON, "gzip"),
        Sent(PACK["zstd"](b'{"a":7}'), NDJSON, "zstd"),
        Sent(b"\n", NDJSON),
        Sent(b'{"a":8}', JSON),
    ])  # fmt: skip
    assert rows == {
        1: b'{"a":1}', 3: b'{"a":2}', 4: b'{"a":\n3}', 5: b'{"a":4}', 6: b'{"a":\n5}', 7: b'{"a":6}', 8: b'{"a":7}', 10: b'{"a":8}'
    }  # fmt: skip
    assert (lost, first) == ({}, [1, 4, 5, 7, 7, 8, 9, 10])


OBJECTS = st.dictionaries(st.text(), st.integers())
POSTS = (
    st.lists(LINES, max_size=4).map(lambda lines: Sent(b"\n".join(lines)))
    | st.builds(
        lambda value, indent: Sent(json.dumps(value, indent=indent).encode(), JSON),
        OBJECTS | st.lists(st.none() | OBJECTS, max_size=4),
        st.sampled_from([None, 1]),
    )
    | LINES.map(lambda text: Sent(b"[" + text, JSON))
)


@settings(max_examples=200, deadline=None)
@given(posts=st.lists(POSTS, max_size=8), size=st.sampled_from([1, 20, 1 << 20]))
def test_a_post_reads_alike_alone_and_among_others(posts, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post_rows_module, "BLOCK_BYTES", size)
        rows, lost, first = rows_of(posts)
    expected, unreadable = {}, {}
    for post, begin in zip(posts, first, strict=True):
        alone, reasons, _ = rows_of([post])
        expected |= {number + begin - 1: row for number, row in alone.items()}
        unreadable |= {number + begin - 1: reason for number, reason in reasons.items()}
    assert rows == expected
    assert lost == unreadable
    assert first == sorted(first)


def test_a_body_that_cannot_be_read_is_one_row_and_spoils_nothing():
    packed = PACK["gzip"](b'{"a":1}')
    posts = [
        Sent(b'{"a":1}'),
        Sent(packed[:-3], NDJSON, "gzip"),
        Sent(b'[{"a":1}, {"a"', JSON),
        Sent(b"\xff\xfe{\x00}\x00", JSON),
        Sent(b'{"a":2}', NDJSON, "gzip"),
        Sent(b"{}", "text/plain"),
        Sent(b"{}", NDJSON, "br"),
        Sent(b'{"a":3}'),
    ]
    rows, lost, first = rows_of(posts)
    assert list(rows) == first == list(range(1, 9))
    assert (rows[1], rows[2], rows[8]) == (b'{"a":1}', packed[:-3], b'{"a":3}')
    assert [
        word in lost[number] for number, word in zip(range(2, 8), ("breaks off", "breaks off in element 2", "UTF-8", "gzip", "text/plain", "br"), strict=True)
    ] == [True] * 6
    (first_chunk, chunk) = read_chunks(iter([source(posts)]), TELEMETRY)
    assert len(first_chunk) == 2
    assert {str(error.code) for errors in chunk.errors.values() for error in errors} == {"malformed_json"}
    assert [chunk.errors[row][0].message for row in range(6)] == list(lost.values())
    assert list(chunk.originals) == [rows[number] for number in range(2, 8)]


def test_an_element_that_is_no_json_is_one_row():
    rows, lost, first = rows_of([single({"a": 1}), Sent(b'[{"a": NaN},\n{"a": 1,}, , 7]', JSON), single({"a": 2})])
    assert list(rows.values()) == [b'{"a": 1}', b'{"a": NaN}', b'{"a": 1,}', b"", b"7", b'{"a": 2}']
    assert (list(rows), lost, first) == (list(range(1, 7)), {}, [1, 2, 6])


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=40) | st.just(b"ab" * 5000),
    encoding=st.sampled_from(["gzip", "zstd"]),
    members=st.integers(0, 3),
    cut=st.integers(0, 12),
    tail=st.sampled_from([b"", b"\0", b"\0\0\0", b"x", b"\x1f\x8b"]),
)
def test_what_the_reader_of_files_can_unpack_can_be_unpacked_and_nothing_else(data, encoding, members, cut, tail):
    packed = PACK[encoding](data) * members
    packed = packed[: len(packed) - cut] + tail

    def outcome(unpack):
        try:
            return unpack()
        except (UnreadableFile, UnreadableBody):
            return None

    assert outcome(lambda: plain_body(packed, encoding)) == outcome(lambda: b"".join(blocks(Source(0, io.BytesIO(packed), "ndjson", encoding))))


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_a_bomb_is_not_unpacked_whole(encoding):
    packed = PACK[encoding](b"x" * 1000)
    assert plain_body(packed, encoding, 1000) == b"x" * 1000
    for bomb in (packed, gzip.compress(b"x" * 500) * 3 if encoding == "gzip" else packed):
        with pytest.raises(UnreadableBody, match="larger than 999 bytes"):
            plain_body(bomb, encoding, 999)


def test_many_posts_of_one_row_become_few_chunks():
    posts = [(ndjson, single, array)[number % 3](telemetry(f"m{number}", at(0, 1))) for number in range(3000)]
    chunks = list(read_chunks(iter([source(posts)]), TELEMETRY))
    assert len(chunks) == 1
    assert sum(map(len, chunks)) == 3000
    assert chunks[0].columns["device_id"].to_list() == [f"m{number}" for number in range(3000)]  # a series: it was read in bulk
    assert not chunks[0].errors


def test_a_damaged_file_and_one_of_another_tenant_are_unreadable():
    group = new_group("orders", AT)
    data = frames(group, "beta", [ndjson("{}")]) + frames(group, "acme", [ndjson("{}")])
    with pytest.raises(UnreadableFile, match="frame 2: posted for tenant acme, in a file of tenant beta"):
        list(post_rows(Source(0, io.BytesIO(data), "posts", None, "beta")))
    with pytest.raises(UnreadableFile, match="frame 1: breaks off"):
        list(post_rows(Source(0, io.BytesIO(frames(group, "acme", [ndjson("{}")])[:-2]), "posts", None)))


def test_streams_of_a_store_are_read_in_large_pieces():
    data = frames(new_group("orders", AT), "acme", [ndjson("{}")] * 1000)
    reads = []

    class Counting(io.BytesIO):
        def read(self, size=-1):
            reads.append(size)
            return super().read(size)

    rows = list(post_rows(Source(0, StoredBytes(Counting(data), "file:///zone"), "posts", None)))
    assert sum(len(lines) for lines, _ in rows) == 1000
    assert len(reads) < 5


def test_nothing_of_a_body_that_is_refused_is_kept():
    rows = PostRows()
    with pytest.raises(UnreadableBody):
        rows.add(b"[1", JSON)
    assert (rows.next_number, list(rows.taken())) == (1, [])
