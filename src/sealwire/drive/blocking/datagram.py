"""DatagramSocket: DTLS 1.3 over a UDP socket, for one peer.

A client's socket is connected.  A server's is bound: strangers go through the cookie exchange of
an endpoint, and the first whose handshake is done becomes the peer; the socket is then connected
to it, so that the kernel turns everybody else away (bound to every address, or where the peer may
move because it has a connection id, it drops them itself).
"""

from __future__ import annotations

import socket
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sealwire import dtls
from sealwire.drive.blocking.base import SecureSocket
from sealwire.drive.datagrams import TURN_BYTES, DatagramFacts, T, prepare, prepare_serving
from sealwire.drive.doors import Doorkeeper
from sealwire.drive.sessions import Sessions
from sealwire.drive.steering import Steering, split
from sealwire.drive.udp import Entry, Refusals, UdpSocket
from sealwire.errors import ConnectionClosed, LimitReached
from sealwire.limits import Limits

if TYPE_CHECKING:
    from sealwire.context import Config, Context

_MESSAGE_BYTES: Final = 65_535
# Batches taken in one step, so that a flood leaves time for what is due.
_BATCHES: Final = 16

Writable = bytearray | memoryview
Readable = bytes | bytearray | memoryview


OnEarlyData = Callable[[dtls.Connection, bytes], None]


class DatagramSocket(SecureSocket, DatagramFacts):
    """Secured messages to and from one peer; made by :func:`sealwire.wrap_socket`."""

    def __init__(self, sock: socket.socket, *, connected: bool) -> None:
        super().__init__(sock)
        self._udp = UdpSocket(sock, connected=connected)
        self._ready: deque[bytes] = deque()
        self._peer_closed = False

    @property
    @abstractmethod
    def connection(self) -> dtls.Connection:
        """The engine."""

    @property
    def _udp_socket(self) -> UdpSocket:
        return self._udp

    def _act(self, action: Callable[[dtls.Connection], T]) -> T:
        self.do_handshake()
        with self._lock:
            self._check_open()
            result = action(self.connection)
        try:
            self._until(self._flushed, self._timeout, receive=False)
        except BlockingIOError:
            pass  # a later call sends it
        return result

    # -- data

    def send(self, data: Readable) -> int:
        """Send one message; its length.  It may be lost on the way.

        Raises:
            ValueError: it is longer than `max_message_bytes`.
        """
        self.send_many((data,))
        return len(data)

    def send_many(self, messages: Sequence[Readable]) -> None:
        """Send messages together, each whole in a datagram of its own; see :meth:`send`.

        Raises:
            ValueError: one is longer than `max_message_bytes`.
            LimitReached: all of them together are more than ``Limits.send_queue_bytes``.
            TimeoutError, BlockingIOError: the kernel took too few in time; none of these was taken.
        """
        self.do_handshake()
        while True:
            with self._lock:
                self._check_open()
                empty = self.connection.send_queue_bytes == 0
                try:
                    self.connection.send_many(messages)
                    break
                except LimitReached:
                    if empty:
                        raise  # they would not fit later either
            self._until(self._flushed, self._timeout, receive=False)
        try:
            self._until(self._flushed, self._timeout, receive=False)
        except BlockingIOError:
            pass  # taken; a later call sends it

    def sendall(self, data: Readable) -> None:
        """As :meth:`send`: a message is sent whole or not at all."""
        self.send(data)

    def _flushed(self) -> bool:
        return not self._udp.blocked

    @property
    def max_message_bytes(self) -> int:
        """The longest message :meth:`send` takes."""
        return self.connection.max_message_bytes

    def recv(self, n: int = _MESSAGE_BYTES) -> bytes:
        """The next message.

        Raises:
            ConnectionClosed: the peer has closed.
            ValueError: the message is longer than `n`; it is kept, whole.
        """
        self.do_handshake()
        taken: list[bytes] = []

        def take() -> bool:
            if not self._receivable():
                return False
            if len(self._ready[0]) > n:
                raise ValueError(f"the next message has {len(self._ready[0])} bytes, more than {n}")
            taken.append(self._ready.popleft())
            return True

        self._until(take, self._timeout, receive=True)
        return taken[0]

    def receive_many(self) -> list[bytes]:
        """All messages that have come, at least one; see :meth:`recv`."""
        self.do_handshake()
        self._until(self._receivable, self._timeout, receive=True)
        with self._lock:
            messages = list(self._ready)
            self._ready.clear()
        return messages

    def batches(self) -> Iterator[list[bytes]]:
        """Messages as they come in batches, until the peer closes; see :meth:`receive_many`."""
        while True:
            try:
                messages = self.receive_many()
            except ConnectionClosed as closed:
                if closed is self.connection.error:
                    raise
                return
            if messages:  # another thread may have taken them
                yield messages

    def _receivable(self) -> bool:
        if not self._ready:
            self._ready.extend(self.connection.lend_messages())
        if self._ready:
            return True
        if self.connection.error is not None:
            raise self.connection.error
        if self._peer_closed:
            raise ConnectionClosed("the peer closed the connection")
        if self.connection.state == "closed":
            raise ConnectionClosed("the connection is closed")
        return False

    def early_messages(self) -> list[bytes]:
        """A server's: early data the client sent, unless ``on_early_data`` took it.

        This process accepts a flight once; other servers of that client's may have seen it as well.
        """
        self.do_handshake()
        with self._lock:
            return self.connection.early_messages()

    def recv_into(self, buffer: Writable, nbytes: int = 0) -> int:
        """As :meth:`recv`, into `buffer`; the message's length."""
        view = memoryview(buffer).cast("B")
        data = self.recv(min(nbytes, len(view)) if nbytes else len(view))
        view[: len(data)] = data
        return len(data)

    def __iter__(self) -> Iterator[bytes]:
        """Messages until the peer closes."""
        while True:
            try:
                yield self.recv()
            except ConnectionClosed as closed:
                if closed is self.connection.error:
                    raise
                return

    def pending(self) -> int:
        """Length of the message :meth:`recv` can give without waiting; 0 if there is none."""
        with self._lock:
            if not self._ready and self._sock.fileno() >= 0:
                self._ready.extend(self.connection.lend_messages())
            return len(self._ready[0]) if self._ready else 0

    def unwrap(self) -> socket.socket:
        plain = super().unwrap()
        UdpSocket.release(plain)
        return plain

    # -- steps

    def _step(self, now: float, *, read: bool) -> None:
        for _ in range(_BATCHES if read else 0):
            batch = self._udp.receive()
            if not batch:
                break
            self._take(batch, now)
        due = self._deadline()
        if due is not None and due <= now:
            self._wake(now)
        if self._udp.blocked:
            self._udp.send(())
        more = not self._udp.blocked
        while more:
            refused = self._udp.refusals
            self._udp.send(self._give(now))
            if self._udp.refusals > refused and not self._udp.blocked:
                # RFC 9147 section 4.4 [9147-4.4-11]: what was too big goes out anew, cut smaller, at once.
                self._udp.send(self._give(now))
            more = self._more() and not self._udp.blocked
        self._look_at_events()

    @abstractmethod
    def _take(self, batch: Sequence[Entry], now: float) -> None:
        """Hand what arrived to the engine."""

    @abstractmethod
    def _give(self, now: float) -> Sequence[Entry]:
        """What the engine wants sent."""

    @abstractmethod
    def _more(self) -> bool:
        """Whether the engine had to leave something."""

    @abstractmethod
    def _wake(self, now: float) -> None:
        """Tell the engine the time."""

    @abstractmethod
    def _look_at_events(self) -> None:
        """Follow what the engine reports."""

    def _happened(self, event: dtls.Event) -> None:
        if isinstance(event, dtls.PeerClosed):
            self._peer_closed = True
        self._look_at_size(event)

    def shutdown(self, how: int) -> None:
        """``SHUT_WR`` sends close_notify and leaves receiving open; ``SHUT_RDWR`` does no more."""
        if how != socket.SHUT_RD:
            self.close_write()

    def _new_keys(self, *, request_peer: bool) -> Callable[[], bool]:
        connection = self.connection
        connection.update_keys(time.monotonic(), request_peer=request_peer)
        epoch = connection.next_sending_epoch

        def changed() -> bool:
            if connection.sending_epoch < epoch and connection.state in ("closing", "closed"):
                raise connection.error or ConnectionClosed("the connection is closed")
            return connection.sending_epoch >= epoch

        return changed

    def _wants_write(self) -> bool:
        return self._udp.blocked

    def _parted(self) -> bool:
        # close_notify is not acknowledged and may be lost: there is nothing to wait for.
        return not self._udp.blocked


class ClientDatagramSocket(DatagramSocket):
    """The client's end."""

    def __init__(
        self,
        sock: socket.socket,
        config: Config,
        *,
        server_hostname: str | None,
        limits: Limits,
        mtu: int,
        connection_id: bytes,
        sessions: Sessions | None = None,
        upkeep: dtls.Upkeep,
        replayable: bytes = b"",
    ) -> None:
        super().__init__(sock, connected=True)
        self._sessions = sessions or Sessions.of_peer(config, "DTLS 1.3", sock.getpeername(), server_hostname)
        ticket = self._sessions.take()
        self._connection = dtls.Connection.client(
            config,
            now=time.monotonic(),
            server_name=server_hostname,
            limits=limits,
            mtu=mtu,
            connection_id=connection_id,
            upkeep=upkeep,
            ticket=ticket,
            early_data=self._sessions.allows(ticket, replayable),
        )
        if self._connection.max_replayable_bytes:
            self._connection.send_replayable(replayable)
        self._connection.address = sock.getpeername()
        prepare(self._udp, self._connection, sock.getpeername())
        self.refusals = Refusals(self._udp, self._connection.counters)

    @property
    def connection(self) -> dtls.Connection:
        return self._connection

    def _take(self, batch: Sequence[Entry], now: float) -> None:
        self._connection.receive_run([data for data, _ in batch], now)

    def _give(self, now: float) -> Sequence[Entry]:
        return [(data, ()) for data in self._connection.transmit_trains(now, TURN_BYTES)]

    def _more(self) -> bool:
        return self._connection.data_waits

    def _wake(self, now: float) -> None:
        self._connection.wake(now)

    def _deadline(self) -> float | None:
        return self._connection.deadline()

    def _look_at_events(self) -> None:
        for event in self._connection.events():
            if isinstance(event, dtls.TicketReceived):
                self._sessions.keep(event.ticket, self._connection)
            self._happened(event)

    def _established(self) -> bool:
        connection = self._connection
        if connection.state == "handshaking":
            self.refusals.give_up_if_hopeless()
            return False
        if connection.error is not None and not connection.was_connected:
            raise connection.error
        return True

    def _say_goodbye(self) -> None:
        self._connection.close(time.monotonic())

    def _abandon(self) -> None:
        self._connection.abort()


class ServerDatagramSocket(DatagramSocket, Doorkeeper):
    """The server's end, before and after it has found its one peer."""

    def __init__(
        self,
        sock: socket.socket,
        context: Context,
        *,
        limits: Limits,
        mtu: int,
        cid_bytes: int | None,
        upkeep: dtls.Upkeep,
        on_early_data: OnEarlyData | None = None,
    ) -> None:
        super().__init__(sock, connected=False)
        self._endpoint = dtls.Endpoint(
            context.config, limits=limits, mtu=mtu, cid_bytes=cid_bytes, upkeep=upkeep
        )
        prepare_serving(self._udp, self._endpoint, upkeep)
        self._peer: dtls.Connection | None = None
        self._on_early_data = on_early_data
        self._steering = Steering(None, "one socket has all datagrams: there is one peer at most")

    @property
    def connection(self) -> dtls.Connection:
        if self._peer is None:
            raise ConnectionClosed("no peer has finished a handshake yet")
        return self._peer

    def _take(self, batch: Sequence[Entry], now: float) -> None:
        if self._peer is not None:
            # What strangers sent before the socket was connected, or always if it cannot be.
            peer = self._peer
            batch = [
                item for item in batch if item[1] == peer.address or self._endpoint.find(item[0]) is peer
            ]
        self._endpoint.receive(batch, now)

    def _give(self, now: float) -> Sequence[Entry]:
        return self._endpoint.transmit_trains(now)

    def _more(self) -> bool:
        return self._endpoint.more

    def _wake(self, now: float) -> None:
        self._endpoint.wake(now)

    def _deadline(self) -> float | None:
        return self._endpoint.deadline()

    def _look_at_events(self) -> None:
        for connection, event in self._endpoint.events():
            if isinstance(event, dtls.EarlyDataArrived) and self._on_early_data is not None:
                for data in connection.early_messages():
                    self._on_early_data(connection, data)
            if isinstance(event, dtls.Connected) and self._peer is None:
                self._choose(connection)
            if connection is self._peer:
                self._happened(event)

    def _choose(self, connection: dtls.Connection) -> None:
        assert isinstance(connection.address, tuple)
        self._peer = connection
        self._endpoint.closing = True
        for other in list(self._endpoint):
            if other is not connection:
                other.abort()
        # A peer with an id of ours may come from elsewhere one day.
        if connection.connection_ids.ours or not self._udp.connect(connection.address):
            # So strangers can send still; what they can make goes to a socket that nobody reads.
            self._steering = split(self._sock)
            if self._steering.handshakes is not None:
                self._steering.handshakes.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)

    def _guarded(self) -> tuple[dtls.Endpoint, ...]:
        return (self._endpoint,)

    @property
    def steering(self) -> str:
        """Whether strangers' datagrams reach this socket now, in a sentence."""
        return self._steering.why

    def _established(self) -> bool:
        return self._peer is not None

    def getpeername(self) -> Any:
        return self.connection.address

    def _say_goodbye(self) -> None:
        self._endpoint.close(time.monotonic())

    def _abandon(self) -> None:
        self._endpoint.abandon()
        if self._steering.handshakes is not None:
            self._steering.handshakes.close()
