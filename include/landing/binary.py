"""PostgreSQL's binary formats, made a column at a time: rows for COPY, and arrays as parameters. The server parses text about twice as long as it stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pgpq
import polars as pl
import pyarrow as pa
from pgpq.encoders import LargeStringEncoderBuilder
from pgpq.schema import Jsonb
from psycopg import adapters, pq
from psycopg.abc import Buffer
from psycopg.adapt import Dumper

MICROSECONDS_1970_TO_2000 = 946_684_800_000_000
_ARROW_TYPES: Mapping[type[pl.DataType], pa.DataType] = {
    pl.String: pa.large_string(),
    pl.Binary: pa.large_binary(),
    pl.Int32: pa.int32(),
    pl.Int64: pa.int64(),
    pl.Float64: pa.float64(),
    pl.Boolean: pa.bool_(),
    pl.Date: pa.date32(),
    pl.Datetime: pa.timestamp("us"),
}


class BinaryArray:
    """An array parameter in binary form: `bytea[]` or `timestamptz[]`."""

    def __init__(self, oid: int, element_oid: int, elements: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> None:
        """Elements are rows of bytes, all of one length, none NULL."""
        count, width = elements.shape
        head = np.array([1, 0, element_oid, count, 1] if count else [0, 0, element_oid], dtype=">i4")
        body = np.empty((count, width + 4), dtype=np.uint8)
        body[:, :4] = np.array([width], dtype=">i4").view(np.uint8)
        body[:, 4:] = elements
        self.oid = oid
        self.data = head.tobytes() + body.tobytes()


class _BinaryArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: BinaryArray) -> Buffer:
        return obj.data


class _ByteaArray(BinaryArray):
    def __init__(self, values: pl.Series) -> None:
        width = len(values[0]) if len(values) else 0
        super().__init__(1001, 17, np.frombuffer(b"".join(values.to_list()), dtype=np.uint8).reshape(len(values), width))


class _TimestamptzArray(BinaryArray):
    def __init__(self, values: pl.Series) -> None:
        moments = (values.to_physical().to_numpy() - MICROSECONDS_1970_TO_2000).astype(">i8")
        super().__init__(1185, 1184, moments.view(np.uint8).reshape(len(values), 8))


class _ByteaArrayDumper(_BinaryArrayDumper):
    oid = 1001


class _TimestamptzArrayDumper(_BinaryArrayDumper):
    oid = 1185


adapters.register_dumper(_ByteaArray, _ByteaArrayDumper)
adapters.register_dumper(_TimestamptzArray, _TimestamptzArrayDumper)


def bytea_array(values: pl.Series) -> BinaryArray:
    """A parameter of type `bytea[]` from values of one length, none null."""
    return _ByteaArray(values)


def timestamptz_array(values: pl.Series) -> BinaryArray:
    """A parameter of type `timestamptz[]` from naive UTC microseconds, none null."""
    return _TimestamptzArray(values)


def copy_data(frame: pl.DataFrame, jsonb: Sequence[str]) -> bytes:
    """A frame in COPY's binary format, header and trailer included.

    Args:
        frame: Text, binary, Int32, Int64, Float64, Boolean, Date and naive UTC microsecond columns, in the order of the COPY statement.
        jsonb: Text columns that go into `jsonb`.
    """
    table = pa.table([frame[name].to_arrow(compat_level=pl.CompatLevel.oldest()) for name in frame.columns], schema=_schema(frame))
    encoder = _encoder(table.schema, tuple(jsonb))
    parts = [encoder.write_header(), *(encoder.write_batch(batch) for batch in table.to_batches()), encoder.finish()]
    return b"".join(parts)


def _schema(frame: pl.DataFrame) -> pa.Schema:
    return pa.schema([(name, _ARROW_TYPES[dtype.base_type()]) for name, dtype in frame.schema.items()])


def _encoder(schema: pa.Schema, jsonb: tuple[str, ...]) -> pgpq.ArrowToPostgresBinaryEncoder:
    encoders = {name: pgpq.ArrowToPostgresBinaryEncoder.infer_encoder(schema.field(name)) for name in schema.names}
    encoders |= {name: LargeStringEncoderBuilder.new_with_output(schema.field(name), Jsonb()) for name in jsonb}
    return pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(schema, encoders)
