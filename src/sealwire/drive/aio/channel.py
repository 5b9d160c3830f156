"""DatagramChannel: messages to and from one DTLS peer, for clients and servers alike.

A channel exists when the handshake is done.  What came waits in the engine, bounded by
``Limits.receive_queue_bytes``; what does not fit is dropped and counted, as datagrams are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Final

from sealwire import dtls
from sealwire.drive.aio.change import Change
from sealwire.drive.aio.port import Port
from sealwire.drive.aio.watermarks import Watermarks
from sealwire.drive.datagrams import DatagramFacts, T
from sealwire.drive.pacing import Pacer
from sealwire.drive.udp import Address, UdpSocket
from sealwire.errors import ConnectionClosed, LimitReached

# Messages of one step of a paced run.
_PACED_MESSAGES: Final = 16


class DatagramChannel(DatagramFacts):
    """Messages over DTLS, in both directions, each whole or not at all; order is not kept.

    Iterating gives messages until the peer closes.  Usable as an asynchronous context manager,
    which closes it.

    Attributes:
        peername: the peer's address; a server's channel follows it.
        sockname: the local one.
    """

    def __init__(self, connection: dtls.Connection, port: Port, *, owns_port: bool) -> None:
        super().__init__()
        assert isinstance(connection.address, tuple)
        self.peername: Address = connection.address
        self.sockname: Address = port.sockname
        self._connection = connection
        self._port = port
        self._owns_port = owns_port
        # What was taken of the engine, the last first.
        self._ready: list[bytes] = []
        self._peer_closed = False
        self._pacer: Pacer | None = None
        # None until somebody sets them: then only a full send queue is waited for.
        self._marks: Watermarks | None = None
        self._changed = Change()

    @property
    def connection(self) -> dtls.Connection:
        return self._connection

    @property
    def _udp_socket(self) -> UdpSocket:
        return self._port.udp

    def _act(self, action: Callable[[dtls.Connection], T]) -> T:
        self._check_process()
        try:
            return action(self._connection)
        finally:
            self._port.schedule()

    @property
    def max_message_bytes(self) -> int:
        """The longest message :meth:`send` takes."""
        return self._connection.max_message_bytes

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent or received any more."""
        return self._connection.state in ("closing", "closed")

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send one message; see :meth:`send_many`."""
        await self.send_many((data,))

    async def send_many(self, messages: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send messages, waiting while the send queue is full.  They may be lost on the way.

        Raises:
            ValueError: a message is longer than `max_message_bytes`.
            LimitReached: all of them together are more than ``Limits.send_queue_bytes``.
            Error: the connection is closed or failed.
        """
        self._check_process()
        if self._pacer is None:
            await self._queue(messages)
            return
        for first in range(0, len(messages), _PACED_MESSAGES):
            part = messages[first : first + _PACED_MESSAGES]
            await self._queue(part)
            wait = self._pacer.spend(sum(map(len, part)), time.monotonic())
            if wait > 0:
                self._port.turn()
                await asyncio.sleep(wait)

    def pace(self, rate: float | None) -> None:
        """Have :meth:`send_many` wait, so that no more than `rate` bytes a second are sent; None: not.

        A link, or a receiver, that is slower than the sender loses what its queue does not hold.
        """
        self._pacer = None if rate is None else Pacer(rate, time.monotonic())

    async def _queue(self, messages: Sequence[bytes | bytearray | memoryview]) -> None:
        while True:
            try:
                self._connection.send_many(messages)
            except LimitReached:
                self._port.turn()
                if not self._port.udp.blocked:
                    # The queue is empty now, or belongs to nobody who could empty it.
                    self._connection.send_many(messages)
                    break
                await self._port.unblocked()
            else:
                break
        self._port.schedule()
        if self._marks is not None and self._connection.send_queue_bytes > self._marks.high:
            await self._ebb(self._marks.low)

    async def _ebb(self, low: int) -> None:
        """Wait until no more than `low` bytes wait for the kernel."""
        self._port.turn()
        while self._port.udp.blocked and self._connection.send_queue_bytes > low and not self.closed:
            await self._port.unblocked()
            self._port.turn()

    async def drain(self) -> None:
        """Wait until what was given to :meth:`send` is with the kernel; as for asyncio's writers."""
        self._check_process()
        self._port.turn()
        while self._port.udp.blocked and not self.closed:
            await self._port.unblocked()
            self._port.turn()

    def get_write_buffer_size(self) -> int:
        """Bytes given to :meth:`send` that wait for a turn of the socket, with a charge for each message.

        Never above ``Limits.send_queue_bytes``, at which :meth:`send` waits.  While the kernel takes nothing
        one turn's worth waits at the socket beside it.
        """
        return self._connection.send_queue_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have :meth:`send` wait when more than `high` bytes wait for the kernel, until `low` or less do.

        Without it, and without arguments, `high` is ``Limits.send_queue_bytes``; `low` is a quarter of it.

        Raises:
            ValueError: `low` is negative or above `high`.
        """
        marks = self._marks or self._usual_marks()
        marks.set(high, low)
        self._marks = marks

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high limit; see :meth:`set_write_buffer_limits`."""
        marks = self._marks or self._usual_marks()
        return marks.low, marks.high

    def _usual_marks(self) -> Watermarks:
        return Watermarks(self._connection.limits.send_queue_bytes)

    def early_messages(self) -> list[bytes]:
        """Early data the client sent, unless a server's ``on_early_data`` took it.

        This process accepts a flight once; other servers of that client's may have seen it as well.
        """
        self._check_process()
        return self._connection.early_messages()

    async def recv(self) -> bytes:
        """The next message.

        Raises:
            ConnectionClosed: the peer closed, or this side did; what came before is given first.
            Error: what ended the connection.
        """
        self._check_process()
        if not self._take():
            await self._arrival()
        return self._ready.pop()

    async def receive_many(self) -> list[bytes]:
        """All messages that have come, at least one; see :meth:`recv`.

        This is the way to take bulk traffic: what a batch costs is divided by its messages.
        """
        self._check_process()
        if not self._take():
            await self._arrival()
        messages, self._ready = self._ready, []
        messages.reverse()
        return messages

    async def _arrival(self) -> None:
        while not self._take():
            if self._connection.error is not None:
                raise self._connection.error
            if self._peer_closed or self.closed:
                raise ConnectionClosed("the peer closed" if self._peer_closed else "the channel is closed")
            await self._changed.wait()

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """Messages as they come in batches, until the peer closes; see :meth:`receive_many`."""
        while True:
            try:
                yield await self.receive_many()
            except ConnectionClosed as closed:
                if closed is self._connection.error:
                    raise
                return

    def __aiter__(self) -> DatagramChannel:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except ConnectionClosed as closed:
            if closed is self._connection.error:
                raise
            raise StopAsyncIteration from None

    async def update_keys(self, *, request_peer: bool = False) -> None:
        """Move to new sending keys (RFC 9147 section 8); returns when they are in use.

        That takes a round trip, in which data goes on under the old ones.  With `request_peer` the peer
        is asked for the same; when it follows is for the peer to say.

        Raises:
            KeysExhausted: epochs are nearly used up; the connection goes on as it is.
            Error: the connection is closed or failed, perhaps meanwhile.
        """
        connection = self._connection
        self._act(lambda one: one.update_keys(time.monotonic(), request_peer=request_peer))
        epoch = connection.next_sending_epoch
        while connection.sending_epoch < epoch:
            if self.closed:
                raise connection.error or ConnectionClosed("the channel is closed")
            await self._changed.wait()

    async def aclose(self) -> None:
        """Send what waits and close_notify, then let the connection go.  May be called again."""
        self._check_process()
        if not self.closed:
            self._connection.close(time.monotonic())
        try:
            if self._owns_port or self._port.udp.blocked:
                await self._port.flush()
            else:
                # The port lives on, and has a turn for all who say something in this iteration of the loop.
                self._port.schedule()
        finally:
            if self._owns_port:
                self._port.close()
            self._changed.happened()  # whoever waits in recv

    async def __aenter__(self) -> DatagramChannel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _take(self) -> bool:
        if not self._ready:
            self._ready = self._connection.lend_messages()
            self._ready.reverse()
        return bool(self._ready)

    # -- from the owner of the port

    def received(self) -> None:
        """Messages may have come."""
        self._changed.happened()

    def happened(self, event: dtls.Event) -> None:
        """The engine reported `event`."""
        if isinstance(event, dtls.PeerClosed):
            self._peer_closed = True
        elif isinstance(event, dtls.AddressChanged):
            self.peername = event.new
        self._look_at_size(event)
        self._changed.happened()
