"""The accounts of peer prefixes: an IPv4 address, an IPv6 /64 and the /48 around it.

One subscriber has an IPv4 address or a /64, one site often a /48; who has many addresses of one of
them shares what it may hold.  Only proved addresses come in here, for a forged one would let a
stranger use up its owner's share.  The table has a fixed size, and an entry leaves it when nothing is
held for it; while it is full, newcomers have no account of this kind and are counted (`overflows`).
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from heapq import nlargest
from typing import TYPE_CHECKING, Final

from sealwire.limits.charging import PrefixSums

if TYPE_CHECKING:
    from sealwire.limits.declared import Limits

#: What an entry weighs: its object, its key and its part of the table (tracemalloc, Python 3.11).
PREFIX_BYTES: Final = 288


class Width(enum.IntEnum):
    """How wide a prefix is."""

    #: An IPv4 address or an IPv6 /64 (or whole, if link-local).
    HOST = 0
    #: An IPv6 /48.
    SITE = 1


class Prefix(PrefixSums):
    """What the peers of one prefix hold together.

    Attributes:
        name: in the usual notation.
        held: bytes, of those that `limit` bounds.
        connections: how many there are, handshakes included.
        handshakes: those whose handshake is not complete.
    """

    __slots__ = ("key", "width")

    def __init__(self, key: bytes, width: Width, limit: int) -> None:
        super().__init__(limit)
        self.key = key
        self.width = width

    @property
    def bytes_name(self) -> str:
        """The field of Limits that bounds `held`."""
        return "site_bytes" if self.width is Width.SITE else "prefix_bytes"

    @property
    def name(self) -> str:
        return name_of(self.key)

    @property
    def empty(self) -> bool:
        return not (self.connections or self.held)


def prefixes_of(address: object) -> tuple[bytes, ...]:
    """Keys of the prefixes a socket address is in, the narrowest first; () for one that is none of IP.

    4 bytes are an IPv4 address, 8 a /64, 6 a /48, 16 (and a scope) a link-local address.
    """
    if not isinstance(address, tuple) or not address:
        return ()
    return _prefixes_of(str(address[0]))


@lru_cache(maxsize=1024)
def _prefixes_of(host: str) -> tuple[bytes, ...]:
    # A peer's host is looked at some five times on its way in, mostly one right after the other.
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return ()
    if isinstance(ip, ipaddress.IPv4Address):
        return (ip.packed,)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped.packed,)
    if ip.is_link_local:
        # All of them share these 64 bits, and the same one on another link is another host.
        return (ip.packed + str(ip.scope_id or "").encode(),)
    return (ip.packed[:8], ip.packed[:6])


def name_of(key: bytes) -> str:
    """A key of :func:`prefixes_of` in the usual notation."""
    if len(key) == 4:
        return str(ipaddress.IPv4Address(key))
    if len(key) in (6, 8):
        return f"{ipaddress.IPv6Address(key.ljust(16, bytes(1)))}/{8 * len(key)}"
    scope = key[16:].decode()
    return str(ipaddress.IPv6Address(key[:16])) + (f"%{scope}" if scope else "")


class PrefixTable:
    """The prefixes of one ledger.

    Attributes:
        overflows: connections that found the table full.
    """

    __slots__ = ("_by_key", "_limits", "overflows")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_key: dict[bytes, Prefix] = {}
        self.overflows = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Prefix]:
        return iter(self._by_key.values())

    def find(self, key: bytes) -> Prefix | None:
        """The account of a prefix, None if nothing is held for it."""
        return self._by_key.get(key)

    def full(self, keys: tuple[bytes, ...]) -> str | None:
        """The name of the limit that keeps another attempt of these prefixes out, None if none does."""
        limits = self._limits
        for width, key in enumerate(keys):
            prefix = self._by_key.get(key)
            if prefix is None:
                continue
            if width == Width.HOST:
                most, most_handshakes, kind = limits.prefix_connections, limits.prefix_handshakes, "prefix"
            else:
                most, most_handshakes, kind = limits.site_connections, limits.site_handshakes, "site"
            if prefix.handshakes >= most_handshakes:
                return f"{kind}_handshakes"
            if prefix.connections >= most:
                return f"{kind}_connections"
        return None

    def enter(self, keys: tuple[bytes, ...]) -> tuple[Prefix, ...]:
        """The accounts of these prefixes, made if there is room for them."""
        found: list[Prefix] = []
        for width, key in enumerate(keys):
            prefix = self._by_key.get(key)
            if prefix is None:
                if len(self._by_key) >= self._limits.prefixes:
                    self.overflows += 1
                    continue
                limit = self._limits.site_bytes if width == Width.SITE else self._limits.prefix_bytes
                prefix = self._by_key[key] = Prefix(key, Width(width), limit)
            found.append(prefix)
        return tuple(found)

    def leave(self, prefixes: tuple[Prefix, ...]) -> None:
        """Forget those of `prefixes` that nothing is held for any more."""
        for prefix in prefixes:
            if prefix.empty:
                self._by_key.pop(prefix.key, None)

    def top(self, n: int = 10) -> list[Prefix]:
        """Who holds most, at most `n` of them."""
        return nlargest(n, self._by_key.values(), key=lambda prefix: prefix.held)
