"""What happens to events that come faster than they go: never that capture waits.

Pressure rises step by step with how full the queue before the signer, or the undelivered part of the
spool, is; each step goes at a lower mark than it came at, so that it does not flutter:

    DELIVER  as they come
    SPOOL    the collector is away or gives no credit: events wait on disk, all of them
    SAMPLE   above 80 % (until 50 %): one of N is kept
    LOWEST   above 90 % (until 65 %): flows that nobody answered and of which nothing is known are not
             kept at all, one of N of the others is
    FULL     no room: nothing is kept until there is some again

A change of step is sealed as a Policy event, and what is not kept as a Gap with its number and reason.
Nothing here reads a clock.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sealwire.probe.batch import OFFSETS
from sealwire.probe.events import GapReason

#: One event of so many is kept.
SAMPLE: Final = 10
THRESHOLD: Final = 0.8
#: Where a step goes again, as a part of where it came.
_RELIEF: Final = 5 / 8
#: A collector may be slow for so long before it is said that events wait.
PATIENCE_SECONDS: Final = 1.0


class Step(enum.IntEnum):
    """How events are treated, from less to more pressure."""

    DELIVER = 0
    SPOOL = 1
    SAMPLE = 2
    LOWEST = 3
    FULL = 4


class Pressure:
    """Chooses the step.  `threshold` is where sampling begins, a part of what there is room for."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.step = Step.DELIVER
        self.fill = 0.0
        self._since: float | None = None
        relief = threshold * _RELIEF
        #: Where each step comes, and where it goes.
        self._marks = {
            Step.SAMPLE: (threshold, relief),
            Step.LOWEST: ((1 + threshold) / 2, (threshold + relief) / 2),
        }

    def note(self, fill: float, waiting: bool, now: float) -> bool:
        """Take how full it is (0 to 1), and whether delivery waits; whether the step changed."""
        before, self.fill = self.step, min(fill, 1.0)
        if not waiting:
            self._since = None
        elif self._since is None:
            self._since = now
        spooling = self._since is not None and now - self._since >= PATIENCE_SECONDS
        step = Step.SPOOL if spooling else Step.DELIVER
        for higher, (comes, goes) in self._marks.items():
            if fill >= (goes if before >= higher else comes):
                step = higher
        # From FULL it is left only for a lower step: below the mark of the highest one.
        if before is Step.FULL and step is Step.LOWEST and fill >= self._marks[Step.LOWEST][0]:
            step = Step.FULL
        self.step = step
        return step is not before

    def full(self) -> bool:
        """There is no room for what comes; whether that is new."""
        before, self.step = self.step, Step.FULL
        return before is not Step.FULL


@dataclass(slots=True)
class Kept:
    """What is left of a run of events, and how many were not kept, by reason."""

    data: bytes
    facts: bytes
    events: int
    left_out: dict[GapReason, int]


class Sampler:
    """Keeps one of `every` events; the count goes on from batch to batch."""

    def __init__(self, every: int = SAMPLE) -> None:
        self.every = every
        self._count = 0

    def _take(self) -> bool:
        self._count += 1
        if self._count >= self.every:
            self._count = 0
            return True
        return False

    def rows(self, rows: bytes, stride: int, facts: bytes, step: Step) -> Kept:
        """Of flows: rows of `stride` bytes and their facts blocks."""
        kept: list[bytes] = []
        blocks: list[bytes] = []
        lowest = 0
        at = facts_at = 0
        for n, packets in _known(stride).iter_unpack(rows):
            if step >= Step.LOWEST and not packets and not n:
                lowest += 1
            elif self._take():
                kept.append(rows[at : at + stride])
                blocks.append(facts[facts_at : facts_at + n])
            at += stride
            facts_at += n
        sampled = len(rows) // stride - len(kept) - lowest
        return Kept(b"".join(kept), b"".join(blocks), len(kept), _left_out(sampled, lowest))

    def transactions(self, events: bytes) -> Kept:
        """Of transactions, which begin with their length."""
        pieces = list(_transactions(events))
        kept = [piece for piece in pieces if self._take()]
        return Kept(b"".join(kept), b"", len(kept), _left_out(len(pieces) - len(kept), 0))


def _left_out(sampled: int, lowest: int) -> dict[GapReason, int]:
    found = {GapReason.SAMPLED: sampled, GapReason.LOWEST_CLASS: lowest}
    return {reason: n for reason, n in found.items() if n}


def _known(stride: int) -> struct.Struct:
    """Of a row: bytes of facts, packets of the way back."""
    (facts_at, facts), (packets_at, packets) = OFFSETS["facts_bytes"], OFFSETS["backward_packets"]
    assert facts_at < packets_at, "as the row is laid out"
    between = packets_at - facts_at - struct.calcsize("<" + facts)
    behind = stride - packets_at - struct.calcsize("<" + packets)
    return struct.Struct(f"<{facts_at}x{facts}{between}x{packets}{behind}x")


def _transactions(events: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(events):
        n = int.from_bytes(events[at : at + 4], "little")
        yield events[at : at + n]
        at += n
