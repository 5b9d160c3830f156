"""openssl s_client and s_server with what is off by default: CCM, more groups, Ed448, keys elsewhere."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

from sealwire import stcp
from sealwire.context import PROTOCOL_SERVER, Context
from sealwire.crypto.signatures import SignatureScheme, sign
from tests import certificates, configs
from tests.interop import features
from tests.interop.programs import Openssl
from tests.interop.sockets import Stream, listen, port_of
from tests.interop.test_openssl import connected, echo_once
from tests.unit.crypto.authority import authority, issue, rsa_key

shows = functools.partial(features.shows, peer="OpenSSL")

ALGORITHMS = [
    ("TLS_AES_128_CCM_SHA256", "P-521"),
    ("TLS_AES_128_CCM_SHA256", "X448"),
    ("TLS_AES_128_CCM_8_SHA256", "X448"),
    ("TLS_AES_256_GCM_SHA384", "P-521"),
]
each_algorithm = pytest.mark.parametrize(("suite", "group"), ALGORITHMS)


def chosen(context: Context, suite: str, group: str) -> Context:
    context.set_ciphersuites(suite, allow_short_tags=True)
    context.set_groups(group)
    return context


def served(context: Context, openssl: Openssl, cafile: Path, *options: str) -> str:
    """What s_client says of a connection to `context`, once a line went each way."""
    with listen() as listener, openssl.client(port_of(listener), cafile, *options) as program:
        sock, _ = listener.accept()
        stream = Stream(sock, stcp.Connection.server(context.config(), now=time.monotonic()))
        stream.handshake()
        echo_once(stream, program)
        stream.close()
        assert program.wait() == 0
        return program.said


# OpenSSL allows CCM_8, whose tag is short, from security level 0 on.
CIPHERS = ("-cipher", "DEFAULT@SECLEVEL=0", "-ciphersuites")


@shows("{suite}", "{group}", they="client")
@each_algorithm
def test_s_client(openssl: Openssl, suite: str, group: str) -> None:
    context = chosen(configs.server_context(), suite, group)
    said = served(context, openssl, certificates.server().cafile, *CIPHERS, suite, "-groups", group)
    assert f"Ciphersuite: {suite}" in said
    assert "Verification: OK" in said


@shows("{suite}", "{group}", they="server")
@each_algorithm
def test_s_server(openssl: Openssl, suite: str, group: str) -> None:
    context = chosen(configs.client_context(), suite, group)
    with openssl.server(certificates.server(), "-rev", *CIPHERS, suite, "-groups", group) as (program, port):
        stream = connected(port, context)
        assert stream.connection.session.suite.name == suite
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        assert f"Ciphersuite: {suite}" in program.said
        stream.close()


def test_an_ed448_certificate_for_s_client(openssl: Openssl, tmp_path: Path) -> None:
    # Of today, and not of the day other tests of certificates are judged by.
    root = authority(days=(-4000, 4000))
    leaf = issue("localhost", root, key=Ed448PrivateKey.generate(), names=["localhost"], days=(-4000, 4000))
    (tmp_path / "root.pem").write_bytes(root.pem)
    (tmp_path / "both.pem").write_bytes(leaf.pem + leaf.key_pem())
    context = Context(PROTOCOL_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    said = served(context, openssl, tmp_path / "root.pem")
    assert "signature type: ed448" in said.lower()
    assert "Verification: OK" in said


def test_a_key_behind_a_function_for_s_client(openssl: Openssl) -> None:
    identity = certificates.server()
    files = Context(PROTOCOL_SERVER)
    files.load_cert_chain(identity.certfile, identity.keyfile)
    (loaded,) = files.config().credentials
    asked: list[SignatureScheme] = []

    def elsewhere(scheme: SignatureScheme, content: bytes) -> bytes:
        asked.append(scheme)
        return loaded.sign(scheme, content)

    context = Context(PROTOCOL_SERVER)
    context.load_cert_chain(identity.certfile, sign=elsewhere)
    assert "Verification: OK" in served(context, openssl, identity.cafile)
    assert len(asked) == 1


@pytest.mark.parametrize("cipher", ["aes-256-cbc", "aes-128-cbc"])
def test_a_pkcs12_file_openssl_made(program: Callable[[str], str], tmp_path: Path, cipher: str) -> None:
    root = authority()
    middle = authority("Middle", root)
    leaf = issue("server", middle, key=rsa_key(), names=["server.test"])
    (tmp_path / "all.pem").write_bytes(leaf.pem + root.pem + middle.pem + leaf.key_pem())
    subprocess.run(
        [
            *(
                program("openssl"),
                "pkcs12",
                "-export",
                "-in",
                tmp_path / "all.pem",
                "-out",
                tmp_path / "a.p12",
            ),
            *("-passout", "pass:secret", "-keypbe", cipher, "-certpbe", cipher),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    context = Context(PROTOCOL_SERVER)
    context.load_pkcs12(tmp_path / "a.p12", "secret")
    (credential,) = context.config().credentials
    assert credential.chain == (leaf.der, middle.der)
    scheme = credential.schemes[0]
    assert len(credential.sign(scheme, b"c")) == len(sign(leaf.key, scheme, b"c"))
