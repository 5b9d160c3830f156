"""Addresses of peers as sockets give them, as the kernel writes them, and which of ours they reached."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any, Final

Address = tuple[Any, ...]

# Python names it from 3.14 on; it is 8 in every Linux.
IP_PKTINFO: Final = 8
# struct sockaddr_in and sockaddr_in6: the family in the host's order, all else as the network has it,
# except the scope, which is a number of this host's.
_FAMILY: Final = struct.Struct("=H")
_IPV4: Final = struct.Struct("!2xH4s8x")
_IPV6: Final = struct.Struct("!2xHI16s4x")
_SCOPE: Final = struct.Struct("=I")
_IPV4_PARTS: Final = 2
_IPV6_PARTS: Final = 4


class Reached(tuple[Any, ...]):
    """A peer's address, equal to the plain one, that remembers which of our addresses it reached.

    A socket bound to every address would answer from whichever the routes prefer, and a peer that
    asked another one would not take that for an answer.
    """

    own: tuple[int, int, bytes]

    @classmethod
    def at(cls, address: Address, own: tuple[int, int, bytes]) -> Reached:
        """`address`, reached at what `own` says: a control message for the answer."""
        reached = cls(address)
        reached.own = own
        return reached

    @classmethod
    def arrived(cls, address: Address, control: tuple[int, int, bytes]) -> Address:
        """`address`, reached at what the control message says that came with its datagram."""
        level, kind, value = control
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            # struct in_pktinfo: interface, local address to send from, destination in the header.
            return cls.at(address, (level, kind, bytes(4) + value[4:8] + bytes(4)))
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            # struct in6_pktinfo: address, interface; the latter only matters with link-local.
            link_local = value[0] == 0xFE and value[1] & 0xC0 == 0x80
            return cls.at(address, (level, kind, value if link_local else value[:16] + bytes(4)))
        return address


def report_own_address(sock: socket.socket) -> bool:
    """Have each datagram say where it arrived; False where one address leaves no doubt."""
    if sys.platform != "linux" or sock.getsockname()[0] not in ("0.0.0.0", "::"):  # noqa: S104
        return False
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return True


def pack_address(address: Address) -> bytes:
    """A numeric socket address as the kernel wants it.

    Raises:
        ValueError: it is a name, has a zone in its name, or is of another family.
    """
    try:
        if len(address) == _IPV4_PARTS:
            host, port = address
            body = _IPV4.pack(port, socket.inet_pton(socket.AF_INET, host))
            return _FAMILY.pack(socket.AF_INET) + body[2:]
        if len(address) == _IPV6_PARTS:
            host, port, flow, scope = address
            body = _IPV6.pack(port, flow, socket.inet_pton(socket.AF_INET6, host))
            return _FAMILY.pack(socket.AF_INET6) + body[2:-4] + _SCOPE.pack(scope)
    except (OSError, TypeError, struct.error) as error:
        raise ValueError(f"{address!r} is not a numeric address: {error}") from None
    raise ValueError(f"{address!r} is no address of IPv4 or IPv6")


def unpack_address(raw: bytes) -> Address:
    """What the kernel wrote, as the socket module shows it; an empty tuple for another family."""
    family = _FAMILY.unpack_from(raw)[0] if len(raw) >= _FAMILY.size else 0
    if family == socket.AF_INET and len(raw) >= _IPV4.size:
        port, packed = _IPV4.unpack_from(raw)
        return socket.inet_ntop(socket.AF_INET, packed), port
    if family == socket.AF_INET6 and len(raw) >= _IPV6.size:
        port, flow, packed = _IPV6.unpack_from(raw)
        host = socket.inet_ntop(socket.AF_INET6, packed)
        return host, port, flow, _SCOPE.unpack_from(raw, _IPV6.size - _SCOPE.size)[0]
    return ()
