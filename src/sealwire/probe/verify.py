"""Is this what the probe sealed, all of it, once, in order?  Segments in, findings out.

A `Verifier` is fed the segments of one probe in the order of their files.  Signature, root and
leaves are judged one by one, the chain from one to the next; what is missing must be named by a
signed Gap, which may come later, so jumps are judged at the end.  Findings have a place: file,
segment and, where one can be told, event.  A fault means that something is not as it was sealed; a
note is a loss or a doubt that the probe itself declared.

Nothing here reads a clock or a file; docs/verify.py does the same job without this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.events import Clock, Event, Gap, GapReason, Key, Start, Stop, decode
from sealwire.probe.findings import Fault, Finding, gap_words
from sealwire.probe.seal import engine
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.keys import PublicKey, parse_public_key
from sealwire.probe.seal.leaves import DISSECTED, FLOW, TRANSACTION, BadLeaf, Decoded
from sealwire.probe.seal.recorder import CLOCK_STEP_NANOSECONDS
from sealwire.probe.seal.segment import Header, Proof, Segment
from sealwire.probe.seal.tree import frame
from sealwire.probe.store.checkpoints import Checkpoint

__all__ = ["Fault", "Finding", "Totals", "Trust", "Verifier", "verify_proof"]

#: Findings kept; further ones are counted.
_FINDINGS_KEPT: Final = 100
_SECOND: Final = 1_000_000_000
#: Segments within which a failed disk must be said.
_SOON: Final = 3
#: Heartbeats that may be late before an open end is a missing tail.
_LATE_BEATS: Final = 2
_LATE_NANOSECONDS: Final = 5 * _SECOND


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe.  Times in nanoseconds since 1970."""

    #: Trusted keys by id; a key introduced by a signed Key event is trusted as well.
    keys: Mapping[bytes, PublicKey]
    #: Keys not to be believed for what was received later than this.
    revoked: Mapping[bytes, int] = field(default_factory=dict)
    #: When a segment was received, by its chain hash; for others it is the time of verification.
    received: Mapping[bytes, int] = field(default_factory=dict)
    #: Chain hash of a segment that must be there, such as the last one that a collector acknowledged.
    head: bytes | None = None
    #: What collectors received of each probe, by number: their hashes.
    acknowledged: Mapping[bytes, Mapping[int, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class Jump:
    """Numbers left out between two segments that follow each other."""

    at: int  #: how many segments were fed before
    place: str
    segment: int
    first_segment: int
    last_segment: int
    first_event: int
    last_event: int
    linked: bool  #: the next segment names the one before the jump as its predecessor
    previous: bytes | None


@dataclass(slots=True)
class Totals:
    """What was verified."""

    segments: int = 0
    events: int = 0
    flows: int = 0
    transactions: int = 0
    boots: int = 0
    gaps: int = 0
    lost_events: int = 0
    #: Events that a collector removed and signed for.
    removed_events: int = 0
    faults: int = 0
    notes: int = 0


#: Takes what a segment holds, once nothing is wrong with it or before it.
Store = Callable[[Header, Decoded], None]


class Verifier:
    """Judges the segments of one probe.  `now` is the time of verification, nanoseconds."""

    def __init__(self, trust: Trust, now: int, store: Store | None = None) -> None:
        self.totals = Totals()
        self._trust = trust
        self._keys = dict(trust.keys)
        self._now = now
        self._store = store
        self._last: Segment | None = None
        self._last_place = ""
        self._stopped = False
        #: Who may sign the next segment: the first one's key, until a Key event names another.
        self._key_in_force: bytes | None = None
        self._seen: dict[int, bytes] = {}
        self._jumps: list[Jump] = []
        self._checkpoint: Checkpoint | None = None
        self._gaps: list[Gap] = []
        self._beginning: tuple[int, str, Header] | None = None
        #: Bytes that are no segment: how many segments were fed before, where, and why.
        self._torn: list[tuple[int, str, str]] = []
        self._head_seen = False
        #: How many segments were fed: findings are told in this order.
        self._fed = 0
        self._found: list[tuple[int, Finding]] = []

    def malformed(self, place: str, words: str) -> None:
        """Report bytes that are no segment, at the end of a file or instead of one."""
        self._fed += 1
        self._torn.append((self._fed, place, words))

    def checkpoint(self, place: str, checkpoint: Checkpoint, collectors: Mapping[bytes, PublicKey]) -> None:
        """Take a collector's word that it removed the beginning; to be told before the first segment.

        The collector's, not the probe's: it must be one of `collectors`.  The last one covers the others.
        """
        key = collectors.get(checkpoint.collector)
        if key is None or not checkpoint.authentic(key):
            detail = f"collector {checkpoint.collector.hex()}"
            self._fault(place, None, Fault.CHECKPOINT, detail=detail)
            return
        self._checkpoint = checkpoint
        self._keys.setdefault(checkpoint.key.id, checkpoint.key)

    def segment(self, place: str, segment: Segment) -> None:
        """Judge the next segment."""
        self._fed += 1
        header, faults = segment.header, self.totals.faults
        if not self._authentic(place, segment):
            return
        decoded = self._decoded(place, segment)
        events = None if decoded is None else self._events(place, header, decoded)
        if decoded is None or events is None:
            return
        self.totals.segments += 1
        self.totals.events += header.events
        self._head_seen |= segment.hash == self._trust.head
        if self._out_of_line(place, segment):
            return
        if self._key_in_force is None:
            self._key_in_force = header.key
        declared = {type(event) for _, event in events}
        self._link(place, segment, declared, events)
        for index, event in events:
            self._take(place, header, header.first_event + index, event)
        self._stopped = bool(events) and isinstance(events[-1][1], Stop)
        self._seen[header.segment] = segment.hash
        self._last, self._last_place = segment, place
        if self._store is not None and self.totals.faults == faults:
            self._store(header, decoded)

    def _fault(
        self, place: str, header: Header | None, fault: Fault, *, event: int | None = None, detail: str = ""
    ) -> None:
        self.totals.faults += 1
        words = fault.value + (f" ({detail})" if detail else "")
        if header is not None and event is None:
            words += f"; its events are {header.first_event} to {header.last_event}"
        self._find(Finding(place, None if header is None else header.segment, event, fault, words))

    def _note(self, place: str, segment: int | None, event: int | None, words: str) -> None:
        self.totals.notes += 1
        self._find(Finding(place, segment, event, None, words))

    def _find(self, finding: Finding, at: int | None = None) -> None:
        kept = sum(1 for _, other in self._found if (other.fault is None) == (finding.fault is None))
        if kept < _FINDINGS_KEPT:
            self._found.append((self._fed if at is None else at, finding))

    def _authentic(self, place: str, segment: Segment) -> bool:
        header = segment.header
        key = self._keys.get(header.key)
        if key is None:
            self._fault(place, header, Fault.UNKNOWN_KEY, detail=f"key id {header.key.hex()}")
        elif not segment.authentic(key):
            self._fault(place, header, Fault.BAD_SIGNATURE)
        elif self._key_in_force not in (None, header.key):
            self._fault(place, header, Fault.OTHER_KEY, detail=f"key id {header.key.hex()}")
        elif (revoked := self._trust.revoked.get(header.key)) is not None and (
            self._trust.received.get(segment.hash, self._now) >= revoked
        ):
            # A stolen key can sign any time it likes; when the segment came is not for it to say.
            self._fault(place, header, Fault.REVOKED_KEY, detail=f"key id {header.key.hex()}")
        else:
            return True
        return False

    def _decoded(self, place: str, segment: Segment) -> Decoded | None:
        """What the leaves hold, if they are those that were signed; None, with a fault, otherwise."""
        header = segment.header
        try:
            hashes = engine.leaf_hashes(segment.framed)
        except ValueError as wrong:
            self._fault(place, header, Fault.MALFORMED, detail=str(wrong))
            return None
        if segment.count != header.events or len(hashes) != 32 * header.events:
            self._fault(place, header, Fault.WRONG_COUNT, detail=f"{len(hashes) // 32}, not {header.events}")
            return None
        if engine.root(hashes) != segment.root:
            self._fault(place, header, Fault.WRONG_ROOT, event=self._altered(segment))
            return None
        try:
            return engine.decode(segment.framed, header.first_event)
        except BadLeaf as wrong:
            self._bad_event(place, header, wrong.index, wrong.reason)
            return None

    def _events(self, place: str, header: Header, decoded: Decoded) -> list[tuple[int, Event]] | None:
        """The probe's own events; None, with a fault, where one is not what its schema says."""
        events = []
        for index, leaf in decoded.others:
            try:
                event = decode(leaf)
            except ValueError as wrong:
                self._bad_event(place, header, index, str(wrong))
                return None
            if event is not None:
                events.append((index, event))
        if header.times != decoded.times:
            self._fault(place, header, Fault.TIMES)
            return None
        self.totals.transactions += decoded.kinds.count(TRANSACTION)
        self.totals.flows += decoded.kinds.count(FLOW) + decoded.kinds.count(DISSECTED)
        return events

    def _bad_event(self, place: str, header: Header, index: int, reason: str) -> None:
        self._fault(place, header, Fault.BAD_EVENT, event=header.first_event + index, detail=reason)

    def _altered(self, segment: Segment) -> int | None:
        """The event that was altered, where that can be told: one that is no event any more."""
        try:
            engine.decode(segment.framed, segment.header.first_event)
        except BadLeaf as wrong:
            return segment.header.first_event + wrong.index
        except ValueError:
            pass
        return None

    def _out_of_line(self, place: str, segment: Segment) -> bool:
        header, last = segment.header, self._last
        before = self._seen.get(header.segment)
        if last is not None and header.probe != last.header.probe:
            self._fault(place, header, Fault.OTHER_PROBE, detail=header.probe.hex())
        elif before is not None:
            self._fault(place, header, Fault.REPLAY if before == segment.hash else Fault.FORK)
        elif last is not None and (
            header.segment < last.header.segment or header.first_event <= last.header.last_event
        ):
            self._fault(place, header, Fault.ORDER)
        else:
            return False
        return True

    def _link(
        self, place: str, segment: Segment, declared: set[type[Event]], events: list[tuple[int, Event]]
    ) -> None:
        header = segment.header
        if self._last is None:
            self.totals.boots += 1
            if not self._from_checkpoint(place, segment):
                self._beginning = (self._fed, place, header)
            return
        last = self._last.header
        linked = header.previous == self._last.hash
        if header.segment == last.segment + 1 and header.first_event == last.last_event + 1:
            if not linked:
                self._fault(place, header, Fault.BROKEN_CHAIN)
        else:
            self._jumps.append(
                Jump(
                    *(self._fed, place, header.segment, last.segment + 1, header.segment - 1),
                    *(last.last_event + 1, header.first_event - 1, linked, header.previous),
                )
            )
        if header.boot != last.boot:
            self.totals.boots += 1
            unclean = any(
                isinstance(event, Gap) and event.reason == GapReason.UNCLEAN_RESTART for _, event in events
            )
            if Start not in declared or not (self._stopped or unclean):
                self._fault(place, header, Fault.RESTART)
            return
        # What had to be dropped to store the stop itself is said behind it, and then it stops again.
        if self._stopped and (len(events) < header.events or not declared <= {Gap, Stop}):
            self._fault(place, header, Fault.RESTART, detail="events behind a stop")
        step = (header.sealed.wall - last.sealed.wall) - (header.sealed.uptime - last.sealed.uptime)
        if header.sealed.uptime < last.sealed.uptime or (
            abs(step) > CLOCK_STEP_NANOSECONDS and Clock not in declared
        ):
            self._fault(place, header, Fault.CLOCK, detail=f"{step / _SECOND:+.3f} s")
        if any(header.counters.get(name, 0) < value for name, value in last.counters.items()):
            self._fault(place, header, Fault.COUNTERS)

    def _from_checkpoint(self, place: str, segment: Segment) -> bool:
        """Whether the first segment follows what was removed; what is missing in between is a jump."""
        header, removed = segment.header, self._checkpoint
        if removed is None or header.segment == 0:
            return False
        if header.segment <= removed.last_segment and header.probe == removed.probe:
            # Somebody was cut off while removing: what is signed as gone may be there for a while.
            self.totals.removed_events += header.first_event
            self._note(
                place, header.segment, None, f"segments up to {removed.last_segment} are being removed"
            )
            return True
        last = removed.last
        self._key_in_force = removed.key.id
        if header.key != removed.key.id:
            self._fault(place, header, Fault.OTHER_KEY, detail=f"key id {header.key.hex()}")
        if header.probe != last.probe:
            self._fault(place, header, Fault.OTHER_PROBE, detail=header.probe.hex())
        linked = header.previous == removed.hash
        if header.segment != last.segment + 1 or header.first_event != last.last_event + 1:
            self._jumps.append(
                Jump(
                    *(self._fed, place, header.segment, last.segment + 1, header.segment - 1),
                    *(last.last_event + 1, header.first_event - 1, linked, header.previous),
                )
            )
        elif not linked:
            self._fault(place, header, Fault.BROKEN_CHAIN)
        self.totals.removed_events += last.last_event + 1
        words = f"segments up to {last.segment} were removed, as collector {removed.collector.hex()} signed"
        self._note(place, header.segment, None, words)
        return True

    def _take(self, place: str, header: Header, sequence: int, event: Event) -> None:
        if isinstance(event, Gap):
            self.totals.gaps += 1
            self._gaps.append(event)
            if event.events:
                self.totals.lost_events += event.events
            if event.reason == GapReason.WRITE_FAILED:
                # The file that failed was left as it was, with what may be half a segment.
                for torn in [torn for torn in self._torn if self._fed - torn[0] <= _SOON]:
                    self._torn.remove(torn)
                    self._note(torn[1], None, None, f"{torn[2]}; the disk failed there, as declared")
            self._note(place, header.segment, sequence, gap_words(event))
        elif isinstance(event, Clock):
            words = f"the clock was set by {event.step / _SECOND:+.3f} s"
            self._note(place, header.segment, sequence, words)
        elif isinstance(event, Key):
            try:
                key = parse_public_key(event.public_key)
            except ValueError as wrong:
                self._fault(place, header, Fault.BAD_EVENT, event=sequence, detail=str(wrong))
                return
            self._keys.setdefault(key.id, key)
            self._key_in_force = key.id
            self._note(place, header.segment, sequence, f"from here on key {key.id.hex()} signs")

    def finish(self) -> list[Finding]:
        """Judge what only the end can tell; all findings in the order of the segments."""
        for at, place, words in self._torn:
            self.totals.faults += 1
            finding = Finding(place, None, None, Fault.MALFORMED, f"{Fault.MALFORMED.value} ({words})")
            self._find(finding, at)
        for jump in self._jumps:
            self._judge(jump)
        if self._beginning is not None:
            at, place, header = self._beginning
            received = self._trust.acknowledged.get(header.probe, {})
            if header.segment and received.get(header.segment - 1) == header.previous:
                words = f"the segments before {header.segment} were delivered, and made room here"
                self._note(place, header.segment, None, words)
            elif header.segment and not any(
                gap.last_segment == header.segment - 1 and gap.hash == header.previous for gap in self._gaps
            ):
                self.totals.faults += 1
                words = f"{Fault.MISSING.value} (segments before {header.segment})"
                self._find(Finding(place, header.segment, header.first_event, Fault.MISSING, words), at)
            elif header.first_event:
                self.totals.lost_events += header.first_event
        if self._last is not None and not self._stopped:
            header = self._last.header
            patience = _LATE_BEATS * header.heartbeat * _SECOND + _LATE_NANOSECONDS
            if self._now - header.sealed.wall > patience:
                self._fault(self._last_place, header, Fault.OPEN_END)
            else:
                self._note(self._last_place, header.segment, None, "the probe is still running")
        if self._last is not None:
            self._acknowledged(self._last.header)
        if self._trust.head is not None and not self._head_seen:
            self._fault("", None, Fault.HEAD, detail=self._trust.head.hex())
        return [finding for _, finding in sorted(self._found, key=lambda found: found[0])]

    def _acknowledged(self, last: Header) -> None:
        """What was received must be here, unless it was dropped since, which a Gap tells and a jump shows."""
        received = self._trust.acknowledged.get(last.probe, {})
        altered = sorted(
            number for number, known in received.items() if self._seen.get(number, known) != known
        )
        behind = sorted(number for number in received if number > last.segment)
        for number in altered[:1]:
            self._fault("", None, Fault.RECEIVED, detail=f"segment {number} is another one here")
        for number in behind[:1]:
            detail = f"segment {number}" if len(behind) == 1 else f"segments {number} to {behind[-1]}"
            self._fault("", None, Fault.RECEIVED, detail=f"{detail}, behind the last")

    def _judge(self, jump: Jump) -> None:
        gaps = [gap for gap in self._gaps if gap.last_segment is not None]
        linked = jump.linked or any(
            gap.last_segment == jump.last_segment and gap.hash == jump.previous for gap in gaps
        )
        segments = ((gap.first_segment, gap.last_segment) for gap in gaps)
        events = ((gap.first_event, gap.last_event) for gap in gaps)
        self.totals.lost_events += jump.last_event - jump.first_event + 1
        if (
            linked
            and _covered(jump.first_segment, jump.last_segment, segments)
            and _covered(jump.first_event, jump.last_event, events)
        ):
            return
        self.totals.faults += 1
        missing = f"segments {jump.first_segment} to {jump.last_segment}"
        if jump.last_segment < jump.first_segment:
            missing = "no segment"
        words = f"{Fault.MISSING.value} ({missing}, events {jump.first_event} to {jump.last_event})"
        self._find(Finding(jump.place, jump.segment, jump.first_event, Fault.MISSING, words), jump.at)


def _covered(first: int, last: int, ranges: Iterable[tuple[int | None, int | None]]) -> bool:
    """Whether ranges (both ends included) leave nothing out between `first` and `last`."""
    for begin, end in sorted((b, e) for b, e in ranges if b is not None and e is not None):
        if begin <= first <= end:
            first = end + 1
    return first > last


def verify_proof(data: bytes, trust: Trust, now: int) -> Proof:
    """The proof of one event, if it is one.  Raises Malformed with the sentence that says what is wrong.

    That the event was sealed is proved, not that nothing is missing around it.
    """
    proof = Proof.decode(data)
    header = proof.header
    key = trust.keys.get(header.key)
    if key is None:
        raise Malformed(f"{Fault.UNKNOWN_KEY.value} (key id {header.key.hex()})")
    if not proof.authentic(key):
        raise Malformed("the receipt does not belong to this event")
    received = trust.received.get(proof.segment_hash, now)
    if (revoked := trust.revoked.get(header.key)) is not None and received >= revoked:
        raise Malformed(Fault.REVOKED_KEY.value)
    sequence = header.first_event + proof.index
    try:
        if engine.decode(frame(proof.leaf), sequence).others:
            decode(proof.leaf)
    except ValueError as wrong:
        raise Malformed(f"{Fault.BAD_EVENT.value} ({wrong})") from None
    return proof
