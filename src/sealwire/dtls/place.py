"""Where a client is, as far as a ticket says it: an address without its port, shortened for IPv6.

A ticket is shown again minutes or hours later, and then has to count as proof that its client receives
what is sent to the address it comes from.  Its port is another one by then.  An IPv4 address is taken
whole.  Of an IPv6 address the first 64 bits are taken, since hosts change the rest often (RFC 8981) and
one subscriber has at least so much; link-local ones are taken whole, because all of them share these bits.
Somebody else with the same 32 or 64 bits could have our answer sent to a neighbour of his own, at most
three times the bytes he sends.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from sealwire.dtls.cookie import Address

_IPV6_PREFIX_BYTES: Final = 8


def place_of(address: Address) -> bytes:
    """What tickets say of an address; b"" for one that is none of IP."""
    return _place_of(str(address[0])) if address else b""


@lru_cache(maxsize=1024)
def _place_of(host: str) -> bytes:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return b""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.packed
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.packed
    if ip.is_link_local:
        # The same address on another link is another place.
        return ip.packed + str(ip.scope_id or "").encode()
    return ip.packed[:_IPV6_PREFIX_BYTES]
