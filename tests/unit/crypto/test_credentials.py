"""Credentials: what loads, and one sentence for each thing that does not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sealwire.crypto.certificates import leaf_public_key
from sealwire.crypto.credentials import Password, load_credential
from sealwire.crypto.signatures import SignatureScheme, schemes_for, verify
from sealwire.errors import ConfigurationError
from tests.unit.crypto.authority import Issued, authority, ec_key, issue, rsa_key

ROOT = authority()
LEAF = issue("server", ROOT, names=["Server.test", "*.wild.test", "192.0.2.1"])


def write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def refused(words: str, *args: object) -> str:
    """The sentence a ConfigurationError says; `words` must be in it, and a next step after ':' or ';'."""
    with pytest.raises(ConfigurationError) as caught:
        load_credential(*args)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert words in sentence
    assert "\n" not in sentence
    assert ": " in sentence or "; " in sentence
    return sentence


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec_key(), "ecdsa"),
        (ec.generate_private_key(ec.SECP384R1()), "ecdsa"),
        (ec.generate_private_key(ec.SECP521R1()), "ecdsa"),
        (rsa_key(), "rsa"),
        (Ed25519PrivateKey.generate(), "ed25519"),
        (Ed448PrivateKey.generate(), "ed448"),
    ],
    ids=["p256", "p384", "p521", "rsa", "ed25519", "ed448"],
)
def test_every_kind_of_key(tmp_path: Path, key: ec.EllipticCurvePrivateKey, kind: str) -> None:
    leaf = issue("server", ROOT, key=key, names=["server.test"])
    credential = load_credential(
        write(tmp_path / "chain.pem", leaf.pem, ROOT.pem), write(tmp_path / "key.pem", leaf.key_pem())
    )
    assert credential.chain == (leaf.der, ROOT.der)
    assert credential.kind == kind
    public = leaf_public_key(credential.chain[0])
    assert credential.schemes == schemes_for(public) != ()
    for scheme in credential.schemes:
        verify(public, scheme, credential.sign(scheme, b"content"), b"content")
    with pytest.raises(ConfigurationError, match="cannot sign with ECDSA_SHA1"):
        credential.sign(SignatureScheme.ECDSA_SHA1, b"content")


def test_an_ml_dsa_key(tmp_path: Path) -> None:
    try:
        key = MLDSA65PrivateKey.generate()
    except UnsupportedAlgorithm:
        pytest.skip("absent: an OpenSSL with ML-DSA beneath cryptography")
    leaf = issue("server", ROOT, key=key, names=["server.test"])
    credential = load_credential(write(tmp_path / "both.pem", leaf.pem, leaf.key_pem()))
    assert (credential.kind, credential.schemes) == ("mldsa65", (SignatureScheme.MLDSA65,))
    signature = credential.sign(SignatureScheme.MLDSA65, b"content")
    verify(leaf_public_key(leaf.der), SignatureScheme.MLDSA65, signature, b"content")


@pytest.mark.parametrize(
    ("digest", "hash_name"), [(None, ""), ("sha256", "sha256"), ("sha384", "sha384"), ("sha512", "sha512")]
)
def test_an_rsa_pss_key_keeps_to_its_parameters(
    tmp_path: Path, program: Callable[[str], str], digest: str | None, hash_name: str
) -> None:
    options = ["-pkeyopt", "rsa_keygen_bits:2048"]
    if digest is not None:
        size = {"sha256": 32, "sha384": 48, "sha512": 64}[digest]
        for option in (f"md:{digest}", f"mgf1_md:{digest}", f"saltlen:{size}"):
            options += ["-pkeyopt", f"rsa_pss_keygen_{option}"]
    subprocess.run(
        [
            program("openssl"),
            "req",
            "-x509",
            "-newkey",
            "rsa-pss",
            *options,
            "-nodes",
            "-subj",
            "/CN=pss",
            "-keyout",
            tmp_path / "key.pem",
            "-out",
            tmp_path / "cert.pem",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    credential = load_credential(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert credential.kind == "rsa-pss"
    expected = [f"RSA_PSS_PSS_{name.upper()}" for name in ("sha256", "sha384", "sha512")]
    assert [scheme.name for scheme in credential.schemes] == [
        name for name in expected if not hash_name or name.endswith(hash_name.upper())
    ]
    public = leaf_public_key(credential.chain[0])
    for scheme in credential.schemes:
        verify(public, scheme, credential.sign(scheme, b"content"), b"content")
    # The same key must not sign as a general RSA key would.
    with pytest.raises(ConfigurationError):
        credential.sign(SignatureScheme.RSA_PSS_RSAE_SHA256, b"content")


def test_an_rsa_pss_key_with_parameters_of_no_scheme(tmp_path: Path, program: Callable[[str], str]) -> None:
    # RFC 8446 section 4.2.3: parameters, where present, must be those of the signature; salt 20 fits none.
    options = [f"-pkeyopt=rsa_pss_keygen_{one}" for one in ("md:sha256", "mgf1_md:sha256", "saltlen:20")]
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa-pss", "-nodes", "-subj", "/CN=pss"]
        + [part for option in options for part in option.split("=", 1)]
        + ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    refused("RSASSA-PSS parameters", tmp_path / "cert.pem", tmp_path / "key.pem")


def test_key_and_chain_in_one_file_in_any_order(tmp_path: Path) -> None:
    for parts in (
        (LEAF.pem, ROOT.pem, LEAF.key_pem()),
        (LEAF.key_pem(), LEAF.pem),
        (b"notes\n", LEAF.pem, LEAF.key_pem()),
    ):
        path = write(tmp_path / "all.pem", *parts)
        assert load_credential(str(path)).chain[0] == LEAF.der


@pytest.mark.parametrize("format_", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
@pytest.mark.parametrize(
    "password",
    [
        "p\u00e4ss",
        "p\u00e4ss".encode(),
        bytearray("p\u00e4ss".encode()),
        lambda: "p\u00e4ss",
        lambda: "p\u00e4ss".encode(),
    ],
)
def test_an_encrypted_key(tmp_path: Path, format_: PrivateFormat, password: Password) -> None:
    encrypted = LEAF.key.private_bytes(Encoding.PEM, format_, BestAvailableEncryption("p\u00e4ss".encode()))
    certfile = write(tmp_path / "cert.pem", LEAF.pem)
    keyfile = write(tmp_path / "key.pem", encrypted)
    assert load_credential(certfile, keyfile, password).chain == (LEAF.der,)
    assert str(keyfile) in refused("is encrypted", certfile, keyfile)
    assert str(keyfile) in refused("check the password", certfile, keyfile, "wrong")
    assert str(keyfile) in refused("check the password", certfile, keyfile, "")


def test_a_password_is_asked_for_only_when_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "all.pem", LEAF.pem, LEAF.key_pem())

    def ask() -> str:
        raise AssertionError("asked")

    assert load_credential(path, None, ask).chain == (LEAF.der,)
    assert load_credential(path, None, "not needed").chain == (LEAF.der,)


def test_a_password_of_another_type(tmp_path: Path) -> None:
    path = write(tmp_path / "all.pem", LEAF.pem, LEAF.key_pem(b"secret"))
    with pytest.raises(TypeError, match="password"):
        load_credential(path, None, 5)  # type: ignore[arg-type]


def test_a_key_of_another_certificate_names_both_files(tmp_path: Path) -> None:
    certfile = write(tmp_path / "cert.pem", LEAF.pem)
    keyfile = write(tmp_path / "key.pem", issue("other").key_pem())
    sentence = refused("does not match", certfile, keyfile)
    assert str(certfile) in sentence
    assert str(keyfile) in sentence


def test_a_chain_in_the_wrong_order(tmp_path: Path) -> None:
    chain = write(tmp_path / "chain.pem", ROOT.pem, LEAF.pem)
    refused("does not come first", chain, write(tmp_path / "key.pem", LEAF.key_pem()))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    good = write(tmp_path / "cert.pem", LEAF.pem)
    assert "No such file" in refused(str(missing), missing)
    assert "No such file" in refused(str(missing), good, missing)
    assert "directory" in refused(str(tmp_path), tmp_path)
    refused("no file name", "nul\0byte")


def test_files_with_something_else_in_them(tmp_path: Path) -> None:
    key = write(tmp_path / "key.pem", LEAF.key_pem())
    cert = write(tmp_path / "cert.pem", LEAF.pem)
    refused("no PEM certificate", key, key)
    refused("no PEM certificate", write(tmp_path / "cert.der", LEAF.der), key)
    refused("no PEM private key", cert)
    refused("no PEM private key", cert, cert)
    refused("no PEM private key", cert, write(tmp_path / "empty.pem"))
    broken = LEAF.pem.replace(b"MII", b"AAA", 1)
    refused("cannot be decoded", write(tmp_path / "broken.pem", broken), key)
    refused("cannot be decoded", write(tmp_path / "half.pem", LEAF.pem, broken), key)
    broken_key = LEAF.key_pem().replace(b"MI", b"AA", 1)
    refused("cannot be decoded", cert, write(tmp_path / "broken.key", broken_key))
    refused("longer than", write(tmp_path / "large.pem", bytes(5 * 1024 * 1024)))


@pytest.mark.parametrize(
    "key", [X25519PrivateKey.generate(), dsa.generate_private_key(1024)], ids=["x25519", "dsa"]
)
def test_a_key_that_cannot_sign_here(tmp_path: Path, key: X25519PrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    refused("unsupported kind", write(tmp_path / "cert.pem", LEAF.pem), write(tmp_path / "key.pem", pem))


@pytest.mark.parametrize(
    "key", [rsa_key(1024), ec.generate_private_key(ec.SECP256K1())], ids=["rsa-1024", "secp256k1"]
)
def test_a_certificate_whose_key_nobody_would_accept(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    leaf: Issued = issue("server", ROOT, key=key)
    path = write(tmp_path / "all.pem", leaf.pem, leaf.key_pem())
    assert str(path) in refused("cannot be used", path)


def test_names(tmp_path: Path) -> None:
    credential = load_credential(write(tmp_path / "all.pem", LEAF.pem, LEAF.key_pem()))
    assert credential.names == ("server.test", "*.wild.test", "192.0.2.1")
    for name in ("server.test", "SERVER.TEST.", "a.wild.test", "192.0.2.1"):
        assert credential.serves(name)
    for name in ("other.test", "wild.test", "", "*.wild.test", "192.0.2.2"):
        assert not credential.serves(name)
    bare = issue("Common.Name", ROOT)
    credential = load_credential(write(tmp_path / "bare.pem", bare.pem, bare.key_pem()))
    assert credential.names == ("common.name",)
    assert credential.serves("common.name")


def test_nothing_secret_prints(tmp_path: Path) -> None:
    credential = load_credential(write(tmp_path / "all.pem", LEAF.pem, LEAF.key_pem()))
    assert repr(credential) == (
        "Credential(schemes=(<SignatureScheme.ECDSA_SECP256R1_SHA256: 1027>,), "
        "names=('server.test', '*.wild.test', '192.0.2.1'), kind='ecdsa')"
    )
