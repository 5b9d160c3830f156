"""Pre-shared keys over a byte stream: every cut of the bytes, channel binding, and failures on the wire."""

from __future__ import annotations

import pytest

from sealwire import stcp
from sealwire.context import PROTOCOL_CLIENT, PROTOCOL_SERVER, Context
from sealwire.crypto.groups import Group
from sealwire.crypto.psk import ExternalPsk
from sealwire.errors import Alert, HandshakeError, PeerAlert
from sealwire.limits import Ledger, Limits
from tests import psks
from tests.psks import DEVICE, SECRET
from tests.unit.stcp.pair import Pair, deliver

DEVICE_384 = ExternalPsk("device", SECRET, hash_name="sha384")
IMPORTED = ExternalPsk("device", SECRET, imported=True, context=b"context")
EACH_KEY = pytest.mark.parametrize(
    "key", [DEVICE, DEVICE_384, IMPORTED], ids=["sha256", "sha384", "imported"]
)


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@EACH_KEY
def test_two_connections_with_a_key(key: ExternalPsk, step: int) -> None:
    pair = Pair(psks.client_context(key), psks.server_context(key), handshake=False)
    pair.run(step)
    for side in (pair.client, pair.server):
        assert side.state == "connected"
        assert side.session.psk_identity == b"device"
        assert side.session.peer is None
        assert side.session.version == "TLS 1.3"
        assert side.session.suite.hash_name == key.hash_name
    # RFC 9266: what applications bind to, equal on both sides and different for every connection.
    assert pair.client.tls_exporter() == pair.server.tls_exporter()
    assert pair.client.tls_exporter() != Pair().client.tls_exporter()
    pair.client.send(b"over the wire")
    pair.run()
    assert pair.server.read() == b"over the wire"
    for side in (pair.client, pair.server):
        side.close()
    pair.run()
    assert pair.client.state == pair.server.state == "closed"
    assert pair.ledger.held == 0


@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
@EACH_KEY
def test_after_a_retry_for_the_group(key: ExternalPsk) -> None:
    client = psks.client_context(key, groups=("X25519", "P-256"), key_shares=("X25519",))
    pair = Pair(client, psks.server_context(key, groups=("P-256",)))
    assert pair.client.session.retried
    assert pair.server.session.psk_identity == b"device"
    assert pair.server.session.group is Group.SECP256R1


@pytest.mark.requirement("8446-PSK-2")
def test_an_unknown_identity_falls_back_to_certificates() -> None:
    pair = Pair(
        psks.client_context(ExternalPsk("x", SECRET), trusting=True),
        psks.server_context(DEVICE, certified=True),
    )
    assert pair.client.session.psk_identity is None
    assert pair.client.session.peer is not None


def refused(client: Context, server: Context, alert: Alert) -> None:
    """The server refuses, the client hears why, and nothing is held afterwards."""
    pair = Pair(client, server, handshake=False)
    pair.run()
    assert isinstance(pair.server.error, HandshakeError)
    assert pair.server.error.alert is alert
    assert isinstance(pair.client.error, PeerAlert)
    assert pair.client.error.alert is alert
    assert pair.ledger.held == 0


@pytest.mark.requirement("8446-PSK-2")
def test_wrong_secrets_and_unknown_identities() -> None:
    other = psks.client_context(ExternalPsk("device", bytes(32)))
    refused(other, psks.server_context(DEVICE), Alert.DECRYPT_ERROR)
    refused(other, psks.server_context(DEVICE, certified=True), Alert.DECRYPT_ERROR)
    stranger = psks.client_context(ExternalPsk("x", SECRET))
    refused(stranger, psks.server_context(DEVICE), Alert.UNKNOWN_PSK_IDENTITY)


@pytest.mark.requirement("9258-1")
def test_external_and_imported_are_not_mixed() -> None:
    refused(psks.client_context(IMPORTED), psks.server_context(DEVICE), Alert.UNKNOWN_PSK_IDENTITY)
    refused(psks.client_context(DEVICE), psks.server_context(IMPORTED), Alert.UNKNOWN_PSK_IDENTITY)


def test_callbacks_that_fail() -> None:
    server = Context(PROTOCOL_SERVER)
    server.set_psk_server_callback(psks.broken)
    refused(psks.client_context(DEVICE), server, Alert.INTERNAL_ERROR)

    client = Context(PROTOCOL_CLIENT)
    client.set_psk_client_callback(psks.broken)
    ledger = Ledger(Limits())
    with pytest.raises(HandshakeError) as caught:
        stcp.Connection.client(client.config(), now=0.0, ledger=ledger)
    assert caught.value.alert is Alert.INTERNAL_ERROR
    assert ledger.held == 0


@pytest.mark.requirement("8446-PSK-2")
def test_without_a_name_no_certificate_will_do() -> None:
    config = psks.client_context(ExternalPsk("x", SECRET), trusting=True).config()
    client = stcp.Connection.client(config, now=0.0)
    server = stcp.Connection.server(psks.server_context(DEVICE, certified=True).config(), now=0.0)
    while deliver(client, server) or deliver(server, client):
        pass
    assert isinstance(client.error, HandshakeError)
    assert client.error.alert is Alert.HANDSHAKE_FAILURE
    assert isinstance(server.error, PeerAlert)
