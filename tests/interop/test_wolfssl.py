"""DTLS 1.3 with wolfSSL, which has most of what we have: as client and as server of ours."""

from __future__ import annotations

import functools
import hashlib
import random
import socket
import time
from typing import Any, cast

import pytest

from sealwire import dtls
from sealwire.context import Context
from sealwire.crypto.groups import Group
from sealwire.crypto.psk import ExternalPsk
from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError, PeerAlert
from tests import certificates, configs, psks
from tests.certificates import Kind
from tests.interop.sockets import DatagramClient, DatagramServer
from tests.interop.wolfssl import SUITES, Wolfssl, WolfsslPeer
from tests.psks import SECRET

GROUPS = (
    "X25519",
    "P-256",
    "P-384",
    "P-521",
    "X448",
    "X25519MLKEM768",
    "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024",
)
CODES = {
    "P-256": Group.SECP256R1,
    "P-384": Group.SECP384R1,
    "P-521": Group.SECP521R1,
    "X25519": Group.X25519,
    "X448": Group.X448,
    "X25519MLKEM768": Group.X25519MLKEM768,
    "SecP256r1MLKEM768": Group.SECP256R1MLKEM768,
    "SecP384r1MLKEM1024": Group.SECP384R1MLKEM1024,
}

#: The label the driver exports keying material under.
EXPORTER = b"EXPORTER-sealwire-interop"


def with_suites(context: Context, *suites: str) -> Context:
    context.set_ciphersuites(list(suites), allow_short_tags=True)
    return context


def exchange(loop: DatagramClient | DatagramServer, connection: dtls.Connection, peer: WolfsslPeer) -> None:
    """A line each way."""
    before = len(loop.received)
    peer.send(b"from wolfssl")
    loop.run_until(lambda: loop.received[before:] == [b"from wolfssl"], "their line")
    n = len([event for event in peer.events if event["event"] == "data"])
    connection.send(b"from sealwire")
    data = peer.wait_for("data", loop, n)
    assert bytes.fromhex(data["hex"]) == b"from sealwire"


@pytest.mark.parametrize("suite", SUITES)
def test_wolfssl_as_client_with_each_suite(wolfssl: Wolfssl, suite: str) -> None:
    server = DatagramServer(with_suites(configs.server_context(), suite).config())
    with wolfssl.client(server.port, certificates.server(), suites=[SUITES[suite]]) as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        assert connection.session.suite.name == suite
        assert said["suite"] == SUITES[suite]
        exchange(server, connection, peer)


@pytest.mark.parametrize("suite", SUITES)
def test_wolfssl_as_server_with_each_suite(wolfssl: Wolfssl, suite: str) -> None:
    with wolfssl.server(certificates.server(), suites=[SUITES[suite]]) as (peer, port):
        client = DatagramClient(with_suites(configs.client_context(), suite).config(), port)
        client.handshake()
        assert client.connection.session.suite.name == suite
        assert peer.wait_for("connected", client)["suite"] == SUITES[suite]
        exchange(client, client.connection, peer)
        client.close()


@pytest.mark.parametrize("group", GROUPS)
def test_wolfssl_as_client_with_each_group(wolfssl: Wolfssl, group: str) -> None:
    server = DatagramServer(configs.server_context(groups=[group]).config())
    with wolfssl.client(server.port, certificates.server(), groups=[CODES[group]]) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        assert connection.session.group == CODES[group]
        exchange(server, connection, peer)


@pytest.mark.parametrize("group", GROUPS)
def test_wolfssl_as_server_with_each_group(wolfssl: Wolfssl, group: str) -> None:
    """It reads no first hello in two datagrams, so one with a hybrid share is of no use to it."""
    context = configs.client_context(groups=[group])
    if "MLKEM" in group:
        context.set_key_shares([])
    with wolfssl.server(certificates.server(), groups=[CODES[group]]) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert client.connection.session.group == CODES[group]
        peer.wait_for("connected", client)
        exchange(client, client.connection, peer)
        client.close()


# --- hellos, cookies, retries -----------------------------------------------------------------


@pytest.mark.requirement("8446-NEG-4", "9147-5.1-4")
@pytest.mark.parametrize("require_cookie", [True, False], ids=["cookie", "no cookie"])
def test_wolfssl_as_client_needs_a_retry_for_the_group(wolfssl: Wolfssl, require_cookie: bool) -> None:
    server = DatagramServer(configs.server_context(groups=["P-384"]).config(), require_cookie=require_cookie)
    groups = [CODES["X25519"], CODES["P-384"]]
    with wolfssl.client(server.port, certificates.server(), groups=groups, key_shares=groups[:1]) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        assert connection.session.retried
        assert connection.session.group == CODES["P-384"]
        exchange(server, connection, peer)


def test_wolfssl_as_client_without_a_cookie(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config(), require_cookie=False)
    with wolfssl.client(server.port, certificates.server(), groups=[CODES["P-256"]]) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        assert not connection.session.retried
        exchange(server, connection, peer)


@pytest.mark.requirement("8446-NEG-4", "9147-5.1-4")
@pytest.mark.parametrize("cookie", [True, False], ids=["cookie", "no cookie"])
def test_wolfssl_as_server_asks_for_a_retry(wolfssl: Wolfssl, cookie: bool) -> None:
    context = configs.client_context(groups=["X25519", "P-384"], key_shares=["X25519"])
    with wolfssl.server(certificates.server(), groups=[CODES["P-384"]], cookie=cookie) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert client.connection.session.retried
        assert client.connection.session.group == CODES["P-384"]
        exchange(client, client.connection, peer)
        client.close()


@pytest.mark.parametrize("cookie", [True, False], ids=["cookie", "no cookie"])
def test_wolfssl_as_server_and_its_cookie(wolfssl: Wolfssl, cookie: bool) -> None:
    context = configs.client_context(groups=["X25519"])
    with wolfssl.server(certificates.server(), cookie=cookie) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert client.connection.session.retried == cookie
        exchange(client, client.connection, peer)
        client.close()


def test_alpn_and_names_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context(alpn=["b", "c"]).config())
    with wolfssl.client(server.port, certificates.server(), alpn=["a", "c"]) as peer:
        session = server.accept().session
        assert (session.alpn, session.server_name) == (b"c", "localhost")
        assert peer.wait_for("connected", server)["alpn"] == "c"


def test_alpn_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server(), alpn=["b", "c"]) as (peer, port):
        client = DatagramClient(configs.client_context(alpn=["a", "c"], groups=["X25519"]).config(), port)
        client.handshake()
        assert client.connection.session.alpn == b"c"
        assert peer.wait_for("connected", client)["alpn"] == "c"


# --- who the peer is --------------------------------------------------------------------------


@pytest.mark.requirement("8446-AUTH-2")
@pytest.mark.parametrize("kind", Kind)
def test_wolfssl_as_client_and_each_kind_of_certificate_both_ways(wolfssl: Wolfssl, kind: Kind) -> None:
    identity, own = certificates.server(kind), certificates.client(kind)
    server = DatagramServer(configs.server_context(identity, client_roots=own.cafile).config())
    with wolfssl.client(server.port, identity, own) as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        assert said["certificate"] == hashlib.sha256(identity.chain[0]).hexdigest()
        shown = connection.session.peer
        assert shown is not None
        assert shown.chain[0] == own.chain[0]
        assert said["exporter"] == connection.export(EXPORTER, b"context", 32).hex()
        exchange(server, connection, peer)


@pytest.mark.requirement("8446-AUTH-2")
@pytest.mark.parametrize("kind", Kind)
def test_wolfssl_as_server_and_each_kind_of_certificate_both_ways(wolfssl: Wolfssl, kind: Kind) -> None:
    identity, own = certificates.server(kind), certificates.client(kind)
    context = configs.client_context(identity.cafile, identity=own, groups=["X25519"])
    with wolfssl.server(identity, cafile=own.cafile) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        said = peer.wait_for("connected", client)
        assert said["certificate"] == hashlib.sha256(own.chain[0]).hexdigest()
        shown = client.connection.session.peer
        assert shown is not None
        assert shown.chain[0] == identity.chain[0]
        assert said["exporter"] == client.connection.export(EXPORTER, b"context", 32).hex()
        exchange(client, client.connection, peer)
        client.close()


@pytest.mark.requirement("8446-AUTH-3")
def test_wolfssl_as_client_without_the_certificate_we_want(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context(client_roots=certificates.client().cafile).config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        with pytest.raises(HandshakeError) as failure:
            server.accept()
        assert failure.value.alert is Alert.CERTIFICATE_REQUIRED
        assert peer.wait_for("failed", server)["alert_received"] == Alert.CERTIFICATE_REQUIRED


def test_wolfssl_as_client_does_not_trust_us(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server(Kind.RSA_2048)):
        with pytest.raises(PeerAlert) as failure:
            server.accept()
        assert failure.value.alert in (Alert.UNKNOWN_CA, Alert.BAD_CERTIFICATE)


@pytest.mark.requirement("8446-AUTH-5")
def test_wolfssl_as_server_that_we_do_not_trust(wolfssl: Wolfssl) -> None:
    context = configs.client_context(certificates.server(Kind.RSA_2048).cafile, groups=["X25519"])
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(context.config(), port)
        with pytest.raises(CertificateError) as failure:
            client.handshake()
        assert failure.value.failure is CertificateFailure.UNKNOWN_ISSUER
        client.turn()
        assert peer.wait_for("failed")["alert_received"] == Alert.UNKNOWN_CA


# --- pre-shared keys and resumption -----------------------------------------------------------

#: Suite and the key that goes with it.
PSK_SUITES = (
    ("TLS_AES_128_GCM_SHA256", "sha256"),
    ("TLS_AES_256_GCM_SHA384", "sha384"),
    ("TLS_CHACHA20_POLY1305_SHA256", "sha256"),
    ("TLS_AES_128_CCM_SHA256", "sha256"),
)


def psk_of(suite: str) -> dict[str, str]:
    return {"identity": "device", "secret": SECRET.hex(), "suite": SUITES[suite], "dhe": "only"}


@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
@pytest.mark.parametrize(("suite", "hash_name"), PSK_SUITES)
def test_wolfssl_as_client_with_a_pre_shared_key(wolfssl: Wolfssl, suite: str, hash_name: str) -> None:
    key = ExternalPsk("device", SECRET, hash_name=hash_name)
    server = DatagramServer(psks.server(key, suites=[suite]))
    with wolfssl.client(server.port, None, psk=psk_of(suite)) as peer:
        connection = server.accept()
        session = connection.session
        assert (session.suite.name, session.psk_identity, session.peer) == (suite, b"device", None)
        assert peer.wait_for("connected", server)["certificate"] is None
        exchange(server, connection, peer)


@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
@pytest.mark.parametrize(("suite", "hash_name"), PSK_SUITES)
def test_wolfssl_as_server_with_a_pre_shared_key(wolfssl: Wolfssl, suite: str, hash_name: str) -> None:
    key = ExternalPsk("device", SECRET, hash_name=hash_name)
    with wolfssl.server(certificates.server(), psk=psk_of(suite)) as (peer, port):
        client = DatagramClient(psks.client(key, suites=[suite], groups=["X25519"]), port)
        client.handshake()
        session = client.connection.session
        assert (session.suite.name, session.psk_identity, session.peer) == (suite, b"device", None)
        assert peer.wait_for("connected", client)["psk_identity"] == "device"
        exchange(client, client.connection, peer)
        client.close()


@pytest.mark.requirement("8446-PSK-2")
def test_wolfssl_as_client_with_a_wrong_key(wolfssl: Wolfssl) -> None:
    server = DatagramServer(psks.server(ExternalPsk("device", bytes(32))))
    with wolfssl.client(server.port, None, psk=psk_of("TLS_AES_128_GCM_SHA256")):
        with pytest.raises(HandshakeError) as failure:
            server.accept()
        assert failure.value.alert is Alert.DECRYPT_ERROR


@pytest.mark.requirement("8446-PSK-2")
def test_wolfssl_as_server_that_does_not_know_our_key_shows_its_certificate(wolfssl: Wolfssl) -> None:
    stranger = ExternalPsk("stranger", SECRET)
    with wolfssl.server(certificates.server(), psk=psk_of("TLS_AES_128_GCM_SHA256")) as (peer, port):
        client = DatagramClient(psks.client(stranger, trusting=True, groups=["X25519"]), port)
        client.handshake()
        assert client.connection.session.psk_identity is None
        assert client.connection.session.peer is not None
        exchange(client, client.connection, peer)
        client.close()


@pytest.mark.parametrize("suite", SUITES)
def test_wolfssl_as_client_resumes(wolfssl: Wolfssl, suite: str) -> None:
    context = with_suites(configs.server_context(), suite)
    context.num_tickets = 1
    server = DatagramServer(context.config())
    with wolfssl.client(server.port, certificates.server(), suites=[SUITES[suite]]) as peer:
        exchange(server, server.accept(), peer)
        peer.tell("close")
        peer.tell("again", resume=True)
        peer.wait_for("again", server)
        connection = server.accept()
        assert connection.session.resumed
        assert peer.wait_for("connected", server, 1)["resumed"]
        exchange(server, connection, peer)


@pytest.mark.parametrize("suite", SUITES)
def test_wolfssl_as_server_resumes(wolfssl: Wolfssl, suite: str) -> None:
    context = with_suites(configs.client_context(groups=["X25519"]), suite)
    context.num_tickets = 1
    with wolfssl.server(certificates.server(), tickets=1) as (peer, port):
        first = DatagramClient(context.config(), port)
        first.handshake()
        exchange(first, first.connection, peer)
        first.run_until(
            lambda: any(isinstance(event, dtls.TicketReceived) for event in first.events), "a ticket"
        )
        [ticket] = [event.ticket for event in first.events if isinstance(event, dtls.TicketReceived)]
        first.close()
        peer.tell("again")
        peer.wait_for("again")
        second = DatagramClient(context.config(), port, ticket=ticket)
        second.handshake()
        assert second.connection.session.resumed
        assert peer.wait_for("connected", second, 1)["resumed"]
        exchange(second, second.connection, peer)
        second.close()


# --- connection ids ---------------------------------------------------------------------------

#: Bytes of ours, bytes of theirs; it takes no more than 10 for itself.
IDS = ((8, 8), (4, 10), (20, 1), (0, 8), (8, 0))


@pytest.mark.requirement("9146-3", "9147-9-1")
@pytest.mark.parametrize(("ours", "theirs"), IDS)
def test_connection_ids_with_wolfssl_as_client(wolfssl: Wolfssl, ours: int, theirs: int) -> None:
    server = DatagramServer(configs.server_context().config(), cid_bytes=ours)
    cid = bytes(range(100, 100 + theirs))
    with wolfssl.client(server.port, certificates.server(), cid=cid.hex()) as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        ids = connection.connection_ids
        assert (ids.theirs, said["cid_receive"] or "") == (cid, cid.hex())
        assert len(ids.ours) == ours
        assert (said["cid_send"] or "") == ids.ours.hex()
        exchange(server, connection, peer)


@pytest.mark.requirement("9146-3", "9147-9-1")
@pytest.mark.parametrize(("ours", "theirs"), IDS)
def test_connection_ids_with_wolfssl_as_server(wolfssl: Wolfssl, ours: int, theirs: int) -> None:
    own, cid = bytes(range(1, 1 + ours)), bytes(range(100, 100 + theirs))
    with wolfssl.server(certificates.server(), cid=cid.hex()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port, connection_id=own)
        client.handshake()
        said = peer.wait_for("connected", client)
        ids = client.connection.connection_ids
        assert (ids.theirs, said["cid_receive"] or "") == (cid, cid.hex())
        assert (ids.ours, said["cid_send"] or "") == (own, own.hex())
        exchange(client, client.connection, peer)
        client.close()


# --- keys over time, data, loss, ends ---------------------------------------------------------


@pytest.mark.requirement("9147-8-1")
def test_each_side_updates_its_keys_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        update_all(server, connection, peer)


@pytest.mark.requirement("9147-8-1")
def test_each_side_updates_its_keys_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        client.handshake()
        peer.wait_for("connected", client)
        update_all(client, client.connection, peer)
        client.close()


def update_all(loop: DatagramClient | DatagramServer, connection: dtls.Connection, peer: WolfsslPeer) -> None:
    """Ours alone, ours with a request, theirs (which asks for ours), both at once; data after each."""
    epochs = (3, 3)
    for ours, request, theirs in (
        (True, False, False),
        (True, True, False),
        (False, False, True),
        (True, True, True),
    ):
        if theirs:
            peer.tell("update")
        if ours:
            connection.update_keys(time.monotonic(), request_peer=request)
        wanted = (epochs[0] + (ours or theirs), epochs[1] + (theirs or request))
        loop.run_until(functools.partial(_reached, connection, wanted), f"epochs {wanted}")
        exchange(loop, connection, peer)
        epochs = (connection.key_usage.sending_epoch, connection.key_usage.receiving_epoch)


def _reached(connection: dtls.Connection, wanted: tuple[int, int]) -> bool:
    usage = connection.key_usage
    return usage.sending_epoch >= wanted[0] and usage.receiving_epoch >= wanted[1]


def exchange_much(
    loop: DatagramClient | DatagramServer, connection: dtls.Connection, peer: WolfsslPeer
) -> None:
    """Half a megabyte each way, compared by hash."""
    theirs, ours = random.Random(1).randbytes(500_000), random.Random(2).randbytes(500_000)
    before = len(loop.received)
    for start in range(0, len(theirs), 10_000):
        for at in range(start, start + 10_000, 1_000):
            peer.send(theirs[at : at + 1_000])
        loop.run_until(functools.partial(_has, loop, before, start + 10_000), "their data")
    assert b"".join(loop.received[before:]) == theirs
    for start in range(0, len(ours), 10_000):
        connection.send_many([ours[at : at + 1_000] for at in range(start, start + 10_000, 1_000)])
        loop.run_until(functools.partial(peer.has_received, ours[: start + 10_000]), "our data")


def _has(loop: DatagramClient | DatagramServer, before: int, n: int) -> bool:
    return sum(map(len, loop.received[before:])) >= n


def test_half_a_megabyte_each_way_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        connection = server.accept()
        exchange_much(server, connection, peer)


def test_half_a_megabyte_each_way_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        client.handshake()
        exchange_much(client, client.connection, peer)
        client.close()


@pytest.mark.parametrize("mtu", [400, 1200])
def test_a_long_chain_with_wolfssl_as_client(wolfssl: Wolfssl, mtu: int) -> None:
    """It takes no message much longer than 16 KB, and its own hello has to fit one record."""
    identity = certificates.large_server(15_000)
    server = DatagramServer(configs.server_context(identity).config(), mtu=mtu)
    with wolfssl.client(server.port, identity) as peer:
        exchange(server, server.accept(), peer)


@pytest.mark.parametrize("mtu", [400, 1200])
def test_a_chain_of_20_kilobytes_with_wolfssl_as_server(wolfssl: Wolfssl, mtu: int) -> None:
    identity = certificates.large_server(20_000)
    with wolfssl.server(identity, mtu=mtu) as (peer, port):
        client = DatagramClient(
            configs.client_context(identity.cafile, groups=["X25519"]).config(), port, mtu=mtu
        )
        client.handshake()
        exchange(client, client.connection, peer)
        client.close()


class LossySocket:
    """A socket that loses a part of what passes it, each way."""

    def __init__(self, sock: socket.socket, seed: int, loss: float) -> None:
        self._sock, self._random, self.loss = sock, random.Random(seed), loss
        self.lost = 0

    def _loses(self) -> bool:
        lost = self._random.random() < self.loss
        self.lost += lost
        return lost

    def send(self, data: bytes) -> int:
        return len(data) if self._loses() else self._sock.send(data)

    def sendto(self, data: bytes, address: Any) -> int:
        return len(data) if self._loses() else self._sock.sendto(data, address)

    def recvfrom(self, n: int) -> tuple[bytes, Any]:
        while True:
            datagram = self._sock.recvfrom(n)
            if not self._loses():
                return datagram

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_lossy_path_with_wolfssl_as_client(wolfssl: Wolfssl, seed: int) -> None:
    server = DatagramServer(configs.server_context().config())
    lossy = LossySocket(server.sock, seed, 0.2)
    server.sock = cast(socket.socket, lossy)
    with wolfssl.client(server.port, certificates.server()) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        lossy.loss = 0.0
        exchange(server, connection, peer)
        assert lossy.lost


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_lossy_path_with_wolfssl_as_server(wolfssl: Wolfssl, seed: int) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        lossy = LossySocket(client.sock, seed, 0.2)
        client.sock = cast(socket.socket, lossy)
        client.handshake()
        peer.wait_for("connected", client)
        lossy.loss = 0.0
        exchange(client, client.connection, peer)
        assert lossy.lost


def test_wolfssl_as_client_ends_and_ends_with_us(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        connection = server.accept()
        exchange(server, connection, peer)
        peer.tell("close")
        server.run_until(
            lambda: any(isinstance(event, (dtls.PeerClosed, dtls.Closed)) for _, event in server.events),
            "its end",
        )
        connection.close(time.monotonic())
        peer.wait_for("peer closed", server)
        assert connection.error is None


def test_wolfssl_as_server_ends_when_we_do(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        client.handshake()
        exchange(client, client.connection, peer)
        client.connection.close(time.monotonic())
        peer.wait_for("peer closed", client)
        assert client.connection.error is None
