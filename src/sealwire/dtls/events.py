"""What a connection tells its owner, beside data: its state, and what happened."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sealwire.tls13.contract import Session
from sealwire.tls13.tickets import SessionTicket


class State(enum.StrEnum):
    """Where a connection is in its life."""

    HANDSHAKING = "handshaking"
    CONNECTED = "connected"
    CLOSING = "closing"  # close_notify is queued
    CLOSED = "closed"


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


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """The peer is at another address now, proved or accepted by policy (servers)."""

    old: tuple[object, ...]
    new: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class MessageSizeChanged:
    """The path carries more or less than it did: the longest message by now, in bytes."""

    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class TicketReceived:
    """The server gave a ticket to resume by (clients that want some)."""

    ticket: SessionTicket


@dataclass(frozen=True, slots=True)
class EarlyDataArrived:
    """Early data waits in :meth:`Connection.early_messages` (servers).  Anybody may have sent it again."""


@dataclass(frozen=True, slots=True)
class CheckpointDue:
    """Nothing is sent before the next :meth:`Connection.checkpoint`; only after a first one."""


Event = (
    Connected
    | PeerClosed
    | Closed
    | AddressChanged
    | TicketReceived
    | EarlyDataArrived
    | MessageSizeChanged
    | CheckpointDue
)
