"""Early data over a byte stream: what was sent, what came, and what is skipped (RFC 8446 section 4.2.10).

A client's early data goes out in records of its own keys, until EndOfEarlyData.  A server that took it
keeps it apart from what came later, for whoever asks for it by name.  A server that did not cannot read it:
over a stream it has to go past it, record by record, to the first one that opens under the handshake keys
or, after a HelloRetryRequest, that is no protected one; so much and no more than a client may send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealwire.errors import Alert, ProtocolError
from sealwire.limits import Account, Purpose
from sealwire.record.stream import STREAM_HEADER_BYTES, TAG_BYTES
from sealwire.stcp.lane import FrameReader
from sealwire.stcp.outgoing import charge

if TYPE_CHECKING:
    from sealwire.wire import Buffer

# What a server skips that would itself take none: other hosts that seal tickets with the same keys may.
_LEAST_SKIPPED_BYTES: Final = 16_384
_RECORD_OVERHEAD_BYTES: Final = STREAM_HEADER_BYTES + TAG_BYTES + 1


class EarlyStream:
    """The early data of one connection.

    Attributes:
        skipping: the server rejected early data and has not met its end yet.
        sent: bytes of early data sent.
    """

    __slots__ = ("_account", "_came", "_frames", "_received", "_skipped", "sent", "skipping")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._received = bytearray()
        self._frames: FrameReader | None = None  # in message mode
        self._came = 0
        self._skipped = 0
        self.skipping = False
        self.sent = 0

    @property
    def buffered(self) -> int:
        """Bytes that came and were not read; of messages, as they are charged."""
        return len(self._received) if self._frames is None else self._frames.held

    @property
    def cut(self) -> bool:
        """Whether it is inside a message."""
        return self._frames is not None and self._frames.cut

    def receive(self, content: Buffer, limit: int) -> None:
        """Keep what came; `limit` is what the ticket allows in all.

        Raises:
            ProtocolError: unexpected_message, it is more.
            LimitReached: there is no room in the account.
        """
        self._count(content, limit)
        charge(self._account, Purpose.EARLY_DATA, len(content))
        self._received += content

    def receive_messages(self, content: Buffer, limit: int, longest: int) -> None:
        """Keep the messages that came, of `longest` bytes at most; as :meth:`receive`.

        Raises:
            ProtocolError: unexpected_message for a control frame; those of :meth:`FrameReader.feed`.
        """
        self._count(content, limit)
        frames = self._frames = self._frames or FrameReader(longest)
        before = frames.held
        if frames.feed(bytes(content)):
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "a control frame came as early data")
        charge(self._account, Purpose.EARLY_DATA, frames.held - before)

    def _count(self, content: Buffer, limit: int) -> None:
        self._came += len(content)
        if self._came > limit:
            # RFC 8446 section 4.6.1 [8446-0RTT-1]
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, f"more than {limit} bytes of early data came")

    def read(self, n: int) -> bytes:
        """Take up to `n` bytes of what came, all of it for -1."""
        taken = bytes(self._received) if n < 0 else bytes(memoryview(self._received)[:n])
        del self._received[: len(taken)]
        self._account.release(Purpose.EARLY_DATA, len(taken))
        return taken

    def read_messages(self) -> list[bytes]:
        """Take the messages that came."""
        if self._frames is None:
            return []
        before = self._frames.held
        messages = self._frames.take_all()
        self._account.release(Purpose.EARLY_DATA, before - self._frames.held)
        return messages

    def skip(self, record: Buffer, limit: int) -> None:
        """Go past a record of rejected early data.

        Raises:
            ProtocolError: unexpected_message, there was more of it than anybody may send.
        """
        # RFC 8446 section 4.2.10 [8446-0RTT-3].  A record counts for a byte at least, so that empty ones
        # come to an end as well.
        self._skipped += max(len(record) - _RECORD_OVERHEAD_BYTES, 1)
        if self._skipped > max(limit, _LEAST_SKIPPED_BYTES):
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "rejected early data has no end")
