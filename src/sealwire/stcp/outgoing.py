"""What goes to the network: content put in records, sealed once there are keys, and queued.

A record is sealed when it is queued, never twice, and what is queued is sent in order or not at
all: a record number that was used cannot be taken back (RFC 8446 section 5.3).  So room is asked
for before anything is sealed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sealwire.errors import LimitReached
from sealwire.limits import Account, Purpose
from sealwire.record.padding import MAX_INNER_BYTES, NO_PADDING, Padding
from sealwire.record.stream import STREAM_HEADER_BYTES, TAG_BYTES
from sealwire.stcp.deframe import APPLICATION_DATA, HANDSHAKE, PLAINTEXT_LIMIT_BYTES
from sealwire.stcp.lane import Sending
from sealwire.telemetry import ConnectionCounters

if TYPE_CHECKING:
    from sealwire.record.stream import StreamSealer
    from sealwire.wire import Buffer

# RFC 8446 section 5.2: header, inner type and tag around each record's content.
_RECORD_OVERHEAD_BYTES: Final = STREAM_HEADER_BYTES + 1 + TAG_BYTES
#: A record holding a KeyUpdate (RFC 8446 section 4.6.3).
KEY_UPDATE_RECORD_BYTES: Final = _RECORD_OVERHEAD_BYTES + 5
# RFC 8446 appendix D.4: the one legal ChangeCipherSpec.
_CCS_RECORD: Final = b"\x14\x03\x03\x00\x01\x01"


def charge(account: Account, purpose: Purpose, n: int) -> None:
    """Charge `n` bytes; release them if negative.

    Raises:
        LimitReached: the account or its ledger has no room; nothing was charged.
    """
    if n < 0:
        account.release(purpose, -n)
    elif n and not account.charge(purpose, n):
        raise LimitReached(account.ledger.refused_by, f"there is no room for {n} bytes")


def check_room(account: Account, n: int) -> None:
    """Raise LimitReached unless `n` more bytes could be queued."""
    if n <= 0:
        return
    charge(account, Purpose.SEND_QUEUE, n)
    account.release(Purpose.SEND_QUEUE, n)


class Outgoing(Sending):
    """The sending half of the record layer.

    Attributes:
        held: bytes queued, all charged to the account.
        used: data was sealed under the keys in use.
        inner_limit: content, type and padding of a protected record at most (RFC 8449).
    """

    __slots__ = (
        "_account",
        "_counters",
        "_first_hello",
        "_queue",
        "_sent",
    )

    def __init__(
        self,
        account: Account,
        counters: ConnectionCounters,
        *,
        is_client: bool,
        padding: Padding = NO_PADDING,
    ) -> None:
        self._account = account
        self._padding = padding
        self.inner_limit = MAX_INNER_BYTES
        self._counters = counters
        self._first_hello = is_client
        self._sealer: StreamSealer | None = None
        self._queue: list[bytes] = []
        self._sent = 0  # bytes of the first queued piece that are gone
        self.held = 0
        self.used = False

    def install(self, sealer: StreamSealer) -> None:
        """Seal everything from here on with `sealer`."""
        self._sealer = sealer
        self.used = False

    @property
    def sealer(self) -> StreamSealer | None:
        """What seals now, None in plaintext."""
        return self._sealer

    @property
    def epoch(self) -> int:
        """The epoch of the keys in use, 0 without."""
        return 0 if self._sealer is None else self._sealer.epoch

    def uninstall(self) -> None:
        """Early data was refused: go on in plaintext, or under the keys that come next."""
        self._sealer = None

    @property
    def key_room_bytes(self) -> int:
        """Bytes of content the keys in use may still seal; one record is kept for the KeyUpdate."""
        sealer = self._sealer
        assert sealer is not None, "application data is sealed after the handshake"
        return (sealer.seal_limit - sealer.sealed - 1) * (self.inner_limit - 1)

    def sealed_bytes(self, n: int) -> int:
        """How long `n` bytes are at most in protected records, with a KeyUpdate between them."""
        records = -(-n // (self.inner_limit - 1))
        if self._padding:
            return (records + 1) * (STREAM_HEADER_BYTES + self.inner_limit + TAG_BYTES)
        return n + records * _RECORD_OVERHEAD_BYTES + KEY_UPDATE_RECORD_BYTES

    def send(self, content_type: int, data: Buffer) -> None:
        """Queue `data` in as few records as it needs.  Raises LimitReached."""
        sealer = self._sealer
        if sealer is None:
            self._send_plain(content_type, memoryview(data))
            return
        self.used = self.used or content_type == APPLICATION_DATA
        before = sealer.sealed
        limit = self.inner_limit - 1
        if self._padding.callback is None:
            self._append(sealer.seal_run(content_type, data, limit, self._padding.block, self.inner_limit))
        else:
            view = memoryview(data)
            for start in range(0, len(view), limit):
                part = view[start : start + limit]
                padding = self._padding.of(content_type, len(part), self.inner_limit)
                self._append(sealer.seal(content_type, part, padding))
        self._counters.records_sealed += sealer.sealed - before

    def send_through(self, data: Buffer, write: Callable[[bytes], int]) -> None:
        """As :meth:`send` of application data, but `write` may take it at once; what it leaves is queued.

        Nothing is held meanwhile and so nothing is charged, but for what is left: there is room for it.
        """
        sealer = self._sealer
        if sealer is None or self._queue or self._padding.callback is not None:
            self.send(APPLICATION_DATA, data)
            self.write_through(write)
            return
        before = sealer.sealed
        records = sealer.seal_run(
            APPLICATION_DATA, data, self.inner_limit - 1, self._padding.block, self.inner_limit
        )
        self.used = True
        counters = self._counters
        counters.records_sealed += sealer.sealed - before
        taken = write(records)
        counters.bytes_sent += taken
        if taken < len(records):
            self._append(records[taken:])

    def write_through(self, write: Callable[[bytes], int]) -> None:
        """Give `write` what is queued, until it takes no more."""
        while self._queue:
            pending = bytes(self.pending())
            taken = write(pending)
            self.sent(taken)
            if taken < len(pending):
                return

    def _send_plain(self, content_type: int, data: memoryview) -> None:
        # RFC 8446 section 5.1: legacy_record_version is 0x0303, or 0x0301 in a first ClientHello
        # for the middleboxes that want to see it there.
        minor = 1 if self._first_hello and content_type == HANDSHAKE else 3
        self._first_hello = False
        for start in range(0, len(data), PLAINTEXT_LIMIT_BYTES):
            fragment = data[start : start + PLAINTEXT_LIMIT_BYTES]
            head = bytes((content_type, 3, minor)) + len(fragment).to_bytes(2, "big")
            self._append(head + fragment)

    def send_compatibility_ccs(self) -> None:
        """Queue the ChangeCipherSpec of middlebox compatibility, which is never protected."""
        self._append(_CCS_RECORD)

    def _append(self, data: bytes) -> None:
        charge(self._account, Purpose.SEND_QUEUE, len(data))
        self._queue.append(data)
        self.held += len(data)

    def pending(self) -> memoryview:
        """What is queued, for a socket that may take a part of it; tell :meth:`sent` how much."""
        if len(self._queue) > 1:
            self._queue[0] = self._queue[0][self._sent :]
            self._sent = 0
            self._queue = [b"".join(self._queue)]
        return memoryview(self._queue[0])[self._sent :] if self._queue else memoryview(b"")

    def sent(self, n: int) -> None:
        """The network has the first `n` bytes of :meth:`pending`."""
        self._sent += n
        self.held -= n
        self._account.release(Purpose.SEND_QUEUE, n)
        self._counters.bytes_sent += n
        if not self.held:
            self._queue.clear()
            self._sent = 0
