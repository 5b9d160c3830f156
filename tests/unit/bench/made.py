"""Results made from numbers, so that statistics can be tested without measuring anything."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from sealwire.bench.measurement import Check, Figure, Kind, Reading, Role
from sealwire.bench.results import Entry, Measured, Result


@dataclass(frozen=True, slots=True)
class World:
    """What a made run is made from.

    Attributes:
        rows: how many rows of time; as many again of rate and of memory.
        within, between: noise of turns and of runs, standard deviations of logarithms.
        drift: how much slower the machine is for everybody.
    """

    rows: int = 12
    turns: int = 5
    within: float = 0.01
    between: float = 0.01
    drift: float = 0.0
    rivals: bool = True


def run(
    seed: object, world: World | None = None, slower: Mapping[str, float] | None = None, machine: str = "here"
) -> Result:
    """One run; `slower` has factors of named rows, a time, rate or memory that is so much worse."""
    world = world or World()
    chance = random.Random(str(seed))
    factors = slower or {}
    measured = []
    for kind, unit, base in ((Kind.TIME, "us", 5.0), (Kind.RATE, "1/s", 9000.0), (Kind.MEMORY, "B", 9e3)):
        for n in range(world.rows):
            name = f"{kind.value}.{n}"
            worse = math.log(factors.get(name, 1.0))
            drift = 0.0 if kind is Kind.MEMORY else math.log1p(world.drift)
            sign = -1 if kind is Kind.RATE else 1

            def turns(
                base: float, extra: float, sign: int = sign, drift: float = drift
            ) -> tuple[Reading, ...]:
                centre = math.log(base) + sign * (drift + chance.gauss(0, world.between) + extra)
                return tuple(
                    reading(math.exp(chance.gauss(centre, world.within))) for _ in range(world.turns)
                )

            entries = [Entry("sealwire", Role.OURS, "measured", "", "", turns(base * (n + 1), worse))]
            if world.rivals:
                entries.append(Entry("rival", Role.RIVAL, "measured", "", "rival 1.0", turns(base * 3, 0.0)))
            stick = tuple(
                reading(40.0 * math.exp(drift + chance.gauss(0, 0.005))) for _ in range(world.turns)
            )
            if kind is Kind.MEMORY:
                stick = tuple(reading(40.0) for _ in range(world.turns))
            entries.append(Entry("yardstick", Role.YARDSTICK, "measured", "", "", stick))
            figures = (Figure("", unit, kind, ""),)
            measured.append(Measured(name, f"row {n}", figures, tuple(entries), ()))
    return Result(
        created="2026-01-01T00:00:00+00:00",
        scale={"name": "quick", "runs": world.turns, "seconds": 0.1},
        machine={"id": machine, "cpu": "made", "cpus": 2, "memory_gib": 1, "kernel": "none"},
        software={"sealwire": "0", "commit": "0" * 40, "compiled": True, "python": "CPython 3.11"},
        hooks={"slow_down": 0.0},
        conditions={"cpus": [0, 1], "load_before": 0.1, "load_after": 0.1, "rivals": True},
        measured=tuple(measured),
    )


def reading(value: float, checks: tuple[Check, ...] = ()) -> Reading:
    """A turn with one figure."""
    return Reading(values={"": value}, units=100, wall_seconds=0.1, cpu_seconds=0.1, checks=checks)


def entry(role: Role, *values: float, status: str = "measured", name: str = "") -> Entry:
    """A contender with these turns."""
    return Entry(name or role.value, role, status, "", "", tuple(reading(value) for value in values))
