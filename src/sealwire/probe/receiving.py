"""The collector's end of deliveries, without socket or clock: whom to hear, how much, and what to answer.

A Receiver lives as long as one connection.  It checks that the probe it hears is enrolled under the
identity that the connection proved, lends it credit out of one budget, holds what came until the store
has it, and turns what the store says into receipts or a refusal.  What a probe can make us hold is the
credit it was lent, and that is reserved before it is said; who sends more is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.probe import delivery
from sealwire.probe.delivery import (
    FRAME_MAXIMUM_BYTES,
    Ask,
    BadMessage,
    Credit,
    Enrol,
    Hello,
    Reason,
    Refused,
    Segment,
    Welcome,
)
from sealwire.probe.enrolled import Probe
from sealwire.probe.seal.keys import SigningKey
from sealwire.probe.seal.receipts import RECEIPT_SEGMENTS, acknowledge

#: How often a probe that waits for a receipt hears that we are there; it leaves after 30 s of silence.
WORD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class CollectLimits:
    """What one collector may spend on its probes.  Sizes in bytes, times in seconds."""

    #: Probes connected at once; a newcomer is told that it is busy.
    probes: int = 1_000
    #: Lent to all probes together.
    total_bytes: int = 1 << 30
    #: Lent to one probe, where there is enough; never less than one segment.
    window_bytes: int = 4 << 20
    #: Segments of one probe on their way.
    window_segments: int = 256
    #: Until a probe has said who it is.
    hello_seconds: float = 10.0
    #: Without a word, where nothing is owed: probes ask twice in that time.
    idle_seconds: float = 60.0


class Budget:
    """Bytes that are lent, and to how many."""

    def __init__(self, limits: CollectLimits) -> None:
        self.limits = limits
        self.lent = 0
        self.probes = 0
        #: Newcomers for whom there was nothing left.
        self.refused = 0

    def lend(self) -> int:
        """A window for one more probe, or 0.  Near the end windows get smaller, so that more find room."""
        free = self.limits.total_bytes - self.lent
        window = max(min(self.limits.window_bytes, free // 4), FRAME_MAXIMUM_BYTES)
        if self.probes >= self.limits.probes or window > free:
            self.refused += 1
            return 0
        self.probes += 1
        self.lent += window
        return window

    def give_back(self, window: int) -> None:
        if window:
            self.probes -= 1
            self.lent -= window


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one frame: it is durable, or refused."""

    segment: int | None
    hash: bytes
    refusal: Refused | None = None


#: Who is enrolled under a probe's id, revoked ones included.
Lookup = Callable[[bytes], Probe | None]
#: Number and hash of the last segment that is stored of a probe.
Last = Callable[[bytes], tuple[int, bytes] | None]
#: Enrols: message, what the connection exports to who is at its ends, its identity.  Raises Refusal.
Enrolment = Callable[[Enrol, bytes, bytes], None]


class Refusal(Exception):
    """What a probe asks for is refused."""

    def __init__(self, reason: Reason, words: str, segment: int | None = None) -> None:
        super().__init__(words)
        self.refusal = Refused(reason, segment, words)


class Receiver:
    """One connection's receiving.

    `identity` is the hash of the public key that the connection's other end proved to have, `exported`
    what the connection exports for `delivery.to_enrol`.  Once `refusal` is set, or `done`, what
    transmit() gives is the last to be written.
    """

    def __init__(
        self,
        identity: bytes,
        exported: bytes,
        *,
        key: SigningKey,
        budget: Budget,
        lookup: Lookup,
        last: Last,
        enrol: Enrolment,
        now: float,
    ) -> None:
        self.probe: Probe | None = None
        self.refusal: Refused | None = None
        self.done = False
        self.software = ""
        self._identity, self._exported = identity, exported
        self._key, self._budget = key, budget
        self._lookup, self._last, self._enrol = lookup, last, enrol
        self._window = 0
        self._out: list[bytes] = []
        self._frames: list[bytes] = []
        #: Frames given out whose fate is not known, and those waiting to be given out: their bytes.
        self._held: list[int] = []
        self._segments = self._bytes = 0
        self._credit = Credit(0, 0)
        self._heard = self._said = now

    @property
    def held_bytes(self) -> int:
        """Bytes of segments that came and are not settled."""
        return sum(self._held)

    @property
    def owing(self) -> int:
        """Segments that came and are not settled."""
        return len(self._held)

    def transmit(self) -> list[bytes]:
        """Messages to write, in order."""
        out, self._out = self._out, []
        return out

    def frames(self) -> list[bytes]:
        """Segments that came, in order, for the store; settle() says what became of them."""
        found, self._frames = self._frames, []
        return found

    def receive(self, data: bytes, now: float) -> None:
        """Take a message of the probe; what is wrong with it becomes `refusal`."""
        if self.refusal is not None or self.done:
            return
        self._heard = now
        try:
            self._take(delivery.decode(data), now)
        except BadMessage as wrong:
            self.refuse(Reason.OTHER, str(wrong))
        except Refusal as refused:
            self._refuse(refused.refusal)

    def _take(self, message: delivery.Message, now: float) -> None:
        if isinstance(message, Hello) and self.probe is None:
            self._hello(message, now)
        elif isinstance(message, Enrol) and self.probe is None:
            self._version(message.version)
            self._enrol(message, self._exported, self._identity)
            self._out.append(delivery.encode(delivery.Enrolled(self._key.public.spki)))
            self.done = True
        elif self.probe is None:
            raise BadMessage(f"a {type(message).__name__} before a Hello")
        elif isinstance(message, Segment):
            self._segment(message.frame)
        elif isinstance(message, Ask):
            self._say_credit(now)
        else:
            raise BadMessage(f"a {type(message).__name__} that is not a probe's to say, or not now")

    def _version(self, version: int) -> None:
        if version != delivery.VERSION:
            words = f"this collector speaks version {delivery.VERSION}, not {version}"
            raise Refusal(Reason.VERSION, words)

    def _hello(self, hello: Hello, now: float) -> None:
        self._version(hello.version)
        probe = self._lookup(hello.probe)
        if probe is None:
            raise Refusal(Reason.UNKNOWN_PROBE, "nobody enrolled this probe: sealwire enroll")
        if probe.revoked is not None:
            raise Refusal(Reason.REVOKED, "this probe was revoked")
        if probe.identity != self._identity:
            raise Refusal(Reason.OTHER_IDENTITY, "the probe is enrolled under another certificate or key")
        self._window = self._budget.lend()
        if not self._window:
            raise Refusal(Reason.BUSY, "no room for another probe now")
        self.probe, self.software = probe, hello.software
        self._credit = self._grant()
        last, credit = self._last(probe.id), self._credit
        welcome = Welcome(delivery.VERSION, self._key.public.spki, last, credit.segments, credit.bytes)
        self._out.append(delivery.encode(welcome))
        self._said = now

    def _grant(self) -> Credit:
        """What was settled has room again."""
        segments, n = self._segments - len(self._held), self._bytes - sum(self._held)
        return Credit(segments + self._budget.limits.window_segments, n + self._window)

    def _segment(self, frame: bytes) -> None:
        if self._segments >= self._credit.segments or self._bytes + len(frame) > self._credit.bytes:
            raise Refusal(Reason.FLOOD, "more than credit allowed")
        self._segments += 1
        self._bytes += len(frame)
        self._held.append(len(frame))
        self._frames.append(frame)

    def settle(self, outcomes: Sequence[Settled], received: int, now: float) -> None:
        """Answer for the frames that frames() gave first: receipts up to the first that is refused.

        `received` is when they came, nanoseconds since 1970.
        """
        assert self.probe is not None, "frames come from a probe"
        assert len(outcomes) <= len(self._held), "what is settled came before"
        del self._held[: len(outcomes)]
        if self.refusal is not None:
            return
        good: list[tuple[int, bytes]] = []
        refusal = None
        for outcome in outcomes:
            refusal = outcome.refusal
            if refusal is not None or outcome.segment is None:
                break
            good.append((outcome.segment, outcome.hash))
        # One segment sent twice on a connection is named once in a receipt, as it was held once.
        good = list(dict(good).items())
        for at in range(0, len(good), RECEIPT_SEGMENTS):
            receipt = acknowledge(self.probe.id, good[at : at + RECEIPT_SEGMENTS], received, self._key)
            self._out.append(delivery.encode(delivery.Receipt(receipt)))
        if refusal is not None:
            self._refuse(refusal)
        else:
            self._say_credit(now)

    def _say_credit(self, now: float) -> None:
        self._credit = self._grant()
        self._out.append(delivery.encode(self._credit))
        self._said = now

    def refuse(self, reason: Reason, words: str) -> None:
        """End this connection, and say why."""
        self._refuse(Refused(reason, None, words))

    def _refuse(self, refusal: Refused) -> None:
        if self.refusal is None:
            self.refusal = refusal
            self._frames.clear()
            self._out.append(delivery.encode(refusal))

    def review(self) -> None:
        """Look again whether this probe may still be heard: the list may have changed."""
        if self.probe is None or self.refusal is not None:
            return
        known = self._lookup(self.probe.id)
        if known is None or known.revoked is not None:
            self.refuse(Reason.REVOKED, "this probe was revoked")
        elif known.identity != self._identity:
            self.refuse(Reason.OTHER_IDENTITY, "the probe is enrolled under another certificate or key now")

    def deadline(self) -> float:
        """When wake() is due."""
        limits = self._budget.limits
        if self.probe is None:
            return self._heard + limits.hello_seconds
        return self._said + WORD_SECONDS if self._held else self._heard + limits.idle_seconds

    def wake(self, now: float) -> None:
        """Do what is due."""
        if self.refusal is not None or self.done or now < self.deadline():
            return
        if self.probe is None:
            self.refuse(Reason.OTHER, "no Hello in time")
        elif self._held:
            self._said = now
            self._out.append(delivery.encode(self._credit))
        else:
            self.refuse(Reason.OTHER, "nothing was heard for too long")

    def close(self) -> None:
        """The connection is gone: what was lent comes back.  May be called twice."""
        self._budget.give_back(self._window)
        self._window = 0
