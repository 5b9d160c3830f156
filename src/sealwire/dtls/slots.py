"""A slot: one of several processes that serve one port, and which of them a connection id belongs to.

The first byte of an id leaves the remainder `index` when divided by the number of slots, and is
random otherwise.  So the kernel finds the slot with one division (drive/steering.py), every byte an
attacker can choose belongs to some slot, and an id of 4 bytes among two slots still has 31 random
bits.  Who sees an id learns the slot, no more (docs/workers.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealwire.crypto.ratchet import KeyRatchet
from sealwire.dtls.cookie import Address
from sealwire.wire import Buffer

if TYPE_CHECKING:
    from sealwire.crypto.providers import CryptoProvider

#: Whose a datagram is by its id, the datagram, and the address it came from.
Stray = tuple[int, Buffer, Address]

#: One byte tells slots apart; a quarter of its values leaves two random bits in it.
MOST_SLOTS: Final = 64
_BYTE_VALUES: Final = 256
# As long as a cookie key of an endpoint by itself.
COOKIE_PERIOD_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One of `count` slots.

    Attributes:
        index: 0 to count - 1.
        count: slots, 1 to 64; the same for all for as long as they live.
        cookies: keys for cookies, so that each slot takes those of the others; None for keys of its own.

    Raises:
        ValueError: an index or count out of range.
    """

    index: int
    count: int
    cookies: KeyRatchet | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_SLOTS:
            raise ValueError(f"1 to {MOST_SLOTS} workers can share a port, not {self.count}")
        if not 0 <= self.index < self.count:
            raise ValueError(f"slot {self.index} is none of {self.count}")

    def owner(self, cid: Buffer) -> int:
        """The slot `cid` belongs to.  ValueError for an empty one."""
        if not cid:
            raise ValueError("an empty connection id is nobody's")
        return int(cid[0]) % self.count

    def issue(self, size: int, provider: CryptoProvider) -> bytes:
        """A random id of `size` bytes, at least 1, of this slot."""
        cid = provider.random(size)
        while cid[0] >= _BYTE_VALUES - _BYTE_VALUES % self.count:
            # Every slot has as many first bytes as the others.
            cid = provider.random(size)
        return bytes((cid[0] - cid[0] % self.count + self.index,)) + cid[1:]


class Foreign:
    """Ids of an endpoint's slot, and the datagrams that reached it and carry another slot's.

    Who takes what another slot's endpoint had here takes nothing from there again: nothing is handed on
    twice.
    """

    __slots__ = ("_kept", "_slot")

    def __init__(self, slot: Slot | None) -> None:
        self._slot = slot
        self._kept: list[Stray] = []

    def issue(self, size: int, provider: CryptoProvider) -> bytes:
        """A random id of `size` bytes; without slots any will do."""
        return provider.random(size) if self._slot is None else self._slot.issue(size, provider)

    def put(self, cid: Buffer, datagram: Buffer, address: Address) -> bool:
        """Keep a datagram whose id nobody knows here, if it is another slot's: whether it is."""
        if self._slot is None or not cid:
            return False
        owner = self._slot.owner(cid)
        if owner == self._slot.index:
            return False
        self._kept.append((owner, datagram, address))
        return True

    def take(self) -> list[Stray]:
        """What was kept since the last call."""
        kept, self._kept = self._kept, []
        return kept
