"""Which segments of a spool a collector has: ranges of their numbers, and the receipts that say so.

The signer keeps them, since it alone removes segments: a receipt that the collector's key did not sign
frees nothing.  Ranges are written down now and then; what was not is sent again and acknowledged
again.  The receipts themselves are kept beside the segments, in files that go when what they name is
long gone, so that a spool can be judged by the collector's clock (sealwire.probe.seal.receipts).
"""

from __future__ import annotations

import bisect
import json
import string
from typing import Final, Protocol

from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.keys import PublicKey
from sealwire.probe.seal.receipts import receipts

#: Ranges of numbers, as JSON.
DELIVERED: Final = "delivered"
#: Names of files of receipts begin so; the rest is the first segment that the first one names.
RECEIPTS: Final = "receipts-"
_FILE_BYTES: Final = 1 << 18


class Numbers:
    """A set of numbers as ranges, both ends included, in order and apart."""

    def __init__(self, ranges: list[tuple[int, int]] | None = None) -> None:
        self._ranges: list[tuple[int, int]] = []
        for first, last in ranges or []:
            self.add(first, last)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return list(self._ranges)

    def add(self, first: int, last: int) -> None:
        """Put `first` to `last` in."""
        at = bisect.bisect_left(self._ranges, first - 1, key=lambda one: one[1])
        end = at
        while end < len(self._ranges) and self._ranges[end][0] <= last + 1:
            first, last = min(first, self._ranges[end][0]), max(last, self._ranges[end][1])
            end += 1
        self._ranges[at:end] = [(first, last)]

    def within(self, first: int, last: int) -> int:
        """How many of `first` to `last` are in it."""
        found = 0
        for begin, end in self._ranges[bisect.bisect_left(self._ranges, first, key=lambda one: one[1]) :]:
            if begin > last:
                break
            found += min(end, last) - max(begin, first) + 1
        return found

    def covers(self, first: int, last: int) -> bool:
        """Whether all of `first` to `last` are in it."""
        return self.within(first, last) == last - first + 1


class Keeping(Protocol):
    """What is asked of a directory; part of sealwire.probe.spool.Disk.  Every method raises OSError."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def size(self, name: str) -> int: ...

    def create(self, name: str) -> None: ...

    def append(self, name: str, data: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def replace(self, name: str, data: bytes) -> None: ...


class Delivered:
    """Delivered segments of the spool in this directory."""

    def __init__(self, disk: Keeping) -> None:
        self._disk = disk
        self.numbers = Numbers()
        self._written: list[tuple[int, int]] = []
        self._names = sorted(name for name in disk.names() if name.startswith(RECEIPTS))
        self._last = ""
        #: Bytes of the last file of receipts, 0 where another one is to be begun.
        self._tail = 0
        try:
            self.numbers = Numbers(
                [(int(first), int(last)) for first, last in json.loads(disk.read(DELIVERED))]
            )
            self._written = self.numbers.ranges
        except (OSError, ValueError, TypeError):
            pass  # then everything that is there is sent again

    def take(self, data: bytes, probe: bytes, collector: PublicKey) -> bool:
        """Believe a receipt, if it is this collector's for this probe; whether it is."""
        try:
            found = list(receipts(data))
        except Malformed:
            return False
        if len(found) != 1 or found[0].probe != probe or not found[0].authentic(collector):
            return False
        for number, _ in found[0].segments:
            self.numbers.add(number, number)
        try:
            self._keep(data, found[0].segments[0][0])
        except OSError:
            # A full disk, for one.  What may be half a receipt stays last in its file.
            self._tail = 0
        return True

    def _keep(self, data: bytes, first: int) -> None:
        if not 0 < self._tail < _FILE_BYTES:
            # After a start too: a crash may have cut the last file, and nothing may come behind that.
            number = f"{RECEIPTS}{first:016d}"
            letters = ("", *string.ascii_lowercase)
            free = (number + letter for letter in letters if number + letter not in self._names)
            if (name := next(free, None)) is None:
                return
            self._disk.create(name)
            self._names = sorted([*self._names, name])
            self._last, self._tail = name, 0
        self._disk.append(self._last, data)
        self._tail += len(data)

    def write(self) -> None:
        """Write down what is delivered.  Raises OSError; then the next call tries again."""
        ranges = self.numbers.ranges
        if ranges != self._written:
            self._disk.replace(DELIVERED, json.dumps(ranges).encode())
            self._written = ranges

    def forget(self, last: int) -> None:
        """The segments up to `last` are gone, and so are receipts that name only earlier ones.

        Raises OSError.
        """
        self.numbers.add(0, last)
        while len(self._names) > 1 and _first(self._names[1]) <= last:
            self._disk.remove(self._names[0])
            del self._names[0]


def _first(name: str) -> int:
    """The first segment that a file of receipts names."""
    digits = name.removeprefix(RECEIPTS).rstrip(string.ascii_lowercase)
    return int(digits) if digits.isdecimal() else 0
