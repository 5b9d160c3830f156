"""A UDP socket on an event loop, turning one engine: a connection, or an endpoint with many.

Every wake-up is one turn: take a batch, give it to the engine in one call, send what the engine
wants sent, tell the owner, set the timer.  What applications send within one iteration of the
loop leaves together at its end.  While the kernel takes no more datagrams the engine is not asked
for any, so data waits where it is bounded and charged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from sealwire import dtls, ownership
from sealwire.drive.handshakes import PAUSE_SECONDS, Handshakes
from sealwire.drive.udp import Entry, UdpSocket
from sealwire.drive.unclosed import HoldsDescriptor

# Closing waits this long for a kernel that takes no datagrams.
_FLUSH_SECONDS: Final = 1.0

Batch = Sequence[Entry]


class Engine(Protocol):
    """What turns: :class:`sealwire.dtls.Endpoint`, or one connection in the same shape."""

    def receive(self, batch: Batch, now: float) -> None: ...
    def transmit_trains(self, now: float) -> Sequence[Entry]: ...
    @property
    def more(self) -> bool: ...
    def deadline(self) -> float | None: ...
    def wake(self, now: float) -> None: ...
    def abandon(self) -> None: ...


class Peer(Protocol):
    """Who is told what happens with one finished connection: a channel, or a protocol's transport."""

    def received(self) -> None:
        """Messages may have come."""

    def happened(self, event: dtls.Event) -> None:
        """The engine reported `event`."""


def _closed(batch: Batch) -> None:
    """Whom a closed port tells of its turns; it has none."""


class Port(HoldsDescriptor):
    """Moves datagrams between a socket and an engine.

    Args:
        front: the handshake socket beside `udp`, where there is one; read after `udp`.
        after_turn: called at the end of each turn with the batch that came in, often empty; takes
            events and messages from the engine.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        udp: UdpSocket,
        engine: Engine,
        after_turn: Callable[[Batch], None],
        front: Handshakes | None = None,
    ) -> None:
        self.udp = udp
        #: The address of the socket, one object for all who show it.
        self.sockname = udp.sock.getsockname()
        self.front = front
        self._loop = loop
        self._engine = engine
        self._after_turn = after_turn
        self._turned: Callable[[], None] | None = None
        self._scheduled = False
        self._closed = False
        self._pause: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._writing = False
        self._unblocked = asyncio.Event()
        loop.add_reader(udp.sock.fileno(), self._readable)
        if front is not None:
            loop.add_reader(front.sock.fileno(), self._front_readable)
        self._hold(udp.sock, f"DTLS socket {self.sockname}")
        self.schedule()

    def after_turns(self, callback: Callable[[], None]) -> None:
        """Call `callback` at the end of every turn from now on."""
        self._turned = callback

    def schedule(self) -> None:
        """Have a turn at the end of this iteration of the loop."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._scheduled_turn)

    def turn(self, batch: Batch = ()) -> None:
        """Have a turn now."""
        if self._closed:
            return
        now = time.monotonic()
        try:
            self._send(now)
            self._after_turn(batch)
            if self._turned is not None:
                self._turned()
        finally:
            self._set_timer()

    async def unblocked(self) -> None:
        """Wait until the kernel takes datagrams again.  Returns at once if it does."""
        while self.udp.blocked and not self._closed:
            self._unblocked.clear()
            await self._unblocked.wait()

    async def flush(self) -> None:
        """Send what the engine has, waiting for a full socket for a second at most."""
        self.turn()
        if self.udp.blocked:
            try:
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self.unblocked()
            except TimeoutError:
                pass

    def stop_reading(self) -> None:
        """Read nothing any more: what comes waits in the kernel for whoever has the socket next."""
        if not self._closed:
            self._loop.remove_reader(self.udp.sock.fileno())
            self.leave_front()

    def leave_front(self) -> None:
        """Read the handshake socket no more; it stays open."""
        if self.front is None or self._closed:
            return
        self._loop.remove_reader(self.front.sock.fileno())
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def close(self) -> None:
        """Close the socket; what is left in the engine ends without a word.  May be called again."""
        if self._closed:
            return
        self._closed = True
        self._let_go()
        self._cancel_timer()
        self._loop.remove_reader(self.udp.sock.fileno())
        if self._writing:
            self._loop.remove_writer(self.udp.sock.fileno())
        self.udp.close()
        if self.front is not None:
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self.front.sock.fileno())
            self.front.close()
        self._unblocked.set()
        self._engine.abandon()
        # The owner has this port, and must not have to wait for the garbage collector.
        self._after_turn = _closed
        self._turned = None

    # -- called by the loop

    def _scheduled_turn(self) -> None:
        self._scheduled = False
        self.turn()

    def _readable(self) -> None:
        batch = self.udp.receive()
        if batch:
            self._engine.receive(batch, time.monotonic())
        # Also without a batch: the socket may have had nothing but an error to tell.
        self.turn(batch)

    def _front_readable(self) -> None:
        assert self.front is not None
        # Connected peers first: what strangers send can wait, and be lost.
        batch = self.udp.receive()
        now = time.monotonic()
        if batch:
            self._engine.receive(batch, now)
        crowd, others = self.front.take(now)
        self.turn([*batch, *others])
        if self._closed:
            return
        if crowd:
            if self._pause is None:
                self._loop.remove_reader(self.front.sock.fileno())
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._front_readable)
        elif self._pause is not None:
            self._pause = None
            self._loop.add_reader(self.front.sock.fileno(), self._front_readable)

    def _wake(self) -> None:
        ownership.let_go(self._timer)
        self._timer = self._timer_at = None
        self._engine.wake(time.monotonic())
        self.turn()

    def _send(self, now: float) -> None:
        udp = self.udp
        if udp.blocked:
            udp.send(())
        # As long as the kernel takes it: what it does not take waits in the engine, not here.
        more = not udp.blocked
        while more:
            udp.send(self._engine.transmit_trains(now))
            more = self._engine.more and not udp.blocked
        if udp.blocked != self._writing:
            self._writing = udp.blocked
            if self._writing:
                self._loop.add_writer(udp.sock.fileno(), self.turn)
            else:
                self._loop.remove_writer(udp.sock.fileno())
                self._unblocked.set()

    def _set_timer(self) -> None:
        deadline = self._engine.deadline()
        if self._closed:
            return
        if deadline is not None and self._timer_at is not None and self._timer_at <= deadline:
            # A timer that fires too early finds nothing to do and is set anew, once; most deadlines move
            # further away many times before they are met.
            return
        if deadline is None and self._timer_at is None:
            return
        self._cancel_timer()
        self._timer_at = deadline
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._wake)
            ownership.own(ownership.Kind.TIMER, self._timer)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            ownership.let_go(self._timer)
            self._timer = self._timer_at = None
