"""StrikeRegister: that no ticket counts twice, for early data or in place of a cookie (RFC 8446 section 8).

What comes with a ticket in a first flight is not protected against replay by the protocol, so a server
remembers which tickets have counted.  The register is exact: each counts at most once, and never wrongly
after a restart, in a forked child, on another host, or when the clock jumps.  That is so because:

- A hello says how old its ticket is, so a server knows when it should arrive, on its own wall clock.  Only
  one that comes within `window` seconds of that is *fresh*; a replay is fresh for no longer.
- What was accepted is remembered until it cannot be fresh any more: until `window` after it should come.
- Time never goes back here.  While the clock shows less than it ever showed, everything is refused.
- A ticket carries the `name` of the register it was issued beside.  The name is random and made with the
  register, so other processes and hosts that open the ticket, and this one after a restart or a fork, are
  not who may accept its early data.
- A full register refuses.  Refusing costs a round trip; the handshake goes on.

Operations are single steps of a dict, so that threads may share a register.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from typing import Final

from sealwire.crypto.providers import CryptoProvider
from sealwire.errors import ConfigurationError

__all__ = ["NAME_BYTES", "StrikeRegister"]

NAME_BYTES: Final = 16
# RFC 8446 section 8.3 expects about ten seconds; FEATURES of the project allow a minute.
MAX_WINDOW_SECONDS: Final = 60.0
# About 200 bytes each, so 6 MiB; over two windows of ten seconds that is 1,600 a second.
DEFAULT_CAPACITY: Final = 32_768

_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


# A child has a copy of what its parent remembers, and from then on neither knows what the other accepts.
os.register_at_fork(after_in_child=_count_fork)


class StrikeRegister:
    """Remembers which tickets have counted.

    Args:
        window_seconds: how far a hello may be from when it should come; more than 0 and at most 60.
        capacity: how many are remembered at most.

    Raises:
        ConfigurationError: a window or capacity that cannot be.
    """

    __slots__ = (
        "_born_in",
        "_by_time",
        "_latest",
        "_name",
        "_provider",
        "_struck",
        "capacity",
        "window_seconds",
    )

    def __init__(
        self,
        provider: CryptoProvider,
        *,
        window_seconds: float = 10.0,
        capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        if not 0 < window_seconds <= MAX_WINDOW_SECONDS:
            raise ConfigurationError(
                f"early data is fresh for more than 0 and at most {MAX_WINDOW_SECONDS:g} seconds"
            )
        if capacity < 1:
            raise ConfigurationError("a strike register remembers at least one ticket")
        self.window_seconds: Final = window_seconds
        self.capacity: Final = capacity
        self._provider = provider
        self._begin()

    def _begin(self) -> None:
        self._born_in = _forks
        self._name = self._provider.random(NAME_BYTES)
        # Digest of a ticket -> a token of the call that struck it.
        self._struck: dict[bytes, object] = {}
        self._by_time: list[tuple[float, bytes]] = []
        self._latest = float("-inf")

    def __repr__(self) -> str:
        return f"<StrikeRegister {len(self)} of {self.capacity}, window {self.window_seconds:g} s>"

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._struck)

    @property
    def name(self) -> bytes:
        """Where tickets issued now may count."""
        if self._born_in != _forks:
            # Tickets of the parent are the parent's; this process begins with none.
            self._begin()
        return self._name

    def would_accept(self, name: bytes, ticket: bytes, due: float, now: float) -> bool:
        """Whether :meth:`accept` would say yes; remembers nothing."""
        return (
            name == self.name
            and now >= self._latest
            and abs(now - due) <= self.window_seconds
            and _digest(ticket) not in self._struck
            and self._has_room(now)
        )

    def struck(self, ticket: bytes) -> bool:
        """Whether `ticket` has counted and is remembered still; False says nothing."""
        return _digest(ticket) in self._struck

    def accept(self, name: bytes, ticket: bytes, due: float, now: float) -> bool:
        """Whether `ticket` may count now: True once, and never again.

        Args:
            name: what the ticket says of the register it was issued beside.
            ticket: the bytes of the ticket, which nobody but us could make.
            due: when the hello should come, going by the age it claims: when the ticket was issued, plus
                that age; wall-clock seconds.
            now: the same clock now.
        """
        if name != self.name or now < self._latest:
            return False
        self._latest = now
        if abs(now - due) > self.window_seconds or not self._has_room(now):
            return False
        digest, token = _digest(ticket), object()
        # One step: of two threads with the same flight one finds the other's token.
        if self._struck.setdefault(digest, token) is not token:
            return False
        heapq.heappush(self._by_time, (due + self.window_seconds, digest))
        # Another thread may have been later meanwhile, and have thrown out what would have stopped us.
        return now >= self._latest

    def _has_room(self, now: float) -> bool:
        if len(self._struck) < self.capacity:
            return True
        while self._by_time:
            entry = heapq.heappop(self._by_time)
            if entry[0] >= now:
                heapq.heappush(self._by_time, entry)
                break
            # It can be fresh no more, and time does not go back.
            self._struck.pop(entry[1], None)
        return len(self._struck) < self.capacity


def _digest(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()[:16]
