"""Keys that sign segments, and those that check them.

A private key lives in a file that nobody else may read, or behind a function.  Its id is the
SHA-256 of its public key (SubjectPublicKeyInfo, DER); a probe's id is the id of its first key.
COSE algorithms: EdDSA and ES256 (RFC 9053 sections 2.1 and 2.2), PS256 (RFC 8230 section 2),
ML-DSA-65 (RFC 9964).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from sealwire.errors import ConfigurationError

__all__ = ["ALGORITHMS", "PublicKey", "SigningKey", "generate", "load_public_key", "load_signing_key"]

#: Names of `sealwire keygen --algorithm` and their COSE algorithm.
ALGORITHMS: Final = {"ed25519": -8, "es256": -7, "rsa-4096": -37, "ml-dsa-65": -49}
NAMES: Final = {-8: "EdDSA", -7: "ES256", -37: "PS256", -49: "ML-DSA-65"}

_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
_KEY_FILE_MAXIMUM_BYTES: Final = 64 * 1024
_RSA_MINIMUM_BITS, _RSA_MAXIMUM_BITS = 2048, 8192
_SHA256: Final = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checks signatures of one COSE algorithm."""

    algorithm: int
    spki: bytes = field(repr=False)
    _key: Any = field(repr=False, compare=False)

    @property
    def id(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo, 32 bytes."""
        return hashlib.sha256(self.spki).digest()

    def pem(self) -> bytes:
        """The key as a file has it."""
        found: bytes = self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return found

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` over `data` is this key's.  Never raises."""
        try:
            if self.algorithm == -7:
                if len(signature) != 64:
                    return False
                # RFC 9053 section 2.1: r and s, 32 bytes each.
                pair = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                self._key.verify(encode_dss_signature(*pair), data, ec.ECDSA(_SHA256))
            elif self.algorithm == -37:
                self._key.verify(signature, data, _PSS, _SHA256)
            else:
                self._key.verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key, and the use of its private one, which stays inside `sign` or behind it."""

    public: PublicKey
    #: ``sign(data) -> signature``, in COSE's form.
    sign: Callable[[bytes], bytes] = field(repr=False)

    @classmethod
    def behind(cls, public_key: bytes, sign: Callable[[bytes], bytes]) -> SigningKey:
        """A key held elsewhere: its SubjectPublicKeyInfo (DER or PEM) and a function that signs.

        ECDSA signatures of the function may be DER or COSE's r and s.  Raises ConfigurationError for a
        key that cannot sign segments.
        """
        public = parse_public_key(public_key)
        return cls(public, _ecdsa_form(sign) if public.algorithm == -7 else sign)

    @property
    def id(self) -> bytes:
        """The public key's id."""
        return self.public.id


def _ecdsa_form(sign: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def signed(data: bytes) -> bytes:
        signature = sign(data)
        if len(signature) == 64:
            return signature
        r, s = decode_dss_signature(signature)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return signed


def _algorithm(public: Any) -> int:
    if isinstance(public, ed25519.Ed25519PublicKey):
        return -8
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return -7
    if isinstance(public, rsa.RSAPublicKey) and _RSA_MINIMUM_BITS <= public.key_size <= _RSA_MAXIMUM_BITS:
        return -37
    if isinstance(public, MLDSA65PublicKey):
        return -49
    raise ConfigurationError(
        "segments are signed with Ed25519, P-256, RSA of 2048 bits or more, or ML-DSA-65"
    )


def _public(key: Any) -> PublicKey:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(_algorithm(key), spki, key)


def parse_public_key(data: bytes) -> PublicKey:
    """A SubjectPublicKeyInfo, PEM or DER.  Raises ConfigurationError."""
    try:
        load = load_pem_public_key if data.lstrip().startswith(b"-----") else load_der_public_key
        return _public(load(data))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError("this is no public key that can be read") from None


def load_public_key(path: str | os.PathLike[str]) -> PublicKey:
    """A public key file.  Raises ConfigurationError, or OSError where it cannot be read."""
    with Path(path).open("rb") as file:
        data = file.read(_KEY_FILE_MAXIMUM_BYTES)
    try:
        return parse_public_key(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{os.fspath(path)}: {error}") from None


def load_signing_key(path: str | os.PathLike[str]) -> SigningKey:
    """A private key file (PKCS#8 PEM, not encrypted) that only its owner may read.

    Raises ConfigurationError for wrong permissions and for what is no such key; OSError where the
    file cannot be read.
    """
    name = os.fspath(path)
    # The permissions checked are those of the file that is read, whatever happens to its name meanwhile.
    with Path(path).open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{name} is no regular file")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigurationError(
                f"{name} has mode {mode:04o}, so others can use the key: chmod 600 {name}"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise ConfigurationError(f"{name} belongs to user {status.st_uid}, who can read the key")
        data = file.read(_KEY_FILE_MAXIMUM_BYTES)
    try:
        private: Any = load_pem_private_key(data, None)
        public = _public(private.public_key())
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{name} is no private key that can be read (PKCS#8 PEM, no password)"
        ) from None
    return SigningKey(public, _signer(private, public.algorithm))


def _signer(private: Any, algorithm: int) -> Callable[[bytes], bytes]:
    if algorithm == -7:
        return _ecdsa_form(lambda data: bytes(private.sign(data, ec.ECDSA(_SHA256))))
    if algorithm == -37:
        return lambda data: bytes(private.sign(data, _PSS, _SHA256))
    return lambda data: bytes(private.sign(data))


def generate(algorithm: str) -> tuple[bytes, bytes, PublicKey]:
    """A new key: private PEM, public PEM, and the public key.  Raises ConfigurationError."""
    makers: dict[str, Callable[[], Any]] = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
        "ml-dsa-65": MLDSA65PrivateKey.generate,
    }
    try:
        private = makers[algorithm]()
    except KeyError:
        raise ConfigurationError(f"algorithms are {', '.join(makers)}, not {algorithm!r}") from None
    except UnsupportedAlgorithm:
        raise ConfigurationError(f"the OpenSSL of cryptography here has no {algorithm}") from None
    public = private.public_key()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        _public(public),
    )
