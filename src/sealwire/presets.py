"""Presets: limits, timers and how small sends are collected, for five kinds of connections.

    server = await sealwire.start_datagram_server(handler, host, port, context=context,
                                                  **sealwire.presets.STREAMING.datagrams())

A preset says how much may wait, for how long, and when it leaves.  It has nothing to say about who the
peer is or what is checked: certificates, suites, replay windows and cookies are the Context's, or the
defaults of Limits, which no preset touches (docs/presets.md has what each of them changes, measured).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypedDict

from sealwire.dtls import Upkeep
from sealwire.limits import Limits

_KIB: Final = 1024
_MIB: Final = 1024 * 1024
# The size every path carries, as elsewhere in sealwire; larger ones are looked for with `max_mtu`.
_MTU_BYTES: Final = 1200
# UDP payload of an Ethernet frame, over IPv6 too; and of a jumbo frame.
_ETHERNET_BYTES: Final = 1452
_JUMBO_BYTES: Final = 8952


@dataclass(frozen=True, slots=True)
class Flush:
    """When small sends leave: at once, or collected (see :class:`sealwire.drive.aio.Batcher`).

    Attributes:
        seconds: the longest that one waits for others; 0 for not at all.
        most_bytes, most_messages: so much leaves at once.
    """

    seconds: float = 0.0
    most_bytes: int = 16 * _KIB
    most_messages: int = 64

    def __post_init__(self) -> None:
        if self.seconds < 0 or self.most_bytes < 1 or self.most_messages < 1:
            raise ValueError("a flush waits for no negative time, and for one byte and message at least")


class DatagramOptions(TypedDict):
    """Keywords of :func:`sealwire.open_datagram_channel` and :func:`sealwire.start_datagram_server`."""

    limits: Limits
    mtu: int
    upkeep: Upkeep


class StreamOptions(TypedDict):
    """Keywords of :func:`sealwire.open_connection` and :func:`sealwire.start_server`."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of connection.

    Attributes:
        name: as people write it.
        meant_for: what kind that is.
        limits: how much may wait and for how long.
        upkeep: what datagram connections see to by themselves.
        flush: how small sends are collected.
        latency_seconds: what such an application hopes for, from a send to the peer's recv beyond the
            path's own time; reported by benchmarks, enforced by nobody.
    """

    name: str
    meant_for: str
    limits: Limits
    upkeep: Upkeep
    flush: Flush
    latency_seconds: float

    def datagrams(self) -> DatagramOptions:
        """Keywords for whatever opens or serves datagrams."""
        return {"limits": self.limits, "mtu": _MTU_BYTES, "upkeep": self.upkeep}

    def streams(self) -> StreamOptions:
        """Keywords for whatever opens or serves streams."""
        return {"limits": self.limits}


LOW_LATENCY: Final = Preset(
    "low latency",
    "games, control loops: old data is worthless, so little of it may wait",
    Limits(send_queue_bytes=64 * _KIB, receive_queue_bytes=128 * _KIB, handshake_seconds=10.0),
    Upkeep(keepalive=10.0, keepalive_tries=3),
    Flush(),
    latency_seconds=0.05,
)

HIGH_THROUGHPUT: Final = Preset(
    "high throughput",
    "transfers, replication: much may wait, so that nobody stands still",
    Limits(
        total_bytes=1024 * _MIB,
        connection_bytes=16 * _MIB,
        send_queue_bytes=4 * _MIB,
        receive_queue_bytes=8 * _MIB,
    ),
    Upkeep(max_mtu=_JUMBO_BYTES),
    Flush(0.005, most_bytes=64 * _KIB, most_messages=256),
    latency_seconds=1.0,
)

INTERACTIVE: Final = Preset(
    "interactive",
    "chats, remote shells, calls to services: small messages, people waiting",
    Limits(send_queue_bytes=128 * _KIB, receive_queue_bytes=128 * _KIB, handshake_seconds=20.0),
    Upkeep(keepalive=25.0),
    Flush(0.001, most_bytes=4 * _KIB, most_messages=16),
    latency_seconds=0.1,
)

STREAMING: Final = Preset(
    "streaming",
    "audio, video, telemetry: a steady flow, and a second of it may wait at the receiver",
    Limits(send_queue_bytes=512 * _KIB, receive_queue_bytes=2 * _MIB, connection_bytes=4 * _MIB),
    Upkeep(keepalive=20.0, max_mtu=_ETHERNET_BYTES),
    Flush(0.005, most_bytes=16 * _KIB, most_messages=64),
    latency_seconds=0.2,
)

IOT_SENSOR: Final = Preset(
    "IoT sensor",
    "many small devices that wake, report and sleep: little memory each, patience with slow radios",
    Limits(
        total_bytes=64 * _MIB,
        prefix_bytes=16 * _MIB,
        site_bytes=32 * _MIB,
        connections=3_000,
        handshakes=500,
        connection_bytes=96 * _KIB,
        send_queue_bytes=8 * _KIB,
        receive_queue_bytes=8 * _KIB,
        handshake_message_bytes=16 * _KIB,
        certificate_chain_bytes=12 * _KIB,
        reassembly_ranges=64,
        hello_slots=512,
        handshake_seconds=180.0,
        rekey_seconds=24 * 3_600.0,
    ),
    # Nothing is sent that the application did not ask for: radios cost.
    Upkeep(keepalive=None, spare_cids=1),
    Flush(),
    latency_seconds=5.0,
)

#: All of them, by name.
PRESETS: Final = {one.name: one for one in (LOW_LATENCY, HIGH_THROUGHPUT, INTERACTIVE, STREAMING, IOT_SENSOR)}
