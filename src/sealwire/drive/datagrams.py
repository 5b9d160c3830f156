"""What can be asked of a DTLS connection beside its data, the same for channels and sockets."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from sealwire.drive.facts import Facts
from sealwire.dtls.events import MessageSizeChanged

if TYPE_CHECKING:
    from sealwire import dtls
    from sealwire.drive.udp import Address, UdpSocket

T = TypeVar("T")
#: Data a client gives the socket at once; the rest waits in its queue.
TURN_BYTES: Final = 512 * 1024
# An IPv6 socket address has flow and scope as well.
_IPV4_ADDRESS_PARTS: Final = 2


class DatagramFacts(Facts):
    """Facts of a DTLS connection, and the verbs that only datagrams have."""

    @property
    @abstractmethod
    def connection(self) -> dtls.Connection:
        """The engine."""

    #: Called with the longest message by now, when the path was found to carry more or less.
    on_message_size: Callable[[int], None] | None = None

    @abstractmethod
    def _act(self, action: Callable[[dtls.Connection], T]) -> T:
        """Do `action` with the engine, then send what it has to send."""

    def connection_ids(self) -> tuple[bytes, bytes]:
        """The ids in records to us and in records to the peer now, ``b""`` for none (RFC 9146)."""
        cids = self.connection.cids
        return (cids.ours[-1] if cids.ours else b""), cids.current

    def srtp_profile(self) -> str | None:
        """The SRTP profile agreed on, as openssl names it; None without (RFC 5764)."""
        profile = self.connection.session.srtp_profile
        return None if profile is None else profile.name

    def srtp_keys(self) -> dtls.SrtpKeys:
        """Master keys and salts for SRTP.  Error where no profile was agreed on."""
        self._check_process()
        return self.connection.srtp_keys()

    def rotate_connection_id(self) -> bool:
        """Go on under a spare id of the peer's; False, and nothing changed, without one."""
        return self._act(lambda connection: connection.rotate_connection_id())

    def offer_connection_ids(self, count: int, *, immediate: bool = False) -> None:
        """Give the peer up to `count` further ids for its records; `immediate` replaces those in use.

        Raises:
            Error: no ids were negotiated, or an offer is under way.
        """
        self._act(lambda connection: connection.offer_connection_ids(count, immediate=immediate))

    def request_connection_ids(self, count: int) -> None:
        """Ask the peer for up to `count` spare ids.

        Raises:
            Error: no ids were negotiated, or a request is not answered yet.
        """
        self._act(lambda connection: connection.request_connection_ids(count))

    def close_write(self) -> None:
        """Send what waits and close_notify; go on receiving until the peer closes as well."""
        self._act(lambda connection: connection.close_write(time.monotonic()))

    # -- what the path carries (docs/path-mtu.md)

    @property
    @abstractmethod
    def _udp_socket(self) -> UdpSocket:
        """What its datagrams go through."""

    @property
    def path_mtu_estimate(self) -> int | None:
        """What the kernel takes for possible on the way to the peer now, bytes of UDP payload; None: unknown.

        RFC 9147 section 4.4 [9147-4.4-2].  It knows the first hop, and what ICMP said, forged or not: a hint,
        which nothing here follows upwards.  Linux only; a few system calls for a server's channel.
        """
        address = self.connection.address
        return self._udp_socket.path_estimate(address) if isinstance(address, tuple) else None

    @property
    def max_probe_bytes(self) -> int:
        """The longest message :meth:`send_probe` takes; 0 where no larger datagrams are looked for."""
        return self.connection.max_probe_bytes

    def send_probe(self, data: bytes) -> None:
        """Send a message longer than `max_message_bytes`, to see whether it arrives.

        Raises:
            ValueError: it is longer than `max_probe_bytes`.
        """
        self._act(lambda connection: connection.send_probe(data))

    def confirm_message_bytes(self, n: int) -> None:
        """The application knows that a message of `n` bytes arrived: `max_message_bytes` may grow to it."""
        self._act(lambda connection: connection.confirm_message_bytes(n, time.monotonic()))

    def deny_message_bytes(self, n: int) -> None:
        """Messages of `n` bytes get lost: `max_message_bytes` falls back to what is safe."""
        self._act(lambda connection: connection.deny_message_bytes(n, time.monotonic()))

    def _look_at_size(self, event: dtls.Event) -> None:
        if isinstance(event, MessageSizeChanged) and self.on_message_size is not None:
            self.on_message_size(event.max_message_bytes)


def prepare(udp: UdpSocket, connection: dtls.Connection, address: Address) -> None:
    """Have a client's socket tell its connection what the path refuses [9147-4.4-6]."""
    if connection.upkeep.max_mtu is not None:
        udp.probe_path()
    ipv6 = len(address) > _IPV4_ADDRESS_PARTS
    udp.on_too_big = lambda size, _: connection.path_carries(size, time.monotonic(), ipv6=ipv6)


def prepare_serving(udp: UdpSocket, endpoint: dtls.Endpoint, upkeep: dtls.Upkeep) -> None:
    """Have a server's socket tell its connections what the paths to their peers refuse."""
    if upkeep.max_mtu is not None:
        udp.probe_path()
    udp.on_too_big = lambda size, address: endpoint.path_carries(size, address, time.monotonic())
