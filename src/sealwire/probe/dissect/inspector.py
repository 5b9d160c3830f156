"""What the table's answers become before they are handed on, batch by batch, in Python.

The table leaves pieces of the first packets in the facts of flows that none of its dissectors is certain
of.  Here the dissectors in Python see them, in one pass over a batch, and here they end: no payload
goes any further.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from sealwire.errors import ConfigurationError
from sealwire.probe import engine
from sealwire.probe.batch import OFFSETS, Batch
from sealwire.probe.dissect import relate
from sealwire.probe.dissect.facts import (
    BLOCK_HEAD,
    CITED,
    EVENT_HEAD,
    MAX_BLOCK_BYTES,
    NOTHING,
    Certainty,
    Fact,
    Facts,
    Protocol,
    fact,
    facts_block,
    without_head,
)
from sealwire.probe.dissect.plugin import (
    CITES,
    LINK,
    MAX_DISSECTORS,
    Answer,
    Dissector,
    FirstPacket,
    Opening,
    Sign,
    first_packets,
)
from sealwire.probe.dissect.rare import DISSECTORS
from sealwire.probe.features import row_struct
from sealwire.probe.settings import Settings

if TYPE_CHECKING or not engine.hashes():
    from sealwire.probe.dissect import scan
else:
    from sealwire.probe.dissect import _scan as scan

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
_TIME: Final = struct.Struct("<q")
_EVENT_BEGIN: Final = struct.Struct("<Iq")
_TIME_OF: Final = attrgetter("time")
#: Longest text of a dissector in Python, and how many of them a flow may have.
_LONGEST_TEXT: Final = 255
_LONGEST_FACT: Final = _LONGEST_TEXT + len(fact(Fact.DETAIL, b""))
_MOST_TEXTS: Final = 16
#: Time a plugin may take for one batch, nanoseconds; what is behind that goes without it.
PLUGIN_BUDGET_NS: Final = 50_000_000
_ANY: Final = (Sign(),)


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
        self._links = relate.Links()
        known = (*DISSECTORS, *self._plugins)
        if len(known) > MAX_DISSECTORS:
            raise ConfigurationError(f"at most {MAX_DISSECTORS - len(DISSECTORS)} plugins can dissect")
        self._known = {1 << number: dissector for number, dissector in enumerate(known)}
        wanted = [
            (bit, transport, sign)
            for bit, dissector in self._known.items()
            for transport in sorted(dissector.transports)
            for sign in dissector.signs or _ANY
        ]
        self._scanner = scan.Scanner(wanted, os.urandom(16), relate.MAX_NAMES)
        #: Flows shown to dissectors in Python.
        self.shown = 0
        #: Nanoseconds by `clock` that what is in Python took: links, errors cited, dissectors.
        self.spent = 0
        #: Flows a plugin was not shown because its time was up, or for which it raised.
        self.plugin_refusals = 0

    @property
    def ambiguous(self) -> int:
        """Flows whose connection ids fit several connections, and which so were linked to none."""
        return self._links.ambiguous

    def batch(self, rows: bytes, facts: bytes, event_data: bytes) -> Batch:
        """A batch of what the table gave."""
        stride = self._row_bytes
        told = sorted(scan.handshakes(event_data), key=_TIME_OF)
        self._links.expect({handshake.server for handshake in told})
        paths: list[bytes] = []
        left = dict.fromkeys(self._plugins, PLUGIN_BUDGET_NS)
        replaced: list[tuple[int, bytes]] = []
        news = iter(told)
        upcoming = next(news, None)
        flows = self._scanner.left(rows, stride, facts, self._links.servers)
        started = self._clock()
        for index, at, size, why in flows:
            row = index * stride
            (ended,) = _TIME.unpack_from(rows, row + _ENDED_AT)
            # In the order of time, so that the answers do not depend on what the input was cut into.
            while upcoming is not None and upcoming.time <= ended:
                self._links.learn(upcoming)
                upcoming = next(news, None)
            new = self._block(rows, row, facts[at : at + size], why, left, paths)
            if new is not None:
                replaced.append((index, new))
        while upcoming is not None:
            self._links.learn(upcoming)
            upcoming = next(news, None)
        self.spent += self._clock() - started
        rows, facts = self._scanner.finish(rows, stride, facts, event_data, replaced)
        return Batch(rows, self._settings.first_packets, facts, event_data + b"".join(paths), True)

    def _block(
        self,
        rows: bytes,
        row: int,
        block: bytes,
        why: int,
        left: dict[Dissector, int],
        paths: list[bytes],
    ) -> bytes | None:
        """A block with what is known in Python instead of the packets that were seen; None for no more."""
        facts = Facts(block)
        protocol = rows[row + _PROTOCOL_AT]
        source, destination = _PORTS.unpack_from(rows, row + _PORTS_AT)
        head = facts.raw(Fact.HEAD) or b""
        packets = tuple(first_packets(head))
        if why & LINK and (linked := self._linked(rows, row, packets, paths)) is not None:
            return linked
        if why & CITES:
            citation = relate.cited(protocol, source, packets[0].data) if packets else None
            if citation is None:
                return None
            return NOTHING + fact(Fact.DETAIL, CITED + b"\0" + citation.encode("ascii"))
        why &= ~LINK
        if not why:
            return None
        self.shown += 1
        found = self._ask(Opening(protocol, source, destination, packets), why, left)
        if found is None:
            return None
        alone = len(block) == len(NOTHING) + len(fact(Fact.HEAD, head))
        return _written(*found, block[3], b"" if alone else without_head(block)[BLOCK_HEAD.size :])

    def _linked(
        self, rows: bytes, row: int, packets: tuple[FirstPacket, ...], paths: list[bytes]
    ) -> bytes | None:
        """The block of a flow that is a known connection on another path."""
        source = rows[row : row + 16] + rows[row + _PORTS_AT : row + _PORTS_AT + 2]
        destination = rows[row + 16 : row + 32] + rows[row + _PORTS_AT + 2 : row + _PORTS_AT + 4]
        found = self._links.find(source, destination, packets)
        if found is None:
            return None
        connection, certainty = found
        told = [(Fact.ASSOCIATION, connection.association.to_bytes(8, "little"))]
        address, port = connection.client
        short = address[:4] if rows[row + _VERSION_AT] == 4 else address
        told.append((Fact.PATH, port.to_bytes(2, "little") + short))
        if connection.server_name:
            told.append((Fact.NAME, connection.server_name))
        block = facts_block(Protocol(connection.protocol), certainty, told)
        paths.append(_event(rows, row, block))
        return block

    def _ask(self, opening: Opening, why: int, left: dict[Dissector, int]) -> tuple[Dissector, Answer] | None:
        best: tuple[Dissector, Answer] | None = None
        while why:
            bit = why & -why
            why ^= bit
            dissector = self._known[bit]
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
    block = BLOCK_HEAD.pack(dissector.protocol, answer.certainty, flags) + rest
    for tag, text in texts:
        if len(block) + _LONGEST_FACT <= MAX_BLOCK_BYTES:
            block += fact(tag, text[:_LONGEST_TEXT])
    return block
