"""Bytes that arrive in pieces, put in order within limits: heads of TCP streams, DTLS messages, CRYPTO.

The first bytes to arrive for a place stay.  Memory grows with bytes received, never with bytes
declared, and all of it is charged to one `Budget` a table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Longest head that is put together.
HEAD_BYTES: Final = 16_384
#: Pieces that may wait for those before them.
MAX_PENDING: Final = 32


@dataclass(slots=True)
class Budget:
    """Bytes held by all dissection of a table."""

    limit: int
    held: int = 0
    peak: int = 0
    #: Times something was not kept because the limit was reached.
    refused: int = 0

    def charge(self, n: int) -> bool:
        """Whether `n` more bytes may be held; then they are."""
        if self.held + n > self.limit:
            self.refused += 1
            return False
        self.held += n
        self.peak = max(self.peak, self.held)
        return True

    def release(self, n: int) -> None:
        self.held -= n


@dataclass(slots=True)
class Head:
    """The first bytes of something, in order as far as they came."""

    kept: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    #: A limit was reached: what is not there will not come.
    cut: bool = False

    @property
    def fresh(self) -> bool:
        """Nothing was kept yet."""
        return not self.kept and not self.pending

    def add(self, budget: Budget, offset: int, data: bytes | memoryview) -> bool:
        """Take a piece; whether the head grew."""
        end = offset + len(data)
        if end > HEAD_BYTES:
            self.cut = True
            if offset >= HEAD_BYTES:
                return False
            data = data[: HEAD_BYTES - offset]
            end = HEAD_BYTES
        have = len(self.kept)
        if offset > have:
            if len(self.pending) >= MAX_PENDING or not budget.charge(len(data)):
                self.cut = True
                return False
            self.pending.append((offset, bytes(data)))
            return False
        if end <= have:
            return False
        if not budget.charge(end - have):
            self.cut = True
            return False
        self.kept += data[have - offset :]
        while self._join(budget):
            pass
        return True

    def _join(self, budget: Budget) -> bool:
        """Take the first pending piece that is no longer ahead."""
        have = len(self.kept)
        for index, (offset, data) in enumerate(self.pending):
            if offset <= have:
                del self.pending[index]
                tail = data[have - offset :]
                budget.release(len(data) - len(tail))
                self.kept += tail
                return True
        return False

    def free(self, budget: Budget) -> None:
        """Let go of everything."""
        budget.release(len(self.kept) + sum(len(data) for _, data in self.pending))
        self.kept.clear()
        self.pending.clear()
