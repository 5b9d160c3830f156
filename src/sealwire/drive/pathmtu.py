"""What the kernel believes a path carries: its PMTU estimate (RFC 9147 section 4.4 [9147-4.4-2]).

A kernel remembers for each destination what the first hop carries, and what routers on the way said in
ICMP.  A connected socket tells; where one socket has many peers, another one is connected to the peer in
question for the moment, which sends nothing.  Whoever guesses ports and addresses can forge ICMP, so an
estimate is a hint: it can make datagrams shorter, never longer, and not below what every path carries.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

# linux/in.h and linux/in6.h; Python names neither.
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
# An IP header without options, and UDP's.
_IPV4_HEADERS_BYTES: Final = 28
_IPV6_HEADERS_BYTES: Final = 48
# The 16-bit length of IPv4 holds its own headers, that of IPv6 only UDP's.
_LONGEST_IPV4_BYTES: Final = 65_507
_LONGEST_IPV6_BYTES: Final = 65_527


def estimate(sock: socket.socket) -> int | None:
    """The UDP payload the kernel takes for possible on the way of a connected socket, in bytes.

    None where it does not say: another system than Linux, or a socket without a peer or a route.
    """
    if sys.platform != "linux":
        return None
    six = sock.family == socket.AF_INET6
    try:
        mtu = (
            sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            if six
            else sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        )
    except OSError:
        return None
    payload = mtu - (_IPV6_HEADERS_BYTES if six else _IPV4_HEADERS_BYTES)
    return min(payload, _LONGEST_IPV6_BYTES if six else _LONGEST_IPV4_BYTES) if payload > 0 else None


def estimate_to(address: tuple[Any, ...], family: socket.AddressFamily | int) -> int | None:
    """The same for one of many peers, at `address`; no datagram is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            return estimate(sock)
    except OSError:
        return None
