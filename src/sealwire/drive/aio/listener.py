"""One listening UDP socket: an endpoint on a port, and a peer object for each finished connection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from sealwire import dtls
from sealwire.drive.addresses import Hosts, bind, resolve_for_listening
from sealwire.drive.aio.port import Batch, Peer, Port
from sealwire.drive.datagrams import prepare_serving
from sealwire.drive.handshakes import Handshakes
from sealwire.drive.letters import Item
from sealwire.drive.seat import Seat
from sealwire.drive.steering import Steering, dropped, split
from sealwire.drive.succession import Succession
from sealwire.drive.udp import Address, UdpSocket
from sealwire.dtls.connection import DEFAULT_MTU_BYTES
from sealwire.dtls.endpoint import DEFAULT_CID_BYTES
from sealwire.dtls.upkeep import DEFAULT_UPKEEP
from sealwire.errors import Discard
from sealwire.limits import Limits
from sealwire.telemetry import EndpointCounters

if TYPE_CHECKING:
    from sealwire.context import Context

Admit = Callable[[dtls.Attempt], dtls.Admission]
OnAddressChange = Callable[[dtls.Connection, Address], bool]
OnEarlyData = Callable[[dtls.Connection, bytes], None]
OnOther = Callable[[bytes, Address], None]
PeerT = TypeVar("PeerT", bound=Peer)


@dataclass(frozen=True, slots=True)
class Service:
    """How to serve datagrams; the arguments of :func:`start_datagram_server`."""

    context: Context
    limits: Limits
    mtu: int = DEFAULT_MTU_BYTES
    admission: Admit | None = None
    on_other: OnOther | None = None
    cid_bytes: int | None = DEFAULT_CID_BYTES
    on_address_change: OnAddressChange | None = None
    enhanced_path_check: bool = False
    upkeep: dtls.Upkeep = DEFAULT_UPKEEP
    on_early_data: OnEarlyData | None = None
    steer: bool = True
    seat: Seat | None = None


async def listening_sockets(host: Hosts, port: int, *, family: int, reuse_port: bool) -> list[socket.socket]:
    """Bound UDP sockets for `host` and `port`."""
    loop = asyncio.get_running_loop()
    infos = await resolve_for_listening(loop, host, port, socket.SOCK_DGRAM, family=family)
    return bind(infos, reuse_port=reuse_port)


class Listener(Generic[PeerT]):
    """Serves one socket.

    Args:
        make: makes what the application holds of a finished connection.
        on_turn: called at the end of every turn.
        ordinal: which of the server's sockets this is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        service: Service,
        make: Callable[[dtls.Connection, Port], PeerT],
        on_turn: Callable[[], None],
        ordinal: int = 0,
    ) -> None:
        self._loop = loop
        self._service = service
        self._make = make
        self._on_turn = on_turn
        #: Finished connections by the address of their peer.
        self.peers: dict[Address, PeerT] = {}
        self._peer_of: dict[dtls.Connection, PeerT] = {}
        self.sock = sock
        self.endpoint = dtls.Endpoint(
            service.context.config,
            limits=service.limits,
            mtu=service.mtu,
            admission=self._admit,
            on_other=None if service.on_other is None else self._other,
            cid_bytes=service.cid_bytes,
            on_address_change=None if service.on_address_change is None else self._may_move,
            enhanced_path_check=service.enhanced_path_check,
            upkeep=service.upkeep,
            slot=None if service.seat is None else service.seat.slot,
        )
        self._seat: Final = service.seat
        self._ordinal: Final = ordinal
        udp = UdpSocket(sock, connected=False)
        prepare_serving(udp, self.endpoint, service.upkeep)
        #: Whether handshakes have a socket of their own.
        self.steering = _steer(sock, service) if self._seat is None else self._seat.steering(ordinal)
        front = self.steering.handshakes
        self.port = Port(
            loop,
            udp,
            self.endpoint,
            self._after_turn,
            None if front is None else Handshakes(front, self.endpoint),
        )
        self.endpoint.on_path_refusal = self.port.schedule
        # A worker's sockets are older than it is.
        self._dropped_before = self._dropped()

    def counters(self) -> EndpointCounters:
        """What the endpoint counted, and what only its sockets know."""
        total = EndpointCounters()
        total.add(self.endpoint.counters)
        total.datagrams_unsendable += self.port.udp.dropped
        data, hellos = self._dropped()
        total.datagrams_overflowed += data - self._dropped_before[0]
        total.hellos_overflowed += hellos - self._dropped_before[1]
        return total

    def _dropped(self) -> tuple[int, int]:
        front = self.port.front
        return dropped(self.sock), 0 if front is None else dropped(front.sock)

    def take(self, letters: Sequence[Item]) -> None:
        """Take what other workers received for this one."""
        self.endpoint.receive(letters, time.monotonic())
        # What is not for this one either is passed on to nobody.
        self.endpoint.counters.discard(Discard.UNKNOWN_CID, len(self.endpoint.foreign.take()))
        self.port.turn(letters)

    def _pass_on(self) -> None:
        assert self._seat is not None
        strays: dict[int, list[Item]] = {}
        for worker, datagram, address in self.endpoint.foreign.take():
            strays.setdefault(worker, []).append((bytes(datagram), address))
        for worker, items in strays.items():
            lost = self._seat.letters[self._ordinal].post(worker, items)
            self.endpoint.counters.datagrams_forwarded += len(items) - lost
            self.endpoint.counters.datagrams_unforwarded += lost

    def _after_turn(self, batch: Batch) -> None:
        if self._seat is not None:
            self._pass_on()
        for connection, event in self.endpoint.events():
            if isinstance(event, dtls.Connected):
                peer = self._make(connection, self.port)
                self._peer_of[connection] = self.peers[_address(connection)] = peer
            elif isinstance(event, dtls.EarlyDataArrived):
                self._early_data(connection)
            known = self._peer_of.get(connection)
            if known is None:
                continue
            if isinstance(event, dtls.AddressChanged):
                if self.peers.get(event.old) is known:
                    del self.peers[event.old]
                # Two events of one turn may both be here: where it is now counts.
                self.peers[_address(connection)] = known
            known.happened(event)
            if isinstance(event, dtls.Closed):
                del self._peer_of[connection]
                if self.peers.get(_address(connection)) is known:
                    del self.peers[_address(connection)]
        for address in {address for _, address in batch}:
            if address in self.peers:
                self.peers[address].received()
        for connection in self.endpoint.received_elsewhere():
            if connection in self._peer_of:
                self._peer_of[connection].received()
        self._on_turn()

    # The application's callbacks run between strangers' bytes and the engine: their exceptions are
    # reported, and change nothing for the other peers of a batch.

    def _admit(self, attempt: dtls.Attempt) -> dtls.Admission:
        if self._service.admission is None:
            return dtls.Admission.ACCEPT
        try:
            return self._service.admission(attempt)
        except Exception as error:
            self._report("the admission callback failed", error)
            return dtls.Admission.DROP

    def _other(self, datagram: bytes | bytearray | memoryview, address: Address) -> None:
        assert self._service.on_other is not None
        try:
            self._service.on_other(bytes(datagram), address)
        except Exception as error:
            self._report("the on_other callback failed", error)

    def _may_move(self, connection: dtls.Connection, address: Address) -> bool:
        assert self._service.on_address_change is not None
        try:
            return self._service.on_address_change(connection, address)
        except Exception as error:
            self._report("the on_address_change callback failed", error)
            return False

    def _early_data(self, connection: dtls.Connection) -> None:
        if self._service.on_early_data is None:
            return  # it waits for the handler
        for data in connection.early_messages():
            try:
                self._service.on_early_data(connection, data)
            except Exception as error:
                self._report("the on_early_data callback failed", error)

    def _report(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})

    def refuse_new(self) -> None:
        """Admit nobody any more."""
        self.endpoint.closing = True
        if self._seat is not None:
            # Who knocks now waits in the kernel for the next process of this slot.
            self.port.leave_front()

    def leave(self, succession: Succession) -> None:
        """Move the connections to the next process of this slot, after :meth:`Port.stop_reading`."""
        self.port.turn()
        self.endpoint.counters.associations_left += succession.leave(
            self._ordinal, self.endpoint, time.monotonic()
        )
        self.port.turn()

    def inherit(self, succession: Succession) -> None:
        """Go on with what the process before in this slot left."""
        taken, refused = succession.take(self._ordinal, self.endpoint)
        self.endpoint.counters.associations_taken += taken
        self.endpoint.counters.associations_refused += refused
        self.port.schedule()

    def close_peers(self) -> None:
        """Send close_notify to everybody."""
        self.endpoint.close(time.monotonic())
        self.port.turn()


def _steer(sock: socket.socket, service: Service) -> Steering:
    if not service.steer:
        return Steering(None, "one socket has all datagrams, as was asked for")
    if service.on_other is not None:
        return Steering(None, "one socket has all datagrams: another protocol shares its port")
    return split(sock)


def _address(connection: dtls.Connection) -> Address:
    address = connection.address
    assert isinstance(address, tuple)
    return address
