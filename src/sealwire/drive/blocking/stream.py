"""StreamSocket: TLS 1.3 over a connected TCP socket, with the methods of ssl.SSLSocket."""

from __future__ import annotations

import io
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final

from sealwire import stcp
from sealwire.drive.blocking.base import SecureSocket
from sealwire.drive.facts import StreamFacts
from sealwire.drive.sessions import Sessions, early_data_of, send_replayable
from sealwire.errors import ConnectionClosed, Truncated
from sealwire.limits import Limits

if TYPE_CHECKING:
    from sealwire.context import Config, Context

_READ_BYTES: Final = 64 * 1024
# How often a call that waits for room to seal in looks again.
_STALL_SECONDS: Final = 0.05
# Sealed at once: four full records.
_SEAL_BYTES: Final = 64 * 1024

Writable = bytearray | memoryview
Readable = bytes | bytearray | memoryview


OnEarlyData = Callable[[stcp.Connection, bytes], None]


class StreamSocket(StreamFacts, SecureSocket):
    """A secured byte stream; made by :func:`sealwire.wrap_socket`."""

    def __init__(
        self,
        sock: socket.socket,
        config: Config,
        *,
        server_side: bool,
        server_hostname: str | None,
        limits: Limits,
        sessions: Sessions | None = None,
        replayable: bytes = b"",
        on_early_data: OnEarlyData | None = None,
        messages: bool | str = False,
        keepalive: stcp.Keepalive | None = None,
    ) -> None:
        super().__init__(sock)
        now = time.monotonic()
        if server_side:
            self._connection = stcp.Connection.server(
                config, now=now, limits=limits, messages=messages, keepalive=keepalive
            )
        else:
            sessions = sessions or Sessions.of_peer(config, "TLS 1.3", sock.getpeername(), server_hostname)
            ticket = sessions.take()
            self._connection = stcp.Connection.client(
                config,
                now=now,
                server_name=server_hostname,
                limits=limits,
                ticket=ticket,
                early_data=sessions.allows(ticket, replayable, in_messages=messages is not False),
                messages=messages,
                keepalive=keepalive,
            )
            send_replayable(self._connection, replayable, in_messages=messages is not False)
        self._sessions = sessions
        self._on_early_data = on_early_data
        self._eof = False

    @property
    def connection(self) -> stcp.Connection:
        return self._connection

    # -- steps

    def _step(self, now: float, *, read: bool) -> None:
        connection = self._connection
        while read and not self._eof and connection.want_read:
            # After our close_notify the peer's ends the TLS stream, and what is behind it is not ours.
            n = connection.record_bytes_missing if connection.state == "closing" else _READ_BYTES
            try:
                data = self._sock.recv(n)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._lost(error)
                break
            if data:
                connection.receive_data(data, now)
            else:
                self._eof = True
                connection.receive_eof()
        if self._on_early_data is not None and connection.early_buffered:
            for message in early_data_of(connection):
                self._on_early_data(connection, message)
        due = connection.deadline()
        if due is not None and due <= now:
            connection.wake(now)
        while pending := connection.pending():
            try:
                n = self._sock.send(pending)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._lost(error)
                connection.sent(len(pending))  # to nobody
                break
            connection.sent(n)
        for event in connection.events():  # of all else the state says enough
            if isinstance(event, stcp.TicketReceived) and self._sessions is not None:
                self._sessions.keep(event.ticket, connection)

    def _lost(self, cause: OSError) -> None:
        self._eof = True
        error = Truncated(f"the peer's byte stream broke: {cause.strerror or cause}")
        error.__cause__ = cause
        self._connection.abort(error)

    def _wants_write(self) -> bool:
        # What is not sealed yet waits for room, not for the network.
        return self._connection.queued > self._connection.unsealed

    def _wants_read(self) -> bool:
        return self._connection.want_read and not self._eof

    def _deadline(self) -> float | None:
        due = self._connection.deadline()
        if self._connection.unsealed and not self._wants_write():
            # Room comes when another thread reads, which wakes nobody.
            soon = time.monotonic() + _STALL_SECONDS
            return soon if due is None else min(soon, due)
        return due

    def _established(self) -> bool:
        self._raise_error()
        return self._connection.state != "handshaking"

    def _raise_error(self) -> None:
        if self._connection.error is not None:
            raise self._connection.error

    # -- data

    def send(self, data: Readable) -> int:
        """Send a part of `data`, at most 64 KiB; how much.

        Returns when the kernel has it or the timeout is over.
        What the kernel has not taken by then goes with later calls, which wait for it first.

        Raises:
            TimeoutError, BlockingIOError: what was sent before is still here; nothing was taken.
        """
        view = memoryview(data).cast("B")[:_SEAL_BYTES]
        self.do_handshake()
        self._connection.must_be_plain()
        # What an earlier call could not send comes first.
        self._until(self._flushed, self._timeout, receive=False)
        with self._lock:
            self._connection.send(view)
        self._flush_taken()
        return len(view)

    def _flush_taken(self) -> None:
        """Wait for the kernel, but not longer than calls may: what is ours now must not be given again."""
        try:
            self._until(self._flushed, self._timeout, receive=False)
        except (BlockingIOError, TimeoutError):
            if self._connection.error is not None:
                raise

    def _flushed(self) -> bool:
        self._raise_error()
        return self._connection.queued == 0

    def sendall(self, data: Readable) -> None:
        """Send all of `data`, and return when the kernel has it.

        Raises:
            TimeoutError, BlockingIOError: how much of it was taken is not known, as with any socket.
        """
        view = memoryview(data).cast("B")
        while view:
            view = view[self.send(view) :]
        if self._timeout:
            self._until(self._flushed, self._timeout, receive=False)

    def recv(self, n: int = _READ_BYTES) -> bytes:
        """Up to `n` bytes; b"" when the peer has closed.

        Raises:
            Truncated: the stream ended without close_notify.
        """
        if n < 0:
            raise ValueError("negative buffersize in recv")
        if n == 0:
            return b""
        self.do_handshake()
        self._connection.must_be_plain()
        taken: list[bytes] = []

        def take() -> bool:
            if self._readable():
                taken.append(self._connection.read(n))
            return bool(taken)

        self._until(take, self._timeout, receive=True)
        return taken[0]

    def read_early(self, n: int = -1) -> bytes:
        """A server's: early data the client sent, unless ``on_early_data`` took it.

        This process accepts a flight once; other servers of that client's may have seen it as well.
        """
        self.do_handshake()
        with self._lock:
            return self._connection.read_early(n)

    def read_early_messages(self) -> list[bytes]:
        """As :meth:`read_early`, in message mode."""
        self.do_handshake()
        with self._lock:
            return self._connection.read_early_messages()

    def _readable(self) -> bool:
        connection = self._connection
        if connection.buffered:
            return True
        self._raise_error()
        return connection.peer_closed or connection.state == "closed"

    def write_message(self, data: Readable) -> None:
        """Send one message; b"" is one as well.  Returns when the kernel has it or the timeout is over.

        What the kernel has not taken by then goes with later calls, which wait for it first.

        Raises:
            TimeoutError, BlockingIOError: the message before this one is not sent; nothing was taken.
            LimitReached: it is longer than ``Limits.message_bytes``, or too much waits; nothing was taken.
            ConfigurationError: the connection is not in message mode.
        """
        self.do_handshake()
        self._until(self._flushed, self._timeout, receive=False)
        with self._lock:
            self._connection.write_message(data)
        self._flush_taken()

    def read_message(self) -> bytes:
        """The next message; b"" is one as well.

        Raises:
            ConnectionClosed: the peer closed, or this side did; what came before is given first.
            ConfigurationError: the connection is not in message mode.
        """
        self.do_handshake()
        taken: list[bytes] = []

        def take() -> bool:
            message = self._connection.read_message()
            if message is not None:
                taken.append(message)
            elif self._connection.peer_closed or self._connection.state == "closed":
                raise ConnectionClosed(
                    "the peer closed" if self._connection.peer_closed else "the connection is closed"
                )
            return bool(taken)

        self._until(take, self._timeout, receive=True)
        return taken[0]

    def messages(self) -> Iterator[bytes]:
        """Messages as they come, until the peer closes between two; errors as :meth:`read_message`."""
        while True:
            try:
                yield self.read_message()
            except ConnectionClosed as closed:
                if closed is self._connection.error:
                    raise
                return

    def go_away(self) -> None:
        """In message mode, tell the peer that we mean to close before long; messages still go and come."""
        self.do_handshake()
        with self._lock:
            self._connection.go_away()
        try:
            self._until(self._flushed, 0, receive=False)
        except BlockingIOError:
            pass  # a later call sends it

    def recv_into(self, buffer: Writable, nbytes: int = 0) -> int:
        """As :meth:`recv`, into `buffer`; how many bytes."""
        view = memoryview(buffer).cast("B")
        data = self.recv(min(nbytes, len(view)) if nbytes else len(view))
        view[: len(data)] = data
        return len(data)

    def pending(self) -> int:
        """Bytes :meth:`recv` can give without waiting; in message mode those of whole messages."""
        return self._connection.buffered

    def makefile(self, mode: str = "r", buffering: int = -1, **text: Any) -> Any:
        """A file over this socket, as :meth:`socket.socket.makefile`.  Closing it leaves the socket open."""
        raw = _Raw(self, readable="r" in mode, writable="w" in mode)
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        if size == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return raw
        buffered: Any
        if raw.readable() and raw.writable():
            buffered = io.BufferedRWPair(raw, raw, size)
        elif raw.writable():
            buffered = io.BufferedWriter(raw, size)
        else:
            buffered = io.BufferedReader(raw, size)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, **text)

    def shutdown(self, how: int) -> None:
        """``SHUT_WR`` sends close_notify and leaves receiving open; ``SHUT_RDWR`` does no more."""
        if how == socket.SHUT_RD:
            return
        with self._lock:
            self._say_goodbye()
        self._until(lambda: not self._wants_write(), self._timeout, receive=False)

    # -- the rest of what ssl.SSLSocket has

    def read(self, n: int = _READ_BYTES, buffer: Writable | None = None) -> bytes | int:
        """As :meth:`recv`; with `buffer` as :meth:`recv_into`."""
        return self.recv(n) if buffer is None else self.recv_into(buffer, n)

    def write(self, data: Readable) -> int:
        """As :meth:`send`."""
        return self.send(data)

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:
        """Send `file` from `offset`, `count` bytes or all; how many.  The file ends up behind them."""
        if self._timeout == 0:
            raise ValueError("non-blocking sockets are not supported")
        if offset:
            file.seek(offset)
        sent = 0
        while count is None or sent < count:
            data = file.read(_SEAL_BYTES if count is None else min(_SEAL_BYTES, count - sent))
            if not data:
                break
            self.sendall(data)
            sent += len(data)
        return sent

    def compression(self) -> str | None:
        """None: there is none in TLS 1.3."""
        return None

    # -- ends

    def hang_up(self) -> None:
        """End the connection at once, from any thread: close_notify, if it can go now, and the end of TCP.

        A call that waits in another thread raises :class:`sealwire.ConnectionClosed`.
        """
        try:
            with self._lock:
                self._say_goodbye()
                self._step(time.monotonic(), read=False)
                self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is over already

    def _new_keys(self, *, request_peer: bool) -> Callable[[], bool]:
        self._connection.update_keys(request_peer=request_peer)
        return lambda: True

    def _say_goodbye(self) -> None:
        self._connection.close()

    def _abandon(self) -> None:
        self._connection.release()

    def _parted(self) -> bool:
        self._raise_error()
        return self._connection.peer_closed and self._connection.queued == 0

    def _linger(self, seconds: float) -> None:
        # Closing a socket with unread bytes resets the connection, which can destroy what the peer
        # has not read yet.
        self._sock.shutdown(socket.SHUT_WR)
        end = time.monotonic() + seconds
        while not self._eof and not (self._connection.peer_closed and self._connection.error is None):
            left = end - time.monotonic()
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            if left <= 0 or not poll.poll(left * 1000):
                return
            try:
                self._eof = not self._sock.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                continue


class _Raw(io.RawIOBase):
    """The unbuffered file of makefile."""

    def __init__(self, sock: StreamSocket, *, readable: bool, writable: bool) -> None:
        self._secure = sock
        self._readable = readable
        self._writable = writable

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._writable

    def readinto(self, buffer: Any) -> int | None:
        try:
            return self._secure.recv_into(buffer)
        except BlockingIOError:
            return None

    def write(self, data: Any) -> int | None:
        try:
            return self._secure.send(data)
        except BlockingIOError:
            return None


class ListeningSocket:
    """A listening TCP socket whose :meth:`accept` gives secured connections."""

    def __init__(
        self,
        sock: socket.socket,
        context: Context,
        *,
        limits: Limits,
        do_handshake_on_connect: bool,
        on_early_data: OnEarlyData | None = None,
        messages: bool | str = False,
        keepalive: stcp.Keepalive | None = None,
    ) -> None:
        self._sock = sock
        self._context = context
        self._limits = limits
        self._do_handshake_on_connect = do_handshake_on_connect
        self._on_early_data = on_early_data
        self._messages = messages
        self._keepalive = keepalive

    def accept(self) -> tuple[StreamSocket, Any]:
        """The next connection and its address; errors of one handshake are raised here.

        With ``do_handshake_on_connect`` false a stranger cannot hold up or fail this call: the
        handshake then happens in the first send or recv of the connection.
        """
        sock, address = self._sock.accept()
        try:
            sock.settimeout(self._sock.gettimeout())
            secure = StreamSocket(
                sock,
                self._context.config(),
                server_side=True,
                server_hostname=None,
                limits=self._limits,
                on_early_data=self._on_early_data,
                messages=self._messages,
                keepalive=self._keepalive,
            )
        except BaseException:
            sock.close()
            raise
        if self._do_handshake_on_connect:
            try:
                secure.do_handshake()
            except BaseException:
                secure._end()
                raise
        return secure, address

    def fileno(self) -> int:
        return self._sock.fileno()

    def getsockname(self) -> Any:
        return self._sock.getsockname()

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def gettimeout(self) -> float | None:
        return self._sock.gettimeout()

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> ListeningSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
