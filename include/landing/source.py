"""A file of a batch as readers see it: stored bytes, what its name says they are, and its plain bytes in blocks of bounded size."""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import pyarrow as pa
from isal import igzip, igzip_lib

from include.landing.errors import UnreadableFile

BLOCK_BYTES = 8 << 20
MAX_ROW_BYTES = 16 << 20  # of one line, element or record; more than that is a missing line end, quote or bracket
CHUNK_BYTES = 32 << 20  # a chunk has fewer rows where rows are large
SPOOL_BYTES = 32 << 20  # a compressed Parquet file beyond that is unpacked to disk: its readers seek
UNKNOWN_FORMAT = "unknown"
FORMATS = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
POSTS_ENDING, POSTS = ".posts", "posts"  # what the gateway writes, and nobody else
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_ENDINGS = {compression: ending for ending, compression in COMPRESSIONS.items()}
_BOM_UTF8 = b"\xef\xbb\xbf"
_BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # the first also begins the byte order mark of UTF-32


@dataclass(frozen=True)
class Source:
    """An opened file of a batch.

    Attributes:
        position: Position of the file in its batch.
        stream: Its stored bytes.
        file_format: `ndjson`, `json`, `csv`, `parquet` or `posts`.
        compression: `gzip`, `zstd` or None.
        tenant: Tenant that a file of posts belongs to; None where nobody asks.
        first_rows: Of a file of posts, the number of the first row of each post; filled by its reader.
    """

    position: int
    stream: BinaryIO
    file_format: str
    compression: str | None
    tenant: str | None = None
    first_rows: list[int] = field(default_factory=list)


def format_of(name: str) -> tuple[str, str | None]:
    """Format and compression that the ending of a file's name states, upper or lower case; `unknown` where it states none."""
    name = name.lower()
    ending = _ending(name)
    compression = COMPRESSIONS.get(ending)
    ending = _ending(name.removesuffix(ending)) if compression else ending
    return POSTS if ending == POSTS_ENDING else FORMATS.get(ending, UNKNOWN_FORMAT), compression


def _ending(name: str) -> str:
    """Last ending of a name with its dot, as in `pathlib`, which takes ten times as long."""
    at = name.rfind(".")
    return name[at:] if 0 < at < len(name) - 1 else ""


def stored_format(file_format: str, compression: str | None) -> str:
    """Format and compression as the ledger writes them, e.g. `ndjson.gz`."""
    return f"{file_format}{_ENDINGS[compression]}" if compression else file_format


def blocks(source: Source) -> Iterator[bytes]:
    """Plain bytes of a file in blocks of at most `BLOCK_BYTES`, decompressed as they are read. Streams of several gzip members or zstd frames are one file.

    Raises:
        UnreadableFile: If the compression is broken or not complete, or a compressed file has no bytes at all.
    """
    plain = _plain(source)
    is_empty = True
    while True:
        try:
            block = plain.read(BLOCK_BYTES)
        except (EOFError, gzip.BadGzipFile, igzip_lib.IsalError) as error:  # type: ignore[misc]  # its stub forgets what it derives from
            raise UnreadableFile(source.position, f"not a complete gzip file: {error}") from error
        except OSError as error:
            if source.compression != "zstd":
                raise
            raise UnreadableFile(source.position, f"not a complete zstd file: {error}") from error
        if not block:
            break
        is_empty = False
        yield block
    if is_empty and source.compression and source.stream.tell() == 0:
        raise UnreadableFile(source.position, f"not a complete {source.compression} file: it has no bytes")


def json_text(source: Source) -> Iterator[bytes]:
    """Blocks of a file of JSON text, without a byte order mark.

    Raises:
        UnreadableFile: If the compression is broken, or the text is UTF-16 or UTF-32: JSON that is exchanged is UTF-8 (RFC 8259).
    """
    is_start = True
    for block in blocks(source):
        if is_start and block.startswith(_BOMS_UTF16):
            raise UnreadableFile(source.position, "starts with a UTF-16 or UTF-32 byte order mark; JSON must be UTF-8")
        yield block.removeprefix(_BOM_UTF8) if is_start else block
        is_start = False


def seekable(source: Source) -> BinaryIO:
    """A file's plain bytes for readers that jump about; what is compressed is unpacked into memory or, where it is large, into a temporary file.

    Raises:
        UnreadableFile: If the compression is broken.
    """
    if source.compression is None:
        return source.stream
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - the reader closes it
    for block in blocks(source):
        spool.write(block)
    spool.seek(0)
    return cast(BinaryIO, spool)


def _plain(source: Source) -> BinaryIO:
    if source.compression == "gzip":
        return cast(BinaryIO, igzip.GzipFile(fileobj=source.stream, mode="rb"))
    if source.compression == "zstd":
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(_NotClosed(source.stream), mode="r"), "zstd"))
    return source.stream


class _NotClosed(io.RawIOBase):
    """Lends a stream to Arrow, which would close it; whoever opened it does that."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Bytes of the stream."""
        return self._stream.read(size)
