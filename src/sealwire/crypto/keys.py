"""Public and private keys as TLS 1.3 sees them, with the bounds that hold for everybody's.

A key is more than its numbers: an RSA key whose certificate says RSASSA-PSS may sign with the
``rsa_pss_pss`` schemes only, and perhaps with one hash only.  ``cryptography`` hands out a plain
RSA key for both, so :class:`PssPublicKey` carries the difference.  RSA sizes are bounded on both
sides: below, because factoring is feasible; above, because a stranger's key sets our cost.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import PublicKeyAlgorithmOID

from sealwire.errors import CertificateError, CertificateFailure

__all__ = [
    "DECODE_ERRORS",
    "RSA_MAXIMUM_BITS",
    "RSA_MINIMUM_BITS",
    "PlainPrivateKey",
    "PlainPublicKey",
    "PrivateKey",
    "PssPublicKey",
    "PublicKey",
    "certificate_public_key",
    "load_certificate",
    "load_root",
]

RSA_MINIMUM_BITS = 2048
# A verification under 8192 bits costs about ten times one under 2048; nobody needs more, floods would.
RSA_MAXIMUM_BITS = 8192
# Real exponents are 3 and 65537.  A full-size exponent makes verification as dear as signing.
_RSA_MAXIMUM_EXPONENT = 1 << 32


@dataclass(frozen=True, slots=True)
class PssPublicKey:
    """An RSA key restricted to RSASSA-PSS (OID id-RSASSA-PSS), and to `hash_name` unless that is empty."""

    rsa: RSAPublicKey
    hash_name: str = ""


#: Keys that leave nothing to choose: they sign bytes as they are, each in one way.
PlainPublicKey = Ed25519PublicKey | Ed448PublicKey | MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey
PlainPrivateKey = (
    Ed25519PrivateKey | Ed448PrivateKey | MLDSA44PrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey
)
# The usual ones first: that is the order in which isinstance() asks.
PublicKey = ec.EllipticCurvePublicKey | RSAPublicKey | PssPublicKey | PlainPublicKey
PrivateKey = RSAPrivateKey | ec.EllipticCurvePrivateKey | PlainPrivateKey

# RFC 4055 section 3.1, DER: the AlgorithmIdentifiers a TLS 1.3 PSS key may carry.  Without parameters
# any hash goes; with them, hash, MGF1 hash and salt length must be those of one signature scheme.
_PSS_ALGORITHMS = {
    "300b06092a864886f70d01010a": "",
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108"
    "300d06096086480165030402010500a203020120": "sha256",
    "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108"
    "300d06096086480165030402020500a203020130": "sha384",
    "304106092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108"
    "300d06096086480165030402030500a203020140": "sha512",
}


def malformed(what: str) -> CertificateError:
    return CertificateError(CertificateFailure.MALFORMED, what)


def unsupported(what: str) -> CertificateError:
    return CertificateError(CertificateFailure.UNSUPPORTED_ALGORITHM, what)


# `cryptography` warns about oddities in certificates.  What a peer sends must not write to our standard
# error, a line for each new oddity, so these texts, met in this package, are not shown.
for _text in (
    "Parsed a serial number which wasn't positive",
    "Attribute's length must be",
    "Invalid ASN.1 ",
):
    warnings.filterwarnings("ignore", _text, UserWarning, r"sealwire\.crypto\.")

#: What ``cryptography`` raises for bytes that are no certificate, when loading or, since it decodes names,
#: keys, times and extensions when they are asked for, later.  Its warnings are of the class UserWarning and
#: come as exceptions where the application made them so; KeyError is an unknown string type (48).
DECODE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    KeyError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UserWarning,
)


def load_certificate(der: bytes) -> x509.Certificate:
    """One certificate.  CertificateError(malformed) for anything else."""
    try:
        return x509.load_der_x509_certificate(der)
    except DECODE_ERRORS:
        raise malformed("a certificate cannot be decoded") from None


def load_root(der: bytes) -> x509.Certificate:
    """A certificate the application trusts, loaded without remarks on its age.  Raises DECODE_ERRORS.

    Roots of the nineties with a serial number of zero are in every system's store, and make
    ``cryptography`` warn; the person who reads that warning can do nothing about it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return x509.load_der_x509_certificate(der)


def certificate_public_key(certificate: x509.Certificate) -> PublicKey:
    """The key `certificate` is about.

    Raises:
        CertificateError: MALFORMED if it cannot be decoded; UNSUPPORTED_ALGORITHM if it is of a kind or
            size that TLS 1.3 here does not use.
    """
    try:
        key = certificate.public_key()
        is_pss = certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS
    except UnsupportedAlgorithm:
        raise unsupported("the certificate's key is of an unsupported kind") from None
    except DECODE_ERRORS:
        raise malformed("the certificate's key cannot be decoded") from None
    if isinstance(key, RSAPublicKey):
        check_rsa(key)
        return PssPublicKey(key, _pss_hash(certificate, key)) if is_pss else key
    return usable_key(key)


def usable_key(key: object) -> PublicKey:
    """`key`, of any kind but RSA; CertificateError(UNSUPPORTED_ALGORITHM) if it has no use in TLS 1.3."""
    if isinstance(key, PlainPublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)):
            raise unsupported(f"the certificate's curve {key.curve.name} is not supported")
        return key
    raise unsupported("the certificate's key is neither RSA, ECDSA, EdDSA nor ML-DSA")


def check_rsa(key: RSAPublicKey) -> None:
    """CertificateError(UNSUPPORTED_ALGORITHM) for an RSA key too weak, or too costly, to verify with."""
    if not RSA_MINIMUM_BITS <= key.key_size <= RSA_MAXIMUM_BITS:
        raise unsupported(
            f"the certificate's RSA key has {key.key_size} bits, not {RSA_MINIMUM_BITS} to {RSA_MAXIMUM_BITS}"
        )
    if key.public_numbers().e >= _RSA_MAXIMUM_EXPONENT:
        raise unsupported("the certificate's RSA key has an oversized public exponent")


def _pss_hash(certificate: x509.Certificate, key: RSAPublicKey) -> str:
    """The one hash a PSS key's parameters allow, or "".  `cryptography` keeps the parameters to itself, so
    the few legal encodings of the whole SubjectPublicKeyInfo are compared with the bytes that were signed.
    """
    signed = certificate.tbs_certificate_bytes
    for encoding, hash_name in pss_encodings(key):
        if encoding in signed:
            return hash_name
    raise unsupported("the certificate's RSASSA-PSS parameters are not those of a TLS 1.3 signature scheme")


def pss_encodings(key: RSAPublicKey) -> Iterator[tuple[bytes, str]]:
    """Each SubjectPublicKeyInfo that makes an RSASSA-PSS key of TLS 1.3 of `key`, and its one hash or ""."""
    pkcs1 = key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    bits = b"\x03\x82" + (len(pkcs1) + 1).to_bytes(2, "big") + b"\0" + pkcs1
    for algorithm, hash_name in _PSS_ALGORITHMS.items():
        body = bytes.fromhex(algorithm) + bits
        yield b"\x30\x82" + len(body).to_bytes(2, "big") + body, hash_name
