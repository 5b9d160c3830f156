"""Options about who the peer is: staples, raw public keys, compression, keys without an exchange."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sealwire.cli import main
from sealwire.cli.say import Exit
from tests.staples import REVOKED, staple
from tests.unit.cli.running import sealwire, serving

BOTH = pytest.mark.parametrize("transport", [(), ("--stream",)], ids=["dtls", "stream"])


def public_of(key: Path, out: Path) -> Path:
    private = load_pem_private_key(key.read_bytes(), None)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    out.write_bytes(pem)
    return out


def staple_for(pki: Path, out: Path, **changes: object) -> Path:
    leaf = x509.load_pem_x509_certificate((pki / "server.pem").read_bytes())
    issuer = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    key = load_pem_private_key((pki / "ca.key").read_bytes(), None)
    out.write_bytes(staple(leaf, issuer, key, **changes))  # type: ignore[arg-type]
    return out


@BOTH
def test_raw_public_keys_on_both_sides(pki: Path, tmp_path: Path, transport: tuple[str, ...]) -> None:
    server_key = public_of(pki / "server.key", tmp_path / "server.pub")
    client_key = public_of(pki / "client.key", tmp_path / "client.pub")
    listed = tmp_path / "listed.pub"
    listed.write_bytes(server_key.read_bytes() + client_key.read_bytes())
    with serving(
        "--listen", "127.0.0.1:0", "--echo", "--key", pki / "server.key", "--enable-server-rpk",
        "--expected-rpks", listed, *transport,
    ) as server:  # fmt: skip
        where = f"127.0.0.1:{server.port}"
        own: tuple[str | Path, ...] = ("--key", pki / "client.key", "--enable-client-rpk", *transport)
        ended = sealwire("connect", where, "--expected-rpks", server_key, *own, given=b"hello")
        assert (ended.code, ended.out) == (0, b"hello"), ended.err
        assert "peer has raw public key sha256:" in ended.err
        connected = server.next_object()
        assert connected["raw_public_key"].startswith("sha256:")
        assert connected["peer"] is None
        # Another key than the server's, and a client without one.
        refused = sealwire("connect", where, "--expected-rpks", client_key, *own)
        assert refused.code == Exit.NO
        assert "not among the trusted" in refused.err
        nobody = sealwire("connect", where, "--expected-rpks", server_key, *transport)
        assert nobody.code == Exit.NO
        assert "certificate_required" in nobody.err


@BOTH
def test_staples(pki: Path, tmp_path: Path, transport: tuple[str, ...]) -> None:
    file = staple_for(pki, tmp_path / "staple.der")
    with serving(
        "--listen", "127.0.0.1:0", "--echo", "--cert", pki / "server.pem", "--key", pki / "server.key",
        "--status-file", file, *transport,
    ) as server:  # fmt: skip
        where = f"localhost:{server.port}"
        trust: tuple[str | Path, ...] = ("--cafile", pki / "ca.pem", *transport)
        for mode, told in (("required", True), ("optional", True), ("none", False)):
            ended = sealwire("--json", "connect", where, "--status", mode, *trust)
            assert ended.code == 0, ended
            assert ended.objects[0]["stapled"] is told
        # The file is read again: now it says something else.
        staple_for(pki, file, status=REVOKED)
        ended = sealwire("connect", where, *trust)
        assert ended.code == Exit.NO
        assert "revoked" in ended.err
        file.unlink()
        assert sealwire("connect", where, *trust).code == 0
        missing = sealwire("connect", where, "--status", "required", *trust)
        assert missing.code == Exit.NO
        assert "without an OCSP response" in missing.err
        assert "--status" in missing.err


@BOTH
def test_compressed_certificates(pki: Path, transport: tuple[str, ...]) -> None:
    with serving(
        "--listen", "127.0.0.1:0", "--echo", "--cert", pki / "server.pem", "--key", pki / "server.key",
        "--cert-comp", "zlib", *transport,
    ) as server:  # fmt: skip
        ended = sealwire(
            "connect", f"localhost:{server.port}", "--cafile", pki / "ca.pem", "--cert-comp", "zlib",
            *transport, given=b"hello",
        )  # fmt: skip
        assert (ended.code, ended.out) == (0, b"hello"), ended.err


def test_keys_without_an_exchange_are_allowed_on_both_sides(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("00112233445566778899aabbccddeeff")
    with serving("--listen", "127.0.0.1:0", "--echo", "--psk", f"@{key}", "--allow-no-dhe-kex") as server:
        where = f"127.0.0.1:{server.port}"
        ended = sealwire("connect", where, "--psk", f"@{key}", "--allow-no-dhe-kex", given=b"hello")
        # Allowed is not preferred: an exchange both can do is done.
        assert (ended.code, ended.out) == (0, b"hello")
        assert "X25519" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("serve", "--enable-server-rpk"), Exit.USAGE, "without a key"),
        (("serve", "--key", "server.key"), Exit.USAGE, "--enable-server-rpk"),
        (("serve", "--status-file", "x", "--enable-server-rpk", "--key", "server.key"), Exit.USAGE, "--cert"),
        (("serve", "--cert", "server.pem", "--key", "server.key", "--status-file", "absent"),
         Exit.ENVIRONMENT, "--status-file"),
        (("serve", "--cert", "server.pem", "--key", "server.key", "--status-file", "ca.pem"),
         Exit.ENVIRONMENT, "OCSP response cannot be decoded"),
        (("serve", "--cert", "server.pem", "--key", "server.key", "--cert-comp", "lzma"), Exit.USAGE, "lzma"),
        (("connect", "localhost:1", "--enable-client-rpk"), Exit.USAGE, "without a key"),
        (("connect", "localhost:1", "--key", "client.key"), Exit.USAGE, "--enable-client-rpk"),
        (("connect", "localhost:1", "--expected-rpks", "absent"), Exit.ENVIRONMENT, "--expected-rpks"),
        (("connect", "localhost:1", "--expected-rpks", "ca.pem"), Exit.ENVIRONMENT, "--expected-rpks"),
        (("connect", "localhost:1", "--enable-client-rpk", "--key", "ca.pem"), Exit.ENVIRONMENT, "--key"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    pki: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: Exit,
    words: str,
) -> None:
    monkeypatch.chdir(pki)
    assert main(list(arguments)) == code
    assert words in capsys.readouterr().err


def test_a_file_of_der_will_do(pki: Path, tmp_path: Path) -> None:
    pem = public_of(pki / "server.key", tmp_path / "a.pub")
    der = tmp_path / "a.der"
    subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", pem, "-outform", "DER", "-out", der], check=True, timeout=60
    )
    assert main(["connect", "127.0.0.1:1", "--timeout", "0.1", "--expected-rpks", str(der)]) != Exit.USAGE
