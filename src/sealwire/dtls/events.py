"""What a connection tells its owner, beside data."""

from __future__ import annotations

from dataclasses import dataclass

from sealwire.tls13.contract import Session


@dataclass(frozen=True, slots=True)
class Connected:
    """The handshake is complete and the peer is who it should be."""

    session: Session


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer sent close_notify: it will send no more."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over; `error` says why, None after a close of our own."""

    error: OSError | None


Event = Connected | PeerClosed | Closed
