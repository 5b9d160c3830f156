"""Passes over a batch that answer for most flows, so that Python looks at few of them one by one.

    left = scanner.left(rows, stride, facts, servers)           which flows somebody in Python must see
    rows, facts = scanner.finish(rows, stride, facts, events, replaced)

`left` sifts the flows nobody is certain of by the signs dissectors in Python gave.  `finish` takes the
first packets out of all blocks, says which flows are connections with ids, and names flows as DNS
named them before, in the order of time.  Plain Python; the compiled twin is `_scan`.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from typing import Final

from sealwire.probe.batch import OFFSETS
from sealwire.probe.dissect.facts import (
    EVENT_HEAD,
    NOTHING,
    Certainty,
    Fact,
    Facts,
    Protocol,
    fact,
    without_head,
)
from sealwire.probe.dissect.plugin import CITES, LINK, FirstPacket, Sign, first_packets
from sealwire.probe.dissect.relate import Handshake, Names
from sealwire.probe.features import ICMP, ICMP6, ROW_KEY, UDP, id_of

_LINKED: Final = frozenset({int(Protocol.DTLS), int(Protocol.QUIC)})
_NAMING: Final = frozenset({int(Protocol.DNS), int(Protocol.MDNS)})
_ICMPS: Final = frozenset({ICMP, ICMP6})
_SIZE: Final = struct.Struct("<I")
_TIME: Final = struct.Struct("<q")
_NUMBER: Final = struct.Struct("<Q")
_PORTS: Final = struct.Struct("<HH")
_FACTS_AT: Final = OFFSETS["facts_bytes"][0]
_ENDED_AT: Final = OFFSETS["ended"][0]
_FIRST_AT: Final = OFFSETS["forward_first"][0]
_FIRST_PACKET_AT: Final = OFFSETS["first_packet"][0]
_PART_AT: Final = OFFSETS["part"][0]
_PORTS_AT: Final = OFFSETS["source_port"][0]
_PROTOCOL_AT: Final = OFFSETS["protocol"][0]
#: Behind length and time an event has its flow's ROW_KEY.
_EVENT_KEY_END: Final = 12 + ROW_KEY.size
#: Addresses, ports, version and protocol stand first in a row, as in the key of a flow id.
_KEY_BYTES: Final = 38
_LONGEST_NAME: Final = 255

#: Index of a row, where its block begins, the block's size, why it is left.
Left = tuple[int, int, int, int]
#: A dissector's bit and IP protocol, and a sign of it.
Wanted = tuple[int, int, Sign]


def flow_id(rows: bytes, row: int) -> int:
    """The id of the flow whose row begins at `row`."""
    key = rows[row : row + _KEY_BYTES] + rows[row + _PART_AT : row + _PART_AT + 4]
    key += rows[row + _FIRST_AT : row + _FIRST_AT + 8]
    return id_of(key + rows[row + _FIRST_PACKET_AT : row + _FIRST_PACKET_AT + 8])


def handshakes(events: bytes) -> list[Handshake]:
    """Handshakes that tell a server's id, in the order in which they are there."""
    found: list[Handshake] = []
    at = 0
    while at < len(events):
        length, time = EVENT_HEAD.unpack_from(events, at)[:2]
        block = events[at + EVENT_HEAD.size : at + length]
        if _has_id(block):
            read = Facts(block)
            ids = (read.raw(tag) or b"" for tag in (Fact.SERVER_ID, Fact.CLIENT_ID, Fact.NAME))
            found.append(Handshake(time, events[at + 12 : at + _EVENT_KEY_END], block[0], *ids))
        at += length
    return found


def _has_id(block: bytes) -> bool:
    if not block or block[0] not in _LINKED or block[1] or block[2] != Certainty.CERTAIN:
        return False
    return bool(Facts(block).raw(Fact.SERVER_ID))


class Scanner:
    """What is remembered from batch to batch; `wanted` are the signs of the dissectors in Python."""

    def __init__(self, wanted: Sequence[Wanted], key: bytes, most_names: int) -> None:
        self._wanted: dict[int, list[tuple[int, Sign]]] = {}
        for bit, transport, sign in wanted:
            self._wanted.setdefault(transport, []).append((bit, sign))
        self._names = Names(most_names)

    def left(self, rows: bytes, stride: int, facts: bytes, servers: Container[bytes]) -> list[Left]:
        """The flows nobody is certain of and somebody in Python may know, in the order of the rows.

        `servers` has addresses, and ports of two bytes behind them.
        """
        found: list[Left] = []
        at = 0
        for index, row in enumerate(range(0, len(rows), stride)):
            (size,) = _SIZE.unpack_from(rows, row + _FACTS_AT)
            block = facts[at : at + size]
            if block and block[2] != Certainty.CERTAIN:
                why = self._why(rows, row, block, servers)
                if why:
                    found.append((index, at, size, why))
            at += size
        return found

    def _why(self, rows: bytes, row: int, block: bytes, servers: Container[bytes]) -> int:
        head = Facts(block).raw(Fact.HEAD)
        if head is None:
            return 0
        protocol = rows[row + _PROTOCOL_AT]
        if protocol in _ICMPS:
            return CITES
        ports = rows[row + _PORTS_AT : row + _PORTS_AT + 4]
        why = 0
        if protocol == UDP:
            ends = rows[row : row + 16] + ports[:2], rows[row + 16 : row + 32] + ports[2:]
            if ends[0] in servers or ends[1] in servers:
                why = LINK
        if block[:2] == b"\0\0":
            packets = tuple(first_packets(head))
            for bit, sign in self._wanted.get(protocol, ()):
                if _shows(sign, _PORTS.unpack(ports), packets):
                    why |= bit
        return why

    def finish(
        self,
        rows: bytes,
        stride: int,
        facts: bytes,
        events: bytes,
        replaced: Sequence[tuple[int, bytes]],
    ) -> tuple[bytes, bytes]:
        """Rows and blocks as they are handed on; `replaced` are new blocks of some rows, in their order."""
        news = iter(sorted(_answers(events), key=lambda one: one[0]))
        upcoming = next(news, None)
        new = dict(replaced)
        changed = bytearray(rows)
        blocks: list[bytes] = []
        at = 0
        for index, row in enumerate(range(0, len(rows), stride)):
            (ended,) = _TIME.unpack_from(rows, row + _ENDED_AT)
            # In the order of time, so that the answers do not depend on what the input was cut into.
            while upcoming is not None and upcoming[0] <= ended:
                self._names.learn(*upcoming)
                upcoming = next(news, None)
            (size,) = _SIZE.unpack_from(rows, row + _FACTS_AT)
            block = new.get(index)
            if block is None:
                block = facts[at : at + size]
                if block and block[2] != Certainty.CERTAIN:
                    block = without_head(block)
                elif _has_id(block):
                    block += fact(Fact.ASSOCIATION, flow_id(rows, row).to_bytes(8, "little"))
            block = self._named(rows, row, block)
            at += size
            blocks.append(block)
            _SIZE.pack_into(changed, row + _FACTS_AT, len(block))
        while upcoming is not None:
            self._names.learn(*upcoming)
            upcoming = next(news, None)
        return bytes(changed), b"".join(blocks)

    def _named(self, rows: bytes, row: int, block: bytes) -> bytes:
        """The block of a flow that tells no name, with the one its client asked for before."""
        if block and ((block[0] in _NAMING and not block[1]) or Facts(block).raw(Fact.NAME) is not None):
            return block
        found = self._names.find(rows[row : row + 32])
        if found is None or found[0] > _TIME.unpack_from(rows, row + _FIRST_AT)[0]:
            return block
        return (block or NOTHING) + fact(Fact.LEARNED_NAME, found[1])


def _shows(sign: Sign, ports: tuple[int, int], packets: Sequence[FirstPacket]) -> bool:
    if (sign.port and sign.port not in ports) or len(packets) < sign.least:
        return False
    end = sign.at + len(sign.value)
    mask = sign.mask or b"\xff" * len(sign.value)
    matches = (
        len(packet.data) >= end
        and all(a & m == b for a, m, b in zip(packet.data[sign.at : end], mask, sign.value, strict=True))
        for packet in packets
    )
    return all(matches) if sign.every else any(matches)


def _answers(events: bytes) -> list[tuple[int, bytes, bytes, tuple[bytes, ...]]]:
    """Time, client, name and addresses of DNS answers, in the order in which they are there."""
    found: list[tuple[int, bytes, bytes, tuple[bytes, ...]]] = []
    at = 0
    while at < len(events):
        length, time, source, destination, source_port = EVENT_HEAD.unpack_from(events, at)[:5]
        block = events[at + EVENT_HEAD.size : at + length]
        if block and block[:3] == bytes((Protocol.DNS, 0, Certainty.CERTAIN)):
            read = Facts(block)
            listed = tuple(
                value[6:].ljust(16, b"\0")
                for tag, value in read
                if tag == Fact.DNS_ANSWER and value[:2] in (b"\1\0", b"\x1c\0") and len(value) in (10, 22)
            )
            name = read.raw(Fact.NAME)
            if listed and name:
                client = destination if source_port == 53 else source
                found.append((time, client, name[:_LONGEST_NAME], listed))
        at += length
    return found
