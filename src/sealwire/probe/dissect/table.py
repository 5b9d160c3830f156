"""What dissection adds to the columns of flows: texts and numbers, "" and 0 where nothing is known."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from sealwire.probe.dissect.facts import Fact, Facts

_TEXT: Final = "u"
_CODES: Final = {"S": "H", "C": "B", "I": "I", "L": "Q"}


def _text(tag: int) -> Callable[[Facts], str]:
    return lambda facts: facts.text(tag) or ""


def _hex(tag: int) -> Callable[[Facts], str]:
    return lambda facts: (facts.raw(tag) or b"").hex()


def _number(tag: int) -> Callable[[Facts], int]:
    return lambda facts: facts.number(tag) or 0


_COLUMNS: Final[tuple[tuple[str, str, Callable[[Facts], str | int]], ...]] = (
    ("application", _TEXT, lambda facts: facts.application),
    ("certainty", _TEXT, lambda facts: facts.certainty.name.lower() if facts.application else ""),
    ("server_name", _TEXT, lambda facts: facts.server_name),
    ("learned_name", _TEXT, _text(Fact.LEARNED_NAME)),
    ("alpn", _TEXT, _text(Fact.ALPN_CHOSEN)),
    ("version", "S", lambda facts: facts.version or 0),
    ("cipher", "S", _number(Fact.CIPHER)),
    ("group", "S", _number(Fact.GROUP)),
    ("association_id", "L", _number(Fact.ASSOCIATION)),
    ("ja3", _TEXT, _hex(Fact.JA3)),
    ("ja3s", _TEXT, _hex(Fact.JA3S)),
    ("ja4", _TEXT, _text(Fact.JA4)),
    ("hassh", _TEXT, _hex(Fact.HASSH)),
    ("hassh_server", _TEXT, _hex(Fact.HASSH_SERVER)),
)
_VALUES: Final = {name: read for name, _, read in _COLUMNS}

#: Name and Arrow format.
DISSECTED_COLUMNS: Final = tuple((name, kind) for name, kind, _ in _COLUMNS)


def value_of(facts: Facts, name: str) -> str | int:
    """The value of one of DISSECTED_COLUMNS."""
    return _VALUES[name](facts)


def dissected_columns(blocks: Sequence[Facts]) -> list[list[bytes]]:
    """The buffers of DISSECTED_COLUMNS: one of numbers, or offsets and characters."""
    columns: list[list[bytes]] = []
    for _, kind, read in _COLUMNS:
        values = [read(facts) if facts.block else None for facts in blocks]
        if kind == _TEXT:
            pieces = [str(value).encode("ascii", "backslashreplace") if value else b"" for value in values]
            ends = [0]
            for piece in pieces:
                ends.append(ends[-1] + len(piece))
            columns.append([struct.pack(f"<{len(ends)}i", *ends), b"".join(pieces)])
        else:
            columns.append([struct.pack(f"<{len(values)}{_CODES[kind]}", *(value or 0 for value in values))])
    return columns
