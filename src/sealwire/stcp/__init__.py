"""STCP: TLS 1.3 over a byte stream, as a connection without socket or clock.

:class:`Connection` is the engine; the drivers of :mod:`sealwire.drive` put it on sockets.
"""

from sealwire.stcp.connection import Closed, Connected, Connection, Event, PeerClosed
from sealwire.tls13.contract import Session

__all__ = ["Closed", "Connected", "Connection", "Event", "PeerClosed", "Session"]
