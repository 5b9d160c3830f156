"""Who may come: lists of prefixes to let in or keep out, and how fast a prefix may open connections.

All of it is about proved addresses: a cookie or a ticket has shown that who asks receives what is sent
there.  Datagrams can be forged, so nobody is listed, counted or kept out for what only claimed to be
his (docs/flood.md).  A listed prefix is found by its bits, the longest that fits decides, and entries
end by themselves.  Rates are token buckets of an IPv4 address, or of 64 and of 48 bits of an IPv6 one.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.dtls.cookie import Address
from sealwire.errors import Discard, LimitReached
from sealwire.limits import Ledger, Limits
from sealwire.limits.prefixes import prefixes_of
from sealwire.record.train import Train, bytes_of, count_of
from sealwire.telemetry import EndpointCounters
from sealwire.wire import Buffer

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 6177: a subscriber has 64 bits of prefix at least, a site often 48.
_SITE_BYTES: Final = 6
_SITE_SHARE: Final = 4
# Above it whoever was away longest is forgotten, and has a full bucket when he comes again.
_BUCKETS: Final = 65_536


class Listed(enum.Enum):
    """What the lists say of an address."""

    #: Let in whatever its prefix does; the limits of the endpoint hold all the same.
    ALLOWED = "allowed"
    BLOCKED = "blocked"
    #: On neither list.
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Entry:
    """One prefix on a list, until `expires` (on the clock of the endpoint; infinity for ever)."""

    prefix: Network
    listed: Listed
    expires: float


def _address_of(address: Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(str(address[0])) if address else None
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


class Lists:
    """Allow and block lists of one endpoint.  Not thread-safe, like the endpoint.

    At most `Limits.list_entries`; `now` is in seconds on the endpoint's clock.
    """

    __slots__ = ("_entries", "_ledger", "_lengths", "_most")

    def __init__(self, limits: Limits, ledger: Ledger) -> None:
        self._most = limits.list_entries
        self._ledger = ledger
        # By IP version, bits of prefix and the prefix.
        self._entries: dict[tuple[int, int, int], Entry] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}

    def allow(self, prefix: str, now: float = 0.0, seconds: float = float("inf")) -> None:
        """Let the addresses of `prefix` ("192.0.2.7", "2001:db8::/48") in, for so long.

        Raises:
            ValueError: this is no prefix.
            LimitReached: the lists are full of entries that have not ended.
        """
        self._enter(prefix, Listed.ALLOWED, now, seconds)

    def block(self, prefix: str, now: float = 0.0, seconds: float = float("inf")) -> None:
        """Admit no new connection of `prefix`, for so long; errors as for :meth:`allow`."""
        self._enter(prefix, Listed.BLOCKED, now, seconds)

    def remove(self, prefix: str) -> bool:
        """Take `prefix` off; whether it was listed."""
        network = ipaddress.ip_network(prefix)
        found = self._entries.pop(_key(network), None)
        self._measure()
        return found is not None

    def entries(self, now: float) -> tuple[Entry, ...]:
        """What is listed now."""
        self._expire(now)
        return tuple(self._entries.values())

    def verdict(self, address: Address, now: float) -> Listed:
        """What is said of a proved address: the longest prefix that it is in decides."""
        if not self._entries:
            return Listed.NEITHER
        ip = _address_of(address)
        if ip is None:
            return Listed.NEITHER
        number = int(ip)
        for bits in self._lengths[ip.version]:
            entry = self._entries.get((ip.version, bits, number >> (ip.max_prefixlen - bits)))
            if entry is not None and now < entry.expires:
                return entry.listed
        return Listed.NEITHER

    def _enter(self, prefix: str, listed: Listed, now: float, seconds: float) -> None:
        network = ipaddress.ip_network(prefix)
        key = _key(network)
        if key not in self._entries and len(self._entries) >= self._most:
            self._expire(now)
            if len(self._entries) >= self._most:
                self._ledger.note("list_entries")
                raise LimitReached("list_entries", f"{self._most} prefixes are listed already")
        self._entries[key] = Entry(network, listed, now + seconds)
        self._measure()

    def _expire(self, now: float) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if now < entry.expires}
        self._measure()

    def _measure(self) -> None:
        for version in self._lengths:
            lengths = {bits for one, bits, _ in self._entries if one == version}
            self._lengths[version] = sorted(lengths, reverse=True)


def _key(network: Network) -> tuple[int, int, int]:
    bits = network.prefixlen
    return network.version, bits, int(network.network_address) >> (network.max_prefixlen - bits)


class Bucket:
    """Token buckets of proved prefixes: a second's worth at once, then so many a second.

    An IPv4 address and 64 bits of an IPv6 one have `per_second`, a /48 four times as many.
    """

    __slots__ = ("_buckets", "_per_second")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        # Tokens and when they were counted, least recently used first.
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def has(self, address: Address, now: float, n: float = 0.0) -> bool:
        """Whether the prefixes of `address` have `n` tokens, or any at all for 0."""
        for key in prefixes_of(address):
            tokens = self._tokens(key, now)
            if tokens < n or tokens <= 0:
                return False
        return True

    def spend(self, address: Address, now: float, n: float) -> None:
        """Take `n` tokens from the prefixes of `address`; there may be fewer, and then it owes them."""
        for key in prefixes_of(address):
            self._buckets[key] = (self._tokens(key, now) - n, now)
            self._buckets.move_to_end(key)
        while len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)

    def _tokens(self, key: bytes, now: float) -> float:
        most = self._per_second * (_SITE_SHARE if len(key) == _SITE_BYTES else 1)
        tokens, since = self._buckets.get(key, (most, now))
        return min(tokens + max(now - since, 0.0) * most, most)


class Doors:
    """What an endpoint asks: may this proved address begin a connection, may its data come.

    Attributes:
        lists: prefixes to let in or keep out.
    """

    __slots__ = ("_bytes", "_datagrams", "_new", "lists", "metered")

    def __init__(self, limits: Limits, ledger: Ledger) -> None:
        self.lists = Lists(limits, ledger)
        self._new = Bucket(limits.prefix_new_per_second)
        self._datagrams = Bucket(limits.prefix_datagrams_per_second)
        self._bytes = Bucket(limits.prefix_received_bytes_per_second)
        # Metering costs a look-up for each run, so it is done where somebody chose a number.
        usual = Limits()
        self.metered = (
            limits.prefix_datagrams_per_second < usual.prefix_datagrams_per_second
            or limits.prefix_received_bytes_per_second < usual.prefix_received_bytes_per_second
        )

    def refuse(self, address: Address, now: float, *, proved: bool) -> Discard | None:
        """Why an attempt of `address` is turned away; None where it is not, and then it is counted."""
        listed = self.lists.verdict(address, now)
        if listed is Listed.BLOCKED:
            return Discard.REFUSED
        if listed is Listed.ALLOWED or not proved:
            return None
        if not self._new.has(address, now, 1.0):
            return Discard.OVER_QUOTA
        self._new.spend(address, now, 1.0)
        return None

    def over_quota(
        self, address: Address, run: Sequence[Buffer | Train], now: float, counters: EndpointCounters
    ) -> bool:
        """Whether datagrams of a connection at `address` are dropped now, and counted."""
        if self._datagrams.has(address, now) and self._bytes.has(address, now):
            return False
        if self.lists.verdict(address, now) is Listed.ALLOWED:
            return False
        dropped = counters.discards.get(Discard.OVER_QUOTA, 0)
        counters.discards[Discard.OVER_QUOTA] = dropped + count_of(run)
        return True

    def received(self, address: Address, run: Sequence[Buffer | Train], now: float) -> None:
        """These were of the peer at `address` itself: forged ones must not use up its share."""
        if self.metered:
            self._datagrams.spend(address, now, count_of(run))
            self._bytes.spend(address, now, bytes_of(run))
