"""Who an event is and what it says: `event_id`, content hash and pseudonyms. All three are stored, so their encodings never change.

`event_id` is the first 16 bytes of SHA-256 over netstrings (`<bytes>:<value>,`) of tenant, stream and the key fields in contract order, after typing. Text is
NFC in UTF-8; a time is its microseconds since 1970 UTC; a number its shortest decimal without exponent; a boolean `true` or `false`. Where a key field is
personal, SHA-256 is replaced by HMAC-SHA256 with the pseudonym key, because a list of known keys could be hashed and compared.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import polars as pl

from include.contracts.model import Contract, Field, LogicalType
from include.landing.rows import TENANT

ID_BYTES = 16
PSEUDONYM_DIGITS = 32
CONTENT_HASH = "_content_hash"
EVENT_ID = "event_id"
EXTRA = "_extra"


@dataclass(frozen=True)
class Keys:
    """Secrets that identities and pseudonyms need; None where the stream has no personal data."""

    pseudonym: bytes | None


def event_ids(frame: pl.DataFrame, contract: Contract, key: bytes | None) -> pl.Series:
    """Identity of each row.

    Args:
        frame: Typed rows: `tenant_id` and the contract's fields. Key fields hold no null.
        contract: The stream's contract.
        key: The pseudonym key; needed where a key field is personal.

    Returns:
        Series of 16 bytes.

    Raises:
        ValueError: If a key field is personal and no key is given.
    """
    parts = pl.DataFrame([canonical_text(frame[TENANT])] + [_canonical(frame[name], contract.by_name[name]).alias(f"key_{name}") for name in contract.key])
    tenant, *keys = [_netstrings(pl.col(name)) for name in parts.columns]
    encoded = parts.select(pl.concat_str([tenant, pl.lit(_netstring(contract.stream)), *keys])).to_series().to_list()
    if any(contract.by_name[name].is_personal for name in contract.key):
        if key is None:
            raise ValueError(f"a key field of {contract.stream} is personal, so its identity needs the pseudonym key")
        return pl.Series(EVENT_ID, [hmac.digest(key, text.encode(), "sha256")[:ID_BYTES] for text in encoded], dtype=pl.Binary)
    return _digests(EVENT_ID, encoded)


def content_hashes(frame: pl.DataFrame, fields: Sequence[Field]) -> pl.Series:
    """Hash of what each row says: all fields that have a value, by name, and the unknown ones.

    A field that a later contract adds leaves the hashes of rows without it as they are.

    Returns:
        Series of 16 bytes.
    """
    series: list[pl.Series] = []
    pieces: list[pl.Expr] = []
    for field in sorted(fields, key=lambda field: field.name):
        values = frame[field.name]
        if values.null_count() == len(values):
            continue
        series.append(_exact(values, field.logical_type).alias(field.name))
        value = pl.col(field.name)
        text = _netstrings(value) if field.logical_type is LogicalType.STRING else value.cast(pl.String)
        pieces.append(pl.concat_str([pl.lit(f"{field.name}="), text]))  # null where the value is null
    if frame[EXTRA].null_count() < frame.height:
        series.append(frame[EXTRA])
        pieces.append(pl.concat_str([pl.lit(f"{EXTRA}="), _netstrings(pl.col(EXTRA))]))
    encoded = pl.DataFrame(series).select(pl.concat_str(pieces, separator=";", ignore_nulls=True)).to_series().to_list()
    return _digests(CONTENT_HASH, encoded)


def pseudonyms(values: pl.Series, key: bytes) -> pl.Series:
    """Keyed pseudonym of personal values: 32 hexadecimal digits of HMAC-SHA256 over the trimmed, lower-cased NFC text. Null stays null."""
    text = values if values.dtype == pl.String else values.cast(pl.String)
    return pl.Series(values.name, [None if value is None else pseudonym(value, key) for value in text.to_list()], dtype=pl.String)


def pseudonym(value: str, key: bytes) -> str:
    """Keyed pseudonym of one value, see `pseudonyms`."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).strip().lower())
    return hmac.digest(key, text.encode(), "sha256").hex()[:PSEUDONYM_DIGITS]


def canonical_text(values: pl.Series) -> pl.Series:
    """Text in NFC."""
    lengths = pl.DataFrame({"v": values}).select((pl.col("v").str.len_bytes() == pl.col("v").str.len_chars()).all()).item()
    return values if lengths else values.str.normalize("NFC")


def shortest_decimal(value: float) -> str:
    """The shortest decimal that reads back as the same double, without exponent: 0.1, 72.5, 100, -3. Minus zero is 0."""
    number = Decimal(repr(value + 0.0))
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _canonical(values: pl.Series, field: Field) -> pl.Series:
    match field.logical_type:
        case LogicalType.STRING:
            return canonical_text(values)
        case LogicalType.NUMBER:
            return pl.Series([shortest_decimal(value) for value in values.to_list()], dtype=pl.String)
        case LogicalType.TIMESTAMP:
            return values.to_physical().cast(pl.String)
        case _:
            return values.cast(pl.String)


def _exact(values: pl.Series, logical_type: LogicalType) -> pl.Series:
    """A series whose text is exact: the bits of doubles, the microseconds of times."""
    if logical_type is LogicalType.NUMBER:
        bits = pl.Series((values.fill_null(0.0).to_numpy() + 0.0).view(np.int64))
        return bits if not values.null_count() else bits.zip_with(values.is_not_null(), pl.Series([None], dtype=pl.Int64))
    if logical_type in {LogicalType.TIMESTAMP, LogicalType.DATE}:
        return values.to_physical()
    return values


def _netstrings(value: pl.Expr) -> pl.Expr:
    return pl.concat_str([value.str.len_bytes().cast(pl.String), pl.lit(":"), value, pl.lit(",")])


def _netstring(text: str) -> str:
    return f"{len(text.encode())}:{text},"


def _digests(name: str, encoded: list[str]) -> pl.Series:
    sha256 = hashlib.sha256
    return pl.Series(name, [sha256(text.encode()).digest()[:ID_BYTES] for text in encoded], dtype=pl.Binary)
