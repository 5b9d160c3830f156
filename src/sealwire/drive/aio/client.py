"""Opening a DatagramChannel: every address of a name in turn, until one shakes hands.

An address that answers and is refused (wrong certificate, other version) ends the search: the next
one is not asked to be more convenient.  An address where nobody answers costs its share of the
time.  A report that the port is unreachable can be forged, so alone it ends nothing; but where
another address is left it moves on at once, and when three transmissions in turn met such a report
and no answer, waiting longer is not worth it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sealwire import dtls
from sealwire.drive.addresses import AddressInfo, as_it_stands, resolve, show
from sealwire.drive.aio.channel import DatagramChannel
from sealwire.drive.aio.port import Batch, Peer, Port
from sealwire.drive.batches import Entry
from sealwire.drive.datagrams import TURN_BYTES, prepare
from sealwire.drive.sessions import Sessions
from sealwire.drive.udp import Address, Refusals, UdpSocket
from sealwire.dtls.connection import DEFAULT_MTU_BYTES
from sealwire.dtls.upkeep import DEFAULT_UPKEEP
from sealwire.errors import ConnectionClosed, Error
from sealwire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from sealwire.context import Config, Context
    from sealwire.dtls import SessionTicket


class _Single:
    """One connection in the shape of an endpoint."""

    def __init__(self, connection: dtls.Connection, peer: Address) -> None:
        self.connection = connection
        self._peer = peer

    def receive(self, batch: Batch, now: float) -> None:
        self.connection.receive_run([data for data, _ in batch], now)

    def transmit_trains(self, now: float) -> list[Entry]:
        return [(data, self._peer) for data in self.connection.transmit_trains(now, TURN_BYTES)]

    @property
    def more(self) -> bool:
        return self.connection.data_waits

    def deadline(self) -> float | None:
        return self.connection.deadline()

    def wake(self, now: float) -> None:
        self.connection.wake(now)

    def abandon(self) -> None:
        self.connection.abort()
        # Nothing comes out of it any more; whoever waited for that has the connection.
        self.connection.on_output = None


PeerT = TypeVar("PeerT", bound=Peer)
#: Makes what the application holds of a finished connection.
MakePeer = Callable[[dtls.Connection, Port], PeerT]


class _Attempt(Generic[PeerT]):
    """One address being tried; becomes the owner of the finished connection's port."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        connection: dtls.Connection,
        make: MakePeer[PeerT],
        sessions: Sessions,
        *,
        impatient: bool,
    ) -> None:
        self.done: asyncio.Future[PeerT] = loop.create_future()
        self._make = make
        self._sessions = sessions
        self._connection = connection
        self._peer: PeerT | None = None
        connection.address = peer = sock.getpeername()
        udp = UdpSocket(sock, connected=True)
        prepare(udp, connection, peer)
        self.refusals = Refusals(udp, connection.counters)
        self.refusals.move_on = impatient
        self.port = Port(loop, udp, _Single(connection, peer), self._after_turn)
        connection.on_output = lambda _: self.port.schedule()

    def give_up(self) -> None:
        """Its time is over."""
        if not self.done.done():
            self.done.set_exception(TimeoutError())

    def _after_turn(self, batch: Batch) -> None:
        for event in self._connection.events():
            if isinstance(event, dtls.Connected) and not self.done.done():
                self._peer = self._make(self._connection, self.port)
                self.done.set_result(self._peer)
            elif isinstance(event, dtls.Closed) and not self.done.done():
                self.done.set_exception(event.error or ConnectionClosed("the connection was closed"))
            elif isinstance(event, dtls.TicketReceived):
                self._sessions.keep(event.ticket, self._connection)
            if self._peer is not None:
                self._peer.happened(event)
        if self._peer is not None:
            if batch:
                self._peer.received()
            if self._connection.state == "closed" and not self.port.udp.blocked:
                self.port.close()
        elif not self.done.done():
            try:
                self.refusals.give_up_if_hopeless()
            except ConnectionRefusedError as error:
                self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to open a connection to, and how; the arguments of :func:`open_datagram_channel`."""

    host: str
    port: int
    config: Config
    server_hostname: str | None
    limits: Limits
    mtu: int
    timeout: float | None
    local_addr: tuple[str, int] | None
    family: int
    connection_id: bytes = b""
    upkeep: dtls.Upkeep = DEFAULT_UPKEEP
    #: Messages to send as early data.
    replayable: tuple[bytes, ...] = ()


def _offer(target: Target, sessions: Sessions, *, again: bool) -> tuple[SessionTicket | None, bool]:
    """A ticket to come back with, and whether to send early data under it.

    The data goes to one address of a name at most: it may have been acted on where nobody answered.
    """
    ticket = sessions.take()
    size = sum(map(len, target.replayable))
    return ticket, ticket is not None and bool(size) and not again and size <= ticket.max_early_data


async def open_peer(target: Target, make: MakePeer[PeerT]) -> PeerT:
    """Try the target's addresses; what `make` made of the first that shook hands."""
    loop = asyncio.get_running_loop()
    host, limits = target.host, target.limits
    seconds = limits.handshake_seconds if target.timeout is None else target.timeout
    end = time.monotonic() + seconds
    name = target.server_hostname or host
    sessions = Sessions(target.config, "DTLS 1.3", host, target.port, name)
    infos, bindable = await _addresses(loop, target, seconds)
    failure: OSError = OSError(f"{host} has no address")
    early = False
    for n, info in enumerate(infos):
        left = len(infos) - n
        now = time.monotonic()
        try:
            sock = _connected_socket(info, bindable)
        except OSError as error:
            failure = error
            continue
        ticket, offers = _offer(target, sessions, again=early)
        early = early or offers
        try:
            connection = dtls.Connection.client(
                target.config,
                now=now,
                server_name=name,
                limits=limits,
                mtu=target.mtu,
                connection_id=target.connection_id,
                upkeep=target.upkeep,
                ticket=ticket,
                early_data=offers,
            )
            if connection.max_replayable_bytes:
                connection.send_replayable(*target.replayable)
            attempt = _Attempt(loop, sock, connection, make, sessions, impatient=left > 1)
        except BaseException:
            sock.close()
            raise
        share = max(0.0, (end - now) / left)
        # As asyncio.timeout, for a future that is nobody else's.
        timer = loop.call_later(share, attempt.give_up)
        try:
            return await attempt.done
        except Error:
            # The peer answered: it is told why, and no other address is asked.
            await attempt.port.flush()
            attempt.port.close()
            raise
        except TimeoutError:
            attempt.port.close()
            where = show(info[4])
            reason = f"no answer from {where} within {round(share, 2):g} seconds{attempt.refusals.words}"
            failure = TimeoutError(reason)
        except OSError as error:
            attempt.port.close()
            failure = error
        except BaseException:
            attempt.port.close()
            raise
        finally:
            timer.cancel()
    raise failure


async def _addresses(
    loop: asyncio.AbstractEventLoop, target: Target, seconds: float
) -> tuple[list[AddressInfo], list[AddressInfo]]:
    """Where to go, and what to bind to; names have so many seconds to be found."""
    kind, family = socket.SOCK_DGRAM, target.family
    infos = as_it_stands(target.host, target.port, kind, family=family)
    if infos is not None and target.local_addr is None:
        return infos, []
    async with asyncio.timeout(seconds):
        infos = await resolve(loop, target.host, target.port, kind, family=family)
        if target.local_addr is None:
            return infos, []
        return infos, await resolve(loop, *target.local_addr, kind, family=family)


def _connected_socket(info: AddressInfo, local: list[AddressInfo]) -> socket.socket:
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        fitting = [item[4] for item in local if item[0] == family]
        if fitting:
            sock.bind(fitting[0])
        elif local:
            raise OSError(f"no local address fits {show(address)}")
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _channel(connection: dtls.Connection, port: Port) -> DatagramChannel:
    return DatagramChannel(connection, port, owns_port=True)


class Opening:
    """A channel being opened: await it, or use it in ``async with``."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._replayable: list[bytes] = []
        self._channel: DatagramChannel | None = None

    def send_replayable(self, *messages: bytes | bytearray | memoryview) -> None:
        """Send messages with the first flight, before the server has said anything (0-RTT).

        Call it before awaiting.  Somebody who records them can send them again, now or to other servers,
        and the server may act on them each time: send only what does no harm when it is done twice.

        They are sent if the context's session store has a ticket that allows so much, and are lost if the
        server does not accept them.  Nobody sends them again: look at the channel's ``early_data``.
        """
        self._replayable += [bytes(message) for message in messages]

    def __await__(self) -> Generator[Any, None, DatagramChannel]:
        target = self._target
        if self._replayable:
            target = replace(target, replayable=tuple(self._replayable))
        return open_peer(target, _channel).__await__()

    async def __aenter__(self) -> DatagramChannel:
        self._channel = await self
        return self._channel

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.aclose()


def open_datagram_channel(
    host: str,
    port: int,
    *,
    context: Context,
    server_hostname: str | None = None,
    limits: Limits | None = None,
    mtu: int = DEFAULT_MTU_BYTES,
    timeout: float | None = None,
    local_addr: tuple[str, int] | None = None,
    family: int = 0,
    connection_id: bytes = b"",
    upkeep: dtls.Upkeep = DEFAULT_UPKEEP,
) -> Opening:
    """Shake hands with a DTLS server; ``await`` gives a channel, ``async with`` closes it as well.

    What it returns has :meth:`Opening.send_replayable`, for early data.

    Args:
        host, port: where to; every address of the name is tried in turn.
        context: a client's :class:`sealwire.Context`.
        server_hostname: whom to expect; `host` by default.
        mtu: the largest UDP payload to send, in bytes.
        timeout: seconds for all addresses together, ``limits.handshake_seconds`` by default.
        connection_id: the id the server is to put into its records (RFC 9146), none by default; whether
            records to the server carry one is for the server to say.
        upkeep: what the connection sees to by itself while it lives.

    Raises, when awaited:
        TimeoutError, ConnectionRefusedError: nobody answered.
        HandshakeError, CertificateError, PeerAlert: the peer answered and no connection came to be.
        OSError: the name has no address, or no socket could be made.
    """
    return Opening(
        Target(
            host,
            port,
            context.config(),
            server_hostname,
            limits or DEFAULT_LIMITS,
            mtu,
            timeout,
            local_addr,
            family,
            connection_id,
            upkeep,
        )
    )
