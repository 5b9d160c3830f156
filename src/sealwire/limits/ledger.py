"""The running account of bytes held for peers: one ledger, an account per connection, one per prefix.

A charge asks the connection's own cap, those of its peer's prefixes, that of its purpose and the cap
over all, in that order, and is made everywhere or nowhere.  All of it is additions and comparisons,
whatever the number of peers.  Each refusal is counted under the name of the limit that made it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from sealwire.limits.declared import Limits
from sealwire.limits.prefixes import Prefix, PrefixTable, prefixes_of
from sealwire.limits.pressure import Pressure, begins_at, ends_at, level_of

PressureListener = Callable[[Pressure, Pressure], None]


class Purpose(enum.Enum):
    """What held bytes are for.  One total per purpose is kept by the ledger."""

    CONNECTION = "connection"  # the objects of a connection themselves
    HANDSHAKE = "handshake"  # our flights, kept until acknowledged
    REASSEMBLY = "reassembly"  # fragments of messages that are not complete
    RECEIVE_QUEUE = "receive queue"  # opened data the application has not taken
    SEND_QUEUE = "send queue"  # data the application gave and the network has not taken
    EARLY_DATA = "early data"  # data of peers that have not finished the handshake
    TICKETS = "tickets"  # session tickets nobody has taken yet
    TABLES = "tables"  # fixed tables of an endpoint, beside the cap over all peers
    APPLICATION = "application"  # reserved by the application, see Budget

    # Members are singletons; Enum's own hash is a Python call, and every charge looks one up.
    __hash__ = object.__hash__


# The field of Limits that bounds the sum of a purpose over all connections.
PURPOSE_LIMITS: dict[Purpose, str] = {
    Purpose.HANDSHAKE: "flights_bytes",
    Purpose.REASSEMBLY: "reassemblies_bytes",
    Purpose.RECEIVE_QUEUE: "receive_queues_bytes",
    Purpose.SEND_QUEUE: "send_queues_bytes",
    Purpose.EARLY_DATA: "early_data_bytes",
    Purpose.TICKETS: "tickets_bytes",
    Purpose.APPLICATION: "application_bytes",
}


# A purpose without a cap of its own has the one over all.
_CAPS: tuple[tuple[Purpose, str], ...] = tuple(
    (purpose, PURPOSE_LIMITS.get(purpose, "total_bytes")) for purpose in Purpose
)
_NOTHING_HELD: dict[Purpose, int] = dict.fromkeys(Purpose, 0)


class Ledger:
    """Running account of bytes held for peers, with one cap over all of them.

    Not thread-safe: it belongs to the thread of its endpoint.

    Attributes:
        limit: the cap, in bytes (Limits.total_bytes).
        held: bytes held now, fixed tables apart.
        peak: the most that was ever held.
        refusals: how many charges were refused.
        reached: how often each limit was reached, by the name of its field of :class:`Limits`.
        refused_by: the name of the limit that refused a charge last.
        level: how full it is.
        prefixes: the accounts of peer prefixes.
    """

    __slots__ = (
        "_by_purpose",
        "_caps",
        "_falls_at",
        "_listeners",
        "_rises_at",
        "held",
        "level",
        "limit",
        "peak",
        "prefixes",
        "reached",
        "refusals",
        "refused_by",
    )

    def __init__(self, limits: Limits | int) -> None:
        """`limits` as a number is a cap over all, with the other limits as they are by default."""
        if isinstance(limits, int):
            own = min(limits, Limits().connection_bytes)
            limits = Limits(total_bytes=limits, connection_bytes=own)
        self.limit = limits.total_bytes
        self.held = 0
        self.peak = 0
        self.refusals = 0
        self.refused_by = ""
        self.reached: dict[str, int] = {}
        self.level = Pressure.NONE
        self.prefixes = PrefixTable(limits)
        self._by_purpose = _NOTHING_HELD.copy()
        self._caps = {purpose: getattr(limits, name) for purpose, name in _CAPS}
        self._listeners: list[PressureListener] = []
        self._follow_level()

    def charge(self, purpose: Purpose, n: int) -> bool:
        """Account for `n` more bytes; False, and nothing accounted, if a cap forbids it."""
        held = self.held + n
        mine = self._by_purpose[purpose] + n
        if held > self.limit or mine > self._caps[purpose]:
            self.refuse("total_bytes" if held > self.limit else PURPOSE_LIMITS[purpose])
            return False
        self.held = held
        self._by_purpose[purpose] = mine
        if held > self.peak:
            self.peak = held
        if held >= self._rises_at:
            self._change_level()
        return True

    def release(self, purpose: Purpose, n: int) -> None:
        """Give back `n` bytes charged before.  Giving back more than was charged is a bug."""
        left = self._by_purpose[purpose] - n
        assert left >= 0, f"released {-left} bytes of {purpose.value} that were never charged"
        self._by_purpose[purpose] = left
        self.held -= n
        if self.held < self._falls_at:
            self._change_level()

    def charge_table(self, n: int) -> None:
        """Account for a fixed table of `n` bytes, which is there as long as its endpoint."""
        self._by_purpose[Purpose.TABLES] += n

    def held_for(self, purpose: Purpose) -> int:
        """Bytes held for `purpose` now."""
        return self._by_purpose[purpose]

    def note(self, name: str) -> None:
        """The limit of that name was reached once more."""
        self.reached[name] = self.reached.get(name, 0) + 1

    def refuse(self, name: str) -> None:
        """A charge was refused because of the limit of that name."""
        self.refusals += 1
        self.refused_by = name
        self.note(name)

    # --- pressure --------------------------------------------------------------------------

    def on_pressure(self, listener: PressureListener) -> None:
        """Call `listener` with the new level and the one before, whenever it changes."""
        self._listeners.append(listener)

    def _follow_level(self) -> None:
        level = self.level
        top = level is Pressure.CRITICAL
        self._rises_at = self.limit + 1 if top else begins_at(Pressure(level + 1), self.limit)
        self._falls_at = ends_at(level, self.limit)

    def _change_level(self) -> None:
        before = self.level
        self.level = level_of(self.held, self.limit, before)
        self._follow_level()
        if self.level is not before:
            for listener in self._listeners:
                listener(self.level, before)


class Account:
    """One connection's part of a ledger, with a cap of its own, and its share of its prefixes'.

    Attributes:
        held: bytes held now.
        limit: the cap; it changes when the handshake is over.
    """

    __slots__ = (
        "_connection",
        "_connections",
        "_handshakes",
        "_ledger",
        "_others",
        "_prefixes",
        "held",
        "limit",
    )

    def __init__(self, ledger: Ledger, limit: int, *, is_connection: bool = True) -> None:
        self._ledger = ledger
        # What is held for Purpose.CONNECTION, and what for others: an idle connection has no others.
        self._connection = 0
        self._others: dict[Purpose, int] = {}
        self._prefixes: tuple[Prefix, ...] = ()
        # What this account counts for among those of its prefixes.
        self._connections = self._handshakes = int(is_connection)
        self.limit = limit
        self.held = 0

    @property
    def ledger(self) -> Ledger:
        """The ledger this account is in."""
        return self._ledger

    def charge(self, purpose: Purpose, n: int) -> bool:
        """As :meth:`Ledger.charge`, against this connection's cap and its prefixes' first."""
        ledger = self._ledger
        held = self.held + n
        if held > self.limit:
            ledger.refuse("handshake_bytes" if self._handshakes else "connection_bytes")
            return False
        for prefix in self._prefixes:
            if prefix.held + n > prefix.limit:
                ledger.refuse(prefix.bytes_name)
                return False
        # As Ledger.charge, written out: data comes through here for each run of records.
        total = ledger.held + n
        mine = ledger._by_purpose[purpose] + n
        if total > ledger.limit or mine > ledger._caps[purpose]:
            ledger.refuse("total_bytes" if total > ledger.limit else PURPOSE_LIMITS[purpose])
            return False
        ledger.held = total
        ledger._by_purpose[purpose] = mine
        if total > ledger.peak:
            ledger.peak = total
        if total >= ledger._rises_at:
            ledger._change_level()
        self.held = held
        for prefix in self._prefixes:
            prefix.held += n
        if purpose is Purpose.CONNECTION:
            self._connection += n
        else:
            self._others[purpose] = self._others.get(purpose, 0) + n
        return True

    def fits(self, purpose: Purpose, n: int) -> bool:
        """Whether :meth:`charge` would do it now; nothing is accounted for."""
        ledger = self._ledger
        if (
            self.held + n > self.limit
            or ledger.held + n > ledger.limit
            or ledger._by_purpose[purpose] + n > ledger._caps[purpose]
        ):
            return False
        for prefix in self._prefixes:  # noqa: SIM110 - a generator takes longer than all this
            if prefix.held + n > prefix.limit:
                return False
        return True

    def release(self, purpose: Purpose, n: int) -> None:
        """As :meth:`Ledger.release`."""
        left = self.held_for(purpose) - n
        assert left >= 0, f"released {-left} bytes of {purpose.value} that were never charged"
        if purpose is Purpose.CONNECTION:
            self._connection = left
        elif left:
            self._others[purpose] = left
        else:
            self._others.pop(purpose, None)
            if not self._others:
                # A dict keeps the room it once had.
                self._others = {}
        self.held -= n
        for prefix in self._prefixes:
            prefix.held -= n
        ledger = self._ledger
        ledger._by_purpose[purpose] -= n
        ledger.held -= n
        if ledger.held < ledger._falls_at:
            ledger._change_level()

    def held_for(self, purpose: Purpose) -> int:
        """Bytes held for `purpose` now."""
        return self._connection if purpose is Purpose.CONNECTION else self._others.get(purpose, 0)

    def _held_for_each(self) -> list[tuple[Purpose, int]]:
        return [(Purpose.CONNECTION, self._connection), *self._others.items()]

    def note(self, name: str) -> None:
        """As :meth:`Ledger.note`."""
        self._ledger.note(name)

    # --- whose it is -----------------------------------------------------------------------

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """The accounts of the peer's prefixes, once its address is proved."""
        return self._prefixes

    def place(self, address: object) -> None:
        """The peer's address is proved, or another one by now: what it holds counts there."""
        self._displace()
        self._prefixes = self._ledger.prefixes.enter(prefixes_of(address))
        for prefix in self._prefixes:
            prefix.held += self.held
            prefix.connections += self._connections
            prefix.handshakes += self._handshakes

    def _displace(self) -> None:
        for prefix in self._prefixes:
            prefix.held -= self.held
            prefix.connections -= self._connections
            prefix.handshakes -= self._handshakes
        self._ledger.prefixes.leave(self._prefixes)
        self._prefixes = ()

    def handshake_over(self, limit: int) -> None:
        """The peer is established: it counts as such, and `limit` is its cap from now on."""
        for prefix in self._prefixes:
            prefix.handshakes -= self._handshakes
        self._handshakes = 0
        self.limit = limit

    def wind_down(self, outliving: tuple[Purpose, ...]) -> None:
        """The connection is over: release all but what is held for these purposes.

        The rest goes as its owner takes it, or with this account itself: an application that drops a
        connection without reading what came for it holds nothing any more.
        """
        for prefix in self._prefixes:
            prefix.connections -= self._connections
            prefix.handshakes -= self._handshakes
        self._connections = self._handshakes = 0
        for purpose, n in self._held_for_each():
            if n and purpose not in outliving:
                self.release(purpose, n)
        if not self.held:
            self._displace()

    def __del__(self) -> None:
        if self.held:
            self.close()

    def close(self) -> None:
        """Release everything still charged.  May be called twice."""
        self._displace()
        for purpose, n in self._held_for_each():
            if n:
                self._ledger.release(purpose, n)
        self._connection = self.held = 0
        self._others = {}
