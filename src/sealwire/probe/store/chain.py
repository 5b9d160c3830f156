"""What makes a segment acceptable behind what a store has of its probe: signature, content, place.

Only who holds the probe's key can have anything stored, and nothing can take the place of what is
there.  What a probe says of itself and may be wrong about (a clock set in silence, counters that go
back, a jump that no Gap explains yet) is stored all the same: it is evidence, and `sealwire verify`
judges it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.events import Event, Key, decode
from sealwire.probe.seal import engine
from sealwire.probe.seal.keys import PublicKey, parse_public_key
from sealwire.probe.seal.leaves import BadLeaf, Decoded
from sealwire.probe.seal.segment import Segment

#: Sequences of events and segments that a store takes: at 100,000 a second enough for 89 years.
NUMBER_BITS: Final = 48


class Rejection(enum.Enum):
    """Why a segment is not stored."""

    UNKNOWN_PROBE = "the probe is not enrolled, or was revoked"
    REVOKED = "the key is revoked"
    MALFORMED = "these bytes are no segment"
    BAD_SIGNATURE = "the signature does not fit"
    WRONG_PROBE = "it is another probe's segment"
    BAD_EVENTS = "the events are not those signed, or no events"
    FORK = "another segment with this number is stored"
    BROKEN_CHAIN = "it does not continue the segment before"
    OTHER_KEY = "it is signed with another key than the chain has reached"
    ORDER = "it comes before what is stored"
    BEHIND = "a segment before it in the same batch was refused"
    REMOVED = "it was stored, and retention has removed it"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A segment that was not stored."""

    reason: Rejection
    words: str
    segment: int | None = None


class Refused(Exception):
    """Why a segment cannot be stored; never leaves the store."""

    def __init__(self, reason: Rejection, detail: str = "") -> None:
        super().__init__(reason.value + (f" ({detail})" if detail else ""))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """Where a probe's chain has got to."""

    segment: int
    event: int
    hash: bytes
    #: Who may sign the next segment.
    key: PublicKey = field(repr=False)


def opened(segment: Segment, key: PublicKey) -> tuple[Decoded, list[Event]]:
    """What an authentic segment holds, and the probe's own events of it.  Raises Refused."""
    header = segment.header
    if not segment.authentic(key):
        raise Refused(Rejection.BAD_SIGNATURE)
    if header.last_event >> NUMBER_BITS or header.segment >> NUMBER_BITS:
        raise Refused(Rejection.BAD_EVENTS, f"numbers of more than {NUMBER_BITS} bits")
    try:
        hashes = engine.leaf_hashes(segment.framed)
        if segment.count != header.events or len(hashes) != 32 * header.events:
            raise Refused(Rejection.BAD_EVENTS, f"{len(hashes) // 32} events, not {header.events}")
        if engine.root(hashes) != segment.root:
            raise Refused(Rejection.BAD_EVENTS, "another root")
        decoded = engine.decode(segment.framed, header.first_event)
        events = [decode(leaf) for _, leaf in decoded.others]
    except BadLeaf as wrong:
        raise Refused(Rejection.BAD_EVENTS, str(wrong)) from None
    except ValueError as wrong:
        raise Refused(Rejection.BAD_EVENTS, str(wrong)) from None
    if header.times != decoded.times:
        raise Refused(Rejection.BAD_EVENTS, "other times than those of the events")
    return decoded, [event for event in events if event is not None]


def own_events(segment: Segment) -> list[Event]:
    """What the probe says of itself in a segment that was accepted."""
    others = engine.decode(segment.framed, segment.header.first_event).others
    return [event for _, leaf in others if (event := decode(leaf)) is not None]


def key_after(events: list[Event], key: PublicKey) -> PublicKey:
    """Who may sign behind a segment with these events.  Raises Refused."""
    for event in events:
        if isinstance(event, Key):
            try:
                key = parse_public_key(event.public_key)
            except ValueError as wrong:
                raise Refused(Rejection.BAD_EVENTS, str(wrong)) from None
    return key


def follow(place: Place, segment: Segment) -> None:
    """Judge the step from what is stored to a segment with a higher number.  Raises Refused."""
    header = segment.header
    if header.first_event <= place.event:
        raise Refused(Rejection.BROKEN_CHAIN, "its events are those of a segment before")
    next_number = header.segment == place.segment + 1
    if next_number and header.previous != place.hash:
        raise Refused(Rejection.BROKEN_CHAIN)
