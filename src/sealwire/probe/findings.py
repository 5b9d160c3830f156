"""What can be wrong with sealed events, where, and in which words; what the probe itself declared missing."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sealwire.probe.events import Gap, GapReason


class Fault(enum.Enum):
    """What can be wrong."""

    MALFORMED = "these bytes are no segment"
    UNKNOWN_KEY = "signed with a key that is not trusted here"
    OTHER_KEY = "signed with another key than the chain has reached"
    REVOKED_KEY = "received after its key was revoked"
    BAD_SIGNATURE = "the signature does not belong to these bytes"
    WRONG_ROOT = "the events are not those that were signed"
    WRONG_COUNT = "there are more or fewer events than were signed"
    BAD_EVENT = "an event is not what its schema says"
    OTHER_PROBE = "another probe's segment"
    REPLAY = "a segment that was there before"
    FORK = "another segment than the one of this number that was there before"
    ORDER = "a segment or its events come before what precedes them"
    BROKEN_CHAIN = "it does not continue the segment before"
    MISSING = "segments or events are missing, and nothing signed says why"
    RESTART = "another boot, and nothing signed says how the one before ended"
    CLOCK = "the clock was set, and nothing signed says so"
    TIMES = "the times in the header are not those of the events"
    COUNTERS = "counters went back"
    OPEN_END = "the end is missing: neither a stop nor a heartbeat in time"
    HEAD = "the segment that must be there is not"
    CHECKPOINT = "a checkpoint that no trusted collector signed"
    RECEIVED = "a segment that a collector received is not there"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong (`fault`), or declared by the probe (`note`), and where."""

    place: str
    segment: int | None
    event: int | None
    fault: Fault | None
    words: str

    def __str__(self) -> str:
        where = [self.place] if self.place else []
        if self.segment is not None:
            where.append(f"segment {self.segment}")
        if self.event is not None:
            where.append(f"event {self.event}")
        return f"{', '.join(where)}: {self.words}" if where else self.words


def gap_words(gap: Gap) -> str:
    """What a Gap says."""
    try:
        reason = GapReason(gap.reason).name.lower().replace("_", " ")
    except ValueError:
        reason = f"reason {gap.reason}"
    words = f"declared missing: {reason}"
    if gap.first_segment is not None and gap.last_segment is not None:
        words += f", segments {gap.first_segment} to {gap.last_segment}"
    if gap.first_event is not None and gap.last_event is not None:
        words += f", events {gap.first_event} to {gap.last_event}"
    if gap.events:
        words += f", {gap.events} events"
    return words
