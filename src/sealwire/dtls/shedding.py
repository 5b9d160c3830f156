"""Who has to go when memory or places run out: strangers first, then half-open peers, then established ones.

Strangers hold nothing but fixed tables, and at 95 % of total_bytes none of them gets further.  Of the
half-open the largest go, the oldest among equals.  Of the established the largest and idlest go: those
with the highest product of bytes held and seconds of silence, so that a busy peer and a small one
outlast an idle hoarder.  It stops at 90 %, so each look at all peers frees a twentieth of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sealwire.dtls.connection import Connection
from sealwire.dtls.cookie import Address
from sealwire.dtls.resting import Resting
from sealwire.errors import LimitReached
from sealwire.limits import Limits, Policy, Pressure
from sealwire.limits.pressure import begins_at
from sealwire.telemetry import EndpointCounters

# A handshake younger than this may be an honest one on its way; so long is a round trip around the world
# with a retransmission (RFC 9147 section 5.8.2).
_LEAST_HANDSHAKE_SECONDS: Final = 1.0
# A connection that was silent for less is in use.
_LEAST_IDLE_SECONDS: Final = 60.0
# Silence counts at least so much, else a large peer that spoke just now would weigh nothing.
_LEAST_SILENCE_SECONDS: Final = 1.0


class Shedding:
    """Closes peers of an endpoint, where a limit says so.

    Idle ones are put to sleep before anybody is closed.

    `settle` is what the endpoint does with a connection that something happened to.
    """

    __slots__ = ("_counters", "_ledger", "_limits", "_peers", "_resting", "_settle")

    def __init__(
        self,
        resting: Resting,
        limits: Limits,
        counters: EndpointCounters,
        settle: Callable[[Connection], None],
    ) -> None:
        self._resting = resting
        self._peers, self._ledger = resting.peers, resting.ledger
        self._limits = limits
        self._counters = counters
        self._settle = settle

    def make_room(self, address: Address, now: float, *, proved: bool) -> bool:
        """Whether the limits let a newcomer in, after closing somebody where they say so."""
        if self._ledger.level is Pressure.CRITICAL:
            self._ledger.note("total_bytes")
            return False
        prefixes = self._ledger.prefixes
        limit = self._peers.full(address, self._limits, prefixes, proved=proved)
        if limit is None:
            return True
        self._ledger.note(limit)
        gives_way = self._for_place(limit, now)
        if gives_way is None:
            return False
        self._close(gives_way, limit)
        return self._peers.full(address, self._limits, prefixes, proved=proved) is None

    def relieve(self, now: float) -> None:
        """Memory is nearly used up: make room, if somebody may be closed for that."""
        if self._limits.total_policy is not Policy.SHED:
            return
        self._ledger.note("total_bytes")
        self._resting.relieve(now)
        for connection in self._for_memory(now):
            self._close(connection, "total_bytes")

    def _close(self, connection: Connection, limit: str) -> None:
        if connection.was_connected:
            self._counters.connections_shed += 1
        else:
            self._counters.handshakes_shed += 1
        connection.give_up(LimitReached(limit, "the peer was closed to make room for others"))
        self._settle(connection)

    def _for_memory(self, now: float) -> Iterator[Connection]:
        """Whom to close next, until enough is free; each must be closed before the next is asked for."""
        goal = begins_at(Pressure.HIGH, self._limits.total_bytes)
        peers = self._peers
        half_open = sorted(peers.half_open, key=_held, reverse=True)
        for connection in half_open:
            if self._ledger.held < goal:
                return
            yield connection

        def cost(connection: Connection) -> float:
            silence = now - peers.idle_since(connection)
            return connection.held_bytes * max(silence, _LEAST_SILENCE_SECONDS)

        for connection in sorted((*peers.established, *peers.resting), key=cost, reverse=True):
            if self._ledger.held < goal:
                return
            yield connection

    def _for_place(self, limit: str, now: float) -> Connection | None:
        """Whom to close so that a newcomer fits below the limit of that name; None if it is refused."""
        if limit == "handshakes" and self._limits.handshakes_policy is Policy.REPLACE:
            return _first(self._peers.half_open, now - _LEAST_HANDSHAKE_SECONDS)
        if limit == "connections" and self._limits.connections_policy is Policy.SHED:
            before = now - _LEAST_IDLE_SECONDS
            return _first(self._peers.resting, before) or _first(self._peers.established, before)
        return None


def _held(connection: Connection) -> int:
    return connection.held_bytes


def _first(table: dict[Connection, float], before: float) -> Connection | None:
    """The first of a table in order of time, if its time is before that."""
    for connection, at in table.items():
        return connection if at <= before else None
    return None
