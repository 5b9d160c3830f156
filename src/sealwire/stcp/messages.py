"""Message mode of one connection: what waits in either direction, pings, and the word of going away.

Messages written in a turn wait here whole, and leave as one run of frames when the network is asked for
bytes: so small ones share records, and a long one is sealed as the peer takes it.  Control frames have one
place each and go between two frames: whatever a peer sends, no more than one of each kind waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealwire.errors import Alert, LimitReached, ProtocolError
from sealwire.limits import Account, Limits, Purpose
from sealwire.stcp.frames import (
    MESSAGE_OVERHEAD_BYTES,
    WORD_BYTES,
    Control,
    control_frame,
    word_of,
)
from sealwire.stcp.lane import FrameReader, Queues
from sealwire.stcp.outgoing import charge, check_room
from sealwire.telemetry import ConnectionCounters

if TYPE_CHECKING:
    from sealwire.wire import Buffer

#: Messages are sealed in runs of about so many bytes: four full records.
RUN_BYTES: Final = 64 * 1024
# What a message is charged beside its bytes while it waits to be sealed: its word, the object, and the
# records it will be in; for a long one, a record more for each this many bytes.
_OVERHEAD_BYTES: Final = 64
_RECORD_SHIFT: Final = 9
_TOKEN_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """When to ask a silent peer whether it is there, and when to give it up.  For message mode.

    Args:
        after: seconds in which nothing came, after which a ping is sent.
        within: seconds after the ping in which something must come; otherwise the connection ends with
            TimeoutError.

    Raises:
        ValueError: a number that is not positive.
    """

    after: float = 30.0
    within: float = 10.0

    def __post_init__(self) -> None:
        if not (self.after > 0 and self.within > 0):
            raise ValueError(f"keepalive after {self.after} within {self.within} seconds is not positive")


class MessageMode(Queues):
    """What a connection in message mode has beside a plain one.

    Attributes:
        going_away: our go-away was sent, or waits to be.
        peer_going_away: the peer's has come.
        round_trip: seconds from our last ping to its pong, None before.
        waiting: bytes of messages that are not sealed yet, with their words.
    """

    __slots__ = (
        "_asked_at",
        "_counters",
        "_look_at",
        "_ping_at",
        "_pings_answered",
        "_pings_made",
        "_pings_received",
        "_pings_since",
        "_rest_cost",
        "_run_cost",
        "_run_waiting",
        "going_away",
        "keepalive",
        "round_trip",
    )

    def __init__(
        self,
        account: Account,
        counters: ConnectionCounters,
        limits: Limits,
        keepalive: Keepalive | None,
        now: float,
    ) -> None:
        self._account = account
        self._counters = counters
        self._limits = limits
        self._reader = FrameReader(limits.message_bytes)
        self._charged = 0
        self._outgoing: list[bytes] = []
        self._run = b""  # made, and not sealed yet for want of room
        self._run_waiting = self._run_cost = 0
        self._rest = memoryview(b"")  # of a frame that is partly sealed
        self._rest_cost = 0
        self._controls: dict[Control, bytes] = {}
        self.waiting = 0
        self.going_away = self.peer_going_away = False
        self.keepalive = keepalive
        self.round_trip: float | None = None
        # Tokens are numbers: of the newest ping, and of the newest that was answered.
        self._pings_made = self._pings_answered = 0
        self._ping_at = now
        self._heard_at = now
        self._asked_at: float | None = None  # by a ping of the keepalive
        self._look_at = None if keepalive is None else now + keepalive.after
        self._pings_received = 0  # in the second since:
        self._pings_since = now

    # -- out

    def write(self, data: Buffer) -> None:
        """Queue one message.

        Raises:
            LimitReached: it is longer than `message_bytes`, `send_queue_bytes` wait already, or the account
                has no room.  Nothing was taken.
        """
        # What may change under our hands is copied; bytes are only referred to.
        piece = data if isinstance(data, bytes) else memoryview(data).tobytes()
        size = len(piece)
        if size > self._reader.limit:
            self._account.note("message_bytes")
            raise LimitReached("message_bytes", f"a message of {size} bytes is above {self._reader.limit}")
        if self.waiting >= self._limits.send_queue_bytes:
            self._account.note("send_queue_bytes")
            reason = f"{self.waiting} bytes already wait for the peer: drain between writes"
            raise LimitReached("send_queue_bytes", reason)
        cost = _cost(size)
        if size > RUN_BYTES:
            # It waits whole while its runs are sealed.
            check_room(self._account, cost + _cost(RUN_BYTES))
        charge(self._account, Purpose.SEND_QUEUE, cost)
        self._outgoing.append(piece)
        self._counters.messages_sent += 1
        self.waiting += size + WORD_BYTES

    @property
    def has_more(self) -> bool:
        """Whether :meth:`run` would give something."""
        return bool(self.waiting or self._controls)

    def run(self) -> tuple[bytes, int]:
        """The next bytes of the stream, and how much of what is charged for them :meth:`sealed` gives back.

        The same until :meth:`sealed` says that they are.
        """
        if not self._run:
            self._build()
        return self._run, self._run_cost

    def sealed(self) -> None:
        """What :meth:`run` gave is sealed by now, or about to be."""
        self.waiting -= self._run_waiting
        self._account.release(Purpose.SEND_QUEUE, self._run_cost)
        self._run = b""

    def _build(self) -> None:
        if len(self._outgoing) == 1 and not self._controls and not self._rest:
            # One message in a turn, which is how requests and answers go.
            size = len(self._outgoing[0])
            if size <= RUN_BYTES:
                self._run = word_of(size) + self._outgoing.pop()
                self._run_waiting = WORD_BYTES + size
                self._run_cost = _cost(size)
                return
        pieces: list[Buffer] = []
        room = RUN_BYTES
        taken = cost = 0
        if self._rest:
            pieces.append(self._rest[:room])
            self._rest = self._rest[room:]
            room -= len(pieces[0])
            cost = 0 if self._rest else self._rest_cost
        if not self._rest:
            pieces += [control_frame(kind, token) for kind, token in self._controls.items()]
            self._controls.clear()
        done = 0
        while done < len(self._outgoing) and room > 0 and not self._rest:
            data = self._outgoing[done]
            done += 1
            size = len(data)
            taken += WORD_BYTES
            pieces.append(word_of(size))
            if size <= room:
                pieces.append(data)
                room -= size
                cost += _cost(size)
                continue
            view = memoryview(data)
            pieces.append(view[:room])
            self._rest, self._rest_cost = view[room:], _cost(size)
            room = 0
        del self._outgoing[:done]
        self._run = b"".join(pieces)
        self._run_waiting = RUN_BYTES - room + taken
        self._run_cost = cost

    def control(self, kind: Control, token: bytes = b"") -> None:
        """Have a control frame go before the next message; one of its kind that waits gives way."""
        self._controls[kind] = token

    def go_away(self) -> None:
        """Have the peer told that we mean to close before long.  Safe to call again."""
        if not self.going_away:
            self.going_away = True
            self.control(Control.GO_AWAY)

    def ping(self, now: float) -> None:
        """Have the peer asked whether it is there."""
        self._ping_at = now
        if Control.PING not in self._controls:
            self._pings_made += 1
            self.control(Control.PING, self._pings_made.to_bytes(_TOKEN_BYTES, "big"))

    # -- in

    @property
    def buffered(self) -> int:
        """Bytes of messages that came and were not taken."""
        return self._reader.ready

    @property
    def ready(self) -> int:
        """How many messages wait to be taken."""
        return self._reader.count

    @property
    def full(self) -> bool:
        """Whether as much waits as may; a message that is not whole does not count, or it never would be."""
        return self._reader.ready >= self._limits.receive_queue_bytes

    @property
    def cut(self) -> bool:
        """Whether the peer's stream is inside a frame."""
        return self._reader.cut

    def receive(self, content: bytes, now: float) -> bool:
        """Take opened bytes; whether the peer says in them that it goes away.

        Raises:
            ProtocolError: the stream is not one of frames, or control frames are too many.
            LimitReached: there is no room for what came.
        """
        self._heard_at = now
        reader = self._reader
        before = reader.count
        try:
            controls = reader.feed(content)
        except ProtocolError:
            self._account_for_it()
            raise
        self._counters.messages_received += reader.count - before
        if not self._account_for_it():
            raise LimitReached(
                self._account.ledger.refused_by, f"no room for {len(content)} bytes of messages"
            )
        went = self.peer_going_away
        for kind, token in controls:
            self._receive_control(kind, token, now)
        return self.peer_going_away and not went

    def _account_for_it(self) -> bool:
        """Charge what the reader holds by now; False if there is no room, and the newest is dropped."""
        reader = self._reader
        more = reader.held - self._charged
        if more <= 0 or self._account.charge(Purpose.RECEIVE_QUEUE, more):
            if more < 0:
                self._account.release(Purpose.RECEIVE_QUEUE, -more)
            self._charged = reader.held
            return True
        reader.drop_partial()
        reader.drop_newest(self._charged)
        self._account.release(Purpose.RECEIVE_QUEUE, self._charged - reader.held)
        self._charged = reader.held
        return False

    def _receive_control(self, kind: Control, token: bytes, now: float) -> None:
        if kind is Control.PING:
            if now - self._pings_since >= 1:
                self._pings_since, self._pings_received = now, 0
            self._pings_received += 1
            if self._pings_received > self._limits.pings_per_second:
                reason = "pings reached the limit pings_per_second"
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, reason, "pings_per_second")
            self.control(Control.PONG, token)
        elif kind is Control.PONG:
            number = int.from_bytes(token, "big")
            # One that waits here has not been sent.
            if not self._pings_answered < number <= self._pings_made - (Control.PING in self._controls):
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "a pong answers no ping")
            self._pings_answered = number
            if number == self._pings_made:
                self.round_trip = now - self._ping_at
        else:
            if self.peer_going_away:
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "the peer said twice that it goes away")
            self.peer_going_away = True

    def take(self) -> bytes | None:
        """The oldest message, None if none waits."""
        message = self._reader.take()
        if message is not None:
            size = len(message) + MESSAGE_OVERHEAD_BYTES
            self._charged -= size
            self._account.release(Purpose.RECEIVE_QUEUE, size)
        return message

    def take_all(self) -> list[bytes]:
        """All messages that wait, oldest first."""
        messages = self._reader.take_all()
        self._account.release(Purpose.RECEIVE_QUEUE, self._charged - self._reader.held)
        self._charged = self._reader.held
        return messages

    # -- time

    @property
    def deadline(self) -> float | None:
        """When :meth:`wake` is to be called next; None for never.

        It does not move with what comes, so that a busy connection sets no timers.
        """
        return self._look_at

    def wake(self, now: float) -> None:
        """Tell the time.

        Raises:
            TimeoutError: the peer has not been heard of for too long.
        """
        keepalive = self.keepalive
        if keepalive is None or self._look_at is None or now < self._look_at:
            return
        if self._asked_at is not None and self._heard_at < self._asked_at:
            raise TimeoutError(f"the peer has not answered a ping within {keepalive.within:g} seconds")
        self._asked_at = None
        self._look_at = self._heard_at + keepalive.after
        if now >= self._look_at:
            self.ping(now)
            self._asked_at = now
            self._look_at = now + keepalive.within

    # -- ends

    def drop(self) -> None:
        """The connection is over: what was not sealed is lost, whole messages that came stay."""
        self._reader.drop_partial()
        self._account_for_it()
        cost = sum(_cost(len(data)) for data in self._outgoing)
        cost += self._rest_cost if self._rest else 0
        cost += self._run_cost if self._run else 0
        self._account.release(Purpose.SEND_QUEUE, cost)
        self._outgoing.clear()
        self._run = b""
        self._rest = memoryview(b"")
        self._controls.clear()
        self.waiting = 0
        self._look_at = None


def _cost(size: int) -> int:
    """What a message of `size` bytes is charged while it waits to be sealed."""
    return size + _OVERHEAD_BYTES + (size >> _RECORD_SHIFT)
