"""What is on its way into leaves: flows of a batch, and transactions, each with a place to go on from.

A segment takes as much as has room; a full disk takes nothing until there is room again.
"""

from __future__ import annotations

from typing import Protocol

from sealwire.probe.seal import engine
from sealwire.probe.seal.leaves import Encoded


class Intake(Protocol):
    """Events that become leaves one after another."""

    @property
    def left(self) -> bool:
        """Whether there are more."""

    def encode(self, sequence: int, most: int, room: int) -> Encoded:
        """The next leaves: at most `most`, and none once `room` bytes are filled.  Raises ValueError."""


class Flows:
    """Rows of `stride` bytes and their facts blocks."""

    def __init__(self, rows: bytes, stride: int, facts: bytes = b"") -> None:
        self._rows, self._stride, self._facts = rows, stride, facts
        self._next = self._facts_at = 0

    @property
    def left(self) -> bool:
        return self._next * self._stride < len(self._rows)

    def encode(self, sequence: int, most: int, room: int) -> Encoded:
        encoded = engine.encode(
            *(self._rows, self._stride, self._next, self._facts, self._facts_at, sequence, most, room)
        )
        self._next += encoded.leaves
        self._facts_at = encoded.end
        return encoded


class Transactions:
    """Events of sealwire.probe.dissect.facts."""

    def __init__(self, events: bytes) -> None:
        self._events = events
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._events)

    def encode(self, sequence: int, most: int, room: int) -> Encoded:
        encoded = engine.encode_transactions(self._events, self._at, sequence, most, room)
        self._at = encoded.end
        return encoded
