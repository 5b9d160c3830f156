"""Moves bytes between a secure stream and a plain socket until both have said that they end.

There is no task and no queue per direction.  What the secure side sent waits in its engine, charged and
bounded, until the plain socket takes it; what the plain side sent waits in the kernel until the engine has
little left to send.  So a reader that is slow stops its own writer and nobody else.

An end is passed on as an end: close_notify becomes FIN, FIN becomes close_notify, each direction apart.
Whatever else ends a side becomes an error of the other: a reset of the plain socket, an alert on the
secure one.  A stream that was cut must never look whole to who reads it.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from typing import TYPE_CHECKING, Final

from sealwire import ownership
from sealwire.drive.aio import plain as plain_side
from sealwire.errors import Alert, Error, ProtocolError

if TYPE_CHECKING:
    from sealwire.drive.aio.stream import Stream
    from sealwire.limits import Ledger
    from sealwire.telemetry import ProxyCounters

# One read of the plain socket; four full records.
_READ_BYTES: Final = 64 * 1024
# Reads per wake-up, so that one fast backend leaves turns to the others.
_READS: Final = 4
# With more than this sealed and unsent, the plain side is not read.
_AHEAD_BYTES: Final = 64 * 1024
# As the engine does: what is in flight must still fit.
_HIGH_WATER: Final = 7 / 8
# How often a pump that waits for room in the ledger looks again.
_LOOK_SECONDS: Final = 0.1


class Ending(enum.Enum):
    """How a proxied connection ended."""

    FINISHED = "both sides ended in order"
    SECURE_BROKE = "the secure side broke"
    PLAIN_BROKE = "the plain side broke"
    IDLE = "nothing moved for too long"
    CUT = "it was cut"


class Pump:
    """The two sides of one proxied connection.  Owns both from here on.

    Attributes:
        done: how it ended, once both sides are closed.
        moved: bytes to the plain side and to the secure one.
        cause: the error behind an ending that is none in order.
    """

    def __init__(
        self,
        stream: Stream,
        plain: socket.socket,
        ledger: Ledger,
        counters: ProxyCounters,
        idle_seconds: float | None = None,
    ) -> None:
        self.done: asyncio.Future[Ending] = stream.loop.create_future()
        self.moved = [0, 0]
        self.cause: BaseException | None = None
        self._loop = stream.loop
        self._stream = stream
        self._plain = plain
        self._fd = plain.fileno()
        self._ledger = ledger
        self._counters = counters
        self._idle_seconds = idle_seconds
        self._reading = False
        self._writing = False
        self._plain_ended = False  # FIN came, close_notify is queued
        self._secure_ended = False  # close_notify came, FIN is sent
        self._deaf = False  # the plain side takes nothing any more
        self._moving = False
        self._ending: Ending | None = None
        self._moved_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to move bytes."""
        self._stream.on_turn = self._step
        if self._idle_seconds is not None:
            self._wait_idle(self._idle_seconds)
        self._step()

    def cut(self) -> None:
        """End now; both sides see that it is no end in order."""
        self._break(Ending.CUT)

    # -- to the plain side

    def _step(self) -> None:
        """Something happened: move what can be moved."""
        if self._ending is not None:
            self._settle()
        if self._moving or self._ending is not None:
            return  # what is done here makes turns of the stream, which come back
        self._moving = True
        try:
            self._to_plain()
            self._choose_reading()
        finally:
            self._moving = False
        if self._plain_ended and self._deaf:
            self._break(Ending.PLAIN_BROKE)  # what comes now reaches nobody
        elif self._plain_ended and self._secure_ended:
            self._end()

    def _to_plain(self) -> None:
        connection = self._stream.connection
        taken = False
        while connection.buffered and not self._writing and self._ending is None:
            with connection.peek() as view:
                n, size = self._send(view), len(view)
            connection.drop(n)
            taken = taken or n > 0
            if n < size:
                self._writing = True
                self._loop.add_writer(self._fd, self._writable)
        if taken:
            self._stream.took()
        if connection.error is not None:
            self.cause = connection.error
            self._break(Ending.SECURE_BROKE)
        elif connection.peer_closed and not connection.buffered and not self._secure_ended:
            self._secure_ended = True
            if not self._deaf:
                try:
                    self._plain.shutdown(socket.SHUT_WR)
                except OSError:
                    self._deaf = True  # reading says what became of it
        elif self._stream.gone.done() and not connection.peer_closed:
            self._break(Ending.SECURE_BROKE)

    def _send(self, data: memoryview) -> int:
        """How much of `data` the plain socket took; all of it, if it takes nothing any more."""
        if self._deaf:
            return len(data)
        try:
            n = self._plain.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            # What it sent before may still be read, and then comes the reason.
            self._deaf, self.cause = True, error
            return len(data)
        self.moved[0] += n
        self._counters.bytes_to_plain += n
        self._moved_at = self._loop.time()
        return n

    def _writable(self) -> None:
        self._writing = False
        self._loop.remove_writer(self._fd)
        self._step()

    # -- to the secure side

    def _readable(self) -> None:
        stream = self._stream
        try:
            for _ in range(_READS):
                if not self._room():
                    break
                data = self._plain.recv(_READ_BYTES)
                if not data:
                    self._plain_ended = True
                    stream.end_writing()
                    break
                stream.write((data,))
                self.moved[1] += len(data)
                self._counters.bytes_to_secure += len(data)
                self._moved_at = self._loop.time()
                if len(data) < _READ_BYTES:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except Error:
            pass  # the stream failed; the step says what that means
        except OSError as error:
            self.cause = error
            self._break(Ending.PLAIN_BROKE)
        self._step()

    def _room(self) -> bool:
        """Whether the secure side takes more now."""
        if self._ending is not None or self._stream.backlog >= _AHEAD_BYTES:
            return False
        ledger = self._ledger
        if ledger.held > ledger.limit * _HIGH_WATER:
            self._look_again()
            return False
        return True

    def _choose_reading(self) -> None:
        want = not self._plain_ended and self._room()
        if want != self._reading:
            self._reading = want
            if want:
                self._loop.add_reader(self._fd, self._readable)
            else:
                self._loop.remove_reader(self._fd)

    def _look_again(self) -> None:
        # Others fill the ledger, so nothing of ours says when there is room.
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_SECONDS, self._looked)
            ownership.own(ownership.Kind.TIMER, self._look)

    def _looked(self) -> None:
        ownership.let_go(self._look)
        self._look = None
        self._step()

    # -- the end

    def _wait_idle(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._is_idle)
        ownership.own(ownership.Kind.TIMER, self._timer)

    def _is_idle(self) -> None:
        ownership.let_go(self._timer)
        self._timer = None
        assert self._idle_seconds is not None
        left = self._moved_at + self._idle_seconds - self._loop.time()
        if left > 0:
            self._wait_idle(left)
        else:
            self._break(Ending.IDLE)

    def _break(self, ending: Ending) -> None:
        """End both sides, neither of them in order."""
        if self._ending is not None:
            return
        self._ending = ending  # the stream's turns below change nothing of it
        self._forget_plain()
        plain_side.reset(self._plain)
        if ending is not Ending.SECURE_BROKE:
            if self._plain_ended:
                # Our close_notify is out; a peer that still sends learns by a reset.
                self._stream.abort()
            else:
                # RFC 8446 section 6.2: fatal, so that what came before is not taken for all there is.
                reason = f"the other side of the proxy failed: {ending.value}"
                self._stream.fail(ProtocolError(Alert.INTERNAL_ERROR, reason))
        self._let_go()

    def _end(self) -> None:
        """Both sides have ended in order."""
        self._ending = Ending.FINISHED
        self._forget_plain()
        self._plain.close()
        self._stream.close()
        self._let_go()

    def _let_go(self) -> None:
        for handle in (self._timer, self._look):
            if handle is not None:
                handle.cancel()
                ownership.let_go(handle)
        self._timer = self._look = None
        self._settle()

    def _forget_plain(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _settle(self) -> None:
        """Done, once the secure side is closed as well."""
        if self._stream.gone.done() and not self.done.done():
            assert self._ending is not None
            self._stream.on_turn = None
            self._stream.connection.release()
            self.done.set_result(self._ending)
