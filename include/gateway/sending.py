"""Files of events as posts, one after another so that rows arrive in their order. Files are read in pieces: memory follows the post and not the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.gateway.client import ClientError, GatewayClient, PostRefused
from include.landing.errors import UnreadableFile
from include.landing.json_files import json_lines
from include.landing.source import Source, format_of

ROWS = 5_000
BYTES = 1 << 20  # a post is full when it has so many: as large as a file of the gateway, which then waits for no others
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True)
class Portion:
    """Rows of a file that are posted together.

    Attributes:
        body: NDJSON, a line a row.
        numbers: Number in the file of each row: of its line, or of its element in an array.
    """

    body: bytes
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Taken:
    """Rows that are safe.

    Attributes:
        numbers: Their numbers in the file.
        receipt: The receipt of their post.
        may_be_twice: Whether the post may be stored twice, because it was sent before without an answer.
    """

    numbers: tuple[int, ...]
    receipt: str
    may_be_twice: bool


@dataclass(frozen=True)
class NotTaken:
    """Rows that the gateway did not take.

    Attributes:
        first: Number in the file of the first of them.
        last: Number of the last; None for everything that follows.
        status: HTTP status; None where there was no answer or the file could not be read further.
        reason: Why.
        hint: What to do; empty where the reason says it.
        refused: With strict validation what is wrong with which rows, as the gateway says it but with the number in the file as `row`.
    """

    first: int
    last: int | None
    status: int | None
    reason: str
    hint: str
    refused: tuple[dict[str, Any], ...] = ()


class BrokenFile(ClientError):
    """A file cannot be read further; what came before is good."""


def send_file(
    client: GatewayClient, stream: str, path: Path, *, rows: int = ROWS, is_strict: bool = False, compress: bool = False
) -> Iterator[Taken | NotTaken]:
    """Posts a file and tells of each post what came of it. Ends early where every further post would meet the same.

    Args:
        client: The session.
        stream: Stream of the rows.
        path: The file; see `portions`.
        rows: Most rows of a post.
        is_strict: Take a post only if every row of it is valid.
        compress: Send posts as gzip.

    Raises:
        ClientError: If the gateway takes no such files.
    """
    reached = 0
    try:
        for portion in portions(path, rows):
            first, reached = portion.numbers[0], portion.numbers[-1]
            try:
                accepted = client.post(stream, portion.body, is_strict=is_strict, compress=compress)
            except PostRefused as refusal:
                ends = refusal.is_for_all
                refused = tuple(in_file(row, portion.numbers) for row in refusal.rows)
                yield NotTaken(first, None if ends else reached, refusal.status, str(refusal), refusal.hint, refused)
                if ends:
                    return
            except ClientError as error:
                yield NotTaken(first, None, None, str(error), error.hint)
                return
            else:
                yield Taken(portion.numbers, accepted.receipt, accepted.may_be_twice)
    except BrokenFile as error:
        yield NotTaken(reached + 1, None, None, str(error), error.hint)


def portions(path: Path, rows: int = ROWS) -> Iterator[Portion]:
    """The rows of a file in portions that fit a post. What they hold is not looked at.

    Rows are lines, of which those of blanks only are left out, or the elements of an array.

    Args:
        path: NDJSON or JSON (`.ndjson`, `.jsonl`, `.json`), plain, `.gz` or `.zst`.
        rows: Most rows of a portion.

    Raises:
        ClientError: If the gateway takes no such files.
        BrokenFile: If compression or array break off, a row is too long, or the text is not UTF-8.
    """
    file_format, compression = format_of(path.name)
    if file_format not in ("ndjson", "json"):
        raise ClientError(
            f"the gateway takes NDJSON and JSON, and {path.name} is neither",
            "`tidemark import` takes CSV and Parquet; NDJSON and JSON end with .ndjson, .jsonl or .json (.gz or .zst may follow)",
        )
    with path.open("rb") as stream:
        waiting: list[bytes] = []
        numbers: list[int] = []
        size = 0
        try:
            for lines, found in json_lines(Source(0, stream, file_format, compression)):
                for line, number in zip(lines, found.tolist(), strict=True):
                    if numbers and len(line) >= BYTES:  # a long row goes alone: the gateway may refuse it, and not its neighbours
                        yield Portion(b"\n".join(waiting), tuple(numbers))
                        waiting, numbers, size = [], [], 0
                    # An element of an array may have line ends between its tokens, or be missing, which is an error of its row.
                    waiting.append(line.translate(_ONE_LINE) or b"null")
                    numbers.append(number)
                    size += len(line) + 1
                    if len(numbers) == rows or size >= BYTES:
                        yield Portion(b"\n".join(waiting), tuple(numbers))
                        waiting, numbers, size = [], [], 0
        except UnreadableFile as error:
            if numbers:
                yield Portion(b"\n".join(waiting), tuple(numbers))
            raise BrokenFile(f"{path.name}: {error.reason}", "mend the file and post it again: rows that are there already count once") from None
        if numbers:
            yield Portion(b"\n".join(waiting), tuple(numbers))


def in_file(row: Mapping[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    """What the gateway says about a row of a post, with the row's number in the file."""
    return {**row, "row": numbers[row["row"] - 1]}
