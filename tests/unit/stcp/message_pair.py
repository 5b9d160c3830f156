"""Two ends in message mode, in memory."""

from __future__ import annotations

from sealwire import stcp
from sealwire.context import Context
from sealwire.limits import Ledger, Limits
from tests.configs import client_context, server_context
from tests.unit.stcp.pair import plain

__all__ = ["MessagePair", "plain"]


class MessagePair:
    """A client and a server in message mode, with nothing between them but the bytes a test moves."""

    def __init__(
        self,
        messages: bool | str = True,
        server_messages: bool | str | None = None,
        *,
        client: Context | None = None,
        server: Context | None = None,
        limits: Limits | None = None,
        keepalive: stcp.Keepalive | None = None,
        handshake: bool = True,
    ) -> None:
        self.now = 0.0
        limits = limits or Limits()
        self.ledger = Ledger(limits)
        self.client = stcp.Connection.client(
            (client or client_context()).config(),
            now=0.0,
            server_name="localhost",
            limits=limits,
            ledger=self.ledger,
            messages=messages,
            keepalive=keepalive,
        )
        self.server = stcp.Connection.server(
            (server or server_context()).config(),
            now=0.0,
            limits=limits,
            ledger=self.ledger,
            messages=messages if server_messages is None else server_messages,
        )
        if handshake:
            self.run()
            assert self.client.state == self.server.state == "connected"
            self.client.events(), self.server.events()

    def run(self, step: int = 1 << 20) -> None:
        """Move bytes, `step` at a time, until nobody has more to say."""
        while self.to_server(step) or self.to_client(step):
            pass

    def to_server(self, step: int = 1 << 20) -> bool:
        return self._deliver(self.client, self.server, step)

    def to_client(self, step: int = 1 << 20) -> bool:
        return self._deliver(self.server, self.client, step)

    def _deliver(self, sender: stcp.Connection, receiver: stcp.Connection, step: int) -> bool:
        data = sender.data_to_send()
        for at in range(0, len(data), step):
            if receiver.error is None:
                receiver.receive_data(data[at : at + step], self.now)
        return bool(data)

    def send_to_server(self, stream: bytes) -> None:
        """Have the client send bytes that its message mode would not."""
        self.client._seal_application_data(memoryview(stream))
        self.to_server()
