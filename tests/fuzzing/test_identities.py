"""Damage to what says who the peer is: raw public keys, staples, compressed certificates, psk_ke.

As `test_messages.py`, with connections that hold these; the hellos, which cost most, are left out but
for the one without a key exchange, as they are damaged there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509

from sealwire.context import STAPLE_REQUIRED, Config
from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.psk import PskMode
from sealwire.errors import ProtocolError
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import HandshakeType
from tests import certificates, configs, psks
from tests.fuzzing.mutations import mutations, sample
from tests.fuzzing.recordings import Conversation, Recording
from tests.staples import staple
from tests.unit.tls13.test_raw_public_keys import both, client_context, server_context

SAMPLED = 500


def raw_keys() -> tuple[Config, Config]:
    server, own = certificates.server(), certificates.client()
    return both(client_context(trusts=server, raw=own), server_context(trusts=own))


def compressed_and_stapled() -> tuple[Config, Config]:
    server, own = certificates.server(), certificates.client()
    theirs, ours = configs.server_context(client_roots=own.cafile), configs.client_context(identity=own)
    leaf = x509.load_der_x509_certificate(server.chain[0])
    response = staple(leaf, *certificates.root_of(server))
    theirs.load_cert_chain(server.certfile, server.keyfile, ocsp_response=response)
    ours.staple_mode = STAPLE_REQUIRED
    for one in (ours, theirs):
        one.set_certificate_compression("zlib")
    return ours.config(), theirs.config()


def stapled() -> tuple[Config, Config]:
    ours, theirs = compressed_and_stapled()
    nothing: tuple[CompressionAlgorithm, ...] = ()
    return replace(ours, certificate_compression=nothing), replace(theirs, certificate_compression=nothing)


def without_exchange() -> tuple[Config, Config]:
    modes = (PskMode.PSK_KE,)
    return (
        replace(psks.client(psks.DEVICE), psk_modes=modes),
        replace(psks.server(psks.DEVICE), psk_modes=modes),
    )


MAKERS: dict[str, Callable[[], tuple[Config, Config]]] = {
    make.__name__: make for make in (raw_keys, compressed_and_stapled, stapled, without_exchange)
}
FLAVORS = pytest.mark.parametrize("flavor", [TLS, DTLS], ids=["TLS", "DTLS"])
EACH = pytest.mark.parametrize("name", MAKERS)


@functools.cache
def recorded(name: str) -> Recording:
    return Recording(*MAKERS[name]())


def damages(name: str, flavor: Flavor) -> list[tuple[int, bytes]]:
    return [
        (number, damaged)
        for number, delivery in enumerate(Conversation(recorded(name), flavor).run())
        if delivery.message[0] != HandshakeType.CLIENT_HELLO or name == "without_exchange"
        for damaged in mutations(delivery.message)
    ]


def deliver(conversation: Conversation, damaged: bytes) -> None:
    delivery = conversation.waiting.popleft()
    conversation.receiver(delivery).receive(delivery.epoch, damaged)
    conversation.collect()
    conversation.run()


def assert_all_end_well(name: str, flavor: Flavor, chosen: list[tuple[int, bytes]]) -> None:
    """Each is refused with an alert: the signature or Finished covers every byte before it."""
    for number, damaged in chosen:
        conversation = Conversation.before(recorded(name), flavor, number)
        with pytest.raises(ProtocolError) as caught:
            deliver(conversation, damaged)
        assert caught.value.alert.words
        assert caught.value.reason


@pytest.mark.requirement("8446-NEG-10", "7250-1", "8879-1", "8446-AUTH-6", "8446-PSK-1")
@FLAVORS
@EACH
def test_damaged_messages(flavor: Flavor, name: str) -> None:
    assert_all_end_well(name, flavor, sample(damages(name, flavor), SAMPLED, f"{name} {flavor}"))


@pytest.mark.long
@pytest.mark.requirement("8446-NEG-10", "7250-1", "8879-1", "8446-AUTH-6", "8446-PSK-1")
@FLAVORS
@EACH
def test_every_damaged_message(flavor: Flavor, name: str) -> None:
    assert_all_end_well(name, flavor, damages(name, flavor))
