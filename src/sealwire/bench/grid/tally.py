"""What clients count: requests, bytes, errors by name, and latencies in steps of a microsecond.

Latencies go into a table that is there from the start, so that a measurement of hours holds no more
memory at its end than at its beginning.  What takes longer than the table reaches is kept apart.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Final

# A tenth of a second in microseconds; beyond it latencies are few.
_STEPS: Final = 100_000
_MOST_SLOW: Final = 100_000
PERCENTS: Final = (0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)


class Latencies:
    """How often each latency was seen."""

    __slots__ = ("_slow", "_steps", "count", "total")

    def __init__(self) -> None:
        self._steps = array("Q", bytes(8 * _STEPS))
        self._slow: list[float] = []
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        step = int(seconds * 1e6)
        if step < _STEPS:
            self._steps[step] += 1
        elif len(self._slow) < _MOST_SLOW:
            self._slow.append(seconds)
        self.count += 1
        self.total += seconds

    @property
    def mean(self) -> float:
        """In seconds; 0 of none."""
        return self.total / self.count if self.count else 0.0

    def quantiles(self, percents: Iterable[float] = PERCENTS) -> dict[str, float]:
        """Latencies in ms by percentage, nearest rank: no more than a microsecond from one that occurred."""
        if not self.count:
            return {}
        wanted = sorted(percents)
        found: dict[str, float] = {}
        seen = 0
        slow = sorted(self._slow)
        ranks = {percent: max(1, -int(-percent * self.count // 100)) for percent in wanted}
        position = iter(wanted)
        percent = next(position, None)
        for step, times in enumerate(self._steps):
            if not times:
                continue
            seen += times
            while percent is not None and ranks[percent] <= seen:
                found[f"{percent:g}"] = (step + 0.5) / 1e3
                percent = next(position, None)
            if percent is None:
                return found
        while percent is not None:
            rank = min(ranks[percent] - seen, len(slow)) - 1
            found[f"{percent:g}"] = slow[rank] * 1e3
            percent = next(position, None)
        return found


class Tally:
    """The counts of one turn, or of a part of it.

    Attributes:
        latencies: of requests that were answered rightly.
        connects: of connections, where they are made during the turn; handshake included.
        messages: what was sent one way, where nobody waits for answers.
        errors: how often what went wrong.
    """

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.connects = Latencies()
        self.messages = 0
        self.errors: Counter[str] = Counter()

    def failed(self, error: BaseException | str) -> None:
        """Something went wrong."""
        self.errors[error if isinstance(error, str) else type(error).__name__] += 1
