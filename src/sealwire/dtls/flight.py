"""What we must get across: handshake messages not acknowledged yet, and when to send them again.

A message is known by the byte ranges the peer has not acknowledged.  Sending walks over those
ranges in passes: a pass starts at the first one, sends at most ten records at a time (RFC 9147
section 5.8.3) and goes on where it stopped when an ACK or the timer says so; at its end the next
pass starts over.  Each record sent is remembered with the ranges it carried, so any ACK of it, even
a late one, takes exactly those ranges away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sealwire.dtls.header import FRAGMENT_HEADER_BYTES, RecordNumber, fragment_header
from sealwire.tls13.messages import HEADER_BYTES, HandshakeType, frame

# RFC 9147 section 5.8.3 [9147-5.8.3-1]
RECORDS_PER_TRANSMISSION: Final = 10
# RFC 9147 section 5.8.2 [9147-5.8.2-1]: doubled at least up to 60 seconds.
MAX_TIMEOUT_SECONDS: Final = 60.0
# A measured round trip never makes the timer shorter than this: a peer's signature or a busy
# loop takes as long now and then.
_MIN_TIMEOUT_SECONDS: Final = 0.2
# How far a measurement that may be of something older lengthens the timer: so that a path slower than the
# timer is not sent everything twice (RFC 9147 section 5.8.2), nor a loss taken for slowness for long.
UNSURE_TIMEOUTS: Final = 2
# Records remembered for ACKs.  The oldest are forgotten; an ACK of one forgotten is ignored and
# its ranges are sent again, which costs bytes and nothing else.
_MAX_SENT_RECORDS: Final = 512


def timeout_after(round_trip: float, longest: float) -> float:
    """The timer to start with once a round trip is known, both in seconds.

    RFC 9147 section 5.8.2 [9147-5.8.2-3, 9147-5.8.2-5]: one and a half times what was measured.
    """
    return min(max(1.5 * round_trip, _MIN_TIMEOUT_SECONDS), longest)


class _Message:
    """One outgoing message with the ranges of its body that are not acknowledged.

    RFC 9147 section 5.5 [9147-5.5-6]: its bytes are made once, so no transmission differs from another.
    """

    __slots__ = ("body", "epoch", "handle", "kind", "missing", "passes", "seq")

    def __init__(self, seq: int, epoch: int, message: bytes, handle: int) -> None:
        self.seq = seq
        self.epoch = epoch
        self.kind = message[0]
        self.body = message[HEADER_BYTES:]
        self.handle = handle
        self.missing: list[tuple[int, int]] = [(0, len(self.body))]
        self.passes = 0

    def acknowledge(self, start: int, end: int) -> bool:
        """Take a range off; whether anything was still missing in it (RFC 9147 section 7.2 [9147-7.2-1])."""
        left: list[tuple[int, int]] = []
        for low, high in self.missing:
            if low < start:
                left.append((low, min(high, start)))
            if high > end:
                left.append((max(low, end), high))
        changed = left != self.missing
        self.missing = left
        return changed

    def first_missing(self, offset: int) -> tuple[int, int] | None:
        """The first missing range at or behind `offset`, cut to begin there [9147-5.8.1-1]."""
        for low, high in self.missing:
            if high > offset:
                return max(low, offset), high
        return None


class _Sent:
    """One record as sent: when, and what it carried."""

    __slots__ = ("again", "at", "parts")

    def __init__(self, at: float, parts: list[tuple[_Message, int, int]], again: bool) -> None:
        self.at = at
        self.parts = parts
        self.again = again


class Content:
    """Handshake fragments for one record, not sealed yet."""

    __slots__ = ("data", "epoch", "parts")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.data = bytearray()
        self.parts: list[tuple[_Message, int, int]] = []


class Flight:
    """The outgoing side of the handshake's reliability (RFC 9147 sections 5.7, 5.8 and 7.2)."""

    __slots__ = (
        "_base_timeout",
        "_cursor_offset",
        "_cursor_seq",
        "_in_burst",
        "_initial_timeout",
        "_last_burst",
        "_messages",
        "_partly_acknowledged",
        "_prompted",
        "_sending",
        "_sent",
        "deadline",
        "expiries",
        "next_seq",
        "outstanding_bytes",
        "timeout",
    )

    def __init__(self, initial_timeout: float, next_seq: int = 0) -> None:
        self._messages: tuple[_Message, ...] = ()
        #: Bytes of the messages kept.
        self.outstanding_bytes = 0
        # None while nothing is outstanding, as most of the time: an empty dict is 64 bytes.
        self._sent: dict[RecordNumber, _Sent] | None = None
        #: message_seq of the next message.
        self.next_seq = next_seq
        #: Seconds until a transmission counts as lost.
        self.timeout = initial_timeout
        # The same without the back-off of this flight's own losses.
        self._base_timeout = initial_timeout
        self._initial_timeout = initial_timeout
        #: When that will be, None while nothing is outstanding.
        self.deadline: float | None = None
        #: Expiries since the peer last acknowledged anything.
        self.expiries = 0
        self._sending = False
        self._in_burst = 0
        self._last_burst = float("-inf")
        self._prompted = False
        self._partly_acknowledged = False
        # Where the pass goes on: the first missing range at or behind this point.
        self._cursor_seq = next_seq
        self._cursor_offset = 0

    @property
    def patience(self) -> float:
        """Seconds after which something expected from the peer is late.

        RFC 9147 section 7.1 [9147-7.1-2] says a quarter of the timer; of the timer without its
        back-off, because our own losses say nothing of how soon the peer's rest should come.
        """
        return self._base_timeout / 4

    @property
    def timing(self) -> tuple[float, float]:
        """The timer of the next flight and of a first one, in seconds."""
        return self._base_timeout, self._initial_timeout

    @timing.setter
    def timing(self, timing: tuple[float, float]) -> None:
        self._base_timeout, self._initial_timeout = timing
        self.timeout = self._base_timeout

    @property
    def outstanding(self) -> bool:
        """Whether anything is not acknowledged."""
        return bool(self._messages)

    @property
    def anything_sent(self) -> bool:
        """Whether any record of what is outstanding ever left."""
        return bool(self._sent)

    @property
    def epochs(self) -> set[int]:
        """Epochs whose sending keys are still needed."""
        return {message.epoch for message in self._messages}

    def kept(self) -> tuple[tuple[int, bytes, int], ...]:
        """What is outstanding, for another process to send: epoch, message (TLS form) and handle."""
        return tuple(
            (message.epoch, frame(HandshakeType(message.kind), message.body), message.handle)
            for message in self._messages
        )

    def add(self, epoch: int, message: bytes, handle: int) -> None:
        """Queue a message (TLS form) and send it with the next transmission."""
        if not self._messages:
            self._cursor_seq, self._cursor_offset = self.next_seq, 0
        # RFC 9147 section 5.2 [9147-5.2-2]: one number per message, the same in every transmission.
        self._messages += (_Message(self.next_seq, epoch, message, handle),)
        self.outstanding_bytes += len(message) - HEADER_BYTES
        self.next_seq += 1
        if not self._sending:
            self._sending = True
            self._in_burst = 0

    # --- sending ---------------------------------------------------------------------------

    def next_content(self, room: int, epoch: int | None) -> Content | None:
        """Fragments for the next record, at most `room` bytes and all of one epoch.

        None if there is nothing to send now, or nothing that fits.  With `epoch` given, only
        content of that epoch is wanted.
        """
        if not self._sending or self._in_burst >= RECORDS_PER_TRANSMISSION:
            return None
        content: Content | None = None
        while True:
            piece = self._next_piece()
            if piece is None:
                self._sending = False
                break
            message, start, end = piece
            wanted = content.epoch if content is not None else epoch
            if wanted is not None and message.epoch != wanted:
                break
            used = 0 if content is None else len(content.data)
            space = room - used - FRAGMENT_HEADER_BYTES
            # A fragment of a single byte is not worth its header, unless that byte is all.
            if space < min(2, end - start):
                break
            if content is None:
                content = Content(message.epoch)
            # RFC 9147 section 5.5 [9147-5.5-1, 9147-5.5-2]: the next begins where this one ends, and it lies
            # in one datagram.
            end = min(end, start + space)
            content.data += fragment_header(message.kind, len(message.body), message.seq, start, end - start)
            content.data += message.body[start:end]
            content.parts.append((message, start, end))
            self._cursor_seq, self._cursor_offset = message.seq, end
        return content

    def pending_epoch(self) -> int | None:
        """The epoch of what :meth:`next_content` would give, None if nothing."""
        if not self._sending or self._in_burst >= RECORDS_PER_TRANSMISSION:
            return None
        piece = self._next_piece()
        if piece is None:
            self._sending = False
            return None
        return piece[0].epoch

    def _next_piece(self) -> tuple[_Message, int, int] | None:
        for message in self._messages:
            if message.seq < self._cursor_seq:
                continue
            offset = self._cursor_offset if message.seq == self._cursor_seq else 0
            gap = message.first_missing(offset)
            if gap is not None:
                return message, *gap
        return None

    def sent(self, content: Content, number: RecordNumber, now: float) -> bool:
        """Remember that `content` left in record `number`; whether it is a retransmission."""
        again = any(message.passes > 0 for message, _, _ in content.parts)
        if self._sent is None:
            self._sent = {}
        self._sent[number] = _Sent(now, content.parts, again)
        if len(self._sent) > _MAX_SENT_RECORDS:
            del self._sent[next(iter(self._sent))]
        self._in_burst += 1
        self._last_burst = now
        if self.deadline is None:
            self.deadline = now + self.timeout
        return again

    # --- the peer's answers ----------------------------------------------------------------

    def acknowledge(self, numbers: Iterable[tuple[int, int]], now: float) -> list[int]:
        """Take the records of an ACK off; returns handles of messages now across, in order.

        A handle is reported once its message and everything sent before it is acknowledged.
        """
        progress = False
        # With nothing outstanding a list, however long, is not looked through.
        records = self._sent
        for epoch, sequence in numbers if records else ():
            # RFC 9147 section 7.2 [9147-7.2-4]; unknown numbers may be forgotten ones.
            sent = records.pop(RecordNumber(epoch, sequence), None) if records else None
            if sent is None:
                continue
            # An ACK names one transmission, so even a repeated one measures the round trip.
            self._measured(now - sent.at, MAX_TIMEOUT_SECONDS)
            for message, start, end in sent.parts:
                if message.acknowledge(start, end):
                    progress = True
        handles = self._collect()
        if progress:
            self.expiries = 0
            self._prompted = False
            self._partly_acknowledged = True
            if self._messages:
                self._resume(now)
        return handles

    def acknowledge_all(self, now: float, answered: RecordNumber | None = None) -> list[int]:
        """The peer answered, which acknowledges the whole flight (RFC 9147 section 7.2 [9147-7.2-5]).

        `answered` is the record the answer repeats the number of, if it does: a server without
        state numbers its HelloRetryRequest like the hello.
        """
        records = self._sent or {}
        sent = records.get(answered) if answered is not None else None
        # A number may be repeated by chance; then it is an old one, and the time is too long.
        longest = UNSURE_TIMEOUTS * self._initial_timeout
        if sent is None and records:
            # Which of several transmissions was answered cannot be told; the timer stays backed
            # off then (RFC 9147 section 5.8.2 [9147-5.8.2-4]).
            newest = next(reversed(records.values()))
            sent = None if newest.again else newest
            longest = MAX_TIMEOUT_SECONDS
        if sent is not None and self._messages:
            self._measured(now - sent.at, longest)
        for message in self._messages:
            message.missing = []
        self.expiries = 0
        return self._collect()

    def _collect(self) -> list[int]:
        handles = []
        for message in self._messages:
            if message.missing:
                break
            self.outstanding_bytes -= len(message.body)
            handles.append(message.handle)
        self._messages = self._messages[len(handles) :]
        if not self._messages:
            # RFC 9147 section 7.2 [9147-7.2-3]: all resending stops.
            self._sent = None
            self._sending = False
            self._prompted = False
            self._partly_acknowledged = False
            self.deadline = None
        return handles

    def _measured(self, round_trip: float, longest: float) -> None:
        self.timeout = self._base_timeout = timeout_after(round_trip, longest)

    def _resume(self, now: float) -> None:
        """An ACK took part of the flight: send the rest."""
        if now - self._last_burst >= self.patience / 2:
            # RFC 9147 section 7.2 [9147-7.2-2]: what was sent and the ACK leaves out is lost, so it
            # goes first.  Two ACKs in a row must not send everything twice, hence the pause.
            self._start_pass(now)
        elif self._next_piece() is not None:
            self._start_burst(now)

    def prompt(self, now: float) -> None:
        """The peer shows that it lacks our flight (its own came again): send.

        Anybody can forge such a sign before keys exist, so it moves the timer forward once and no
        more until the timer ran or the peer acknowledged something.
        """
        waiting = not self._sending or self._in_burst >= RECORDS_PER_TRANSMISSION
        if self._messages and waiting and not self._prompted and now - self._last_burst >= self.patience:
            self._prompted = True
            self._start_pass(now)

    def cut_anew(self, now: float) -> None:
        """Datagrams must be smaller: what is outstanding goes out again."""
        if self._messages:
            self._start_pass(now)

    def expire(self, now: float) -> None:
        """The timer ran out (RFC 9147 section 5.8.1 [9147-5.8.1-2]): back off and send again."""
        self.expiries += 1
        self._prompted = False
        # RFC 9147 section 5.8.2 [9147-5.8.2-1]
        self.timeout = min(self.timeout * 2, MAX_TIMEOUT_SECONDS)
        if self._partly_acknowledged or self._next_piece() is None:
            self._start_pass(now)
        else:
            # A peer that never acknowledges part of a flight must still get all of it.
            self._start_burst(now)

    def _start_pass(self, now: float) -> None:
        self._cursor_seq, self._cursor_offset = self._messages[0].seq, 0
        for message in self._messages:
            message.passes += 1
        self._start_burst(now)

    def _start_burst(self, now: float) -> None:
        self._sending = True
        self._in_burst = 0
        self.deadline = now + self.timeout
