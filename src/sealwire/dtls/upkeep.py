"""What a connection does by itself while it lives, and how much of it its owner wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# More are of no use to one path at a time, and a peer need not keep them [9147-9-4].
_MOST_SPARE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What a connection sees to without being told.

    Args:
        spare_cids: connection ids of the peer's to hold in reserve for a change of path, 0 to 4.  They are
            asked for a second after the handshake and after each one is used (RFC 9147 section 9), of
            peers that know return routability checks (RFC 9853) and so mean to follow a peer that moves.

    Raises:
        ValueError: a number that cannot be.
    """

    spare_cids: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.spare_cids <= _MOST_SPARE:
            raise ValueError(f"{self.spare_cids} spare connection ids are not in 0..{_MOST_SPARE}")


DEFAULT_UPKEEP: Final = Upkeep()
