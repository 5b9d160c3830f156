"""Raw public keys: a peer known by its key alone, without names, dates or issuers (RFC 7250).

What travels is one DER SubjectPublicKeyInfo.  Trust is a list of such bytes and nothing else: a key
is on it or it is not.  Keys are compared as they were given, byte for byte; OpenSSL re-encodes some
kinds when it reads them (an RSASSA-PSS key loses its parameters), so nothing is re-encoded here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from sealwire.crypto.keys import (
    DECODE_ERRORS,
    PssPublicKey,
    PublicKey,
    check_rsa,
    malformed,
    pss_encodings,
    unsupported,
    usable_key,
)
from sealwire.errors import CertificateError, ConfigurationError

__all__ = ["RawPublicKey", "parse_raw_public_key", "spki_public_key", "split_raw_public_keys"]

_PEM_BLOCK: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----\s(.*?)-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class RawPublicKey:
    """A key a peer showed in place of a certificate.  Having one says nothing about trust.

    Attributes:
        spki: DER SubjectPublicKeyInfo, as received.
    """

    spki: bytes

    @property
    def key(self) -> PublicKey:
        """The key, for checking CertificateVerify.  CertificateError if it cannot be used."""
        return spki_public_key(self.spki)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return hashlib.sha256(self.spki).digest()

    def __repr__(self) -> str:
        return f"<RawPublicKey sha256={self.fingerprint.hex()}>"


def spki_public_key(spki: bytes) -> PublicKey:
    """The key a DER SubjectPublicKeyInfo holds.

    Raises:
        CertificateError: MALFORMED, or UNSUPPORTED_ALGORITHM for a kind, curve or size TLS 1.3 does not use
            here.
    """
    try:
        key = load_der_public_key(spki)
    except UnsupportedAlgorithm:
        raise unsupported("the peer's raw public key is of an unsupported kind") from None
    except DECODE_ERRORS:
        raise malformed("the peer's raw public key cannot be decoded") from None
    if not isinstance(key, RSAPublicKey):
        return usable_key(key)
    check_rsa(key)
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == spki:
        return key
    for encoding, hash_name in pss_encodings(key):
        if encoding == spki:
            return PssPublicKey(key, hash_name)
    raise unsupported("the parameters of the peer's raw RSA key are not those of a TLS 1.3 signature scheme")


def split_raw_public_keys(data: bytes) -> list[bytes]:
    """The keys of a file one by one, for :func:`parse_raw_public_key`: PEM blocks, or one in DER."""
    if b"-----BEGIN " not in data:
        return [data]
    return [block.group() for block in _PEM_BLOCK.finditer(data)] or [data]


def parse_raw_public_key(data: str | bytes) -> bytes:
    """The DER SubjectPublicKeyInfo in PEM (``-----BEGIN PUBLIC KEY-----``), or in DER as it is.

    Raises:
        ConfigurationError: it holds no key, more than one, or one that TLS 1.3 cannot use.
    """
    raw = data.encode("ascii", "replace") if isinstance(data, str) else bytes(data)
    if b"-----BEGIN " in raw:
        blocks = _PEM_BLOCK.findall(raw)
        if len(blocks) != 1:
            raise ConfigurationError(
                f"the PEM text holds {len(blocks)} public keys, not one: openssl pkey -pubout writes one"
            )
        try:
            raw = base64.b64decode(blocks[0])
        except binascii.Error:
            raise ConfigurationError("the PEM public key cannot be decoded: copy it again") from None
    try:
        spki_public_key(raw)
    except CertificateError as error:
        raise ConfigurationError(
            f"this is no public key that can be used ({error.reason}): pass PEM, or DER as bytes"
        ) from None
    return raw
