"""What a connection does by itself while it lives, and how much of it its owner wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# More are of no use to one path at a time, and a peer need not keep them [9147-9-4].
_MOST_SPARE: Final = 4
# The largest UDP payload over IPv4.
_LONGEST_DATAGRAM: Final = 65_507


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What a connection sees to without being told.

    Args:
        spare_cids: connection ids of the peer's to hold in reserve for a change of path, 0 to 4.  They are
            asked for a second after the handshake and after each one is used (RFC 9147 section 9), of
            peers that know return routability checks (RFC 9853) and so mean to follow a peer that moves.
        keepalive: seconds of silence after which the peer is asked whether it is there; None, the default,
            never asks.  A peer without return routability cannot be asked: it gets an empty record when
            nothing was sent for so long, which keeps translators from forgetting us and proves nothing.
        keepalive_tries: checks without an answer, two seconds apart, after which the peer is gone: the
            connection ends with TimeoutError.
        max_mtu: the largest UDP payload to look for on the path (RFC 8899), in bytes; None, the default,
            stays with the `mtu` given.  A peer without return routability cannot be asked either.

        pack: put small records that leave together into one datagram, as many as fit.  Fewer datagrams are
            cheaper on the way and for the peer; one that is lost takes more messages with it.

    Raises:
        ValueError: a number that cannot be.
    """

    spare_cids: int = 1
    keepalive: float | None = None
    keepalive_tries: int = 3
    max_mtu: int | None = None
    pack: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.spare_cids <= _MOST_SPARE:
            raise ValueError(f"{self.spare_cids} spare connection ids are not in 0..{_MOST_SPARE}")
        if self.keepalive is not None and self.keepalive <= 0:
            raise ValueError(f"a keepalive of {self.keepalive} seconds is not positive")
        if self.keepalive_tries < 1:
            raise ValueError(f"{self.keepalive_tries} tries of keepalive are not positive")
        if self.max_mtu is not None and not 1 <= self.max_mtu <= _LONGEST_DATAGRAM:
            raise ValueError(f"a datagram of {self.max_mtu} bytes is not in 1..{_LONGEST_DATAGRAM}")


DEFAULT_UPKEEP: Final = Upkeep()
