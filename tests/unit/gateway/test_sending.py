"""Files cut into posts: every row once, in order, with its number in the file; and what is said of rows that were not taken."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from include.gateway import sending
from include.gateway.client import Accepted, ClientError, GatewayUnavailable, PostRefused
from include.gateway.sending import NotTaken, Taken, portions, send_file


class Gateway:
    """Takes posts, but what the test says otherwise about the n-th of them."""

    def __init__(self, **troubles: Exception) -> None:
        self.bodies: list[bytes] = []
        self.arguments: list[dict[str, Any]] = []
        self._troubles = {int(name.removeprefix("at_")): error for name, error in troubles.items()}

    def post(self, stream: str, body: bytes, **arguments: Any) -> Accepted:
        self.bodies.append(body)
        self.arguments.append({"stream": stream, **arguments})
        if len(self.bodies) in self._troubles:
            raise self._troubles[len(self.bodies)]
        return Accepted(f"r{len(self.bodies)}", may_be_twice=False)


def file_of(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def cut(path: Path, rows: int = 3) -> list[tuple[bytes, tuple[int, ...]]]:
    return [(portion.body, portion.numbers) for portion in portions(path, rows)]


@pytest.mark.parametrize("name", ["f.ndjson", "f.jsonl", "f.json", "f.NDJSON.gz"])
def test_lines_keep_their_numbers(tmp_path: Path, name: str) -> None:
    path = file_of(tmp_path, name, '\ufeff{"a":1}\n\n  \n{"a":4}\r\nno json\n{"a":6}')
    assert cut(path) == [(b'{"a":1}\n{"a":4}\nno json', (1, 4, 5)), (b'{"a":6}', (6,))]


def test_elements_of_an_array_are_a_line_each(tmp_path: Path) -> None:
    path = file_of(tmp_path, "f.json", '[{"a":\r\n  1}, {"b": [2,\n3]},\n, "x"]')
    assert cut(path) == [(b'{"a":    1}\n{"b": [2, 3]}\nnull', (1, 2, 3)), (b'"x"', (4,))]


def test_a_post_ends_at_its_rows_or_its_bytes(tmp_path: Path) -> None:
    lines = [json.dumps({"n": number, "text": "x" * 200_000}) for number in range(13)]
    path = file_of(tmp_path, "f.ndjson", "\n".join(lines))
    found = list(portions(path, rows=100))
    assert [len(portion.numbers) for portion in found] == [6, 6, 1]
    assert b"\n".join(portion.body for portion in found).decode().split("\n") == lines


def test_a_row_that_may_be_refused_for_its_length_goes_alone(tmp_path: Path) -> None:
    path = file_of(tmp_path, "f.ndjson", "\n".join(['{"n":1}', '{"n":2}', json.dumps("x" * (2 << 20)), '{"n":4}']))
    assert [portion.numbers for portion in portions(path)] == [(1, 2), (3,), (4,)]


def test_memory_follows_the_post_and_not_the_file(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 4000}) + "\n"
    path = tmp_path / "large.ndjson.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for _ in range(40_000):  # 160 MB
            file.write(line)
    tracemalloc.start()
    try:
        rows = sum(len(portion.numbers) for portion in portions(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 40_000
    assert peak < 64 << 20


def test_rows_are_sent_in_order_and_told_with_their_receipts(tmp_path: Path) -> None:
    gateway = Gateway()
    path = file_of(tmp_path, "f.ndjson", "\n".join(f'{{"n":{n}}}' for n in range(5)))
    assert list(send_file(gateway, "orders", path, rows=2, is_strict=True, compress=True)) == [  # type: ignore[arg-type]
        Taken((1, 2), "r1", may_be_twice=False),
        Taken((3, 4), "r2", may_be_twice=False),
        Taken((5,), "r3", may_be_twice=False),
    ]
    assert gateway.arguments[0] == {"stream": "orders", "is_strict": True, "compress": True}
    assert b"\n".join(gateway.bodies) == path.read_bytes()


def test_a_refused_post_is_named_by_the_rows_of_the_file_and_the_others_go_on(tmp_path: Path) -> None:
    gateway = Gateway(at_2=PostRefused(422, "422 rows are wrong", ({"row": 2, "errors": [{"code": "missing"}]},)))
    path = file_of(tmp_path, "f.ndjson", "\n".join(["{}", "", "{}", "{}", "", "{}", "{}"]))
    first, second, third = send_file(gateway, "orders", path, rows=2)  # type: ignore[arg-type]
    assert (first, third) == (Taken((1, 3), "r1", may_be_twice=False), Taken((7,), "r3", may_be_twice=False))
    assert second == NotTaken(4, 6, 422, "422 rows are wrong", "", ({"row": 6, "errors": [{"code": "missing"}]},))


@pytest.mark.parametrize(("trouble", "status"), [(PostRefused(401, "401 unknown key"), 401), (GatewayUnavailable("no answer"), None)])
def test_what_every_post_would_meet_ends_the_sending(tmp_path: Path, trouble: Exception, status: int | None) -> None:
    gateway = Gateway(at_2=trouble)
    path = file_of(tmp_path, "f.ndjson", "\n".join(["{}"] * 9))
    _, last = send_file(gateway, "orders", path, rows=2)  # type: ignore[arg-type]
    assert last == NotTaken(3, None, status, str(trouble), "")
    assert len(gateway.bodies) == 2


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("f.json", '[{"a":1},{"a":2},{"a":3},{"a"', "not complete"),
        ("f.ndjson", "{}\n{}\n{}\n" + "x" * (17 << 20), "longer than 16 MiB"),
    ],
)
def test_a_file_that_breaks_off_is_sent_as_far_as_it_can_be_read(tmp_path: Path, name: str, text: str, reason: str) -> None:
    gateway = Gateway()
    *taken, last = send_file(gateway, "orders", file_of(tmp_path, name, text), rows=2)  # type: ignore[arg-type]
    sent = [number for each in taken if isinstance(each, Taken) for number in each.numbers]
    assert isinstance(last, NotTaken)
    assert (last.first, last.last, last.status) == (len(sent) + 1, None, None)
    assert reason in last.reason
    assert name == "f.ndjson" or sent == [1, 2, 3]


@pytest.mark.parametrize("name", ["f.csv", "f.parquet", "f.csv.gz", "f", "f.posts"])
def test_what_the_gateway_does_not_take_is_sent_to_import(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClientError, match="neither") as refused:
        list(portions(file_of(tmp_path, name, "a,b\n")))
    assert "tidemark import" in refused.value.hint


def test_utf_16_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    gateway = Gateway()
    path = tmp_path / "f.ndjson"
    path.write_bytes('{"a":1}\n'.encode("utf-16"))
    (only,) = send_file(gateway, "orders", path)  # type: ignore[arg-type]
    assert isinstance(only, NotTaken)
    assert "UTF-8" in only.reason
    assert gateway.bodies == []
    assert sending.ROWS == 5_000
