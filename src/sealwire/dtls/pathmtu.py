"""How large a datagram the path carries: a search by probes that the peer answers (RFC 8899).

A probe is a padded return routability challenge (RFC 9853), so a lost one costs no data and its answer
proves the size.  What is proved is the size in use; above it the search asks, first for the most wanted,
then for sizes that networks have, then between.  What was proved is asked for again now and then: three
times without an answer, and the path has become a black hole for it, so it is back to the base.

                 answered: larger size              nothing larger to ask
    BASE --------------------------> SEARCHING ---------------------------> COMPLETE
      ^--------------------------------- proved size unanswered three times ------'
"""

from __future__ import annotations

from typing import Final

# RFC 8899 section 5.1.2: MAX_PROBES, PROBE_TIMER (at least a second) and PMTU_RAISE_TIMER.
_MAX_PROBES: Final = 3
_PROBE_SECONDS: Final = 1.0
_RAISE_SECONDS: Final = 600.0
# RFC 8899 section 5.1.1 CONFIRMATION_TIMER: how long a size may be wrong before it is noticed.
_CONFIRM_SECONDS: Final = 15.0
# A search that comes this close is good enough.
_GRAIN_BYTES: Final = 16
# UDP payloads of links that exist: 9000 and 1500 over IPv4, 1500 over IPv6, two common tunnels, and the
# least link of IPv6.
_COMMON_BYTES: Final = (8972, 1472, 1452, 1412, 1372, 1232)


class MtuSearch:
    """The search of one path.

    Attributes:
        size: the largest datagram proved, or the base.
        probe_due: a probe of :attr:`asking` bytes is to be sent now.
        asking: the size asked for.
        used: data went out since the size was last proved, so that it is worth proving again.
    """

    __slots__ = (
        "_at",
        "_base",
        "_ceiling",
        "_most",
        "_provable",
        "_raise_at",
        "_tries",
        "asking",
        "probe_due",
        "size",
        "used",
    )

    def __init__(self, base: int, most: int, now: float, *, provable: bool = True) -> None:
        """Of a peer that answers no challenges (not `provable`) only its owner can say what arrived."""
        self._base = base
        self._most = most
        self._provable = provable
        self.restart(now)

    def restart(self, now: float) -> None:
        """Another path: nothing is proved."""
        self.size = self._base
        self._search(self._most, now)

    def _search(self, ceiling: int, now: float) -> None:
        # Sizes above `ceiling` do not pass.
        self._ceiling = max(ceiling, self.size)
        self._raise_at = now + _RAISE_SECONDS
        self._ask(self._next(), now)

    def _next(self) -> int:
        """What to ask for; the size there is if nothing larger is worth it."""
        if self._ceiling == self._most > self.size:
            return self._most
        known = next((size for size in _COMMON_BYTES if self.size < size <= self._ceiling), 0)
        if known:
            return known
        if self._ceiling - self.size < _GRAIN_BYTES:
            return self.size
        return (self.size + self._ceiling + 1) // 2

    def _ask(self, size: int, now: float) -> None:
        self.asking = size
        self._tries = 0
        self.used = False
        self.probe_due = self._provable and size > self.size
        # Whoever is woken transmits next: from then on, too, the answer has its time.
        self._at = now + (_PROBE_SECONDS if self.probe_due else _CONFIRM_SECONDS)

    @property
    def complete(self) -> bool:
        """Whether nothing larger is looked for now."""
        return self.asking == self.size

    @property
    def most(self) -> int:
        """The largest datagram worth trying."""
        return self._ceiling

    @property
    def deadline(self) -> float | None:
        """When :meth:`wake` is due, None if never."""
        if not self._provable:
            return None
        if not self.complete or self._tries:
            return self._at
        confirm = self._at if self.used and self.size > self._base else None
        larger = self._raise_at if self.size < self._most else None
        return min((at for at in (confirm, larger) if at is not None), default=None)

    def wake(self, now: float) -> None:
        """Ask, ask again, or draw a conclusion."""
        due = self.deadline
        if due is None or now < due:
            return
        if self.complete and not self._tries and self.size < self._most and now >= self._raise_at:
            # RFC 8899 section 5.1.1 PMTU_RAISE_TIMER: the path may carry more by now.
            self._search(self._most, now)
        elif self._tries < _MAX_PROBES:
            self.probe_due = True
            self._at = now + _PROBE_SECONDS
        elif self.complete:
            # RFC 8899 section 4.3: a black hole.
            lost, self.size = self.size, self._base
            self._search(lost - 1, now)
        else:
            self._search(self.asking - 1, now)

    def sent(self, now: float) -> None:
        """The probe left."""
        self.probe_due = False
        self._tries += 1
        self._at = now + _PROBE_SECONDS

    def answered(self, size: int, now: float) -> None:
        """A probe of `size` bytes, or another datagram that long, reached the peer."""
        if size > self.size:
            self.size = min(size, self._most)
            self._search(max(self._ceiling, self.size), now)
        elif size == self.size and self.complete:
            self._ask(self.size, now)

    def refused(self, size: int, now: float) -> None:
        """A hint: datagrams of `size` bytes do not pass.  It may be a lie, so never below the base."""
        if size <= self._base or size > self._ceiling:
            return
        if size <= self.size:
            self.size = self._base
        self._search(size - 1, now)
