"""STCP: TLS 1.3 over a byte stream, as a connection without socket or clock.

:class:`Connection` is the engine; the drivers of :mod:`sealwire.drive` put it on sockets.
"""

from sealwire.stcp.connection import Connection
from sealwire.stcp.events import Closed, Connected, Event, PeerClosed, TicketReceived
from sealwire.tls13.contract import EarlyData, Session
from sealwire.tls13.tickets import SessionTicket

__all__ = [
    "Closed",
    "Connected",
    "Connection",
    "EarlyData",
    "Event",
    "PeerClosed",
    "Session",
    "SessionTicket",
    "TicketReceived",
]
