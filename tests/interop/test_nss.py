"""DTLS 1.3 with NSS, whose code shares nothing with ours: as server and as client of ours.

tstclnt carries its standard input to the peer and what the peer says to its standard output.  It
never repeats application data, so megabytes are sent no faster than the kernel's queue before it
empties, and the kernel is asked afterwards whether it dropped anything.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest

from sealwire import dtls
from sealwire.crypto import compression
from sealwire.crypto.groups import Group, parse_groups
from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError, PeerAlert
from sealwire.tls13 import acceptance, messages, presentation
from tests import certificates, configs
from tests.certificates import Kind
from tests.interop import features
from tests.interop.programs import Nss, Program, dropped_datagrams, receive_queue, running
from tests.interop.sockets import DatagramClient, DatagramServer, free_udp_port

shows = functools.partial(features.shows, peer="NSS")

#: Our name, tstclnt's name.
GROUPS = (("X25519", "x25519"), ("P-256", "P256"), ("P-384", "P384"), ("X25519MLKEM768", "mlkem768x25519"))
#: Name, tstclnt's number.
SUITES = (
    ("TLS_AES_128_GCM_SHA256", ":1301"),
    ("TLS_AES_256_GCM_SHA384", ":1302"),
    ("TLS_CHACHA20_POLY1305_SHA256", ":1303"),
)
KINDS = (Kind.ECDSA_P256, Kind.ECDSA_P384, Kind.RSA_2048)
MEGABYTE = 1_000_000
#: What may wait for NSS in the kernel.  Its socket has the system's default, 208 KiB.
QUEUE_BYTES = 64 * 1024
PIECE_BYTES = 16 * 1024


def test_nss_talks_to_itself(nss: Nss) -> None:
    """The tool works as it is used here; if this fails, what follows says nothing about us."""
    port = free_udp_port()
    identity = certificates.server()
    client = Path(nss.directory / "client")
    client.mkdir()
    with nss.server(port, nss.database(own=identity)) as server:
        nss.directory, kept = client, nss.directory
        with nss.client(port, nss.database(trust=identity)) as program:
            nss.directory = kept
            program.write(b"to the server\n")
            server.wait_for(lambda: server.output == b"to the server\n", "the client's line")
            server.write(b"to the client\n")
            program.wait_for(lambda: program.output == b"to the client\n", "the server's line")


def test_nss_is_new_enough(nss: Nss) -> None:
    version = (nss.root / "complete").read_text().split(":")[-1]
    major, minor = version.split("-")[0].split(".")[:2]
    assert (int(major), int(minor)) >= (3, 110)


def exchange(loop: DatagramClient | DatagramServer, connection: dtls.Connection, program: Program) -> None:
    """A line each way."""
    program.write(b"from nss\n")
    loop.run_until(lambda: b"".join(loop.received) == b"from nss\n", "their line")
    connection.send(b"from sealwire\n")
    loop.run_until(lambda: program.output == b"from sealwire\n", "our line")


def _has(loop: DatagramClient | DatagramServer, n: int) -> bool:
    return sum(map(len, loop.received)) >= n


def exchange_megabytes(
    loop: DatagramClient | DatagramServer, connection: dtls.Connection, program: Program, port: int
) -> None:
    """1 MB each way, one after the other, compared by hash."""
    theirs, ours = os.urandom(MEGABYTE), os.urandom(MEGABYTE)
    for start in range(0, MEGABYTE, PIECE_BYTES):
        end = min(start + PIECE_BYTES, MEGABYTE)
        program.write(theirs[start:end])
        loop.run_until(functools.partial(_has, loop, end), "their data")
    received = b"".join(loop.received)
    assert hashlib.sha256(received).digest() == hashlib.sha256(theirs).digest()

    size = connection.max_message_bytes
    messages = [ours[start : start + size] for start in range(0, MEGABYTE, size)]
    for start in range(0, len(messages), 16):
        connection.send_many(messages[start : start + 16])
        loop.turn()
        loop.run_until(lambda: (receive_queue(port) or 0) < QUEUE_BYTES, "room before NSS")
    program.wait_for(lambda: len(program.output) >= MEGABYTE or dropped_datagrams(port) > 0, "our data")
    assert dropped_datagrams(port) == 0
    assert hashlib.sha256(program.output).digest() == hashlib.sha256(ours).digest()


# NSS is the client.


def serve(
    nss: Nss,
    server: DatagramServer,
    database: str,
    check: Callable[[dtls.Connection, Program], None],
    options: Sequence[str] = (),
) -> None:
    with nss.client(server.port, database, *options) as program:
        connection = server.accept()
        check(connection, program)


# Without a cookie a server sends three times the hello at first.  NSS, which cannot acknowledge what it
# got of a flight in a way that proves anything, then needs a hello long enough for the whole flight.
@shows("{group}", they="client")
@pytest.mark.parametrize(
    ("group", "theirs", "require_cookie"),
    [(*group, True) for group in GROUPS] + [(*group, False) for group in GROUPS[2:]],
)
def test_nss_as_client_with_each_group(nss: Nss, group: str, theirs: str, require_cookie: bool) -> None:
    server = DatagramServer(configs.server_context().config(), require_cookie=require_cookie)

    def check(connection: dtls.Connection, program: Program) -> None:
        session = connection.session
        assert session.version == "DTLS 1.3"
        assert session.group is parse_groups(group)[0]
        assert session.retried == require_cookie
        assert session.server_name == "localhost"
        exchange(server, connection, program)

    serve(nss, server, nss.database(trust=certificates.server()), check, ["-I", theirs])


@shows("retry for another group", they="client")
@pytest.mark.parametrize("require_cookie", [True, False], ids=["cookie", "no cookie"])
@pytest.mark.requirement("8446-NEG-4")
def test_nss_as_client_needs_a_retry_for_the_group(nss: Nss, require_cookie: bool) -> None:
    server = DatagramServer(configs.server_context(groups=["P-384"]).config(), require_cookie=require_cookie)

    def check(connection: dtls.Connection, program: Program) -> None:
        assert connection.session.retried
        assert connection.session.group is Group.SECP384R1
        exchange(server, connection, program)

    serve(nss, server, nss.database(trust=certificates.server()), check, ["-I", "x25519,P384"])


@shows("{kind.name} certificate", "cookie", they="client")
@pytest.mark.parametrize("kind", KINDS)
def test_nss_as_client_verifies_each_kind_of_certificate(nss: Nss, kind: Kind) -> None:
    identity = certificates.server(kind)
    server = DatagramServer(configs.server_context(identity).config())
    serve(
        nss,
        server,
        nss.database(trust=identity),
        lambda connection, program: exchange(server, connection, program),
    )


@shows("long chain", they="client")
def test_nss_as_client_takes_a_chain_of_20_kilobytes(nss: Nss) -> None:
    identity = certificates.large_server(20_000)
    server = DatagramServer(configs.server_context(identity).config())
    serve(
        nss,
        server,
        nss.database(trust=identity),
        lambda connection, program: exchange(server, connection, program),
    )


@shows("{suite}", they="client")
@pytest.mark.parametrize(("suite", "number"), SUITES)
def test_nss_as_client_with_each_suite(nss: Nss, suite: str, number: str) -> None:
    server = DatagramServer(configs.server_context().config())

    def check(connection: dtls.Connection, program: Program) -> None:
        assert connection.session.suite.name == suite
        exchange(server, connection, program)

    serve(nss, server, nss.database(trust=certificates.server()), check, ["-c", number])


@shows("mutual authentication", they="client")
@pytest.mark.requirement("8446-AUTH-2")
@pytest.mark.parametrize("kind", KINDS)
def test_nss_as_client_shows_a_certificate(nss: Nss, kind: Kind) -> None:
    own = certificates.client(kind)
    server = DatagramServer(configs.server_context(client_roots=own.cafile).config())

    def check(connection: dtls.Connection, program: Program) -> None:
        peer = connection.session.peer_certificate
        assert peer is not None
        assert peer.chain[0] == own.chain[0]
        exchange(server, connection, program)

    database = nss.database(trust=certificates.server(), own=own)
    serve(nss, server, database, check, ["-n", "own"])


@shows("missing client certificate refused", they="client")
@pytest.mark.requirement("8446-AUTH-3")
def test_nss_as_client_without_the_certificate_we_want(nss: Nss) -> None:
    context = configs.server_context(client_roots=certificates.client().cafile)
    server = DatagramServer(context.config())
    with nss.client(server.port, nss.database(trust=certificates.server())) as program:
        with pytest.raises(HandshakeError) as failure:
            server.accept()
        assert failure.value.alert is Alert.CERTIFICATE_REQUIRED
        program.wait_for(lambda: program.ended, "the end")
        assert program.process.returncode != 0


@shows("untrusted certificate refused", they="client")
def test_nss_as_client_does_not_trust_us(nss: Nss) -> None:
    server = DatagramServer(configs.server_context().config())
    stranger = certificates.server(Kind.RSA_2048)
    with (
        nss.client(server.port, nss.database(trust=stranger)),
        pytest.raises(PeerAlert) as failure,
    ):
        server.accept()
    assert failure.value.alert in (Alert.UNKNOWN_CA, Alert.BAD_CERTIFICATE, Alert.CERTIFICATE_UNKNOWN)


@shows("close_notify", they="client")
def test_nss_as_client_ends_when_we_do(nss: Nss) -> None:
    """It says nothing at the end of its input; it leaves when our close_notify comes."""
    server = DatagramServer(configs.server_context().config())

    def check(connection: dtls.Connection, program: Program) -> None:
        exchange(server, connection, program)
        program.end_of_input()
        connection.close(time.monotonic())
        server.run_until(lambda: program.ended, "its end")
        assert program.process.returncode == 0
        assert connection.error is None
        assert server.endpoint.connections == 0

    serve(nss, server, nss.database(trust=certificates.server()), check)


@shows("data both ways, equal hashes", they="client")
@pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.RSA_2048])
def test_a_megabyte_each_way_with_nss_as_client(nss: Nss, kind: Kind) -> None:
    identity = certificates.server(kind)
    server = DatagramServer(configs.server_context(identity).config())

    def check(connection: dtls.Connection, program: Program) -> None:
        assert isinstance(connection.address, tuple)
        exchange_megabytes(server, connection, program, connection.address[1])

    serve(nss, server, nss.database(trust=identity), check)


# NSS is the server.


@shows("{group}", they="server")
@pytest.mark.parametrize(("group", "theirs"), GROUPS)
def test_nss_as_server_with_each_group(nss: Nss, group: str, theirs: str) -> None:
    port = free_udp_port()
    with nss.server(port, nss.database(own=certificates.server()), "-I", theirs) as program:
        client = DatagramClient(configs.client_context(groups=[group]).config(), port)
        client.handshake()
        session = client.connection.session
        assert session.version == "DTLS 1.3"
        assert not session.retried
        exchange(client, client.connection, program)
        client.close()


@shows("retry for another group", they="server")
@pytest.mark.requirement("8446-NEG-4", "9147-5.1-4")
@pytest.mark.parametrize(("group", "theirs"), [("P-256", "P256"), ("P-384", "P384")])
def test_nss_as_server_asks_for_a_retry(nss: Nss, group: str, theirs: str) -> None:
    port = free_udp_port()
    context = configs.client_context(groups=["X25519", group], key_shares=["X25519"])
    with nss.server(port, nss.database(own=certificates.server()), "-I", theirs) as program:
        client = DatagramClient(context.config(), port)
        client.handshake()
        assert client.connection.session.retried
        exchange(client, client.connection, program)
        client.close()


@shows("first hello in two datagrams", they="server")
def test_nss_as_server_and_everything_by_default(nss: Nss) -> None:
    """Our first hello is hybrid and split over two datagrams."""
    port = free_udp_port()
    with nss.server(port, nss.database(own=certificates.server())) as program:
        client = DatagramClient(configs.client_context().config(), port)
        client.handshake()
        exchange(client, client.connection, program)
        client.close()


@shows("{kind.name} certificate", "server name", they="server")
@pytest.mark.parametrize("kind", KINDS)
def test_nss_as_server_with_each_kind_of_certificate(nss: Nss, kind: Kind) -> None:
    port = free_udp_port()
    identity = certificates.server(kind)
    with nss.server(port, nss.database(own=identity)) as program:
        client = DatagramClient(configs.client_context(identity.cafile).config(), port)
        client.handshake()
        peer = client.connection.session.peer_certificate
        assert peer is not None
        assert peer.chain[0] == identity.chain[0]
        exchange(client, client.connection, program)
        client.close()


@shows("{suite}", they="server")
@pytest.mark.parametrize(("suite", "number"), SUITES)
def test_nss_as_server_with_each_suite(nss: Nss, suite: str, number: str) -> None:
    port = free_udp_port()
    with nss.server(port, nss.database(own=certificates.server())) as program:
        client = DatagramClient(configs.client_context(suites=[suite]).config(), port)
        client.handshake()
        assert client.connection.session.suite.name == suite
        exchange(client, client.connection, program)
        client.close()


@shows("untrusted certificate refused", they="server")
@pytest.mark.requirement("8446-AUTH-5")
def test_nss_as_server_that_we_do_not_trust(nss: Nss) -> None:
    port = free_udp_port()
    with nss.server(port, nss.database(own=certificates.server())):
        client = DatagramClient(
            configs.client_context(certificates.server(Kind.RSA_2048).cafile).config(), port
        )
        with pytest.raises(CertificateError) as failure:
            client.handshake()
        assert failure.value.failure is CertificateFailure.UNKNOWN_ISSUER


@shows("close_notify", they="server")
def test_nss_as_server_goes_away_in_order(nss: Nss) -> None:
    port = free_udp_port()
    with nss.server(port, nss.database(own=certificates.server())) as program:
        client = DatagramClient(configs.client_context().config(), port)
        client.handshake()
        exchange(client, client.connection, program)
        program.end_of_input()
        client.run_until(
            lambda: any(isinstance(event, (dtls.PeerClosed, dtls.Closed)) for event in client.events),
            "its close_notify",
        )
        assert client.connection.error is None
        client.close()


@shows("data both ways, equal hashes", they="server")
@pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.RSA_2048])
def test_a_megabyte_each_way_with_nss_as_server(nss: Nss, kind: Kind) -> None:
    port = free_udp_port()
    identity = certificates.server(kind)
    with nss.server(port, nss.database(own=identity)) as program:
        client = DatagramClient(configs.client_context(identity.cafile).config(), port)
        client.handshake()
        exchange_megabytes(client, client.connection, program, port)
        client.close()


def test_a_peer_that_speaks_only_dtls_1_2_is_refused_in_one_round(nss: Nss) -> None:
    port = free_udp_port()
    database = nss.database(own=certificates.server())
    arguments: list[str | Path] = [
        nss.root / "bin" / "tstclnt", "-h", "127.0.0.1", "-p", str(port), "-P", "server", "-n", "own",
        "-V", "tls1.2:tls1.2", "-d", database,
    ]  # fmt: skip
    with running(arguments, nss.directory, nss.environment) as program:
        program.wait_for(lambda: receive_queue(port) is not None, "no socket")
        client = DatagramClient(configs.client_context().config(), port)
        with pytest.raises((PeerAlert, HandshakeError)) as failure:
            client.handshake()
        assert isinstance(failure.value, (PeerAlert, HandshakeError))
        assert failure.value.alert is Alert.PROTOCOL_VERSION


# --- certificate compression (RFC 8879) -------------------------------------------------------

COMPRESSING = "--zlib-certificate-compression"


@shows("certificate compression", they="client")
def test_nss_as_client_reads_a_compressed_certificate(nss: Nss, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = mock.Mock(wraps=messages.CompressedCertificate)
    monkeypatch.setattr(presentation, "CompressedCertificate", seen)
    identity = certificates.server(Kind.RSA_2048)
    context = configs.server_context(identity)
    context.set_certificate_compression("zlib")
    server = DatagramServer(context.config())
    with nss.client(server.port, nss.database(trust=identity), COMPRESSING) as program:
        exchange(server, server.accept(), program)
    assert seen.called


@shows("certificate compression", they="server")
def test_nss_as_server_compresses_its_certificate(nss: Nss, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = mock.Mock(wraps=compression.decompress)
    monkeypatch.setattr(acceptance, "decompress", unpacked)
    identity = certificates.server(Kind.RSA_2048)
    context = configs.client_context(identity.cafile)
    context.set_certificate_compression("zlib")
    port = free_udp_port()
    with nss.server(port, nss.database(own=identity), COMPRESSING) as program:
        client = DatagramClient(context.config(), port)
        client.handshake()
        exchange(client, client.connection, program)
        client.close()
    assert unpacked.called
