"""DTLS 1.3 with wolfSSL, which has most of what we have: as client and as server of ours."""

from __future__ import annotations

import functools
import hashlib
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_der_x509_certificate

from sealwire import dtls
from sealwire.context import PROTOCOL_CLIENT, PROTOCOL_SERVER, Context
from sealwire.crypto.certificates import PeerCertificate
from sealwire.crypto.groups import Group
from sealwire.crypto.ocsp import StapleMode
from sealwire.crypto.psk import ExternalPsk
from sealwire.crypto.rawkeys import RawPublicKey
from sealwire.crypto.srtp import SrtpKeys
from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError, PeerAlert
from tests import certificates, configs, psks
from tests.certificates import Identity, Kind
from tests.interop import features
from tests.interop.driven import EXPORTER, complete_over_loss, exchange, exchange_much, update_all
from tests.interop.sockets import DatagramClient, DatagramServer
from tests.interop.wolfssl import SUITES, Wolfssl
from tests.psks import SECRET
from tests.staples import GOOD, REVOKED, staple

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


shows = functools.partial(features.shows, peer="wolfSSL")


def with_suites(context: Context, *suites: str) -> Context:
    context.set_ciphersuites(list(suites), allow_short_tags=True)
    return context


@shows("{suite}", they="client")
@pytest.mark.parametrize("suite", SUITES)
def test_wolfssl_as_client_with_each_suite(wolfssl: Wolfssl, suite: str) -> None:
    server = DatagramServer(with_suites(configs.server_context(), suite).config())
    with wolfssl.client(server.port, certificates.server(), suites=[SUITES[suite]]) as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        assert connection.session.suite.name == suite
        assert said["suite"] == SUITES[suite]
        exchange(server, connection, peer)


@shows("{suite}", they="server")
@pytest.mark.parametrize("suite", SUITES)
def test_wolfssl_as_server_with_each_suite(wolfssl: Wolfssl, suite: str) -> None:
    with wolfssl.server(certificates.server(), suites=[SUITES[suite]]) as (peer, port):
        client = DatagramClient(with_suites(configs.client_context(), suite).config(), port)
        client.handshake()
        assert client.connection.session.suite.name == suite
        assert peer.wait_for("connected", client)["suite"] == SUITES[suite]
        exchange(client, client.connection, peer)
        client.close()


@shows("{group}", "cookie", they="client")
@pytest.mark.parametrize("group", GROUPS)
def test_wolfssl_as_client_with_each_group(wolfssl: Wolfssl, group: str) -> None:
    server = DatagramServer(configs.server_context(groups=[group]).config())
    with wolfssl.client(server.port, certificates.server(), groups=[CODES[group]]) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        assert connection.session.group == CODES[group]
        exchange(server, connection, peer)


@shows("{group}", they="server")
@pytest.mark.parametrize("group", GROUPS)
def test_wolfssl_as_server_with_each_group(wolfssl: Wolfssl, group: str) -> None:
    """It reads no first hello that is split; the second transmission is whole, if that fits a frame."""
    context = configs.client_context(groups=[group])
    if "MLKEM1024" in group:
        context.set_key_shares([])
    with wolfssl.server(certificates.server(), groups=[CODES[group]]) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert client.connection.session.group == CODES[group]
        peer.wait_for("connected", client)
        exchange(client, client.connection, peer)
        client.close()


# --- hellos, cookies, retries -----------------------------------------------------------------


@shows("retry for another group", they="client")
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


@shows("no cookie", they="client")
def test_wolfssl_as_client_without_a_cookie(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config(), require_cookie=False)
    with wolfssl.client(server.port, certificates.server(), groups=[CODES["P-256"]]) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        assert not connection.session.retried
        exchange(server, connection, peer)


@shows("retry for another group", they="server")
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


@shows("{cookie}", they="server")
@pytest.mark.parametrize("cookie", ["cookie", "no cookie"])
def test_wolfssl_as_server_and_its_cookie(wolfssl: Wolfssl, cookie: str) -> None:
    context = configs.client_context(groups=["X25519"])
    with wolfssl.server(certificates.server(), cookie=cookie == "cookie") as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert client.connection.session.retried == (cookie == "cookie")
        exchange(client, client.connection, peer)
        client.close()


@shows("ALPN", "server name", they="client")
def test_alpn_and_names_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context(alpn=["b", "c"]).config())
    with wolfssl.client(server.port, certificates.server(), alpn=["a", "c"]) as peer:
        session = server.accept().session
        assert (session.alpn, session.server_name) == (b"c", "localhost")
        assert peer.wait_for("connected", server)["alpn"] == "c"


@shows("ALPN", "server name", they="server")
def test_alpn_and_names_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server(), alpn=["b", "c"]) as (peer, port):
        client = DatagramClient(configs.client_context(alpn=["a", "c"], groups=["X25519"]).config(), port)
        client.handshake()
        assert client.connection.session.alpn == b"c"
        said = peer.wait_for("connected", client)
        assert (said["alpn"], said["server_name"]) == ("c", "localhost")


# --- who the peer is --------------------------------------------------------------------------


@shows("{kind.name} certificate", "mutual authentication", "exporter", they="client")
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
        assert isinstance(shown, PeerCertificate)
        assert shown.chain[0] == own.chain[0]
        assert said["exporter"] == connection.export(EXPORTER, b"context", 32).hex()
        exchange(server, connection, peer)


@shows("{kind.name} certificate", "mutual authentication", "exporter", they="server")
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
        assert isinstance(shown, PeerCertificate)
        assert shown.chain[0] == identity.chain[0]
        assert said["exporter"] == client.connection.export(EXPORTER, b"context", 32).hex()
        exchange(client, client.connection, peer)
        client.close()


@shows("missing client certificate refused", they="client")
@pytest.mark.requirement("8446-AUTH-3")
def test_wolfssl_as_client_without_the_certificate_we_want(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context(client_roots=certificates.client().cafile).config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        with pytest.raises(HandshakeError) as failure:
            server.accept()
        assert failure.value.alert is Alert.CERTIFICATE_REQUIRED
        assert peer.wait_for("failed", server)["alert_received"] == Alert.CERTIFICATE_REQUIRED


@shows("missing client certificate refused", they="server")
@pytest.mark.requirement("8446-AUTH-3")
def test_wolfssl_as_server_misses_our_certificate(wolfssl: Wolfssl) -> None:
    """Our handshake is complete before it can say so."""
    with wolfssl.server(certificates.server(), cafile=certificates.client().cafile) as (_, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        client.handshake()
        client.run_until(lambda: client.connection.error is not None, "its alert")
        assert isinstance(client.connection.error, PeerAlert)
        assert client.connection.error.alert in (Alert.CERTIFICATE_REQUIRED, Alert.BAD_CERTIFICATE)


@shows("stapled OCSP response", they="client")
def test_wolfssl_as_client_wants_a_staple(wolfssl: Wolfssl) -> None:
    """It looks at what it gets: one that says "revoked" ends the handshake."""
    identity = certificates.server()
    leaf = load_der_x509_certificate(identity.chain[0])
    for status in (GOOD, REVOKED):
        response = staple(leaf, *certificates.root_of(identity), status=status)
        context = Context(PROTOCOL_SERVER)
        context.load_cert_chain(identity.certfile, identity.keyfile, ocsp_response=response)
        server = DatagramServer(context.config())
        with wolfssl.client(server.port, identity, staple="01") as peer:
            if status is GOOD:
                exchange(server, server.accept(), peer)
            else:
                assert "OCSP" in peer.wait_for("failed", server)["text"]


@shows("stapled OCSP response", they="server")
def test_wolfssl_as_server_staples(wolfssl: Wolfssl) -> None:
    identity = certificates.server()
    leaf = load_der_x509_certificate(identity.chain[0])
    response = staple(leaf, *certificates.root_of(identity))
    context = configs.client_context(groups=["X25519"])
    context.staple_mode = StapleMode.REQUIRED
    with wolfssl.server(identity, staple=response.hex()) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        exchange(client, client.connection, peer)
        client.close()


@shows("untrusted certificate refused", they="client")
def test_wolfssl_as_client_does_not_trust_us(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server(Kind.RSA_2048)):
        with pytest.raises(PeerAlert) as failure:
            server.accept()
        assert failure.value.alert in (Alert.UNKNOWN_CA, Alert.BAD_CERTIFICATE)


@shows("untrusted certificate refused", they="server")
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


def raw_key(identity: Identity, directory: Path) -> bytes:
    """The public half of an identity's key, DER; also in a file of that directory."""
    key = load_pem_private_key(identity.keyfile.read_bytes(), None)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (directory / "raw.der").write_bytes(spki)
    return spki


@shows("raw public keys", they="client")
def test_raw_public_keys_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    """Ours it takes from anybody (without roots it verifies nobody); its own is one we know."""
    own = certificates.client()
    context = Context(PROTOCOL_SERVER)
    context.load_raw_public_key(certificates.server().keyfile)
    context.set_raw_public_keys([raw_key(own, wolfssl.directory)])
    server = DatagramServer(context.config())
    options = {"raw_public_key": wolfssl.directory / "raw.der", "keyfile": own.keyfile}
    types = {"client_cert_types": [2], "server_cert_types": [2]}
    with wolfssl.client(server.port, None, None, **options, **types) as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        assert (said["client_cert_type"], said["server_cert_type"]) == (2, 2)
        assert isinstance(connection.session.peer, RawPublicKey)
        exchange(server, connection, peer)


@shows("raw public keys", they="server")
def test_raw_public_keys_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    identity = certificates.server()
    context = Context(PROTOCOL_CLIENT)
    context.check_hostname = False
    context.set_raw_public_keys([raw_key(identity, wolfssl.directory)])
    context.set_groups(["X25519"])
    options = {"raw_public_key": wolfssl.directory / "raw.der", "keyfile": identity.keyfile}
    with wolfssl.server(None, server_cert_types=[2], **options) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert peer.wait_for("connected", client)["server_cert_type"] == 2
        assert isinstance(client.connection.session.peer, RawPublicKey)
        exchange(client, client.connection, peer)
        client.close()


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


@shows("external PSK with key exchange", they="client")
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


@shows("external PSK with key exchange", they="server")
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


@shows("external PSK alone (psk_ke)", they="client")
@pytest.mark.requirement("8446-PSK-2")
def test_wolfssl_as_client_with_a_pre_shared_key_alone(wolfssl: Wolfssl) -> None:
    context = psks.server_context(ExternalPsk("device", SECRET))
    context.set_psk_key_exchange_modes("psk_ke", allow_without_forward_secrecy=True)
    server = DatagramServer(context.config())
    psk = psk_of("TLS_AES_128_GCM_SHA256") | {"dhe": "never"}
    with wolfssl.client(server.port, None, psk=psk) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        assert (connection.session.psk_identity, connection.session.group) == (b"device", None)
        exchange(server, connection, peer)


@shows("external PSK alone (psk_ke)", they="server")
@pytest.mark.requirement("8446-PSK-2")
def test_wolfssl_as_server_with_a_pre_shared_key_alone(wolfssl: Wolfssl) -> None:
    context = psks.client_context(ExternalPsk("device", SECRET), groups=["X25519"])
    context.set_psk_key_exchange_modes("psk_ke", allow_without_forward_secrecy=True)
    psk = psk_of("TLS_AES_128_GCM_SHA256") | {"dhe": "never"}
    with wolfssl.server(certificates.server(), psk=psk) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        session = client.connection.session
        assert (session.psk_identity, session.group) == (b"device", None)
        exchange(client, client.connection, peer)
        client.close()


@shows("wrong PSK refused", they="client")
@pytest.mark.requirement("8446-PSK-2")
def test_wolfssl_as_client_with_a_wrong_key(wolfssl: Wolfssl) -> None:
    server = DatagramServer(psks.server(ExternalPsk("device", bytes(32))))
    with wolfssl.client(server.port, None, psk=psk_of("TLS_AES_128_GCM_SHA256")):
        with pytest.raises(HandshakeError) as failure:
            server.accept()
        assert failure.value.alert is Alert.DECRYPT_ERROR


@shows("unknown PSK, certificate instead", they="server")
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


@shows("wrong PSK refused", they="server")
@pytest.mark.requirement("8446-PSK-2")
def test_wolfssl_as_server_with_another_key(wolfssl: Wolfssl) -> None:
    psk = psk_of("TLS_AES_128_GCM_SHA256") | {"secret": bytes(32).hex()}
    context = psks.client_context(ExternalPsk("device", SECRET), groups=["X25519"])
    with wolfssl.server(certificates.server(), psk=psk) as (_, port), pytest.raises(PeerAlert):
        DatagramClient(context.config(), port).handshake()


@shows("unknown PSK, certificate instead", they="client")
@pytest.mark.requirement("8446-PSK-2")
def test_wolfssl_as_client_whose_key_we_do_not_know_gets_our_certificate(wolfssl: Wolfssl) -> None:
    stranger = ExternalPsk("stranger", SECRET)
    server = DatagramServer(psks.server(stranger, certified=True))
    psk = psk_of("TLS_AES_128_GCM_SHA256")
    with wolfssl.client(server.port, certificates.server(), psk=psk) as peer:
        connection = server.accept()
        assert connection.session.psk_identity is None
        assert peer.wait_for("connected", server)["certificate"] is not None
        exchange(server, connection, peer)


@shows("resumption by ticket", they="client")
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


@shows("resumption by ticket", they="server")
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
IDS = (
    (8, 8, "connection ids both ways"),
    (4, 10, "connection ids both ways"),
    (20, 1, "connection ids both ways"),
    (0, 8, "connection id only for them"),
    (8, 0, "connection id only for us"),
)


@shows("{shown}", they="client")
@pytest.mark.requirement("9146-1", "9147-4-7")
@pytest.mark.parametrize(("ours", "theirs", "shown"), IDS)
def test_connection_ids_with_wolfssl_as_client(wolfssl: Wolfssl, ours: int, theirs: int, shown: str) -> None:
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


@shows("{shown}", they="server")
@pytest.mark.requirement("9146-1", "9147-4-7")
@pytest.mark.parametrize(("ours", "theirs", "shown"), IDS)
def test_connection_ids_with_wolfssl_as_server(wolfssl: Wolfssl, ours: int, theirs: int, shown: str) -> None:
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


@shows("we move to another port, they follow", they="server")
@pytest.mark.requirement("9146-3")
def test_wolfssl_as_server_follows_us_to_another_port(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server(), cid="0102030405") as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port, connection_id=b"us")
        client.handshake()
        peer.wait_for("connected", client)
        exchange(client, client.connection, peer)
        old = client.sock.getsockname()
        client.move()
        assert client.sock.getsockname() != old
        client.connection.send(b"from elsewhere")
        peer.wait_for("data", client, 1)
        exchange(client, client.connection, peer)
        client.close()


@shows("they move to another port, we follow if told to", they="client")
@pytest.mark.requirement("9146-3")
def test_we_follow_wolfssl_as_client_to_another_port_if_told_to(wolfssl: Wolfssl) -> None:
    """It answers no path challenge, so by default its data is taken and ours goes where it was."""
    for follow in (False, True):

        def decide(connection: dtls.Connection, address: object, follow: bool = follow) -> bool:
            return follow

        server = DatagramServer(configs.server_context().config(), cid_bytes=8, on_address_change=decide)
        with wolfssl.client(server.port, certificates.server(), cid="0102") as peer:
            connection = server.accept()
            exchange(server, connection, peer)
            assert isinstance(connection.address, tuple)
            old = connection.address
            peer.tell("rebind")
            peer.send(b"from elsewhere")
            server.run_until(functools.partial(has_heard, server), "its data")
            assert (connection.address != old) == follow
            if follow:
                exchange(server, connection, peer)
        server.close()


def has_heard(server: DatagramServer) -> bool:
    return server.received[-1] == b"from elsewhere"


# --- keys over time, data, loss, ends ---------------------------------------------------------


@shows("KeyUpdate by us", "KeyUpdate by them", they="client")
@pytest.mark.requirement("9147-8-1", "9147-8-2", "9147-8-4")
def test_each_side_updates_its_keys_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        connection = server.accept()
        peer.wait_for("connected", server)
        update_all(server, connection, peer)


@shows("KeyUpdate by us", "KeyUpdate by them", they="server")
@pytest.mark.requirement("9147-8-1", "9147-8-2", "9147-8-4")
def test_each_side_updates_its_keys_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        client.handshake()
        peer.wait_for("connected", client)
        update_all(client, client.connection, peer)
        client.close()


def flat(keys: SrtpKeys) -> str:
    """As the exporter of RFC 5764 section 4.2 lays them out."""
    return (keys.client_key + keys.server_key + keys.client_salt + keys.server_salt).hex()


@shows("use_srtp", they="client")
def test_keys_for_srtp_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    context = configs.server_context()
    context.use_srtp("SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80")
    server = DatagramServer(context.config())
    with wolfssl.client(server.port, certificates.server(), srtp="SRTP_AES128_CM_SHA1_80") as peer:
        connection = server.accept()
        said = peer.wait_for("connected", server)
        assert said["srtp"] == "SRTP_AES128_CM_SHA1_80"
        assert said["srtp_keys"] == flat(connection.srtp_keys())


@shows("use_srtp", they="server")
def test_keys_for_srtp_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    context = configs.client_context(groups=["X25519"])
    context.use_srtp("SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80")
    with wolfssl.server(certificates.server(), srtp="SRTP_AEAD_AES_128_GCM") as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        said = peer.wait_for("connected", client)
        assert said["srtp"] == "SRTP_AEAD_AES_128_GCM"
        assert said["srtp_keys"] == flat(client.connection.srtp_keys())
        client.close()


@shows("data both ways, equal hashes", they="client")
def test_half_a_megabyte_each_way_with_wolfssl_as_client(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        connection = server.accept()
        exchange_much(server, connection, peer)


@shows("data both ways, equal hashes", they="server")
def test_half_a_megabyte_each_way_with_wolfssl_as_server(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        client.handshake()
        exchange_much(client, client.connection, peer)
        client.close()


@shows("long chain", "MTU of 400 bytes", they="client")
@pytest.mark.parametrize("mtu", [400, 1200])
def test_a_long_chain_with_wolfssl_as_client(wolfssl: Wolfssl, mtu: int) -> None:
    """It takes no message much longer than 16 KB, and its own hello has to fit one record."""
    identity = certificates.large_server(15_000)
    server = DatagramServer(configs.server_context(identity).config(), mtu=mtu)
    with wolfssl.client(server.port, identity) as peer:
        exchange(server, server.accept(), peer)


@shows("long chain", "MTU of 400 bytes", they="server")
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


@shows("20 % loss", they="client")
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_lossy_path_with_wolfssl_as_client(wolfssl: Wolfssl, seed: int) -> None:
    server = DatagramServer(configs.server_context().config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        complete_over_loss(server, seed, peer)


@shows("20 % loss", they="server")
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_lossy_path_with_wolfssl_as_server(wolfssl: Wolfssl, seed: int) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        complete_over_loss(client, seed, peer)


@shows("close_notify", they="client")
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


@shows("close_notify", they="server")
def test_wolfssl_as_server_ends_when_we_do(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server()) as (peer, port):
        client = DatagramClient(configs.client_context(groups=["X25519"]).config(), port)
        client.handshake()
        exchange(client, client.connection, peer)
        client.connection.close(time.monotonic())
        peer.wait_for("peer closed", client)
        assert client.connection.error is None
