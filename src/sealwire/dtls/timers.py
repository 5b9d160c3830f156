"""When each of many connections wants to be woken: one heap, in which replaced times die lazily.

The heap holds numbers, not connections: one that is closed is kept alive by nothing here, however far
away the time it once asked for.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final

from sealwire.dtls.connection import Connection

# Times that were replaced, kept before the heap is made anew; below this it costs more than it frees.
_SPARE: Final = 64


class Timers:
    """The next deadline of each connection."""

    __slots__ = ("_heap", "_next", "_of", "_set")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._next = count()
        # What each connection has set, and whose each number is.
        self._set: dict[Connection, tuple[float, int]] = {}
        self._of: dict[int, Connection] = {}

    def __len__(self) -> int:
        """Entries of the heap, replaced ones included: what a leak would make grow."""
        return len(self._heap)

    def set(self, connection: Connection, at: float | None) -> None:
        """Wake `connection` at this time and no other; None: not at all."""
        before = self._set.get(connection)
        if before is not None:
            if before[0] == at:
                return
            del self._of[before[1]]
        if at is None:
            self._set.pop(connection, None)
        else:
            entry = self._set[connection] = (at, next(self._next))
            self._of[entry[1]] = connection
            heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._set) + _SPARE:
            self._heap = list(self._set.values())
            heapq.heapify(self._heap)

    @property
    def next(self) -> float | None:
        """When the first one is due, None if there is none."""
        heap = self._heap
        while heap and heap[0][1] not in self._of:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> list[Connection]:
        """Whose time has come, each once, in order; their times are taken out."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, number = heapq.heappop(self._heap)
            connection = self._of.pop(number, None)
            if connection is not None:
                del self._set[connection]
                due.append(connection)
        return due
