"""What the streams of one event loop share: an epoll of their own, a buffer to read into, and turns.

An event loop handles each descriptor by itself, with a callback object and a table look-up each.  Streams
are many and alike, so where the system has epoll they are watched by one of their own, and the loop
watches that: one wake-up serves all that are ready.  What applications write during a turn of the loop is
sealed and sent at its end, together, for each stream that has something.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from sealwire.drive.aio.line import Watched, serve_ready

#: Bytes read at once: a message of 64 KiB, its records' overhead, and the beginning of the next.
READ_BYTES: Final = 128 * 1024
_HAS_EPOLL: Final = hasattr(select, "epoll")


class Flushed(Protocol):
    """What has something to send at the end of a turn."""

    def flush(self) -> None: ...


class Turns:
    """The shared part of one loop's streams.  Made by :func:`turns_of`.

    Attributes:
        waiting: streams to be flushed at the end of this turn of the loop; see :meth:`soon`.
        buffer: what is read from the network goes here first; its content means nothing afterwards.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.buffer = memoryview(bytearray(READ_BYTES))
        # A loop that is dropped takes this with it, and not the other way round.
        self._loop = weakref.ref(loop)
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Watched] = {}
        self.waiting: list[Flushed] = []

    def soon(self, stream: Flushed) -> None:
        """Flush `stream` at the end of this turn of the loop."""
        if not self.waiting:
            self._running().call_soon(self._flush)
        self.waiting.append(stream)

    def _flush(self) -> None:
        waiting = self.waiting[:]
        self.waiting.clear()
        for stream in waiting:
            try:
                stream.flush()
            except Exception as error:  # one that fails must not keep the others' data back
                message = "what was written to a stream could not be sent"
                self._running().call_exception_handler({"message": message, "exception": error})

    def watch(
        self,
        descriptor: int,
        reads: bool,
        writes: bool,
        readable: Callable[[], None],
        writable: Callable[[], None],
    ) -> None:
        """Call `readable` and `writable` when the descriptor is; neither is to :meth:`forget` it."""
        loop = self._running()
        if not _HAS_EPOLL:
            self._watched[descriptor] = (reads, writes, readable, writable)
            _set(loop.add_reader, loop.remove_reader, descriptor, reads, readable)
            _set(loop.add_writer, loop.remove_writer, descriptor, writes, writable)
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            loop.add_reader(self._epoll.fileno(), self._ready)
        known = descriptor in self._watched
        if not reads and not writes:
            self.forget(descriptor)
            return
        wanted = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if writes else 0)
        (self._epoll.modify if known else self._epoll.register)(descriptor, wanted)
        self._watched[descriptor] = (reads, writes, readable, writable)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer; before it is closed."""
        if self._watched.pop(descriptor, None) is None:
            return
        loop = self._running()
        if self._epoll is None:
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
            return
        self._epoll.unregister(descriptor)
        if not self._watched:
            loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _ready(self) -> None:
        assert self._epoll is not None
        serve_ready(self._epoll, self._watched)

    def _running(self) -> asyncio.AbstractEventLoop:
        loop = self._loop()
        assert loop is not None, "streams hold their loop"
        return loop


def _set(
    add: Callable[..., object],
    remove: Callable[[int], object],
    descriptor: int,
    wanted: bool,
    callback: Callable[[], None],
) -> None:
    if wanted:
        add(descriptor, callback)
    else:
        remove(descriptor)


_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = weakref.WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """The one of this loop."""
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = Turns(loop)
    return found
