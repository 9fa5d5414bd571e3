"""Bodies are judged as landing reads them: every number of rows that a sender is told is the number that lands."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.gateway.bodies import JSON, MAX_ROWS, NDJSON, QUICK_BYTES, Kind, check_length, kind_of, read_body
from include.gateway.model import Body
from include.gateway.problems import Problem
from include.landing.json_files import json_lines
from include.landing.source import Source

AT = datetime(2026, 1, 1, tzinfo=UTC)
MOST = 1 << 20
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def judged(plain: bytes, content_type: str, encoding: str = "identity", most: int = MOST) -> Body:
    return read_body(plain, Kind(content_type, encoding), most, AT)


def refused(sent: bytes, content_type: str, encoding: str) -> Problem | None:
    try:
        judged(sent, content_type, encoding)
    except Problem as problem:
        return problem
    return None


def landed(plain: bytes, file_format: str) -> int:
    return sum(len(numbers) for _, numbers in json_lines(Source(0, io.BytesIO(plain), file_format, None)))


@given(st.lists(VALUES, min_size=1, max_size=30), st.sampled_from([None, 1]), st.sampled_from([0, QUICK_BYTES]))
@settings(max_examples=150, deadline=None)
def test_elements_are_counted_as_landing_counts_them(rows: list, indent: int | None, padding: int) -> None:
    plain = (json.dumps(rows, indent=indent, ensure_ascii=False) + " " * padding).encode()
    assert judged(plain, JSON).rows == len(rows) == landed(plain, "json")


@given(st.lists(st.text(alphabet=' \t\r\v\f\n{}"1', max_size=6), max_size=30))
@settings(max_examples=300, deadline=None)
def test_lines_are_counted_as_landing_counts_them(lines: list[str]) -> None:
    plain = "\n".join(lines).encode()
    wanted = landed(plain, "ndjson")
    if wanted:
        assert judged(plain, NDJSON).rows == wanted
    else:
        with pytest.raises(Problem, match="no row"):
            judged(plain, NDJSON)


@given(st.binary(max_size=200), st.sampled_from(["identity", "gzip", "zstd"]), st.sampled_from([JSON, NDJSON]))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_taken_or_refused_with_words(noise: bytes, encoding: str, content_type: str) -> None:
    for sent in (noise, gzip.compress(noise), gzip.compress(b"{}" * 9)[: len(noise)], pa.compress(b"{}" * 9, "zstd", asbytes=True)[: len(noise)]):
        refusal = refused(sent, content_type, encoding)
        assert refusal is None or (refusal.status in {400, 413} and refusal.detail)


def test_a_large_array_is_counted_across_pieces() -> None:
    rows = [{"text": 'a "quoted, [text]" \\'}] * 30_000
    plain = b"\xef\xbb\xbf" + json.dumps(rows).encode()
    assert len(plain) > 1 << 20
    assert judged(plain, JSON, most=2 * MOST).rows == 30_000
    assert judged(b" " * QUICK_BYTES + b"[ {} ]", JSON).rows == 1
    with pytest.raises(Problem, match="no row"):
        judged(b" " * QUICK_BYTES + b"[ ]", JSON)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_the_bound_is_on_the_unpacked_body(encoding: str) -> None:
    pack = {"identity": bytes, "gzip": gzip.compress, "zstd": lambda plain: pa.compress(plain, "zstd", asbytes=True)}[encoding]
    fitting = b'{"a": "' + b"x" * (MOST - 9) + b'"}'
    assert len(fitting) == MOST
    assert judged(pack(fitting), JSON, encoding).plain == fitting
    with pytest.raises(Problem) as raised:
        judged(pack(fitting + b" "), JSON, encoding)
    assert (raised.value.status, raised.value.extensions) == (413, {"limit_bytes": MOST})


@pytest.mark.parametrize(("shape", "content_type"), [(b"[%s{}]", JSON), (b"%s{}", NDJSON)])
def test_rows_have_a_bound(shape: bytes, content_type: str) -> None:
    between = b"{}," if content_type == JSON else b"\n"
    assert judged(shape % (between * (MAX_ROWS - 1)), content_type, most=4 * MAX_ROWS).rows == (MAX_ROWS if content_type == JSON else 1)
    with pytest.raises(Problem) as raised:
        judged(shape % (between * (MAX_ROWS + 1)), content_type, most=4 * MAX_ROWS)
    assert (raised.value.status, raised.value.extensions) == (413, {"limit_rows": MAX_ROWS})


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"content-type": "application/json"}, Kind(JSON, "identity")),
        ({"content-type": 'Application/JSON; Charset="UTF-8"; x=y', "content-encoding": "GZIP"}, Kind(JSON, "gzip")),
        ({"content-type": "application/x-ndjson", "content-encoding": "identity"}, Kind(NDJSON, "identity")),
        ({"content-type": "application/x-ndjson", "content-encoding": " x-gzip "}, Kind(NDJSON, "gzip")),
    ],
)
def test_kinds_are_read_as_http_writes_them(headers: dict[str, str], kind: Kind) -> None:
    assert kind_of(headers) == kind


def test_a_stated_length_is_judged_before_the_body() -> None:
    check_length({"content-length": "10"}, 10)
    check_length({}, 10)
    with pytest.raises(Problem) as raised:
        check_length({"content-length": "11"}, 10)
    assert raised.value.status == 413
