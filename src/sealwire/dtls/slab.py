"""ClientHellos split over datagrams, before any address is proved: one fixed slab of memory.

Post-quantum hellos do not fit one datagram, so pieces must be kept for peers nobody knows, and that
must cost the same whoever sends what.  All slots are one preallocated buffer with flat arrays
beside it; there is no Python object per entry.  A slot is found by a keyed hash of address and
message_seq, so nobody can aim at another's slot; a hash may use any of four slots and takes a free
one or a random one that is old enough.  Nothing is sent for an incomplete hello (decision A10).
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from typing import Final

from sealwire.crypto.providers import CryptoProvider
from sealwire.dtls.cookie import Address
from sealwire.dtls.header import Fragment

_WAYS: Final = 4
# Separate ranges of a hello in a slot: more than its fragments at any sensible MTU, in any order.
_RANGES: Final = 8
_FREE: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class WholeHello:
    """A ClientHello put together: its body, and the bytes of the datagrams that brought it."""

    body: bytes
    received_bytes: int
    highest_record: int


class HelloSlab:
    """Slots for split hellos.  Memory is taken once, here, and never grows."""

    __slots__ = (
        "_bytes",
        "_key",
        "_length",
        "_provider",
        "_ranges",
        "_received",
        "_record",
        "_seconds",
        "_size",
        "_slots",
        "_stamp",
        "_tag",
    )

    def __init__(self, provider: CryptoProvider, slots: int, slot_bytes: int, seconds: float) -> None:
        self._provider = provider
        self._key = provider.random(32)
        self._slots = max(slots // _WAYS, 1) * _WAYS
        self._size = min(slot_bytes, 0xFFFF)
        self._seconds = seconds
        self._bytes = bytearray(self._slots * self._size)
        self._tag = array("Q", bytes(8 * self._slots))
        self._stamp = array("d", [_FREE]) * self._slots
        self._length = array("H", bytes(2 * self._slots))
        self._received = array("L", bytes(array("L").itemsize * self._slots))
        self._record = array("Q", bytes(8 * self._slots))
        # Received ranges of each slot as pairs (start, end); (0, 0) is unused.
        self._ranges = array("H", bytes(2 * 2 * _RANGES * self._slots))

    @property
    def memory_bytes(self) -> int:
        """What the slab occupies."""
        arrays = (self._tag, self._stamp, self._length, self._received, self._record, self._ranges)
        return len(self._bytes) + sum(one.itemsize * len(one) for one in arrays)

    def put(
        self, fragment: Fragment, address: Address, record: int, datagram_bytes: int, now: float
    ) -> WholeHello | bool:
        """Keep a fragment.

        Returns:
            The hello if it is whole now; True if the fragment is kept; False if there is no room
            for it or it contradicts what is kept.
        """
        if fragment.length > self._size:
            return False
        tag = self._hash(fragment, address)
        slot = self._find(tag, now)
        if slot is None:
            return False
        if self._stamp[slot] == _FREE:
            self._take(slot, tag, fragment.length, now)
        base = slot * self._size
        if self._length[slot] != fragment.length or not self._mark(slot, fragment):
            if now - self._stamp[slot] <= self._seconds:
                return False
            # What is left of an older attempt gives way to the new one.
            self._take(slot, tag, fragment.length, now)
            self._mark(slot, fragment)
        self._bytes[base + fragment.offset : base + fragment.end] = fragment.data
        self._received[slot] = min(self._received[slot] + datagram_bytes, 0xFFFFFFFF)
        self._record[slot] = max(self._record[slot], record)
        first = slot * 2 * _RANGES
        if (self._ranges[first], self._ranges[first + 1]) != (0, fragment.length):
            return True
        hello = WholeHello(
            bytes(self._bytes[base : base + fragment.length]), self._received[slot], self._record[slot]
        )
        self._stamp[slot] = _FREE
        return hello

    def take(self, fragment: Fragment, address: Address) -> list[tuple[int, bytes]]:
        """Remove the pieces kept for this hello, as (offset, bytes)."""
        tag = self._hash(fragment, address)
        slot = self._occupied(tag)
        if slot is None or self._length[slot] != fragment.length:
            return []
        self._stamp[slot] = _FREE
        base = slot * self._size
        return [
            (start, bytes(self._bytes[base + start : base + end])) for start, end in self._ranges_of(slot)
        ]

    def holds(self, fragment: Fragment, address: Address) -> bool:
        """Whether pieces of this hello are kept here."""
        return self._occupied(self._hash(fragment, address)) is not None

    def _hash(self, fragment: Fragment, address: Address) -> int:
        place = "\0".join(map(str, address)).encode()
        digest = hashlib.blake2b(
            fragment.message_seq.to_bytes(2, "big") + place, digest_size=8, key=self._key
        ).digest()
        return int.from_bytes(digest, "big")

    def _ways(self, tag: int) -> range:
        first = tag % (self._slots // _WAYS) * _WAYS
        return range(first, first + _WAYS)

    def _occupied(self, tag: int) -> int | None:
        for slot in self._ways(tag):
            if self._stamp[slot] != _FREE and self._tag[slot] == tag:
                return slot
        return None

    def _find(self, tag: int, now: float) -> int | None:
        """The slot of `tag`, else one it may take (marked free), else None."""
        slot = self._occupied(tag)
        if slot is not None:
            return slot
        open_slots = [slot for slot in self._ways(tag) if now - self._stamp[slot] > self._seconds]
        if not open_slots:
            return None
        free = [slot for slot in open_slots if self._stamp[slot] == _FREE]
        if free:
            return free[0]
        slot = open_slots[self._provider.random(1)[0] % len(open_slots)]
        self._stamp[slot] = _FREE
        return slot

    def _take(self, slot: int, tag: int, length: int, now: float) -> None:
        self._tag[slot] = tag
        self._stamp[slot] = now
        self._length[slot] = length
        self._received[slot] = 0
        self._record[slot] = 0
        first = slot * 2 * _RANGES
        self._ranges[first : first + 2 * _RANGES] = array("H", bytes(4 * _RANGES))

    def _ranges_of(self, slot: int) -> list[tuple[int, int]]:
        first = slot * 2 * _RANGES
        pairs = [(self._ranges[i], self._ranges[i + 1]) for i in range(first, first + 2 * _RANGES, 2)]
        return [pair for pair in pairs if pair != (0, 0)]

    def _mark(self, slot: int, fragment: Fragment) -> bool:
        """Add a range to the slot's; False if there would be too many, or known bytes differ."""
        base = slot * self._size
        start, end = fragment.offset, fragment.end
        merged = []
        for low, high in self._ranges_of(slot):
            if high < start or low > end:
                merged.append((low, high))
                continue
            common_low, common_high = max(low, fragment.offset), min(high, fragment.end)
            if common_low < common_high:
                held = self._bytes[base + common_low : base + common_high]
                if held != fragment.data[common_low - fragment.offset : common_high - fragment.offset]:
                    return False
            start, end = min(start, low), max(end, high)
        merged.append((start, end))
        if len(merged) > _RANGES:
            return False
        merged.sort()
        flat = [x for pair in merged for x in pair]
        first = slot * 2 * _RANGES
        self._ranges[first : first + 2 * _RANGES] = array("H", flat + [0] * (2 * _RANGES - len(flat)))
        return True
