"""STCP: TLS 1.3 over a byte stream, and messages in it, as a connection without socket or clock.

:class:`Connection` is the engine; the drivers of :mod:`sealwire.drive` put it on sockets.
"""

from sealwire.stcp.connection import Connection
from sealwire.stcp.events import Closed, Connected, Event, GoingAway, PeerClosed, TicketReceived
from sealwire.stcp.messages import Keepalive
from sealwire.tls13.contract import EarlyData, Session
from sealwire.tls13.tickets import SessionTicket

__all__ = [
    "Closed",
    "Connected",
    "Connection",
    "EarlyData",
    "Event",
    "GoingAway",
    "Keepalive",
    "PeerClosed",
    "Session",
    "SessionTicket",
    "TicketReceived",
]
