"""Work that never changes, measured in turns with everything else.

A shared machine gets slower and faster for minutes at a time.  What the yardstick took then and now
says how much of a change was the machine: interpreter, memory and hashing in about the mixture the
measured code has.
"""

from __future__ import annotations

import hashlib
from typing import Final

from sealwire.bench.loops import Loop
from sealwire.bench.measurement import Contender, Figure, Kind, Measurement, Role

LOCATION: Final = "sealwire.bench.yardstick:ROWS"
_BLOCKS: Final = 20
_BLOCK: Final = bytes(1200)


class _Work:
    """A Task: hash, copy and file away some blocks."""

    units = 1

    def __init__(self) -> None:
        self._filed: dict[int, tuple[bytes, bytes]] = {}

    def prepare(self, passes: int) -> None:
        pass

    def work(self, passes: int) -> None:
        for _ in range(passes):
            filed: dict[int, tuple[bytes, bytes]] = {}
            for n in range(_BLOCKS):
                block = n.to_bytes(2, "big") + _BLOCK
                filed[n] = (hashlib.sha256(block).digest(), block[2:])
            self._filed = filed

    def verify(self) -> None:
        if len(self._filed) != _BLOCKS:
            raise ValueError("the yardstick is bent")


CONTENDER = Contender("yardstick", Role.YARDSTICK, lambda bench: Loop(bench, _Work()))
MEASUREMENT = Measurement(
    "yardstick",
    "work that never changes",
    (Figure("", "us", Kind.TIME, "CPU per pass"),),
    # A measurement has one contender of ours; nobody measures this one by itself.
    (CONTENDER, Contender("the same", Role.OURS, CONTENDER.open)),
)
ROWS = (MEASUREMENT,)
