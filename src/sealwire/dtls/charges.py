"""What the objects of a connection are charged, before they exist."""

from __future__ import annotations

from typing import Final

from sealwire.errors import Alert, LimitReached, ProtocolError
from sealwire.limits import Account, Ledger, Limits, Purpose
from sealwire.limits.weights import CONNECTION_BYTES, HALF_OPEN_BYTES, PEER_BYTES_INCLUDED, TICKET_BYTES
from sealwire.tls13.tickets import SessionTicket

# What is the application's once the connection is over.
_OUTLIVING: Final = (Purpose.RECEIVE_QUEUE, Purpose.EARLY_DATA)


def open_account(ledger: Ledger, limits: Limits, address: object = None) -> Account:
    """An account that holds the charge for a connection in its handshake.

    Args:
        address: of the peer, if it is proved; then its prefixes are charged as well.

    Raises:
        LimitReached: the ledger, or the peer's prefix, has no room for it.
    """
    account = Account(ledger, min(limits.handshake_bytes, limits.connection_bytes))
    if address is not None:
        account.place(address)
    if not account.charge(Purpose.CONNECTION, HALF_OPEN_BYTES):
        account.close()
        raise LimitReached(ledger.refused_by, "no memory is left for another connection")
    return account


def handshake_over(account: Account, peer_bytes: int, limits: Limits) -> None:
    """Give back what only the handshake needed; keep, or charge, what the peer's certificates hold.

    Raises:
        ProtocolError: internal_error, the account has no room for them.
    """
    account.handshake_over(limits.connection_bytes)
    change = CONNECTION_BYTES + max(peer_bytes - PEER_BYTES_INCLUDED, 0) - HALF_OPEN_BYTES
    if change <= 0:
        account.release(Purpose.CONNECTION, -change)
    elif not account.charge(Purpose.CONNECTION, change):
        raise ProtocolError(Alert.INTERNAL_ERROR, "no memory is left for the peer's certificates")


def charge_ticket(account: Account, ticket: SessionTicket) -> int:
    """Charge a ticket that came; 0 if there is no room for it, which is one full handshake more, later."""
    size = TICKET_BYTES + len(ticket.identity)
    return size if account.charge(Purpose.TICKETS, size) else 0


def wind_down(account: Account) -> None:
    """The connection is over: what came and was not read stays charged until it is, or is dropped."""
    account.wind_down(_OUTLIVING)
