"""What a stream connection tells its owner, beside data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealwire.errors import Error

if TYPE_CHECKING:
    from sealwire.tls13.tickets import SessionTicket


@dataclass(frozen=True, slots=True)
class Connected:
    """The handshake is finished and the peer authenticated as the configuration asks."""


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer will send no more (close_notify); sending to it is still possible."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more in either direction; `error` is None after an orderly close.

    A handshake that took too long ends with the builtin TimeoutError.
    """

    error: Error | TimeoutError | None


@dataclass(frozen=True, slots=True)
class TicketReceived:
    """The server gave a ticket to resume by (clients that want some)."""

    ticket: SessionTicket


@dataclass(frozen=True, slots=True)
class GoingAway:
    """In message mode: the peer means to close before long.  Finish what is under way, begin nothing."""


Event = Connected | PeerClosed | Closed | TicketReceived | GoingAway
