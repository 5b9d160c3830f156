"""Sans-IO engines on real sockets, with nothing of the project's drivers between.

Each turn of a loop: give the socket what the engine has to send, wait a moment, give the engine
what came, tell it the time.  Every loop has an end in seconds, so a peer that hangs fails a test.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from sealwire import dtls, stcp
from sealwire.limits import Limits

#: Patience with a peer on loopback.  Busy machines are slow; hanging ones are found all the same.
PATIENCE_SECONDS = 30.0
_TURN_SECONDS = 0.02

_opened: list[socket.socket] = []
_watched: list[Callable[[], None]] = []


def close_all() -> None:
    """Close every socket of the loops below; a fixture does so after each test, however it went."""
    while _opened:
        _opened.pop().close()
    _watched.clear()


def watch(check: Callable[[], None]) -> None:
    """Call `check` in every turn until the test ends, so that a peer that died is not waited for."""
    _watched.append(check)


class GaveUp(AssertionError):
    """The peer did not do what was waited for."""


def listen() -> socket.socket:
    """A listening TCP socket on loopback with a port of the system's choice."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE_SECONDS)
    return listener


def port_of(sock: socket.socket) -> int:
    port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port


def free_udp_port() -> int:
    """A UDP port that was free a moment ago, for programs that cannot choose one themselves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return port_of(sock)


class Stream:
    """A TLS connection of ours on a connected TCP socket."""

    def __init__(self, sock: socket.socket, connection: stcp.Connection) -> None:
        sock.setblocking(False)
        _opened.append(sock)
        self.sock = sock
        self.connection = connection
        self.received = bytearray()
        self.events: list[Any] = []
        self._unsent = bytearray()
        self._at_end = False

    @property
    def drained(self) -> bool:
        """Everything given to `send` is with the kernel."""
        return not self._unsent and self.connection.queued == 0

    def turn(self) -> None:
        self._unsent += self.connection.data_to_send()
        readable, writable, _ = select.select(
            [] if self._at_end else [self.sock], [self.sock] if self._unsent else [], [], _TURN_SECONDS
        )
        if readable:
            try:
                data = self.sock.recv(65_536)
            except ConnectionError:
                data = b""
            if data:
                if self.connection.error is None:
                    self.connection.receive_data(data)
            else:
                self._at_end = True
                self.connection.receive_eof()
        if writable:
            try:
                del self._unsent[: self.sock.send(self._unsent)]
            except ConnectionError:
                self._unsent.clear()
        deadline = self.connection.deadline()
        if deadline is not None and time.monotonic() >= deadline:
            self.connection.wake(time.monotonic())
        self._unsent += self.connection.data_to_send()
        if self.connection.buffered:
            self.received += self.connection.read()
        self.events += self.connection.events()

    def run_until(self, predicate: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not predicate():
            if time.monotonic() > end:
                raise GaveUp(f"{what}: {self.connection.state}, {self.connection.error}")
            self.turn()

    def handshake(self) -> None:
        """Until connected; raises what ended the connection otherwise."""
        self.run_until(lambda: self.connection.state != "handshaking", "handshake")
        if self.connection.error is not None:
            self.flush()
            raise self.connection.error

    def flush(self) -> None:
        self._unsent += self.connection.data_to_send()
        self.run_until(lambda: self.drained, "sending")

    def send(self, data: bytes) -> None:
        """Send it all, reading meanwhile, so that neither side's buffers can block the other."""
        view = memoryview(data)
        while view:
            self.connection.send(view[:16_384])
            view = view[16_384:]
            self.run_until(lambda: self.connection.queued < 65_536 and len(self._unsent) < 65_536, "sending")
        self.flush()

    def receive(self, n: int) -> bytes:
        """Exactly `n` bytes."""
        self.run_until(lambda: len(self.received) >= n or self._ended, f"{n} bytes")
        assert len(self.received) >= n, f"only {len(self.received)} of {n} bytes came"
        data = bytes(self.received[:n])
        del self.received[:n]
        return data

    @property
    def _ended(self) -> bool:
        return self.connection.peer_closed or self.connection.state == "closed"

    def close(self) -> None:
        """close_notify both ways."""
        self.connection.close()
        self.run_until(lambda: self.connection.state == "closed" and self.drained, "closing")
        self.sock.close()


def _roomy(sock: socket.socket) -> socket.socket:
    """As much receive buffer as the system gives: a lost datagram of data would be a failed test."""
    _opened.append(sock)
    for option in (getattr(socket, "SO_RCVBUFFORCE", 33), socket.SO_RCVBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, 8 * 1024 * 1024)
            break
        except OSError:
            continue
    sock.setblocking(False)
    return sock


class _Datagrams:
    """What the two ends of a DTLS test have in common."""

    sock: socket.socket

    def turn(self) -> None:
        raise NotImplementedError

    def run_until(self, predicate: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not predicate():
            if time.monotonic() > end:
                raise GaveUp(f"{what}: {self.describe()}")
            for check in _watched:
                check()
            self.turn()

    def describe(self) -> str:
        raise NotImplementedError

    def _wait(self, deadline: float | None) -> bool:
        wait = _TURN_SECONDS
        if deadline is not None:
            wait = min(wait, max(0.0, deadline - time.monotonic()))
        return bool(select.select([self.sock], [], [], wait)[0])

    def _drain(self) -> list[tuple[bytes, Any]]:
        batch: list[tuple[bytes, Any]] = []
        while len(batch) < 64:
            try:
                batch.append(self.sock.recvfrom(65_535))
            except (BlockingIOError, ConnectionRefusedError):
                break
        return batch


class DatagramClient(_Datagrams):
    """A DTLS client of ours on a connected UDP socket."""

    def __init__(self, config: Any, port: int, *, server_name: str = "localhost", **options: Any) -> None:
        self._port = port
        self.move()
        self.connection = dtls.Connection.client(
            config, now=time.monotonic(), server_name=server_name, **options
        )
        self.received: list[bytes] = []
        self.events: list[Any] = []

    def describe(self) -> str:
        return f"{self.connection.state}, {self.connection.error}, {self.connection.counters.snapshot()}"

    def move(self) -> None:
        """From another port from now on; the old socket stays open, so that the port stays taken."""
        self.sock = _roomy(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sock.connect(("127.0.0.1", self._port))

    def turn(self) -> None:
        connection = self.connection
        self._transmit()
        if self._wait(connection.deadline()):
            connection.receive_run([datagram for datagram, _ in self._drain()], time.monotonic())
        deadline = connection.deadline()
        if deadline is not None and time.monotonic() >= deadline:
            connection.wake(time.monotonic())
        self._transmit()
        self.events += connection.events()
        self.received += connection.messages()

    def _transmit(self) -> None:
        for datagram in self.connection.transmit(time.monotonic()):
            try:
                self.sock.send(datagram)
            except ConnectionRefusedError:
                pass  # an earlier datagram found no peer yet; timers repeat it

    def handshake(self) -> None:
        self.run_until(lambda: self.connection.state != "handshaking", "handshake")
        if self.connection.error is not None:
            raise self.connection.error

    def close(self) -> None:
        if self.connection.state != "closed":
            self.connection.close(time.monotonic())
            self._transmit()
        # The socket stays open until the test ends: to some peers a port that is closed is an error.


class DatagramServer(_Datagrams):
    """An endpoint of ours on a UDP socket; the tests have one peer at a time."""

    def __init__(self, config: Any, *, limits: Limits | None = None, **options: Any) -> None:
        self.sock = _roomy(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sock.bind(("127.0.0.1", 0))
        self.port = port_of(self.sock)
        self.endpoint = dtls.Endpoint(lambda: config, limits=limits or Limits(), **options)
        self.peers: list[dtls.Connection] = []
        self.received: list[bytes] = []
        self.events: list[tuple[dtls.Connection, Any]] = []

    def describe(self) -> str:
        return f"{self.endpoint.counters.snapshot()}, events {[event for _, event in self.events]}"

    @property
    def peer(self) -> dtls.Connection:
        """The connection of the last peer that finished a handshake."""
        return self.peers[-1]

    def turn(self) -> None:
        endpoint = self.endpoint
        self._transmit()
        if self._wait(endpoint.deadline()):
            endpoint.receive(self._drain(), time.monotonic())
        deadline = endpoint.deadline()
        if deadline is not None and time.monotonic() >= deadline:
            endpoint.wake(time.monotonic())
        self._transmit()
        for connection, event in endpoint.events():
            self.events.append((connection, event))
            if isinstance(event, dtls.Connected):
                self.peers.append(connection)
        for connection in self.peers:
            self.received += connection.messages()

    def _transmit(self) -> None:
        for datagram, address in self.endpoint.transmit(time.monotonic()):
            try:
                self.sock.sendto(datagram, address)
            except ConnectionRefusedError:
                pass  # the peer has gone; its own timers and ours deal with it

    def accept(self) -> dtls.Connection:
        """Until a peer has finished its handshake."""
        known = len(self.peers)
        self.run_until(lambda: len(self.peers) > known or self._failed() is not None, "a peer")
        if len(self.peers) == known:
            failure = self._failed()
            assert failure is not None
            raise failure
        return self.peer

    def _failed(self) -> BaseException | None:
        for _, event in self.events:
            if isinstance(event, dtls.Closed) and event.error is not None:
                return event.error
        return None

    def close(self) -> None:
        self.endpoint.close(time.monotonic())
        self._transmit()
        self.sock.close()
