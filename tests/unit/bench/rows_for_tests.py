"""Measurements whose contenders do what a test wants: figures without clocks, crashes, hangs.

Workers find them as ``tests.unit.bench.rows_for_tests:ROWS``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sealwire.bench.crypto_switch import NoCrypto
from sealwire.bench.loops import Loop
from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Check,
    Contender,
    Figure,
    Kind,
    Measurement,
    Promise,
    Reading,
    Role,
)
from sealwire.bench.rows import record

LOCATION = "tests.unit.bench.rows_for_tests:ROWS"


class Constant:
    """A Body whose figure is known; the third turn of one that `lies` does not verify."""

    def __init__(self, value: float, *, lies: bool = False) -> None:
        self._value = value
        self._lies = lies
        self._turns = 0

    def run(self, seconds: float) -> Reading:
        self._turns += 1
        return Reading(
            values={"": self._value + self._turns * 1e-3},
            units=10,
            wall_seconds=seconds,
            cpu_seconds=seconds,
            checks=(Check("constant", True, "it is"),),
        )

    def verify(self) -> None:
        if self._lies and self._turns == 3:
            raise ValueError("what was computed is not right")

    def close(self) -> None:
        pass


class Crashing(Constant):
    def run(self, seconds: float) -> Reading:
        print("about to go", flush=True)
        sys.stderr.write("stack smashed somewhere\n")
        sys.stderr.flush()
        os.abort()


class Hanging(Constant):
    def run(self, seconds: float) -> Reading:
        time.sleep(3600)
        raise AssertionError("unreachable")


class Asking(Constant):
    """Asks its peer twice in a turn; its figure is how much the peer counted in between."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(0.0)
        self._bench = bench

    def run(self, seconds: float) -> Reading:
        before = self._bench.ask_peer("count")
        after = self._bench.ask_peer("count")
        assert after["rss_bytes"] > 0
        values = {"": after["count"] - before["count"] + self._bench.peer["base"]}
        return Reading(values=values, units=1, wall_seconds=1.0, cpu_seconds=1.0)


class Counting:
    """A Peer that counts how often it was asked."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def address(self) -> Mapping[str, Any]:
        return {"base": 41}

    def serve(self) -> None:
        print("a peer may print")

    def answer(self, question: str) -> Mapping[str, float]:
        self._count += 1
        return {"count": float(self._count)}


def _refuse(bench: Bench) -> Body:
    raise OSError("the library is too old\nand more that nobody wants to read")


def _secured(bench: Bench) -> Body:
    """Costs 3 with its crypto and 1 without."""
    return Constant(3.0 if bench.crypto.on else 1.0)


def _ours(open_: Callable[[Bench], Body] = lambda bench: Constant(2.0)) -> Contender:
    return Contender("sealwire", Role.OURS, open_)


def _rewired(bench: Bench) -> Body:
    """The real sealing row, of which somebody has taken the crypto out."""
    off = Bench(bench.directory, bench.scale, NoCrypto(), bench.stopwatch, bench.peer, bench.ask_peer)
    return Loop(off, record.Sealing(off, 1200))


class _Unverified(record.Sealing):
    def verify(self) -> None:
        pass


def _rewired_unverified(bench: Bench) -> Body:
    """The same, and its verification with it."""
    off = Bench(bench.directory, bench.scale, NoCrypto(), bench.stopwatch, bench.peer, bench.ask_peer)
    return Loop(off, _Unverified(off, 1200))


_TIME = (Figure("", "us", Kind.TIME, "CPU", Promise(10.0, "below 10 us")),)


def _sabotaged(name: str, ours: Callable[[Bench], Body], alone: float = 2.0) -> Measurement:
    return Measurement(
        name,
        name,
        _TIME,
        (
            _ours(ours),
            Contender("without", Role.WITHOUT_CRYPTO, _secured),
            Contender("alone", Role.CRYPTO_ALONE, lambda bench: Constant(alone)),
        ),
    )


def _real(name: str, ours: Callable[[Bench], Body]) -> Measurement:
    (row,) = (one for one in record.ROWS if one.name == "record.seal.1200")
    others = tuple(one for one in row.contenders if one.role in (Role.WITHOUT_CRYPTO, Role.CRYPTO_ALONE))
    return Measurement(name, name, row.figures[:1], (_ours(ours), *others))


ROWS = (
    Measurement(
        "rivals.bad",
        "rivals that fail",
        _TIME,
        (
            _ours(),
            Contender("crashing", Role.RIVAL, lambda bench: Crashing(0.0)),
            Contender("hanging", Role.RIVAL, lambda bench: Hanging(0.0)),
            Contender("refusing", Role.RIVAL, _refuse),
            Contender("lying", Role.RIVAL, lambda bench: Constant(1.0, lies=True)),
            Contender(
                "missing", Role.RIVAL, lambda bench: Constant(0.0), presence=lambda: Absent("not installed")
            ),
            Contender("good", Role.RIVAL, lambda bench: Constant(5.0)),
        ),
    ),
    Measurement(
        "peers.two",
        "two processes",
        _TIME,
        (Contender("sealwire", Role.OURS, Asking, peer=lambda bench: Counting()),),
    ),
    _sabotaged("secured.honest", _secured),
    _sabotaged("secured.rewired", lambda bench: Constant(1.0)),
    _sabotaged("secured.stripped", lambda bench: Constant(9.0)),
    _real("rewired.verified", _rewired),
    _real("rewired.unverified", _rewired_unverified),
)

DIRECTORY = Path("unused")
