"""Clocks, and what they can tell apart.

A figure comes from a Stopwatch: wall and CPU time (user and system) of the timed spans alone, so
that preparing and checking are never in it.  The stopwatch is also where a slow-down is injected,
to see whether it is noticed further up: it prolongs each span by a part of itself.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: A span of this many steps of its clock is wrong by at most half a percent.
STEPS_OF_A_SPAN = 200


class Stopwatch:
    """Adds up timed spans.  `slow_down` is the part by which each is prolonged (0.15 for 15 %)."""

    def __init__(self, slow_down: float = 0.0) -> None:
        self.slow_down = slow_down
        self.reset()

    def reset(self) -> None:
        """Forget every span."""
        self.wall_seconds = 0.0
        self.cpu_seconds = 0.0
        self.spans = 0

    def start(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def stop(self) -> float:
        """End the span; its wall seconds."""
        cpu = time.process_time() - self._cpu
        wall = time.perf_counter() - self._wall
        if self.slow_down:
            end_cpu = self._cpu + cpu * (1 + self.slow_down)
            end_wall = self._wall + wall * (1 + self.slow_down)
            while time.process_time() < end_cpu or time.perf_counter() < end_wall:
                pass
            cpu = time.process_time() - self._cpu
            wall = time.perf_counter() - self._wall
        self.wall_seconds += wall
        self.cpu_seconds += cpu
        self.spans += 1
        return wall


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of this process so far, and its memory now."""

    user_seconds: float
    system_seconds: float
    rss_bytes: int

    @classmethod
    def now(cls) -> Usage:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(used.ru_utime, used.ru_stime, rss_bytes())

    @classmethod
    def of_children(cls) -> Usage:
        """Of the children that have ended; their memory is not known."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(used.ru_utime, used.ru_stime, 0)


def rss_bytes() -> int:
    """The resident set of this process; its peak where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


@cache
def cpu_clock_step() -> float:
    """The smallest step seen on the CPU clock, in seconds: what it can tell apart."""
    steps: list[float] = []
    for _ in range(50):
        start = now = time.process_time()
        while now == start:
            now = time.process_time()
        steps.append(now - start)
    return min(steps)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Quantiles of latencies by percentage (nearest rank, so each is a value that occurred)."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        f"{percent:g}": ordered[min(last, max(0, -(-int(percent * 10 * len(ordered)) // 1000) - 1))]
        for percent in (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
    }
