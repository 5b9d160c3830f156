"""Who can be watched, and one consistent reading of it.

A source is a server, or anything with the same attributes; nothing of it is changed by being read, and
nothing is counted twice: counters are read where they are, when somebody asks.  Reading happens in the
thread of the source's event loop, so that a reading is of one moment.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol

from sealwire.limits import Ledger, Limits, Policy, Pressure, Purpose
from sealwire.limits.ledger import PURPOSE_LIMITS
from sealwire.telemetry import ConnectionCounters, EndpointCounters, PeerReport

_PAGE_BYTES: Final = resource.getpagesize()


class Source(Protocol):
    """What :class:`Monitor` reads: both kinds of servers are one."""

    @property
    def transport(self) -> str:
        """``"dtls"`` or ``"tls"``."""

    @property
    def limits(self) -> Limits: ...
    @property
    def ledgers(self) -> Sequence[Ledger]: ...
    @property
    def connections(self) -> int: ...
    @property
    def handshaking(self) -> int: ...
    def is_serving(self) -> bool: ...
    def endpoint_counters(self) -> EndpointCounters: ...
    def connection_counters(self) -> ConnectionCounters: ...
    def top_peers(self, n: int = ..., by: str = ...) -> list[PeerReport]: ...


@dataclass(frozen=True, slots=True)
class Tally:
    """Counters of what is no server, or of what a server does beside serving.

    Attributes:
        part: the word in the names of its metrics: ``proxy`` for ``sealwire_proxy_...``.
        read: gives the counters as they are: a dataclass whose fields are declared with unit and meaning
            (:func:`sealwire.telemetry.counter`).
        gauges: names of fields that fall as well.
    """

    part: str
    read: Callable[[], Any]
    gauges: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reading:
    """One source at one moment."""

    server: str
    transport: str
    serving: bool
    connections: int
    handshaking: int
    held_bytes: int
    held_limit_bytes: int
    held_peak_bytes: int
    charges_refused: int
    pressure: int
    held_by_purpose: dict[str, int]
    limits: tuple[LimitReading, ...]
    endpoint: EndpointCounters
    totals: ConnectionCounters


@dataclass(frozen=True, slots=True)
class LimitReading:
    """One limit at one moment.

    Attributes:
        name: its field in :class:`sealwire.Limits`.
        value: as configured.
        unit, scope, happens: what it counts, what it is a limit of, what happens at it.
        used: how much of it is used now, None where nothing accumulates.
        reached: how often it was.
    """

    name: str
    value: float
    unit: str
    scope: str
    happens: str
    used: float | None
    reached: int


@dataclass(frozen=True, slots=True)
class Process:
    """The process at one moment; sizes in bytes, times in seconds."""

    resident_bytes: int
    cpu_seconds: float
    open_descriptors: int

    @classmethod
    def now(cls) -> Process:
        """What the kernel says; zeros for what it does not say here."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        try:
            with open("/proc/self/statm") as statm:
                resident = int(statm.read().split()[1]) * _PAGE_BYTES
            descriptors = len(os.listdir("/proc/self/fd")) - 1
        except OSError:  # not Linux
            resident, descriptors = used.ru_maxrss, 0
        return cls(resident, used.ru_utime + used.ru_stime, descriptors)


def read(server: str, source: Source) -> Reading:
    """One consistent reading of `source`, which is called `server`."""
    ledgers = source.ledgers
    return Reading(
        server=server,
        transport=source.transport,
        serving=source.is_serving(),
        connections=source.connections,
        handshaking=source.handshaking,
        held_bytes=sum(ledger.held for ledger in ledgers),
        held_limit_bytes=sum(ledger.limit for ledger in ledgers),
        held_peak_bytes=sum(ledger.peak for ledger in ledgers),
        charges_refused=sum(ledger.refusals for ledger in ledgers),
        pressure=max((ledger.level for ledger in ledgers), default=Pressure.NONE),
        held_by_purpose={
            purpose.value: sum(ledger.held_for(purpose) for ledger in ledgers) for purpose in Purpose
        },
        limits=_limits(source),
        endpoint=source.endpoint_counters(),
        totals=source.connection_counters(),
    )


def _limits(source: Source) -> tuple[LimitReading, ...]:
    """Each limit of `source`.  A limit is of one socket: of several, the one that is nearest to it counts."""
    ledgers, limits = source.ledgers, source.limits
    sockets = max(1, len(ledgers))
    used: dict[str, float] = {
        "total_bytes": max((ledger.held for ledger in ledgers), default=0),
        # Which socket has how many is not asked; on average.
        "connections": source.connections / sockets,
        "handshakes": source.handshaking / sockets,
    }
    costliest = source.top_peers(1)
    used["connection_bytes"] = costliest[0].held_bytes if costliest else 0
    for purpose, name in PURPOSE_LIMITS.items():
        used[name] = max((ledger.held_for(purpose) for ledger in ledgers), default=0)
    found = []
    for declared in fields(limits):
        if "unit" not in declared.metadata:
            continue  # what happens at another limit
        policy = declared.metadata["policy"]
        policy = policy if isinstance(policy, Policy) else getattr(limits, policy)
        name = declared.name
        found.append(
            LimitReading(
                name=name,
                value=getattr(limits, name),
                unit=declared.metadata["unit"],
                scope=declared.metadata["scope"].value,
                happens=policy.value,
                used=used.get(name),
                reached=sum(ledger.reached.get(name, 0) for ledger in ledgers),
            )
        )
    return tuple(found)


@dataclass
class Monitor:
    """What is watched, by name.

    Attributes:
        sources: servers by the name they have in metrics: a closed set that you choose.
        tallies: further counters, by the name they have there and their part.
    """

    sources: dict[str, Source] = field(default_factory=dict)
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    def watch(self, source: Source, server: str = "") -> None:
        """Watch `source` as `server`, by default the name of its transport.

        Raises:
            ValueError: the name is taken.
        """
        server = server or source.transport
        if server in self.sources:
            raise ValueError(f"{server!r} is watched already: give this server another name")
        self.sources[server] = source

    def count(self, name: str, tally: Tally) -> None:
        """Show `tally` as ``server="name"``, which may be the name of a source.

        Raises:
            ValueError: there is one of that name and part.
        """
        if (name, tally.part) in self.tallies:
            raise ValueError(f"{name!r} has a {tally.part} already: give these counters another name")
        self.tallies[name, tally.part] = tally

    def read(self) -> list[Reading]:
        """A reading of every source."""
        return [read(name, source) for name, source in self.sources.items()]

    def not_ready(self) -> str:
        """Why no new peer should be sent here, in words; "" if they may come."""
        if not self.sources and not self.tallies:
            return "no server is watched"
        for name, source in self.sources.items():
            if not source.is_serving():
                return f"{name} is closing"
            if source.connections >= source.limits.connections * max(1, len(source.ledgers)):
                return f"{name} has as many connections as its limit allows"
            for ledger in source.ledgers:
                if ledger.level is Pressure.CRITICAL:
                    return f"{name} holds {ledger.held} of {ledger.limit} bytes"
        return ""
