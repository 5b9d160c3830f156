"""A client of ours that can be made to say what it never would, and the bad habits one can give it.

A puppet speaks the protocol for as long as that serves the attack: it gets its cookie, agrees on keys,
and then does one thing wrong, at a rate.  It has the shape of a Connection, so it runs over sockets
(:mod:`sealwire.attack.live`) as in a simulation.
"""

from __future__ import annotations

from typing import Any, Final

from sealwire.dtls.connection import Connection
from sealwire.dtls.events import State
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack, fragment_header
from sealwire.errors import Error
from sealwire.tls13.contract import EPOCH_APPLICATION, EPOCH_HANDSHAKE, EPOCH_PLAIN
from sealwire.tls13.messages import HandshakeType

# Of SHA-256, the hash of what is agreed on by default.
_FINISHED_BYTES: Final = 32
_LONGEST_MESSAGE: Final = (1 << 24) - 1


class Puppet(Connection):
    """Behaves well.  Subclasses override :meth:`misbehave`, and :meth:`says` to hold their tongue.

    Attributes:
        rate: misdeeds a second.
        misdeeds: how many there were.
    """

    rate: float = 1.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.misdeeds = 0
        self._next: float | None = None
        self._first_seq: int | None = None

    @property
    def ready(self) -> bool:
        """Whether it can begin to misbehave: by default, once it is connected."""
        return self.state is State.CONNECTED

    def misbehave(self, now: float) -> list[bytes]:
        """The datagrams of one misdeed."""
        return []

    def says(self, datagrams: list[bytes]) -> list[bytes]:
        """What it really sends of what it should."""
        return datagrams

    def record(self, content_type: int, content: bytes, epoch: int | None = None) -> bytes:
        """A record of ours, under the newest keys unless another epoch is given."""
        return self._sealing.record(self._sealing.epoch if epoch is None else epoch, content_type, content)[1]

    def fragment(self, kind: int, length: int, ahead: int, offset: int, data: bytes, epoch: int) -> bytes:
        """A record with one handshake fragment, of the message that many `ahead` of the first misdeed."""
        if self._first_seq is None:
            # What its engine may want to send later has the same numbers, and comes too late.
            self._first_seq = self._layer._flight.next_seq
        content = fragment_header(kind, length, self._first_seq + ahead, offset, len(data)) + data
        return self.record(ContentType.HANDSHAKE, content, epoch)

    def transmit(self, now: float) -> list[bytes]:
        datagrams = self.says(super().transmit(now))
        if self.ready and self.state is not State.CLOSED:
            if self._next is None:
                self._next = now
            while self._next <= now:
                datagrams += self.misbehave(now)
                self.misdeeds += 1
                self._next += 1.0 / self.rate
        else:
            self._next = None
        return datagrams

    def deadline(self) -> float | None:
        due = super().deadline()
        if self._next is None or self.state is State.CLOSED:
            return due
        return self._next if due is None else min(due, self._next)

    @property
    def agreed(self) -> bool:
        """Whether it has the keys of the handshake, so the server has spent what it spends."""
        return EPOCH_HANDSHAKE in self._sealing and self.state is not State.CLOSED


class Silent(Puppet):
    """Proves its address, has the server answer, and is never heard of again."""

    def says(self, datagrams: list[bytes]) -> list[bytes]:
        return [] if self._sealing.epoch > EPOCH_PLAIN else datagrams


class Slow(Puppet):
    """Finishes its handshake a byte at a time, and never gets there."""

    rate = 0.2

    @property
    def ready(self) -> bool:
        return self.agreed

    def says(self, datagrams: list[bytes]) -> list[bytes]:
        return [] if self.agreed else datagrams

    def misbehave(self, now: float) -> list[bytes]:
        # The last byte stays with us.
        offset = self.misdeeds % (_FINISHED_BYTES - 1)
        return [self.fragment(HandshakeType.FINISHED, _FINISHED_BYTES, -1, offset, b"\0", EPOCH_HANDSHAKE)]


class Broken(Puppet):
    """Lets the server do all the work of a handshake and answers with a Finished that is none."""

    @property
    def ready(self) -> bool:
        return self.agreed and self.misdeeds == 0

    def says(self, datagrams: list[bytes]) -> list[bytes]:
        return [] if self.agreed else datagrams

    def misbehave(self, now: float) -> list[bytes]:
        wrong = bytes(_FINISHED_BYTES)
        return [self.fragment(HandshakeType.FINISHED, len(wrong), -1, 0, wrong, EPOCH_HANDSHAKE)]


class Idle(Puppet):
    """Completes its handshake and never says anything."""


class Quitter(Puppet):
    """Completes its handshake and leaves."""

    def misbehave(self, now: float) -> list[bytes]:
        self.close(now)
        return Connection.transmit(self, now)


class Crumbler(Puppet):
    """Sends a message in pieces of one byte."""

    rate = 50.0

    def misbehave(self, now: float) -> list[bytes]:
        offset = self.misdeeds * 2 % 30_000
        return [self.fragment(HandshakeType.KEY_UPDATE, 30_000, 0, offset, b"\0", EPOCH_APPLICATION)]


class Hoarder(Puppet):
    """Begins many long messages and finishes none."""

    rate = 20.0
    #: Bytes of a piece, and of the message it belongs to.
    piece_bytes = 1000
    message_bytes = 60_000

    def misbehave(self, now: float) -> list[bytes]:
        message, piece = divmod(self.misdeeds, self.message_bytes // self.piece_bytes - 1)
        offset = (piece + 1) * self.piece_bytes
        data = bytes(self.piece_bytes)
        kind = HandshakeType.KEY_UPDATE
        return [self.fragment(kind, self.message_bytes, message % 8, offset, data, EPOCH_APPLICATION)]


class FarAhead(Puppet):
    """Sends pieces of messages that are not due for long."""

    rate = 50.0

    def misbehave(self, now: float) -> list[bytes]:
        ahead = 100 + self.misdeeds % 1000
        return [self.fragment(HandshakeType.KEY_UPDATE, 1, ahead, 0, b"\0", EPOCH_APPLICATION)]


class Contradictor(Puppet):
    """Sends a piece of a message, and the same piece with other bytes."""

    @property
    def ready(self) -> bool:
        return super().ready and self.misdeeds == 0

    def misbehave(self, now: float) -> list[bytes]:
        pieces = (bytes(100), b"\1" * 100)
        return [self.fragment(HandshakeType.KEY_UPDATE, 200, 0, 0, one, EPOCH_APPLICATION) for one in pieces]


class Giant(Puppet):
    """Announces a message of 2^24-1 bytes."""

    @property
    def ready(self) -> bool:
        return super().ready and self.misdeeds == 0

    def misbehave(self, now: float) -> list[bytes]:
        kind = HandshakeType.KEY_UPDATE
        return [self.fragment(kind, _LONGEST_MESSAGE, 0, 0, bytes(100), EPOCH_APPLICATION)]


class Acker(Puppet):
    """Acknowledges what was never sent."""

    rate = 100.0
    #: Record numbers in each ACK.
    numbers = 60

    def misbehave(self, now: float) -> list[bytes]:
        names = [RecordNumber(EPOCH_APPLICATION, n) for n in range(self.numbers)]
        return [self.record(ContentType.ACK, encode_ack(names))]


class KeyUpdater(Puppet):
    """Changes its keys as often as it can, and asks for the server's each time."""

    rate = 50.0

    def misbehave(self, now: float) -> list[bytes]:
        if not self._layer.engine.updating_keys:
            try:
                self.update_keys(now)
            except Error:
                return []
            return Connection.transmit(self, now)
        return []


class Chatterer(Puppet):
    """Sends data whether or not anybody reads it."""

    rate = 50.0
    message_bytes = 1000
    #: It has said enough.
    most = 300

    @property
    def ready(self) -> bool:
        return super().ready and self.misdeeds < self.most

    def misbehave(self, now: float) -> list[bytes]:
        return [self.record(ContentType.APPLICATION_DATA, bytes(self.message_bytes))]


class Replayer(Puppet):
    """Sends its first record of data again and again."""

    rate = 100.0
    _first = b""

    def misbehave(self, now: float) -> list[bytes]:
        self._first = self._first or self.record(ContentType.APPLICATION_DATA, b"once")
        return [self._first]


class IdGuesser(Puppet):
    """Sends records under connection ids it was never given."""

    rate = 100.0

    def misbehave(self, now: float) -> list[bytes]:
        # RFC 9147 section 4: the fixed bits, C, S, L and the low bits of epoch 3.
        return [
            b"\x3f" + self.config.provider.random(8 + 2) + (40).to_bytes(2) + self.config.provider.random(40)
        ]


#: Attackers with an address of their own, by name, with what they do.
HABITS: Final[dict[str, tuple[type[Puppet], str]]] = {
    "half-open": (Silent, "prove their address and are never heard of again"),
    "slow": (Slow, "finish their handshakes a byte at a time (slowloris)"),
    "broken": (Broken, "answer the server's flight with a Finished that is none"),
    "idle": (Idle, "complete their handshakes and say nothing"),
    "quit": (Quitter, "complete their handshakes and leave"),
    "chatter": (Chatterer, "send data whether or not anybody reads it"),
    "crumbs": (Crumbler, "send fragments of one byte"),
    "hoard": (Hoarder, "begin long messages and finish none"),
    "far-ahead": (FarAhead, "send fragments of messages that are not due"),
    "contradict": (Contradictor, "send overlapping fragments that disagree"),
    "giant": (Giant, "announce a message of 2^24-1 bytes"),
    "acks": (Acker, "acknowledge what was never sent"),
    "key-updates": (KeyUpdater, "change their keys as often as they can"),
    "replay": (Replayer, "send one record again and again"),
    "guess-ids": (IdGuesser, "send records under guessed connection ids"),
}
