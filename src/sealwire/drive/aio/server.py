"""DatagramServer: a handler task for each DTLS peer whose address and handshake are proved."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

from sealwire import dtls, ownership
from sealwire.drive.addresses import Hosts, show
from sealwire.drive.aio.channel import DatagramChannel
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
from sealwire.drive.doors import Doorkeeper
from sealwire.drive.facts import ProcessBound, is_end
from sealwire.drive.letters import Letters
from sealwire.drive.machine import limits_at_start
from sealwire.drive.reports import costliest, report
from sealwire.drive.seat import Seat
from sealwire.drive.succession import Succession
from sealwire.drive.udp import Address
from sealwire.dtls.connection import DEFAULT_MTU_BYTES
from sealwire.dtls.endpoint import DEFAULT_CID_BYTES
from sealwire.dtls.upkeep import DEFAULT_UPKEEP
from sealwire.errors import ConfigurationError
from sealwire.limits import Ledger, Limits
from sealwire.telemetry import ConnectionCounters, EndpointCounters, PeerReport

if TYPE_CHECKING:
    from sealwire.context import Context

Handler = Callable[[DatagramChannel], Awaitable[None]]

_SHUTDOWN_SECONDS: Final = 5.0
_STEP_SECONDS: Final = 0.05


async def start_datagram_server(
    handler: Handler,
    host: Hosts = None,
    port: int = 0,
    *,
    context: Context,
    limits: Limits | None = None,
    mtu: int = DEFAULT_MTU_BYTES,
    admission: Admit | None = None,
    on_other: OnOther | None = None,
    family: int = 0,
    reuse_port: bool = False,
    cid_bytes: int | None = DEFAULT_CID_BYTES,
    on_address_change: OnAddressChange | None = None,
    enhanced_path_check: bool = False,
    upkeep: dtls.Upkeep = DEFAULT_UPKEEP,
    on_early_data: OnEarlyData | None = None,
    steer: bool = True,
    seat: Seat | None = None,
) -> DatagramServer:
    """Serve DTLS; `handler(channel)` runs as a task for each peer and its channel closes with it.

    Args:
        host: an address or name, several, or None for every interface.
        port: 0 lets the kernel choose; see `DatagramServer.sockets`.
        context: a server's :class:`sealwire.Context`; certificates loaded into it later are used
            for new connections.
        limits: for the peers of each socket.
        mtu: the largest UDP payload to send, in bytes.
        admission: asked for each attempt whose address is proved, before anything is kept for it.
        on_other: gets ``(datagram, address)`` for other protocols on this port and for peers that
            offer no DTLS 1.3; answer with `DatagramServer.sendto`.
        cid_bytes: length of the connection ids given to clients that know them (RFC 9146): such a client is
            found again after its address changed.  0 to use only the ids clients want, None for none.
        on_address_change: asked with ``(connection, address)`` whether a peer that cannot be asked itself
            (RFC 9853) may move to the address its newest record came from.  None never moves it.
        enhanced_path_check: ask a peer at its old address before its new one.
        upkeep: what each connection sees to by itself while it lives.
        on_early_data: called with ``(connection, data)`` for each message of early data, before the client
            has proved to be there: its answer is ``connection.send_before_finished``.  Without it early
            data waits in `DatagramChannel.early_messages`.
        steer: give handshakes a socket of their own on the same port, so that a flood of them does not fill
            the buffer of connected peers (docs/flood.md); what came of it is in `DatagramServer.steering`.
        seat: what this process has of a port that several share (docs/workers.md); it says where to listen.

    Raises:
        ConfigurationError: the context cannot serve (no certificate), or a seat does not go with other
            arguments.
        OSError: the address cannot be bound.
    """
    context.config()  # a context that cannot serve is an error before anything is bound
    if seat is not None:
        if (host, port, family, reuse_port) != (None, 0, 0, False) or on_other is not None:
            raise ConfigurationError("a worker listens where its group does, and to no other protocol")
        context.share_ticket_keys(seat.tickets)
        sockets = [division.data for division in seat.places]
    else:
        sockets = await listening_sockets(host, port, family=family, reuse_port=reuse_port)
    service = Service(
        context,
        limits_at_start(limits),
        mtu,
        admission,
        on_other,
        cid_bytes,
        on_address_change,
        enhanced_path_check,
        upkeep,
        on_early_data,
        steer,
        seat,
    )
    try:
        server = DatagramServer(asyncio.get_running_loop(), sockets, handler, service)
        if seat is not None and seat.succession is not None:
            server.inherit(seat.succession)
        return server
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


class DatagramServer(ProcessBound, Doorkeeper):
    """A server as :func:`start_datagram_server` returns it, with the methods of asyncio.Server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: list[socket.socket],
        handler: Handler,
        service: Service,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._handler = handler
        self._limits = service.limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()
        self._listeners = [
            Listener(loop, sock, service, self._connected, self._look_finished, ordinal)
            for ordinal, sock in enumerate(sockets)
        ]
        self._letters = () if service.seat is None else service.seat.letters
        for letters, listener in zip(self._letters, self._listeners, strict=False):
            loop.add_reader(letters.inbox.fileno(), self._take, letters, listener)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The bound sockets; empty once closed."""
        return () if self._closed.is_set() else tuple(listener.sock for listener in self._listeners)

    @property
    def connections(self) -> int:
        """Connections now, handshakes included."""
        return sum(listener.endpoint.connections for listener in self._listeners)

    @property
    def endpoints(self) -> tuple[dtls.Endpoint, ...]:
        """The engine of each socket, with its counters and ledger."""
        return tuple(listener.endpoint for listener in self._listeners)

    def statistics(self) -> dict[str, int]:
        """The counters of all sockets together, by name."""
        return self.endpoint_counters().snapshot()

    # -- for whoever watches (sealwire.monitor)

    transport = "dtls"

    @property
    def limits(self) -> Limits:
        """The limits, which each socket has for itself."""
        return self._limits

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """What the peers of each socket hold."""
        return tuple(listener.endpoint.ledger for listener in self._listeners)

    def _guarded(self) -> tuple[dtls.Endpoint, ...]:
        return self.endpoints

    @property
    def steering(self) -> tuple[str, ...]:
        """For each socket whether handshakes have one of their own beside it, in a sentence."""
        return tuple(listener.steering.why for listener in self._listeners)

    @property
    def handshaking(self) -> int:
        """Connections whose handshake is not finished."""
        return sum(listener.endpoint.handshaking for listener in self._listeners)

    def endpoint_counters(self) -> EndpointCounters:
        """The counters of all sockets together."""
        total = EndpointCounters()
        for listener in self._listeners:
            total.add(listener.counters())
        return total

    def connection_counters(self) -> ConnectionCounters:
        """What all connections have counted, those that are gone as well."""
        total = ConnectionCounters()
        for listener in self._listeners:
            total.add(listener.endpoint.totals())
        return total

    def top_peers(self, n: int = 10, by: str = "held_bytes") -> list[PeerReport]:
        """The `n` connections that cost most; `by` is one of :data:`sealwire.drive.reports.COSTS`."""
        now = time.monotonic()
        return costliest(
            (
                report(connection, show(connection.address), now)
                for listener in self._listeners
                for connection in listener.endpoint
            ),
            n,
            by,
        )

    def is_serving(self) -> bool:
        return not self._closing.is_set()

    def sendto(self, datagram: bytes, address: Address) -> None:
        """Send a datagram as it is, unprotected, from the socket that has the address's family."""
        self._check_process()
        for listener in self._listeners:
            if len(listener.sock.getsockname()) == len(address):
                listener.port.udp.send(((datagram, address),))
                listener.port.schedule()
                return
        raise ValueError(f"no socket of this server reaches {address!r}")

    async def serve_forever(self) -> None:
        """Serve until cancelled or closed; then close in order."""
        self._check_process()
        try:
            await self._closing.wait()
        finally:
            await self.shutdown()

    # -- peers

    def _connected(self, connection: dtls.Connection, port: Port) -> DatagramChannel:
        channel = DatagramChannel(connection, port, owns_port=False)
        task = self._loop.create_task(self._serve(channel))
        ownership.own(ownership.Kind.TASK, task)
        self._tasks.add(task)
        task.add_done_callback(self._served)
        return channel

    async def _serve(self, channel: DatagramChannel) -> None:
        try:
            await self._handler(channel)
        except Exception as error:
            if not is_end(error, channel):
                message = "the handler of a DTLS connection failed"
                self._loop.call_exception_handler({"message": message, "exception": error})
        finally:
            await channel.aclose()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        ownership.let_go(task)
        self._look_finished()

    @staticmethod
    def _take(letters: Letters, listener: Listener[DatagramChannel]) -> None:
        items = letters.take()
        if items:
            listener.take(items)

    # -- ends

    def close(self) -> None:
        """Admit nobody any more.  Connections live on, and the sockets as long as they do."""
        self._check_process()
        self._closing.set()
        for listener in self._listeners:
            listener.refuse_new()
        self._look_finished()

    def inherit(self, succession: Succession) -> None:
        """Go on with the connections the process before in this slot left; their handlers begin anew."""
        for listener in self._listeners:
            listener.inherit(succession)

    async def leave(self, succession: Succession, seconds: float) -> None:
        """Move all connections to the next process of this slot.

        Nobody new is admitted; handshakes and handshake messages under way have `seconds` to end.  Then
        nothing is read any more, so that what comes waits for that process, and handlers answer what they
        have.
        """
        self.close()
        end = self._loop.time() + seconds
        while self._loop.time() < end and not all(
            one.asleep or (one.state is dtls.State.CONNECTED and one.movable)
            for endpoint in self.endpoints
            for one in endpoint
        ):
            await asyncio.sleep(_STEP_SECONDS)
        for listener in self._listeners:
            listener.port.stop_reading()
        await asyncio.sleep(_STEP_SECONDS)
        if not self._closed.is_set():
            for listener in self._listeners:
                listener.leave(succession)

    async def wait_closed(self) -> None:
        """Wait until the server was closed and its last connection and handler are done."""
        await self._closed.wait()

    async def shutdown(self, seconds: float = _SHUTDOWN_SECONDS) -> None:
        """Close everything: every peer gets close_notify; handlers still there after `seconds`
        are cancelled."""
        self.close()
        for listener in self._listeners:
            listener.close_peers()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=seconds)
        finally:
            for task in self._tasks:
                task.cancel()
            self._close_sockets()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _look_finished(self) -> None:
        if self._closing.is_set() and not self._tasks and not self.connections:
            self._close_sockets()

    def _close_sockets(self) -> None:
        for letters in self._letters:
            self._loop.remove_reader(letters.inbox.fileno())
        for listener in self._listeners:
            listener.port.close()
        self._closed.set()

    async def __aenter__(self) -> DatagramServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()
