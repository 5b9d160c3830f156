"""What dissection adds to the columns of flows: texts and numbers, "" and 0 where nothing is known."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from sealwire.probe import engine
from sealwire.probe.dissect.facts import Certainty, Fact, Facts, Protocol, label

_TEXT: Final = "u"
_CODES: Final = {"S": "<H", "L": "<Q"}
_SIZE: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its values are those of `tag`, else of `other`."""

    name: str
    format: str
    tag: int
    other: int = 0
    hexadecimal: bool = False

    def value(self, facts: Facts) -> str | int:
        """Of one flow."""
        if self.format != _TEXT:
            number = facts.number(self.tag)
            # As many bytes as the column has, as the compiled one takes them.
            number = facts.number(self.other) if number is None else number
            return (number or 0) & ((1 << 8 * struct.calcsize(_CODES[self.format])) - 1)
        return (facts.raw(self.tag) or b"").hex() if self.hexadecimal else facts.text(self.tag) or ""


_COLUMNS: Final = (
    Column("server_name", _TEXT, Fact.NAME),
    Column("learned_name", _TEXT, Fact.LEARNED_NAME),
    Column("alpn", _TEXT, Fact.ALPN_CHOSEN),
    Column("version", "S", Fact.VERSION, Fact.OFFERED),
    Column("cipher", "S", Fact.CIPHER),
    Column("group", "S", Fact.GROUP),
    Column("association_id", "L", Fact.ASSOCIATION),
    Column("ja3", _TEXT, Fact.JA3, hexadecimal=True),
    Column("ja3s", _TEXT, Fact.JA3S, hexadecimal=True),
    Column("ja4", _TEXT, Fact.JA4),
    Column("hassh", _TEXT, Fact.HASSH, hexadecimal=True),
    Column("hassh_server", _TEXT, Fact.HASSH_SERVER, hexadecimal=True),
)
_BY_NAME: Final = {column.name: column for column in _COLUMNS}
_CERTAINTIES: Final = tuple(certainty.name.lower() for certainty in Certainty)

#: Name and Arrow format.
DISSECTED_COLUMNS: Final = (
    *(("application", _TEXT), ("certainty", _TEXT)),
    *((column.name, column.format) for column in _COLUMNS),
)


def _certainty(number: int) -> str:
    return _CERTAINTIES[number] if number < len(_CERTAINTIES) else str(number)


def value_of(facts: Facts, name: str) -> str | int:
    """The value of one of DISSECTED_COLUMNS."""
    if name == "application":
        return facts.application
    if name == "certainty":
        return _certainty(facts.block[2]) if facts.application else ""
    return _BY_NAME[name].value(facts)


def dissected_columns(sizes: bytes, facts: bytes) -> list[list[bytes]]:
    """The buffers of DISSECTED_COLUMNS, of blocks of these sizes: numbers, or offsets and characters."""
    if not facts:
        return _nothing(len(sizes) // _SIZE.size)
    if engine.COMPILED:
        return _compiled(sizes, facts)
    blocks, at = [], 0
    for (size,) in _SIZE.iter_unpack(sizes):
        blocks.append(Facts(facts[at : at + size]))
        at += size
    columns: list[list[bytes]] = []
    for name, kind in DISSECTED_COLUMNS:
        values = [value_of(block, name) for block in blocks]
        if kind == _TEXT:
            columns.append(_joined([str(value) for value in values]))
        else:
            columns.append([struct.pack(f"<{len(values)}{_CODES[kind][1:]}", *values)])
    return columns


def _nothing(rows: int) -> list[list[bytes]]:
    """The buffers where nothing is known of any flow."""
    widths = (0 if kind == _TEXT else struct.calcsize(_CODES[kind]) for _, kind in DISSECTED_COLUMNS)
    return [[bytes(width * rows)] if width else [bytes(4 * (rows + 1)), b""] for width in widths]


def _compiled(sizes: bytes, facts: bytes) -> list[list[bytes]]:
    from sealwire.probe import _columns

    heads = _columns.heads(sizes, facts)
    names = _columns.texts(sizes, facts, Fact.APPLICATION, False)
    applications = [
        "" if protocol == Protocol.PLUGIN else _LABELS.get(protocol) or label(protocol)
        for protocol, _ in heads
    ]
    if names[1]:  # a plugin named something
        ends = struct.unpack(f"<{len(heads) + 1}i", names[0])
        for index, (protocol, _) in enumerate(heads):
            if protocol == Protocol.PLUGIN:
                applications[index] = names[1][ends[index] : ends[index + 1]].decode("ascii")
    certainties = [
        _certainty(certainty) if name else ""
        for (_, certainty), name in zip(heads, applications, strict=True)
    ]
    return [
        _joined(applications),
        _joined(certainties),
        *(
            _columns.texts(sizes, facts, column.tag, column.hexadecimal)
            if column.format == _TEXT
            else _columns.numbers(
                sizes, facts, column.tag, column.other, struct.calcsize(_CODES[column.format])
            )
            for column in _COLUMNS
        ),
    ]


def _joined(texts: Sequence[str]) -> list[bytes]:
    """Offsets and characters."""
    pieces = [text.encode("ascii", "backslashreplace") for text in texts]
    ends = accumulate(map(len, pieces), initial=0)
    return [struct.pack(f"<{len(pieces) + 1}i", *ends), b"".join(pieces)]


_LABELS: Final = {int(protocol): label(protocol) for protocol in Protocol}
