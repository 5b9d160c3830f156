"""What the capturing process and its signer say to each other, over a socket pair.

A message is its length (32 bits), a kind, and a body: flows and transactions as they are in a batch,
everything else in JSON.  Both ends are one program of one version, so there is no more to it.
"""

from __future__ import annotations

import enum
import itertools
import json
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sealwire.errors import Error
from sealwire.probe.batch import OFFSETS, Batch
from sealwire.probe.features import row_struct

HEAD: Final = struct.Struct("<IB")
#: In front of rows and their facts: the stride of a row, and the bytes of all of them.
FLOWS: Final = struct.Struct("<II")
#: Longest body.
BODY_MAXIMUM_BYTES: Final = 1 << 22
#: What a batch is cut into, about.
_PIECE_BYTES: Final = 1 << 20


class Kind(enum.IntEnum):
    """Kinds of message; those from 16 on come from the signer, those from 32 on from the exporter."""

    FLOWS = 1
    COUNTERS = 2
    LOST = 3
    STOP = 4
    TRANSACTIONS = 5
    POLICY = 6
    HEALTH = 7
    READY = 16
    TAKEN = 17
    FAILED = 18
    DONE = 19
    RECEIPT = 32
    STATE = 33


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a batch: what is sent, and how many events it is."""

    kind: Kind
    body: bytes
    events: int


def pieces(batch: Batch) -> Iterator[Piece]:
    """A batch in parts of about one MiB; transactions first, as they happened before the flows ended."""
    at = 0
    for count, n in _cut(_lengths(batch.event_data)):
        yield Piece(Kind.TRANSACTIONS, batch.event_data[at : at + n], count)
        at += n
    stride = row_struct(batch.first_packets).size
    at = facts_at = 0
    for count, n in _cut(_sizes(batch, stride)):
        rows = batch.rows[at : at + count * stride]
        facts = batch.facts[facts_at : facts_at + n - len(rows)]
        yield Piece(Kind.FLOWS, FLOWS.pack(stride, len(rows)) + rows + facts, count)
        at += len(rows)
        facts_at += len(facts)


def _lengths(events: bytes) -> Iterator[int]:
    at = 0
    while at < len(events):
        n = int.from_bytes(events[at : at + 4], "little")
        if not n:
            raise ValueError("these bytes are no events")
        yield n
        at += n


def _sizes(batch: Batch, stride: int) -> Iterator[int]:
    """Bytes of each row with its facts."""
    if not batch.facts:
        return itertools.repeat(stride, len(batch))
    offset = OFFSETS["facts_bytes"][0]
    numbers = struct.Struct(f"<{offset}xI{stride - offset - 4}x").iter_unpack(batch.rows)
    return (stride + n for (n,) in numbers)


def _cut(sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """How many items, and bytes of them, make each piece."""
    count = total = 0
    for size in sizes:
        if count and total + size > _PIECE_BYTES:
            yield count, total
            count = total = 0
        count += 1
        total += size
    if count:
        yield count, total


def message(kind: Kind, body: bytes) -> bytes:
    return HEAD.pack(len(body), kind) + body


def json_message(kind: Kind, /, **facts: Any) -> bytes:
    return message(kind, json.dumps(facts).encode())


class Messages:
    """The messages that arrive on a socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = bytearray()

    def read(self, wait: bool = True) -> tuple[Kind, bytes] | None:
        """The next message; None at the end of the stream, or if `wait` is false and none is there.

        Raises OSError, and Error for what is no message.
        """
        while True:
            if len(self._buffer) >= HEAD.size:
                length, kind = HEAD.unpack_from(self._buffer)
                if length > BODY_MAXIMUM_BYTES:
                    raise Error("the signer's socket carries something else")
                if len(self._buffer) >= HEAD.size + length:
                    body = bytes(self._buffer[HEAD.size : HEAD.size + length])
                    del self._buffer[: HEAD.size + length]
                    return Kind(kind), body
            try:
                data = self._stream.recv(1 << 20, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not data:
                if not wait:
                    raise ConnectionResetError("the signer ended")
                return None
            self._buffer += data
