"""Pre-shared keys with other people's programs: OpenSSL over streams, NSS over datagrams, Python's ssl.

`-psk` of OpenSSL's programs makes keys for SHA-256; one for SHA-384 is given to them as a session
file, which is made here.  All keys are external: none of these programs imports keys (RFC 9258).
"""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sealwire import stcp
from sealwire.crypto.psk import ExternalPsk
from sealwire.errors import Alert, HandshakeError, PeerAlert
from tests import certificates, psks
from tests.interop.features import shows
from tests.interop.programs import Nss, Openssl, Program, running
from tests.interop.sockets import DatagramClient, DatagramServer, Stream, free_udp_port, listen, port_of
from tests.psks import DEVICE, SECRET

DEVICE_384 = ExternalPsk("device", SECRET, hash_name="sha384")
WRONG = ExternalPsk("device", bytes(32))
#: Suite, its number, and the key that goes with it.
SUITES = (
    ("TLS_AES_128_GCM_SHA256", "1301", DEVICE),
    ("TLS_AES_256_GCM_SHA384", "1302", DEVICE_384),
    ("TLS_CHACHA20_POLY1305_SHA256", "1303", DEVICE),
    ("TLS_AES_128_CCM_SHA256", "1304", DEVICE),
)
EACH_SUITE = pytest.mark.parametrize(
    ("suite", "number", "key"), SUITES, ids=[suite.removeprefix("TLS_") for suite, _, _ in SUITES]
)


def options_for(key: ExternalPsk, number: str, directory: Path) -> list[str | Path]:
    """What tells an openssl program of `key`."""
    if key.hash_name == "sha256":
        return ["-psk_identity", key.identity.decode(), "-psk", bytes(key.secret).hex()]
    file = directory / "psk.session"
    file.write_text(session_file(bytes(key.secret), number))
    return ["-psk_identity", key.identity.decode(), "-psk_session", file]


def session_file(secret: bytes, number: str) -> str:
    """An OpenSSL session with nothing but a key and a suite, as PEM."""
    body = b"".join(
        (
            der(0x02, b"\x01"),
            der(0x02, b"\x03\x04"),
            der(0x04, bytes.fromhex(number)),
            der(0x04, b""),
            der(0x04, secret),
        )
    )
    text = base64.encodebytes(der(0x30, body)).decode()
    return f"-----BEGIN SSL SESSION PARAMETERS-----\n{text}-----END SSL SESSION PARAMETERS-----\n"


def der(tag: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes((tag, len(content))) + content


# --- OpenSSL as client ------------------------------------------------------------------------


@contextmanager
def s_client(openssl: Openssl, port: int, *options: str | Path) -> Iterator[Program]:
    """s_client that would refuse any certificate: it trusts nobody."""
    arguments: list[str | Path] = [
        openssl.path, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-verify_return_error",
        "-no-CAfile", "-no-CApath", "-no-CAstore", "-brief", "-nocommands", *options,
    ]  # fmt: skip
    with running(arguments, openssl.directory) as program:
        yield program


def accepted(listener: socket.socket, *keys: ExternalPsk, **options: object) -> Stream:
    sock, _ = listener.accept()
    config = psks.server(*keys, **options)
    return Stream(sock, stcp.Connection.server(config, now=time.monotonic()))


def echo_once(stream: Stream, program: Program) -> None:
    program.write(b"from openssl\n")
    assert stream.receive(13) == b"from openssl\n"
    # Not the line of an earlier call: what was sent before this one has been read by then, too.
    before = program.output.count(b"from sealwire\n")
    stream.send(b"from sealwire\n")
    program.wait_for(lambda: program.output.count(b"from sealwire\n") > before, "our line")


@shows("external PSK with key exchange", peer="OpenSSL", they="client")
@EACH_SUITE
def test_s_client_with_each_suite(openssl: Openssl, suite: str, number: str, key: ExternalPsk) -> None:
    options = options_for(key, number, openssl.directory)
    with (
        listen() as listener,
        s_client(openssl, port_of(listener), *options, "-ciphersuites", suite) as program,
    ):
        stream = accepted(listener, key, suites=[suite])
        stream.handshake()
        session = stream.connection.session
        assert (session.suite.name, session.psk_identity, session.peer) == (suite, b"device", None)
        echo_once(stream, program)
        stream.close()
        assert program.wait() == 0


# Not with a session file: after a retry s_client offers it no more, to its own s_server neither.
@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
def test_s_client_needs_a_retry(openssl: Openssl) -> None:
    options = options_for(DEVICE, "1301", openssl.directory)
    with (
        listen() as listener,
        s_client(openssl, port_of(listener), *options, "-groups", "X25519:P-384") as program,
    ):
        # We would rather have SHA-384, but the suite is the one that goes with its key.
        suites = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]
        stream = accepted(listener, DEVICE, groups=["P-384"], suites=suites)
        stream.handshake()
        session = stream.connection.session
        assert session.retried
        assert (session.suite.name, session.psk_identity) == ("TLS_AES_128_GCM_SHA256", b"device")
        echo_once(stream, program)


@shows("wrong PSK refused", peer="OpenSSL", they="client")
@pytest.mark.requirement("8446-PSK-2")
def test_s_client_with_a_wrong_key(openssl: Openssl) -> None:
    options = options_for(WRONG, "1301", openssl.directory)
    with listen() as listener, s_client(openssl, port_of(listener), *options) as program:
        stream = accepted(listener, DEVICE)
        with pytest.raises(HandshakeError) as failure:
            stream.handshake()
        assert failure.value.alert is Alert.DECRYPT_ERROR
        program.wait_for(lambda: program.ended, "its end")
        assert "alert decrypt error" in program.said


@shows("unknown PSK, certificate instead", peer="OpenSSL", they="client")
@pytest.mark.requirement("8446-PSK-2")
def test_s_client_whose_key_we_do_not_know(openssl: Openssl) -> None:
    """With a certificate of ours it goes on, until it does not trust that."""
    options = options_for(ExternalPsk("stranger", SECRET), "1301", openssl.directory)
    for certified, said in ((False, "unknown psk identity"), (True, "certificate verify failed")):
        with listen() as listener, s_client(openssl, port_of(listener), *options) as program:
            stream = accepted(listener, DEVICE, certified=certified)
            with pytest.raises((PeerAlert, HandshakeError)) as failure:
                stream.handshake()
            error = failure.value
            assert isinstance(error, PeerAlert if certified else HandshakeError)
            assert error.alert is (Alert.UNKNOWN_CA if certified else Alert.UNKNOWN_PSK_IDENTITY)
            program.wait_for(lambda: program.ended, "its end")
            assert said in program.said


# --- OpenSSL as server ------------------------------------------------------------------------


@contextmanager
def s_server(
    openssl: Openssl, *options: str | Path, certified: bool = False
) -> Iterator[tuple[Program, int]]:
    identity = certificates.server()
    own: list[str | Path] = (
        ["-cert", identity.certfile, "-key", identity.keyfile] if certified else ["-nocert"]
    )
    arguments: list[str | Path] = [
        openssl.path, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-tls1_3", *own, *options,
    ]  # fmt: skip
    with running(arguments, openssl.directory) as program:
        program.wait_for(lambda: "ACCEPT 127.0.0.1:" in program.said, "no port")
        yield program, int(program.said.split("ACCEPT 127.0.0.1:")[1].split()[0])


def connecting(port: int, key: ExternalPsk, name: str | None = None, **options: object) -> Stream:
    config = psks.client(key, **options)
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    return Stream(sock, stcp.Connection.client(config, now=time.monotonic(), server_name=name))


@shows("external PSK with key exchange", peer="OpenSSL", they="server")
@EACH_SUITE
def test_s_server_with_each_suite(openssl: Openssl, suite: str, number: str, key: ExternalPsk) -> None:
    options = options_for(key, number, openssl.directory)
    with s_server(openssl, *options, "-ciphersuites", suite) as (program, port):
        stream = connecting(port, key, suites=[suite])
        stream.handshake()
        session = stream.connection.session
        assert (session.suite.name, session.psk_identity, session.peer) == (suite, b"device", None)
        echo_once(stream, program)
        stream.close()


@pytest.mark.requirement("8446-KS-3", "8446-PSK-2")
@pytest.mark.parametrize(("suite", "number", "key"), SUITES[:2], ids=["sha256", "sha384"])
def test_s_server_needs_a_retry(openssl: Openssl, suite: str, number: str, key: ExternalPsk) -> None:
    options = options_for(key, number, openssl.directory)
    with s_server(openssl, *options, "-groups", "P-384", "-ciphersuites", suite) as (program, port):
        stream = connecting(port, key, groups=["X25519", "P-384"], key_shares=["X25519"])
        stream.handshake()
        assert stream.connection.session.retried
        assert stream.connection.session.psk_identity == b"device"
        echo_once(stream, program)


@shows("wrong PSK refused", peer="OpenSSL", they="server")
@pytest.mark.requirement("8446-PSK-2")
def test_s_server_takes_another_key_for_a_wrong_one(openssl: Openssl) -> None:
    options = options_for(DEVICE, "1301", openssl.directory)
    with s_server(openssl, *options) as (_, port):
        with pytest.raises(PeerAlert) as failure:
            connecting(port, WRONG).handshake()
        # What OpenSSL says is illegal_parameter; RFC 8446 section 4.2.11.2 leaves the alert open.
        assert failure.value.alert in (Alert.ILLEGAL_PARAMETER, Alert.DECRYPT_ERROR)


@shows("unknown PSK, certificate instead", peer="OpenSSL", they="server")
@pytest.mark.requirement("8446-PSK-2")
def test_s_server_that_does_not_know_our_key_shows_its_certificate(openssl: Openssl) -> None:
    options = options_for(DEVICE, "1301", openssl.directory)
    stranger = ExternalPsk("stranger", SECRET)
    with s_server(openssl, *options, certified=True) as (program, port):
        stream = connecting(port, stranger, "localhost", trusting=True)
        stream.handshake()
        assert stream.connection.session.psk_identity is None
        assert stream.connection.session.peer is not None
        echo_once(stream, program)
    # Without a name there is nothing such a server could show.
    with s_server(openssl, *options, certified=True) as (_, port):
        stream = connecting(port, stranger, trusting=True)
        with pytest.raises(HandshakeError, match="no name to check") as unnamed:
            stream.handshake()
        assert unnamed.value.alert is Alert.HANDSHAKE_FAILURE


# --- NSS, over datagrams ------------------------------------------------------------------------


def nss_key(key: ExternalPsk) -> list[str]:
    """tstclnt knows keys for SHA-256 only."""
    return ["-z", f"0x{bytes(key.secret).hex()}:{key.identity.decode()}"]


def exchange(loop: DatagramClient | DatagramServer, program: Program) -> None:
    connection = loop.connection if isinstance(loop, DatagramClient) else loop.peer
    program.write(b"from nss\n")
    loop.run_until(lambda: b"".join(loop.received) == b"from nss\n", "their line")
    connection.send(b"from sealwire\n")
    loop.run_until(lambda: program.output == b"from sealwire\n", "our line")


#: It has no CCM, and no way to give it a key for SHA-384.
NSS_SUITES = [("TLS_AES_128_GCM_SHA256", "1301"), ("TLS_CHACHA20_POLY1305_SHA256", "1303")]


@shows("external PSK with key exchange", peer="NSS", they="client")
@pytest.mark.requirement("8446-KS-3", "8446-PSK-2", "9147-5.1-2")
@pytest.mark.parametrize("require_cookie", [True, False], ids=["cookie", "no cookie"])
@pytest.mark.parametrize(("suite", "number"), NSS_SUITES)
def test_nss_as_client(nss: Nss, suite: str, number: str, require_cookie: bool) -> None:
    server = DatagramServer(psks.server(DEVICE), require_cookie=require_cookie)
    with nss.client(server.port, nss.database(), "-c", f":{number}", *nss_key(DEVICE)) as program:
        session = server.accept().session
        assert (session.suite.name, session.psk_identity, session.peer) == (suite, b"device", None)
        assert session.retried == require_cookie
        exchange(server, program)


@shows("wrong PSK refused", peer="NSS", they="client")
@pytest.mark.requirement("8446-PSK-2")
def test_nss_as_client_with_a_wrong_key(nss: Nss) -> None:
    server = DatagramServer(psks.server(DEVICE))
    with nss.client(server.port, nss.database(), *nss_key(WRONG)):
        with pytest.raises(HandshakeError) as failure:
            server.accept()
        assert failure.value.alert is Alert.DECRYPT_ERROR


@shows("external PSK with key exchange", peer="NSS", they="server")
@pytest.mark.parametrize(("suite", "number"), NSS_SUITES)
def test_nss_as_server(nss: Nss, suite: str, number: str) -> None:
    port = free_udp_port()
    database = nss.database(own=certificates.server())
    with nss.server(port, database, "-c", f":{number}", *nss_key(DEVICE)) as program:
        client = DatagramClient(psks.client(DEVICE), port)
        client.handshake()
        session = client.connection.session
        assert (session.suite.name, session.psk_identity, session.peer) == (suite, b"device", None)
        exchange(client, program)
        client.close()


@shows("unknown PSK, certificate instead", peer="NSS", they="server")
@pytest.mark.requirement("8446-PSK-2")
def test_nss_as_server_does_not_know_our_key(nss: Nss) -> None:
    """It shows its certificate, which our client trusts or, with a key alone, does not."""
    port = free_udp_port()
    stranger = ExternalPsk("stranger", SECRET)
    with nss.server(port, nss.database(own=certificates.server()), *nss_key(DEVICE)) as program:
        client = DatagramClient(psks.client(stranger, trusting=True), port)
        client.handshake()
        assert client.connection.session.psk_identity is None
        assert client.connection.session.peer is not None
        exchange(client, program)
        client.close()


# --- Python's ssl ---------------------------------------------------------------------------------

#: What runs under a Python whose ssl has PSK callbacks (3.13 on); ours may be older.
_THEIR_CLIENT = """
import socket, ssl, sys
port, identity, secret = int(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.set_psk_client_callback(lambda hint: (identity, secret))
with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20)) as secure:
    secure.sendall(b"from python")
    print(secure.recv(100), secure.getpeercert(True), secure.version(), flush=True)
"""
_THEIR_SERVER = """
import socket, ssl, sys
identity, secret = sys.argv[1], bytes.fromhex(sys.argv[2])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.set_psk_server_callback(lambda asked: secret if asked == identity else b"", "hint")
with socket.create_server(("127.0.0.1", 0)) as listener:
    listener.settimeout(20)
    print(listener.getsockname()[1], flush=True)
    with context.wrap_socket(listener.accept()[0], server_side=True) as secure:
        secure.sendall(b"from python")
        print(secure.recv(100), flush=True)
"""


def newer_python() -> list[str]:
    for name in ("python3", "python3.13", "python3.14", "python3.15"):
        path = shutil.which(name)
        if path is not None:
            check = [path, "-c", "import ssl; raise SystemExit(not getattr(ssl, 'HAS_PSK', False))"]
            if subprocess.run(check, capture_output=True, timeout=30, check=False).returncode == 0:
                return [path, "-I", "-c"]
    # No Debian 12 package brings one, so this is a skip everywhere, and counted as one.
    pytest.skip("absent: a Python (3.13 on) whose ssl has PSK callbacks")


@shows("external PSK with key exchange", peer="Python ssl", they="client")
def test_python_as_client(tmp_path: Path) -> None:
    python = newer_python()
    with listen() as listener:
        theirs = [_THEIR_CLIENT, str(port_of(listener)), "device", SECRET.hex()]
        with running([*python, *theirs], tmp_path) as program:
            stream = accepted(listener, DEVICE)
            stream.handshake()
            assert stream.connection.session.psk_identity == b"device"
            assert stream.receive(11) == b"from python"
            stream.send(b"from sealwire")
            assert program.wait() == 0, program.said
            assert program.output == b"b'from sealwire' None TLSv1.3\n"


@shows("external PSK with key exchange", peer="Python ssl", they="server")
def test_python_as_server(tmp_path: Path) -> None:
    python = newer_python()
    with running([*python, _THEIR_SERVER, "device", SECRET.hex()], tmp_path) as program:
        program.wait_for(lambda: program.output.endswith(b"\n"), "its port")
        stream = connecting(int(program.output), DEVICE)
        stream.handshake()
        assert stream.connection.session.psk_identity == b"device"
        assert stream.receive(11) == b"from python"
        stream.send(b"from sealwire")
        program.wait_for(lambda: b"b'from sealwire'\n" in program.output, "our line")
