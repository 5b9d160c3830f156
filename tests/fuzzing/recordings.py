"""The three connections whose every message and datagram is damaged: configurations, and engines in memory.

They differ so that together they hold every message of the handshake and every kind of value in
it: a hybrid group in a hello of two datagrams; a HelloRetryRequest for the group, certificates
both ways, RSA and a chain; ChaCha20, Ed25519, ALPN.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass

from sealwire.context import Config
from sealwire.tls13.contract import SendMessage
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.handshake import Handshake
from tests import certificates, configs
from tests.certificates import Kind


@dataclass(frozen=True, slots=True)
class Recording:
    """A pair of configurations that always leads to the same sequence of messages."""

    client: Config
    server: Config


@functools.cache
def recording(name: str) -> Recording:
    match name:
        case "hybrid":
            return Recording(
                configs.client_context(groups=["X25519MLKEM768"]).config(), configs.server_context().config()
            )
        case "mutual with retry":
            identity = certificates.server(Kind.RSA_2048, intermediates=1)
            own = certificates.client(Kind.ECDSA_P384)
            return Recording(
                configs.client_context(
                    identity.cafile, identity=own, groups=["X25519", "P-256"], key_shares=["X25519"]
                ).config(),
                configs.server_context(identity, client_roots=own.cafile, groups=["P-256"]).config(),
            )
        case "chacha":
            identity = certificates.server(Kind.ED25519)
            suites = ["TLS_CHACHA20_POLY1305_SHA256"]
            return Recording(
                configs.client_context(
                    identity.cafile, suites=suites, groups=["X25519"], alpn=["a/1", "b/2"]
                ).config(),
                configs.server_context(identity, suites=suites, alpn=["b/2"]).config(),
            )
        case _:
            raise ValueError(name)


NAMES = ("hybrid", "mutual with retry", "chacha")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One handshake message on its way to the `to_server` side or to the client."""

    to_server: bool
    epoch: int
    message: bytes


class Conversation:
    """Both engines, and the messages between them, delivered one at a time."""

    def __init__(self, recorded: Recording, flavor: Flavor) -> None:
        self.client = Handshake.client(recorded.client, flavor, server_name="localhost")
        self.server = Handshake.server(recorded.server, flavor)
        self.waiting: deque[Delivery] = deque()
        self.collect()

    def collect(self) -> None:
        for to_server, engine in ((True, self.client), (False, self.server)):
            for output in engine.outputs():
                if isinstance(output, SendMessage):
                    self.waiting.append(Delivery(to_server, output.epoch, output.message))

    def receiver(self, delivery: Delivery) -> Handshake:
        return self.server if delivery.to_server else self.client

    def step(self) -> Delivery:
        """Deliver the next message."""
        delivery = self.waiting.popleft()
        self.receiver(delivery).receive(delivery.epoch, delivery.message)
        self.collect()
        return delivery

    def run(self) -> list[Delivery]:
        """Deliver everything; what was delivered."""
        out = []
        while self.waiting:
            out.append(self.step())
        return out

    @classmethod
    def before(cls, recorded: Recording, flavor: Flavor, number: int) -> Conversation:
        """A new conversation in which the `number`-th message is the next to be delivered."""
        conversation = cls(recorded, flavor)
        for _ in range(number):
            conversation.step()
        return conversation
