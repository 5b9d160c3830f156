"""A client's tickets for one peer: taken from its context's store to begin with, put there as they come."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sealwire.context.sessions import Place
from sealwire.dtls import SessionTicket
from sealwire.errors import ProtocolError
from sealwire.stcp.frames import WORD_BYTES

if TYPE_CHECKING:
    from sealwire import dtls, stcp
    from sealwire.context import Config


class Sessions:
    """The store of a client's Config as one connection uses it; without a store it does nothing.

    Args:
        protocol: "DTLS 1.3" or "TLS 1.3".
        host, port: where the connection goes, as the application named it.
    """

    def __init__(self, config: Config, protocol: str, host: str, port: int, server_name: str | None) -> None:
        self._store = config.session_store
        self._clock = config.clock
        self._place = Place(protocol, host, port, server_name or "", _identity(config))

    @classmethod
    def of_peer(cls, config: Config, protocol: str, peer: object, server_name: str | None) -> Sessions:
        """For a socket connected by somebody else: `peer` is what its getpeername says."""
        if isinstance(peer, tuple) and len(peer) >= 2:
            return cls(config, protocol, str(peer[0]), int(peer[1]), server_name)
        return cls(config, protocol, str(peer), 0, server_name)

    def take(self) -> SessionTicket | None:
        """A ticket to offer, which nobody else gets."""
        if self._store is None:
            return None
        encoded = self._store.take(self._place, self._clock())
        try:
            return None if encoded is None else SessionTicket.decode(encoded)
        except ProtocolError:
            # Saved by another version: as good as none.
            return None

    @staticmethod
    def allows(ticket: SessionTicket | None, early: bytes, *, in_messages: bool = False) -> bool:
        """Whether `early` may be sent as early data under `ticket`, `in_messages` as one of them."""
        size = len(early) + (WORD_BYTES if in_messages else 0)
        return ticket is not None and len(early) > 0 and size <= ticket.max_early_data

    def keep(self, ticket: SessionTicket, connection: dtls.Connection | stcp.Connection) -> None:
        """Keep what the server of `connection` gave."""
        # Whose pre-shared key it was stands nowhere in the ticket, and the next connection may be somebody
        # else's; a ticket saves nothing there anyway.
        if self._store is not None and connection.session.psk_identity is None:
            self._store.put(self._place, ticket)


def send_replayable(connection: stcp.Connection, data: bytes, *, in_messages: bool) -> None:
    """Send what :meth:`Sessions.allows` allowed, if early data is offered at all."""
    if connection.max_replayable_bytes:
        if in_messages:
            connection.send_replayable_message(data)
        else:
            connection.send_replayable(data)


def early_data_of(connection: stcp.Connection) -> list[bytes]:
    """The early data that came: messages one by one, bytes in one piece."""
    if connection.early_in_messages:
        return connection.read_early_messages()
    return [connection.read_early()] if connection.early_buffered else []


def _identity(config: Config) -> str:
    """A fingerprint of what a client may show: a ticket brings back who it was when it got it."""
    shown = sorted(
        hashlib.sha256(credential.chain[0] if credential.chain else credential.spki).digest()
        for credential in config.credentials
    )
    return hashlib.sha256(b"".join(shown)).hexdigest() if shown else ""
