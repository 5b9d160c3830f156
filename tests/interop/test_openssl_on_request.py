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
from tests.interop.programs import Openssl, Program
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


# --- what OpenSSL 3.5 has and 3.0 has not, and the rest of its words --------------------------

HYBRIDS = ("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024")


@shows("{group}", they="client")
@pytest.mark.parametrize("group", HYBRIDS)
def test_s_client_with_each_hybrid_group(newer_openssl: Openssl, group: str) -> None:
    context = configs.server_context(groups=[group])
    said = served(context, newer_openssl, certificates.server().cafile, "-groups", group)
    assert "Verification: OK" in said


@shows("{group}", "server name", they="server")
@pytest.mark.parametrize("group", HYBRIDS)
def test_s_server_with_each_hybrid_group(newer_openssl: Openssl, group: str) -> None:
    identity = certificates.server()
    options: list[str | Path] = ["-rev", "-groups", group, "-servername", "localhost", "-servername_fatal"]
    options += ["-cert2", identity.certfile, "-key2", identity.keyfile]
    with newer_openssl.server(identity, *options) as (_, port):
        stream = connected(port, configs.client_context(groups=[group]))
        assert stream.connection.session.group is not None
        stream.send(b"drawer\n")
        assert stream.receive(7) == b"reward\n"
        stream.close()


EXPORT = ("-keymatexport", "EXPORTER-sealwire-interop", "-keymatexportlen", "32")


@shows("exporter", "KeyUpdate by us", "KeyUpdate by them", they="client")
def test_s_client_exports_the_same_and_updates_keys(openssl: Openssl) -> None:
    context = configs.server_context()
    cafile = certificates.server().cafile
    with (
        listen() as listener,
        openssl.client(port_of(listener), cafile, *EXPORT, brief=False) as program,
    ):
        sock, _ = listener.accept()
        stream = Stream(sock, stcp.Connection.server(context.config(), now=time.monotonic()))
        stream.handshake()
        check_export_and_updates(stream, program)


@shows("exporter", "KeyUpdate by us", "KeyUpdate by them", "long chain", they="server")
def test_s_server_exports_the_same_and_updates_keys(openssl: Openssl) -> None:
    identity = certificates.large_server(15_000)
    with openssl.server(identity, *EXPORT) as (program, port):
        stream = connected(port, configs.client_context(identity.cafile))
        check_export_and_updates(stream, program)


def check_export_and_updates(stream: Stream, program: Program) -> None:
    connection = stream.connection
    stream.flush()
    # Without a context, which is another thing than an empty one before TLS 1.3 and the same since.
    ours = connection.export(b"EXPORTER-sealwire-interop", b"", 32).hex().upper()
    program.wait_for(lambda: f"Keying material: {ours}" in program.said, "its keying material")
    echo_once(stream, program)
    for request in (False, True):
        connection.update_keys(request_peer=request)
        # OpenSSL answers with the first it writes after it has read the request.
        echo_once(stream, program)
        echo_once(stream, program)
    usage = connection.key_usage
    assert (usage.sending_epoch, usage.receiving_epoch) == (5, 4)
    stream.close()
