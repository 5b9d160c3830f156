"""What a connection says last: alerts, in one datagram, once (RFC 9147 section 5.10 [9147-5.10-1]).

Nothing repeats an alert and nothing waits for one [9147-5.10-4], so it must go out in an epoch its
reader has keys for (decision A18).
"""

from __future__ import annotations

from typing import Final

from sealwire.dtls.epochs import Sealing
from sealwire.dtls.header import ContentType
from sealwire.errors import Alert, ProtocolError

FATAL: Final = 2
WARNING: Final = 1


class LastWords:
    """Alerts that wait to be sent."""

    __slots__ = ("_alerts", "_epoch", "_sealing")

    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing
        self._alerts: tuple[tuple[int, Alert], ...] = ()
        self._epoch = 0

    def queue(self, level: int, alert: Alert, epoch: int) -> None:
        """Say `alert` with the next transmission, in `epoch`."""
        self._alerts += ((level, alert),)
        self._epoch = epoch

    def transmit(self, mtu: int, budget: int | None) -> list[bytes]:
        """One datagram with what is to be said, none if there is nothing or `budget` bytes are too few."""
        alerts, self._alerts = self._alerts, ()
        datagram = b""
        room = mtu if budget is None else min(mtu, budget)
        try:
            for alert in alerts:
                left = room - len(datagram)
                datagram += self._sealing.record(self._epoch, ContentType.ALERT, bytes(alert), left)[1]
        except ProtocolError:
            # Record numbers are used up, which may be why the connection ends.
            return []
        # Alerts to an address nobody proved count as well.
        return [datagram] if datagram and (budget is None or len(datagram) <= budget) else []
