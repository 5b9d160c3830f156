"""An endpoint and the clients before it, without a network: datagrams move when a test says so."""

from __future__ import annotations

from typing import Any

from sealwire import dtls
from sealwire.context import Config
from sealwire.dtls.cookie import Address
from sealwire.errors import Discard
from sealwire.limits import Limits
from tests import configs
from tests.unit.dtls.hellos import HERE


class Site:
    """An endpoint and the clients before it; datagrams move when a test says so."""

    def __init__(self, *, limits: Limits | None = None, client: Config | None = None, **options: Any) -> None:
        server = options.pop("server", None) or configs.server_context().config()
        self.limits = limits or Limits()
        self.endpoint = dtls.Endpoint(lambda: server, limits=self.limits, **options)
        self.client_config = client or configs.client_context().config()
        self.clients: dict[Address, dtls.Connection] = {}
        self.events: list[tuple[dtls.Connection, dtls.Event]] = []
        self.now = 0.0

    def add(self, at: Address, config: Config | None = None) -> dtls.Connection:
        self.clients[at] = dtls.Connection.client(
            config or self.client_config, now=self.now, server_name="localhost"
        )
        return self.clients[at]

    def up(self) -> list[tuple[bytes, Address]]:
        """What the clients send now, handed on in one batch."""
        batch = [
            (datagram, at) for at, client in self.clients.items() for datagram in client.transmit(self.now)
        ]
        if batch:
            self.endpoint.receive(batch, self.now)
        return batch

    def down(self) -> list[tuple[bytes, Address]]:
        """What the endpoint sends now, handed to those it is for."""
        batch = self.endpoint.transmit(self.now)
        self.events += self.endpoint.events()
        for datagram, at in batch:
            if at in self.clients:
                self.clients[at].receive(datagram, self.now)
        return batch

    def run(self) -> None:
        for _ in range(100):
            if not self.up() + self.down():
                return
        raise AssertionError("no end")

    def connect(self, at: Address = HERE) -> tuple[dtls.Connection, dtls.Connection]:
        client = self.add(at)
        self.run()
        assert client.state is dtls.State.CONNECTED
        return client, self.served(at)

    def served(self, at: Address = HERE) -> dtls.Connection:
        [found] = [one for one in self.endpoint if one.address == at and one.was_connected]
        return found

    def skip(self, seconds: float) -> None:
        end = self.now + seconds
        self.run()
        while True:
            due = [self.endpoint.deadline(), *(client.deadline() for client in self.clients.values())]
            soon = min((at for at in due if at is not None), default=end + 1)
            if soon > end:
                break
            self.now = max(self.now, soon)
            self.endpoint.wake(self.now)
            for client in self.clients.values():
                client.wake(self.now)
            self.run()
        self.now = end

    def inside(self, reason: Discard) -> int:
        return self.endpoint.counters.discards.get(reason, 0)


def addresses(n: int) -> list[Address]:
    return [("192.0.2.1", 1000 + port) for port in range(n)]
