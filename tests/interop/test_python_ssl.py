"""Python's own ssl module against our streams, in one process and without sockets: memory both ways."""

from __future__ import annotations

import functools
import hashlib
import os
import ssl
from collections.abc import Callable

import pytest

from sealwire import stcp
from sealwire.context import Context
from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError, PeerAlert
from tests import certificates, configs
from tests.certificates import Kind
from tests.interop import features

shows = functools.partial(features.shows, peer="Python ssl")


class Wire:
    """An ssl.SSLObject and a connection of ours, joined by two memory buffers."""

    def __init__(
        self,
        theirs: ssl.SSLContext,
        ours: stcp.Connection,
        *,
        they_serve: bool,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.theirs = theirs.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=they_serve,
            server_hostname=None if they_serve else "localhost",
            session=session,
        )
        self.ours = ours
        self.their_error: ssl.SSLError | None = None

    def pump(self) -> bool:
        """Carry what waits in both directions; False if nothing did."""
        to_ours, to_theirs = self.outgoing.read(), self.ours.data_to_send()
        if to_ours and self.ours.error is None:
            self.ours.receive_data(to_ours)
        self.incoming.write(to_theirs)
        return bool(to_ours or to_theirs)

    def attempt(self, operation: Callable[[], object]) -> object:
        """Their operation, with everything carried that it waits for."""
        for _ in range(1_000):
            try:
                return operation()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not self.pump():
                    raise
            except ssl.SSLError as error:
                self.their_error = error
                self.pump()
                raise
        raise AssertionError("no end of it")

    def handshake(self) -> None:
        """Both sides finished; raises our error if we failed."""
        try:
            self.attempt(self.theirs.do_handshake)
        except (ssl.SSLError, ssl.SSLWantReadError):
            if self.ours.error is not None:
                raise self.ours.error from None
            raise
        while self.pump():
            pass
        if self.ours.error is not None:
            raise self.ours.error

    def exchange(self, size: int = 100_000) -> None:
        """`size` bytes each way, compared by hash."""
        mine, yours = os.urandom(size), os.urandom(size)
        self.attempt(lambda: self.theirs.write(yours))
        received = b""
        while len(received) < size:
            self.pump()
            received += self.ours.read()
        assert hashlib.sha256(received).digest() == hashlib.sha256(yours).digest()
        self.ours.send(mine)
        received = b""
        while len(received) < size:
            chunk = self.attempt(lambda: self.theirs.read(65_536))
            assert isinstance(chunk, bytes)
            received += chunk
        assert hashlib.sha256(received).digest() == hashlib.sha256(mine).digest()

    def close(self) -> None:
        """close_notify both ways: neither side sees a truncation."""
        self.ours.close()
        self.pump()
        self.attempt(self.theirs.unwrap)
        self.pump()
        assert self.ours.state == "closed"
        assert self.ours.error is None


def their_server(kind: Kind = Kind.ECDSA_P256) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = certificates.server(kind)
    context.load_cert_chain(identity.certfile, identity.keyfile)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def their_client(kind: Kind = Kind.ECDSA_P256) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.server(kind).cafile))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def our_client(context: Context, theirs: ssl.SSLContext) -> Wire:
    connection = stcp.Connection.client(context.config(), now=0.0, server_name="localhost")
    return Wire(theirs, connection, they_serve=True)


def our_server(context: Context, theirs: ssl.SSLContext) -> Wire:
    return Wire(theirs, stcp.Connection.server(context.config(), now=0.0), they_serve=False)


@shows("{kind.name} certificate", "close_notify", they="server")
@pytest.mark.parametrize("kind", Kind)
def test_ssl_as_server_with_each_kind_of_certificate(kind: Kind) -> None:
    wire = our_client(configs.client_context(certificates.server(kind).cafile), their_server(kind))
    wire.handshake()
    assert wire.theirs.version() == "TLSv1.3"
    wire.exchange()
    wire.close()


@shows("{kind.name} certificate", "server name", "close_notify", they="client")
@pytest.mark.parametrize("kind", Kind)
def test_ssl_as_client_with_each_kind_of_certificate(kind: Kind) -> None:
    wire = our_server(configs.server_context(certificates.server(kind)), their_client(kind))
    wire.handshake()
    session = wire.ours.session
    cipher = wire.theirs.cipher()
    assert cipher is not None
    assert cipher[0] == session.suite.name
    assert session.server_name == "localhost"
    wire.exchange()
    wire.close()


@shows("{suite}", "data both ways, equal hashes", they="client")
@shows("{suite}", "data both ways, equal hashes", they="server")
@pytest.mark.parametrize(
    "suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
)
def test_each_suite_both_ways(suite: str) -> None:
    for wire in (
        our_client(configs.client_context(suites=[suite]), their_server()),
        our_server(configs.server_context(suites=[suite]), their_client()),
    ):
        wire.handshake()
        cipher = wire.theirs.cipher()
        assert cipher is not None
        assert cipher[0] == suite
        wire.exchange()
        wire.close()


@shows("retry for another group", "{group}", they="server")
@pytest.mark.parametrize(("group", "curve"), [("P-256", "prime256v1"), ("P-384", "secp384r1")])
@pytest.mark.requirement("8446-NEG-4")
def test_ssl_as_server_asks_for_a_retry(group: str, curve: str) -> None:
    theirs = their_server()
    theirs.set_ecdh_curve(curve)
    wire = our_client(configs.client_context(groups=["X25519", group], key_shares=["X25519"]), theirs)
    wire.handshake()
    assert wire.ours.session.retried
    wire.exchange()
    wire.close()


@shows("retry for another group", "P-384", they="client")
@pytest.mark.requirement("8446-NEG-4")
def test_ssl_as_client_gets_a_retry() -> None:
    """Its first share is for X25519; we have only P-384."""
    wire = our_server(configs.server_context(groups=["P-384"]), their_client())
    wire.handshake()
    assert wire.ours.session.retried
    wire.exchange()
    wire.close()


@shows("ALPN", they="client")
@shows("ALPN", they="server")
def test_alpn_both_ways() -> None:
    server = their_server()
    server.set_alpn_protocols(["second", "third"])
    wire = our_client(configs.client_context(alpn=["first", "second"]), server)
    wire.handshake()
    assert wire.ours.session.alpn == b"second"
    assert wire.theirs.selected_alpn_protocol() == "second"

    client = their_client()
    client.set_alpn_protocols(["first", "second"])
    wire = our_server(configs.server_context(alpn=["second", "third"]), client)
    wire.handshake()
    assert wire.ours.session.alpn == b"second"
    assert wire.theirs.selected_alpn_protocol() == "second"


@shows("mutual authentication", they="server")
@pytest.mark.parametrize("kind", Kind)
def test_ssl_as_server_wants_a_certificate(kind: Kind) -> None:
    own = certificates.client(kind)
    server = their_server()
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cafile=own.cafile)
    wire = our_client(configs.client_context(identity=own), server)
    wire.handshake()
    assert wire.theirs.getpeercert(binary_form=True) == own.chain[0]
    wire.exchange()
    wire.close()


@shows("mutual authentication", they="client")
@pytest.mark.parametrize("kind", Kind)
def test_ssl_as_client_shows_a_certificate(kind: Kind) -> None:
    own = certificates.client(kind)
    client = their_client()
    client.load_cert_chain(own.certfile, own.keyfile)
    wire = our_server(configs.server_context(client_roots=own.cafile), client)
    wire.handshake()
    peer = wire.ours.session.peer_certificate
    assert peer is not None
    assert peer.chain[0] == own.chain[0]
    wire.exchange()
    wire.close()


@shows("missing client certificate refused", they="client")
@pytest.mark.requirement("8446-AUTH-3")
def test_ssl_as_client_has_no_certificate_to_show() -> None:
    wire = our_server(configs.server_context(client_roots=certificates.client().cafile), their_client())
    with pytest.raises(HandshakeError) as failure:
        wire.handshake()
    assert failure.value.alert is Alert.CERTIFICATE_REQUIRED
    wire.pump()
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
        wire.attempt(lambda: wire.theirs.read(1))


@shows("untrusted certificate refused", they="client")
def test_ssl_as_client_does_not_trust_us() -> None:
    wire = our_server(configs.server_context(), their_client(Kind.RSA_2048))
    with pytest.raises(PeerAlert) as failure:
        wire.handshake()
    assert failure.value.alert is Alert.UNKNOWN_CA


@shows("untrusted certificate refused", they="server")
def test_we_do_not_trust_ssl_as_server() -> None:
    stranger = configs.client_context(certificates.server(Kind.RSA_2048).cafile)
    wire = our_client(stranger, their_server())
    with pytest.raises(CertificateError) as failure:
        wire.handshake()
    assert failure.value.failure is CertificateFailure.UNKNOWN_ISSUER
    assert wire.their_error is not None
    assert "UNKNOWN_CA" in str(wire.their_error).upper()


@shows("KeyUpdate by us", "KeyUpdate by them", they="client")
@pytest.mark.requirement("8446-POST-1")
def test_key_updates_are_understood_and_answered() -> None:
    wire = our_server(configs.server_context(), their_client())
    wire.handshake()
    wire.ours.update_keys(request_peer=True)
    wire.exchange()
    wire.ours.update_keys()
    wire.exchange()
    assert wire.ours.counters.key_updates >= 3  # ours twice, theirs once in answer
    wire.close()


@shows("KeyUpdate by us", "KeyUpdate by them", "long chain", they="server")
@pytest.mark.requirement("8446-POST-1")
def test_ssl_as_server_understands_and_answers_key_updates() -> None:
    identity = certificates.large_server(20_000)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(identity.certfile, identity.keyfile)
    wire = our_client(configs.client_context(identity.cafile), theirs)
    wire.handshake()
    wire.ours.update_keys(request_peer=True)
    # It answers with the first it writes after it has read the request.
    wire.exchange()
    wire.exchange()
    assert wire.ours.counters.key_updates == 2
    wire.close()


CURVES = [("X25519", None), ("P-256", "prime256v1"), ("P-384", "secp384r1"), ("P-521", "secp521r1")]


@shows("{group}", they="server")
@shows("{group}", they="client")
@pytest.mark.parametrize(("group", "curve"), CURVES)
def test_each_group_it_can_be_told_of(group: str, curve: str | None) -> None:
    """X25519 is what it begins with."""
    server, client = their_server(), their_client()
    for theirs in (server, client):
        if curve is not None:
            theirs.set_ecdh_curve(curve)
    for wire in (
        our_client(configs.client_context(groups=[group]), server),
        our_server(configs.server_context(groups=[group]), client),
    ):
        wire.handshake()
        assert not wire.ours.session.retried
        wire.exchange()
        wire.close()


@shows("server name", "missing client certificate refused", they="server")
@pytest.mark.requirement("8446-AUTH-3")
def test_ssl_as_server_hears_our_name_and_misses_our_certificate() -> None:
    server, names = their_server(), []
    server.sni_callback = lambda sock, name, context: names.append(name)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cafile=certificates.client().cafile)
    wire = our_client(configs.client_context(), server)
    with pytest.raises(PeerAlert) as failure:
        wire.handshake()
    assert failure.value.alert is Alert.CERTIFICATE_REQUIRED
    assert names == ["localhost"]


@shows("long chain", they="client")
def test_ssl_as_client_takes_a_chain_of_20_kilobytes() -> None:
    identity = certificates.large_server(20_000)
    client = ssl.create_default_context(cafile=str(identity.cafile))
    wire = our_server(configs.server_context(identity), client)
    wire.handshake()
    wire.exchange()
    wire.close()


@shows("resumption by ticket", they="client")
@pytest.mark.requirement("8446-PSK-5")
def test_ssl_as_client_resumes() -> None:
    context, theirs = configs.server_context(), their_client()
    context.num_tickets = 1
    wire = our_server(context, theirs)
    wire.handshake()
    wire.exchange()
    session = wire.theirs.session
    wire.close()
    again = Wire(theirs, stcp.Connection.server(context.config(), now=0.0), they_serve=False, session=session)
    again.handshake()
    assert again.ours.session.resumed
    assert again.theirs.session_reused
    again.exchange()
    again.close()


@shows("resumption by ticket", they="server")
@pytest.mark.requirement("8446-PSK-5")
def test_ssl_as_server_resumes() -> None:
    context, theirs = configs.client_context(), their_server()
    context.num_tickets = 1
    wire = our_client(context, theirs)
    wire.handshake()
    wire.exchange()
    tickets = [event.ticket for event in wire.ours.events() if isinstance(event, stcp.TicketReceived)]
    wire.close()
    connection = stcp.Connection.client(context.config(), now=0.0, server_name="localhost", ticket=tickets[0])
    again = Wire(theirs, connection, they_serve=True)
    again.handshake()
    assert again.ours.session.resumed
    assert again.theirs.session_reused
    again.exchange()
    again.close()
