"""Whom an attack program may send to: loopback, or a namespace at the other end of our own cable.

A Target is the only thing senders take, and making one is the check.  Besides loopback it allows
one case: we are in a network namespace that is not the machine's, and the address belongs to the
other end of a veth cable of ours, in another namespace that is not the machine's either; neither
has hardware in it.  Names are not resolved, since they lead wherever a resolver says.  A sender's
socket is then tied to that one interface and may use no gateway, so a route that changes afterwards
leads nowhere.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from sealwire.attack import interfaces
from sealwire.attack.interfaces import Interface, IPAddress
from sealwire.errors import ConfigurationError

IPNetwork = IPv4Network | IPv6Network

_LAST_PORT: Final = 0xFFFF
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
# Set aside for measurements (RFC 2544, RFC 5180) and for documents (RFC 5737, RFC 3849): nobody's.
_NOBODYS: Final = tuple(
    map(
        ip_network,
        (
            "198.18.0.0/15",
            "192.0.2.0/24",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "2001:2::/48",
            "2001:db8::/32",
        ),
    )
)
# linux/socket.h; Python names neither everywhere.
_SO_DONTROUTE: Final = 5
_SO_BINDTODEVICE: Final = 25


class Refused(ConfigurationError):
    """An address no attack program sends to, or pretends to be."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server that may be attacked.

    Attributes:
        host: its address, written as digits.
        port: its UDP port, 1 to 65535.
        address: the address itself; `device`: the interface that leads there, "lo" or a cable.

    Raises:
        Refused: for any other address, saying why.
    """

    host: str
    port: int
    address: IPAddress = field(init=False)
    device: str = field(init=False)

    def __post_init__(self) -> None:
        try:
            address = ip_address(self.host)
        except ValueError:
            raise Refused(f"{self.host!r} is no address in digits; names are not resolved here") from None
        if not 1 <= self.port <= _LAST_PORT:
            raise Refused(f"{self.port} is no port")
        object.__setattr__(self, "address", address)
        object.__setattr__(self, "device", _device_to(address))

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.address.version == 4 else socket.AF_INET6

    @property
    def loopback(self) -> bool:
        return self.address.is_loopback

    @property
    def sockaddr(self) -> tuple[str, int]:
        return (str(self.address), self.port)

    def tie(self, sock: socket.socket) -> None:
        """Let `sock` send by this target's interface alone, to neighbours alone; the kernel sees to it."""
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, self.device.encode())
        sock.setsockopt(socket.SOL_SOCKET, _SO_DONTROUTE, 1)

    def open(self) -> socket.socket:
        """A UDP socket that can send to this target and nowhere else."""
        sock = socket.socket(self.family, socket.SOCK_DGRAM)
        try:
            self.tie(sock)
            sock.connect(self.sockaddr)
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def default_sources(self) -> IPNetwork:
        """Whom a forger pretends to be unless told."""
        if self.loopback:
            return _LOOPBACK[self.address.version == 6]
        return ip_network("198.18.0.0/15") if self.address.version == 4 else ip_network("2001:2::/48")

    def sources(self, written: str | None) -> IPNetwork:
        """The network forged sources are taken from: answers go there, so it must be nobody's.

        Raises:
            Refused: for a network that belongs to somebody.
        """
        if written is None:
            return self.default_sources
        try:
            network = ip_network(written)
        except ValueError as error:
            raise Refused(f"{written!r} is no network: {error}") from None
        allowed = _LOOPBACK if self.loopback else _NOBODYS
        if network.version == self.address.version and any(
            network.subnet_of(one)  # type: ignore[arg-type] # the versions are equal
            for one in allowed
            if one.version == network.version
        ):
            return network
        own = ", ".join(str(one) for one in allowed if one.version == self.address.version)
        raise Refused(f"answers to {network} would reach somebody; sources are taken from {own}")


def _device_to(address: IPAddress) -> str:
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise Refused(f"{address} has another address or an interface in it; write the plain address")
    if address.is_multicast:
        raise Refused(f"{address} is a group: nobody knows who is in it")
    if address.is_unspecified:
        raise Refused(f"{address} is no one's address")
    if isinstance(address, IPv4Address) and address in (_LOOPBACK[0][-1], IPv4Address("255.255.255.255")):
        raise Refused(f"{address} is everybody's address")
    ours = interfaces.interfaces()
    if address.is_loopback:
        return _loopback(ours)
    if not interfaces.in_own_namespace() or any(one.hardware for one in ours):
        raise Refused(
            f"{address} is not loopback, and this is the machine's own network: only inside a network"
            " namespace (ip netns exec NAME sealwire attack ...) may another namespace be attacked"
        )
    cables = [cable for cable in ours if cable.kind == "veth"]
    for namespace in interfaces.other_namespaces():
        theirs = interfaces.interfaces_in(namespace)
        if any(one.hardware for one in theirs):
            continue
        number = interfaces.number(namespace)
        ends = {end.index: end for end in theirs if end.kind == "veth" and address in end.addresses}
        for cable in cables:
            if cable.beyond == number != -1 and cable.peer in ends:
                return cable.name
    raise Refused(f"{address} is not the other end of a veth cable between this namespace and another")


def _loopback(ours: tuple[Interface, ...]) -> str:
    for one in ours:
        if one.loopback:
            return one.name
    raise Refused("this namespace has no loopback interface")
