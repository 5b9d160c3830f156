"""What the package is to reach, by number, held against a result: the first table of docs/performance.md.

Bounds are ratios to what was measured in the same turns wherever there is somebody to compare with; each
target names the page that says where its time or memory goes.  What takes longer than a bench may, or
needs root, is measured by a program of its own, and the table says by which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.bench.results import Result
from sealwire.bench.slo import Objective, judge

_BORING: Final = "BoringSSL, DTLS 1.3"
_WOLF: Final = "wolfSSL, DTLS 1.3"
_PLAIN_C: Final = "plain UDP in C, a call each"
_PLAIN: Final = "plain UDP, a call each"
_TCP: Final = "plain TCP, asyncio"
_SSL: Final = "Python ssl, asyncio"

_DATA: Final = "data-plane.md#figures"
_HANDSHAKE: Final = "handshake-cost.md"
_IDLE: Final = "idle.md#figures"
_STCP: Final = "stcp-performance.md"


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        id: as it is spoken of, such as ``T5``.
        what: in a few words.
        objectives: all of them are to be met.
        page: beside docs/performance.md: where what it costs is taken apart.
        command: measures what no row does; "" where rows say all.
    """

    id: str
    what: str
    objectives: tuple[Objective, ...]
    page: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """One objective of a target and what became of it.

    Attributes:
        verdict: ``met``, ``missed``, ``not measured`` here, or ``elsewhere``: by a program of its own.
        found: the figure, or why there is none.
    """

    target: Target
    wanted: str
    verdict: str
    found: str


def _least(row: str, bound: float, than: str = "", unit: str = "") -> Objective:
    return Objective(row, None, bound, unit, than)


def _most(row: str, bound: float, than: str = "", unit: str = "") -> Objective:
    return Objective(row, bound, None, unit, than)


def _grid(bounds: Sequence[tuple[int, float]], than: str) -> tuple[Objective, ...]:
    return tuple(_least(f"stcp.{size}", bound, than) for size, bound in bounds)


TARGETS: Final = (
    Target(
        "T1",
        "bulk over loopback UDP, no loss",
        tuple(
            _least(f"bulk.{size}", bound, rival)
            for size, bound in ((1200, 4.0), (64, 7.0))
            for rival in (_WOLF, _BORING)
        ),
        _DATA,
    ),
    Target("T2", "one awaited send a message", (_least("bulk.messages.64", 145_000, unit="1/s"),), _DATA),
    Target(
        "T3",
        "a record in memory",
        tuple(
            _most(f"record.{what}.{size}", 1.3, _BORING) for size in (64, 1200) for what in ("seal", "open")
        ),
        _DATA,
    ),
    Target(
        "T4",
        "against plain UDP",
        (
            _least("bulk.1200", 3.0, _PLAIN_C),
            *(_least(f"bulk.messages.{size}", 0.95, _PLAIN) for size in (64, 1200)),
            *(_least(f"bulk.single.{size}", 0.95, _PLAIN) for size in (64, 1200)),
        ),
        "data-plane.md#one-message-by-itself",
    ),
    Target(
        "T5",
        "full handshake in memory, both sides",
        (_most("handshake.memory.full", 1_000, unit="us"),),
        _HANDSHAKE,
    ),
    Target(
        "T6",
        "full handshakes a second over UDP, with cookie",
        (_least("handshake.rate.full", 1_200, unit="1/s"),),
        _HANDSHAKE,
    ),
    Target(
        "T7",
        "resumed handshakes a second over UDP",
        (_least("handshake.rate.resumed", 2_000, unit="1/s"),),
        _HANDSHAKE,
    ),
    Target(
        "T8",
        "latency of a full handshake",
        (_most("handshake.udp.full", 2.0, unit="ms"), _most("handshake.udp.full.p99", 5.0, unit="ms")),
        _HANDSHAKE,
    ),
    Target(
        "T9",
        "bytes an idle connection of an Endpoint takes, awake and asleep",
        (_most("connections.idle", 6_144, unit="B"), _most("connections.asleep", 2_048, unit="B")),
        _IDLE,
    ),
    Target(
        "T10",
        "a server of 100,000 connections, one in a hundred echoing (with `--full`)",
        (_most("connections.echo.held", 1_000, unit="MB"),),
        _IDLE,
    ),
    Target(
        "T11",
        "CPU of an echo, 100 to 2,000 connections (to 100,000 with `--full`)",
        (_most("connections.echo.growth", 1.5, unit="x"),),
        _IDLE,
    ),
    Target(
        "T12",
        "100,000 forged hellos a second: at most 3 us of CPU each, memory flat, peer 95 %, handshakes 99 %",
        (),
        "flood.md",
        "python benchmarks/flood.py (as root)",
    ),
    Target(
        "T13",
        "two workers to one",
        (_most("workers.record.ratio", 1.15), _most("workers.handshake.ratio", 1.15)),
        "workers.md#how-many",
    ),
    Target(
        "T14",
        "messages lost while keys, ids and path change",
        (_most("changes.sockets", 0), _most("changes.simulated", 0)),
        "connection-ids.md",
    ),
    Target(
        "T20",
        "requests a second over STCP, to what was promised",
        (
            *_grid(((256, 25_500), (4096, 20_400), (16384, 12_900), (65536, 5_250)), ""),
            *(
                _most(f"stcp.{size}.p99", bound, unit="ms")
                for size, bound in ((256, 10.0), (4096, 8.7), (16384, 11.7), (65536, 27.2))
            ),
        ),
        _STCP,
    ),
    Target(
        "T21",
        "against asyncio with Python's ssl",
        _grid(((256, 2.0), (4096, 2.0), (65536, 1.3)), _SSL),
        _STCP,
    ),
    Target(
        "T22",
        "against plain TCP with the same loop",
        _grid(((256, 0.85), (4096, 0.85), (65536, 0.6)), _TCP),
        _STCP,
    ),
    Target(
        "T36",
        "an event sealed with RSA-4096 batches; stored at the other end",
        (
            _most("seal.encode", 0.5, unit="us/event"),
            _most("seal.whole.rsa-4096", 10.0, unit="us/event"),
            _most("seal.store.rsa-4096", 3.0, unit="us/event"),
        ),
        "bench.md",
    ),
)


def standings(result: Result) -> list[Standing]:
    """Each objective of each target against `result`, in order."""
    found = []
    for target in TARGETS:
        for objective in target.objectives:
            outcome = judge(result, objective)
            verdict = ("met" if outcome.met else "missed") if outcome.measured else "not measured"
            found.append(Standing(target, objective.words, verdict, outcome.found))
        if target.command:
            page = target.page.partition("#")[0]
            found.append(Standing(target, "", "elsewhere", f"`{target.command}`, [{page}]({target.page})"))
    return found
