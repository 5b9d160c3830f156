"""What a connection adds to its endpoint's totals where honest peers and attackers differ.

Each total is something an honest peer does seldom; the detectors (dtls/detectors.py) compare them with
what honest peers do often.  One object per connection, touched on the handshake's way and once per run
of data.
"""

from __future__ import annotations

from typing import Final

from sealwire.dtls.header import Fragment
from sealwire.dtls.reassembly import Reassembly
from sealwire.errors import Discard
from sealwire.telemetry import EndpointCounters

# Smaller pieces than any link forces: RFC 791 lets none be below 68 bytes, and nobody uses those.
_SMALL_FRAGMENT_BYTES: Final = 64
#: A handshake that has used up this part of its time, and whose peer goes on sending, is slow.
SLOW_PART: Final = 1 / 6
# Updates of both sides may cross, so the second in a row is nobody's fault.
_KEY_UPDATES_IN_A_ROW: Final = 2
# One object for all who have finished.
_NEVER: Final = float("inf")
# The same fragment again is not held against anybody: the network repeats.
_REFUSED: Final = frozenset(
    (Discard.BAD_FRAGMENT, Discard.OVER_BUDGET, Discard.FUTURE_MESSAGE, Discard.OVERSIZED_RECORD)
)


class Conduct:
    """How one peer behaves, counted in its endpoint's totals."""

    __slots__ = ("_slow", "_slow_at", "totals", "used")

    def __init__(self, totals: EndpointCounters | None, began: float, handshake_seconds: float) -> None:
        """`totals` are None where no endpoint adds up, as for a client: then nothing is."""
        self.totals = totals
        self._slow_at = began + SLOW_PART * handshake_seconds
        self._slow = False
        #: Application data went one way or the other.
        self.used = False

    def handshake_over(self) -> None:
        """Nothing is slow any more."""
        self._slow_at = _NEVER

    def first_use(self) -> None:
        """Application data came or went for the first time."""
        self.used = True
        if self.totals is not None:
            self.totals.connections_used += 1

    def heard_in_handshake(self, now: float) -> None:
        """Something came while the handshake is not complete."""
        if now >= self._slow_at and not self._slow:
            self._slow = True
            if self.totals is not None:
                self.totals.handshakes_slow += 1

    def offer(self, fragment: Fragment, epoch: int, reassembly: Reassembly) -> Discard | None:
        """Give a handshake fragment to reassembly, as :meth:`Reassembly.offer`, and count what came of it."""
        if self.totals is None:
            return reassembly.offer(fragment, epoch)
        # What it raises for is refused, too.
        reason: Discard | None = Discard.BAD_FRAGMENT
        try:
            reason = reassembly.offer(fragment, epoch)
        finally:
            self._count(self.totals, fragment, reason)
        return reason

    @staticmethod
    def _count(totals: EndpointCounters, fragment: Fragment, reason: Discard | None) -> None:
        totals.fragments_received += 1
        if len(fragment.data) < _SMALL_FRAGMENT_BYTES and fragment.end < fragment.length:
            totals.fragments_small += 1
        if reason is not None and reason in _REFUSED:
            totals.fragments_refused += 1

    def key_update(self, in_a_row: int) -> None:
        """A KeyUpdate came, so many since the last application data."""
        if self.totals is not None:
            self.totals.key_updates_idle += in_a_row > _KEY_UPDATES_IN_A_ROW

    def idle_ack(self) -> None:
        """An ACK came that acknowledged nothing."""
        if self.totals is not None:
            self.totals.acks_idle += 1

    def forged(self, records: int) -> None:
        """So many records did not authenticate."""
        if self.totals is not None:
            self.totals.records_forged += records
