"""BoringSSL's habits, where the runner counts on them and neither side's RFC says more than "may".

They replace our own for the process of the shim alone, so that the tests reach what lies behind; every
difference is listed here and in README.md.
"""

from __future__ import annotations

from typing import Final

from sealwire.dtls import flight, layer
from sealwire.dtls.header import RecordNumber
from sealwire.tls13 import tickets
from sealwire.tls13.handshake import Handshake
from sealwire.wire import Buffer
from tests.bogo.flags import Flags

# Where a test says nothing.
MTU_BYTES: Final = 1472
_TIMEOUT_MILLISECONDS: Final = 400


def initial_timeout(flags: Flags) -> float:
    """Seconds until the first retransmission."""
    return flags.number("-initial-timeout-duration-ms", _TIMEOUT_MILLISECONDS) / 1000


class BoringFlight(flight.Flight):
    """The timer starts anew with each flight, follows no round trip, and ACKs of a part leave it alone."""

    __slots__ = ()

    def acknowledge_all(self, now: float, answered: RecordNumber | None = None) -> list[int]:
        handles = super().acknowledge_all(now, answered)
        self.timeout = self._initial_timeout
        return handles

    def _measured(self, round_trip: float, longest: float) -> None:
        pass


class SeenHandshake(Handshake):
    """Notes the messages it is given, for what tests ask about a peer's."""

    __slots__ = ()
    messages: list[bytes] = []

    def receive(self, epoch: int, message: Buffer) -> None:
        self.messages.append(bytes(message))
        super().receive(epoch, message)


def adopt(flags: Flags) -> None:
    """Do as BoringSSL from now on."""
    layer.Flight = BoringFlight
    layer.post_handshake_ack_delay = initial_timeout(flags) / 4
    # A flight goes out at once, however long.
    flight.RECORDS_PER_TRANSMISSION = 1 << 20
    # An ACK lists all the numbers we remember.
    layer._ACK_DATAGRAM_BYTES = MTU_BYTES
    if "-reverify-on-resume" not in flags:
        # We look at certificates again on every resumption.
        tickets.still_accepted = lambda *arguments: True
