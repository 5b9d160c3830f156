"""Peers known by fingerprint or by raw public key: accepted as such, and nobody else."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.certificates import CertificateVerifier, Purpose, RawPublicKey, VerifiedKey
from sealwire.crypto.pins import Pins
from sealwire.errors import Alert, CertificateError, CertificateFailure, ConfigurationError
from tests.unit.crypto.authority import NOW, authority, ec_key, issue

ROOT = authority()
LEAF = issue("server", ROOT, names=["server.test"])
#: Self-signed, long expired, for another name: what WebRTC peers show.
WEBRTC = issue("WebRTC", days=(-400, -300))


def hexed(data: bytes, name: str = "sha256") -> str:
    return hashlib.new(name, data).hexdigest()


def with_colons(digits: str) -> str:
    return ":".join(digits[n : n + 2] for n in range(0, len(digits), 2)).upper()


def pinning(*fingerprints: str, **options: Any) -> CertificateVerifier:
    return CertificateVerifier([ROOT.der], clock=lambda: NOW, pinned_fingerprints=fingerprints, **options)


@pytest.mark.parametrize(
    "fingerprint",
    [
        hexed(WEBRTC.der),
        f"sha256:{hexed(WEBRTC.der)}",
        f"SHA-256 {with_colons(hexed(WEBRTC.der))}",
        f"sha256={hexed(WEBRTC.der).upper()}",
        f"sha-384 {with_colons(hexed(WEBRTC.der, 'sha384'))}",
        f"sha512:{hexed(WEBRTC.der, 'sha512')}",
    ],
    ids=["hex", "sha256", "sdp", "openssl", "sha384", "sha512"],
)
def test_a_pinned_certificate_is_the_peer_whatever_it_says(fingerprint: str) -> None:
    verifier = pinning(hexed(b"another"), fingerprint)
    for purpose in Purpose:
        for name in (None, "any.name"):
            proof = verifier.verify([WEBRTC.der], purpose=purpose, name=name)
            assert proof.path == (WEBRTC.der,)
            assert (proof.purpose, proof.name) == (purpose, name)
    # What comes behind the leaf is not looked at.
    assert verifier.verify([WEBRTC.der, b"junk"], purpose=Purpose.SERVER, name=None).path == (WEBRTC.der,)


def test_with_pins_a_good_path_is_nothing() -> None:
    verifier = pinning(hexed(WEBRTC.der))
    for chain in ([LEAF.der, ROOT.der], [LEAF.der, WEBRTC.der]):
        with pytest.raises(CertificateError, match="pinned") as caught:
            verifier.verify(chain, purpose=Purpose.SERVER, name="server.test")
        assert caught.value.failure is CertificateFailure.REJECTED
        assert caught.value.alert is Alert.BAD_CERTIFICATE
    # And without them the path decides again.
    assert pinning().verify([LEAF.der], purpose=Purpose.SERVER, name="server.test").path[-1] == ROOT.der


def test_even_a_pinned_certificate_must_be_one_and_have_a_key_to_verify_with() -> None:
    for der, failure in (
        (b"junk", CertificateFailure.MALFORMED),
        (
            issue("k1", key=ec.generate_private_key(ec.SECP256K1())).der,
            CertificateFailure.UNSUPPORTED_ALGORITHM,
        ),
    ):
        with pytest.raises(CertificateError) as caught:
            pinning(hexed(der)).verify([der], purpose=Purpose.CLIENT, name=None)
        assert caught.value.failure is failure
    with pytest.raises(CertificateError) as caught:
        pinning(hexed(LEAF.der)).verify([], purpose=Purpose.CLIENT, name=None)
    assert caught.value.failure is CertificateFailure.MISSING
    with pytest.raises(CertificateError, match="more than 10"):
        pinning(hexed(LEAF.der)).verify([LEAF.der] * 11, purpose=Purpose.CLIENT, name=None)


@pytest.mark.parametrize(
    ("fingerprint", "complaint"),
    [
        ("", "64 hex digits"),
        ("sha256:", "64 hex digits"),
        (hexed(b"")[:-2], "64 hex digits"),
        ("z" * 64, "64 hex digits"),
        (f"sha-384:{hexed(b'')}", "96 hex digits"),
        ("sha-1 " + "AB:" * 19 + "AB", "not sha256, sha384 or sha512"),
    ],
    ids=["empty", "no digits", "short", "not hex", "of another hash", "sha1"],
)
def test_what_is_no_fingerprint(fingerprint: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Pins([fingerprint])


def test_one_text_is_no_list() -> None:
    with pytest.raises(ConfigurationError, match="list"):
        Pins(hexed(b""))


@given(der=st.binary(max_size=50), other=st.binary(max_size=50))
def test_pins_are_exact(der: bytes, other: bytes) -> None:
    pins = Pins([hexed(der)])
    assert der in pins
    assert (other in pins) is (other == der)
    assert der not in Pins()


# --- raw public keys -------------------------------------------------------------------------------


def spki(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.requirement("7250-1")
def test_a_trusted_raw_key_is_accepted_and_an_unknown_one_never() -> None:
    known, unknown = spki(ec_key()), spki(ec_key())
    verifier = CertificateVerifier([ROOT.der], clock=lambda: NOW, raw_public_keys=[known])
    assert verifier.accepts_raw_public_keys
    for purpose in Purpose:
        proof = verifier.verify(RawPublicKey(known), purpose=purpose, name="any.name")
        assert proof == VerifiedKey(RawPublicKey(known), purpose)
        for judge in (verifier, CertificateVerifier([ROOT.der]), pinning(hexed(unknown))):
            with pytest.raises(CertificateError, match="not among the trusted") as caught:
                judge.verify(RawPublicKey(unknown), purpose=purpose, name=None)
            assert caught.value.failure is CertificateFailure.REJECTED
            assert caught.value.alert is Alert.CERTIFICATE_UNKNOWN
    assert not CertificateVerifier([ROOT.der]).accepts_raw_public_keys
    # Certificates are judged as before, and the key of one is not trusted for being in it.
    assert verifier.verify([LEAF.der], purpose=Purpose.SERVER, name="server.test").path
    with pytest.raises(CertificateError):
        verifier.verify(RawPublicKey(spki(LEAF.key)), purpose=Purpose.SERVER, name=None)  # type: ignore[arg-type]


@given(noise=st.binary(max_size=80))
def test_noise_is_no_key(noise: bytes) -> None:
    with pytest.raises(CertificateError):
        CertificateVerifier([], raw_public_keys=[spki(LEAF.key)]).verify(  # type: ignore[arg-type]
            RawPublicKey(noise), purpose=Purpose.CLIENT, name=None
        )
    with pytest.raises(CertificateError):
        _ = RawPublicKey(noise).key


def test_every_changed_bit_is_another_key() -> None:
    good = spki(Ed25519PrivateKey.generate())
    verifier = CertificateVerifier([], raw_public_keys=[good])
    for at in range(len(good)):
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with pytest.raises(CertificateError):
            verifier.verify(RawPublicKey(changed), purpose=Purpose.CLIENT, name=None)


def test_raw_keys_show_their_fingerprint() -> None:
    key = RawPublicKey(spki(ec_key()))
    assert key.fingerprint == hashlib.sha256(key.spki).digest()
    assert key.fingerprint.hex() in repr(key)
