"""Pre-shared keys over datagrams: behind the cookie, over bad links, and what failures cost."""

from __future__ import annotations

from typing import Any

import pytest

from sealwire import dtls
from sealwire.context import PROTOCOL_CLIENT, PROTOCOL_SERVER, Config, Context
from sealwire.crypto.groups import Group
from sealwire.crypto.psk import ExternalPsk
from sealwire.errors import Alert, HandshakeError, PeerAlert
from sealwire.limits import Ledger, Limits
from tests import psks
from tests.network.world import World
from tests.psks import DEVICE, SECRET
from tests.unit.dtls.hellos import HERE
from tests.unit.dtls.host import Site
from tests.unit.dtls.rig import joined

DEVICE_384 = ExternalPsk("device", SECRET, hash_name="sha384")
IMPORTED = ExternalPsk("device", SECRET, imported=True, context=b"context")
EACH_KEY = pytest.mark.parametrize(
    "key", [DEVICE, DEVICE_384, IMPORTED], ids=["sha256", "sha384", "imported"]
)


class Callback:
    """A server's callback that remembers what it was asked for."""

    def __init__(self, key: ExternalPsk) -> None:
        self.key = key
        self.asked: list[str] = []

    def __call__(self, identity: str) -> ExternalPsk | None:
        self.asked.append(identity)
        return self.key if identity == self.key.identity.decode() else None

    def config(self) -> Config:
        context = Context(PROTOCOL_SERVER)
        context.set_psk_server_callback(self)
        return context.config()


@EACH_KEY
def test_two_connections_with_a_key(key: ExternalPsk) -> None:
    rig = joined(client=psks.client(key), server=psks.server(key))
    for side in (rig.client, rig.server):
        assert side.session.psk_identity == b"device"
        assert side.session.peer is None
        assert side.session.version == "DTLS 1.3"
    exported = rig.client.export(b"EXPORTER-test", b"", 32)
    assert exported == rig.server.export(b"EXPORTER-test", b"", 32)
    rig.echo()
    # The keys go on changing as they do with certificates.
    rig.client.update_keys(rig.now, request_peer=True)
    rig.run()
    rig.echo()
    for side in (rig.client, rig.server):
        side.close(rig.now)
    rig.skip(600.0)
    assert rig.ledger.held == 0


@pytest.mark.requirement("8446-KS-3", "8446-PSK-2", "9147-5.1-2")
@pytest.mark.parametrize("group", [(), ("P-384",)], ids=["cookie alone", "cookie and group"])
@EACH_KEY
def test_behind_a_cookie(key: ExternalPsk, group: tuple[str, ...]) -> None:
    """The binder covers the first hello and the retry, of which the server kept nothing."""
    site = Site(client=psks.client(key), server=psks.server(key, groups=group))
    client, server = site.connect()
    assert client.session.retried
    assert server.session.retried
    assert client.session.psk_identity == server.session.psk_identity == b"device"
    assert client.session.suite.hash_name == server.session.suite.hash_name
    assert client.export(b"EXPORTER-test", b"", 32) == server.export(b"EXPORTER-test", b"", 32)
    if group:
        assert client.session.group is Group.SECP384R1


@pytest.mark.requirement("8446-PSK-2")
def test_nobody_is_looked_up_before_the_cookie_came_back() -> None:
    """An address that may be forged costs the application nothing."""
    callback = Callback(DEVICE)
    site = Site(client=psks.client(DEVICE), server=callback.config())
    site.add(HERE)
    site.up()
    assert site.endpoint.counters.hello_retry_requests == 1
    assert callback.asked == []
    site.run()
    assert callback.asked == ["device"]
    assert site.served().session.psk_identity == b"device"


@pytest.mark.requirement("8446-PSK-2")
def test_an_unknown_identity_falls_back_to_certificates_behind_a_cookie() -> None:
    stranger = ExternalPsk("stranger", SECRET, hash_name="sha384")
    site = Site(client=psks.client(stranger, trusting=True), server=psks.server(DEVICE, certified=True))
    client, server = site.connect()
    assert client.session.psk_identity is None
    assert server.session.psk_identity is None
    assert client.session.peer is not None


def refused_by(server: Config, client: Config, alert: Alert) -> None:
    """The server refuses with `alert`, the client hears it, and nobody holds anything afterwards."""
    site = Site(client=client, server=server)
    at_rest = site.endpoint.ledger.held
    connection = site.add(HERE)
    site.run()
    assert isinstance(connection.error, PeerAlert)
    assert connection.error.alert is alert
    failures = [event.error for _, event in site.events if isinstance(event, dtls.Closed)]
    assert [one.alert for one in failures if isinstance(one, HandshakeError)] == [alert]
    site.skip(600.0)
    assert site.endpoint.connections == 0
    assert site.endpoint.ledger.held == at_rest
    # The next one is served as if nothing had been.
    assert site.endpoint.counters.handshakes_failed == 1


@pytest.mark.requirement("8446-PSK-2")
@EACH_KEY
def test_a_wrong_secret(key: ExternalPsk) -> None:
    wrong = ExternalPsk(
        key.identity, bytes(32), hash_name=key.hash_name, imported=key.imported, context=key.context
    )
    refused_by(psks.server(key), psks.client(wrong), Alert.DECRYPT_ERROR)
    refused_by(psks.server(key, certified=True), psks.client(wrong, trusting=True), Alert.DECRYPT_ERROR)


@pytest.mark.requirement("8446-PSK-2")
def test_an_unknown_identity() -> None:
    refused_by(psks.server(DEVICE), psks.client(ExternalPsk("x", SECRET)), Alert.UNKNOWN_PSK_IDENTITY)


@pytest.mark.requirement("9258-1")
def test_external_and_imported_are_not_mixed() -> None:
    refused_by(psks.server(DEVICE), psks.client(IMPORTED), Alert.UNKNOWN_PSK_IDENTITY)
    refused_by(psks.server(IMPORTED), psks.client(DEVICE), Alert.UNKNOWN_PSK_IDENTITY)


def test_a_server_whose_callback_fails_goes_on_with_others() -> None:
    refused_by(_with_callback(psks.broken), psks.client(DEVICE), Alert.INTERNAL_ERROR)


def _with_callback(callback: Any) -> Config:
    context = Context(PROTOCOL_SERVER)
    context.set_psk_server_callback(callback)
    return context.config()


def test_a_client_whose_callback_fails_is_not_made() -> None:
    context = Context(PROTOCOL_CLIENT)
    context.set_psk_client_callback(psks.broken)
    ledger = Ledger(Limits())
    with pytest.raises(HandshakeError) as caught:
        dtls.Connection.client(context.config(), now=0.0, ledger=ledger)
    assert caught.value.alert is Alert.INTERNAL_ERROR
    assert ledger.held == 0


@pytest.mark.requirement("8446-PSK-2")
def test_without_a_name_no_certificate_will_do() -> None:
    client = dtls.Connection.client(psks.client(ExternalPsk("x", SECRET), trusting=True), now=0.0)
    site = Site(server=psks.server(DEVICE, certified=True))
    site.clients[HERE] = client
    site.run()
    assert isinstance(client.error, HandshakeError)
    assert client.error.alert is Alert.HANDSHAKE_FAILURE
    assert not client.was_connected
    assert client.messages() == []


@pytest.mark.parametrize("mtu", [256, 1200])
@EACH_KEY
def test_over_a_link_that_loses_a_fifth(key: ExternalPsk, mtu: int) -> None:
    """Binders survive fragments, repetition and reordering; the clock is virtual, the link seeded."""
    for seed in range(12):
        world = World(
            f"psk {key} {mtu} {seed}",
            server=psks.server(key),
            client=psks.client(key),
            mtu=mtu,
            loss=0.2,
            reorder=0.2,
            duplicate=0.05,
        )
        world.connect()
        world.handshake(within=240.0)
        assert world.client().session.psk_identity == world.served().session.psk_identity == b"device"
        world.exchange()
        world.close()
