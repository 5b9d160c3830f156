"""The recorder: events in, segments sealed, chained and spooled out; every loss becomes a Gap.

It owns the chain (segment and event sequences, the hash of the last segment) and decides when a
segment ends.  It reads no clock: every call brings the moment.  The signer's process drives it;
tests drive it with a disk that fails and a clock that jumps.

`committed` is what is durable.  When the disk is full and nothing can make room, the recorder is
`stalled`: it holds one sealed segment, takes nothing more, and tries again at every wake().
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sealwire.errors import ConfigurationError, Error
from sealwire.probe.events import Clock, Event, Gap, GapReason, Heartbeat, Key, Start, Stop, decode
from sealwire.probe.seal.intake import Intake
from sealwire.probe.seal.keys import SigningKey, parse_public_key
from sealwire.probe.seal.segment import (
    SEGMENT_BYTES,
    SEGMENT_EVENTS,
    Header,
    Moment,
    Segment,
    seal,
)
from sealwire.probe.seal.tree import frame
from sealwire.probe.spool import NoRoom, Poisoned, Range, Spool

#: How long a segment waits for more events.
LINGER_NANOSECONDS: Final = 50_000_000
#: What the wall clock may gain or lose on the time that passed before that is a step.
CLOCK_STEP_NANOSECONDS: Final = 500_000_000
#: Failed disks in a row before giving up.
_ATTEMPTS: Final = 3
_SECOND: Final = 1_000_000_000


class SpoolFailed(Error):
    """The spool cannot be written at all; nothing more is sealed."""


@dataclass(slots=True)
class _Open:
    """The segment that is being filled."""

    framed: list[bytes] = field(default_factory=list)
    count: int = 0
    size: int = 0
    times: tuple[int, int] | None = None
    since: int = 0

    def note(self, times: tuple[int, int] | None) -> None:
        """Take packet times, earliest and latest."""
        if self.times is None or times is None:
            self.times = self.times or times
        else:
            self.times = min(times[0], self.times[0]), max(times[1], self.times[1])


@dataclass(frozen=True, slots=True)
class Committed:
    """The last durable segment."""

    segment: int
    last_event: int
    hash: bytes


class Recorder:
    """Seals events into a spool.  Raises ConfigurationError where the spool is another key's."""

    def __init__(
        self,
        spool: Spool,
        key: SigningKey,
        now: Moment,
        *,
        boot: bytes,
        software: str,
        heartbeat: int = 60,
        old_key: SigningKey | None = None,
        linger: int = LINGER_NANOSECONDS,
    ) -> None:
        self._spool = spool
        self._key = key
        self._boot = boot
        self._heartbeat = heartbeat
        self._linger = linger
        self._open = _Open()
        self._pending: Segment | None = None
        #: When the oldest sealed segment that is not durable yet was sealed.
        self._waiting: int | None = None
        self._gaps: list[Event] = []
        self._last: Moment | None = None
        self._written: Segment | None = None
        #: Totals that go into every header.
        self.counters: dict[str, int] = {}
        self.committed: Committed | None = None
        last = spool.found.last
        self._probe = key.id if last is None else last.header.probe
        self._next_segment = self._next_event = 0
        self._previous: bytes | None = None
        if last is not None:
            self._next_segment = last.header.segment + 1 + spool.found.doubtful_segments
            self._next_event = last.header.last_event + 1 + spool.found.doubtful_events
            self._previous = last.hash
        signer = self._signer(last, key, old_key)
        self._begin(last, signer, now, software)
        if signer is not key:
            self.event(Key(now.wall, key.public.spki), now)
        self._key = signer
        self._end_segment(now)
        self._key = key
        self._commit(now)

    def _signer(self, last: Segment | None, key: SigningKey, old_key: SigningKey | None) -> SigningKey:
        """Who signs the first segment: the key the chain knows."""
        current = None if last is None else _key_after(last)
        if current in (None, key.id):
            return key
        if old_key is not None and current == old_key.id:
            return old_key
        raise ConfigurationError(
            "the spool's events were signed with another key; give that one as the old key, or another spool"
        )

    def _begin(self, last: Segment | None, signer: SigningKey, now: Moment, software: str) -> None:
        found = self._spool.found
        self.event(Start(now.wall, software, signer.public.spki), now)
        if last is not None and (found.doubtful_segments or not _ended(last)):
            doubt = found.doubtful_segments > 0
            self.event(
                Gap(
                    now.wall,
                    GapReason.UNCLEAN_RESTART,
                    since=last.header.sealed.wall,
                    until=now.wall,
                    events=None,
                    first_event=last.header.last_event + 1 if doubt else None,
                    last_event=self._next_event - 1 if doubt else None,
                    first_segment=last.header.segment + 1 if doubt else None,
                    last_segment=self._next_segment - 1 if doubt else None,
                    hash=None,
                ),
                now,
            )
        if found.missing_before is not None:
            first = found.missing_before.header
            self.event(
                Gap(
                    *(now.wall, GapReason.MISSING, None, first.sealed.wall, None, 0, first.first_event - 1),
                    first_segment=0,
                    last_segment=first.segment - 1,
                    hash=first.previous,
                ),
                now,
            )

    @property
    def probe(self) -> bytes:
        """The probe's id: that of its first key."""
        return self._probe

    @property
    def stalled(self) -> bool:
        """Whether the disk is full, so that nothing can be taken."""
        return self._pending is not None

    @property
    def sequence(self) -> int:
        """The sequence the next event gets."""
        return self._next_event + self._open.count

    def take(self, intake: Intake, now: Moment) -> int:
        """Take events until none is left, or the disk is full; how many were taken.

        Raises ValueError for what is none.
        """
        taken = 0
        while intake.left and not self.stalled:
            room = self._open
            encoded = intake.encode(self.sequence, SEGMENT_EVENTS - room.count, SEGMENT_BYTES - room.size)
            room.note(encoded.times)
            self._take(encoded.framed, encoded.leaves, now)
            taken += encoded.leaves
        return taken

    def event(self, event: Event, now: Moment) -> None:
        """Take an event of the probe itself."""
        self._take(frame(event.leaf(self.sequence)), 1, now)

    def _take(self, framed: bytes, n: int, now: Moment) -> None:
        room = self._open
        if not room.count:
            room.since = now.uptime
        room.framed.append(framed)
        room.count += n
        room.size += len(framed)
        if room.count >= SEGMENT_EVENTS or room.size >= SEGMENT_BYTES:
            self._end_segment(now)

    def deadline(self) -> int:
        """When wake() is due, on the clock of `Moment.uptime`."""
        due = (self._last.uptime if self._last else 0) + self._heartbeat * _SECOND
        if self._open.count:
            due = min(due, self._open.since + self._linger)
        return due if self._waiting is None else min(due, self._waiting + self._linger)

    def wake(self, now: Moment) -> None:
        """Do what is due: end a segment that waited, report that nothing happened, try a full disk."""
        if self._pending is not None:
            self._store(self._pending, now)
            if self._pending is not None:
                return
        if (
            not self._open.count
            and self._last
            and now.uptime - self._last.uptime >= self._heartbeat * _SECOND
        ):
            self.event(Heartbeat(now.wall), now)
            self.flush(now)
        elif self._open.count and now.uptime - self._open.since >= self._linger:
            self.flush(now)
        elif self._waiting is not None and now.uptime - self._waiting >= self._linger:
            self._commit(now)
            self._make_room(now)

    def flush(self, now: Moment) -> None:
        """End the open segment, make everything durable, and make room where the spool is crowded."""
        self._end_segment(now)
        self._commit(now)
        self._make_room(now)

    def close(self, now: Moment, gap: Event | None = None) -> None:
        """Say that this is the end (after `gap`, if the end is not an orderly one).

        Raises SpoolFailed if what was taken cannot be stored.
        """
        self.wake(now)
        if gap is not None:
            self.event(gap, now)
        for _ in range(_ATTEMPTS):
            self.event(Stop(now.wall), now)
            self._end_segment(now)
            self._commit(now)
            if self._pending is not None:
                raise SpoolFailed("the disk is full, and the last events are not on it")
            if self._written is not None and _ended(self._written):
                return  # and not, say, the gap of what made room for the stop
        raise SpoolFailed("the spool's disk fails again and again")

    def _end_segment(self, now: Moment) -> None:
        if not self._open.count or self._pending is not None:
            return
        self._check_clock(now)
        self._last = now
        room, self._open = self._open, _Open()
        first = self._next_event
        header = Header(
            algorithm=self._key.public.algorithm,
            key=self._key.id,
            probe=self._probe,
            boot=self._boot,
            segment=self._next_segment,
            first_event=first,
            last_event=first + room.count - 1,
            previous=self._previous,
            times=room.times,
            sealed=now,
            heartbeat=self._heartbeat,
            counters=dict(self.counters),
        )
        segment = seal(header, b"".join(room.framed), room.count, self._key)
        self._next_segment += 1
        self._next_event += room.count
        self._previous = segment.hash
        self._store(segment, now)

    def _check_clock(self, now: Moment) -> None:
        """A clock that was set is said in the segment whose time shows it."""
        if self._last is None:
            return
        step = (now.wall - self._last.wall) - (now.uptime - self._last.uptime)
        if abs(step) > CLOCK_STEP_NANOSECONDS:
            room = self._open
            leaf = frame(Clock(now.wall, step).leaf(self.sequence))
            room.framed.append(leaf)
            room.count += 1
            room.size += len(leaf)

    def _store(self, segment: Segment, now: Moment) -> None:
        self._pending = None
        while True:
            try:
                self._spool.append(segment)
            except NoRoom:
                if self._spool.held:
                    self._try_commit()
                if self._spool.delivered is not None:
                    if self._drop_delivered():
                        continue
                    self._pending = segment
                    return
                dropped = self._spool.oldest()
                if dropped is None:
                    self._pending = segment
                    return
                # There is no room to announce it first; a crash right here is told as MISSING.
                self._spool.remove_oldest()
                self._gaps.append(_dropped(dropped, now))
                continue
            except Poisoned as poisoned:
                self._lost([*poisoned.lost], now)
                if len(self._gaps) > _ATTEMPTS:
                    raise SpoolFailed(str(poisoned)) from poisoned
                continue
            break
        self._written = segment
        if self._waiting is None:
            self._waiting = now.uptime
        if self._gaps:
            self._announce(now)

    def _try_commit(self) -> None:
        try:
            self._spool.commit()
        except Poisoned as poisoned:
            self._lost(poisoned.lost, self._last or Moment(0, 0))

    def _lost(self, lost: list[Segment], now: Moment) -> None:
        if lost:
            self._gaps.append(_gap(GapReason.WRITE_FAILED, Range.of(lost[0]).to(lost[-1]), now))
        else:
            self._gaps.append(
                Gap(now.wall, GapReason.WRITE_FAILED, None, None, 0, None, None, None, None, None)
            )

    def _announce(self, now: Moment) -> None:
        gaps, self._gaps = self._gaps, []
        for gap in gaps:
            self.event(gap, now)
        self._end_segment(now)

    def _commit(self, now: Moment) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._spool.commit()
            except Poisoned as poisoned:
                self._lost(poisoned.lost, now)
                self._written = None
                self._announce(now)
                continue
            break
        else:
            raise SpoolFailed("the spool's disk failed again and again")
        if self._written is not None:
            self._durable(self._written)

    def _make_room(self, now: Moment) -> None:
        """Let the oldest files go: delivered, or else each once it is said durably."""
        if self._spool.delivered is not None:
            while self._spool.crowded and self._drop_delivered():
                pass
            return
        while self._spool.crowded and not self.stalled and (oldest := self._spool.oldest()) is not None:
            self.event(_dropped(oldest, now), now)
            self._end_segment(now)
            try:
                self._spool.commit()
            except Poisoned as poisoned:
                self._lost(poisoned.lost, now)
                self._announce(now)
                return
            if self._written is None or self.stalled:
                return
            self._durable(self._written)
            self._spool.drop_oldest(oldest.last_segment + 1)

    def _drop_delivered(self) -> bool:
        try:
            return self._spool.drop_delivered()
        except OSError:
            return False  # a full disk: there is another time

    def _durable(self, segment: Segment) -> None:
        self.committed = Committed(segment.header.segment, segment.header.last_event, segment.hash)
        self._waiting = None


def _dropped(dropped: Range, now: Moment) -> Gap:
    return _gap(GapReason.SPOOL_FULL, dropped, now)


def _gap(reason: GapReason, missing: Range, now: Moment) -> Gap:
    return Gap(
        *(now.wall, reason, None, None, None, missing.first_event, missing.last_event),
        *(missing.first_segment, missing.last_segment, missing.hash),
    )


def _last_leaf(segment: Segment) -> Event | None:
    try:
        return decode(segment.leaves()[-1])
    except (ValueError, IndexError):
        return None


def _ended(segment: Segment) -> bool:
    return isinstance(_last_leaf(segment), Stop)


def _key_after(segment: Segment) -> bytes:
    """The key that may sign behind `segment`."""
    for leaf in reversed(segment.leaves()):
        if leaf[1:2] == bytes((Key.SCHEMA,)) and isinstance(found := decode(leaf), Key):
            return parse_public_key(found.public_key).id
    return segment.header.key
