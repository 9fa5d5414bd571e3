"""CSV as people write it: declared dialects and encodings are read, and a file that is written otherwise says so instead of being guessed."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.contracts import load_contract
from include.contracts.csv_dialect import RFC_4180, CsvDialect
from include.landing import source as source_module
from include.landing.csv_files import csv_head, csv_rows
from include.landing.errors import UnreadableFile
from include.landing.readers import read_chunks
from include.landing.source import Source

TELEMETRY = load_contract("device_telemetry")
GERMAN = CsvDialect(delimiter=";", encoding="cp1252")


def read(data: bytes, dialect: CsvDialect = RFC_4180, block_bytes: int = 1 << 20):
    """Header, records (None where malformed), originals, and problems."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "BLOCK_BYTES", block_bytes)
        batches = list(csv_rows(Source(0, io.BytesIO(data), "csv", None), 3, dialect))
    records = [None if at in batch.malformed else record for batch in batches for at, record in enumerate(batch.records)]
    originals = [original for batch in batches for original in batch.originals]
    problems = [problem for batch in batches for problem in batch.malformed.values()]
    return batches[0].header if batches else [], records, originals, problems


def test_columns_that_are_set_with_blanks_have_names_and_numbers():
    data = b"1 1  0.5 \n2 7 -1.5  \n\n   \n3 9\n4 4 4 4\n"
    header, records, originals, problems = read(data, CsvDialect(" ", columns=("unit", "cycle", "heat"), repeated=True, number="row"))
    assert header == ["unit", "cycle", "heat", "row"]
    assert records == [["1", "1", "0.5", "1"], ["2", "7", "-1.5", "2"], None, None]
    assert originals[:2] == [b"1 1  0.5 ", b"2 7 -1.5  "]
    assert problems == ["2 cells under a header of 3", "4 cells under a header of 3"]
    assert csv_head(Source(0, io.BytesIO(data), "csv", None), CsvDialect(" ", columns=("a", "b", "c"), repeated=True)) == (b"", b"\n")
    assert "has a column b already" in refusal(b"a,b\n1,2\n", CsvDialect(number="b"))


def refusal(data: bytes, dialect: CsvDialect = RFC_4180) -> str:
    with pytest.raises(UnreadableFile) as refused:
        read(data, dialect)
    return refused.value.reason


CELLS = st.text(alphabet=st.sampled_from("ab;,\t|\"'\\ \n\räß€Ω.\u010a\u0a0d"), max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    quote=st.sampled_from("\"'"),
    escape=st.sampled_from([None, "\\"]),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "gb18030"]),
    block=st.integers(1, 30),
)
def test_what_pythons_writer_writes_is_read_back_with_the_bytes_of_each_record(rows, delimiter, quote, escape, encoding, block):
    rows = [(left or "x", right) for left, right in rows]  # two empty cells are a record too, but an empty line is none
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quotechar=quote, doublequote=escape is None, escapechar=escape, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(("first", "second"))
    head = len(text.getvalue())
    ends = []
    for row in rows:
        writer.writerow(row)
        ends.append(len(text.getvalue()))
    header, records, originals, problems = read(text.getvalue().encode(encoding), CsvDialect(delimiter, quote, escape, encoding), block)
    assert (header, problems) == (["first", "second"], [])
    assert records == [list(row) for row in rows]
    pieces = [text.getvalue()[start:end].removesuffix("\r\n") for start, end in zip([head, *ends], ends, strict=False)]
    assert [original.decode(encoding) for original in originals] == pieces


@pytest.mark.parametrize(
    ("mark", "encoding"), [(b"", "utf-8"), (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")], ids=["none", "utf8", "le", "be"]
)
def test_a_byte_order_mark_decides_where_nothing_is_declared(mark, encoding):
    data = mark + 'name,city\n"Jo ""x""",Köln\nZoë,\n'.encode(encoding)
    for declared in (None, encoding, "utf-16" if mark and "16" in encoding else None):
        header, records, originals, problems = read(data, replace(RFC_4180, encoding=declared), 3)
        assert (header, records, problems) == (["name", "city"], [['Jo "x"', "Köln"], ["Zoë", ""]], [])
        assert originals[1] == "Zoë,".encode(encoding)


def test_a_declared_encoding_is_used_and_what_it_cannot_mean_is_malformed():
    data = 'name;city\nJörg;"Łódź"\n'.encode("cp1250") + b"\x98bad;x\n"
    assert read(data, CsvDialect(";", encoding="cp1250"))[1:2] == ([["Jörg", "Łódź"], None],)
    data = "name;city\nJörg;Köln €\n".encode("cp1252") + b"\x81;x\nlast;y\n"
    _, records, originals, problems = read(data, GERMAN)
    assert records == [["Jörg", "Köln €"], None, ["last", "y"]]
    assert originals[1] == b"\x81;x"
    assert "not CP1252" in problems[0]


def test_text_that_is_no_utf8_is_malformed_row_by_row_and_says_what_to_declare():
    _, records, _, problems = read("name,city\nJörg,x\nAnna,y\n".encode("cp1252"))
    assert records == [None, ["Anna", "y"]]
    assert problems == ["not UTF-8; if the file is written otherwise, name the encoding of the `csv` declaration in its mapping or contract"]


def test_half_a_surrogate_pair_in_utf16_is_malformed():
    data = "a,b\nx,1\n".encode("utf-16-le") + b"\x00\xd8" + ",2\ny,3\n".encode("utf-16-le")
    _, records, originals, _ = read(data, CsvDialect(encoding="utf-16-le"))
    assert records == [["x", "1"], None, ["y", "3"]]
    assert originals[1] == b"\x00\xd8" + ",2".encode("utf-16-le")


@pytest.mark.parametrize(
    ("data", "dialect", "reason"),
    [
        (b"a;b;c\n1;2;3\n", RFC_4180, "write ';' as delimiter"),
        (b"a\tb\n1\t2\n", RFC_4180, r"write '\\t' as delimiter"),
        (b"a,b\n1,2\n", GERMAN, "write ',' as delimiter"),
        ("a,b\n1,2\n".encode("utf-16-le"), RFC_4180, "NUL characters; if the file is UTF-16"),
        ("näme,b\n1,2\n".encode("cp1252"), RFC_4180, "the header cannot be read: not UTF-8"),
        (b"\xef\xbb\xbfa;b\n", GERMAN, "declared as cp1252, but starts with the byte order mark of UTF-8"),
        (b"\xff\xfea\x00", CsvDialect(encoding="utf-16-be"), "declared as utf-16-be, but starts with the byte order mark of UTF-16-LE"),
        ("a,b\n".encode("utf-16-le"), CsvDialect(encoding="utf-16"), "no byte order mark: write utf-16-le or utf-16-be"),
        (b"\xff\xfe\x00\x00a\x00\x00\x00", RFC_4180, "UTF-32"),
        ("a,b\n1,2".encode("utf-16-le") + b"x", CsvDialect(encoding="utf-16-le"), "within a character"),
        ("a;b\n" + "Köln;1\n" * 3, GERMAN, "declared as cp1252, but all 3 lines beyond ASCII are UTF-8"),
        (b"a,b\r1,2\r", RFC_4180, "the header cannot be read: new-line character"),
    ],
)
def test_a_file_that_is_written_otherwise_is_refused_with_what_to_declare(data, dialect, reason):
    import re

    told = refusal(data.encode() if isinstance(data, str) else data, dialect)
    assert re.search(reason, told), told


def test_windows_text_that_could_by_chance_be_utf8_in_one_line_is_believed():
    data = "a;b\n" + "Ã©;1\n" * 5 + "Köln;2\n"
    assert read(data.encode("cp1252"), GERMAN)[1][-1] == ["Köln", "2"]
    assert read("a;b\nÃ©;1\n".encode("cp1252"), GERMAN)[1] == [["Ã©", "1"]]


def test_quotes_without_meaning_and_escapes():
    assert read(b'a|b\n5" pipe|"x\n', CsvDialect("|", quote=None))[1] == [['5" pipe', '"x']]
    assert read(b'a,b\n"say \\"hi\\"",1\\,5\n', CsvDialect(escape="\\"))[1] == [['say "hi"', "1,5"]]
    assert read(b"a,b\n'it''s, ok',1\n", CsvDialect(quote="'"))[1] == [["it's, ok", "1"]]


def test_a_quote_that_is_never_closed_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr("include.landing.csv_files.MAX_ROW_BYTES", 1000)
    assert "record 2 is longer" in refusal(b'a,b\n1,2\n"x,\n' + b"3,4\n" * 1000)
    assert "record 1 is longer" in refusal(b"a,b\n" + b"x" * 5000)
    assert "record 1 is longer" in refusal(("a,b\n" + "x" * 5000).encode("utf-16-le"), CsvDialect(encoding="utf-16-le"))


def test_large_records_make_small_chunks(monkeypatch):
    monkeypatch.setattr("include.landing.csv_files.CHUNK_BYTES", 1000)
    data = b"a,b\n" + (b"x" * 300 + b",1\n") * 10
    assert [len(batch.records) for batch in csv_rows(Source(0, io.BytesIO(data), "csv", None))] == [4, 4, 2]


def test_files_in_the_streams_own_shape_are_read_in_the_dialect_of_the_contract():
    contract = replace(TELEMETRY, csv=CsvDialect(delimiter=";", encoding="cp1252"))
    data = "deviceId;deviceType;timestamp;line_id\nm1;machine_controller;2026-03-01T00:00:00Z;Straße\n".encode("cp1252")
    (chunk,) = read_chunks(iter([Source(0, io.BytesIO(data), "csv", None)]), contract)
    assert chunk.columns["line_id"] == ["Straße"]
    with pytest.raises(UnreadableFile, match="delimiter"):
        list(read_chunks(iter([Source(0, io.BytesIO(data), "csv", None)]), TELEMETRY))
