"""Application messages on their way out: a bounded queue, and the run of records it becomes.

A key seals so many records and no more (RFC 9147 section 4.5.3).  Data stops a little before that,
and waits for the new keys that a KeyUpdate brings; what is left is for the KeyUpdate itself, its
repetitions and acknowledgements of the peer's messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sealwire.dtls.epochs import Sealing
from sealwire.dtls.header import MAX_CONTENT_BYTES, ContentType
from sealwire.dtls.journal import MARGIN
from sealwire.dtls.queues import MessageQueue
from sealwire.errors import LimitReached
from sealwire.limits import Account, Limits, Purpose
from sealwire.record.protect import Sealer, seal_trains, weigh
from sealwire.record.train import Train, couple, pack_records
from sealwire.telemetry import ConnectionCounters
from sealwire.wire import Buffer

# RFC 9147 section 4.5.3 [9147-4.5.3-2]: new keys are asked for at this part of the limit.
REKEY_PART: Final = 0.9
# Records of a key that are not for data.  Where the limit is as high as the AEADs', this is nothing.
_RESERVED_RECORDS: Final = 64
# Header with 16-bit number and length, type byte and tag: what a record costs before a suite is agreed.
_USUAL_OVERHEAD_BYTES: Final = 22


def _left_for_data(sealer: Sealer) -> int:
    """Records of data that `sealer` may still seal."""
    limit = sealer.seal_limit
    return limit - min(_RESERVED_RECORDS, max(limit // 10, 1)) - sealer.sealed


class Outgoing:
    """The data one connection sends.

    Attributes:
        mtu: largest datagram, in bytes of UDP payload.
        used: data was sealed under the newest keys.
        pack: small records share a datagram (RFC 9147 section 4.3 [9147-4.3-2]).
    """

    __slots__ = (
        "_account",
        "_counters",
        "_epoch_used",
        "_limits",
        "_longest",
        "_probes",
        "_queue",
        "_sealing",
        "mtu",
        "pack",
    )

    def __init__(
        self,
        account: Account,
        limits: Limits,
        sealing: Sealing,
        counters: ConnectionCounters,
        mtu: int,
        pack: bool = False,
    ) -> None:
        self._queue = MessageQueue(account, Purpose.SEND_QUEUE, limits.send_queue_bytes, "send_queue_bytes")
        # Made for the first one: most connections send none.
        self._probes: MessageQueue | None = None
        self._account = account
        self._limits = limits
        self._sealing = sealing
        self._counters = counters
        self.mtu = mtu
        self.pack = pack
        self._epoch_used = -1
        # No message that waits is longer.
        self._longest = 0

    @property
    def bytes_held(self) -> int:
        """What is queued."""
        return self._queue.bytes_held

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return not (self._queue or self._probes)

    @property
    def used(self) -> bool:
        return self._epoch_used == self._sealing.epoch

    @used.setter
    def used(self, used: bool) -> None:
        self._epoch_used = self._sealing.epoch if used else -1

    @property
    def max_message_bytes(self) -> int:
        """The longest message a datagram carries now; 0 without keys [9147-4.4-4]."""
        epoch = self._sealing.epoch
        if epoch not in self._sealing:
            return 0
        return max(min(self._sealing.content_room(epoch, self.mtu), MAX_CONTENT_BYTES), 0)

    def put(self, messages: Sequence[Buffer]) -> None:
        """Queue all of `messages`, or none.

        Raises:
            ValueError: one is longer than a datagram carries.
            LimitReached: the queue is full.
        """
        longest = self.max_message_bytes or min(self.mtu - _USUAL_OVERHEAD_BYTES, MAX_CONTENT_BYTES)
        taken, size, most = weigh(messages)
        if most > longest:
            raise ValueError(f"a message of {most} bytes is above the {longest} a datagram carries")
        others = self._longest if self._queue else 0
        if not self._queue.put_weighed(taken, size):
            raise LimitReached("send_queue_bytes", "the send queue is full")
        self._longest = max(most, others)
        self._counters.messages_sent += len(taken)

    def put_probe(self, message: Buffer) -> None:
        """Send a message that may be too long, by itself and once.  LimitReached if there is no room."""
        if self._probes is None:
            self._probes = MessageQueue(
                self._account, Purpose.SEND_QUEUE, self._limits.send_queue_bytes, "send_queue_bytes"
            )
        if not self._probes.put((message,)):
            raise LimitReached("send_queue_bytes", "the send queue is full")
        self._counters.messages_sent += 1

    def waiting(self) -> tuple[bytes, ...]:
        """What was not sent yet, which stays."""
        return self._queue.held()

    def drop(self) -> None:
        """Give everything up that was not sent."""
        self._queue.take()
        if self._probes is not None:
            self._probes.take()

    @property
    def sendable(self) -> bool:
        """Whether something is queued that the keys may seal now."""
        return bool(self._queue) and _left_for_data(self._sealing.sealer(self._sealing.epoch)) > 0

    @property
    def rekey_due(self) -> bool:
        """Whether the newest keys have sealed so much that the next ones should come."""
        sealer = self._sealing.sealer(self._sealing.epoch)
        return sealer.sealed >= sealer.seal_limit * REKEY_PART or _left_for_data(sealer) <= 0

    def seal(self, most: int | None = None) -> list[bytes | Train]:
        """Datagrams of what is queued, as far as the keys may seal it; the rest waits for new ones.

        `most` bounds the bytes of one turn: of what is queued, with a charge for each message.
        """
        datagrams: list[bytes | Train] = self._seal_probes(self._probes) if self._probes else []
        if not self._queue:
            return datagrams
        sealer = self._sealing.sealer(self._sealing.epoch)
        room = min(_left_for_data(sealer), self._sealing.reserve_left - MARGIN)
        if room <= 0:
            return datagrams
        if most is None or len(self._queue) > room:
            messages = self._queue.take(room)
        else:
            messages = self._queue.take_bytes(most)
        longest = self.max_message_bytes
        if self._longest > longest and max(map(len, messages)) > longest:
            # Since they were queued the peer gave a longer connection id, or the path became narrower.
            # Nothing cuts an application's message in two, so they are lost as on the way [9147-4.4-7].
            fitting = [message for message in messages if len(message) <= longest]
            self._counters.messages_too_long += len(messages) - len(fitting)
            messages = fitting
        self._epoch_used = self._sealing.epoch
        self._counters.records_sealed += len(messages)
        padding = self._sealing.padding
        if self.pack and padding.callback is None:
            records = sealer.seal_run(ContentType.APPLICATION_DATA, messages, padding.block, longest + 1)
            datagrams += couple(pack_records(records, self.mtu))
            return datagrams
        if padding.callback is None:
            datagrams += seal_trains(
                sealer, ContentType.APPLICATION_DATA, messages, padding.block, longest + 1
            )
            return datagrams
        datagrams += [
            sealer.seal(
                ContentType.APPLICATION_DATA,
                message,
                padding.of(ContentType.APPLICATION_DATA, len(message), longest + 1),
            )
            for message in messages
        ]
        return datagrams

    def _seal_probes(self, queue: MessageQueue) -> list[bytes | Train]:
        sealer = self._sealing.sealer(self._sealing.epoch)
        probes = queue.take(max(min(_left_for_data(sealer), self._sealing.reserve_left - MARGIN), 0))
        self._epoch_used = self._sealing.epoch
        self._counters.records_sealed += len(probes)
        return list(sealer.seal_run(ContentType.APPLICATION_DATA, probes))
