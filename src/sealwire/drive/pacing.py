"""Pacing: a rate that bulk does not exceed, so that it fills no queue on its way.

A token bucket in bytes of messages.  Its burst is what a rate earns in ten milliseconds: a busy
event loop is not more exact, and what it slept is made up for.
"""

from __future__ import annotations

from typing import Final

_BURST_SECONDS: Final = 0.01


class Pacer:
    """Says how long to wait before more may be sent.

    Attributes:
        rate: bytes a second.
    """

    __slots__ = ("_left", "_seen", "burst", "rate")

    def __init__(self, rate: float, now: float) -> None:
        if not rate > 0:
            raise ValueError(f"a rate of {rate!r} bytes a second is not positive")
        self.rate = rate
        self.burst = rate * _BURST_SECONDS
        self._left = self.burst
        self._seen = now

    def spend(self, n: int, now: float) -> float:
        """Account for `n` bytes sent now; seconds to wait before anything else is."""
        self._left = min(self.burst, self._left + (now - self._seen) * self.rate) - n
        self._seen = now
        return max(0.0, -self._left / self.rate)
