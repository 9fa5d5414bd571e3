"""CSV files: records with the bytes each was made of, in the dialect that the mapping or the contract declares.

Nothing about a file is guessed. Where no encoding is declared it is that of the byte order mark, and UTF-8 without one. A file that shows that it is written
otherwise (another byte order mark, NUL characters, a header that is one name with delimiters in it, text that is UTF-8 beyond doubt) is refused, and the reason
says what to declare.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from include.contracts.csv_dialect import RFC_4180, CsvDialect
from include.landing.errors import UnreadableFile
from include.landing.rows import CHUNK_ROWS, shown
from include.landing.source import CHUNK_BYTES, MAX_ROW_BYTES, Source, blocks

DECLARE = "of the `csv` declaration in its mapping or contract"
_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_BOMS_UTF32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_LIKELY_DELIMITERS = ",;\t|"
_PROOF_LINES = 3  # lines of valid UTF-8 beyond ASCII, and none that is not: no text in a one-byte encoding looks like that by chance

csv.field_size_limit(2**31 - 1)


@dataclass
class TextRows:
    """Some records of a CSV file as text, before any contract: what mappings work on.

    Attributes:
        header: Names of the columns.
        records: Cells by record; a malformed record is a list of empty cells.
        numbers: Record numbers, from 1.
        originals: Bytes of each record.
        malformed: What is malformed, by position in `records`.
        encoding: How the bytes are read as text.
    """

    header: list[str]
    records: list[list[str]]
    numbers: list[int]
    originals: Sequence[bytes]
    malformed: dict[int, str]
    encoding: str = "utf-8"

    def column(self, index: int) -> list[str | None]:
        """Cells of a column; an empty cell is None."""
        return [record[index] or None for record in self.records]


def csv_rows(source: Source, rows: int = CHUNK_ROWS, dialect: CsvDialect = RFC_4180) -> Iterator[TextRows]:
    """Reads a CSV file in pieces of `rows` records, fewer where they are large.

    Args:
        source: The file.
        rows: Most records of a piece.
        dialect: How it is written.

    Raises:
        UnreadableFile: If it has no usable header, is not in the dialect, or its compression is broken.
    """
    records = _Records(source, dialect)
    header = _header(records, source) if dialect.columns is None else list(dialect.columns)
    if dialect.number in header:
        raise UnreadableFile(source.position, f"has a column {dialect.number} already; give `number` another name {DECLARE}")
    found_by_file, header = len(header), [*header, *filter(None, (dialect.number,))]
    originals: list[bytes] = []
    batch = TextRows(header, [], [], originals, {}, records.encoding)
    number = size = 0
    while True:
        try:
            cells, original, problem = records.next()
        except StopIteration:
            break
        if cells == []:
            continue  # a line without anything is no record
        number += 1
        found = found_by_file if cells is None else len(cells)
        if found != found_by_file:
            cells, problem = None, f"{found} cells under a header of {found_by_file}"
        if cells is None:
            batch.malformed[len(batch.records)] = problem
            cells = [""] * found_by_file
        if dialect.number is not None:
            cells = [*cells, str(number)]
        batch.records.append(cells)
        batch.numbers.append(number)
        originals.append(original)
        size += len(original)
        if len(originals) >= rows or size >= CHUNK_BYTES:
            yield batch
            originals, size = [], 0
            batch = TextRows(header, [], [], originals, {}, records.encoding)
    if originals:
        yield batch


def csv_head(source: Source, dialect: CsvDialect = RFC_4180) -> tuple[bytes, bytes]:
    """What stands before the records of a CSV file, for a file of some of them: the header with its line end, after the byte order mark where that alone says
    that the file is UTF-16; and the bytes that end a line.

    Raises:
        UnreadableFile: If it is not in the dialect, or its compression is broken.
    """
    records = _Records(source, dialect)
    mark = records.mark if records.encoding.startswith("utf-16") else b""
    line_end = "\n".encode(records.encoding)
    if dialect.columns is not None:
        return mark, line_end  # a file without a header
    try:
        header = records.next()[1]
    except StopIteration:
        return b"", line_end
    return mark + header + line_end, line_end


def _header(records: _Records, source: Source) -> list[str]:
    try:
        header, _, problem = records.next()
    except StopIteration:
        return []  # an empty file holds no rows
    if header is None:
        raise UnreadableFile(source.position, f"the header cannot be read: {problem}")
    names = [name.strip() for name in header]
    if any("\x00" in name for name in names):
        raise UnreadableFile(source.position, f"the header holds NUL characters; if the file is UTF-16, write utf-16-le or utf-16-be as encoding {DECLARE}")
    if "" in names or len(set(names)) != len(names):
        raise UnreadableFile(source.position, f"the header has an empty or repeated name: {shown(','.join(names))}")
    inside = [sign for sign in _LIKELY_DELIMITERS if sign in names[0]]
    if len(names) == 1 and inside:
        raise UnreadableFile(source.position, f"the header is one name, {shown(names[0])}; write {inside[0]!r} as delimiter {DECLARE}")
    return names


class _Records:
    """Records of a CSV file with the bytes each was made of, quoted line breaks included."""

    def __init__(self, source: Source, dialect: CsvDialect) -> None:
        self._source = source
        text = blocks(source)
        head = next(text, b"")
        self.encoding, mark = _encoding(source, head, dialect)
        self.mark = head[:mark]
        lines = chain([head[mark:]], text)
        self._lines = self._two_byte_lines(lines) if self.encoding.startswith("utf-16") else self._byte_lines(lines, dialect.is_one_byte)
        self._taken: list[bytes] = []
        self._size = self._number = 0
        self._is_undecodable = False
        self._is_repeated = dialect.repeated
        self._reader = csv.reader(
            self._texts(),
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
            doublequote=dialect.escape is None,
            escapechar=dialect.escape,
            strict=True,
        )

    def next(self) -> tuple[list[str] | None, bytes, str]:
        """Cells (None where malformed), original bytes, and what is malformed.

        Raises:
            StopIteration: At the end of the file.
        """
        self._taken, self._size, self._is_undecodable = [], 0, False
        self._number += 1
        try:
            cells: list[str] | None = next(self._reader)
            problem = ""
            if self._is_repeated:
                cells = [cell for cell in cells or () if cell]
        except csv.Error as error:
            cells, problem = None, str(error)
        if self._is_undecodable and cells is not None:
            cells, problem = None, f"not {self.encoding.upper()}; if the file is written otherwise, name the encoding {DECLARE}"
        return cells, _without_line_end(b"".join(self._taken), self.encoding), problem

    def _texts(self) -> Iterator[str]:
        for line, text in self._lines:
            self._taken.append(line)
            self._size += len(line)
            if self._size > MAX_ROW_BYTES:
                raise self._too_long()
            yield text

    def _byte_lines(self, text: Iterator[bytes], is_one_byte: bool) -> Iterator[tuple[bytes, str]]:
        """Lines with their text, in an encoding in which LF is one byte."""
        rest, in_utf8 = b"", 0
        for block in chain(text, [b""]):
            lines = (rest + block).split(b"\n") if block else ([rest] if rest else [])
            rest = lines.pop() if block else b""
            for line in lines:
                if is_one_byte and in_utf8 >= 0 and not line.isascii():
                    in_utf8 = in_utf8 + 1 if _is_utf8(line) else -1
                whole = line + b"\n" if block else line
                try:
                    yield whole, whole.decode(self.encoding)
                except UnicodeDecodeError:
                    self._is_undecodable = True
                    yield whole, whole.decode(self.encoding, "replace")
            if len(rest) > MAX_ROW_BYTES:
                raise self._too_long()
        if in_utf8 >= _PROOF_LINES:
            raise UnreadableFile(
                self._source.position, f"declared as {self.encoding}, but all {in_utf8:,} lines beyond ASCII are UTF-8: correct the encoding {DECLARE}"
            )

    def _two_byte_lines(self, text: Iterator[bytes]) -> Iterator[tuple[bytes, str]]:
        """Lines with their text in UTF-16, whose line ends are found among characters and not among bytes."""
        rest, line_end = b"", "\n".encode(self.encoding)
        for block in chain(text, [b""]):
            data = rest + block
            cut = _cut_after(data, line_end) if block else len(data)
            if cut % 2:
                raise UnreadableFile(self._source.position, "breaks off within a character of UTF-16")
            rest = data[cut:]
            for line in io.StringIO(data[:cut].decode(self.encoding, "surrogatepass"), newline="\n"):
                self._is_undecodable |= _HALF_PAIR.search(line) is not None
                yield line.encode(self.encoding, "surrogatepass"), line
            if len(rest) > MAX_ROW_BYTES:
                raise self._too_long()

    def _too_long(self) -> UnreadableFile:
        what = "the header" if self._number == 1 else f"record {self._number - 1}"
        return UnreadableFile(self._source.position, f"{what} is longer than {MAX_ROW_BYTES >> 20} MiB: a line end or closing quote is missing")


def _encoding(source: Source, head: bytes, dialect: CsvDialect) -> tuple[str, int]:
    """Encoding of a file that begins with `head`, and the length of its byte order mark."""
    declared = dialect.encoding
    if head.startswith(_BOMS_UTF32):
        raise UnreadableFile(source.position, "starts with a UTF-32 byte order mark, which is not read; write the file in UTF-8")
    for mark, encoding in _BOMS.items():
        if head.startswith(mark):
            if declared in (None, encoding) or (declared == "utf-16" and encoding.startswith("utf-16")):
                return encoding, len(mark)
            raise UnreadableFile(
                source.position, f"declared as {declared}, but starts with the byte order mark of {encoding.upper()}: correct the encoding {DECLARE}"
            )
    if declared == "utf-16" and head:
        raise UnreadableFile(source.position, f"has no byte order mark: write utf-16-le or utf-16-be as encoding {DECLARE}")
    return declared or "utf-8", 0


def _cut_after(data: bytes, line_end: bytes) -> int:
    """Place after the last line end that lies on whole characters of two bytes; 0 where there is none."""
    place = data.rfind(line_end)
    while place > 0 and place % 2:
        place = data.rfind(line_end, 0, place + 1)
    return place + 2 if place >= 0 else 0


def _without_line_end(data: bytes, encoding: str) -> bytes:
    if not encoding.startswith("utf-16"):
        return data.rstrip(b"\r\n")
    while data.endswith(("\n".encode(encoding), "\r".encode(encoding))):
        data = data[:-2]
    return data


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
