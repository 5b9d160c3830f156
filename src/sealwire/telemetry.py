"""Counters and histograms, each declared once with its unit and meaning; no output here.

A counter is a field of :class:`ConnectionCounters` or :class:`EndpointCounters` whose metadata
says what one unit of it is and what it means; exposition, documentation and tests read that.
A :class:`Histogram` is one whose values are sorted into fixed buckets as they come.  Discards are
counted apart, by reason, because the reasons are declared with the protocol
(:class:`sealwire.errors.Discard`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from sealwire.errors import Discard


def counter(unit: str, meaning: str) -> Any:
    """Declare a counter field that starts at zero."""
    return field(default=0, metadata={"unit": unit, "meaning": meaning})


class Histogram:
    """How many values fell into each of fixed buckets, and their sum.

    Attributes:
        bounds: the upper bounds of the buckets, included; above the last there is one more.
        counts: values per bucket.
        sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        if list(bounds) != sorted(set(bounds)) or not bounds:
            raise ValueError("the bounds of a histogram rise, and there is one at least")
        self.bounds: Final = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def add(self, other: Histogram) -> None:
        """Count what `other`, of the same bounds, has counted."""
        assert self.bounds == other.bounds
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum


def histogram(unit: str, meaning: str, bounds: Sequence[float]) -> Any:
    """Declare a histogram field."""
    return field(
        default_factory=lambda: Histogram(bounds),
        metadata={"unit": unit, "meaning": meaning, "bounds": tuple(bounds)},
    )


CountersT = TypeVar("CountersT", bound="Counters")


@dataclass(slots=True)
class Counters:
    """What every kind of counter set has: discards by reason, and a snapshot."""

    discards: dict[Discard, int] = field(default_factory=dict)

    def discard(self, reason: Discard, count: int = 1) -> None:
        """Count dropped records, messages or datagrams."""
        if self.discards is _NO_DISCARDS:
            self.discards = {}
        self.discards[reason] = self.discards.get(reason, 0) + count

    def snapshot(self) -> dict[str, int]:
        """Name to value of each counter, discards as ``discard.<name>``."""
        values = {name: getattr(self, name) for name in _names(self)[0]}
        values.update({f"discard.{reason.name.lower()}": n for reason, n in self.discards.items()})
        return values

    def add(self: CountersT, other: CountersT) -> None:
        """Count what `other`, of the same kind, has counted."""
        plain, histograms = _names(self)
        for name in plain:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in histograms:
            getattr(self, name).add(getattr(other, name))
        for reason, n in other.discards.items():
            self.discard(reason, n)


# Names of the fields of each kind of set: (counters, histograms).
_NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}


def _names(counters: Counters) -> tuple[tuple[str, ...], tuple[str, ...]]:
    key = type(counters).__qualname__
    if key not in _NAMES:
        declared = [f for f in fields(counters) if f.metadata]
        _NAMES[key] = (
            tuple(f.name for f in declared if "bounds" not in f.metadata),
            tuple(f.name for f in declared if "bounds" in f.metadata),
        )
    return _NAMES[key]


# Of whom nothing was dropped; nobody can write to it.
_NO_DISCARDS: Final = cast("dict[Discard, int]", MappingProxyType({}))


@dataclass(slots=True)
class ConnectionCounters(Counters):
    """What one connection did."""

    discards: dict[Discard, int] = field(default_factory=lambda: _NO_DISCARDS)

    datagrams_received: int = counter("datagrams", "datagrams handed to this connection")
    datagrams_sent: int = counter("datagrams", "datagrams this connection produced")
    bytes_received: int = counter("bytes", "bytes of those datagrams or stream reads")
    bytes_sent: int = counter("bytes", "bytes this connection produced")
    records_opened: int = counter("records", "protected records that authenticated")
    records_sealed: int = counter("records", "protected records made")
    messages_received: int = counter("messages", "application messages delivered")
    messages_sent: int = counter("messages", "application messages accepted for sending")
    early_messages_received: int = counter("messages", "early data accepted, which may be a replay elsewhere")
    early_messages_sent: int = counter("messages", "application messages sent as early data")
    retransmissions: int = counter("transmissions", "flights or parts of flights sent again")
    acks_sent: int = counter("records", "ACK records sent")
    acks_received: int = counter("records", "ACK records received")
    key_updates: int = counter("updates", "traffic key changes after the handshake, both directions")
    rekeyed_by_age: int = counter("updates", "KeyUpdates of ours because the keys were old")
    rekeyed_by_use: int = counter("updates", "KeyUpdates of ours because the keys had sealed much")
    rekeyed_by_forgeries: int = counter("updates", "KeyUpdates of ours because many records did not open")
    key_requests_ignored: int = counter("updates", "requests for new keys when none were left")
    messages_too_long: int = counter("messages", "messages given up because a datagram carries less by now")


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """How much the keys in use have done, of what they may (RFC 9147 section 4.5.3).

    Attributes:
        sending_epoch, receiving_epoch: 3 after the handshake, one more with each KeyUpdate.
        sealed, seal_limit: records sealed under the sending keys, and how many they may seal.
        opened: records that authenticated under the newest receiving keys.
        forged, forgery_limit: records that did not, and how many end the connection.
    """

    sending_epoch: int
    sealed: int
    seal_limit: int
    receiving_epoch: int
    opened: int
    forged: int
    forgery_limit: int


@dataclass(slots=True)
class EndpointCounters(Counters):
    """What one endpoint (a socket's worth of peers) did."""

    datagrams_received: int = counter("datagrams", "datagrams received on the socket")
    datagrams_sent: int = counter("datagrams", "datagrams sent on the socket")
    datagrams_unsendable: int = counter("datagrams", "of those, refused by the kernel or the path")
    datagrams_overflowed: int = counter("datagrams", "dropped by the kernel: the data socket was full")
    hellos_overflowed: int = counter("datagrams", "dropped by the kernel: the handshake socket was full")
    datagrams_forwarded: int = counter("datagrams", "given to the worker whose connection id they carry")
    datagrams_unforwarded: int = counter("datagrams", "lost because that worker's queue was full")
    unproved_bytes_received: int = counter("bytes", "bytes of ClientHellos of addresses that are not proved")
    unproved_bytes_sent: int = counter("bytes", "bytes of the answers to them, at most three times as many")
    hello_retry_requests: int = counter("datagrams", "stateless cookies handed out")
    cookies_accepted: int = counter("hellos", "ClientHellos whose cookie proved the address")
    cookies_refused: int = counter("hellos", "ClientHellos with a forged, foreign or expired cookie")
    tickets_as_proof: int = counter("hellos", "ClientHellos whose ticket proved the address")
    associations_left: int = counter("connections", "moved to the next process of a worker's slot")
    associations_taken: int = counter("connections", "that the process before in a worker's slot had")
    associations_refused: int = counter("connections", "that it left and that could not be gone on with")
    connections_opened: int = counter("connections", "connections created after address proof")
    early_data_accepted: int = counter("hellos", "ClientHellos whose early data was accepted")
    early_data_rejected: int = counter("hellos", "ClientHellos whose early data was refused, copies included")
    handshakes_completed: int = counter("handshakes", "handshakes that finished")
    handshake_seconds: Histogram = histogram(  # noqa: RUF009 - a field, and each its own
        "seconds",
        "from the hello that was admitted to the end of its handshake",
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    )
    handshakes_failed: int = counter("handshakes", "handshakes that ended otherwise")
    address_changes: int = counter("moves", "connections that went on at another address of their peer")
    connections_closed: int = counter("connections", "connections gone, for whatever reason")
    connections_hibernated: int = counter("times", "times an idle connection was put to sleep")
    connections_woken: int = counter("times", "times one that slept was wanted again")
    connections_shed: int = counter("connections", "established peers closed to make room for others")
    handshakes_shed: int = counter("connections", "half-open peers closed to make room for others")
    admissions_refused: int = counter("hellos", "proved peers turned away by limits or policy")
    # Totals over all connections of what honest peers do seldom; the detectors read them.
    records_forged: int = counter("records", "records to connections that did not authenticate")
    fragments_received: int = counter("fragments", "handshake fragments given to connections")
    fragments_small: int = counter("fragments", "of those, below 64 bytes and not the end of a message")
    fragments_refused: int = counter("fragments", "of those, contradicting others, too far ahead or too many")
    key_updates_idle: int = counter("updates", "KeyUpdates of peers beyond two without data between them")
    acks_idle: int = counter("records", "ACKs of peers that acknowledged nothing")
    connections_used: int = counter("connections", "connections over which application data came or went")
    connections_wasted: int = counter("connections", "complete connections closed without any data")
    handshakes_slow: int = counter(
        "handshakes", "handshakes whose peer still sent after a sixth of their time"
    )
    handshakes_broken: int = counter("handshakes", "handshakes ended by an alert or an error, not by silence")
    attacks_detected: int = counter("attacks", "attacks that began, as the detectors see it")
    under_load_entered: int = counter("times", "times the endpoint went under load")


@dataclass(slots=True)
class ProxyCounters(Counters):
    """What a proxy did, beside what its connections did."""

    passages_finished: int = counter("connections", "proxied connections whose two sides ended in order")
    passages_broken: int = counter("connections", "proxied connections that one side reset or cut short")
    passages_idle: int = counter(
        "connections", "proxied connections ended because nothing moved for too long"
    )
    passages_cut: int = counter("connections", "proxied connections ended because the proxy ended")
    bytes_to_plain: int = counter("bytes", "bytes from the secure side to the plain one")
    bytes_to_secure: int = counter("bytes", "bytes from the plain side to the secure one")
    backends_unreachable: int = counter("connections", "connections onward that could not be made")
    clients_refused: int = counter(
        "connections", "clients that no route is for, or whose name is not allowed"
    )
    headers_refused: int = counter(
        "connections", "connections without a valid PROXY protocol header, or from who may not send one"
    )
    accepts_paused: int = counter(
        "times", "times no more connections were accepted because a limit was reached"
    )
    reloads: int = counter("times", "times certificates and keys were read again")
    reloads_failed: int = counter("times", "times they could not be, and the ones before stayed")


@dataclass(frozen=True, slots=True)
class PeerReport:
    """What one peer costs now, for whoever runs the server.

    Attributes:
        peer: its address, as people write it.
        number: tells connections of one address apart, for as long as the process lives.
        state: ``handshaking``, ``connected``, ``closing`` or ``closed``.
        age_seconds: since its hello was admitted.
        held_bytes: charged for it in the ledger.
        bytes_received, bytes_sent, records_opened, records_sealed: so far.
        discards: what was dropped of it.
    """

    peer: str
    number: int
    state: str
    age_seconds: float
    held_bytes: int
    bytes_received: int
    bytes_sent: int
    records_opened: int
    records_sealed: int
    discards: int
