"""DTLS 1.3 with NSS as a library: what its own program, tstclnt, has no words for (see test_nss.py)."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.x509 import load_der_x509_certificate

from sealwire import dtls
from sealwire.context import PROTOCOL_SERVER, Context
from sealwire.crypto.certificates import PeerCertificate
from sealwire.crypto.groups import Group
from sealwire.crypto.ocsp import StapleMode
from sealwire.crypto.psk import ExternalPsk
from sealwire.crypto.signatures import SignatureScheme
from sealwire.errors import Alert, CertificateError, HandshakeError, PeerAlert
from tests import certificates, configs, psks
from tests.certificates import Identity, Kind
from tests.interop import features
from tests.interop.driven import EXPORTER, DrivenPeer, complete_over_loss, exchange, exchange_much, update_all
from tests.interop.programs import Nss, running
from tests.interop.sockets import DatagramClient, DatagramServer
from tests.psks import SECRET
from tests.staples import staple

DRIVER = Path(__file__).with_name("nss_driver.py")
shows = functools.partial(features.shows, peer="NSS")


@contextmanager
def driven(nss: Nss, role: str, database: str, **options: object) -> Iterator[DrivenPeer]:
    """The driver's process."""
    python = getattr(sys, "_base_executable", None) or sys.executable
    arguments: list[str | Path] = [
        python, "-I", DRIVER, nss.root / "lib",
        json.dumps({"role": role, "database": database, "server_name": "localhost", **options}),
    ]  # fmt: skip
    directory = nss.directory / role
    directory.mkdir(exist_ok=True)
    with running(arguments, directory, nss.environment) as program:
        yield DrivenPeer(program)


@contextmanager
def served(nss: Nss, database: str, **options: object) -> Iterator[tuple[DrivenPeer, int]]:
    """NSS as server, and its port."""
    with driven(nss, "server", database, **options) as peer:
        yield peer, peer.wait_for("port")["port"]


@shows("exporter", "ALPN", "server name", "{kind.name} certificate", "mutual authentication", they="client")
@pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.RSA_2048])
def test_nss_as_client(nss: Nss, kind: Kind) -> None:
    own = certificates.client(kind)
    context = configs.server_context(client_roots=own.cafile, alpn=["b", "c"])
    server = DatagramServer(context.config())
    database = nss.database(trust=certificates.server(), own=own)
    options = {"port": server.port, "alpn": ["a", "c"], "client_certificate": True}
    with driven(nss, "client", database, **options) as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        session = connection.session
        assert (session.alpn, said["alpn"], session.server_name) == (b"c", "c", "localhost")
        assert isinstance(session.peer, PeerCertificate)
        assert session.peer.chain[0] == own.chain[0]
        assert said["exporter"] == connection.export(EXPORTER, b"context", 32).hex()
        assert said["certificate"] == hashlib.sha256(certificates.server().chain[0]).hexdigest()
        exchange(server, connection, peer)


@shows("exporter", "ALPN", "{kind.name} certificate", "mutual authentication", they="server")
@pytest.mark.requirement("8446-AUTH-2")
@pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.ECDSA_P384, Kind.RSA_2048])
def test_nss_as_server_wants_a_certificate(nss: Nss, kind: Kind) -> None:
    identity, own = certificates.server(kind), certificates.client(kind)
    context = configs.client_context(identity.cafile, identity=own, alpn=["a", "c"])
    database = nss.database(trust=own, own=identity)
    with served(nss, database, want_certificate=True, alpn=["b", "c"]) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        said = peer.wait_for("connected", client)
        assert (client.connection.session.alpn, said["alpn"]) == (b"c", "c")
        assert said["certificate"] == hashlib.sha256(own.chain[0]).hexdigest()
        assert said["exporter"] == client.connection.export(EXPORTER, b"context", 32).hex()
        exchange(client, client.connection, peer)
        client.close()


@shows("missing client certificate refused", they="server")
@pytest.mark.requirement("8446-AUTH-3")
def test_nss_as_server_misses_our_certificate(nss: Nss) -> None:
    """Our handshake is complete before NSS can say so."""
    with served(nss, nss.database(own=certificates.server()), want_certificate=True) as (peer, port):
        client = DatagramClient(configs.client_context().config(), port)
        client.handshake()
        client.run_until(lambda: client.connection.error is not None, "its alert")
        assert isinstance(client.connection.error, PeerAlert)
        assert client.connection.error.alert is Alert.CERTIFICATE_REQUIRED
        assert peer.wait_for("failed")["alert_sent"] == Alert.CERTIFICATE_REQUIRED


@shows("cookie", "no cookie", they="server")
@pytest.mark.requirement("9147-5.1-4")
def test_nss_as_server_and_its_cookie(nss: Nss) -> None:
    for cookie in (False, True):
        with served(nss, nss.database(own=certificates.server()), cookie=cookie) as (peer, port):
            client = DatagramClient(configs.client_context().config(), port)
            client.handshake()
            assert client.connection.session.retried == cookie
            assert not cookie or peer.wait_for("cookie", client)["right"]
            exchange(client, client.connection, peer)
            client.close()


@shows("X25519MLKEM768", "first hello in two datagrams", they="client")
def test_nss_as_client_with_a_hello_in_two_datagrams(nss: Nss) -> None:
    server = DatagramServer(configs.server_context().config())
    options = {"port": server.port, "groups": [Group.X25519MLKEM768, Group.X25519]}
    with driven(nss, "client", nss.database(trust=certificates.server()), **options) as peer:
        connection = server.accept()
        assert server.endpoint.counters.snapshot()["discard.incomplete_hello"]
        exchange(server, connection, peer)


@shows("P-521", they="client")
def test_nss_as_client_with_p_521(nss: Nss) -> None:
    server = DatagramServer(configs.server_context(groups=["P-521"]).config())
    options = {"port": server.port, "groups": [Group.SECP521R1]}
    with driven(nss, "client", nss.database(trust=certificates.server()), **options) as peer:
        connection = server.accept()
        assert peer.wait_for("connected", server)["group"] == Group.SECP521R1
        exchange(server, connection, peer)


@shows("P-521", they="server")
def test_nss_as_server_with_p_521(nss: Nss) -> None:
    with served(nss, nss.database(own=certificates.server()), groups=[Group.SECP521R1]) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["P-521"]).config(), port)
        client.handshake()
        assert peer.wait_for("connected", client)["group"] == Group.SECP521R1
        exchange(client, client.connection, peer)
        client.close()


@shows("RSA_PSS certificate", they="client")
def test_nss_as_client_verifies_an_rsa_pss_certificate(nss: Nss) -> None:
    """It offers these schemes only when told to."""
    identity = certificates.server(Kind.RSA_PSS)
    server = DatagramServer(configs.server_context(identity).config())
    options = {
        "port": server.port,
        "schemes": [SignatureScheme.RSA_PSS_PSS_SHA256, SignatureScheme.ECDSA_SECP256R1_SHA256],
    }
    with driven(nss, "client", nss.database(trust=identity), **options) as peer:
        exchange(server, server.accept(), peer)


@shows("RSA_PSS certificate", they="server")
def test_nss_as_server_with_an_rsa_pss_certificate(nss: Nss) -> None:
    identity = certificates.server(Kind.RSA_PSS)
    schemes = [SignatureScheme.RSA_PSS_PSS_SHA256, SignatureScheme.ECDSA_SECP256R1_SHA256]
    with served(nss, nss.database(own=identity), schemes=schemes) as (peer, port):
        client = DatagramClient(configs.client_context(identity.cafile).config(), port)
        client.handshake()
        exchange(client, client.connection, peer)
        client.close()


@shows("no cookie", they="client")
def test_nss_as_client_without_a_cookie(nss: Nss) -> None:
    """Its hello is long enough for three times its bytes to hold our flight."""
    server = DatagramServer(configs.server_context().config(), require_cookie=False)
    options = {"port": server.port, "groups": [Group.X25519MLKEM768, Group.X25519]}
    with driven(nss, "client", nss.database(trust=certificates.server()), **options) as peer:
        connection = server.accept()
        assert not connection.session.retried
        exchange(server, connection, peer)


@shows("long chain", they="server")
def test_nss_as_server_with_a_chain_of_20_kilobytes(nss: Nss) -> None:
    identity = certificates.large_server(20_000)
    with served(nss, nss.database(own=identity)) as (peer, port):
        client = DatagramClient(configs.client_context(identity.cafile).config(), port)
        client.handshake()
        assert client.connection.counters.bytes_received > 20_000
        exchange(client, client.connection, peer)
        client.close()


# --- what comes with certificates -------------------------------------------------------------


def stapled() -> tuple[Identity, bytes]:
    """A server's identity, and a good OCSP response for it."""
    identity = certificates.server()
    return identity, staple(load_der_x509_certificate(identity.chain[0]), *certificates.root_of(identity))


@shows("stapled OCSP response", they="client")
def test_nss_as_client_gets_a_staple(nss: Nss) -> None:
    identity, response = stapled()
    context = Context(PROTOCOL_SERVER)
    context.load_cert_chain(identity.certfile, identity.keyfile, ocsp_response=response)
    server = DatagramServer(context.config())
    with driven(nss, "client", nss.database(trust=identity), port=server.port, staple=1) as peer:
        server.accept()
        assert peer.wait_for("connected", server)["staple"] == hashlib.sha256(response).hexdigest()


@shows("stapled OCSP response", they="server")
def test_nss_as_server_gives_a_staple(nss: Nss) -> None:
    identity, response = stapled()
    context = configs.client_context(identity.cafile)
    context.staple_mode = StapleMode.REQUIRED
    with served(nss, nss.database(own=identity), staple=response.hex()) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        exchange(client, client.connection, peer)
        client.close()
    # Without one our client ends the connection: that it demanded one is no empty word.
    with served(nss, nss.database(own=identity)) as (_, port), pytest.raises(CertificateError):
        DatagramClient(context.config(), port).handshake()


# --- keys that are not in certificates --------------------------------------------------------


@shows("external PSK with key exchange", they="client")
@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
def test_nss_as_client_with_a_key_for_sha_384(nss: Nss) -> None:
    key = ExternalPsk("device", SECRET, hash_name="sha384")
    server = DatagramServer(psks.server(key))
    psk = {"identity": "device", "secret": SECRET.hex(), "hash": "sha384"}
    with driven(nss, "client", nss.database(), port=server.port, psk=psk) as peer:
        connection = server.accept()
        assert connection.session.psk_identity == b"device"
        assert connection.session.suite.name == "TLS_AES_256_GCM_SHA384"
        exchange(server, connection, peer)


@shows("external PSK with key exchange", they="server")
@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
def test_nss_as_server_with_a_key_for_sha_384(nss: Nss) -> None:
    key = ExternalPsk("device", SECRET, hash_name="sha384")
    psk = {"identity": "device", "secret": SECRET.hex(), "hash": "sha384"}
    with served(nss, nss.database(own=certificates.server()), psk=psk) as (peer, port):
        client = DatagramClient(psks.client(key), port)
        client.handshake()
        assert client.connection.session.psk_identity == b"device"
        exchange(client, client.connection, peer)
        client.close()


@shows("wrong PSK refused", they="server")
@pytest.mark.requirement("8446-PSK-2")
def test_nss_as_server_with_another_key(nss: Nss) -> None:
    psk = {"identity": "device", "secret": bytes(32).hex()}
    with served(nss, nss.database(own=certificates.server()), psk=psk) as (_, port):
        with pytest.raises((PeerAlert, HandshakeError)) as failure:
            DatagramClient(psks.client(ExternalPsk("device", SECRET)), port).handshake()
        assert isinstance(failure.value, PeerAlert)


@shows("unknown PSK, certificate instead", they="client")
@pytest.mark.requirement("8446-PSK-2")
def test_nss_as_client_whose_key_we_do_not_know_gets_our_certificate(nss: Nss) -> None:
    server = DatagramServer(psks.server(ExternalPsk("stranger", SECRET), certified=True))
    psk = {"identity": "device", "secret": SECRET.hex()}
    database = nss.database(trust=certificates.server())
    with driven(nss, "client", database, port=server.port, psk=psk) as peer:
        connection = server.accept()
        assert connection.session.psk_identity is None
        assert peer.wait_for("connected", server)["certificate"] is not None
        exchange(server, connection, peer)


@shows("resumption by ticket", they="client")
@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_nss_as_client_resumes(nss: Nss, suite: str) -> None:
    context = configs.server_context(suites=[suite])
    context.num_tickets = 1
    server = DatagramServer(context.config())
    database = nss.database(trust=certificates.server())
    with driven(nss, "client", database, port=server.port, tickets=1) as peer:
        exchange(server, server.accept(), peer)
        peer.tell("again", resume=True)
        peer.wait_for("again", server)
        connection = server.accept()
        assert connection.session.resumed
        assert peer.wait_for("connected", server, 1)["resumed"]
        exchange(server, connection, peer)


@shows("resumption by ticket", they="server")
@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_nss_as_server_resumes(nss: Nss, suite: str) -> None:
    context = configs.client_context(suites=[suite])
    context.num_tickets = 1
    with served(nss, nss.database(own=certificates.server()), tickets=1) as (peer, port):
        ticket = ticket_from(port, context, peer)
        peer.tell("again")
        peer.wait_for("again")
        second = DatagramClient(context.config(), port, ticket=ticket)
        second.handshake()
        assert second.connection.session.resumed
        assert peer.wait_for("connected", second, 1)["resumed"]
        exchange(second, second.connection, peer)
        second.close()


def ticket_from(port: int, context: Context, peer: DrivenPeer) -> dtls.SessionTicket:
    """The ticket of a first connection."""
    client = DatagramClient(context.config(), port)
    client.handshake()
    exchange(client, client.connection, peer)
    client.run_until(lambda: bool(tickets_of(client)), "a ticket")
    [ticket] = tickets_of(client)
    client.close()
    peer.wait_for("peer closed")
    return ticket


def tickets_of(client: DatagramClient) -> list[dtls.SessionTicket]:
    return [event.ticket for event in client.events if isinstance(event, dtls.TicketReceived)]


# --- connected --------------------------------------------------------------------------------


@shows("KeyUpdate by us", "KeyUpdate by them", "close_notify", they="client")
@pytest.mark.requirement("9147-8-1", "9147-8-2", "9147-8-4")
def test_each_side_updates_its_keys_with_nss_as_client(nss: Nss) -> None:
    server = DatagramServer(configs.server_context().config())
    with driven(nss, "client", nss.database(trust=certificates.server()), port=server.port) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        update_all(server, connection, peer)
        connection.close(time.monotonic())
        peer.wait_for("peer closed", server)


@shows("KeyUpdate by us", "KeyUpdate by them", "close_notify", they="server")
@pytest.mark.requirement("9147-8-1", "9147-8-2", "9147-8-4")
def test_each_side_updates_its_keys_with_nss_as_server(nss: Nss) -> None:
    with served(nss, nss.database(own=certificates.server())) as (peer, port):
        client = DatagramClient(configs.client_context().config(), port)
        client.handshake()
        peer.wait_for("connected", client)
        update_all(client, client.connection, peer)
        peer.tell("close")
        client.run_until(
            lambda: any(isinstance(event, (dtls.PeerClosed, dtls.Closed)) for event in client.events),
            "its close_notify",
        )
        assert client.connection.error is None


@shows("record_size_limit", they="client")
@pytest.mark.requirement("8449-1")
def test_shorter_records_with_nss_as_client(nss: Nss) -> None:
    """Ours are cut to what it asks for, its to what we ask for: it has no words for longer data."""
    context = configs.server_context()
    context.record_size_limit = 400
    server = DatagramServer(context.config())
    options = {"port": server.port, "record_size_limit": 300}
    with driven(nss, "client", nss.database(trust=certificates.server()), **options) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        check_limits(server, connection, peer)


@shows("record_size_limit", they="server")
@pytest.mark.requirement("8449-1")
def test_shorter_records_with_nss_as_server(nss: Nss) -> None:
    context = configs.client_context()
    context.record_size_limit = 400
    with served(nss, nss.database(own=certificates.server()), record_size_limit=300) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        peer.wait_for("connected", client)
        check_limits(client, client.connection, peer)
        client.close()


def check_limits(
    loop: DatagramClient | DatagramServer, connection: dtls.Connection, peer: DrivenPeer
) -> None:
    # One byte of each is the content type.
    assert connection.max_message_bytes == 299
    connection.send(bytes(299))
    peer.wait_for("data", loop)
    assert peer.has_received(bytes(299))
    peer.send(bytes(399))
    loop.run_until(lambda: loop.received == [bytes(399)], "its longest message")


SRTP_PROFILE = 0x0001


@shows("use_srtp", they="client")
def test_a_profile_for_srtp_with_nss_as_client(nss: Nss) -> None:
    """The keys come from the exporter, which other tests compare."""
    context = configs.server_context()
    context.use_srtp("SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80")
    server = DatagramServer(context.config())
    options = {"port": server.port, "srtp": [SRTP_PROFILE]}
    with driven(nss, "client", nss.database(trust=certificates.server()), **options) as peer:
        connection = server.accept()
        assert peer.wait_for("connected", server)["srtp"] == SRTP_PROFILE
        assert connection.srtp_keys().profile.name == "SRTP_AES128_CM_SHA1_80"


@shows("use_srtp", they="server")
def test_a_profile_for_srtp_with_nss_as_server(nss: Nss) -> None:
    context = configs.client_context()
    context.use_srtp("SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80")
    with served(nss, nss.database(own=certificates.server()), srtp=[SRTP_PROFILE]) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert peer.wait_for("connected", client)["srtp"] == SRTP_PROFILE
        assert client.connection.srtp_keys().profile.name == "SRTP_AES128_CM_SHA1_80"
        client.close()


@shows("short record headers from them", "data both ways, equal hashes", they="client")
@pytest.mark.requirement("9147-4-4", "9147-4-6")
def test_short_headers_of_nss_as_client(nss: Nss) -> None:
    """Eight bits of sequence number and no length: half a megabyte of them."""
    server = DatagramServer(configs.server_context().config())
    database = nss.database(trust=certificates.server())
    with driven(nss, "client", database, port=server.port, short_headers=1) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        exchange_much(server, connection, peer)


@shows("short record headers from them", "data both ways, equal hashes", they="server")
@pytest.mark.requirement("9147-4-4", "9147-4-6")
def test_short_headers_of_nss_as_server(nss: Nss) -> None:
    with served(nss, nss.database(own=certificates.server()), short_headers=1) as (peer, port):
        client = DatagramClient(configs.client_context().config(), port)
        client.handshake()
        exchange_much(client, client.connection, peer)
        client.close()


@shows("20 % loss", they="client")
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_lossy_path_with_nss_as_client(nss: Nss, seed: int) -> None:
    server = DatagramServer(configs.server_context().config())
    with driven(nss, "client", nss.database(trust=certificates.server()), port=server.port) as peer:
        complete_over_loss(server, seed, peer)


@shows("20 % loss", they="server")
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_lossy_path_with_nss_as_server(nss: Nss, seed: int) -> None:
    with served(nss, nss.database(own=certificates.server())) as (peer, port):
        client = DatagramClient(configs.client_context().config(), port)
        complete_over_loss(client, seed, peer)


@shows("MTU of 400 bytes", they="client")
def test_a_small_mtu_with_nss_as_client(nss: Nss) -> None:
    server = DatagramServer(configs.server_context().config(), mtu=400)
    with driven(nss, "client", nss.database(trust=certificates.server()), port=server.port) as peer:
        exchange(server, server.accept(), peer)


@shows("MTU of 400 bytes", "first hello in two datagrams", they="server")
def test_a_small_mtu_with_nss_as_server(nss: Nss) -> None:
    with served(nss, nss.database(own=certificates.server())) as (peer, port):
        client = DatagramClient(configs.client_context().config(), port, mtu=400)
        client.handshake()
        exchange(client, client.connection, peer)
        client.close()


@shows("certificate compression", they="client")
@pytest.mark.requirement("8879-1")
def test_nss_as_client_takes_a_compressed_certificate(nss: Nss) -> None:
    """And shows one: both sides of one DTLS handshake."""
    identity, own = certificates.server(intermediates=2), certificates.client(intermediates=2)
    context = configs.server_context(identity, client_roots=own.cafile)
    context.set_certificate_compression("zlib")
    server = DatagramServer(context.config())
    database = nss.database(trust=identity, own=own)
    options = {"port": server.port, "client_certificate": True, "compress": True}
    with driven(nss, "client", database, **options) as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        assert (said["packed"], said["unpacked"]) == (1, 1)
        assert connection.session.peer_certificate is not None
        assert connection.session.peer_certificate.chain[0] == own.chain[0]
        exchange(server, connection, peer)


@shows("certificate compression", they="server")
@pytest.mark.requirement("8879-1")
def test_nss_as_server_shows_a_compressed_certificate(nss: Nss) -> None:
    identity, own = certificates.server(intermediates=2), certificates.client()
    context = configs.client_context(identity.cafile, identity=own)
    context.set_certificate_compression("zlib")
    database = nss.database(trust=own, own=identity)
    with served(nss, database, want_certificate=True, compress=True) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        said = peer.wait_for("connected", client)
        assert (said["packed"], said["unpacked"]) == (1, 1)
        assert client.connection.session.peer_certificate is not None
        assert client.connection.session.peer_certificate.chain[0] == identity.chain[0]
        exchange(client, client.connection, peer)
        client.close()
