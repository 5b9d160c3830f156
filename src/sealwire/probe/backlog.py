"""What a spool holds that no collector has, read in order and one segment at a time.

The signer says how far each file may be read; nothing behind that is looked at.  Bytes that are no
segment (a damaged disk) are stepped over and counted: what they held cannot be sent, and `verify` at
the collector will say that it is missing.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sealwire.probe.delivery import FRAME_MAXIMUM_BYTES
from sealwire.probe.seal import frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.delivered import Numbers
from sealwire.probe.sending import Outgoing
from sealwire.probe.spool import SUFFIX

_READ_BYTES: Final = 2 * FRAME_MAXIMUM_BYTES


class Backlog:
    """Segments of the spool in `directory` that are to be delivered, from the oldest on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: list[tuple[str, int]] = []
        self._delivered = Numbers()
        #: Bytes stepped over because they were no segment.
        self.damaged = 0
        self._name = ""
        self._offset = 0
        self._buffer = b""
        self._at = 0
        self._next: Outgoing | None = None

    def update(self, files: Sequence[tuple[str, int]]) -> None:
        """Take the files, oldest first, and how far each may be read."""
        self._files = sorted(files)

    def took(self, number: int) -> None:
        """A collector has this segment."""
        self._delivered.add(number, number)

    def restart(self, delivered: Sequence[tuple[int, int]], last: int | None) -> None:
        """Begin again at the first segment that is not delivered.

        `delivered` is what receipts say, `last` the last one that the collector holds: if it has less than
        it acknowledged, what is still here is sent once more.
        """
        least = -1 if last is None else last
        self._delivered = Numbers([(first, min(end, least)) for first, end in delivered if first <= least])
        self._name, self._next = "", None
        for (name, _), (following, _) in zip(self._files, self._files[1:], strict=False):
            if not self._delivered.covers(_number(name), _number(following) - 1):
                self._enter(name)
                return
        if self._files:
            self._enter(self._files[-1][0])

    def _enter(self, name: str) -> None:
        self._name, self._offset, self._buffer, self._at = name, 0, b"", 0

    def peek(self) -> Outgoing | None:
        """The next segment to send, if one is durable.  Raises OSError."""
        while self._next is None:
            if not self._name and not self._step():
                return None
            if not self._read() and not self._step():
                return None
        return self._next

    def taken(self) -> None:
        """The segment that peek() gave is on its way."""
        self._next = None

    def _step(self) -> bool:
        """Go to the file behind this one, if there is one."""
        following = next((name for name, _ in self._files if name > self._name), None)
        if following is None:
            return False
        self._enter(following)
        return True

    def _read(self) -> bool:
        """Take the next segment of this file that is not delivered; False where there is none."""
        limit = next((size for name, size in self._files if name == self._name), 0)
        while True:
            if self._at == len(self._buffer) and not self._fill(limit):
                return False
            try:
                found = next(frames.unpack(self._buffer, self._at))
            except Malformed:
                if self._at and self._fill(limit):
                    continue
                if not self._skip(limit):
                    return False
                continue
            frame = self._buffer[found.begin : found.end]
            self._at = found.end
            header = found.segment.header
            if self._delivered.covers(header.segment, header.segment):
                continue
            earliest = header.times[0] if header.times else None
            self._next = Outgoing(
                *(header.segment, found.segment.hash, frame, header.events, earliest, header.sealed.wall),
            )
            return True

    def _fill(self, limit: int) -> bool:
        """Read on behind what was used; whether there is anything."""
        self._offset += self._at
        self._buffer, self._at = b"", 0
        if self._offset >= limit:
            return False
        try:
            with (self._directory / self._name).open("rb") as file:
                file.seek(self._offset)
                self._buffer = file.read(min(_READ_BYTES, limit - self._offset))
        except FileNotFoundError:
            return False  # all of it was delivered, and it made room
        return bool(self._buffer)

    def _skip(self, limit: int) -> bool:
        """Step over bytes that are no segment; whether one may follow."""
        found = self._buffer.find(frames.MAGIC, self._at + 1)
        end = len(self._buffer) if found < 0 else found
        self.damaged += end - self._at
        self._at = end
        return found >= 0 or self._fill(limit)


def _number(name: str) -> int:
    """The first segment of a file."""
    digits = name.removesuffix(SUFFIX).rstrip(string.ascii_lowercase)
    return int(digits) if digits.isdecimal() else 0
