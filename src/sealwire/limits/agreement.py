"""Whether limits agree: with each other, and with the machine they are set on.

A limit that another one makes unreachable protects nobody, and one above what the machine has is not
what happens first.  Each disagreement names its two sides.  What the machine has is read by
:func:`sealwire.drive.machine.read_machine`; here is arithmetic only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from sealwire.limits import weights
from sealwire.limits.declared import Limits
from sealwire.limits.prefixes import PREFIX_BYTES

# An IPv6 peer is in two prefixes.
_PREFIXES_PER_CONNECTION: Final = 2
# A Certificate message has more in it than certificates: lengths, extensions, a context.
_MESSAGE_SPARE_BYTES: Final = 1024
# Descriptors beside those of connections: listening sockets, event loop, logs, what the application opens.
_OTHER_DESCRIPTORS: Final = 64
# What the ledger does not see: the application, fragmentation, kernel buffers of a cgroup.
_SHARE_PERCENT: Final = 75


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine, or the cgroup a process is in, allows; None where it sets no bound.

    Attributes:
        memory_bytes: the least of the cgroups' memory limits and the memory there is.
        memory_source: what says so.
        descriptors: files and sockets this process may have open (RLIMIT_NOFILE).
        receive_buffer_bytes: the largest socket receive buffer (net.core.rmem_max).
    """

    memory_bytes: int | None = None
    memory_source: str = "memory"
    descriptors: int | None = None
    receive_buffer_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two numbers that do not go together.

    Attributes:
        first: a field of :class:`Limits`, or what the program asks of the machine.
        second: another field, or what the machine has.
        why: one sentence for people, with the numbers.
    """

    first: str
    second: str
    why: str

    def __str__(self) -> str:
        return f"{self.first} and {self.second} do not agree: {self.why}"


@dataclass(frozen=True, slots=True)
class Sizing:
    """Predicted memory of a server, in bytes.

    Attributes:
        process: before any peer.
        tables: fixed tables: slots for split hellos.
        connections: established peers, idle.
        handshakes: half-open ones.
        queues: data that waits.
    """

    process: int
    tables: int
    connections: int
    handshakes: int
    queues: int

    @property
    def total(self) -> int:
        return self.process + self.tables + self.connections + self.handshakes + self.queues


def predict_memory(
    connections: int, *, handshakes: int = 0, queued_bytes: int = 0, limits: Limits | None = None
) -> Sizing:
    """What a DTLS server with so many idle peers takes, by the measured weights.

    Args:
        connections: established peers.
        handshakes: peers in their handshake at the same time.
        queued_bytes: data waiting per established peer, on average, in both directions together.
        limits: for the fixed tables.
    """
    each = weights.CONNECTION_BYTES + _PREFIXES_PER_CONNECTION * PREFIX_BYTES
    more = weights.HALF_OPEN_BYTES + _PREFIXES_PER_CONNECTION * PREFIX_BYTES
    return Sizing(
        process=weights.PROCESS_BYTES,
        tables=tables_bytes(limits or Limits()),
        connections=connections * each,
        handshakes=handshakes * more,
        queues=connections * queued_bytes,
    )


def tables_bytes(limits: Limits) -> int:
    """What an endpoint's fixed tables take once they are used."""
    return limits.hello_slots * (limits.hello_slot_bytes + weights.SLOT_OVERHEAD_BYTES)


def fit(limits: Limits, machine: Machine) -> Limits:
    """`limits` with total_bytes, and what must stay below it, lowered to what the machine has."""
    if machine.memory_bytes is None:
        return limits
    room = machine.memory_bytes * _SHARE_PERCENT // 100 - weights.PROCESS_BYTES - tables_bytes(limits)
    total = max(min(limits.total_bytes, room), weights.HALF_OPEN_BYTES)
    if total >= limits.total_bytes:
        return limits
    connections = max(min(limits.connections, total // weights.HALF_OPEN_BYTES), 1)
    lowered: dict[str, Any] = {
        "connections": connections,
        "handshakes": min(limits.handshakes, connections),
        "prefix_connections": min(limits.prefix_connections, connections),
        "prefix_handshakes": min(limits.prefix_handshakes, connections),
        "site_connections": min(limits.site_connections, connections),
        "site_handshakes": min(limits.site_handshakes, connections),
        "connection_bytes": min(limits.connection_bytes, total),
        "handshake_bytes": min(limits.handshake_bytes, total),
        "prefix_bytes": min(limits.prefix_bytes, total),
        "site_bytes": min(limits.site_bytes, total),
    }
    return replace(limits, total_bytes=total, **lowered)


def check_limits(
    limits: Limits, machine: Machine | None = None, *, streams: bool = False, receive_buffer_bytes: int = 0
) -> list[Disagreement]:
    """The pairs that do not agree, none if all do.

    Args:
        limits: as configured.
        machine: what it runs on; None for the limits alone.
        streams: whether each connection has a descriptor of its own (TCP).
        receive_buffer_bytes: what is asked for a socket.
    """
    found = list(_among_limits(limits))
    if machine is not None:
        found += _with_machine(limits, machine, streams, receive_buffer_bytes)
    return found


def _among_limits(limits: Limits) -> Iterator[Disagreement]:
    yield from _not_above(limits, _ORDERED)
    idle = (limits.connections - limits.handshakes) * weights.CONNECTION_BYTES
    needed = idle + limits.handshakes * weights.HALF_OPEN_BYTES
    if needed > limits.total_bytes:
        yield Disagreement(
            "connections",
            "total_bytes",
            f"{limits.connections} connections, {limits.handshakes} of them in their handshake, take {needed}"
            f" bytes without any data, and {limits.total_bytes} are allowed",
        )
    chain = limits.certificate_chain_bytes + _MESSAGE_SPARE_BYTES
    if chain > limits.handshake_message_bytes:
        yield Disagreement(
            "certificate_chain_bytes",
            "handshake_message_bytes",
            f"the message with such a chain has up to {chain} bytes,"
            f" and {limits.handshake_message_bytes} are allowed",
        )
    queues = limits.receive_queue_bytes + limits.send_queue_bytes + weights.CONNECTION_BYTES
    if queues > limits.connection_bytes:
        yield Disagreement(
            "receive_queue_bytes and send_queue_bytes",
            "connection_bytes",
            f"a connection with both queues full holds {queues} bytes,"
            f" and {limits.connection_bytes} are allowed",
        )
    # One direction at a time; both at once need twice as much.
    message = limits.message_bytes + max(limits.receive_queue_bytes, limits.send_queue_bytes)
    if message + weights.STREAM_BYTES > limits.connection_bytes and _chosen(limits, "message_bytes"):
        yield Disagreement(
            "message_bytes",
            "connection_bytes",
            f"a connection with such a message behind a full queue holds {message} bytes,"
            f" and {limits.connection_bytes} are allowed",
        )
    shaking = limits.reassembly_bytes + weights.HALF_OPEN_BYTES
    if shaking > limits.handshake_bytes:
        yield Disagreement(
            "reassembly_bytes",
            "handshake_bytes",
            f"a handshake with that much in reassembly holds {shaking} bytes,"
            f" and {limits.handshake_bytes} are allowed",
        )
    prefixes = _PREFIXES_PER_CONNECTION * limits.connections
    if prefixes > limits.prefixes:
        yield Disagreement(
            "connections",
            "prefixes",
            f"{limits.connections} IPv6 peers may have {prefixes} prefixes,"
            f" and {limits.prefixes} have an account",
        )


_DEFAULT: Final = Limits()


def _chosen(limits: Limits, name: str) -> bool:
    """Whether somebody chose this number: one left as it is makes room for a lower one beside it."""
    return bool(getattr(limits, name) != getattr(_DEFAULT, name))


# The first may not be above the second: it could never be reached.
_ORDERED: Final = (
    ("handshake_bytes", "total_bytes"),
    ("connection_bytes", "prefix_bytes"),
    ("prefix_bytes", "site_bytes"),
    ("prefix_bytes", "total_bytes"),
    ("site_bytes", "total_bytes"),
    ("prefix_handshakes", "prefix_connections"),
    ("prefix_handshakes", "handshakes"),
    ("prefix_connections", "site_connections"),
    ("prefix_handshakes", "site_handshakes"),
    ("site_connections", "connections"),
    ("site_handshakes", "handshakes"),
    ("handshake_message_bytes", "reassembly_bytes"),
    ("handshake_message_bytes", "established_reassembly_bytes"),
    ("established_reassembly_bytes", "connection_bytes"),
)


def _not_above(limits: Limits, pairs: tuple[tuple[str, str], ...]) -> Iterator[Disagreement]:
    for first, second in pairs:
        low, high = getattr(limits, first), getattr(limits, second)
        if low > high and _chosen(limits, first):
            yield Disagreement(first, second, f"{low} is above {high} and can never be reached")


def _with_machine(
    limits: Limits, machine: Machine, streams: bool, receive_buffer_bytes: int
) -> Iterator[Disagreement]:
    if machine.memory_bytes is not None:
        needed = limits.total_bytes + tables_bytes(limits) + weights.PROCESS_BYTES
        if needed > machine.memory_bytes:
            yield Disagreement(
                "total_bytes",
                machine.memory_source,
                f"with tables and program {needed} bytes are needed, and there are {machine.memory_bytes}",
            )
    if streams and machine.descriptors is not None and _chosen(limits, "connections"):
        descriptors = limits.connections + _OTHER_DESCRIPTORS
        if descriptors > machine.descriptors:
            yield Disagreement(
                "connections",
                "RLIMIT_NOFILE",
                f"{descriptors} descriptors are needed for so many streams,"
                f" and {machine.descriptors} may be open",
            )
    if machine.receive_buffer_bytes is not None and receive_buffer_bytes > machine.receive_buffer_bytes:
        yield Disagreement(
            "receive buffer",
            "net.core.rmem_max",
            f"{receive_buffer_bytes} bytes are asked for, and {machine.receive_buffer_bytes} are given",
        )
