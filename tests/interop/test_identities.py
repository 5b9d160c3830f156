"""Who the peer is, with OpenSSL over streams: raw public keys, staples, compressed certificates, psk_ke.

Raw keys and compression need OpenSSL 3.2; the system's is older, so install_peers brings a newer one.
s_client and s_server check a raw key by a TLSA record (DANE), which is the hash of the key here.
"""

from __future__ import annotations

import datetime
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sealwire.context import STAPLE_OPTIONAL, STAPLE_REQUIRED, Context
from sealwire.crypto.certificates import RawPublicKey
from sealwire.crypto.compression import decompress
from sealwire.crypto.ocsp import judge
from sealwire.errors import Alert, CertificateError, CertificateFailure, PeerAlert
from sealwire.tls13.messages import CompressedCertificate
from tests import certificates, configs, psks
from tests.certificates import Identity, Kind
from tests.interop.features import shows
from tests.interop.programs import Openssl
from tests.interop.test_openssl import accepted, connected, echo_once, our_server
from tests.psks import DEVICE, SECRET
from tests.staples import REVOKED, staple
from tests.unit.crypto.authority import authority, issue
from tests.unit.tls13.test_raw_public_keys import client_context, server_context, spki

EACH_KIND = pytest.mark.parametrize("kind", [Kind.ECDSA_P256, Kind.RSA_2048, Kind.ED25519])


def staple_of(identity: Identity, **changes: Any) -> bytes:
    leaf = x509.load_der_x509_certificate(identity.chain[0])
    return staple(leaf, *certificates.root_of(identity), **changes)


def tlsa(identity: Identity) -> list[str]:
    """Options by which s_client knows the key of `identity`."""
    digest = hashlib.sha256(spki(identity.keyfile)).hexdigest()
    return [
        "-dane_tlsa_domain", "localhost", "-dane_tlsa_rrdata", f"3 1 1 {digest}", "-dane_ee_no_namechecks",
    ]  # fmt: skip


# --- raw public keys ----------------------------------------------------------------------------------


@shows("raw public keys", peer="OpenSSL", they="client")
@pytest.mark.requirement("7250-1")
@EACH_KIND
def test_s_client_knows_our_key(newer_openssl: Openssl, kind: Kind) -> None:
    identity = certificates.server(kind)
    context = server_context(identity)
    with (
        our_server(context) as (listener, port),
        newer_openssl.client(port, identity.cafile, "-enable_server_rpk", *tlsa(identity)) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        echo_once(stream, program)
        assert "Verification: OK" in program.said
        assert "DANE TLSA 3 1 1" in program.said
        stream.close()
        assert program.wait() == 0


@shows("raw public keys", peer="OpenSSL", they="client")
@pytest.mark.requirement("7250-1")
def test_s_client_refuses_a_key_it_does_not_know(newer_openssl: Openssl) -> None:
    context = server_context()
    other = certificates.server(Kind.ECDSA_P384)
    with (
        our_server(context) as (listener, port),
        newer_openssl.client(port, other.cafile, "-enable_server_rpk", *tlsa(other)) as program,
    ):
        stream = accepted(listener, context)
        with pytest.raises(PeerAlert):
            stream.handshake()
        program.wait()


@shows("raw public keys", peer="OpenSSL", they="client")
@pytest.mark.requirement("7250-1")
@EACH_KIND
def test_s_client_shows_a_key(newer_openssl: Openssl, kind: Kind) -> None:
    own, server = certificates.client(kind), certificates.server()
    context = server_context(certified=True, raw=False, trusts=own)
    with (
        our_server(context) as (listener, port),
        newer_openssl.client(
            port, server.cafile, "-enable_client_rpk", "-cert", own.certfile, "-key", own.keyfile
        ) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        assert stream.connection.session.peer == RawPublicKey(spki(own.keyfile))
        echo_once(stream, program)
        stream.close()
        assert program.wait() == 0


@shows("raw public keys", peer="OpenSSL", they="client")
@pytest.mark.requirement("7250-1")
def test_s_client_with_a_key_we_do_not_know(newer_openssl: Openssl) -> None:
    own, server = certificates.client(), certificates.server()
    context = server_context(certified=True, raw=False, trusts=certificates.client(Kind.ECDSA_P384))
    with (
        our_server(context) as (listener, port),
        newer_openssl.client(
            port, server.cafile, "-enable_client_rpk", "-cert", own.certfile, "-key", own.keyfile
        ) as program,
    ):
        stream = accepted(listener, context)
        with pytest.raises(CertificateError, match="not among the trusted"):
            stream.handshake()
        program.wait_for(lambda: "certificate unknown" in program.said, "our alert")


@shows("raw public keys", peer="OpenSSL", they="server")
@pytest.mark.requirement("7250-1")
@EACH_KIND
def test_s_server_shows_a_key(newer_openssl: Openssl, kind: Kind) -> None:
    identity = certificates.server(kind)
    with newer_openssl.server(identity, "-rev", "-enable_server_rpk") as (_, port):
        stream = connected(port, client_context(trusts=identity))
        assert stream.connection.session.peer == RawPublicKey(spki(identity.keyfile))
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        stream.close()


@shows("raw public keys", peer="OpenSSL", they="server")
@pytest.mark.requirement("7250-1")
def test_s_server_with_a_key_we_do_not_know_or_none_at_all(newer_openssl: Openssl) -> None:
    identity = certificates.server()
    with (
        newer_openssl.server(identity, "-rev", "-enable_server_rpk") as (_, port),
        pytest.raises(CertificateError, match="not among the trusted"),
    ):
        connected(port, client_context(trusts=certificates.client()))
    # It was not told to show one: it has a certificate, and the client takes raw keys alone.
    with (
        newer_openssl.server(identity, "-rev") as (_, port),
        pytest.raises(CertificateError, match="only raw public keys") as caught,
    ):
        connected(port, client_context(trusts=identity))
    assert caught.value.alert is Alert.UNSUPPORTED_CERTIFICATE


@shows("raw public keys", peer="OpenSSL", they="server")
@pytest.mark.requirement("7250-1")
def test_s_server_asks_for_a_key(newer_openssl: Openssl) -> None:
    identity, own = certificates.server(), certificates.client()
    with newer_openssl.server(
        identity, "-rev", "-enable_server_rpk", "-enable_client_rpk", "-verify", "1"
    ) as (program, port):
        stream = connected(port, client_context(trusts=identity, raw=own))
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        assert "raw public key" in program.said.lower()
        stream.close()


# --- staples ------------------------------------------------------------------------------------------


@shows("stapled OCSP response", peer="OpenSSL", they="client")
@pytest.mark.requirement("8446-AUTH-6")
def test_s_client_gets_our_staple(each_openssl: Openssl) -> None:
    identity = certificates.server()
    context = configs.server_context()
    context.load_cert_chain(identity.certfile, identity.keyfile, ocsp_response=staple_of(identity))
    with (
        our_server(context) as (listener, port),
        each_openssl.client(port, identity.cafile, "-status", brief=False) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        echo_once(stream, program)
        assert "OCSP Response Status: successful" in program.said
        assert "Cert Status: good" in program.said
        stream.close()
        assert program.wait() == 0


@shows("stapled OCSP response", peer="OpenSSL", they="server")
@pytest.mark.requirement("8446-AUTH-6")
@pytest.mark.parametrize("mode", [STAPLE_OPTIONAL, STAPLE_REQUIRED])
def test_s_server_staples(each_openssl: Openssl, tmp_path: Path, mode: Any) -> None:
    identity = certificates.server()
    file = tmp_path / "staple.der"
    file.write_bytes(staple_of(identity))
    with each_openssl.server(identity, "-rev", "-status_file", file) as (_, port):
        context = configs.client_context()
        context.staple_mode = mode
        stream = connected(port, context)
        peer = stream.connection.session.peer_certificate
        assert peer is not None
        assert peer.ocsp_response == file.read_bytes()
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        stream.close()


@shows("stapled OCSP response", peer="OpenSSL", they="server")
@pytest.mark.requirement("8446-AUTH-5", "8446-AUTH-6")
def test_s_server_that_was_revoked(each_openssl: Openssl, tmp_path: Path) -> None:
    identity = certificates.server()
    file = tmp_path / "staple.der"
    file.write_bytes(staple_of(identity, status=REVOKED))
    with each_openssl.server(identity, "-rev", "-status_file", file) as (program, port):
        with pytest.raises(CertificateError, match="revoked") as caught:
            connected(port, configs.client_context())
        assert caught.value.failure is CertificateFailure.REVOKED
        program.wait_for(lambda: "certificate revoked" in program.said, "our alert")


@pytest.mark.requirement("8446-AUTH-6")
def test_s_server_without_the_staple_we_want(each_openssl: Openssl) -> None:
    with each_openssl.server(certificates.server(), "-rev") as (program, port):
        context = configs.client_context()
        context.staple_mode = STAPLE_REQUIRED
        with pytest.raises(CertificateError, match="without an OCSP response"):
            connected(port, context)
        program.wait_for(lambda: "bad certificate status response" in program.said, "our alert")


@pytest.mark.parametrize("state", ["V", "R"], ids=["valid", "revoked"])
def test_a_response_that_openssl_made(each_openssl: Openssl, tmp_path: Path, state: str) -> None:
    """`openssl ocsp` as responder, with a certificate for that, as our own parts judge it."""
    now = datetime.datetime.now(datetime.UTC)
    root = authority("Root", now=now)
    leaf = issue("leaf", root, names=["leaf.test"], now=now)
    responder = issue("responder", root, usages=[ExtendedKeyUsageOID.OCSP_SIGNING], now=now)
    for name, one in (("root", root), ("leaf", leaf), ("responder", responder)):
        (tmp_path / name).write_bytes(one.pem)
    (tmp_path / "key").write_bytes(responder.key_pem())
    serial = leaf.certificate.serial_number.to_bytes(20, "big").hex().upper().removeprefix("00")
    revoked = "250101000000Z" if state == "R" else ""
    (tmp_path / "index").write_text(f"{state}\t350101000000Z\t{revoked}\t{serial}\tunknown\t/CN=leaf\n")
    subprocess.run(
        [*map(str, each_openssl.command), "ocsp", "-index", "index", "-rsigner", "responder", "-rkey", "key",
         "-CA", "root", "-issuer", "root", "-sha256", "-cert", "leaf", "-ndays", "1", "-respout", "response",
         "-noverify", "-no_nonce"],
        check=True, capture_output=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    response = (tmp_path / "response").read_bytes()
    if state == "V":
        judge(response, leaf.certificate, root.certificate, now)
        return
    with pytest.raises(CertificateError) as caught:
        judge(response, leaf.certificate, root.certificate, now)
    assert caught.value.alert is Alert.CERTIFICATE_REVOKED


# --- compressed certificates --------------------------------------------------------------------------


class Spy:
    """Counts how often certificates were packed and unpacked, and how."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unpacked: list[str] = []
        self.packed: list[str] = []

        def unpack(algorithm: Any, *rest: Any) -> bytes:
            self.unpacked.append(algorithm.name)
            return decompress(algorithm, *rest)

        def pack(algorithm: Any, *rest: Any) -> CompressedCertificate:
            self.packed.append(algorithm.name)
            return CompressedCertificate(algorithm, *rest)

        monkeypatch.setattr("sealwire.tls13.acceptance.decompress", unpack)
        monkeypatch.setattr("sealwire.tls13.presentation.CompressedCertificate", pack)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


def compressing(context: Context, algorithm: str) -> Context:
    context.set_certificate_compression(algorithm)
    return context


EACH_ALGORITHM = pytest.mark.parametrize("algorithm", ["zlib", "zstd"])


@shows("certificate compression", peer="OpenSSL", they="client")
@pytest.mark.requirement("8879-1")
@EACH_ALGORITHM
def test_s_client_unpacks_and_packs(newer_openssl: Openssl, spy: Spy, algorithm: str) -> None:
    identity, own = certificates.server(intermediates=2), certificates.client(intermediates=2)
    context = compressing(configs.server_context(identity, client_roots=own.cafile), algorithm)
    with (
        our_server(context) as (listener, port),
        newer_openssl.client(
            port, identity.cafile, "-cert", own.certfile, "-key", own.keyfile, "-cert_chain", own.certfile
        ) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        echo_once(stream, program)
        assert "Verification: OK" in program.said
        assert spy.packed == [algorithm.upper()]
        assert spy.unpacked == [algorithm.upper()]
        assert stream.connection.session.peer_certificate is not None
        assert stream.connection.session.peer_certificate.chain[0] == own.chain[0]
        stream.close()
        assert program.wait() == 0


@shows("certificate compression", peer="OpenSSL", they="server")
@pytest.mark.requirement("8879-1")
@EACH_ALGORITHM
def test_s_server_packs_and_unpacks(newer_openssl: Openssl, spy: Spy, algorithm: str) -> None:
    identity, own = certificates.server(intermediates=2), certificates.client(intermediates=2)
    with newer_openssl.server(
        identity, "-rev", "-cert_comp", "-Verify", "3", "-CAfile", own.cafile, "-verify_return_error"
    ) as (_, port):
        context = configs.client_context(identity.cafile, identity=own)
        stream = connected(port, compressing(context, algorithm))
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        assert spy.unpacked == [algorithm.upper()]
        assert spy.packed == [algorithm.upper()]
        assert stream.connection.session.peer_certificate is not None
        # It shows its own certificate twice.
        assert set(stream.connection.session.peer_certificate.chain) == set(identity.chain)
        stream.close()


def test_s_client_that_wants_none(newer_openssl: Openssl, spy: Spy) -> None:
    context = compressing(configs.server_context(), "zlib")
    with (
        our_server(context) as (listener, port),
        newer_openssl.client(port, certificates.server().cafile, "-no_rx_cert_comp") as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        echo_once(stream, program)
        assert spy.packed == []
        stream.close()
        assert program.wait() == 0


# --- keys without an exchange -------------------------------------------------------------------------

KEY = ("-psk_identity", "device", "-psk", SECRET.hex())


def alone(context: Context, modes: str) -> Context:
    context.set_psk_key_exchange_modes(modes, allow_without_forward_secrecy=True)
    return context


@shows("external PSK alone (psk_ke)", peer="OpenSSL", they="client")
@pytest.mark.requirement("8446-PSK-1")
def test_s_client_goes_without_an_exchange(each_openssl: Openssl) -> None:
    context = alone(psks.server_context(DEVICE), "psk_ke:psk_dhe_ke")
    with (
        our_server(context) as (listener, port),
        each_openssl.client(port, certificates.server().cafile, *KEY, "-allow_no_dhe_kex") as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        assert stream.connection.session.group is None
        assert stream.connection.session.psk_identity == b"device"
        echo_once(stream, program)
        stream.close()
        program.wait()


@shows("external PSK alone (psk_ke)", peer="OpenSSL", they="server")
@pytest.mark.requirement("8446-PSK-1")
@pytest.mark.parametrize("modes", ["psk_ke", "psk_dhe_ke:psk_ke"])
def test_s_server_goes_without_an_exchange(each_openssl: Openssl, modes: str) -> None:
    with each_openssl.server(certificates.server(), "-rev", *KEY, "-allow_no_dhe_kex") as (_, port):
        stream = connected(port, alone(psks.client_context(DEVICE), modes))
        # With both allowed it prefers the exchange.
        assert (stream.connection.session.group is None) is (modes == "psk_ke")
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        stream.close()


@pytest.mark.requirement("8446-PSK-1")
def test_s_server_that_does_not_allow_it(each_openssl: Openssl) -> None:
    with each_openssl.server(certificates.server(), "-rev", *KEY) as (_, port), pytest.raises(PeerAlert):
        connected(port, alone(psks.client_context(DEVICE), "psk_ke"))
