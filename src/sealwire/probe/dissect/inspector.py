"""What the table's answers become before they are handed on, batch by batch, in Python.

The table leaves pieces of the first packets in the facts of flows that none of its dissectors is certain
of.  Here the dissectors in Python see them, in one pass over a batch, and here they end: no payload
goes any further.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from sealwire.probe import engine
from sealwire.probe.batch import OFFSETS, Batch
from sealwire.probe.dissect.facts import (
    BLOCK_HEAD,
    CITED,
    EVENT_HEAD,
    FACT_HEAD,
    MAX_BLOCK_BYTES,
    Certainty,
    Fact,
    Facts,
    Protocol,
    events,
    facts_block,
)
from sealwire.probe.dissect.plugin import Answer, Dissector, FirstPacket, Opening, first_packets
from sealwire.probe.dissect.rare import DISSECTORS
from sealwire.probe.dissect.relate import Links, Names, cited
from sealwire.probe.dissect.scan import NAMELESS, UNCERTAIN, WITH_IDS, News
from sealwire.probe.features import ICMP, ICMP6, UDP, id_of, row_struct
from sealwire.probe.settings import Settings

if TYPE_CHECKING or not engine.COMPILED:
    from sealwire.probe.dissect import scan
else:
    from sealwire.probe.dissect import _scan as scan

_FACTS_AT: Final = OFFSETS["facts_bytes"][0]
_ENDED_AT: Final = OFFSETS["ended"][0]
_FIRST_AT: Final = OFFSETS["forward_first"][0]
_FIRST_PACKET_AT: Final = OFFSETS["first_packet"][0]
_PART_AT: Final = OFFSETS["part"][0]
_VERSION_AT: Final = OFFSETS["ip_version"][0]
_VLAN_AT: Final = OFFSETS["vlan"][0]
#: Addresses, ports, version and protocol stand first in a row, as in the key of a flow id.
_KEY_BYTES: Final = 38
_PORTS_AT: Final = OFFSETS["source_port"][0]
_PROTOCOL_AT: Final = OFFSETS["protocol"][0]
_PORTS: Final = struct.Struct("<HH")
_SIZE: Final = struct.Struct("<I")
_TIME: Final = struct.Struct("<q")
_NUMBER: Final = struct.Struct("<Q")
_EVENT_BEGIN: Final = struct.Struct("<Iq")
_NOTHING: Final = BLOCK_HEAD.pack(Protocol.UNKNOWN, Certainty.NOT_MINE, 0)
#: Longest text of a dissector in Python, and how many of them a flow may have.
_LONGEST_TEXT: Final = 255
_MOST_TEXTS: Final = 16
#: Time a plugin may take for one batch, nanoseconds; what is behind that goes without it.
PLUGIN_BUDGET_NS: Final = 50_000_000


class Inspector:
    """The last stage of dissection for one reading.

    `clock` gives nanoseconds of CPU time and limits plugins; ours are limited by the bytes they see.
    """

    def __init__(
        self, settings: Settings, plugins: Sequence[Dissector] = (), clock: Callable[[], int] = lambda: 0
    ) -> None:
        self._settings = settings
        self._row_bytes = row_struct(settings.first_packets).size
        self._plugins = tuple(plugins)
        self._clock = clock
        self._links = Links()
        self._names = Names()
        #: Flows shown to dissectors in Python.
        self.shown = 0
        #: Flows a plugin was not shown because its time was up, or for which it raised.
        self.plugin_refusals = 0

    @property
    def ambiguous(self) -> int:
        """Flows whose connection ids fit several connections, and which so were linked to none."""
        return self._links.ambiguous

    def batch(self, rows: bytes, facts: bytes, event_data: bytes) -> Batch:
        """A batch of what the table gave."""
        changed: bytearray | None = None
        pieces: list[bytes] = []
        paths: list[bytes] = []
        left = dict.fromkeys(self._plugins, PLUGIN_BUDGET_NS)
        told = sorted(scan.news(event_data), key=_time_of)
        fresh = {client + address for _, client, _, addresses, _, _ in told for address in addresses}
        news = iter(told)
        upcoming = next(news, None)
        kept = 0
        stride = self._row_bytes
        for index, at, size, why in scan.rows(rows, stride, _FACTS_AT, facts, self._names.known, fresh):
            row = index * stride
            (ended,) = _TIME.unpack_from(rows, row + _ENDED_AT)
            # In the order of time, so that the answers do not depend on what the input was cut into.
            while upcoming is not None and upcoming[0] <= ended:
                self._learn(upcoming, event_data)
                upcoming = next(news, None)
            block = new = facts[at : at + size]
            if why & UNCERTAIN:
                new = self._block(rows, row, block, left, paths)
            elif why & WITH_IDS:
                new += _fact(Fact.ASSOCIATION, self._flow_id(rows, row).to_bytes(8, "little"))
            if why & NAMELESS:
                new = self._named(rows, row, new)
            if new is not block:
                changed = bytearray(rows) if changed is None else changed
                _SIZE.pack_into(changed, row + _FACTS_AT, len(new))
                pieces += (facts[kept:at], new)
                kept = at + size
        while upcoming is not None:
            self._learn(upcoming, event_data)
            upcoming = next(news, None)
        if changed is not None:
            rows, facts = bytes(changed), b"".join((*pieces, facts[kept:]))
        return Batch(rows, self._settings.first_packets, facts, event_data + b"".join(paths), True)

    def _learn(self, news: News, event_data: bytes) -> None:
        time, client, name, addresses, at, length = news
        if addresses:
            self._names.learn(time, client, name, addresses)
        else:
            self._links.learn(next(events(event_data[at : at + length])))

    def _named(self, rows: bytes, row: int, block: bytes) -> bytes:
        """The block of a flow that tells no name, with the one its client asked for before."""
        found = self._names.find(rows[row : row + 32])
        if found is None or found[0] > _TIME.unpack_from(rows, row + _FIRST_AT)[0]:
            return block
        if block and Facts(block).raw(Fact.NAME) is not None:
            return block
        return (block or _NOTHING) + _fact(Fact.LEARNED_NAME, found[1][:_LONGEST_TEXT])

    @staticmethod
    def _flow_id(rows: bytes, row: int) -> int:
        ends = rows[row : row + _KEY_BYTES]
        (part,) = _SIZE.unpack_from(rows, row + _PART_AT)
        (start,) = _TIME.unpack_from(rows, row + _FIRST_AT)
        (first,) = _NUMBER.unpack_from(rows, row + _FIRST_PACKET_AT)
        return id_of(ends + _SIZE.pack(part) + _TIME.pack(start) + _NUMBER.pack(first))

    def _block(
        self, rows: bytes, row: int, block: bytes, left: dict[Dissector, int], paths: list[bytes]
    ) -> bytes:
        """A block with what dissectors in Python know instead of the packets they saw."""
        facts = Facts(block)
        head = facts.raw(Fact.HEAD)
        rest = b"".join(_fact(tag, value) for tag, value in facts if tag != Fact.HEAD)
        if head is not None:
            protocol = rows[row + _PROTOCOL_AT]
            source, destination = _PORTS.unpack_from(rows, row + _PORTS_AT)
            packets = tuple(first_packets(head))
            if protocol == UDP and (linked := self._linked(rows, row, packets, paths)) is not None:
                return linked
            if protocol in (ICMP, ICMP6) and packets:
                citation = cited(protocol, source, packets[0].data)
                if citation is not None:
                    return _NOTHING + _fact(Fact.DETAIL, CITED + b"\0" + citation.encode("ascii"))
            elif facts.protocol is Protocol.UNKNOWN:
                self.shown += 1
                found = self._ask(Opening(protocol, source, destination, packets), left)
                if found is not None:
                    return _written(*found, int(facts.flags), rest)
        if facts.protocol is Protocol.UNKNOWN and not rest:
            return b""
        return block[: BLOCK_HEAD.size] + rest

    def _linked(
        self, rows: bytes, row: int, packets: tuple[FirstPacket, ...], paths: list[bytes]
    ) -> bytes | None:
        """The block of a flow that is a known connection on another path."""
        ports = _PORTS.unpack_from(rows, row + _PORTS_AT)
        ends = [(rows[row + at : row + at + 16], port) for at, port in zip((0, 16), ports, strict=True)]
        found = self._links.find(ends[0], ends[1], packets)
        if found is None:
            return None
        connection, certainty = found
        told = [(Fact.ASSOCIATION, connection.association.to_bytes(8, "little"))]
        address, port = connection.client
        short = address[:4] if rows[row + _VERSION_AT] == 4 else address
        told.append((Fact.PATH, port.to_bytes(2, "little") + short))
        if connection.server_name:
            told.append((Fact.NAME, connection.server_name))
        block = facts_block(connection.protocol, certainty, told)
        paths.append(_event(rows, row, block))
        return block

    def _ask(self, opening: Opening, left: dict[Dissector, int]) -> tuple[Dissector, Answer] | None:
        best: tuple[Dissector, Answer] | None = None
        for dissector in (*DISSECTORS, *self._plugins):
            if opening.protocol not in dissector.transports:
                continue
            answer = (
                self._plugin(dissector, opening, left) if dissector in left else dissector.dissect(opening)
            )
            if answer is None or answer.certainty is Certainty.NOT_MINE:
                continue
            if best is None or answer.certainty > best[1].certainty:
                best = dissector, answer
                if answer.certainty is Certainty.CERTAIN:
                    break
        return best

    def _plugin(self, plugin: Dissector, opening: Opening, left: dict[Dissector, int]) -> Answer | None:
        if left[plugin] <= 0:
            self.plugin_refusals += 1
            return None
        started = self._clock()
        try:
            return plugin.dissect(opening)
        except Exception:
            # Whatever a plugin does wrong costs its answer, not the capture.
            self.plugin_refusals += 1
            return None
        finally:
            left[plugin] -= self._clock() - started


def _time_of(news: News) -> int:
    return news[0]


def _fact(tag: int, value: bytes) -> bytes:
    return FACT_HEAD.pack(tag, len(value)) + value


def _event(rows: bytes, row: int, block: bytes) -> bytes:
    """An event at the end of a row's flow."""
    (ended,) = _TIME.unpack_from(rows, row + _ENDED_AT)
    head = _EVENT_BEGIN.pack(EVENT_HEAD.size + len(block), ended) + rows[row : row + _KEY_BYTES]
    for at, n in ((_PART_AT, 4), (_FIRST_AT, 8), (_FIRST_PACKET_AT, 8), (_VLAN_AT, 4)):
        head += rows[row + at : row + at + n]
    return head + block


def _written(dissector: Dissector, answer: Answer, flags: int, rest: bytes) -> bytes:
    texts: list[tuple[int, bytes]] = []
    if dissector.protocol is Protocol.PLUGIN:
        texts.append((Fact.APPLICATION, dissector.application.encode("ascii", "backslashreplace")))
    if answer.server_name:
        texts.append((Fact.NAME, answer.server_name.encode("utf-8")))
    for name, value in list(answer.details.items())[:_MOST_TEXTS]:
        texts.append((Fact.DETAIL, name.encode("utf-8") + b"\0" + value.encode("utf-8")))
    block = bytearray(BLOCK_HEAD.pack(dissector.protocol, answer.certainty, flags) + rest)
    for tag, text in texts:
        if len(block) + FACT_HEAD.size + _LONGEST_TEXT <= MAX_BLOCK_BYTES:
            block += FACT_HEAD.pack(tag, min(len(text), _LONGEST_TEXT)) + text[:_LONGEST_TEXT]
    return bytes(block)
