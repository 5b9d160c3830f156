"""The outermost of BER: tags and lengths (X.690 section 8.1), as far as the first bytes of a packet go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Element(NamedTuple):
    """Where an element's content begins and ends, which may be behind the bytes there are."""

    tag: int
    begin: int
    end: int

    def value(self, data: bytes) -> bytes:
        """Its content, as far as it is there."""
        return data[self.begin : self.end]


def element(data: bytes, at: int) -> Element | None:
    """The element at a place; None where there is none with a tag of one byte and a definite length."""
    if at + 2 > len(data) or data[at] & 0x1F == 0x1F:
        return None
    length, begin = data[at + 1], at + 2
    if length & 0x80:
        n = length & 0x7F
        if not 1 <= n <= 4 or begin + n > len(data):
            return None
        length = int.from_bytes(data[begin : begin + n], "big")
        begin += n
    return Element(data[at], begin, begin + length)


def elements(data: bytes, at: int, end: int) -> Iterator[Element]:
    """The elements one behind the other in a range, as far as they are there."""
    while at < end and (one := element(data, at)) is not None:
        yield one
        at = one.end
