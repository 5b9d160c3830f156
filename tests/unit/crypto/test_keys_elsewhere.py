"""Credentials beyond PEM files: keys behind a function, PKCS #12, raw public keys, staples."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PublicFormat,
    pkcs12,
)
from cryptography.x509 import ocsp

from sealwire.crypto.certificates import leaf_public_key
from sealwire.crypto.credentials import (
    Credential,
    load_callable_credential,
    load_credential,
    load_pkcs12_credential,
    load_raw_credential,
)
from sealwire.crypto.keys import PssPublicKey
from sealwire.crypto.rawkeys import spki_public_key
from sealwire.crypto.signatures import SignatureScheme, sign, verify
from sealwire.errors import Alert, ConfigurationError, HandshakeError
from tests.staples import staple, unsuccessful
from tests.unit.crypto.authority import NOW, Issued, Key, authority, ec_key, issue, rsa_key

ROOT = authority()
MIDDLE = authority("Middle", ROOT)
LOWER = authority("Lower", MIDDLE)
LEAF = issue("server", LOWER, names=["server.test"])
SCHEME = SignatureScheme.ECDSA_SECP256R1_SHA256


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Token:
    """A key that only signs."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.asked: list[SignatureScheme] = []

    def __call__(self, scheme: SignatureScheme, content: bytes) -> bytes:
        self.asked.append(scheme)
        return sign(self.key, scheme, content)


# --- behind a function -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [ec_key(), rsa_key(), Ed25519PrivateKey.generate()], ids=["ecdsa", "rsa", "ed25519"]
)
def test_a_key_behind_a_function_is_as_good_as_a_file(tmp_path: Path, key: Key) -> None:
    leaf = issue("server", ROOT, key=key, names=["server.test"])
    (tmp_path / "chain.pem").write_bytes(leaf.pem + ROOT.pem)
    (tmp_path / "key.pem").write_bytes(leaf.key_pem())
    loaded = load_credential(tmp_path / "chain.pem", tmp_path / "key.pem")
    token = Token(key)
    forms: list[Any] = [leaf.pem + ROOT.pem, (leaf.pem + ROOT.pem).decode(), [leaf.der, ROOT.der]]
    made = [Credential.from_callable(chain, token) for chain in forms]
    made.append(load_callable_credential(tmp_path / "chain.pem", token))
    for one in made:
        assert (one.chain, one.schemes, one.names, one.kind, one.spki) == (
            loaded.chain,
            loaded.schemes,
            loaded.names,
            loaded.kind,
            loaded.spki,
        )
        assert one.spki == spki(key)
        for scheme in one.schemes:
            verify(leaf_public_key(one.chain[0]), scheme, one.sign(scheme, b"content"), b"content")
        with pytest.raises(ConfigurationError, match="cannot sign with ECDSA_SHA1"):
            one.sign(SignatureScheme.ECDSA_SHA1, b"content")
    assert token.asked == list(loaded.schemes) * 4
    assert Credential.from_callable(leaf.der, token).chain == (leaf.der,)


def test_nothing_is_signed_before_a_handshake_asks() -> None:
    token = Token(LEAF.key)
    credential = Credential.from_callable(LEAF.der, token)
    assert token.asked == []
    credential.sign(SCHEME, b"x")
    assert token.asked == [SCHEME]


def internal(sentence: str, signer: Callable[[SignatureScheme, bytes], Any]) -> Credential:
    credential = Credential.from_callable(LEAF.der, signer)
    with pytest.raises(HandshakeError, match=sentence) as caught:
        credential.sign(SCHEME, b"content")
    assert caught.value.alert is Alert.INTERNAL_ERROR
    return credential


def test_the_first_signature_is_checked_against_the_certificate() -> None:
    wrong = Token(ec_key())
    credential = internal("another key than the certificate", wrong)
    # And again, until one is right.
    with pytest.raises(HandshakeError, match="another key"):
        credential.sign(SCHEME, b"content")
    wrong.key = LEAF.key
    credential.sign(SCHEME, b"content")
    internal("another key", lambda scheme, content: b"no signature")
    internal("another key", lambda scheme, content: b"")


def test_a_function_that_fails_is_an_internal_error() -> None:
    def broken(scheme: SignatureScheme, content: bytes) -> bytes:
        raise ConnectionError("the token was pulled out")

    internal("function that signs for us failed", broken)
    internal("function that signs for us failed", lambda scheme, content: None)


@pytest.mark.parametrize(
    ("chain", "complaint"),
    [
        ([], "empty"),
        (b"", "cannot be decoded"),
        ("no certificate", "cannot be decoded"),
        ([LEAF.der, b"junk"], "cannot be decoded"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be decoded"),
        (issue("c", ROOT, key=ec.generate_private_key(ec.SECP256K1())).der, "curve secp256k1"),
    ],
    ids=["empty", "no bytes", "text", "junk behind", "junk in PEM", "curve"],
)
def test_what_is_no_chain(chain: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Credential.from_callable(chain, Token(LEAF.key))


# --- PKCS #12 --------------------------------------------------------------------------------------


def store(
    path: Path, key: Any, leaf: Issued | None, others: list[Issued], password: bytes | None = None
) -> Path:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"name",
            key,
            None if leaf is None else leaf.certificate,
            [one.certificate for one in others],
            encryption,
        )
    )
    return path


@pytest.mark.parametrize("password", [None, b"secret"])
def test_a_pkcs12_file_with_its_chain_in_any_order(tmp_path: Path, password: bytes | None) -> None:
    stranger = authority("Stranger", authority("Elsewhere"))
    path = store(tmp_path / "a.p12", LEAF.key, LEAF, [ROOT, stranger, MIDDLE, LOWER], password)
    given: list[Any] = [password] if password is None else [password, "secret", lambda: "secret"]
    for one in given:
        credential = load_pkcs12_credential(path, one)
        assert credential.chain == (LEAF.der, LOWER.der, MIDDLE.der)
        assert (credential.kind, credential.names) == ("ecdsa", ("server.test",))
        verify(leaf_public_key(LEAF.der), SCHEME, credential.sign(SCHEME, b"c"), b"c")
    alone = store(tmp_path / "b.p12", LEAF.key, LEAF, [], password)
    assert load_pkcs12_credential(alone, password).chain == (LEAF.der,)


def test_issuers_in_a_ring_end(tmp_path: Path) -> None:
    one = authority("One")
    two = authority("Two", one)
    back = authority("One", two, key=one.key)
    leaf = issue("leaf", one)
    path = store(tmp_path / "ring.p12", leaf.key, leaf, [two, back])
    assert load_pkcs12_credential(path).chain == (leaf.der, back.der, two.der)


@pytest.mark.parametrize(
    ("make", "password", "complaint"),
    [
        (lambda path: store(path, LEAF.key, LEAF, [], b"secret"), None, "check the password"),
        (lambda path: store(path, LEAF.key, LEAF, [], b"secret"), b"wrong", "check the password"),
        (lambda path: store(path, None, None, [LEAF]), None, "no private key"),
        (lambda path: path.write_bytes(LEAF.pem) and path, None, "that it is such a file"),
        (lambda path: path.write_bytes(b"") or path, None, "that it is such a file"),
        (lambda path: path, None, "cannot read PKCS #12 file"),
    ],
    ids=["no password", "wrong password", "no key", "PEM", "empty", "missing"],
)
def test_what_is_no_pkcs12_credential(
    tmp_path: Path, make: Callable[[Path], Path], password: bytes | None, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_pkcs12_credential(make(tmp_path / "x.p12"), password)
    assert "x.p12" in str(caught.value)


# --- raw public keys -------------------------------------------------------------------------------


@pytest.mark.requirement("7250-1")
@pytest.mark.parametrize(
    ("key", "kind"),
    [(ec_key(), "ecdsa"), (rsa_key(), "rsa"), (Ed25519PrivateKey.generate(), "ed25519")],
    ids=["ecdsa", "rsa", "ed25519"],
)
def test_a_raw_key_from_a_file_and_behind_a_function(tmp_path: Path, key: Key, kind: str) -> None:
    holder = issue("holder", key=key)
    (tmp_path / "key.pem").write_bytes(holder.key_pem(b"secret"))
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for credential in (
        load_raw_credential(tmp_path / "key.pem", "secret"),
        Credential.raw_public_key(spki(key), Token(key)),
        Credential.raw_public_key(public_pem, Token(key)),
        Credential.raw_public_key(public_pem.decode(), Token(key)),
    ):
        assert credential.is_raw_public_key
        assert (credential.chain, credential.names, credential.kind) == ((), (), kind)
        assert credential.spki == spki(key)
        for scheme in credential.schemes:
            verify(spki_public_key(credential.spki), scheme, credential.sign(scheme, b"c"), b"c")
        assert credential.schemes


def test_a_wrong_raw_key_is_found_out_at_the_first_signature() -> None:
    credential = Credential.raw_public_key(spki(LEAF.key), Token(ec_key()))
    with pytest.raises(HandshakeError, match="another key"):
        credential.sign(SCHEME, b"c")


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (b"", "no public key"),
        ("text", "no public key"),
        (LEAF.der, "no public key"),
        (spki(ec_key()) + b"\0", "no public key"),
        (b"-----BEGIN CERTIFICATE-----\n", "0 public keys"),
        (b"-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----\n", "cannot be decoded"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n" * 2, "2 public keys"),
        (spki(ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
        (spki(rsa_key(1024)), "1024 bits"),
        (
            X25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "neither RSA",
        ),
    ],
    ids=["no bytes", "text", "certificate", "trailing", "no key", "base64", "two", "curve", "weak", "X25519"],
)
def test_what_is_no_raw_key(key: str | bytes, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Credential.raw_public_key(key, Token(LEAF.key))


def test_a_raw_rsa_pss_key_keeps_its_parameters(tmp_path: Path, program: Callable[[str], str]) -> None:
    run = functools.partial(subprocess.run, check=True, capture_output=True, timeout=60)
    key, public = tmp_path / "key.pem", tmp_path / "public.der"
    options = ["-pkeyopt", "rsa_keygen_bits:2048"]
    for option in ("md:sha384", "mgf1_md:sha384", "saltlen:48"):
        options += ["-pkeyopt", f"rsa_pss_keygen_{option}"]
    run([program("openssl"), "genpkey", "-algorithm", "rsa-pss", *options, "-out", key])
    run([program("openssl"), "pkey", "-in", key, "-pubout", "-outform", "DER", "-out", public])
    found = spki_public_key(public.read_bytes())
    assert isinstance(found, PssPublicKey)
    assert found.hash_name == "sha384"
    credential = Credential.raw_public_key(public.read_bytes(), lambda scheme, content: b"")
    assert (credential.kind, credential.spki) == ("rsa-pss", public.read_bytes())
    assert credential.schemes == (SignatureScheme.RSA_PSS_PSS_SHA384,)
    run(
        [
            program("openssl"),
            "req",
            "-x509",
            "-new",
            "-key",
            key,
            "-subj",
            "/CN=pss",
            "-out",
            tmp_path / "cert.pem",
        ]
    )
    assert load_credential(tmp_path / "cert.pem", key).spki == public.read_bytes()
    # A limit on the salt that no scheme has cannot be kept, so the key is not used.
    run(
        [
            program("openssl"),
            "genpkey",
            "-algorithm",
            "rsa-pss",
            *options[:-1],
            "rsa_pss_keygen_saltlen:20",
            "-out",
            key,
        ]
    )
    run([program("openssl"), "pkey", "-in", key, "-pubout", "-outform", "DER", "-out", public])
    with pytest.raises(ConfigurationError, match="parameters"):
        Credential.raw_public_key(public.read_bytes(), lambda scheme, content: b"")


# --- staples ---------------------------------------------------------------------------------------


@pytest.mark.requirement("8446-AUTH-6")
def test_staples_are_bytes_or_asked_for_each_time() -> None:
    credential = Credential.from_callable(LEAF.der, Token(LEAF.key))
    now = NOW.timestamp()
    assert credential.staple(now) == b""
    monday, tuesday = (
        staple(LEAF.certificate, LOWER.certificate, LOWER.key, now=NOW, hours=(-2, n)) for n in (8, 9)
    )
    given = Credential.from_callable(LEAF.der, Token(LEAF.key), ocsp_response=monday)
    assert given.staple(now) == monday
    # One that is over helps nobody, and one that is not yet over is sent until the end.
    assert (given.staple(now + 8 * 3600 - 1), given.staple(now + 8 * 3600)) == (monday, b"")
    answers = iter([monday, bytearray(tuesday), b"rubbish"])
    changing = credential.stapled(lambda: next(answers))  # type: ignore[arg-type, return-value]
    assert (changing.staple(now), changing.staple(now)) == (monday, tuesday)
    # Rubbish, and a call that fails: no staple is better than no connection.
    assert (changing.staple(now), changing.staple(now)) == (b"", b"")
    assert credential.staple(now) == b""


def test_a_staple_must_be_about_the_certificate() -> None:
    credential = Credential.from_callable(LEAF.der, Token(LEAF.key))
    other = issue("other", LOWER).certificate
    for bad, complaint in (
        (b"staple", "cannot be decoded"),
        (unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER), "error of the responder"),
        (staple(other, LOWER.certificate, LOWER.key, now=NOW), "another certificate"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            credential.stapled(bad)
        with pytest.raises(ConfigurationError, match=complaint):
            Credential.from_callable(LEAF.der, Token(LEAF.key), ocsp_response=bad)
    raw = Credential.raw_public_key(spki(LEAF.key), Token(LEAF.key))
    with pytest.raises(ConfigurationError, match="nobody issued"):
        raw.stapled(staple(LEAF.certificate, LOWER.certificate, LOWER.key, now=NOW))


def test_nothing_of_a_credential_is_shown() -> None:
    shown = repr(Credential.from_callable(LEAF.der, Token(LEAF.key), ocsp_response=lambda: b"staple"))
    assert "names=('server.test',)" in shown
    assert "staple" not in shown
    assert "0x" not in shown
    assert x509.load_der_x509_certificate(LEAF.der).serial_number
