"""DTLS 1.3 (RFC 9147) over datagrams, without sockets: one connection, and many on one socket."""

from sealwire.crypto.ratchet import KeyRatchet
from sealwire.crypto.srtp import SrtpKeys
from sealwire.dtls.admission import Admission
from sealwire.dtls.connection import Connection
from sealwire.dtls.endpoint import Endpoint
from sealwire.dtls.events import (
    AddressChanged,
    CheckpointDue,
    Closed,
    Connected,
    EarlyDataArrived,
    Event,
    MessageSizeChanged,
    PeerClosed,
    State,
    TicketReceived,
)
from sealwire.dtls.gate import Attempt
from sealwire.dtls.slots import COOKIE_PERIOD_SECONDS, MOST_SLOTS, Slot
from sealwire.dtls.upkeep import Upkeep
from sealwire.record.train import Train, bytes_of, count_of, split_all
from sealwire.tls13.contract import EarlyData
from sealwire.tls13.tickets import SessionTicket

__all__ = [
    "COOKIE_PERIOD_SECONDS",
    "MOST_SLOTS",
    "AddressChanged",
    "Admission",
    "Attempt",
    "CheckpointDue",
    "Closed",
    "Connected",
    "Connection",
    "EarlyData",
    "EarlyDataArrived",
    "Endpoint",
    "Event",
    "KeyRatchet",
    "MessageSizeChanged",
    "PeerClosed",
    "SessionTicket",
    "Slot",
    "SrtpKeys",
    "State",
    "TicketReceived",
    "Train",
    "Upkeep",
    "bytes_of",
    "count_of",
    "split_all",
]
