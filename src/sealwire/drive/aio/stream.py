"""One STCP connection on an event loop: a TCP socket, an engine, and whoever waits for them.

The socket is driven by readiness (:mod:`sealwire.drive.aio.turns`), not through a loop's transport, so
that bytes the peer does not take stay in the engine, where they are charged, and nothing is buffered
twice.  After whatever happens, a turn: seal what the application wrote, send, report events, choose
whether to read, set the timer, wake those who wait.  While data flows and nothing else happens, two short
ways take its place: `_came` behind what was read, `flush` for what was written.

Closing is in three steps: close_notify and FIN; then the peer's last bytes are read and dropped
for at most a second, since closing a socket with unread bytes sends a reset, which can destroy
what was sent just before; then the socket goes.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from sealwire import ownership, stcp
from sealwire.drive.aio.line import Line
from sealwire.drive.aio.turns import turns_of
from sealwire.drive.facts import StreamFacts
from sealwire.drive.sessions import Sessions, early_data_of
from sealwire.drive.unclosed import HoldsDescriptor
from sealwire.errors import ConnectionClosed, Error, LimitReached, Truncated
from sealwire.limits import Limits
from sealwire.stcp import offload

# Read at once, however little may wait.
_LEAST_READ_BYTES: Final = 64 * 1024
# Reads per wake-up, so that one fast peer leaves turns to the others.
_READS: Final = 4
# Taken from the application and sealed at once: a message of 64 KiB with its frame, and more.
_SEAL_BYTES: Final = 128 * 1024
_LINGER_SECONDS: Final = 1.0
# A peer that takes nothing cannot keep a closed connection for longer.
_FLUSH_SECONDS: Final = 30.0
# How often a connection paused because others fill the ledger looks again.
_STALL_SECONDS: Final = 0.1

OnEarlyData = Callable[[stcp.Connection, bytes], None]


class Stream(Line, StreamFacts, HoldsDescriptor):
    """A connected TCP socket under an engine.  Owned by a reader and a writer.

    Attributes:
        opened: done when the handshake is; its exception is why it failed.
        gone: done when the socket is closed.
        reading: whether the socket is watched for what comes.
        on_turn: called after each turn and when the socket is closed; it must not raise.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        connection: stcp.Connection,
        limits: Limits,
        *,
        on_gone: Callable[[Stream], None] | None = None,
        sessions: Sessions | None = None,
        on_early_data: OnEarlyData | None = None,
    ) -> None:
        super().__init__()
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.loop = loop
        self.sock = sock
        self.peername = sock.getpeername()
        self.sockname = sock.getsockname()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.on_turn: Callable[[], None] | None = None
        self._connection = connection
        self._limits = limits
        self._on_gone = on_gone
        self._sessions = sessions
        self._on_early_data = on_early_data
        self._turns = turns_of(loop)
        # What is read at once may come on top of what may wait, so it is no more than half of that.
        most = max(_LEAST_READ_BYTES, limits.receive_queue_bytes // 2)
        self._send = offload.sender(connection)
        self._receive = offload.receiver(connection)
        self.prepare(self._turns.buffer[:most], offload.is_own(connection), limits.send_queue_bytes // 2)
        self._backlog: deque[memoryview | bytes] = deque()
        self._backlog_bytes = 0
        self._dirty = False  # written to in this turn of the loop
        self._broke: OSError | None = None
        self.reading = False
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._close_notify_wanted = False
        self._closing = False
        self._fin_sent = False
        self._eof_received = False
        self._hold(sock, f"TLS connection to {self.peername}")

    def start(self) -> None:
        """Begin to move bytes."""
        self._turn()

    @property
    def connection(self) -> stcp.Connection:
        return self._connection

    @property
    def backlog(self) -> int:
        """Bytes the application wrote that the network has not."""
        return self._backlog_bytes + self._connection.queued

    @property
    def low_water(self) -> int:
        """How much may wait when drain returns."""
        return self._limits.send_queue_bytes // 2

    @property
    def high_water(self) -> int:
        """How much may wait before writing raises."""
        return self._limits.send_queue_bytes

    @property
    def full(self) -> bool:
        """Whether as much was received as may wait for the application."""
        return self._connection.buffered >= self._limits.receive_queue_bytes

    @property
    def closing(self) -> bool:
        return self._closing or self.gone.done()

    async def changed(self) -> None:
        """Wait until something happens."""
        await self.arrival(0)

    # -- from the application

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Queue data.  Raises what ended the connection, and LimitReached if drain was not awaited."""
        self._may_write()
        self._connection.must_be_plain()
        for piece in pieces:
            if self.backlog >= self._limits.send_queue_bytes:
                reason = f"{self.backlog} bytes already wait for the peer: await drain() between writes"
                raise LimitReached("send_queue_bytes", reason)
            if len(piece):
                # A copy of what may change under our hands; bytes are only referred to.
                data = piece if isinstance(piece, bytes) else bytes(piece)
                # What is taken in parts must not be copied for each of them.
                self._backlog.append(data if len(data) <= _SEAL_BYTES else memoryview(data))
                self._backlog_bytes += len(data)
        self._written()

    def _written(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._turns.soon(self)

    def _send_written(self) -> None:
        if self._writing or self._backlog_bytes > _SEAL_BYTES or self.on_turn is not None:
            self._turn()
            return
        backlog = self._backlog
        taken = self._send(backlog[0] if len(backlog) == 1 else b"".join(backlog), self._write)
        if taken and backlog:
            backlog.clear()
            self._backlog_bytes = 0
        if not taken or self._connection.held or self._broke is not None or self._timer_at is None:
            self._turn()

    def _write(self, data: bytes) -> int:
        """Give the kernel bytes; how many it took.  What broke the socket is kept for the next turn."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._broke = error
            return len(data)

    def _queue_message(self, data: bytes | bytearray | memoryview) -> None:
        self._may_write()
        self._connection.write_message(data)
        self._written()

    def go_away(self) -> None:
        """Tell the peer that we mean to close before long."""
        self._may_write()
        self._connection.go_away()
        self._turn()

    def tell_going_away(self) -> None:
        """As :meth:`go_away`, where that can be said and anybody is there to hear it."""
        connection = self._connection
        if connection.state == "connected" and connection.message_mode and not self.closing:
            self.go_away()

    def _may_write(self) -> None:
        self._check_process()
        if self._connection.error is not None:
            raise self._connection.error
        if self._close_notify_wanted or self.closing or self._connection.state == "closed":
            raise ConnectionClosed("this side of the connection is closed")

    def update_keys(self, *, request_peer: bool) -> None:
        """New sending keys from the next record on."""
        self._check_process()
        self._connection.update_keys(request_peer=request_peer)
        self._turn()

    def took(self) -> None:
        """The application read something: reading from the network may go on."""
        if not self.reading and not self.gone.done():
            self._choose_reading()

    def end_writing(self) -> None:
        """Send close_notify behind what was written."""
        self._close_notify_wanted = True
        if not self.gone.done():
            self._turn()

    def close(self) -> None:
        """Close behind what was written, without waiting."""
        self._check_process()
        if self.closing:
            return
        self._closing = True
        if self._connection.state == "handshaking":
            self._drop_backlog()
        if not self._fin_sent:  # a connection that failed is on its way out already
            self._set_grace(_FLUSH_SECONDS)
        self.end_writing()

    def abort(self, error: Error | TimeoutError | None = None) -> None:
        """Close now; what was not sent is lost."""
        self._check_process()
        if not self.gone.done():
            self._connection.abort(error or ConnectionClosed("the connection was aborted"))
            self._close_socket()

    def fail(self, error: Error) -> None:
        """End the connection because of `error`; the peer is told its alert, unless it takes nothing."""
        self._check_process()
        if not self.gone.done():
            self._connection.abort(error)
            self._turn()

    # -- from the network

    def _read(self) -> None:
        connection, buffer = self._connection, self.read_buffer
        if connection.crowded and not self._wants_read():
            self._choose_reading()  # others filled the ledger since the last turn
            return
        now = time.monotonic()
        try:
            for _ in range(_READS):
                n = self.sock.recv_into(buffer)
                if not n:
                    self._eof_received = True
                    connection.receive_eof()
                    break
                if self._fin_sent or connection.error is not None:
                    continue  # lingering: read only so that the kernel need not reset
                self._receive(buffer[:n], now)
                if n < len(buffer) or not connection.want_read:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except Error:
            raise  # none is expected from the engine here
        except OSError as error:
            self._lost(error)
        finally:
            self._came()

    def _came(self) -> None:
        """After something was read: a turn, or what is left of one when it was only data."""
        if self._eof_received or self._dirty or self.on_turn is not None or not self._connection.flows():
            self._turn()
        elif self._waiters and self._connection.has(self._wanted):
            self._wake_waiters()

    def _lost(self, cause: OSError) -> None:
        """The TCP connection broke."""
        if self._connection.state != "closed":
            error = Truncated(f"the peer's byte stream broke: {cause.strerror or cause}")
            error.__cause__ = cause
            self._connection.abort(error)
        self._close_socket()

    def _wake(self) -> None:
        ownership.let_go(self._timer)
        self._timer = self._timer_at = None
        self._connection.wake(time.monotonic())
        self._turn()

    # -- a turn

    def _turn(self) -> None:
        if self.gone.done():
            return
        self._dirty = False
        self._hand_early_data_on()
        if not self._flush():
            return
        for event in self._connection.events():
            if isinstance(event, stcp.Connected):
                if not self.opened.done():
                    self.opened.set_result(None)
            elif isinstance(event, stcp.TicketReceived) and self._sessions is not None:
                self._sessions.keep(event.ticket, self._connection)
            elif isinstance(event, stcp.Closed) and event.error is not None and not self.opened.done():
                self.opened.set_exception(event.error)
                self.opened.exception()  # whoever waits sees it; without anyone it is no news
        self._choose_reading()
        self._set_timer()
        self._wake_waiters()
        if self.on_turn is not None:
            self.on_turn()

    def _hand_early_data_on(self) -> None:
        connection = self._connection
        if self._on_early_data is None or not connection.early_buffered:
            return
        try:
            for data in early_data_of(connection):
                self._on_early_data(connection, data)
        except Exception as error:
            message = "the on_early_data callback failed"
            self.loop.call_exception_handler({"message": message, "exception": error})

    def _flush(self) -> bool:
        """Seal and send as much as goes; False if the socket is gone after it."""
        connection = self._connection
        blocked = False
        while self._broke is None:
            self._seal()
            pending = connection.pending()
            if not pending:
                break
            try:
                n = self.sock.send(pending)
            except (BlockingIOError, InterruptedError):
                blocked = True
                break
            except OSError as error:
                self._broke = error
                break
            finally:
                pending.release()
            connection.sent(n)
        if self._broke is not None:
            self._lost(self._broke)
            return False
        if connection.unsealed and not blocked:
            self._look_again_later()  # no room in the ledger now
        if blocked != self._writing:
            self._writing = blocked
            self._watch()
        if blocked and connection.error is not None and self._grace is None:
            self._set_grace(_FLUSH_SECONDS)  # only the alert is left, and nobody takes it
        return blocked or self._finish()

    def _watch(self) -> None:
        self._turns.watch(self.sock.fileno(), self.reading, self._writing, self._readable, self._turn)

    def _seal(self) -> None:
        """Hand the application's bytes to the engine while it takes them."""
        connection = self._connection
        if connection.error is not None:
            self._drop_backlog()
            return
        while self._backlog and connection.state == "connected":
            if connection.queued >= min(_SEAL_BYTES, self._limits.send_queue_bytes):
                return
            piece = self._backlog[0]
            part = piece[:_SEAL_BYTES]
            try:
                connection.send(part)
            except LimitReached:
                self._look_again_later()  # no room in the ledger now
                return
            self._backlog_bytes -= len(part)
            if len(part) < len(piece):
                self._backlog[0] = piece[len(part) :]
            else:
                self._backlog.popleft()
        if self._close_notify_wanted and not self._backlog and not connection.unsealed:
            connection.close()

    def _drop_backlog(self) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0

    def _finish(self) -> bool:
        """After everything is sent: say so with FIN, and go when nothing is left to come."""
        connection = self._connection
        ended = connection.error is not None or (self._closing and connection.state in ("closing", "closed"))
        if not ended:
            return True
        if not self._fin_sent:
            self._fin_sent = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._eof_received = True  # already disconnected
            self._set_grace(_LINGER_SECONDS)
        if self._eof_received or (connection.peer_closed and connection.error is None):
            self._close_socket()
            return False
        return True

    def _wants_read(self) -> bool:
        return not self._eof_received and (self._fin_sent or self._connection.want_read)

    def _choose_reading(self) -> None:
        want = self._wants_read()
        if want != self.reading:
            self.reading = want
            self._watch()
        if not want and self._stalled():
            self._look_again_later()

    def _stalled(self) -> bool:
        """Whether others fill the ledger, so that no event of ours ends the pause."""
        connection = self._connection
        return (
            connection.state != "closed"
            and not connection.peer_closed
            and connection.buffered < self._limits.receive_queue_bytes
            and connection.queued < self._limits.send_queue_bytes
        )

    def _look_again_later(self) -> None:
        if self._stall is None:
            self._stall = self._call_later(_STALL_SECONDS, self._look_again)

    def _look_again(self) -> None:
        ownership.let_go(self._stall)
        self._stall = None
        self._turn()

    def _set_timer(self) -> None:
        deadline = self._connection.deadline()
        if deadline == self._timer_at:
            return
        _cancel(self._timer)
        self._timer = None
        self._timer_at = deadline
        if deadline is not None:
            self._timer = self._call_later(max(0.0, deadline - time.monotonic()), self._wake)

    def _set_grace(self, seconds: float) -> None:
        _cancel(self._grace)
        self._grace = self._call_later(seconds, self._close_socket)

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        handle = self.loop.call_later(seconds, callback)
        ownership.own(ownership.Kind.TIMER, handle)
        return handle

    def _close_socket(self) -> None:
        if self.gone.done():
            return
        for handle in (self._grace, self._timer, self._stall):
            _cancel(handle)
        self._grace = self._timer = self._stall = None
        self._turns.forget(self.sock.fileno())
        self.closed_socket()
        self.sock.close()
        self._let_go()
        if self._connection.state != "closed":
            self._connection.abort(ConnectionClosed("the connection was closed"))
        self._drop_backlog()
        if not self.opened.done():
            self.opened.set_exception(self._connection.error or ConnectionClosed("the connection was closed"))
            self.opened.exception()
        self.gone.set_result(None)
        self._wake_waiters()
        if self._on_gone is not None:
            self._on_gone(self)
        if self.on_turn is not None:
            self.on_turn()


def _cancel(handle: asyncio.TimerHandle | None) -> None:
    if handle is not None:
        handle.cancel()
        ownership.let_go(handle)
