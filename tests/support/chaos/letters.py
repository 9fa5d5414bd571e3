"""What senders post while the gateway is killed, and what must have come of it: known row by row, computed without the code of gateway and landing."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa

from tests.support.payloads import DAY_0, Payload, order, telemetry

KEYS = {"device_telemetry": "device_id", "orders": "order_id"}
"""Streams that are posted to, with the column by which their events can be told apart."""
TENANTS = ("default", "acme")


@dataclass(eq=False)
class Letter:
    """One post, sent until it is acknowledged or given up.

    Attributes:
        stream: Its stream.
        tenant: Tenant of the key that it is sent with.
        content_type, encoding: Of the body.
        body: Bytes as they are sent.
        events: Its events, each once.
        repeated: Rows that repeat an event of the same letter.
        invalid: Rows that no table can take.
        receipts: What it was acknowledged with: at most one.
        unanswered: How often it was sent, or begun to be sent, and not answered.
    """

    stream: str
    tenant: str
    content_type: str
    encoding: str
    body: bytes
    events: tuple[str, ...]
    repeated: int
    invalid: int
    receipts: list[str] = field(default_factory=list)
    unanswered: int = 0

    @property
    def rows(self) -> int:
        """All of its rows."""
        return len(self.events) + self.repeated + self.invalid


class Writer:
    """Writes letters that differ in stream, tenant, form, size and faults. The same seed writes the same letters.

    Args:
        seed: The seed.
    """

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(f"letters {seed}")
        self.letters: list[Letter] = []

    def write(self) -> Letter:
        """The next letter, with events that no other has."""
        dice, number = self._dice, len(self.letters)
        stream, tenant = dice.choice(list(KEYS)), dice.choice(TENANTS)
        is_single = dice.random() < 0.3
        events = tuple(f"e{number}_{row}" for row in range(1 if is_single else dice.randrange(1, 40)))
        lines = [json.dumps(_payload(stream, event, number)) for event in events]
        repeated = 0 if is_single or dice.random() < 0.8 else 1
        lines += lines[:repeated]
        invalid = 0 if is_single or dice.random() < 0.8 else 1
        is_ndjson = dice.random() < 0.7
        lines += ["{}" if not is_ndjson else '{"cut": '] * invalid
        text = "\n".join(lines) if is_ndjson else lines[0] if is_single else f"[{','.join(lines)}]"
        encoding = dice.choice(("identity", "identity", "gzip", "zstd"))
        body = text.encode()
        body = gzip.compress(body) if encoding == "gzip" else bytes(pa.compress(body, codec="zstd", asbytes=True)) if encoding == "zstd" else body
        content_type = "application/x-ndjson" if is_ndjson else "application/json"
        letter = Letter(stream, tenant, content_type, encoding, body, events, repeated, invalid)
        self.letters.append(letter)
        return letter


def _payload(stream: str, event: str, number: int) -> Payload:
    when = DAY_0 + timedelta(seconds=number)
    return telemetry(event, when) if stream == "device_telemetry" else order(event, f"c{number % 50}", when)


def faults(letters: Sequence[Letter], stored: dict[str, Counter[tuple[str, str]]], outcomes: dict[str, dict[str, object]]) -> list[str]:
    """What is not as it must be, one line each.

    Args:
        letters: Everything that was posted.
        stored: For each stream how often raw holds an event, by tenant and event.
        outcomes: For each receipt what the gateway says became of it.
    """
    lines = [f"a letter has the receipts {letter.receipts}" for letter in letters if len(letter.receipts) > 1]
    receipts = [receipt for letter in letters for receipt in letter.receipts]
    if len(set(receipts)) != len(receipts):
        lines.append("the same receipt was given twice")
    for stream, counts in stored.items():
        known: set[tuple[str, str]] = set()
        lost, halved, doubled = [], [], [key for key, count in counts.items() if count > 1]
        for letter in letters:
            if letter.stream != stream:
                continue
            keys = [(letter.tenant, event) for event in letter.events]
            known.update(keys)
            there = sum(counts[key] > 0 for key in keys)
            if letter.receipts and there < len(keys):
                lost.append(letter.receipts[0])
            elif 0 < there < len(keys):
                halved.append(keys[0])
            if there and not letter.receipts and not letter.unanswered:
                lines.append(f"{stream}: {keys[0]} is there and was never sent")
        for what, found in (
            ("acknowledged letters lack events", lost),
            ("letters landed in part", halved),
            ("events landed twice", doubled),
            ("events landed that nobody posted", sorted(counts.keys() - known)),
        ):
            if found:
                lines.append(f"{stream}: {len(found)} {what}, e.g. {found[0]}")
    return lines + _outcome_faults(letters, outcomes)


def _outcome_faults(letters: Sequence[Letter], outcomes: dict[str, dict[str, object]]) -> list[str]:
    lines = []
    for letter in letters:
        for receipt in letter.receipts:
            answer = outcomes[receipt]
            rows = answer["rows"]
            if answer["status"] != "landed" or not isinstance(rows, dict):
                lines.append(f"{receipt} says {answer['status']}")
                continue
            accepted, duplicate = len(letter.events), letter.repeated
            if letter.unanswered:  # the post may be there twice, and this one may be the second
                accepted, duplicate = rows["accepted"], len(letter.events) + letter.repeated - rows["accepted"]
                if rows["accepted"] not in (0, len(letter.events)):
                    lines.append(f"{receipt}: {rows['accepted']} of {len(letter.events)} events are new: another copy landed in part")
            wanted = {"landed": letter.rows, "accepted": accepted, "quarantined": letter.invalid, "duplicate": duplicate, "corrected": 0}
            if rows != wanted:
                lines.append(f"{receipt} says {rows} instead of {wanted}")
    return lines
