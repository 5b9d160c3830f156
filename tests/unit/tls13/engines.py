"""Two engines in memory, and a hand on the wire between them.

A :class:`Pair` moves messages from one engine to the other and keeps what each gave out.  A `rogue`
sees every message before it is delivered and returns what is delivered instead, which is how one
side is made to misbehave in exactly one way.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sealwire.context import CERT_OPTIONAL, Config
from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.errors import Alert, HandshakeError, ProtocolError
from sealwire.tls13.contract import Direction, EarlyPhase, InstallKeys, Output, SendMessage
from sealwire.tls13.extensions import Extensions
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    HandshakeType,
    ServerHello,
    open_message,
)
from sealwire.tls13.tickets import SessionTicket
from sealwire.wire import Writer
from tests import certificates, configs

NAME = "localhost"
FLAVORS = (TLS, DTLS)
each_flavor = pytest.mark.parametrize("flavor", FLAVORS, ids=["TLS", "DTLS"])


@functools.cache
def client(**options: Any) -> Config:
    """A client's configuration; see :func:`tests.configs.client_context`."""
    return configs.client_context(**options).config()


@functools.cache
def server(**options: Any) -> Config:
    """A server's configuration; see :func:`tests.configs.server_context`."""
    return configs.server_context(**options).config()


def mutual() -> tuple[Config, Config]:
    """A client with a certificate and a server that demands one."""
    own = certificates.client()
    return client(identity=own), server(client_roots=own.cafile)


def optional() -> tuple[Config, Config]:
    """A client without a certificate and a server that would like one."""
    demanding = server(client_roots=certificates.client().cafile)
    return client(), replace(demanding, verify_mode=int(CERT_OPTIONAL))


def retrying() -> tuple[Config, Config]:
    """A client whose first key share the server cannot use."""
    return client(groups=("X25519", "P-256"), key_shares=("X25519",)), server(groups=("P-256",))


def mutual_retrying() -> tuple[Config, Config]:
    """Everything at once."""
    own = certificates.client()
    return (
        client(identity=own, groups=("X25519", "P-256"), key_shares=("X25519",)),
        server(client_roots=own.cafile, groups=("P-256",)),
    )


def default() -> tuple[Config, Config]:
    return client(), server()


def compressing() -> tuple[Config, Config]:
    """Both compress their certificates."""
    ours, theirs = (replace(one, certificate_compression=(CompressionAlgorithm.ZLIB,)) for one in default())
    return ours, theirs


def mutual_compressing() -> tuple[Config, Config]:
    ours, theirs = (replace(one, certificate_compression=(CompressionAlgorithm.ZLIB,)) for one in mutual())
    return ours, theirs


def with_alpn() -> tuple[Config, Config]:
    return client(alpn=("a/1", "b/2")), server(alpn=("b/2",))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One handshake message on its way."""

    to_server: bool
    epoch: int
    message: bytes

    @property
    def kind(self) -> HandshakeType:
        return HandshakeType(self.message[0])

    def but(self, message: bytes) -> Delivery:
        return replace(self, message=message)


Rogue = Callable[[Delivery], Sequence[Delivery]]


class Pair:
    """A client and a server, and the messages between them."""

    def __init__(
        self,
        flavor: Flavor,
        settings: tuple[Config, Config] | None = None,
        *,
        server_name: str | None = NAME,
        rogue: Rogue | None = None,
        engine: Handshake | None = None,
        run: bool = False,
        early: SessionTicket | None = None,
    ) -> None:
        ours, theirs = settings or default()
        self.flavor = flavor
        self.client = Handshake.client(
            ours, flavor, server_name=server_name, ticket=early, early_data=early is not None
        )
        self.server = engine or Handshake.server(theirs, flavor, early=EarlyPhase(wanted=early is not None))
        self.server_settings = theirs
        self.client_settings = ours
        self.rogue = rogue
        self.waiting: deque[Delivery] = deque()
        #: Everything delivered so far, as it was delivered.
        self.delivered: list[Delivery] = []
        #: Everything both gave out.
        self.outputs: dict[Handshake, list[Output]] = {}
        self.collect()
        if run:
            self.run()

    def collect(self) -> None:
        for engine, to_server in ((self.client, True), (self.server, False)):
            outputs = engine.outputs()
            self.outputs.setdefault(engine, []).extend(outputs)
            for output in outputs:
                if isinstance(output, SendMessage):
                    self.waiting.append(Delivery(to_server, output.epoch, output.message))

    def receiver(self, delivery: Delivery) -> Handshake:
        return self.server if delivery.to_server else self.client

    def step(self) -> None:
        """Deliver the next message, or what the rogue makes of it."""
        delivery = self.waiting.popleft()
        for changed in [delivery] if self.rogue is None else self.rogue(delivery):
            self.deliver(changed)

    def deliver(self, delivery: Delivery) -> None:
        self.delivered.append(delivery)
        self.receiver(delivery).receive(delivery.epoch, delivery.message)
        self.collect()

    def run(self) -> Pair:
        while self.waiting:
            self.step()
        return self

    def run_until(self, kind: HandshakeType, *, to_server: bool) -> Delivery:
        """Deliver up to the first message of `kind` that goes that way, which stays waiting."""
        while (self.waiting[0].kind, self.waiting[0].to_server) != (kind, to_server):
            self.step()
        return self.waiting[0]

    @property
    def connected(self) -> bool:
        return self.client.complete and self.server.complete

    def installed(self, engine: Handshake, direction: Direction) -> list[InstallKeys]:
        return [
            output
            for output in self.outputs[engine]
            if isinstance(output, InstallKeys) and output.direction is direction
        ]

    def assert_same_keys(self) -> None:
        """What one side seals with is what the other opens with, epoch for epoch."""
        for one, other in ((self.client, self.server), (self.server, self.client)):
            assert [
                (keys.epoch, keys.spec, bytes(keys.secret)) for keys in self.installed(one, Direction.SEND)
            ] == [
                (keys.epoch, keys.spec, bytes(keys.secret))
                for keys in self.installed(other, Direction.RECEIVE)
            ]


def assert_failed(engine: Handshake, error: ProtocolError) -> None:
    """The engine is over: whatever it is asked, the answer is the same error."""
    assert not engine.complete
    assert not engine.updating_keys
    hello = bytes.fromhex("01000000")
    calls: list[Callable[[], object]] = [
        lambda: engine.receive(0, hello),
        lambda: engine.receive(2, b""),
        lambda: engine.receive(3, bytes.fromhex("1800000100")),
        engine.update_keys,
        lambda: engine.update_keys(request_peer=True),
        lambda: engine.export(b"label", b"", 32),
        lambda: engine.session,
    ]
    for call in calls:
        with pytest.raises(ProtocolError) as caught:
            call()
        assert caught.value is error
    engine.acknowledged(1)
    engine.outputs()
    assert engine.outputs() == []


def refused(
    pair: Pair, alert: Alert, match: str = "", *, victim: str = "", act: Callable[[], object] | None = None
) -> ProtocolError:
    """Running the pair fails at `victim` with exactly this alert; returns the error."""
    complete = {True: pair.server.complete, False: pair.client.complete}
    with pytest.raises(ProtocolError) as caught:
        (act or pair.run)()
    error = caught.value
    assert error.alert is alert, error
    assert match in error.reason, error
    last = pair.delivered[-1]
    # Until the handshake is over, its errors say that no connection came to be.
    assert isinstance(error, HandshakeError) is not complete[last.to_server]
    assert victim in ("", "server" if last.to_server else "client")
    assert_failed(pair.receiver(last), error)
    return error


# --- taking messages apart and putting them together wrongly -----------------------------------


def without(block: Extensions, *codes: int) -> Extensions:
    """A copy of a block, without some."""
    copy = Extensions(block.where)
    copy._entries = {code: value for code, value in block._entries.items() if code not in codes}
    return copy


def put(block: Extensions, code: int, value: Any, *, first: bool = False) -> Extensions:
    """A copy of a block with `code` set to a value (bytes, where our table has no shape for it)."""
    copy = Extensions(block.where)
    others = {c: v for c, v in block._entries.items() if c != code or not first}
    copy._entries = {code: value, **others} if first else {**others, code: value}
    return copy


def client_hello(message: bytes, flavor: Flavor) -> ClientHello:
    return ClientHello.decode(open_message(message)[1], flavor)


def server_hello(message: bytes) -> ServerHello:
    return ServerHello.decode(open_message(message)[1])


def certificate(message: bytes) -> Certificate:
    return Certificate.decode(open_message(message)[1], 100)


def certificate_request(message: bytes) -> CertificateRequest:
    return CertificateRequest.decode(open_message(message)[1])


def certificate_verify(message: bytes) -> CertificateVerify:
    return CertificateVerify.decode(open_message(message)[1])


def encrypted_extensions(message: bytes) -> EncryptedExtensions:
    return EncryptedExtensions.decode(open_message(message)[1])


def with_raw_extension(message: bytes, block: Extensions, code: int, body: bytes) -> bytes:
    """The message, whose last part is `block`, with one more extension, which may repeat another."""
    writer = Writer()
    block.encode(writer)
    n = len(writer)
    assert message.endswith(writer.finish())
    writer = Writer()
    writer.raw(message[4:-n])
    with writer.length16():
        writer.raw(message[len(message) - n + 2 :])
        writer.u16(code)
        writer.vector16(body)
    out = writer.finish()
    return message[:1] + len(out).to_bytes(3, "big") + out
