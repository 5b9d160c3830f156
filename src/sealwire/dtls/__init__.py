"""DTLS 1.3 (RFC 9147) over datagrams, without sockets: one connection, and many on one socket."""

from sealwire.dtls.connection import Connection
from sealwire.dtls.endpoint import Admission, Endpoint
from sealwire.dtls.events import Closed, Connected, Event, PeerClosed, State
from sealwire.dtls.gate import Attempt

__all__ = [
    "Admission",
    "Attempt",
    "Closed",
    "Connected",
    "Connection",
    "Endpoint",
    "Event",
    "PeerClosed",
    "State",
]
