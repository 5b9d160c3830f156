"""create_datagram_endpoint: DTLS for frameworks written against asyncio's DatagramProtocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sealwire import dtls
from sealwire.drive.aio.client import Target, open_peer
from sealwire.drive.aio.listener import (
    Admit,
    Listener,
    OnAddressChange,
    OnEarlyData,
    OnOther,
    Service,
    listening_sockets,
)
from sealwire.drive.aio.port import Port
from sealwire.drive.aio.watermarks import Watermarks
from sealwire.drive.facts import Facts
from sealwire.drive.udp import Address
from sealwire.dtls.connection import DEFAULT_MTU_BYTES
from sealwire.dtls.endpoint import DEFAULT_CID_BYTES
from sealwire.dtls.upkeep import DEFAULT_UPKEEP
from sealwire.errors import ConnectionClosed, LimitReached
from sealwire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from sealwire.context import Context

ProtocolT = TypeVar("ProtocolT", bound=asyncio.DatagramProtocol)


class _Peer(Facts):
    """A finished connection; its messages go to the protocol."""

    def __init__(
        self,
        connection: dtls.Connection,
        port: Port,
        protocol: asyncio.DatagramProtocol,
        on_closed: Callable[[OSError | None], None] | None,
    ) -> None:
        super().__init__()
        self.port = port
        assert isinstance(connection.address, tuple)
        self.address: Address = connection.address
        self._connection = connection
        self._protocol = protocol
        self._on_closed = on_closed

    @property
    def connection(self) -> dtls.Connection:
        return self._connection

    def received(self) -> None:
        for message in self._connection.messages():
            try:
                self._protocol.datagram_received(message, self.address)
            except Exception as error:
                # As asyncio: reported, and the transport lives on.
                context = {
                    "message": "datagram_received failed",
                    "exception": error,
                    "protocol": self._protocol,
                }
                asyncio.get_running_loop().call_exception_handler(context)

    def happened(self, event: dtls.Event) -> None:
        if isinstance(event, dtls.PeerClosed):
            self.received()
            # A protocol has no way to say "no more from this peer" but to end the connection.
            self._connection.close(time.monotonic())
            self.port.schedule()
        elif isinstance(event, dtls.AddressChanged):
            self.address = event.new
        elif isinstance(event, dtls.Closed) and self._on_closed is not None:
            self._on_closed(event.error)


class DatagramTransport(Facts, asyncio.DatagramTransport):
    """A transport whose datagrams are DTLS messages.

    With a remote address it has one peer, and `version`, `cipher`, `getpeercert` and the others are
    that peer's.  With a local address it serves: `sendto` needs the address of a peer whose
    handshake is done, and `peer(address)` has its facts.
    """

    def __init__(self, protocol: asyncio.DatagramProtocol, limits: Limits) -> None:
        Facts.__init__(self)
        asyncio.DatagramTransport.__init__(self)
        self._protocol = protocol
        self._limits = limits
        self._peers: dict[Address, _Peer] = {}
        self._only: _Peer | None = None
        self._port: Port | None = None
        self._listener: Listener[_Peer] | None = None
        self._closing = False
        self._marks = Watermarks(limits.send_queue_bytes // 2)
        # Whose queues are above the high mark; writing is paused while there are any.
        self._full: dict[dtls.Connection, None] = {}

    @property
    def connection(self) -> dtls.Connection:
        if self._only is None:
            raise ConnectionClosed("a serving transport has many connections: ask peer(address)")
        return self._only.connection

    def peer(self, address: Address) -> Facts:
        """The facts of a peer's connection.  Raises ConnectionClosed if there is none."""
        found = self._only if self._listener is None else self._listener.peers.get(address)
        if found is None:
            raise ConnectionClosed(f"there is no DTLS connection with {address!r}")
        return found

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a message.  What cannot be sent is told to the protocol's error_received."""
        self._check_process()
        found = self._only
        if self._listener is not None and addr is not None:
            found = self._listener.peers.get(addr)
        if found is None:
            self._protocol.error_received(ConnectionClosed(f"there is no DTLS connection with {addr!r}"))
            return
        connection, port = found.connection, found.port
        try:
            try:
                connection.send(data)
            except LimitReached:
                port.turn()
                connection.send(data)
        except OSError as error:
            self._protocol.error_received(error)
        port.schedule()
        self._look_at_queue(connection)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``socket``, ``sockname``; with one peer ``peername``, ``cipher`` and ``peercert`` as well."""
        sock = self._port.udp.sock if self._port is not None and not self._closing else None
        if name == "socket":
            return default if sock is None else sock
        if name == "sockname":
            return default if sock is None else sock.getsockname()
        if self._only is not None:
            if name == "peername":
                return self._only.address
            if name == "cipher":
                return self.cipher()
            if name == "peercert":
                return self.getpeercert()
        return default

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Send close_notify to every peer and close the socket; connection_lost(None) follows."""
        self._check_process()
        if self._closing:
            return
        if self._listener is not None:
            self._listener.close_peers()
        elif self._only is not None:
            self._only.connection.close(time.monotonic())
            self._only.port.turn()
        self._end(None)

    def abort(self) -> None:
        """Close the socket without a word."""
        self._check_process()
        self._end(None)

    def _end(self, error: OSError | None) -> None:
        if self._closing:
            return
        self._closing = True
        assert self._port is not None
        self._port.close()
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)

    # -- backpressure

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Call pause_writing when more than `high` bytes wait for a peer, resume_writing at `low` or less.

        `high` is half of ``Limits.send_queue_bytes`` unless given, and `low` a quarter of `high`.  A serving
        transport counts each peer by itself and is paused while any has too much.

        Raises:
            ValueError: `low` is negative or above `high`.
        """
        self._marks.set(high, low)
        for found in self._reached():
            self._look_at_queue(found.connection)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high limit; see :meth:`set_write_buffer_limits`."""
        return self._marks.low, self._marks.high

    def get_write_buffer_size(self) -> int:
        """Bytes given to :meth:`sendto`, for all peers, that wait for a turn of the socket; see channels'."""
        return sum(found.connection.send_queue_bytes for found in self._reached())

    def _reached(self) -> list[_Peer]:
        if self._listener is not None:
            return list(self._listener.peers.values())
        return [] if self._only is None else [self._only]

    def _look_at_queue(self, connection: dtls.Connection) -> None:
        if connection.send_queue_bytes > self._marks.high and connection not in self._full:
            first = not self._full
            self._full[connection] = None
            if first:
                self._protocol.pause_writing()

    def _turned(self) -> None:
        if self._full:
            low = self._marks.low
            self._full = {one: None for one in self._full if one.send_queue_bytes > low}
            if not self._full:
                self._protocol.resume_writing()

    # -- making one

    def _client_peer(self, connection: dtls.Connection, port: Port) -> _Peer:
        self._port = port
        self._only = _Peer(connection, port, self._protocol, self._end)
        port.after_turns(self._turned)
        # Before anything that came behind the handshake is handed over.
        self._protocol.connection_made(self)
        return self._only

    def _server_peer(self, connection: dtls.Connection, port: Port) -> _Peer:
        return _Peer(connection, port, self._protocol, None)


async def create_datagram_endpoint(
    protocol_factory: Callable[[], ProtocolT],
    local_addr: tuple[str | None, int] | None = None,
    remote_addr: tuple[str, int] | None = None,
    *,
    context: Context,
    server_hostname: str | None = None,
    limits: Limits | None = None,
    mtu: int = DEFAULT_MTU_BYTES,
    timeout: float | None = None,
    admission: Admit | None = None,
    on_other: OnOther | None = None,
    family: int = 0,
    reuse_port: bool = False,
    connection_id: bytes = b"",
    cid_bytes: int | None = DEFAULT_CID_BYTES,
    on_address_change: OnAddressChange | None = None,
    enhanced_path_check: bool = False,
    upkeep: dtls.Upkeep = DEFAULT_UPKEEP,
    send_replayable: Sequence[bytes] = (),
    on_early_data: OnEarlyData | None = None,
) -> tuple[DatagramTransport, ProtocolT]:
    """A protocol over DTLS, as :meth:`loop.create_datagram_endpoint` makes one over UDP.

    With `remote_addr` it is a client: this returns when the handshake is done, and connection_made
    was called by then.  Without, it serves on `local_addr`: one protocol for all peers, told apart
    by the address datagram_received gets.

    `send_replayable` are messages to send as early data, as by :meth:`Opening.send_replayable`.

    Args and errors: as :func:`open_datagram_channel` and :func:`start_datagram_server`; where a host
    has several addresses, a serving protocol gets the first.
    """
    loop = asyncio.get_running_loop()
    limits = limits or DEFAULT_LIMITS
    config = context.config()
    protocol = protocol_factory()
    transport = DatagramTransport(protocol, limits)
    if remote_addr is not None:
        local = None if local_addr is None else (local_addr[0] or "", local_addr[1])
        target = Target(
            *remote_addr,
            config,
            server_hostname,
            limits,
            mtu,
            timeout,
            local,
            family,
            connection_id,
            upkeep,
            tuple(send_replayable),
        )
        await open_peer(target, transport._client_peer)
        return transport, protocol
    if local_addr is None:
        raise ValueError("remote_addr, or local_addr to serve on, must be given")
    first, *others = await listening_sockets(*local_addr, family=family, reuse_port=reuse_port)
    for sock in others:
        sock.close()
    service = Service(
        context,
        limits,
        mtu,
        admission,
        on_other,
        cid_bytes,
        on_address_change,
        enhanced_path_check,
        upkeep,
        on_early_data,
    )
    listener = Listener(loop, first, service, transport._server_peer, transport._turned)
    transport._listener = listener
    transport._port = listener.port
    protocol.connection_made(transport)
    return transport, protocol
