"""What peers cannot do, and how we know: what docs/interop.md says of it is tested here.

When a newer peer learns something, its test here fails, and the page gets a better line.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sealwire.context import PROTOCOL_CLIENT, Context
from sealwire.crypto.groups import Group
from sealwire.crypto.psk import ExternalPsk
from sealwire.errors import HandshakeError, PeerAlert, ProtocolError
from tests import certificates, configs, psks
from tests.certificates import Kind
from tests.interop.driven import exchange
from tests.interop.programs import Nss, Openssl
from tests.interop.sockets import DatagramClient, DatagramServer
from tests.interop.test_nss_driven import driven, served
from tests.interop.test_openssl import accepted, connected, echo_once, our_server
from tests.interop.wolfssl import Wolfssl
from tests.psks import SECRET
from tests.unit.tls13.test_raw_public_keys import spki


def exported(library: Path) -> str:
    """The names a library has for others, and whatever else is text in it."""
    return library.read_bytes().decode("latin-1")


# --- wolfSSL ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["wolfSSL_write_early_data", "wolfSSL_CTX_compress_certs", "record_size_limit", "short_header"],
)
def test_wolfssl_has_no_such_function(wolfssl: Wolfssl, name: str) -> None:
    text = exported(wolfssl.root / "lib" / "libwolfssl")
    assert "wolfSSL_dtls_cid_use" in text
    assert name not in text


def test_wolfssl_answers_no_path_challenge(wolfssl: Wolfssl) -> None:
    server = DatagramServer(configs.server_context().config(), cid_bytes=8)
    with wolfssl.client(server.port, certificates.server(), cid="0102") as peer:
        connection = server.accept()
        assert connection.connection_ids.negotiated
        assert not connection.connection_ids.return_routability
        exchange(server, connection, peer)


def test_wolfssl_ends_the_connection_when_asked_for_connection_ids(wolfssl: Wolfssl) -> None:
    with wolfssl.server(certificates.server(), cid="0102") as (peer, port):
        context = configs.client_context(groups=["X25519"])
        client = DatagramClient(context.config(), port, connection_id=b"us")
        client.handshake()
        peer.wait_for("connected", client)
        client.connection.request_connection_ids(1)
        client.run_until(lambda: client.connection.error is not None, "its alert")
        assert isinstance(client.connection.error, PeerAlert)


def test_wolfssl_as_client_sends_no_split_first_hello(wolfssl: Wolfssl) -> None:
    """For a hybrid group it leaves the share to the second hello."""
    server = DatagramServer(configs.server_context().config(), require_cookie=False)
    with wolfssl.client(server.port, certificates.server()) as peer:
        connection = server.accept()
        assert connection.session.group is Group.X25519MLKEM768
        assert connection.session.retried
        exchange(server, connection, peer)


# --- NSS --------------------------------------------------------------------------------------


def test_nss_has_no_connection_ids(nss: Nss) -> None:
    server = DatagramServer(configs.server_context().config(), cid_bytes=8)
    with driven(nss, "client", nss.database(trust=certificates.server()), port=server.port):
        assert not server.accept().connection_ids.negotiated
    with served(nss, nss.database(own=certificates.server())) as (_, port):
        client = DatagramClient(configs.client_context().config(), port, connection_id=b"us")
        client.handshake()
        assert not client.connection.connection_ids.negotiated


@pytest.mark.parametrize("word", ["X448", "SECP256R1MLKEM768", "SECP384R1MLKEM1024"])
def test_nss_lists_no_such_group(nss: Nss, word: str) -> None:
    tstclnt = [str(nss.root / "bin" / "tstclnt"), "-H"]
    said = subprocess.run(tstclnt, capture_output=True, timeout=30, check=False, env=nss.environment)
    listed = (said.stdout + said.stderr).decode().upper()
    assert "X25519" in listed
    assert word not in listed


def test_nss_has_no_ccm_for_tls_1_3(nss: Nss) -> None:
    with served(nss, nss.database(own=certificates.server())) as (peer, _):
        assert peer.wait_for("version")["suites"] == [0x1301, 0x1303, 0x1302]


def test_nss_verifies_no_ed25519(nss: Nss) -> None:
    identity = certificates.server(Kind.ED25519)
    server = DatagramServer(configs.server_context(identity).config())
    with (
        driven(nss, "client", nss.database(trust=identity), port=server.port),
        pytest.raises(ProtocolError),
    ):
        server.accept()


def test_nss_wants_a_key_exchange_with_every_key(nss: Nss) -> None:
    key = ExternalPsk("device", SECRET)
    context = psks.server_context(key)
    context.set_psk_key_exchange_modes("psk_ke", allow_without_forward_secrecy=True)
    server = DatagramServer(context.config())
    psk = {"identity": "device", "secret": SECRET.hex()}
    with driven(nss, "client", nss.database(), port=server.port, psk=psk), pytest.raises(HandshakeError):
        server.accept()
    ours = psks.client_context(key)
    ours.set_psk_key_exchange_modes("psk_ke", allow_without_forward_secrecy=True)
    with (
        served(nss, nss.database(own=certificates.server()), psk=psk) as (_, port),
        pytest.raises(PeerAlert),
    ):
        DatagramClient(ours.config(), port).handshake()


def test_nss_shows_no_raw_public_key(nss: Nss) -> None:
    context = Context(PROTOCOL_CLIENT)
    context.check_hostname = False
    context.set_raw_public_keys([spki(certificates.server().keyfile)])
    with served(nss, nss.database(own=certificates.server())) as (_, port), pytest.raises(ProtocolError):
        DatagramClient(context.config(), port).handshake()


# --- OpenSSL ----------------------------------------------------------------------------------


def test_openssl_has_no_record_size_limit(newer_openssl: Openssl) -> None:
    context = configs.server_context()
    context.record_size_limit = 500
    cafile = certificates.server().cafile
    with our_server(context) as (listener, port), newer_openssl.client(port, cafile) as program:
        stream = accepted(listener, context)
        stream.handshake()
        assert stream.connection.session.record_limits is None
        echo_once(stream, program)
        stream.close()
    asking = configs.client_context()
    asking.record_size_limit = 500
    with newer_openssl.server(certificates.server()) as (_, port):
        stream = connected(port, asking)
        assert stream.connection.session.record_limits is None
        stream.close()
