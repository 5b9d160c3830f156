"""Dissectors in Python: classes that see the first packets of flows nobody else is certain of.

Those of sealwire are in `rare`.  Others are found by the entry point group "sealwire.probe.dissectors";
each has a budget of time for every batch, because one slow dissector must not stop a capture.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple

from sealwire.probe.dissect.facts import Certainty, Protocol

#: Packets a dissector in Python may see of a flow, and bytes of each.
MAX_PACKETS: Final = 6
MAX_PACKET_BYTES: Final = 256
#: Why a flow is shown in Python, as bits: an end of it is a server that gave out connection ids; it is
#: ICMP.  Those below are the dissectors'.
LINK: Final = 1 << 63
CITES: Final = 1 << 62
#: Most dissectors there can be.
MAX_DISSECTORS: Final = 62
#: Bytes a sign may have.
LONGEST_SIGN: Final = 16

_SNIPPET: Final = struct.Struct("<BHH")


class FirstPacket(NamedTuple):
    """One of a flow's first payload packets."""

    backward: bool
    #: Bytes of payload it had; `data` has the first MAX_PACKET_BYTES of them at most.
    size: int
    data: bytes


class Opening(NamedTuple):
    """What a dissector sees of a flow."""

    #: 6 is TCP, 17 UDP, 1 ICMP.
    protocol: int
    source_port: int
    destination_port: int
    #: At most MAX_PACKETS, in order of time; of TCP also segments sent again.
    packets: tuple[FirstPacket, ...]

    def data(self, backward: bool) -> bytes:
        """The bytes of one direction's packets, joined."""
        return b"".join(packet.data for packet in self.packets if packet.backward == backward)

    def has_port(self, port: int) -> bool:
        """Whether one of the ends has it."""
        return port in (self.source_port, self.destination_port)


@dataclass(frozen=True, slots=True)
class Sign:
    """What flows of a protocol have, or may have: bytes at a place of a first packet, and a port.

    Without `value` any bytes do, without `port` any port.
    """

    value: bytes = b""
    at: int = 0
    #: Which bits of `value` count; all of them for "".
    mask: bytes = b""
    #: All first packets have it, not only one of them.
    every: bool = False
    #: One of the ends has this port.
    port: int = 0
    #: Least number of first packets.
    least: int = 1

    def __post_init__(self) -> None:
        if (
            len(self.value) > LONGEST_SIGN
            or self.at > MAX_PACKET_BYTES
            or len(self.mask) not in (0, len(self.value))
        ):
            raise ValueError(f"a sign has at most {LONGEST_SIGN} bytes, and a mask as many")
        if any(value & ~mask for value, mask in zip(self.value, self.mask, strict=False)):
            raise ValueError("a sign has bits outside its mask")


class Answer(NamedTuple):
    """What a dissector found: how sure it is, and texts by name."""

    certainty: Certainty
    details: Mapping[str, str] = MappingProxyType({})
    #: Name of the server, if the protocol tells it.
    server_name: str = ""


class Dissector(ABC):
    """Base of dissectors in Python.

    Set `application` (what the protocol is called) and `transports` (IP protocols), and write
    :meth:`dissect`.  It is called once for each flow whose first packets nobody was certain of, must
    answer the same for the same packets, and may keep nothing.
    """

    application: ClassVar[str] = ""
    #: 6 for TCP, 17 for UDP.
    transports: ClassVar[frozenset[int]] = frozenset({6, 17})
    #: Ours have a number; others are Protocol.PLUGIN.
    protocol: ClassVar[Protocol] = Protocol.PLUGIN
    #: Only flows with one of these are shown to it; without any, all of its transports are.
    signs: ClassVar[tuple[Sign, ...]] = ()

    @abstractmethod
    def dissect(self, opening: Opening) -> Answer | None:
        """What the flow is, or None if it is something else."""


def first_packets(head: bytes) -> Iterator[FirstPacket]:
    """The packets in a HEAD fact."""
    at = 0
    while at < len(head):
        backward, size, n = _SNIPPET.unpack_from(head, at)
        at += _SNIPPET.size
        yield FirstPacket(backward != 0, size, head[at : at + n])
        at += n
