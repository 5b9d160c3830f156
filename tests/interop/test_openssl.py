"""openssl s_client and s_server: each suite and group both sides have, HRR, client certificates, ALPN."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sealwire import stcp
from sealwire.context import CERT_OPTIONAL, Context
from sealwire.crypto.groups import Group
from sealwire.errors import (
    Alert,
    CertificateError,
    CertificateFailure,
    HandshakeError,
    PeerAlert,
    Truncated,
)
from tests import certificates, configs
from tests.certificates import Identity, Kind
from tests.interop import features
from tests.interop.programs import Openssl, Program, running
from tests.interop.sockets import Stream, listen, port_of

shows = functools.partial(features.shows, peer="OpenSSL")

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
#: Our name, OpenSSL's name.  Its 3.0 has no hybrid group.
GROUPS = (("X25519", "X25519"), ("P-256", "P-256"), ("P-384", "P-384"))


@contextmanager
def our_server(context: Context) -> Iterator[tuple[socket.socket, int]]:
    with listen() as listener:
        yield listener, port_of(listener)


def accepted(listener: socket.socket, context: Context) -> Stream:
    sock, _ = listener.accept()
    return Stream(sock, stcp.Connection.server(context.config(), now=time.monotonic()))


def connected(port: int, context: Context) -> Stream:
    """A client of ours, its handshake finished."""
    stream = Stream(
        socket.create_connection(("127.0.0.1", port), timeout=10),
        stcp.Connection.client(context.config(), now=time.monotonic(), server_name="localhost"),
    )
    stream.handshake()
    return stream


def echo_once(stream: Stream, program: Program) -> None:
    """A line each way; the program's line comes from its input, ours appears in its output."""
    program.write(b"from openssl\n")
    assert stream.receive(13) == b"from openssl\n"
    # Not the line of an earlier call: what was sent before this one has been read by then, too.
    before = program.output.count(b"from sealwire\n")
    stream.send(b"from sealwire\n")
    program.wait_for(lambda: program.output.count(b"from sealwire\n") > before, "our line")


# Our server, their client.


@shows("{suite}", "{group}", "server name", they="client")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("group", "theirs"), GROUPS)
def test_s_client_with_each_suite_and_group(openssl: Openssl, suite: str, group: str, theirs: str) -> None:
    context = configs.server_context()
    with (
        our_server(context) as (listener, port),
        openssl.client(
            port, certificates.server().cafile, "-ciphersuites", suite, "-groups", theirs
        ) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        assert stream.connection.session.suite.name == suite
        assert not stream.connection.session.retried
        assert stream.connection.session.server_name == "localhost"
        echo_once(stream, program)
        assert f"Ciphersuite: {suite}" in program.said
        assert "Verification: OK" in program.said
        stream.close()
        assert program.wait() == 0


@shows("retry for another group", they="client")
@pytest.mark.requirement("8446-NEG-4")
def test_s_client_needs_a_retry(openssl: Openssl) -> None:
    """It offers a share for P-384 and would take X25519, which is all we have."""
    context = configs.server_context(groups=["X25519"])
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile, "-groups", "P-384:X25519") as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        assert stream.connection.session.retried
        echo_once(stream, program)
        assert "X25519" in program.said
        stream.close()
        assert program.wait() == 0


@shows("{kind.name} certificate", they="client")
@pytest.mark.parametrize("kind", Kind)
def test_s_client_verifies_each_kind_of_certificate(openssl: Openssl, kind: Kind) -> None:
    identity = certificates.server(kind)
    context = configs.server_context(identity)
    with (
        our_server(context) as (listener, port),
        openssl.client(port, identity.cafile) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        echo_once(stream, program)
        assert "Verification: OK" in program.said
        stream.close()
        assert program.wait() == 0


@shows("long chain", they="client")
def test_s_client_takes_a_chain_with_intermediates_of_20_kilobytes(openssl: Openssl) -> None:
    identity = certificates.large_server(20_000)
    context = configs.server_context(identity)
    with our_server(context) as (listener, port), openssl.client(port, identity.cafile) as program:
        stream = accepted(listener, context)
        stream.handshake()
        echo_once(stream, program)
        stream.close()
        assert program.wait() == 0


@shows("ALPN", they="client")
def test_s_client_negotiates_alpn(openssl: Openssl) -> None:
    context = configs.server_context(alpn=["second", "third"])
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile, "-alpn", "first,second") as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        assert stream.connection.session.alpn == b"second"
        echo_once(stream, program)
        stream.close()
        assert program.wait() == 0


@pytest.mark.requirement("8446-NEG-9")
def test_s_client_with_no_protocol_in_common_gets_the_alert(openssl: Openssl) -> None:
    context = configs.server_context(alpn=["second"])
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile, "-alpn", "first") as program,
    ):
        stream = accepted(listener, context)
        with pytest.raises(HandshakeError) as failure:
            stream.handshake()
        assert failure.value.alert is Alert.NO_APPLICATION_PROTOCOL
        stream.sock.close()
        assert program.wait() != 0
        assert "no application protocol" in program.said


@shows("mutual authentication", they="client")
@pytest.mark.requirement("8446-AUTH-2")
@pytest.mark.parametrize("kind", Kind)
def test_s_client_shows_each_kind_of_certificate(openssl: Openssl, kind: Kind) -> None:
    own = certificates.client(kind)
    context = configs.server_context(client_roots=own.cafile)
    with (
        our_server(context) as (listener, port),
        openssl.client(
            port, certificates.server().cafile, "-cert", own.certfile, "-key", own.keyfile
        ) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        peer = stream.connection.session.peer_certificate
        assert peer is not None
        assert peer.chain[0] == own.chain[0]
        echo_once(stream, program)
        stream.close()
        assert program.wait() == 0


@shows("missing client certificate refused", they="client")
@pytest.mark.requirement("8446-AUTH-3")
def test_s_client_without_the_certificate_we_want(openssl: Openssl) -> None:
    context = configs.server_context(client_roots=certificates.client().cafile)
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile) as program,
    ):
        stream = accepted(listener, context)
        with pytest.raises(HandshakeError) as failure:
            stream.handshake()
        assert failure.value.alert is Alert.CERTIFICATE_REQUIRED
        stream.sock.close()
        program.wait()
        assert "certificate required" in program.said

    context.verify_mode = CERT_OPTIONAL
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        assert stream.connection.session.peer is None
        echo_once(stream, program)
        stream.close()
        assert program.wait() == 0


@shows("untrusted certificate refused", they="client")
def test_s_client_refuses_our_certificate_and_we_hear_why(openssl: Openssl) -> None:
    context = configs.server_context()
    stranger = certificates.server(Kind.RSA_2048).cafile
    with our_server(context) as (listener, port), openssl.client(port, stranger) as program:
        stream = accepted(listener, context)
        with pytest.raises(PeerAlert) as failure:
            stream.handshake()
        assert failure.value.alert is Alert.UNKNOWN_CA
        assert program.wait() != 0


def test_s_client_that_ends_without_a_word_is_a_truncation(openssl: Openssl) -> None:
    context = configs.server_context()
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        program.process.kill()
        stream.run_until(lambda: stream.connection.state == "closed", "the end")
        assert isinstance(stream.connection.error, Truncated)


@shows("data both ways, equal hashes", "close_notify", they="client")
@pytest.mark.parametrize("suite", SUITES)
def test_a_megabyte_each_way_with_s_client(openssl: Openssl, suite: str) -> None:
    context = configs.server_context()
    ours, theirs = os.urandom(1_000_000), os.urandom(1_000_000)
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile, "-ciphersuites", suite, "-ign_eof") as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        stream.send(ours)
        for start in range(0, len(theirs), 32_768):
            end = min(start + 32_768, len(theirs))
            program.write(theirs[start:end])
            stream.run_until(functools.partial(_has, stream, end), "data")
        assert hashlib.sha256(stream.receive(len(theirs))).digest() == hashlib.sha256(theirs).digest()
        program.wait_for(lambda: len(program.output) >= len(ours), "our megabyte")
        assert hashlib.sha256(program.output).digest() == hashlib.sha256(ours).digest()


# Their server, our client.


@shows("{suite}", "{group}", they="server")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("group", "theirs"), GROUPS)
def test_s_server_with_each_suite_and_group(openssl: Openssl, suite: str, group: str, theirs: str) -> None:
    identity = certificates.server()
    context = configs.client_context(suites=[suite], groups=[group])
    with openssl.server(identity, "-rev", "-groups", theirs) as (program, port):
        stream = connected(port, context)
        session = stream.connection.session
        assert session.suite.name == suite
        assert not session.retried
        assert session.peer_certificate is not None
        assert session.peer_certificate.chain[0] == identity.chain[0]
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        assert f"Ciphersuite: {suite}" in program.said
        stream.close()


@shows("retry for another group", they="server")
@pytest.mark.requirement("8446-NEG-4")
@pytest.mark.parametrize("theirs", ["P-256", "P-384"])
def test_s_server_asks_for_a_retry(openssl: Openssl, theirs: str) -> None:
    context = configs.client_context(groups=["X25519", "P-256", "P-384"], key_shares=["X25519"])
    with openssl.server(certificates.server(), "-rev", "-groups", theirs) as (_, port):
        stream = connected(port, context)
        assert stream.connection.session.retried
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        stream.close()


def test_s_server_and_the_default_groups(openssl: Openssl) -> None:
    """The hybrid share we send by default means nothing to it; another share or a retry does."""
    with openssl.server(certificates.server(), "-rev") as (_, port):
        stream = connected(port, configs.client_context())
        assert stream.connection.session.group is Group.X25519
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        stream.close()


@shows("{kind.name} certificate", they="server")
@pytest.mark.parametrize("kind", Kind)
def test_s_server_with_each_kind_of_certificate(openssl: Openssl, kind: Kind) -> None:
    identity = certificates.server(kind)
    with openssl.server(identity, "-rev") as (_, port):
        stream = connected(port, configs.client_context(identity.cafile))
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        stream.close()


@shows("mutual authentication", they="server")
@pytest.mark.requirement("8446-AUTH-2")
@pytest.mark.parametrize("kind", Kind)
def test_s_server_asks_for_each_kind_of_certificate(openssl: Openssl, kind: Kind) -> None:
    own = certificates.client(kind)
    context = configs.client_context(identity=own)
    with openssl.server(
        certificates.server(), "-rev", "-Verify", "3", "-verify_return_error", "-CAfile", own.cafile
    ) as (program, port):
        stream = connected(port, context)
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        assert "Peer certificate: CN = client.example" in program.said
        assert "Verification: OK" in program.said
        stream.close()


@shows("missing client certificate refused", they="server")
@pytest.mark.requirement("8446-AUTH-3")
def test_s_server_insists_on_a_certificate_we_have_not(openssl: Openssl) -> None:
    with openssl.server(
        certificates.server(), "-rev", "-Verify", "3", "-CAfile", certificates.client().cafile
    ) as (_, port):
        # RFC 8446: a client is connected once it has sent its Finished; the refusal comes after.
        stream = connected(port, configs.client_context())
        stream.run_until(lambda: stream.connection.state == "closed", "the refusal")
        assert isinstance(stream.connection.error, PeerAlert)
        assert stream.connection.error.alert is Alert.CERTIFICATE_REQUIRED


@shows("ALPN", they="server")
def test_s_server_negotiates_alpn(openssl: Openssl) -> None:
    context = configs.client_context(alpn=["first", "second"])
    with openssl.server(certificates.server(), "-rev", "-alpn", "second,third") as (_, port):
        stream = connected(port, context)
        assert stream.connection.session.alpn == b"second"
        stream.close()


def _wrong_name() -> Identity:
    return certificates.server(names=("elsewhere.example",))


@shows("untrusted certificate refused", they="server")
@pytest.mark.parametrize(
    ("identity", "roots", "failure"),
    [
        (_wrong_name, certificates.server, CertificateFailure.WRONG_NAME),
        (
            certificates.server,
            lambda: certificates.server(Kind.RSA_2048),
            CertificateFailure.UNKNOWN_ISSUER,
        ),
        (certificates.client, certificates.server, CertificateFailure.WRONG_NAME),
    ],
    ids=["wrong name", "unknown issuer", "a client's certificate"],
)
@pytest.mark.requirement("8446-AUTH-5")
def test_s_server_whose_certificate_will_not_do(
    openssl: Openssl, identity: object, roots: object, failure: CertificateFailure
) -> None:
    assert callable(identity)
    assert callable(roots)
    with openssl.server(identity(), "-rev") as (program, port):
        with pytest.raises(CertificateError) as refusal:
            connected(port, configs.client_context(roots().cafile))
        assert refusal.value.failure in (failure, CertificateFailure.BAD_USAGE)
        program.wait_for(lambda: "alert" in program.said, "our alert")


def test_s_server_that_speaks_only_tls_1_2(openssl: Openssl) -> None:
    identity = certificates.server()
    arguments: list[str | Path] = [
        openssl.path, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-tls1_2",
        "-key", identity.keyfile, "-cert", identity.certfile,
    ]  # fmt: skip
    with running(arguments, openssl.directory) as program:
        program.wait_for(lambda: "ACCEPT 127.0.0.1:" in program.said, "no port")
        port = int(program.said.split("ACCEPT 127.0.0.1:")[1].split()[0])
        with pytest.raises((PeerAlert, HandshakeError)) as failure:
            connected(port, configs.client_context())
        assert isinstance(failure.value, (PeerAlert, HandshakeError))
        assert failure.value.alert is Alert.PROTOCOL_VERSION


@shows("data both ways, equal hashes", "close_notify", they="server")
@pytest.mark.parametrize("suite", SUITES)
def test_a_megabyte_each_way_with_s_server(openssl: Openssl, suite: str) -> None:
    # Its input is digits, because it takes some letters for commands; -quiet, which ends that, would
    # hide the port.
    ours, theirs = os.urandom(1_000_000), os.urandom(500_000).hex().translate(_TO_DIGITS).encode()
    context = configs.client_context(suites=[suite])
    with openssl.server(certificates.server()) as (program, port):
        stream = connected(port, context)
        stream.send(ours)
        for start in range(0, len(theirs), 32_768):
            end = min(start + 32_768, len(theirs))
            program.write(theirs[start:end])
            stream.run_until(functools.partial(_has, stream, end), "data")
        assert hashlib.sha256(stream.receive(len(theirs))).digest() == hashlib.sha256(theirs).digest()
        program.wait_for(lambda: ours in program.output, "our megabyte")


_TO_DIGITS = str.maketrans("abcdef", "012345")


def _has(stream: Stream, n: int) -> bool:
    return len(stream.received) >= n
