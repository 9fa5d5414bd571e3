"""How CSV files of a mapping or a stream are written: part of the mapping (`csv:`) or of the contract (custom property `csv`)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass

KEYS = ("delimiter", "quote", "escape", "encoding", "columns", "repeated", "number")
# Encodings in which a byte below 128 is that ASCII character, so that a line ends where the byte LF is; and UTF-16, which is split after decoding.
_ENCODINGS = re.compile(
    r"ascii|utf-8|utf-16(-[bl]e)?|iso8859-\d+|cp125\d|cp(437|775|85[0-8]|86[0-356]|932|949)|mac-roman|koi8-[rtu]|gb2312|gbk|gb18030|big5|euc_(jp|kr)|shift_jis"
)
_ONE_BYTE = re.compile(r"iso8859-\d+|cp125\d|cp(437|775|85[0-8]|86[0-356])|mac-roman|koi8-[rtu]")

ErrorMaker = Callable[[str, str, str], Exception]


@dataclass(frozen=True)
class CsvDialect:
    """How CSV files are written. As it stands: RFC 4180 in UTF-8, or in UTF-16 with a byte order mark.

    Attributes:
        delimiter: One character between cells.
        quote: One character around cells that hold delimiters, quotes or line ends; None where no character has that meaning.
        escape: One character before a quote or delimiter that is meant literally; None where a quote within a quoted cell is doubled.
        encoding: Canonical name of Python's codec, such as `cp1252`; None where the byte order mark decides, and UTF-8 without one.
        columns: Names of the columns of files without a header; None where the first record names them.
        repeated: Whether several delimiters in a row count as one, and those at the ends of a line as none, as in columns that are set with blanks.
            No cell is empty then.
        number: Name of a column that is added and holds the number of the record, from 1; None for no such column.
    """

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    encoding: str | None = None
    columns: tuple[str, ...] | None = None
    repeated: bool = False
    number: str | None = None

    @property
    def is_one_byte(self) -> bool:
        """Whether each byte is a character, so that nearly any file can be decoded, rightly or wrongly."""
        return self.encoding is not None and _ONE_BYTE.fullmatch(self.encoding) is not None

    def told(self) -> str:
        """The dialect in words, for generated pages."""
        quote = f"quote `{self.quote}`" if self.quote else "no quotes"
        escape = f"escape `{self.escape}`" if self.escape else "quotes within quotes doubled" if self.quote else "no escape"
        delimiter = "tab" if self.delimiter == "\t" else f"`{self.delimiter}`"
        delimiter += ", repeated ones count as one" if self.repeated else ""
        header = f", no header: {', '.join(self.columns)}" if self.columns else ""
        number = f", numbered as {self.number}" if self.number else ""
        return f"delimiter {delimiter}, {quote}, {escape}, {self.encoding or 'UTF-8, or UTF-16 with a byte order mark'}{header}{number}"


RFC_4180 = CsvDialect()


def parse_csv_dialect(entry: object, place: str, error: ErrorMaker) -> CsvDialect:
    """The dialect that a mapping or contract declares; `error` makes the exception from place, problem and remedy."""
    if not isinstance(entry, dict) or not entry:
        raise error(place, f"is {entry!r}", f"give one or more of {', '.join(KEYS)}, or leave it out: comma, double quotes, UTF-8")
    unknown = [str(key) for key in entry if key not in KEYS]
    if unknown:
        raise error(place, f"unknown key {', '.join(unknown)}", f"use one of {', '.join(KEYS)}")
    delimiter = _character(entry.get("delimiter", ","), f"{place}.delimiter", "such as ';' or \"\\t\"", error)
    quote = entry.get("quote", '"')
    quote = None if quote == "none" else _character(quote, f"{place}.quote", "such as '\"', or none where quotes have no meaning", error)
    escape = entry.get("escape", "doubled")
    escape = None if escape == "doubled" else _character(escape, f"{place}.escape", "such as '\\', or doubled where a quote within quotes is doubled", error)
    given = [each for each in (delimiter, quote, escape) if each is not None]
    if len(set(given)) < len(given):
        raise error(place, "gives one character two meanings", "delimiter, quote and escape must differ (a doubled quote is escape: doubled)")
    columns, repeated, number = entry.get("columns"), entry.get("repeated", False), entry.get("number")
    names = columns if isinstance(columns, list) else []
    if columns is not None and (not names or not all(isinstance(name, str) and name.strip() == name != "" for name in names) or len(set(names)) < len(names)):
        raise error(
            f"{place}.columns", f"is {columns!r}", "list the names of the columns of a file without a header, each once; leave it out where there is one"
        )
    if not isinstance(repeated, bool):
        raise error(f"{place}.repeated", f"is {repeated!r}", "write true where several delimiters in a row count as one")
    if number is not None and (not isinstance(number, str) or not number.strip() or number in names):
        raise error(f"{place}.number", f"is {number!r}", "give the name of a column that the file does not have; it will hold the number of the record")
    encoding = _encoding(entry.get("encoding"), f"{place}.encoding", error)
    return CsvDialect(delimiter, quote, escape, encoding, tuple(names) or None, repeated, number)


def _character(value: object, place: str, example: str, error: ErrorMaker) -> str:
    if not isinstance(value, str) or len(value) != 1 or value in "\r\n\x00" or value.isalnum():
        raise error(place, f"is {value!r}", f"give one quoted character, {example}")
    return value


def _encoding(value: object, place: str, error: ErrorMaker) -> str | None:
    if value is None:
        return None
    try:
        name = codecs.lookup(str(value)).name
    except LookupError:
        name = ""
    if not isinstance(value, str) or not _ENCODINGS.fullmatch(name):
        raise error(place, f"{value!r} is no encoding that is read", "use a name such as utf-8 (with or without byte order mark), utf-16-le, windows-1252")
    return name
