"""Batcher: small sends of one channel or writer, collected for a moment.

Each write of a stream is a record and a system call of its own.  Ten small ones that wait for each
other for a millisecond are one of both.  Datagrams keep their boundaries: what is collected is sealed
in one call and leaves in one system call.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from sealwire.drive.aio.channel import DatagramChannel
from sealwire.drive.aio.reader_writer import StreamWriter


class Batcher:
    """Sends to `peer`, at the latest `seconds` after a send, or when `most_bytes` or `most_messages` wait.

    One task at a time sends.  Usable in ``async with``, which sends what is left at its end; the channel
    or writer stays open.

    Args:
        peer: a :class:`DatagramChannel` or a :class:`StreamWriter`.
        seconds: 0 sends at once.
    """

    def __init__(
        self,
        peer: DatagramChannel | StreamWriter,
        *,
        seconds: float,
        most_bytes: int = 16 * 1024,
        most_messages: int = 64,
    ) -> None:
        if seconds < 0 or most_bytes < 1 or most_messages < 1:
            raise ValueError("nothing waits for a negative time, and one byte and message leave at least")
        self._peer = peer
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._most_messages = most_messages
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._error: BaseException | None = None

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, with others or alone.

        Raises:
            Error: the connection is closed or failed; also what became of an earlier send that waited.
        """
        self._raise_error()
        self._waiting.append(bytes(data))
        self._bytes += len(data)
        full = self._bytes >= self._most_bytes or len(self._waiting) >= self._most_messages
        if full or not self._seconds:
            await self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._due)

    async def flush(self) -> None:
        """Send what waits now."""
        self._raise_error()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._flushing is not None:
            await asyncio.wait([self._flushing])  # those before stay before
        await self._send()

    async def aclose(self) -> None:
        """Send what waits; the connection stays open."""
        await self.flush()

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.flush()
        else:
            self._drop()

    def _drop(self) -> None:
        self._waiting.clear()
        self._bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        if self._flushing is None and self._waiting:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_later())

    async def _flush_later(self) -> None:
        try:
            await self._send()
        except OSError as error:
            self._error = error  # the next call tells
        finally:
            self._flushing = None

    async def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._bytes = 0
        if not waiting:
            return
        if isinstance(self._peer, DatagramChannel):
            await self._peer.send_many(waiting)
        else:
            self._peer.writelines(waiting)
            await self._peer.drain()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
