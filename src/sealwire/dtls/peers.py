"""Who an endpoint's connections are with: found by address, by connection id, by first hello.

An address has one connection, and while that one lives at most one attempt to replace it, which takes
the place when its handshake is complete (RFC 9147 section 5.11).  No entry is made for an address that
is not proved; what may be in these tables is bounded by Limits.connections and Limits.handshakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

from sealwire.dtls.connection import Connection
from sealwire.dtls.cookie import Address
from sealwire.dtls.events import State
from sealwire.dtls.header import is_ciphertext
from sealwire.errors import PeerAlert, ProtocolError
from sealwire.limits import Limits, PrefixTable, prefixes_of
from sealwire.telemetry import ConnectionCounters, EndpointCounters
from sealwire.wire import Buffer

# How exactly it is known who was silent for longest.
_ORDER_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


class Peers:
    """The tables of one endpoint.

    Attributes:
        by_address: the connection of each address.
        replacements: attempts of addresses that have a live connection already, until they are complete.
        by_cid: the connection each id of ours was given to.
        hellos: how many connections began with each first hello that is known.
        hello_since: no hello that is known is older.
        half_open: those without a complete handshake, oldest first, with the time they began.
        established: the others that are in use, the one idle for longest first (to the second), with the
            time something came from them or went to them.
        resting: established ones that were idle for long, in the same order; they sleep, if they can.
    """

    __slots__ = (
        "_heard_at",
        "_hellos",
        "_retired",
        "by_address",
        "by_cid",
        "established",
        "half_open",
        "hello_since",
        "hellos",
        "replacements",
        "resting",
    )

    def __init__(self) -> None:
        # What connections that are gone have counted.
        self._retired = ConnectionCounters()
        self.by_address: dict[Address, Connection] = {}
        self.replacements: dict[Address, Connection] = {}
        self.by_cid: dict[bytes, Connection] = {}
        # First hello of each connection for as long as it may come again, to tell that from a new attempt.
        self._hellos: dict[Connection, bytes] = {}
        self.hellos: dict[bytes, int] = {}
        self.hello_since = _NEVER
        # When any peer was heard last: the newest of the established was, as it became that.
        self._heard_at = 0.0
        self.half_open: dict[Connection, float] = {}
        self.established: dict[Connection, float] = {}
        self.resting: dict[Connection, float] = {}

    def __len__(self) -> int:
        return len(self.half_open) + len(self.established) + len(self.resting)

    def __iter__(self) -> Iterator[Connection]:
        return chain(self.half_open, self.established, self.resting)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self.established or connection in self.half_open or connection in self.resting

    @property
    def handshaking(self) -> int:
        """How many have no complete handshake."""
        return len(self.half_open)

    def find(self, datagram: Buffer, cid_bytes: int | None) -> Connection | None:
        """Whose id the first record of a datagram carries; nothing is proved by that."""
        if not cid_bytes or not datagram or not is_ciphertext(datagram[0]) or not datagram[0] & 0x10:
            return None
        return self.by_cid.get(bytes(datagram[1 : 1 + cid_bytes]))

    def first_hellos(self, address: Address) -> tuple[bytes, ...]:
        """First hellos of the connections with this address."""
        here = (self.by_address.get(address), self.replacements.get(address))
        return tuple(self._hellos.get(one, b"") for one in here if one is not None)

    def of_hello(self, address: Address, hello: bytes) -> Connection | None:
        """The connection at `address` that began with this very hello."""
        for connection in (self.by_address.get(address), self.replacements.get(address)):
            if connection is not None and self._hellos.get(connection) == hello:
                return connection
        return None

    def full(self, address: Address, limits: Limits, prefixes: PrefixTable, *, proved: bool) -> str | None:
        """The name of the limit that keeps an attempt of `address` out, None if there is room."""
        # An attempt that never finished makes room for the next one of its address.
        replaced = self.replacements.get(address)
        current = self.by_address.get(address)
        if replaced is None and current is not None and current.state is State.HANDSHAKING:
            replaced = current
        spare = 1 if replaced is not None else 0
        if self.handshaking - spare >= limits.handshakes:
            return "handshakes"
        # A peer that restarts takes the place it has: until its new handshake is complete both live, which
        # the limit on handshakes bounds.
        if current is not None and current.state is not State.HANDSHAKING:
            return None
        if len(self) - len(self.replacements) - spare >= limits.connections:
            return "connections"
        # An address has two connections at most, so one that is here already needs no other place.
        if current is not None or not proved:
            return None
        return prefixes.full(prefixes_of(address))

    def enter(self, connection: Connection, address: Address, hello: bytes, now: float) -> Connection | None:
        """A connection began.  Returns the attempt it takes the place of, which is to be aborted."""
        self.half_open[connection] = now
        if hello:
            if not self._hellos:
                self.hello_since = now
            self._hellos[connection] = hello
            self.hellos[hello] = self.hellos.get(hello, 0) + 1
        current = self.by_address.get(address)
        if current is None or current.state is State.HANDSHAKING:
            # Nothing was agreed with an old attempt, and the address is proved again.
            self.by_address[address] = connection
            return current
        # RFC 9147 section 5.11 [9147-5.11-1, 9147-5.11-2]: it lives until the new one is complete.
        replaced = self.replacements.get(address)
        self.replacements[address] = connection
        return replaced

    def complete(self, connection: Connection, address: Address) -> Connection | None:
        """A handshake is complete.  Returns the old connection of this peer, which is to be aborted."""
        self.established[connection] = self._heard_at
        self.half_open.pop(connection, None)
        if self.replacements.get(address) is not connection:
            return None
        # RFC 9147 section 5.11 [9147-5.11-3]
        del self.replacements[address]
        old = self.by_address[address]
        self.by_address[address] = connection
        return old

    def heard(self, connection: Connection, now: float) -> None:
        """An authentic record of a peer came."""
        self._heard_at = now
        self.used(connection, now)

    def used(self, connection: Connection, now: float) -> None:
        """Something came from an established peer, or went to it."""
        before = self.established.get(connection)
        if before is None:
            if self.resting.pop(connection, None) is not None:
                self.established[connection] = now
        # Order is kept to the second, which costs less than each time.
        elif now - before >= _ORDER_SECONDS:
            del self.established[connection]
            self.established[connection] = now

    def rest(self, connection: Connection) -> None:
        """A connection is idle."""
        self.resting[connection] = self.established.pop(connection)

    def _forget_hello(self, connection: Connection) -> None:
        hello = self._hellos.pop(connection, None)
        if hello is None:
            return
        self.hellos[hello] -= 1
        if not self.hellos[hello]:
            del self.hellos[hello]
        if not self._hellos:
            # A dict keeps the room it once had.
            self._hellos, self.hellos, self.hello_since = {}, {}, _NEVER

    def forget_hellos(self, began_by: float, most: int) -> None:
        """Forget first hellos of connections that began by then, at most so many."""
        gone: list[Connection] = []
        self.hello_since = _NEVER
        for connection in self._hellos:
            began = connection.began
            if began > began_by or len(gone) == most:
                self.hello_since = min(began, self.hello_since)
                break
            # Whose handshake is not over may need it, however long that takes.
            if connection in self.half_open:
                self.hello_since = began
            else:
                gone.append(connection)
        for connection in gone:
            self._forget_hello(connection)

    def idle_since(self, connection: Connection) -> float:
        """When an established connection was used last."""
        at = self.established.get(connection)
        return self.resting[connection] if at is None else at

    def move(self, connection: Connection, old: Address, new: Address) -> None:
        """A connection goes on at another address."""
        if self.by_address.get(old) is connection:
            del self.by_address[old]
            if old in self.replacements:
                # A new client there is nobody's successor any more.
                self.by_address[old] = self.replacements.pop(old)
        # Whoever is known at the new address by address alone stays so; this one is found by its id.
        self.by_address.setdefault(new, connection)

    def follow_cids(self, connection: Connection) -> None:
        """Enter the ids given out since: one means its connection from when the peer may use it."""
        cids = connection.cids
        for cid in cids.retired:
            self.by_cid.pop(cid, None)
        cids.retired = ()
        for cid in cids.accepted:
            self.by_cid.setdefault(cid, connection)

    def forget(self, connection: Connection, address: Address) -> bool:
        """A connection is over: whether it was here still."""
        for cid in (connection.connection_ids.ours, *connection.cids.accepted):
            if self.by_cid.get(cid) is connection:
                del self.by_cid[cid]
        for table in (self.by_address, self.replacements):
            if table.get(address) is connection:
                del table[address]
        if self.by_address.get(address) is None and address in self.replacements:
            self.by_address[address] = self.replacements.pop(address)
        if connection not in self:
            return False
        self._forget_hello(connection)
        self.half_open.pop(connection, None)
        self.established.pop(connection, None)
        self.resting.pop(connection, None)
        self._retired.add(connection.counters)
        return True

    def totals(self) -> ConnectionCounters:
        """What all connections have counted, those that are gone as well; walks over those that live."""
        totals = ConnectionCounters()
        totals.add(self._retired)
        for connection in self:
            totals.add(connection.counters)
        return totals


def address_of(connection: Connection) -> Address:
    """Where the peer of an endpoint's connection is."""
    assert isinstance(connection.address, tuple)
    return connection.address


def count_end(counters: EndpointCounters, connection: Connection) -> None:
    """A connection is over: what that says of how peers behave."""
    counters.connections_closed += 1
    if connection.was_connected:
        counters.connections_wasted += not connection.conduct.used
        return
    counters.handshakes_failed += 1
    counters.handshakes_broken += isinstance(connection.error, (ProtocolError, PeerAlert))
