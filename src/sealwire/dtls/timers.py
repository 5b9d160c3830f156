"""When each of many connections wants to be woken: one heap, in which replaced times die lazily."""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final

from sealwire.dtls.connection import Connection

# Times that were replaced, kept before the heap is made anew; below this it costs more than it frees.
_SPARE: Final = 64


class Timers:
    """The next deadline of each connection."""

    __slots__ = ("_at", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Connection]] = []
        self._at: dict[Connection, float] = {}
        self._order = count()

    def __len__(self) -> int:
        """Entries of the heap, replaced ones included: what a leak would make grow."""
        return len(self._heap)

    def set(self, connection: Connection, at: float | None) -> None:
        """Wake `connection` at this time and no other; None: not at all."""
        if at is None:
            self._at.pop(connection, None)
        elif self._at.get(connection) != at:
            self._at[connection] = at
            heapq.heappush(self._heap, (at, next(self._order), connection))
        if len(self._heap) > 2 * len(self._at) + _SPARE:
            # Times that hold no more keep connections alive that are long gone: for four minutes,
            # which is more than memory lasts in a storm of short connections.
            self._heap = [(at, next(self._order), one) for one, at in self._at.items()]
            heapq.heapify(self._heap)

    @property
    def next(self) -> float | None:
        """When the first one is due, None if there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> list[Connection]:
        """Whose time has come, each once, in order; their times are taken out."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, _, connection = heapq.heappop(self._heap)
            if self._at.get(connection) == at:
                del self._at[connection]
                due.append(connection)
        return due
