"""Signature schemes: which key may sign with which scheme, and signing and verifying with them.

In TLS 1.3 a scheme binds everything: algorithm, hash, for ECDSA the curve, for RSA whether the key
is a general one (rsae) or PSS only (pss).  PKCS #1 v1.5 and SHA-1 have code points because
certificates still carry them; in CertificateVerify they are refused (RFC 8446 section 4.4.3).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
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
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from sealwire.crypto.keys import (
    PlainPrivateKey,
    PlainPublicKey,
    PrivateKey,
    PssPublicKey,
    PublicKey,
    check_rsa,
)
from sealwire.errors import Alert, ConfigurationError, ProtocolError

__all__ = [
    "DEFAULT_SCHEMES",
    "HANDSHAKE_SCHEMES",
    "SignatureScheme",
    "parse_schemes",
    "schemes_for",
    "sign",
    "verify",
]


class SignatureScheme(enum.IntEnum):
    """SignatureScheme (RFC 8446 section 4.2.3).  Unknown 16-bit values survive."""

    RSA_PKCS1_SHA1 = 0x0201
    ECDSA_SHA1 = 0x0203
    RSA_PKCS1_SHA256 = 0x0401
    ECDSA_SECP256R1_SHA256 = 0x0403
    RSA_PKCS1_SHA384 = 0x0501
    ECDSA_SECP384R1_SHA384 = 0x0503
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    ED448 = 0x0808
    RSA_PSS_PSS_SHA256 = 0x0809
    RSA_PSS_PSS_SHA384 = 0x080A
    RSA_PSS_PSS_SHA512 = 0x080B
    MLDSA44 = 0x0904
    MLDSA65 = 0x0905
    MLDSA87 = 0x0906

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__

    @classmethod
    def _missing_(cls, value: object) -> SignatureScheme | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"SCHEME_{value:04X}"
        member._value_ = value
        return member

    @property
    def certificates_only(self) -> bool:
        """Whether the scheme may sign certificates but no CertificateVerify (PKCS #1 v1.5, SHA-1)."""
        return self in _CERTIFICATES_ONLY


class _Kind(enum.Enum):
    ECDSA = "ecdsa"
    RSAE = "rsa_pss_rsae"
    PSS = "rsa_pss_pss"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a scheme demands: `curve` is empty but for ECDSA, `keys` but for those that sign in one way."""

    kind: _Kind
    hash: hashes.HashAlgorithm
    curve: str = ""
    keys: tuple[type[PlainPublicKey], type[PlainPrivateKey]] | tuple[()] = ()
    #: The hash again, as ECDSA wants it told.
    ecdsa: ec.ECDSA | None = None


_S = SignatureScheme

# RFC 8446 section 4.2.3: these "refer solely to signatures which appear in certificates".
_CERTIFICATES_ONLY = frozenset(
    {_S.RSA_PKCS1_SHA1, _S.ECDSA_SHA1, _S.RSA_PKCS1_SHA256, _S.RSA_PKCS1_SHA384, _S.RSA_PKCS1_SHA512}
)


def _plain(public: type[PlainPublicKey], private: type[PlainPrivateKey]) -> _Rule:
    return _Rule(_Kind.PLAIN, hashes.SHA512(), keys=(public, private))


def _ecdsa(hash_: hashes.HashAlgorithm, curve: str) -> _Rule:
    return _Rule(_Kind.ECDSA, hash_, curve, ecdsa=ec.ECDSA(hash_))


# The schemes of CertificateVerify.  RFC 8446 section 4.2.3: a scheme here binds its curve.
_RULES: Mapping[SignatureScheme, _Rule] = MappingProxyType(
    {
        _S.ECDSA_SECP256R1_SHA256: _ecdsa(hashes.SHA256(), "secp256r1"),
        _S.ED25519: _plain(Ed25519PublicKey, Ed25519PrivateKey),
        _S.RSA_PSS_RSAE_SHA256: _Rule(_Kind.RSAE, hashes.SHA256()),
        _S.ECDSA_SECP384R1_SHA384: _ecdsa(hashes.SHA384(), "secp384r1"),
        _S.RSA_PSS_RSAE_SHA384: _Rule(_Kind.RSAE, hashes.SHA384()),
        _S.RSA_PSS_RSAE_SHA512: _Rule(_Kind.RSAE, hashes.SHA512()),
        _S.RSA_PSS_PSS_SHA256: _Rule(_Kind.PSS, hashes.SHA256()),
        _S.RSA_PSS_PSS_SHA384: _Rule(_Kind.PSS, hashes.SHA384()),
        _S.RSA_PSS_PSS_SHA512: _Rule(_Kind.PSS, hashes.SHA512()),
        _S.ECDSA_SECP521R1_SHA512: _ecdsa(hashes.SHA512(), "secp521r1"),
        _S.ED448: _plain(Ed448PublicKey, Ed448PrivateKey),
        # draft-ietf-tls-mldsa: FIPS 204 without pre-hashing, the context empty.
        _S.MLDSA44: _plain(MLDSA44PublicKey, MLDSA44PrivateKey),
        _S.MLDSA65: _plain(MLDSA65PublicKey, MLDSA65PrivateKey),
        _S.MLDSA87: _plain(MLDSA87PublicKey, MLDSA87PrivateKey),
    }
)

#: Schemes a CertificateVerify may use, in order of preference.
HANDSHAKE_SCHEMES: tuple[SignatureScheme, ...] = tuple(_RULES)

_ON_REQUEST = frozenset({_S.ED448, _S.MLDSA44, _S.MLDSA65, _S.MLDSA87})

#: What signature_algorithms offers: the above without those that have to be asked for, then those that only
#: certificates may carry.
# RFC 8446 section 9.1 [8446-NEG-7]: rsa_pkcs1_sha256 is mandatory for certificates.
DEFAULT_SCHEMES: tuple[SignatureScheme, ...] = (
    *(scheme for scheme in HANDSHAKE_SCHEMES if scheme not in _ON_REQUEST),
    _S.RSA_PKCS1_SHA256,
    _S.RSA_PKCS1_SHA384,
    _S.RSA_PKCS1_SHA512,
)


def _fits(key: PublicKey | PrivateKey, rule: _Rule) -> bool:
    # The common case first: each question to an abstract class costs as much as all else here.
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return rule.kind is _Kind.ECDSA and key.curve.name == rule.curve
    if isinstance(key, PlainPublicKey | PlainPrivateKey):
        return isinstance(key, rule.keys)
    match key:
        case PssPublicKey():
            return (
                rule.kind is _Kind.PSS
                and key.hash_name in ("", rule.hash.name)
                and _holds_pss(key.rsa.key_size, rule.hash)
            )
        case RSAPublicKey():
            return rule.kind is _Kind.RSAE and _holds_pss(key.key_size, rule.hash)
        case _:
            # A private key does not say which of the two its certificate made of it; the caller asked.
            return rule.kind in (_Kind.RSAE, _Kind.PSS) and _holds_pss(key.key_size, rule.hash)


def _holds_pss(key_bits: int, hash_: hashes.HashAlgorithm) -> bool:
    # RFC 8017 section 9.1.1 step 3, with a salt as long as the hash: emLen >= 2 hLen + 2.
    return (key_bits - 1 + 7) // 8 >= 2 * hash_.digest_size + 2


def schemes_for(public_key: object) -> tuple[SignatureScheme, ...]:
    """What the private half of `public_key` may sign in a TLS 1.3 handshake, best first.

    Args:
        public_key: a key of ``cryptography``, or :class:`~sealwire.crypto.keys.PssPublicKey`.

    Returns:
        An empty tuple for a key TLS 1.3 cannot use.
    """
    if not isinstance(public_key, PublicKey):
        return ()
    return tuple(scheme for scheme, rule in _RULES.items() if _fits(public_key, rule))


def parse_schemes(names: str | Sequence[str]) -> tuple[SignatureScheme, ...]:
    """Schemes by their names in RFC 8446 (``"ecdsa_secp256r1_sha256"``, ``"mldsa65"``), in the order given.

    Args:
        names: a list of names, or one string separated by ``:``; letter case does not matter.

    Raises:
        ConfigurationError: one that is unknown, twice, or too weak (SHA-1), or none for the handshake.
    """
    wanted = names.split(":") if isinstance(names, str) else list(names)
    schemes = (*HANDSHAKE_SCHEMES, *(one for one in DEFAULT_SCHEMES if one.certificates_only))
    known = {scheme.name.lower(): scheme for scheme in schemes}
    result: list[SignatureScheme] = []
    for name in (word.strip() for word in wanted):
        scheme = known.get(name.lower())
        if scheme is None:
            raise ConfigurationError(f"unknown signature scheme {name!r}: choose from {', '.join(known)}")
        if scheme in result:
            raise ConfigurationError(f"signature scheme {name} is listed twice: name each scheme once")
        result.append(scheme)
    if all(scheme.certificates_only for scheme in result):
        raise ConfigurationError(
            "no signature scheme for the handshake given: add one that is not rsa_pkcs1, such as "
            + HANDSHAKE_SCHEMES[0].name.lower()
        )
    return tuple(result)


def sign(private_key: PrivateKey, scheme: SignatureScheme, content: bytes) -> bytes:
    """Sign `content` (hashed inside).  ConfigurationError for a scheme that does not fit the key."""
    rule = _RULES.get(scheme)
    if rule is None or not _fits(private_key, rule):
        raise ConfigurationError(f"this private key cannot sign with {scheme.name}")
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        assert rule.ecdsa is not None
        return private_key.sign(content, rule.ecdsa)
    if isinstance(private_key, RSAPrivateKey):
        return private_key.sign(content, _pss(rule.hash), rule.hash)
    return private_key.sign(content)


def verify(public_key: object, scheme: SignatureScheme, signature: bytes, content: bytes) -> None:
    """Check a CertificateVerify signature over `content`.

    Args:
        public_key: what :func:`~sealwire.crypto.certificates.leaf_public_key` returned.

    Raises:
        ProtocolError: DECRYPT_ERROR if the signature is wrong; ILLEGAL_PARAMETER if the scheme does not
            fit the key, its curve, or TLS 1.3 at all (PKCS #1 v1.5, SHA-1).
        CertificateError: an RSA key too weak or too costly (no certificate check has seen it yet).
    """
    # RFC 8446 section 4.4.3 [8446-AUTH-2]: the table holds no PKCS #1 v1.5 and no SHA-1.
    rule = _RULES.get(scheme)
    if rule is None or not isinstance(public_key, PublicKey) or not _fits(public_key, rule):
        name = SignatureScheme(scheme).name
        raise ProtocolError(
            Alert.ILLEGAL_PARAMETER, f"signature scheme {name} does not fit the certificate's key"
        )
    try:
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            assert rule.ecdsa is not None
            public_key.verify(signature, content, rule.ecdsa)
        elif isinstance(public_key, PlainPublicKey):
            public_key.verify(signature, content)
        else:
            rsa = public_key.rsa if isinstance(public_key, PssPublicKey) else public_key
            check_rsa(rsa)
            rsa.verify(signature, content, _pss(rule.hash), rule.hash)
    except InvalidSignature:
        raise ProtocolError(Alert.DECRYPT_ERROR, "the peer's handshake signature is wrong") from None


def _pss(hash_: hashes.HashAlgorithm) -> PSS:
    # RFC 8446 section 4.2.3: the salt is as long as the digest, no other length is accepted.
    return PSS(MGF1(hash_), salt_length=hash_.digest_size)
