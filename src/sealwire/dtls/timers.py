"""When each of many connections wants to be woken: a heap of what is near; replaced times die in it lazily.

The heap holds numbers, not connections: one that is closed is kept alive by nothing here, however far
away the time it once asked for.  What is far away, as the end of old keys of connections that sleep, waits
in a plain table, which is looked through when the first of it is due and then not for some seconds: an
entry of the heap and what belongs to it take four times as much memory.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final

from sealwire.dtls.connection import Connection

# Times that were replaced, kept before the heap is made anew; below this it costs more than it frees.
_SPARE: Final = 64
# What is further away than this is not in the heap: no timer that a handshake or data needs.
_FAR_SECONDS: Final = 100.0
# What is due so soon behind the first one comes into the heap with it.
_NEAR_SECONDS: Final = 20.0
_NEVER: Final = float("inf")


class Timers:
    """The next deadline of each connection.

    Attributes:
        now: the time as of late.
    """

    __slots__ = ("_far", "_far_due", "_heap", "_next", "_of", "_set", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int]] = []
        self._next = count()
        # What each connection has set, and whose each number is.
        self._set: dict[Connection, tuple[float, int]] = {}
        self._of: dict[int, Connection] = {}
        # The others, and a time before which none of them is due.
        self._far: dict[Connection, float] = {}
        self._far_due = _NEVER

    def __len__(self) -> int:
        """Entries, replaced ones included: what a leak would make grow."""
        return len(self._heap) + len(self._far)

    def set(self, connection: Connection, at: float | None) -> None:
        """Wake `connection` at this time and no other; None: not at all."""
        before = self._set.get(connection)
        if before is not None:
            if before[0] == at:
                return
            del self._set[connection], self._of[before[1]]
        elif connection in self._far:
            if self._far[connection] == at:
                return
            del self._far[connection]
        if at is not None and at > self.now + _FAR_SECONDS:
            self._far[connection] = at
            self._far_due = min(self._far_due, at)
        elif at is not None:
            self._enter(connection, at)
        if len(self._heap) > 2 * len(self._set) + _SPARE:
            self._heap = list(self._set.values())
            heapq.heapify(self._heap)

    def _enter(self, connection: Connection, at: float) -> None:
        entry = self._set[connection] = (at, next(self._next))
        self._of[entry[1]] = connection
        heapq.heappush(self._heap, entry)

    @property
    def next(self) -> float | None:
        """When the first one is due, None if there is none."""
        heap = self._heap
        while heap and heap[0][1] not in self._of:
            heapq.heappop(heap)
        if not self._far:
            # A dict keeps the room it once had.
            self._far, self._far_due = {}, _NEVER
        due = min(heap[0][0] if heap else _NEVER, self._far_due)
        return None if due == _NEVER else due

    def take_due(self, now: float) -> list[Connection]:
        """Whose time has come, each once, in order; their times are taken out."""
        self.now = now
        if self._far_due <= now:
            self._fetch(now + _NEAR_SECONDS)
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, number = heapq.heappop(self._heap)
            connection = self._of.pop(number, None)
            if connection is not None:
                del self._set[connection]
                due.append(connection)
        if not self._set:
            self._set, self._of = {}, {}
        return due

    def _fetch(self, until: float) -> None:
        """Put those that are far into the heap that are due until then."""
        near = [(connection, at) for connection, at in self._far.items() if at <= until]
        for connection, at in near:
            del self._far[connection]
            self._enter(connection, at)
        self._far_due = min(self._far.values(), default=_NEVER)
