"""Does something grow that should not?  A trend over a long window, never a verdict on one object.

A healthy server's numbers rise and fall with its load; what leaks has a floor that only rises.  So a
window is cut into quarters, and a quantity is said to grow if the least value of each quarter is above
that of the one before, and the last floor is a fifth above the first.  It is reported, as a
ResourceWarning and in the snapshot, and nothing is closed: by age or number every healthy connection
would be a leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sealwire.monitor.history import Point

#: Over so long, by default.
WINDOW_SECONDS: Final = 3600.0
#: How much higher the last floor must be than the first.
GROWTH: Final = 0.2
_QUARTERS: Final = 4
# Fewer points in a quarter have no floor worth the name.
_LEAST_POINTS: Final = 5

#: What is looked at, and below which value a fifth more is no news.
WATCHED: Final = {
    "connections": 100,
    "held_bytes": 1 << 20,
    "resident_bytes": 64 << 20,
    "open_descriptors": 50,
}


@dataclass(frozen=True, slots=True)
class Growing:
    """A quantity whose floor rose through the whole window."""

    quantity: str
    floors: tuple[int, ...]
    seconds: float

    def __str__(self) -> str:
        low, high = self.floors[0], self.floors[-1]
        return f"{self.quantity} rose from {low} to {high} in {self.seconds:.0f} seconds and never came back"


def growing(
    points: Sequence[Point], window_seconds: float = WINDOW_SECONDS, growth: float = GROWTH
) -> list[Growing]:
    """What grew over the last `window_seconds` of `points`, oldest first; nothing before they are so long."""
    if not points or points[-1].at - points[0].at < window_seconds:
        return []
    end = points[-1].at
    quarter = window_seconds / _QUARTERS
    parts: list[list[Point]] = [[] for _ in range(_QUARTERS)]
    for point in points:
        age = end - point.at
        if age < window_seconds:
            parts[_QUARTERS - 1 - int(age // quarter)].append(point)
    if min(map(len, parts)) < _LEAST_POINTS:
        return []
    found = []
    for quantity, least in WATCHED.items():
        floors = tuple(min(getattr(point, quantity) for point in part) for part in parts)
        rises = all(a < b for a, b in pairwise(floors))
        if rises and floors[-1] >= least and floors[-1] >= (1 + growth) * floors[0]:
            found.append(Growing(quantity, floors, window_seconds))
    return found
