"""What accepts connections over TCP, servers and proxies: when to pause, and what whoever watches is told."""

from __future__ import annotations

import errno
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

from sealwire import stcp
from sealwire.drive.facts import ProcessBound
from sealwire.drive.reports import costliest, report
from sealwire.limits import Ledger, Limits
from sealwire.telemetry import ConnectionCounters, EndpointCounters, PeerReport

BACKLOG: Final = 128
# Out of file descriptors or memory: accepting again at once would only fail again.
EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
EXHAUSTED_SECONDS: Final = 1.0


class Accepting(ProcessBound, ABC):
    """The base of both, as `sealwire.monitor` reads it.

    Attributes:
        sockets: the listening sockets; empty once closed.
        counters: what the secure side did.
        ledger: what all connections hold.
    """

    transport = "tls"

    def __init__(self, sockets: Iterable[socket.socket], limits: Limits) -> None:
        super().__init__()
        self.sockets: tuple[socket.socket, ...] = tuple(sockets)
        self.counters = EndpointCounters()
        self.ledger = Ledger(limits)
        self._limits = limits
        # What connections that are gone have counted.
        self._retired = ConnectionCounters()

    @property
    @abstractmethod
    def connections(self) -> int:
        """Connections now, handshakes included."""

    @property
    @abstractmethod
    def handshaking(self) -> int:
        """Connections whose handshake is not finished."""

    @abstractmethod
    def _secure(self) -> Iterable[tuple[stcp.Connection, str]]:
        """The connections there are, and whose they are."""

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """What all its connections hold: one ledger."""
        return (self.ledger,)

    def endpoint_counters(self) -> EndpointCounters:
        """The counters of the secure side, a copy."""
        counters = EndpointCounters()
        counters.add(self.counters)
        return counters

    def connection_counters(self) -> ConnectionCounters:
        """What all connections have counted, those that are gone as well."""
        totals = ConnectionCounters()
        totals.add(self._retired)
        for connection, _ in self._secure():
            totals.add(connection.counters)
        return totals

    def top_peers(self, n: int = 10, by: str = "held_bytes") -> list[PeerReport]:
        """The `n` connections that cost most; `by` is one of :data:`sealwire.drive.reports.COSTS`."""
        now = time.monotonic()
        return costliest((report(connection, whose, now) for connection, whose in self._secure()), n, by)
