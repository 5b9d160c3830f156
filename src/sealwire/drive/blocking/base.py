"""SecureSocket: what blocking sockets have in common, whatever is under them.

A call is a loop of steps until what it waits for is true: take what arrived, do what is due, send
what is to be sent; then wait for the socket or the engine's deadline.  Retransmissions and answers
therefore happen only inside calls, as blocking sockets have no other time.

One thread may send while another receives.  Every step holds a lock, since two threads in a sealer
could use one record number twice; waiting does not.  While one thread waits to receive, others
leave the socket's input to it, so that no message can come while its receiver sleeps.
"""

from __future__ import annotations

import builtins
import select
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TypeVar

from sealwire.drive.facts import Facts
from sealwire.drive.unclosed import HoldsDescriptor
from sealwire.errors import ConnectionClosed

# Closing waits this long for the network to take the last bytes.
_CLOSE_SECONDS: Final = 1.0

SelfT = TypeVar("SelfT", bound="SecureSocket")


class SecureSocket(Facts, HoldsDescriptor):
    """Base of :class:`StreamSocket` and :class:`DatagramSocket`; methods are those of :mod:`ssl`'s.

    Timeouts are the socket's: None waits, 0 raises BlockingIOError instead of waiting, a number of
    seconds raises TimeoutError after it.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._timeout = sock.gettimeout()
        sock.setblocking(False)
        self._sock = sock
        self._lock = threading.RLock()
        self._receiving = threading.Lock()
        self._receiver_waits = False
        self._shaken = False
        self._hold(sock, f"{type(self).__name__} {sock.getsockname()}")

    # -- what a kind of socket does

    @abstractmethod
    def _step(self, now: float, *, read: bool) -> None:
        """Take what arrived (if `read`), do what is due at `now`, send what goes."""

    @abstractmethod
    def _wants_write(self) -> bool:
        """Whether something waits for the socket to take it."""

    def _wants_read(self) -> bool:
        """Whether more should be taken from the socket."""
        return True

    @abstractmethod
    def _deadline(self) -> float | None:
        """When the engine must be stepped again."""

    @abstractmethod
    def _established(self) -> bool:
        """Whether the handshake is done.  Raises what ended the connection before that."""

    @abstractmethod
    def _say_goodbye(self) -> None:
        """Queue close_notify."""

    @abstractmethod
    def _abandon(self) -> None:
        """The socket is gone: end what is left in the engine, so that keys and memory go."""

    @abstractmethod
    def _new_keys(self, *, request_peer: bool) -> Callable[[], bool]:
        """Have the engine change its sending keys; what says whether they are in use."""

    @abstractmethod
    def _parted(self) -> bool:
        """Whether nothing more can come from the peer."""

    # -- waiting

    def _until(self, done: Callable[[], bool], timeout: float | None, *, receive: bool) -> None:
        """Step until `done`; with `receive` as the one thread that receives.

        Raises:
            TimeoutError: `timeout` seconds passed.
            BlockingIOError: it is not done and `timeout` is 0.
        """
        self._check_process()
        end = None if timeout is None else time.monotonic() + timeout
        if receive and not self._receiving.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("another thread is receiving")
        try:
            while True:
                with self._lock:
                    now = time.monotonic()
                    self._check_open()
                    self._step(now, read=receive or not self._receiver_waits)
                    if done():
                        return
                    wants_read = self._wants_read() and (receive or not self._receiver_waits)
                    wants_write = self._wants_write()
                    due = self._deadline()
                    self._receiver_waits = receive or self._receiver_waits
                if timeout == 0:
                    raise BlockingIOError("the operation would have to wait")
                if end is not None and now >= end:
                    raise TimeoutError("timed out")
                self._wait(
                    wants_read, wants_write, min((at for at in (end, due) if at is not None), default=None)
                )
        finally:
            if receive:
                self._receiver_waits = False
                self._receiving.release()

    def _wait(self, read: bool, write: bool, until: float | None) -> None:
        descriptor = self._sock.fileno()
        if descriptor < 0:
            return  # closed by another thread: the next step says so
        poll = select.poll()
        poll.register(descriptor, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
        # Rounded up: waking a little early would only make another step.
        milliseconds = None if until is None else max(0.0, until - time.monotonic()) * 1000 + 1
        poll.poll(milliseconds)

    def _check_open(self) -> None:
        if self._sock.fileno() < 0:
            raise ConnectionClosed("the socket is closed")

    # -- the socket's own

    def do_handshake(self) -> None:
        """Finish the handshake, if it is not done.

        Raises:
            HandshakeError, CertificateError, PeerAlert: no secure connection came to be.
            TimeoutError: it took too long.
        """
        self._check_process()
        if not self._shaken:
            self._until(self._established, self._timeout, receive=True)
            self._shaken = True

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Move to new sending keys, and return when they are in use; with `request_peer` ask the peer too.

        Over datagrams that takes a round trip, over streams none.  The peer's part of it happens inside
        later calls.

        Raises:
            TimeoutError, BlockingIOError: the peer has not acknowledged it yet; later calls see to it.
            KeysExhausted: epochs are nearly used up; the connection goes on as it is.
        """
        self.do_handshake()
        with self._lock:
            self._check_open()
            changed = self._new_keys(request_peer=request_peer)
        self._until(lambda: changed() and not self._wants_write(), self._timeout, receive=False)

    def settimeout(self, seconds: float | None) -> None:
        """How long calls wait; see the class."""
        if seconds is not None and seconds < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        self._timeout = None if flag else 0.0

    def fileno(self) -> int:
        """The descriptor, for select.  Readiness does not mean that :meth:`recv` has data."""
        return self._sock.fileno()

    def getblocking(self) -> bool:
        return self._timeout != 0

    @property
    def timeout(self) -> float | None:
        return self._timeout

    @property
    def family(self) -> int:
        return self._sock.family

    @property
    def type(self) -> int:
        return self._sock.type

    @property
    def proto(self) -> int:
        return self._sock.proto

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        """Of the TCP or UDP socket."""
        return self._sock.getsockopt(level, name, size) if size else self._sock.getsockopt(level, name)

    def setsockopt(self, level: int, name: int, value: int | bytes) -> None:
        """Of the TCP or UDP socket."""
        self._sock.setsockopt(level, name, value)

    def getpeername(self) -> Any:
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        return self._sock.getsockname()

    def unwrap(self) -> socket.socket:
        """Close the connection in order, wait for the peer's close_notify, return the plain socket.

        Raises:
            TimeoutError: the peer does not close.
            Truncated: it ended the stream without closing.
        """
        with self._lock:
            self._check_process()
            self._say_goodbye()
        self._until(self._parted, self._timeout, receive=True)
        old = self._sock
        self._let_go()
        self._abandon()
        plain = socket.socket(old.family, old.type, old.proto, fileno=old.detach())
        plain.settimeout(self._timeout)
        return plain

    def close(self) -> None:
        """Send close_notify and close.  Waits a second at most; in a forked child it sends nothing."""
        try:
            self._check_process()
        except OSError:
            self._end()
            return
        if self._sock.fileno() < 0:
            return
        try:
            with self._lock:
                self._say_goodbye()
            self._until(lambda: not self._wants_write(), _CLOSE_SECONDS, receive=False)
            self._linger(_CLOSE_SECONDS)
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in poll
        except OSError:
            pass  # the connection is over either way
        finally:
            self._end()

    def _end(self) -> None:
        self._sock.close()
        self._let_go()
        self._abandon()

    def _linger(self, seconds: float) -> None:
        """Wait for the peer to have read everything, where closing at once could destroy it."""

    def __enter__(self: SelfT) -> SelfT:
        return self

    def __exit__(
        self,
        kind: builtins.type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
