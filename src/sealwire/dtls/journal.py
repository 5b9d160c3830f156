"""What a connection may still send before its next checkpoint.

A checkpoint promises numbers: whoever goes on from it skips a reserve, so this process may use the
reserve and no more.  It also holds what the handshake messages behind the handshake have changed;
as soon as one of them changes something else, nothing goes out until a checkpoint has that too,
because an answer that was sent and is not remembered cannot be taken back.
"""

from __future__ import annotations

from typing import Final

#: Numbers of the reserve that are left unused: a turn of handshake records and answers fits.
MARGIN: Final = 256

#: Epochs each way, numbers of handshake messages each way, connection ids: what a crash must not undo.
Mark = tuple[object, ...]


class Journal:
    """Of a connection that may have gone through several processes.

    Attributes:
        name: of the association, for life; 16 bytes.
        generation: how often it was imported.
        announced: the owner was told that a checkpoint is due.
    """

    __slots__ = ("_mark", "announced", "generation", "name")

    def __init__(self, name: bytes, generation: int) -> None:
        self.name = name
        self.generation = generation
        self._mark: Mark | None = None
        self.announced = False

    def renew(self, mark: Mark) -> None:
        """A checkpoint was made of a connection like `mark`."""
        self._mark = mark
        self.announced = False

    def holds(self, mark: Mark, left: int) -> bool:
        """Whether nothing may be sent before the next checkpoint; `left` of the reserve are left."""
        return self._mark is not None and (mark != self._mark or left <= MARGIN)
