"""What the objects of a connection are charged, before they exist."""

from __future__ import annotations

from typing import Final

from sealwire.errors import Alert, LimitReached, ProtocolError
from sealwire.limits import Account, Ledger, Limits, Purpose

# What the objects of a connection weigh while it shakes hands, and later.  Over 1,000 connections of
# a server (P-256 certificate, hybrid group, AES-128-GCM) the process grew by 16.0 KB for each one
# half open and by 13.4 KB for each one idle, OpenSSL's contexts included; the rest is for longer
# chains and for what the allocator rounds up.
HANDSHAKE_BYTES: Final = 32 * 1024
CONNECTION_BYTES: Final = 16 * 1024
# An ordinary chain is in that already.
_PEER_BYTES_INCLUDED: Final = 2 * 1024


def open_account(ledger: Ledger, limits: Limits) -> Account:
    """An account that holds the charge for a connection in its handshake.

    Raises:
        LimitReached: the ledger has no room for it.
    """
    account = Account(ledger, limits.connection_bytes)
    if not account.charge(Purpose.CONNECTION, HANDSHAKE_BYTES):
        raise LimitReached("total_bytes", "no memory is left for another connection")
    return account


def handshake_over(account: Account, peer_bytes: int) -> None:
    """Give back what only the handshake needed; keep, or charge, what the peer's certificates hold.

    Raises:
        ProtocolError: internal_error, the account has no room for them.
    """
    change = CONNECTION_BYTES + max(peer_bytes - _PEER_BYTES_INCLUDED, 0) - HANDSHAKE_BYTES
    if change <= 0:
        account.release(Purpose.CONNECTION, -change)
    elif not account.charge(Purpose.CONNECTION, change):
        raise ProtocolError(Alert.INTERNAL_ERROR, "no memory is left for the peer's certificates")
