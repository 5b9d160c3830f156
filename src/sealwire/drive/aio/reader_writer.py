"""StreamReader and StreamWriter with the methods of asyncio's, over one Stream.

What the peer sent stays in the engine, charged and bounded, until it is read here; only a
`readexactly` for more than the receive queue holds collects on the application's side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from sealwire import stcp
from sealwire.drive.aio.stream import Stream
from sealwire.drive.facts import StreamFacts
from sealwire.errors import ConnectionClosed, Error

#: Longest line or separated record of :meth:`StreamReader.readuntil`, as asyncio's default.
DEFAULT_LIMIT_BYTES: Final = 64 * 1024


class StreamReader(StreamFacts):
    """What the peer sends, with the methods of :class:`asyncio.StreamReader`.

    The end is the peer's close_notify.  If the TCP connection ends without one, data that came
    before is still given out and then :class:`sealwire.Truncated` is raised.

    In message mode it gives messages, by `read_message`, `read_messages` or ``async for``, and the
    methods for bytes raise :class:`sealwire.ConfigurationError`; without it the other way round.
    """

    def __init__(self, stream: Stream, limit: int = DEFAULT_LIMIT_BYTES) -> None:
        super().__init__()
        self._stream = stream
        self._limit = limit
        self._stash = bytearray()  # collected for a readexactly that was cancelled

    @property
    def connection(self) -> stcp.Connection:
        return self._stream.connection

    def exception(self) -> Error | TimeoutError | None:
        """What ended the connection; None while it lives and after an orderly end."""
        return self.connection.error

    def at_eof(self) -> bool:
        """Whether the peer has closed and everything was read."""
        return not self._available() and not self.connection.messages_ready and self._ended()

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes as soon as there are any; everything to the end for -1; b"" at the end."""
        if n < 0:
            while await self._more(len(self._stash) + 1):
                self._collect()
            return self._take(len(self._stash))
        if n == 0 or not await self._more(1):
            return b""
        return self._take(n)

    def read_early(self, n: int = -1) -> bytes:
        """Early data the client sent, up to `n` bytes, unless a server's ``on_early_data`` took it.

        This process accepts a flight once; other servers of that client's may have seen it as well.
        """
        self._check_process()
        return self.connection.read_early(n)

    def read_early_messages(self) -> list[bytes]:
        """As :meth:`read_early`, in message mode."""
        self._check_process()
        return self.connection.read_early_messages()

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes.  Raises asyncio.IncompleteReadError if the end comes before."""
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        while self._available() < n:
            if not self.connection.want_read:
                self._collect()
            if not await self._wait(n):
                raise asyncio.IncompleteReadError(self._take(self._available()), n)
        return self._take(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Everything up to and with `separator`.

        Raises:
            asyncio.IncompleteReadError: the end came before it.
            asyncio.LimitOverrunError: it does not come within the limit; the data stays.
        """
        if not separator:
            raise ValueError("Separator should be at least one-byte string")
        searched = 0
        while (at := self._find(separator, searched)) < 0:
            searched = max(0, self._available() + 1 - len(separator))
            if searched > self._limit or self._stream.full:
                message = "Separator is not found, and chunk exceed the limit"
                raise asyncio.LimitOverrunError(message, searched)
            if not await self._more(self._available() + 1):
                raise asyncio.IncompleteReadError(self._take(self._available()), None)
        if at > self._limit:
            raise asyncio.LimitOverrunError("Separator is found, but chunk is longer than limit", at)
        return self._take(at + len(separator))

    async def readline(self) -> bytes:
        r"""A line with its ``\n``; what is left without one at the end; ValueError if it is too long."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            at = self._find(b"\n", error.consumed)
            self._take(error.consumed + 1 if at == error.consumed else self._available())
            raise ValueError(error.args[0]) from None

    def __aiter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> bytes:
        """The next line; in message mode the next message, until the peer closes between two."""
        if self.connection.message_mode:
            try:
                return await self.read_message()
            except ConnectionClosed as closed:
                if closed is self.connection.error:
                    raise
                raise StopAsyncIteration from None
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # -- messages

    def read_message(self) -> Coroutine[Any, Any, bytes]:
        """The next message, to be awaited; b"" is one as well.

        What was written in this turn of the loop is sent before it waits.

        Raises:
            ConnectionClosed: the peer closed, or this side did; what came before is given first.
            ConfigurationError: the connection is not in message mode.
            Error: what ended the connection.
        """
        return self._stream.next_message(self)

    async def read_message_slowly(self) -> bytes:
        """As :meth:`read_message`, whatever there is to do; for streams, which know of a shorter way."""
        self._check_process()
        stream = self._stream
        connection = stream.connection
        while (message := connection.read_message()) is None:
            await self._arrival()
        if not stream.reading:
            stream.took()
        return message

    async def read_messages(self) -> list[bytes]:
        """All messages that have come, at least one; see :meth:`read_message`.

        This is the way to take many small ones: what a turn costs is divided by its messages.
        """
        self._check_process()
        while not (messages := self.connection.read_messages()):
            await self._arrival()
        self._stream.took()
        return messages

    def _arrival(self) -> asyncio.Future[None]:
        """Done when a message may be there."""
        stream = self._stream
        connection = stream.connection
        if connection.peer_closed:
            raise ConnectionClosed("the peer closed")
        if connection.state == "closed":
            raise ConnectionClosed("the connection is closed")
        stream.flush()
        return stream.arrival(1)

    # -- the two places where bytes wait

    def _available(self) -> int:
        return len(self._stash) + self.connection.buffered

    def _ended(self) -> bool:
        return self.connection.peer_closed or self.connection.state == "closed"

    async def _more(self, n: int) -> bool:
        """Wait until `n` bytes are there; False at the end.  Raises what ended the connection."""
        while self._available() < n:
            if not await self._wait(n):
                return False
        return True

    async def _wait(self, n: int) -> bool:
        """Wait until `n` bytes are there or something happens; as :meth:`_more`."""
        self._check_process()
        connection = self.connection
        connection.must_be_plain()
        if connection.error is not None:
            raise connection.error
        if self._ended():
            return False
        self._stream.flush()
        # What is in the stash is there already.
        await self._stream.arrival(n - len(self._stash))
        return True

    def _find(self, separator: bytes, start: int) -> int:
        if not self._stash:
            return self.connection.find(separator, start)
        self._collect()
        return self._stash.find(separator, start)

    def _collect(self) -> None:
        if self.connection.buffered:
            self._stash += self.connection.read()
            self._stream.took()

    def _take(self, n: int) -> bytes:
        if not self._stash:
            taken = self.connection.read(n) if self.connection.buffered else b""
            self._stream.took()
            return taken
        taken = bytes(memoryview(self._stash)[:n])
        del self._stash[: len(taken)]
        if len(taken) < n and self.connection.buffered:
            taken += self.connection.read(n - len(taken))
            self._stream.took()
        return taken


class StreamWriter(StreamFacts):
    """What goes to the peer, with the methods of :class:`asyncio.StreamWriter`.

    `write` takes any amount at once, but raises :class:`sealwire.LimitReached` when
    ``Limits.send_queue_bytes`` wait already: await `drain` between writes.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    @property
    def connection(self) -> stcp.Connection:
        return self._stream.connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue `data`.

        Raises:
            LimitReached: too much waits already.
            Error: the connection is closed or failed.
        """
        self._stream.write((data,))

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue several pieces as one."""
        self._stream.write((b"".join(data),))

    def write_message(self, data: bytes | bytearray | memoryview) -> None:
        """Queue one message; b"" is one as well.

        Those written in one turn of the loop are sealed and sent together at its end, or at the next
        `drain` or `read_message`, whichever comes first.

        Raises:
            LimitReached: it is longer than ``Limits.message_bytes``, or too much waits already; nothing
                was taken.
            ConfigurationError: the connection is not in message mode.
            Error: the connection is closed or failed.
        """
        self._stream.write_message(data)

    def go_away(self) -> None:
        """In message mode, tell the peer that we mean to close before long; messages still go and come.

        Raises as :meth:`write_message`.
        """
        self._stream.go_away()

    def drain(self) -> Coroutine[Any, Any, None]:
        """Send what was written; await it until at most half of ``Limits.send_queue_bytes`` waits.

        Awaiting raises if the connection ended.
        """
        return self._stream.drained() or self._drain()

    async def _drain(self) -> None:
        self._check_process()
        self._stream.flush()
        while True:
            if self.connection.error is not None:
                raise self.connection.error
            if self._stream.gone.done():
                raise ConnectionClosed("the connection is closed")
            if self._stream.backlog <= self._stream.low_water:
                return
            await self._stream.changed()

    async def update_keys(self, *, request_peer: bool = False) -> None:
        """Move to new sending keys (RFC 8446 section 4.6.3), and ask the peer for the same if told to.

        Over a stream they are in use from the next write on.
        """
        self._stream.update_keys(request_peer=request_peer)

    @property
    def transport(self) -> StreamWriter:
        """What programs ask asyncio's writers' transport for; here the writer itself can do it."""
        return self

    def get_write_buffer_size(self) -> int:
        """Bytes written that the network has not."""
        return self._stream.backlog

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """How much may wait when `drain` returns, and at how much writing raises."""
        return self._stream.low_water, self._stream.high_water

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Send close_notify behind what was written; reading goes on."""
        self._check_process()
        self._stream.end_writing()

    def close(self) -> None:
        """Send what was written and close_notify, then close.  `wait_closed` waits for that."""
        self._stream.close()

    def abort(self) -> None:
        """Close at once; the peer sees a truncated stream."""
        self._stream.abort()

    def is_closing(self) -> bool:
        return self._stream.closing

    async def wait_closed(self) -> None:
        """Wait until the socket is closed.  Cancelled, it closes it at once."""
        self._check_process()
        try:
            while not self._stream.gone.done():
                await self._stream.changed()
        except asyncio.CancelledError:
            self._stream.abort()  # nobody waits any more: leave nothing behind
            raise

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername``, ``sockname``, ``socket``, ``cipher`` or ``peercert``."""
        stream = self._stream
        if name == "peername":
            return stream.peername
        if name == "sockname":
            return stream.sockname
        if name == "socket":
            return default if stream.gone.done() else stream.sock
        if name == "cipher":
            return self.cipher()
        if name == "peercert":
            return self.getpeercert()
        return default
