"""A bounded free list: buffers that were given back wait to be lent again, as many as a policy says.

The memory that waits is charged to a ledger, like everything else that is held: a list that the ledger
refuses is shorter.  Nothing here is shared between threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sealwire import ownership
from sealwire.drive.sizing import SizingPolicy
from sealwire.limits import Purpose

BufferT = TypeVar("BufferT")


class Charges(Protocol):
    """What :class:`sealwire.limits.Ledger` and Account are to a free list."""

    def charge(self, purpose: Purpose, n: int, /) -> bool: ...
    def release(self, purpose: Purpose, n: int, /) -> None: ...


@dataclass(frozen=True, slots=True)
class BufferStatistics:
    """What a free list did.

    Attributes:
        hits, misses: lendings from the list, and those for which a buffer was made.
        lent, spare: buffers out and waiting, now.
        high_water: the most that were out at once.
        held_bytes: of those that wait.
        discarded: buffers given back that were one too many.
    """

    hits: int
    misses: int
    lent: int
    spare: int
    high_water: int
    held_bytes: int
    discarded: int

    @property
    def hit_rate(self) -> float:
        """The part of lendings that made no buffer; 0 before the first."""
        total = self.hits + self.misses
        return self.hits / total if total else 0.0


class FreeList(Generic[BufferT]):
    """Lends buffers of one size.

    Args:
        make: makes a buffer.
        buffer_bytes: what one weighs.
        policy: how many are kept.
        charges: the ledger that waiting buffers are charged to; None for none.
    """

    def __init__(
        self,
        make: Callable[[], BufferT],
        buffer_bytes: int,
        policy: SizingPolicy,
        charges: Charges | None = None,
    ) -> None:
        self._make = make
        self._bytes = buffer_bytes
        self._policy = policy
        self._charges = charges
        self._spare: list[BufferT] = []
        self._lent = self._peak = self._high_water = 0
        self._hits = self._misses = self._discarded = 0

    def lend(self) -> BufferT:
        """A buffer; its content means nothing."""
        self._lent += 1
        if self._lent > self._peak:
            self._peak = self._lent
        if self._spare:
            self._hits += 1
            buffer = self._pop()
        else:
            self._misses += 1
            buffer = self._make()
        ownership.own(ownership.Kind.BUFFER, buffer)
        return buffer

    def give_back(self, buffer: BufferT) -> None:
        """`buffer` is nobody's any more; it is kept, or dropped if there are enough."""
        assert self._lent > 0, "more was given back than lent"
        ownership.let_go(buffer)
        self._lent -= 1
        if len(self._spare) + self._lent >= self._policy.size or not self._charge():
            self._discarded += 1
        else:
            self._spare.append(buffer)

    def keep(self, n: int = 1) -> None:
        """Whoever borrowed `n` buffers keeps them for good: they are not out any more."""
        assert self._lent >= n, "more is kept than was lent"
        self._lent -= n

    def adapt(self, now: float) -> None:
        """Let the policy look at the demand, and drop what is too many.  To be called now and then."""
        if self._policy.adapt(self._peak, now):
            self._high_water = max(self._high_water, self._peak)
            self._peak = self._lent
            while self._spare and len(self._spare) + self._lent > self._policy.size:
                self._pop()

    def clear(self) -> None:
        """Drop what waits."""
        while self._spare:
            self._pop()

    def _pop(self) -> BufferT:
        if self._charges is not None:
            self._charges.release(Purpose.TABLES, self._bytes)
        return self._spare.pop()

    def _charge(self) -> bool:
        return self._charges is None or self._charges.charge(Purpose.TABLES, self._bytes)

    def statistics(self) -> BufferStatistics:
        """What happened so far."""
        return BufferStatistics(
            hits=self._hits,
            misses=self._misses,
            lent=self._lent,
            spare=len(self._spare),
            high_water=max(self._high_water, self._peak),
            held_bytes=len(self._spare) * self._bytes,
            discarded=self._discarded,
        )
