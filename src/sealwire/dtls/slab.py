"""ClientHellos split over datagrams, before any address is proved: one fixed slab of memory.

Post-quantum hellos do not fit one datagram, so pieces must be kept for peers nobody knows, and that
must cost the same whoever sends what.  All slots are one preallocated buffer with flat arrays
beside it; there is no Python object per entry.  A slot is found by a keyed hash of address and
message_seq (the interpreter's own for bytes, over a secret), so nobody can aim at another's slot; a
hash may use any of four slots and takes a free one or a random one that is old enough.  Nothing is sent
for an incomplete hello (decision A10).  The arrays are shared with the compiled gate (`_gate.pyx`).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

from sealwire.crypto.providers import CryptoProvider
from sealwire.dtls.cookie import Address, address_text
from sealwire.dtls.header import Fragment

WAYS: Final = 4
# Separate ranges of a hello in a slot: more than its fragments at any sensible MTU, in any order.
RANGES: Final = 8
FREE: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class WholeHello:
    """A ClientHello put together: its body, and the bytes of the datagrams that brought it."""

    body: bytes
    received_bytes: int
    highest_record: int


class HelloSlab:
    """Slots for split hellos.  Memory is taken once, here, and never grows.

    Attributes:
        key, size, slots, seconds: the secret of the hash; bytes of a slot; slots; age to be replaced at.
        data, tag, stamp, length, received, record, ranges: the slots, an array each.
    """

    __slots__ = (
        "data",
        "key",
        "length",
        "provider",
        "ranges",
        "received",
        "record",
        "seconds",
        "size",
        "slots",
        "stamp",
        "tag",
    )

    def __init__(self, provider: CryptoProvider, slots: int, slot_bytes: int, seconds: float) -> None:
        self.provider = provider
        self.key = provider.random(32)
        self.slots = max(slots // WAYS, 1) * WAYS
        self.size = min(slot_bytes, 0xFFFF)
        self.seconds = seconds
        self.data = bytearray(self.slots * self.size)
        self.tag = array("Q", bytes(8 * self.slots))
        self.stamp = array("d", [FREE]) * self.slots
        self.length = array("H", bytes(2 * self.slots))
        self.received = array("L", bytes(array("L").itemsize * self.slots))
        self.record = array("Q", bytes(8 * self.slots))
        # Received ranges of each slot as pairs (start, end); (0, 0) is unused.
        self.ranges = array("H", bytes(2 * 2 * RANGES * self.slots))

    @property
    def memory_bytes(self) -> int:
        """What the slab occupies."""
        arrays = (self.tag, self.stamp, self.length, self.received, self.record, self.ranges)
        return len(self.data) + sum(one.itemsize * len(one) for one in arrays)

    def put(
        self, fragment: Fragment, address: Address, record: int, datagram_bytes: int, now: float
    ) -> WholeHello | bool:
        """Keep a fragment.

        Returns:
            The hello if it is whole now; True if the fragment is kept; False if there is no room
            for it or it contradicts what is kept.
        """
        if fragment.length > self.size:
            return False
        tag = self._hash(fragment, address)
        slot = self._find(tag, now)
        if slot is None:
            return False
        if self.stamp[slot] == FREE:
            self._take(slot, tag, fragment.length, now)
        base = slot * self.size
        if self.length[slot] != fragment.length or not self._mark(slot, fragment):
            if now - self.stamp[slot] <= self.seconds:
                return False
            # What is left of an older attempt gives way to the new one.
            self._take(slot, tag, fragment.length, now)
            self._mark(slot, fragment)
        self.data[base + fragment.offset : base + fragment.end] = fragment.data
        self.received[slot] = min(self.received[slot] + datagram_bytes, 0xFFFFFFFF)
        self.record[slot] = max(self.record[slot], record)
        first = slot * 2 * RANGES
        if (self.ranges[first], self.ranges[first + 1]) != (0, fragment.length):
            return True
        hello = WholeHello(
            bytes(self.data[base : base + fragment.length]), self.received[slot], self.record[slot]
        )
        self.stamp[slot] = FREE
        return hello

    def take(self, fragment: Fragment, address: Address) -> list[tuple[int, bytes]]:
        """Remove the pieces kept for this hello, as (offset, bytes)."""
        tag = self._hash(fragment, address)
        slot = self._occupied(tag)
        if slot is None or self.length[slot] != fragment.length:
            return []
        self.stamp[slot] = FREE
        base = slot * self.size
        return [(start, bytes(self.data[base + start : base + end])) for start, end in self._ranges_of(slot)]

    def holds(self, fragment: Fragment, address: Address) -> bool:
        """Whether pieces of this hello are kept here."""
        return self._occupied(self._hash(fragment, address)) is not None

    def _hash(self, fragment: Fragment, address: Address) -> int:
        seq = fragment.message_seq.to_bytes(2, "big")
        return hash(self.key + seq + address_text(address)) & 0xFFFFFFFFFFFFFFFF

    def _ways(self, tag: int) -> range:
        first = tag % (self.slots // WAYS) * WAYS
        return range(first, first + WAYS)

    def _occupied(self, tag: int) -> int | None:
        for slot in self._ways(tag):
            if self.stamp[slot] != FREE and self.tag[slot] == tag:
                return slot
        return None

    def _find(self, tag: int, now: float) -> int | None:
        """The slot of `tag`, else one it may take (marked free), else None."""
        slot = self._occupied(tag)
        if slot is not None:
            return slot
        open_slots = [slot for slot in self._ways(tag) if now - self.stamp[slot] > self.seconds]
        if not open_slots:
            return None
        free = [slot for slot in open_slots if self.stamp[slot] == FREE]
        if free:
            return free[0]
        slot = open_slots[self.provider.random(1)[0] % len(open_slots)]
        self.stamp[slot] = FREE
        return slot

    def _take(self, slot: int, tag: int, length: int, now: float) -> None:
        self.tag[slot] = tag
        self.stamp[slot] = now
        self.length[slot] = length
        self.received[slot] = 0
        self.record[slot] = 0
        first = slot * 2 * RANGES
        self.ranges[first : first + 2 * RANGES] = array("H", bytes(4 * RANGES))

    def _ranges_of(self, slot: int) -> list[tuple[int, int]]:
        first = slot * 2 * RANGES
        pairs = [(self.ranges[i], self.ranges[i + 1]) for i in range(first, first + 2 * RANGES, 2)]
        return [pair for pair in pairs if pair != (0, 0)]

    def _mark(self, slot: int, fragment: Fragment) -> bool:
        """Add a range to the slot's; False if there would be too many, or known bytes differ."""
        base = slot * self.size
        start, end = fragment.offset, fragment.end
        merged = []
        for low, high in self._ranges_of(slot):
            if high < start or low > end:
                merged.append((low, high))
                continue
            common_low, common_high = max(low, fragment.offset), min(high, fragment.end)
            if common_low < common_high:
                held = self.data[base + common_low : base + common_high]
                if held != fragment.data[common_low - fragment.offset : common_high - fragment.offset]:
                    return False
            start, end = min(start, low), max(end, high)
        merged.append((start, end))
        if len(merged) > RANGES:
            return False
        merged.sort()
        flat = [x for pair in merged for x in pair]
        first = slot * 2 * RANGES
        self.ranges[first : first + 2 * RANGES] = array("H", flat + [0] * (2 * RANGES - len(flat)))
        return True
