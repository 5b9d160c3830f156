"""The running account of bytes held for peers: one ledger, an account per connection, one per prefix.

A charge asks the connection's own cap, those of its peer's prefixes, that of its purpose and the cap
over all, in that order, and is made everywhere or nowhere.  All of it is additions and comparisons,
whatever the number of peers.  Each refusal is counted under the name of the limit that made it.
"""

from __future__ import annotations

from collections.abc import Callable

from sealwire.limits.charging import PURPOSE_LIMITS, AccountSums, LedgerSums, Purpose
from sealwire.limits.declared import Limits
from sealwire.limits.prefixes import Prefix, PrefixTable, prefixes_of
from sealwire.limits.pressure import Pressure, begins_at, ends_at, level_of

__all__ = ["PURPOSE_LIMITS", "Account", "Ledger", "Purpose"]

PressureListener = Callable[[Pressure, Pressure], None]

# A purpose without a cap of its own has the one over all.
_CAPS: tuple[tuple[Purpose, str], ...] = tuple(
    (purpose, PURPOSE_LIMITS.get(purpose, "total_bytes")) for purpose in Purpose
)


class Ledger(LedgerSums):
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

    __slots__ = ("_listeners", "level", "prefixes", "reached", "refusals", "refused_by")

    def __init__(self, limits: Limits | int) -> None:
        """`limits` as a number is a cap over all, with the other limits as they are by default."""
        if isinstance(limits, int):
            own = min(limits, Limits().connection_bytes)
            limits = Limits(total_bytes=limits, connection_bytes=own)
        super().__init__(limits.total_bytes, {purpose: getattr(limits, name) for purpose, name in _CAPS})
        self.refusals = 0
        self.refused_by = ""
        self.reached: dict[str, int] = {}
        self.level = Pressure.NONE
        self.prefixes = PrefixTable(limits)
        self._listeners: list[PressureListener] = []
        self._follow_level()

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


class Account(AccountSums):
    """One connection's part of a ledger, with a cap of its own, and its share of its prefixes'.

    Attributes:
        held: bytes held now.
        limit: the cap; it changes when the handshake is over.
    """

    __slots__ = ()
    _ledger: Ledger
    _prefixes: tuple[Prefix, ...]

    def __init__(self, ledger: Ledger, limit: int, *, is_connection: bool = True) -> None:
        super().__init__(ledger, limit, is_connection)

    @property
    def ledger(self) -> Ledger:
        """The ledger this account is in."""
        return self._ledger

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
        self._forget()
