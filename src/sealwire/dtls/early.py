"""Early data over datagrams: records of epoch 1, on their way out and apart from others on their way in.

A client may send until the server's answer comes: datagrams that are lost are lost, and nothing is sent a
second time, whatever the answer says; that is for the application to decide.  A server keeps what came in a
queue of its own, no longer than the ticket's number of bytes.  Its keys for epoch 1 live until the client's
Finished, five seconds at most; records that come later are dropped, as if they had been lost.

An early record proves that somebody had the ticket's key, at some time: whoever recorded the flight can
send it from anywhere.  So it proves nothing of an address, and lifts no limit on what may be sent there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sealwire.dtls.epochs import Sealing
from sealwire.dtls.header import MAX_CONTENT_BYTES, ContentType
from sealwire.dtls.queues import MessageQueue
from sealwire.errors import Alert, Error, LimitReached, ProtocolError
from sealwire.limits import Account, Limits, Purpose
from sealwire.telemetry import ConnectionCounters
from sealwire.tls13.contract import EPOCH_APPLICATION, EPOCH_EARLY, EPOCH_HANDSHAKE, EarlyPhase
from sealwire.wire import Buffer

#: How long a server opens early data after the hello.
EARLY_SECONDS: Final = 5.0


class EarlyTraffic:
    """The early data of one connection, and a server's data before the client's Finished."""

    __slots__ = (
        "_account",
        "_came",
        "_counters",
        "_limits",
        "_mtu",
        "_outgoing",
        "_phase",
        "_promised",
        "_received",
        "_sealing",
        "_unfinished",
    )

    def __init__(
        self,
        phase: EarlyPhase,
        sealing: Sealing,
        account: Account,
        limits: Limits,
        counters: ConnectionCounters,
        mtu: int,
    ) -> None:
        self._phase = phase
        self._sealing = sealing
        self._counters = counters
        self._mtu = mtu
        # Made when somebody puts something in: most connections have no early data.
        self._outgoing: MessageQueue | None = None
        self._received: MessageQueue | None = None
        # What a server says to a client that has not finished.
        self._unfinished: MessageQueue | None = None
        self._account = account
        self._limits = limits
        self._promised = 0
        self._came = 0

    def _queue(self, name: str) -> MessageQueue:
        return MessageQueue(self._account, Purpose.EARLY_DATA, getattr(self._limits, name), name)

    # --- client ------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """The longest message that may be sent as early data now; 0 if none may."""
        if EPOCH_EARLY not in self._sealing or not self._phase.pending:
            return 0
        longest = min(self._mtu - self._sealing.overhead(EPOCH_EARLY), MAX_CONTENT_BYTES)
        return max(min(longest, self._phase.limit - self._promised), 0)

    def send(self, messages: Sequence[Buffer]) -> None:
        """Queue messages as early data.  All are queued or none."""
        if EPOCH_EARLY not in self._sealing or not self._phase.pending:
            raise Error("early data cannot be sent: none was offered, or the server has answered already")
        size = sum(map(len, messages))
        room = self.room
        if size > self._phase.limit - self._promised or any(len(one) > room for one in messages):
            raise ValueError(
                f"{size} bytes of early data in {len(messages)} messages are too many: the longest message "
                f"has {room}, and {self._phase.limit - self._promised} are left"
            )
        if self._outgoing is None:
            self._outgoing = self._queue("send_queue_bytes")
        if not self._outgoing.put(messages):
            raise LimitReached("send_queue_bytes", "the send queue is full")
        self._promised += size
        self._counters.early_messages_sent += len(messages)

    def answered(self) -> None:
        """The server has answered, so what was not sent will not be."""
        if self._outgoing is not None:
            self._outgoing.take()

    def transmit(self) -> list[bytes]:
        """Early data to send now."""
        if not self._outgoing or EPOCH_EARLY not in self._sealing:
            return []
        queue = self._outgoing.take()
        self._counters.records_sealed += len(queue)
        return self._sealing.sealer(EPOCH_EARLY).seal_run(ContentType.APPLICATION_DATA, queue)

    # --- server ------------------------------------------------------------------------------

    def receive(self, content_type: int, content: bytes) -> bool:
        """Take a record of epoch 1; whether it is the first in the queue.

        Raises:
            ProtocolError: unexpected_message for anything but data, and for more than the ticket allows.
        """
        if content_type != ContentType.APPLICATION_DATA:
            # Errata 8107 [9147-7-9]: no ACK there; handshake messages have epochs of their own.
            raise ProtocolError(
                Alert.UNEXPECTED_MESSAGE, f"record of content type {content_type} in the epoch of early data"
            )
        self._came += len(content)
        if self._came > self._phase.limit:
            # RFC 8446 section 4.6.1 [8446-0RTT-1]
            raise ProtocolError(
                Alert.UNEXPECTED_MESSAGE, f"more than {self._phase.limit} bytes of early data came"
            )
        if self._received is None:
            self._received = self._queue("receive_queue_bytes")
        first = not self._received
        if not self._received.put((content,)):
            raise ProtocolError(Alert.INTERNAL_ERROR, "no memory is left for early data")
        self._counters.early_messages_received += 1
        return first

    def messages(self) -> list[bytes]:
        """Early messages that came since the last call."""
        return [] if self._received is None else self._received.take()

    @property
    def may_send_unfinished(self) -> bool:
        """Whether there are keys to say something to a client that has not finished."""
        return EPOCH_APPLICATION in self._sealing and EPOCH_HANDSHAKE in self._sealing

    def send_unfinished(self, messages: Sequence[Buffer]) -> None:
        """Queue messages for a client that has not finished; all or none."""
        longest = min(self._mtu - self._sealing.overhead(EPOCH_APPLICATION), MAX_CONTENT_BYTES)
        for message in messages:
            if len(message) > longest:
                raise ValueError(
                    f"a message of {len(message)} bytes is above the {longest} a datagram carries"
                )
        if self._unfinished is None:
            self._unfinished = self._queue("send_queue_bytes")
        if not self._unfinished.put(messages):
            raise LimitReached("send_queue_bytes", "the send queue is full")
        self._counters.messages_sent += len(messages)

    def transmit_unfinished(self, budget: int | None) -> list[bytes]:
        """What was queued for a client that has not finished, within `budget` bytes; None is no bound."""
        if not self._unfinished or EPOCH_APPLICATION not in self._sealing:
            return []
        queue = self._unfinished.take()
        overhead = self._sealing.overhead(EPOCH_APPLICATION)
        fitting = 0
        for message in queue:
            if budget is not None:
                budget -= len(message) + overhead
                if budget < 0:
                    break
            fitting += 1
        if fitting < len(queue):
            # They wait for the client to prove itself.
            self._unfinished.put(queue[fitting:])
        if not fitting:
            return []
        self._counters.records_sealed += fitting
        return self._sealing.sealer(EPOCH_APPLICATION).seal_run(ContentType.APPLICATION_DATA, queue[:fitting])

    @property
    def empty(self) -> bool:
        """Whether nothing waits here, either way."""
        return not (self._outgoing or self._received or self._unfinished)

    def close(self) -> None:
        """Drop what waits to be sent; what came is still the application's."""
        for queue in (self._outgoing, self._unfinished):
            if queue is not None:
                queue.take()


class EarlyOver:
    """What stands for the early data of all connections that have, or had, none and are complete."""

    __slots__ = ()

    room: Final = 0
    may_send_unfinished: Final = False
    empty: Final = True

    def send(self, messages: Sequence[Buffer]) -> None:
        raise Error("early data cannot be sent: none was offered, or the server has answered already")

    def send_unfinished(self, messages: Sequence[Buffer]) -> None:
        raise AssertionError("the client has finished")

    def answered(self) -> None:
        """It was before."""

    def receive(self, content_type: int, content: bytes) -> bool:
        raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "early data came behind the handshake")

    def messages(self) -> list[bytes]:
        return []

    def transmit(self) -> list[bytes]:
        return []

    def transmit_unfinished(self, budget: int | None) -> list[bytes]:
        return []

    def close(self) -> None:
        """There is nothing to drop."""


#: One for all.
EARLY_OVER: Final = EarlyOver()
