"""Two ends of one STCP connection in memory, and a way to make one of them misbehave."""

from __future__ import annotations

from sealwire import stcp
from sealwire.context import Context
from sealwire.limits import Ledger, Limits
from tests.configs import client_context, server_context


class Pair:
    """A client and a server with nothing between them but the bytes a test moves."""

    def __init__(
        self,
        client: Context | None = None,
        server: Context | None = None,
        *,
        limits: Limits | None = None,
        server_name: str = "localhost",
        handshake: bool = True,
    ) -> None:
        limits = limits or Limits()
        self.ledger = Ledger(limits)
        self.client = stcp.Connection.client(
            (client or client_context()).config(),
            now=0.0,
            server_name=server_name,
            limits=limits,
            ledger=self.ledger,
        )
        self.server = stcp.Connection.server(
            (server or server_context()).config(), now=0.0, limits=limits, ledger=self.ledger
        )
        if handshake:
            self.run()
            assert self.client.state == self.server.state == "connected"

    def run(self, step: int = 1 << 20) -> None:
        """Move bytes, `step` at a time, until nobody has more to say."""
        while self.to_server(step) or self.to_client(step):
            pass

    def to_server(self, step: int = 1 << 20) -> bool:
        return deliver(self.client, self.server, step)

    def to_client(self, step: int = 1 << 20) -> bool:
        return deliver(self.server, self.client, step)


def deliver(sender: stcp.Connection, receiver: stcp.Connection, step: int = 1 << 20) -> bool:
    """Give the receiver all the sender has; False if there was nothing."""
    data = sender.data_to_send()
    for at in range(0, len(data), step):
        if receiver.error is None:
            receiver.receive_data(data[at : at + step])
    return bool(data)


def inject(sender: stcp.Connection, content_type: int, content: bytes, padding: int = 0) -> None:
    """Queue a record the sender would never make, under its current keys."""
    sealer = sender._outgoing._sealer
    if sealer is None:
        sender._outgoing._append(plain(content_type, content))
    else:
        sender._outgoing._append(sealer.seal(content_type, content, padding))


def plain(content_type: int, content: bytes) -> bytes:
    """An unprotected record."""
    return bytes((content_type, 3, 3)) + len(content).to_bytes(2, "big") + content
