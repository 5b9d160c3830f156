"""Context and pre-shared keys: the verbs of ssl, and what a Config answers an engine."""

from __future__ import annotations

from typing import Any

import pytest

from sealwire.context import PROTOCOL_CLIENT, PROTOCOL_SERVER, Context
from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX
from sealwire.crypto.psk import ExternalPsk, PskKind
from sealwire.errors import Alert, ConfigurationError, HandshakeError

SECRET = bytes(range(32))


def client(answer: Any) -> Context:
    context = Context(PROTOCOL_CLIENT)
    context.set_psk_client_callback(lambda hint: answer)
    return context


def server(keys: dict[str, Any]) -> Context:
    context = Context(PROTOCOL_SERVER)
    context.set_psk_server_callback(keys.get)
    return context


def test_without_callbacks_there_are_no_keys() -> None:
    config = Context(PROTOCOL_CLIENT).config()
    assert config.offer_psks(DTLS13_PREFIX) == ()
    assert config.find_psk(b"anyone", DTLS13_PREFIX) is None


@pytest.mark.parametrize("prefix", [TLS13_PREFIX, DTLS13_PREFIX])
def test_what_a_client_offers_a_server_finds(prefix: bytes) -> None:
    config = server({"device": SECRET}).config()
    (offer,) = client(("device", SECRET)).config().offer_psks(prefix)
    assert (offer.identity, offer.kind, offer.hash_name) == (b"device", PskKind.EXTERNAL, "sha256")
    assert config.find_psk(offer.identity, prefix) == offer
    assert config.find_psk(b"stranger", prefix) is None

    imported = ExternalPsk("device", SECRET, imported=True)
    config = server({"device": imported}).config()
    offers = client(imported).config().offer_psks(prefix)
    # One for each hash of the suites, in the order of the suites.
    assert [psk.hash_name for psk in offers] == ["sha256", "sha384"]
    assert [config.find_psk(psk.identity, prefix) for psk in offers] == list(offers)
    other = TLS13_PREFIX if prefix is DTLS13_PREFIX else DTLS13_PREFIX
    assert config.find_psk(offers[0].identity, other) is None


def test_only_hashes_of_the_suites_are_offered() -> None:
    context = client(("device", SECRET))
    context.set_ciphersuites("TLS_AES_256_GCM_SHA384")
    assert context.config().offer_psks(DTLS13_PREFIX) == ()
    context.set_psk_client_callback(lambda hint: ExternalPsk("device", SECRET, hash_name="sha384"))
    assert len(context.config().offer_psks(DTLS13_PREFIX)) == 1
    for nothing in (None, (None, b"")):
        assert client(nothing).config().offer_psks(DTLS13_PREFIX) == ()


def test_a_server_with_a_callback_needs_no_certificate() -> None:
    context = server({})
    assert context.config().credentials == ()
    context.set_psk_server_callback(None)
    with pytest.raises(ConfigurationError, match="certificate"):
        context.config()


def test_each_side_has_its_own_callback() -> None:
    with pytest.raises(ConfigurationError, match="set_psk_server_callback"):
        Context(PROTOCOL_SERVER).set_psk_client_callback(lambda hint: None)
    with pytest.raises(ConfigurationError, match="set_psk_client_callback"):
        Context(PROTOCOL_CLIENT).set_psk_server_callback(lambda identity: None)
    with pytest.raises(TypeError, match="callable"):
        Context(PROTOCOL_CLIENT).set_psk_client_callback("key")  # type: ignore[arg-type]


def test_a_failing_callback_fails_the_handshake_only() -> None:
    def broken(_: object) -> Any:
        raise ZeroDivisionError

    context = Context(PROTOCOL_SERVER)
    context.set_psk_server_callback(broken)
    with pytest.raises(HandshakeError) as caught:
        context.config().find_psk(b"x", DTLS13_PREFIX)
    assert caught.value.alert is Alert.INTERNAL_ERROR
    with pytest.raises(HandshakeError, match="callback failed"):
        client(5).config().offer_psks(DTLS13_PREFIX)


def test_callbacks_change_the_config() -> None:
    context = Context(PROTOCOL_CLIENT)
    before = context.config()
    context.set_psk_client_callback(lambda hint: ("x", SECRET))
    assert context.config() is not before
    assert before.offer_psks(DTLS13_PREFIX) == ()


def test_ticket_keys_are_shared_by_those_who_set_them() -> None:
    one, two = server({}), server({})
    now = 1_800_000_000.0
    assert two.config().ticket_keys.open(one.config().ticket_keys.seal(b"s", now), now) is None
    config = one.config()
    for context in (one, two):
        context.set_ticket_keys([bytes(32)])
    opened = two.config().ticket_keys.open(config.ticket_keys.seal(b"s", now), now)
    assert opened is not None
    assert opened.state == b"s"
    # Connections made before go on with the new keys too.
    assert one.config() is config
    with pytest.raises(ConfigurationError, match="too short"):
        one.set_ticket_keys([b"short"])
