"""What the table's answers become before they are handed on, batch by batch, in Python.

The table leaves pieces of the first packets in the facts of flows that none of its dissectors is certain
of.  Here the dissectors in Python see them, in one pass over a batch, and here they end: no payload
goes any further.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from sealwire.probe import engine
from sealwire.probe.batch import OFFSETS, Batch
from sealwire.probe.dissect.facts import (
    BLOCK_HEAD,
    FACT_HEAD,
    MAX_BLOCK_BYTES,
    Certainty,
    Fact,
    Facts,
    Protocol,
)
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, first_packets
from sealwire.probe.dissect.rare import DISSECTORS
from sealwire.probe.features import row_struct
from sealwire.probe.settings import Settings

_FACTS_AT: Final = OFFSETS["facts_bytes"][0]
_PORTS_AT: Final = OFFSETS["source_port"][0]
_PROTOCOL_AT: Final = OFFSETS["protocol"][0]
_PORTS: Final = struct.Struct("<HH")
_SIZE: Final = struct.Struct("<I")
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
        #: Flows shown to dissectors in Python.
        self.shown = 0
        #: Flows a plugin was not shown because its time was up, or for which it raised.
        self.plugin_refusals = 0

    def batch(self, rows: bytes, facts: bytes, event_data: bytes) -> Batch:
        """A batch of what the table gave."""
        if facts:
            rows, facts = self._inspected(rows, facts)
        return Batch(rows, self._settings.first_packets, facts, event_data, True)

    def _inspected(self, rows: bytes, facts: bytes) -> tuple[bytes, bytes]:
        left = dict.fromkeys(self._plugins, PLUGIN_BUDGET_NS)
        changed: bytearray | None = None
        pieces: list[bytes] = []
        at = kept = 0
        for index, size in enumerate(_sizes(rows, self._row_bytes)):
            # The third byte is the certainty; who is certain left no packets.
            if size and facts[at + 2] != Certainty.CERTAIN:
                row = index * self._row_bytes
                block = self._block(rows, row, facts[at : at + size], left)
                changed = bytearray(rows) if changed is None else changed
                _SIZE.pack_into(changed, row + _FACTS_AT, len(block))
                pieces += (facts[kept:at], block)
                kept = at + size
            at += size
        if changed is None:
            return rows, facts
        return bytes(changed), b"".join((*pieces, facts[kept:]))

    def _block(self, rows: bytes, row: int, block: bytes, left: dict[Dissector, int]) -> bytes:
        """A block with what dissectors in Python know instead of the packets they saw."""
        facts = Facts(block)
        head = facts.raw(Fact.HEAD)
        rest = b"".join(FACT_HEAD.pack(tag, len(value)) + value for tag, value in facts if tag != Fact.HEAD)
        if head is not None and facts.protocol is Protocol.UNKNOWN:
            source, destination = _PORTS.unpack_from(rows, row + _PORTS_AT)
            opening = Opening(rows[row + _PROTOCOL_AT], source, destination, tuple(first_packets(head)))
            self.shown += 1
            found = self._ask(opening, left)
            if found is not None:
                return _written(*found, int(facts.flags), rest)
        if facts.protocol is Protocol.UNKNOWN and not rest:
            return b""
        return block[: BLOCK_HEAD.size] + rest

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


def _sizes(rows: bytes, stride: int) -> Sequence[int]:
    if engine.COMPILED:
        from sealwire.probe import _arrow

        column = _arrow.gather(rows, stride, _FACTS_AT, _SIZE.size)
        return struct.unpack(f"<{len(column) // _SIZE.size}I", column)
    return [_SIZE.unpack_from(rows, at)[0] for at in range(_FACTS_AT, len(rows), stride)]


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
