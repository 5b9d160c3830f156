"""The probe's end of a delivery, without socket or clock: what may be sent now, and what arrived.

A Sender lives as long as one connection.  It says who it is, learns its credit, takes segments in the
order of the spool while credit lasts, and holds what was sent until a receipt names its hash.  Only
a receipt that the collector's key signed, of this probe, for segments that are on their way, counts;
anything else ends the connection.  A collector that stays silent while it owes something is left.

`Backoff` says how long to wait before the next connection: 100 ms, doubled up to 30 s, without end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sealwire.errors import ConfigurationError, Error
from sealwire.probe import delivery
from sealwire.probe.delivery import TEMPORARY, BadMessage, Credit, Hello, Receipt, Refused, Welcome
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.keys import PublicKey, parse_public_key
from sealwire.probe.seal.receipts import receipts

#: A collector that owes an answer says something at least every 10 s (receiving.WORD_SECONDS).
SILENCE_SECONDS: Final = 30.0
#: How often to ask a collector that owes nothing whether it is there.
ASK_SECONDS: Final = 15.0


class Denied(Error):
    """The collector refused.

    Attributes:
        refusal: what it said.
        temporary: whether trying again may help without anybody doing something.
    """

    def __init__(self, refusal: Refused) -> None:
        which = "" if refusal.segment is None else f", segment {refusal.segment}"
        reason = refusal.reason.name.lower().replace("_", " ")
        super().__init__(f"the collector refused ({reason}{which}): {refusal.words}")
        self.refusal = refusal
        self.temporary = refusal.reason in TEMPORARY


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A segment to be delivered."""

    number: int
    hash: bytes
    frame: bytes
    events: int
    #: Earliest packet time in it, nanoseconds since 1970; None without one.
    earliest: int | None
    #: When it was sealed, nanoseconds since 1970.
    sealed: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one receipt named: it is the collector's from now on."""

    receipt: bytes
    #: The segments, and when each was sent.
    segments: tuple[tuple[Outgoing, float], ...]


class Sender:
    """One connection's delivery.  Raises BadMessage, Denied or TimeoutError when it is over.

    `collector` is the key that receipts must be signed with; None takes the one the collector names
    over the authenticated connection, and it is then `collector`.
    """

    def __init__(self, probe: bytes, software: str, collector: PublicKey | None, now: float) -> None:
        self.collector = collector
        #: What the collector holds: number and hash of the last segment; None for none.
        self.last: tuple[int, bytes] | None = None
        self.welcomed = False
        self._probe = probe
        self._out: list[bytes] = [delivery.encode(Hello(delivery.VERSION, probe, software))]
        self._credit = Credit(0, 0)
        self._segments = self._bytes = 0
        self._flying: OrderedDict[int, tuple[Outgoing, float]] = OrderedDict()
        self._delivered: list[Delivered] = []
        self._heard = now
        self._asked = False

    @property
    def flying(self) -> int:
        """Segments sent and not yet acknowledged."""
        return len(self._flying)

    @property
    def credit(self) -> tuple[int, int]:
        """What may still be sent: segments, bytes."""
        return self._credit.segments - self._segments, self._credit.bytes - self._bytes

    def may_send(self, size: int) -> bool:
        """Whether a frame of `size` bytes may be sent now."""
        segments, n = self.credit
        return self.welcomed and segments > 0 and size <= n

    def send(self, segment: Outgoing, now: float) -> None:
        """Send a segment for which there is credit, behind those sent before."""
        assert self.may_send(len(segment.frame)), "credit was looked at before"
        if not self._flying:
            self._heard = now  # from here on the collector owes an answer
        self._segments += 1
        self._bytes += len(segment.frame)
        self._flying[segment.number] = segment, now
        self._out.append(delivery.encode(delivery.Segment(segment.frame)))

    def transmit(self) -> list[bytes]:
        """Messages to write, in order."""
        out, self._out = self._out, []
        return out

    def delivered(self) -> list[Delivered]:
        """Receipts that came, in order."""
        found, self._delivered = self._delivered, []
        return found

    def receive(self, data: bytes, now: float) -> None:
        """Take a message of the collector."""
        message = delivery.decode(data)
        self._heard, self._asked = now, False
        if isinstance(message, Refused):
            raise Denied(message)
        if isinstance(message, Welcome):
            self._welcome(message)
        elif not self.welcomed:
            raise BadMessage(f"a {type(message).__name__} before a Welcome")
        elif isinstance(message, Credit):
            self._take_credit(message)
        elif isinstance(message, Receipt):
            self._take_receipt(message)
        else:
            raise BadMessage(f"a {type(message).__name__}, which is a probe's to say")

    def _welcome(self, message: Welcome) -> None:
        if self.welcomed:
            raise BadMessage("a second Welcome")
        if message.version != delivery.VERSION:
            raise BadMessage(f"a collector that speaks version {message.version}")
        try:
            key = parse_public_key(message.key)
        except ConfigurationError:
            raise BadMessage("a Welcome with a key that signs no receipts") from None
        if self.collector is not None and self.collector.id != key.id:
            raise BadMessage(
                f"the collector signs its receipts with key {key.id.hex()}, not {self.collector.id.hex()}"
            )
        self.collector, self.last, self.welcomed = key, message.last, True
        self._credit = Credit(message.segments, message.bytes)

    def _take_credit(self, message: Credit) -> None:
        if message.segments < self._credit.segments or message.bytes < self._credit.bytes:
            raise BadMessage("credit that was taken back")
        self._credit = message

    def _take_receipt(self, message: Receipt) -> None:
        assert self.collector is not None, "a Welcome came before"
        try:
            found = list(receipts(message.receipt))
        except Malformed as wrong:
            raise BadMessage(f"a receipt that is none: {wrong}") from None
        if len(found) != 1 or found[0].probe != self._probe:
            raise BadMessage("a receipt of another probe")
        if not found[0].authentic(self.collector):
            raise BadMessage("a receipt that the collector's key did not sign")
        named = found[0].segments
        if len(dict(named)) != len(named) or any(
            number not in self._flying or self._flying[number][0].hash != known for number, known in named
        ):
            raise BadMessage("a receipt for a segment that was not sent")
        taken = tuple(self._flying.pop(number) for number, _ in named)
        self._delivered.append(Delivered(message.receipt, taken))

    def deadline(self) -> float:
        """When wake() is due."""
        if self._flying or not self.welcomed or self._asked:
            return self._heard + SILENCE_SECONDS
        return self._heard + ASK_SECONDS

    def wake(self, now: float) -> None:
        """Do what is due.  Raises TimeoutError if the collector has been silent for too long."""
        if now < self.deadline():
            return
        if self._flying or not self.welcomed or self._asked:
            raise TimeoutError(f"the collector has said nothing for {now - self._heard:.0f} seconds")
        self._asked = True
        self._out.append(delivery.encode(delivery.Ask()))


class Backoff:
    """Waits between attempts: 100 ms, doubled up to 30 s, each shortened by up to a half.

    `draw` gives numbers from 0 to 1: many probes that lost one collector must not come back together.
    """

    FIRST_SECONDS: Final = 0.1
    MOST_SECONDS: Final = 30.0

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._next = self.FIRST_SECONDS

    def wait(self) -> float:
        """Seconds to wait before the next attempt."""
        longest, self._next = self._next, min(self._next * 2, self.MOST_SECONDS)
        return longest * (1 - self._draw() / 2)

    def reset(self) -> None:
        """An attempt was of use: something was delivered."""
        self._next = self.FIRST_SECONDS
