"""Watermarks: how much may wait to be sent before who writes has to wait, as for asyncio's transports."""

from __future__ import annotations


class Watermarks:
    """Two numbers of bytes: writing stops above `high` and goes on at `low` or below.

    Args:
        high: the first one until :meth:`set` says otherwise; a quarter of it is the second.
    """

    __slots__ = ("_usual", "high", "low")

    def __init__(self, high: int) -> None:
        self._usual = high
        self.high, self.low = high, high // 4

    def set(self, high: int | None, low: int | None) -> None:
        """As `asyncio.WriteTransport.set_write_buffer_limits`: what is None follows from the other.

        Raises:
            ValueError: `low` is negative or above `high`.
        """
        if high is None:
            high = self._usual if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high, self.low = high, low
