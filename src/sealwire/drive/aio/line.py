"""What a stream does for each piece of data: from the socket to the engine, and from there to the socket.

:class:`Line` is beneath :class:`sealwire.drive.aio.stream.Stream`.  The compiled one (`_line`) has a short
way for simple data, and leaves the rest to the stream's own methods; the class here has none and leaves
everything to them.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from sealwire import stcp
from sealwire.stcp.lane import Lane, PlainLane

# Ready descriptors served in one turn, so that timers and other people's descriptors get theirs.
_READY = 256


class Reader(Protocol):
    """Who knows the long way to a message."""

    def read_message_slowly(self) -> Coroutine[Any, Any, bytes]: ...


class PlainLine:
    """A stream without a short way."""

    loop: asyncio.AbstractEventLoop
    reading: bool
    _connection: stcp.Connection
    _dirty: bool

    def prepare(self, buffer: memoryview, own_ciphers: bool, low_water: int) -> None:
        """Begin.

        Args:
            buffer: where what is read goes first.
            own_ciphers: whether the engine itself seals and opens.
            low_water: how much may wait when drain returns, in bytes.
        """
        self._buffer = buffer
        self._waiters: list[asyncio.Future[None]] = []
        # Those who wait are woken when so many bytes can be read, or at anything for 0.
        self._wanted = 0

    @property
    def read_buffer(self) -> memoryview:
        """Where what is read goes first."""
        return self._buffer

    def arrival(self, n: int) -> asyncio.Future[None]:
        """Done when `n` bytes (messages, in message mode) can be read, or something else happens.

        Await it at once: it is not told twice.
        """
        self._wanted = min(self._wanted, n) if self._waiters else n
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def _wake_waiters(self) -> None:
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _readable(self) -> None:
        """The socket has something."""
        self._read()

    def write_message(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a message.  What is written in one turn of the loop is sealed and sent together."""
        self._queue_message(data)

    def flush(self) -> None:
        """Seal and send now what was written in this turn of the loop."""
        if self._dirty:
            self._dirty = False
            self._send_written()

    def drained(self) -> Coroutine[Any, Any, None] | None:
        """:meth:`flush`; then what drain gives, if it is certain that it need not wait, else None."""
        return None

    def next_message(self, reader: Reader) -> Coroutine[Any, Any, bytes]:
        """The next message, to be awaited."""
        return reader.read_message_slowly()

    def closed_socket(self) -> None:
        """The descriptor is somebody else's from now on."""

    # -- the long ways, which a stream has

    def _read(self) -> None:
        raise NotImplementedError

    def _queue_message(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    def _send_written(self) -> None:
        raise NotImplementedError


#: Whether somebody waits to read from a descriptor, and to write to it; and both callbacks.
Watched = tuple[bool, bool, Callable[[], None], Callable[[], None]]


def plain_serve_ready(poll: select.epoll, watched: dict[int, Watched]) -> None:
    """Call who waits for the descriptors that are ready."""
    for descriptor, events in poll.poll(0, _READY):
        one = watched.get(descriptor)  # one served before may have closed it
        if one is None:
            continue
        reads, writes, readable, writable = one
        # An error or a hang-up is met by whoever wanted to read or write; who paused is left alone.
        if reads and events & ~select.EPOLLOUT:
            readable()  # which sends, too, if something waits
        elif writes and events & ~select.EPOLLIN:
            writable()


if TYPE_CHECKING:
    Line = PlainLine
    serve_ready = plain_serve_ready
else:

    def _choose() -> Any:
        """The compiled line where it is built, and the engine's lane as well."""
        if os.environ.get("SEALWIRE_PURE") != "1" and Lane is not PlainLane:
            try:
                from sealwire.drive.aio import _line
            except ImportError as error:
                if os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
                    raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {error}") from error
            else:
                return _line.Line, _line.serve_ready
        return PlainLine, plain_serve_ready

    Line, serve_ready = _choose()
