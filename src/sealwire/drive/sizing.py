"""How many spare buffers to keep: four policies over the demand that was seen.

A free list saves allocations only while there is something in it, and what is in it is memory that
nobody uses.  A policy looks at how many buffers were out at once (the demand) in each interval and says
how many the list should be good for.  All of them are deterministic, take the time as an argument, stay
between a least and a most size, and look back over a bounded window.

docs/buffers.md compares them on recorded traces, and says where none of them is worth its memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Sizing:
    """The knobs of every policy.  Sizes in buffers, times in seconds.

    Attributes:
        growth: by what a size is multiplied to grow, and divided to shrink.
        shrink: a size of which less than this part is used shrinks.
        expand: a size of which more than this part is used grows.
        least, most: bounds of every size.
        window_seconds: how far back demand is remembered.
        every_seconds: how often a size changes.
    """

    growth: float = 1.5
    shrink: float = 0.3
    expand: float = 0.8
    least: int = 4
    most: int = 256
    window_seconds: float = 900.0
    every_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not self.growth > 1:
            raise ValueError(f"a growth of {self.growth} does not grow")
        if not 0 < self.shrink < self.expand <= 1:
            raise ValueError("shrink and expand are parts of a size, shrink the smaller one")
        if self.expand / self.growth <= self.shrink:
            raise ValueError(
                "what has just grown would shrink at once: raise expand, or lower shrink or growth"
            )
        if not 0 < self.least <= self.most:
            raise ValueError("least is 1 or more, and at most as much as most")
        if not 0 < self.every_seconds <= self.window_seconds:
            raise ValueError("sizes change more often than demand is forgotten")

    def clip(self, size: float) -> int:
        """`size` as a whole number within the bounds."""
        return max(self.least, min(self.most, math.ceil(size)))


DEFAULT_SIZING: Final = Sizing()


class SizingPolicy(ABC):
    """Says how many buffers a free list should be good for.

    Attributes:
        size: that number, now.
    """

    def __init__(self, sizing: Sizing = DEFAULT_SIZING) -> None:
        self.sizing = sizing
        self.size = sizing.least
        self._peaks: deque[int] = deque(maxlen=max(1, round(sizing.window_seconds / sizing.every_seconds)))
        self._due: float | None = None

    def adapt(self, peak: int, now: float) -> bool:
        """`peak` buffers were out at once since the last change; whether it was time for another.

        The first call only says when time begins.
        """
        if self._due is None:
            self._due = now + self.sizing.every_seconds
            return False
        if now < self._due:
            return False
        # After a long silence one interval is as good as the many that were missed.
        self._due = now + self.sizing.every_seconds
        self._peaks.append(peak)
        self.size = self.sizing.clip(self._choose(peak))
        return True

    @abstractmethod
    def _choose(self, peak: int) -> float:
        """The next size, within bounds or not; `peak` is the last of `_peaks`."""

    def _used(self, peak: float) -> float:
        return peak / self.size


class Conservative(SizingPolicy):
    """Little memory: grows when the whole window's mean wants it, shrinks at the first idle interval."""

    def _choose(self, peak: int) -> float:
        if self._used(peak) < self.sizing.shrink:
            return self.size / self.sizing.growth
        if self._used(sum(self._peaks) / len(self._peaks)) > self.sizing.expand:
            return self.size * self.sizing.growth
        return self.size


class Balanced(SizingPolicy):
    """Grows with the last interval, shrinks when a third of the window was idle."""

    def _choose(self, peak: int) -> float:
        if self._used(peak) > self.sizing.expand:
            return self.size * self.sizing.growth
        third = math.ceil((self._peaks.maxlen or 1) / 3)
        if len(self._peaks) >= third:
            recent = [self._peaks[-n] for n in range(1, third + 1)]
            if self._used(max(recent)) < self.sizing.shrink:
                return self.size / self.sizing.growth
        return self.size


class Aggressive(SizingPolicy):
    """Few allocations: grows at once to beyond the last peak, shrinks only after an idle window."""

    def _choose(self, peak: int) -> float:
        if self._used(peak) > self.sizing.expand:
            return max(self.size * self.sizing.growth, peak * self.sizing.growth)
        whole = len(self._peaks) == self._peaks.maxlen
        if whole and self._used(max(self._peaks)) < self.sizing.shrink:
            return self.size / self.sizing.growth
        return self.size


class Predictive(SizingPolicy):
    """Sized for the next interval, as a moving average with a trend (Holt's linear method) expects it.

    Holt, "Forecasting seasonals and trends by exponentially weighted moving averages" (1957): a level and
    a slope, each smoothed; the forecast is their sum.
    """

    # Of a new value in the level, and of a new slope in the trend.
    LEVEL: Final = 0.5
    TREND: Final = 0.3

    def __init__(self, sizing: Sizing = DEFAULT_SIZING) -> None:
        super().__init__(sizing)
        self._level: float | None = None
        self._trend = 0.0

    def _choose(self, peak: int) -> float:
        if self._level is None:
            self._level = float(peak)
        else:
            before = self._level
            self._level = self.LEVEL * peak + (1 - self.LEVEL) * (before + self._trend)
            self._trend = self.TREND * (self._level - before) + (1 - self.TREND) * self._trend
        return max(0.0, self._level + self._trend) / self.sizing.expand


#: The policies by name.
POLICIES: Final[dict[str, type[SizingPolicy]]] = {
    "conservative": Conservative,
    "balanced": Balanced,
    "aggressive": Aggressive,
    "predictive": Predictive,
}
