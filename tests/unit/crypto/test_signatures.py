"""Signatures: which scheme fits which key, and that nothing else is accepted."""

from __future__ import annotations

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA65PrivateKey,
    MLDSA87PrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.keys import PrivateKey, PssPublicKey, PublicKey
from sealwire.crypto.signatures import (
    DEFAULT_SCHEMES,
    HANDSHAKE_SCHEMES,
    SignatureScheme,
    parse_schemes,
    schemes_for,
    sign,
    verify,
)
from sealwire.errors import Alert, CertificateError, ConfigurationError, ProtocolError
from tests.unit.crypto.authority import rsa_key

S = SignatureScheme
RSAE = (S.RSA_PSS_RSAE_SHA256, S.RSA_PSS_RSAE_SHA384, S.RSA_PSS_RSAE_SHA512)
PSS = (S.RSA_PSS_PSS_SHA256, S.RSA_PSS_PSS_SHA384, S.RSA_PSS_PSS_SHA512)

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = Ed25519PrivateKey.generate()
ED448 = Ed448PrivateKey.generate()
RSA = rsa_key()


def lattice_keys() -> dict[str, tuple[PrivateKey, PublicKey, tuple[SignatureScheme, ...]]]:
    """ML-DSA keys, where OpenSSL beneath has them (3.5)."""
    try:
        one, two = MLDSA44PrivateKey.generate(), MLDSA65PrivateKey.generate()
        three = MLDSA87PrivateKey.generate()
    except UnsupportedAlgorithm:
        return {}
    return {
        "mldsa44": (one, one.public_key(), (S.MLDSA44,)),
        "mldsa65": (two, two.public_key(), (S.MLDSA65,)),
        "mldsa87": (three, three.public_key(), (S.MLDSA87,)),
    }


LATTICE = lattice_keys()

#: Private key, the public half as a certificate gives it, what it may sign.
KEYS: list[tuple[PrivateKey, PublicKey, tuple[SignatureScheme, ...]]] = [
    (P256, P256.public_key(), (S.ECDSA_SECP256R1_SHA256,)),
    (P384, P384.public_key(), (S.ECDSA_SECP384R1_SHA384,)),
    (P521, P521.public_key(), (S.ECDSA_SECP521R1_SHA512,)),
    (ED25519, ED25519.public_key(), (S.ED25519,)),
    (RSA, RSA.public_key(), RSAE),
    (RSA, PssPublicKey(RSA.public_key()), PSS),
    (RSA, PssPublicKey(RSA.public_key(), "sha384"), (S.RSA_PSS_PSS_SHA384,)),
    (ED448, ED448.public_key(), (S.ED448,)),
    *LATTICE.values(),
]
every_key = pytest.mark.parametrize(
    ("private", "public", "schemes"),
    KEYS,
    ids=["p256", "p384", "p521", "ed25519", "rsa", "pss", "pss-sha384", "ed448", "44", "65", "87"][
        : len(KEYS)
    ],
)
CONTENT = b"content"


def alert_of(public: object, scheme: SignatureScheme, signature: bytes, content: bytes = CONTENT) -> Alert:
    with pytest.raises(ProtocolError) as caught:
        verify(public, scheme, signature, content)
    return caught.value.alert


@every_key
def test_a_key_signs_with_its_schemes(
    private: PrivateKey, public: PublicKey, schemes: tuple[SignatureScheme, ...]
) -> None:
    assert schemes_for(public) == schemes
    for scheme in schemes:
        signature = sign(private, scheme, CONTENT)
        verify(public, scheme, signature, CONTENT)
        assert alert_of(public, scheme, signature, b"other") is Alert.DECRYPT_ERROR
        assert alert_of(public, scheme, b"") is Alert.DECRYPT_ERROR
        assert alert_of(public, scheme, signature + b"\0") is Alert.DECRYPT_ERROR
        for at in range(0, len(signature), 7):
            changed = bytearray(signature)
            changed[at] ^= 1
            assert alert_of(public, scheme, bytes(changed)) is Alert.DECRYPT_ERROR


@pytest.mark.requirement("8446-AUTH-2")
@every_key
def test_every_other_scheme_is_an_illegal_parameter(
    private: PrivateKey, public: PublicKey, schemes: tuple[SignatureScheme, ...]
) -> None:
    # Whatever the bytes: even a true signature of the key under the scheme's own rules.
    signatures = [sign(private, scheme, CONTENT) for scheme in schemes]
    for scheme in [*S, S(0x0A0A)]:
        if scheme not in schemes:
            for signature in signatures:
                assert alert_of(public, scheme, signature) is Alert.ILLEGAL_PARAMETER


@pytest.mark.requirement("8446-AUTH-2")
def test_no_pkcs1_and_no_sha1_in_a_handshake() -> None:
    for scheme, hash_ in (
        (S.RSA_PKCS1_SHA1, hashes.SHA1()),
        (S.RSA_PKCS1_SHA256, hashes.SHA256()),
        (S.RSA_PKCS1_SHA512, hashes.SHA512()),
    ):
        signature = RSA.sign(CONTENT, padding.PKCS1v15(), hash_)
        assert alert_of(RSA.public_key(), scheme, signature) is Alert.ILLEGAL_PARAMETER
        assert alert_of(RSA.public_key(), S.RSA_PSS_RSAE_SHA256, signature) is Alert.DECRYPT_ERROR
    assert alert_of(P256.public_key(), S.ECDSA_SHA1, P256.sign(CONTENT, ec.ECDSA(hashes.SHA1()))) is (
        Alert.ILLEGAL_PARAMETER
    )


@pytest.mark.requirement("8446-AUTH-2")
def test_the_scheme_binds_the_curve_and_the_hash() -> None:
    # A P-384 key may sign SHA-256 in TLS 1.2; here neither that nor the other way round.
    signature = P384.sign(CONTENT, ec.ECDSA(hashes.SHA256()))
    assert alert_of(P384.public_key(), S.ECDSA_SECP256R1_SHA256, signature) is Alert.ILLEGAL_PARAMETER
    assert alert_of(P384.public_key(), S.ECDSA_SECP384R1_SHA384, signature) is Alert.DECRYPT_ERROR


@pytest.mark.parametrize("salt", [0, 20, 31, 33, padding.PSS.MAX_LENGTH])
def test_the_salt_is_as_long_as_the_digest(salt: int) -> None:
    signature = RSA.sign(CONTENT, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())
    assert alert_of(RSA.public_key(), S.RSA_PSS_RSAE_SHA256, signature) is Alert.DECRYPT_ERROR


def test_an_rsa_key_too_small_for_a_hash_does_not_get_it() -> None:
    small = rsa_key(1024).public_key()
    assert schemes_for(small) == RSAE[:2]
    assert schemes_for(PssPublicKey(small)) == PSS[:2]


@pytest.mark.parametrize("bits", [1024, 8200])
def test_a_peers_rsa_key_is_bounded_before_it_is_used(bits: int) -> None:
    # The modulus need not be a key for the bound to be met first.
    n = rsa_key(1024).public_key().public_numbers().n if bits == 1024 else (1 << (bits - 1)) + 1
    key = rsa.RSAPublicNumbers(65537, n).public_key()
    with pytest.raises(CertificateError, match=f"{bits} bits"):
        verify(key, S.RSA_PSS_RSAE_SHA256, bytes(bits // 8), CONTENT)


def test_keys_that_are_not_for_tls() -> None:
    for key in (
        X25519PrivateKey.generate().public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        "no key at all",
    ):
        assert schemes_for(key) == ()
        assert alert_of(key, S.ECDSA_SECP256R1_SHA256, b"") is Alert.ILLEGAL_PARAMETER


def test_signing_with_another_keys_scheme_is_refused() -> None:
    for scheme in (S.ED25519, S.RSA_PSS_RSAE_SHA256, S.ECDSA_SECP384R1_SHA384, S.ECDSA_SHA1, S(1)):
        with pytest.raises(ConfigurationError, match=scheme.name):
            sign(P256, scheme, CONTENT)


def test_the_lists() -> None:
    on_request = (S.ED448, S.MLDSA44, S.MLDSA65, S.MLDSA87)
    assert HANDSHAKE_SCHEMES[-4:] == on_request
    usual = HANDSHAKE_SCHEMES[:-4]
    assert DEFAULT_SCHEMES[: len(usual)] == usual
    assert not any(scheme.certificates_only for scheme in HANDSHAKE_SCHEMES)
    assert all(scheme.certificates_only for scheme in DEFAULT_SCHEMES[len(usual) :])
    # draft-ietf-tls-mldsa's code points.
    assert [int(scheme) for scheme in on_request] == [0x0808, 0x0904, 0x0905, 0x0906]
    assert S.RSA_PKCS1_SHA256 in DEFAULT_SCHEMES
    assert {S.RSA_PKCS1_SHA1, S.ECDSA_SHA1}.isdisjoint(DEFAULT_SCHEMES)
    assert S(0x0907).name == "SCHEME_0907"
    with pytest.raises(ValueError, match="SignatureScheme"):
        S(-1)


@given(st.sampled_from(KEYS), st.binary(max_size=300))
def test_noise_as_signature(
    key: tuple[PrivateKey, PublicKey, tuple[SignatureScheme, ...]], noise: bytes
) -> None:
    for scheme in key[2]:
        assert alert_of(key[1], scheme, noise) is Alert.DECRYPT_ERROR


def test_names() -> None:
    assert parse_schemes("ecdsa_secp256r1_sha256:MLDSA65") == (S.ECDSA_SECP256R1_SHA256, S.MLDSA65)
    assert parse_schemes(["rsa_pkcs1_sha256", " ed448 "]) == (S.RSA_PKCS1_SHA256, S.ED448)
    for everything in (HANDSHAKE_SCHEMES, DEFAULT_SCHEMES):
        assert parse_schemes([scheme.name.lower() for scheme in everything]) == everything


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ("", "choose from ecdsa_secp256r1_sha256"),
        ("ecdsa_sha1", "choose from"),
        ("rsa_pkcs1_sha1", "choose from"),
        ("ed25519:ed25519", "twice"),
        ([], "for the handshake"),
        ("rsa_pkcs1_sha256", "for the handshake"),
    ],
)
def test_names_that_will_not_do(names: str | list[str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        parse_schemes(names)
