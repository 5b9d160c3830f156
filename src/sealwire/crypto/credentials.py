"""Credentials: our own certificate chain with the key that proves it, loaded from PEM files.

The private key never leaves the closure that signs with it.  Everything that can be wrong with the
files is one ConfigurationError, one sentence, with what to do next: unreadable, not PEM, encrypted,
wrong password, a key of another certificate, a kind of key TLS 1.3 cannot use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from sealwire.crypto.keys import DECODE_ERRORS, PrivateKey, PssPublicKey, PublicKey, certificate_public_key
from sealwire.crypto.names import certificate_names, common_name, matches, reference_name
from sealwire.crypto.signatures import SignatureScheme, schemes_for, sign
from sealwire.errors import CertificateError, ConfigurationError

__all__ = ["Credential", "Password", "PathName", "load_credential"]

PathName = str | os.PathLike[str]
Password = str | bytes | bytearray | Callable[[], str | bytes | bytearray]

# A chain is a few kilobytes; a file of this size is something else, and not worth reading.
_FILE_MAXIMUM_BYTES = 4 * 1024 * 1024
_KEY_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """A certificate chain and the use of its key.

    Attributes:
        chain: DER certificates, leaf first, as they are sent.
        schemes: what the key may sign in a handshake, best first.
        sign: signs content with one of `schemes`.
        names: DNS names and addresses of the leaf, lower case (the common name where it has none).
        kind: ``"ecdsa"``, ``"rsa"``, ``"rsa-pss"`` or ``"ed25519"``; a context holds one of each.
    """

    chain: tuple[bytes, ...] = field(repr=False)
    schemes: tuple[SignatureScheme, ...]
    sign: Callable[[SignatureScheme, bytes], bytes] = field(repr=False)
    names: tuple[str, ...]
    kind: str

    def serves(self, server_name: str) -> bool:
        """Whether one of `names` stands for `server_name`."""
        try:
            reference = reference_name(server_name)
        except ConfigurationError:
            return False
        return any(
            matches(name, reference if isinstance(reference, str) else str(reference)) for name in self.names
        )


def load_credential(
    certfile: PathName, keyfile: PathName | None = None, password: Password | None = None
) -> Credential:
    """A credential from PEM files.

    Args:
        certfile: the chain, leaf first; also holds the key where `keyfile` is None.
        keyfile: the private key: RSA, ECDSA (P-256, P-384, P-521) or Ed25519.
        password: of the key, or a function that returns it, called only for an encrypted key.

    Raises:
        ConfigurationError: a sentence that names the file and what to do.
    """
    cert_name = os.fspath(certfile)
    certificates = _certificates(cert_name, _read(cert_name, "certificate"))
    key_name = cert_name if keyfile is None else os.fspath(keyfile)
    key = _private_key(key_name, _read(key_name, "key"), password)
    try:
        public = certificate_public_key(certificates[0])
    except CertificateError as error:
        raise ConfigurationError(f"{cert_name!r} cannot be used: {error.reason}") from None
    _check_pair(certificates, cert_name, key, key_name)
    schemes = schemes_for(public)

    def sign_with_key(scheme: SignatureScheme, content: bytes) -> bytes:
        if scheme not in schemes:
            raise ConfigurationError(f"the key in {key_name!r} cannot sign with {scheme.name}")
        return sign(key, scheme, content)

    leaf = certificates[0]
    names = tuple(str(name) for name in certificate_names(leaf)) or tuple(filter(None, (common_name(leaf),)))
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    return Credential(chain, schemes, sign_with_key, names, _kind(public))


def _kind(key: PublicKey) -> str:
    match key:
        case PssPublicKey():
            return "rsa-pss"
        case ec.EllipticCurvePublicKey():
            return "ecdsa"
        case _:
            return "ed25519" if SignatureScheme.ED25519 in schemes_for(key) else "rsa"


def _read(name: str, what: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            data = file.read(_FILE_MAXIMUM_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {what} file {name!r}: {error.strerror}; check the path"
        ) from None
    except ValueError:
        raise ConfigurationError(f"cannot read {what} file {name!r}: this is no file name") from None
    if len(data) > _FILE_MAXIMUM_BYTES:
        raise ConfigurationError(
            f"{what} file {name!r} is longer than {_FILE_MAXIMUM_BYTES} bytes: check the path"
        )
    return data


def _certificates(name: str, data: bytes) -> Sequence[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise ConfigurationError(
            f"no PEM certificate in {name!r}: pass a PEM file (openssl x509 -inform der converts)"
        )
    try:
        return x509.load_pem_x509_certificates(data)
    except DECODE_ERRORS:
        raise ConfigurationError(
            f"a certificate in {name!r} cannot be decoded: create or copy it again"
        ) from None


def _private_key(name: str, data: bytes, password: Password | None) -> PrivateKey:
    block = _KEY_BLOCK.search(data)
    if block is None:
        raise ConfigurationError(f"no PEM private key in {name!r}: pass the key's file as keyfile")
    pem = block.group()
    encrypted = b"ENCRYPTED" in pem
    secret: bytes | None = None
    if encrypted:
        if password is None:
            raise ConfigurationError(f"the private key in {name!r} is encrypted: pass its password")
        secret = _password(password)
    try:
        key = load_pem_private_key(pem, secret)
    except UnsupportedAlgorithm:
        raise ConfigurationError(
            f"the private key in {name!r} is of an unsupported kind: use RSA, ECDSA or Ed25519"
        ) from None
    except (ValueError, TypeError):
        if encrypted:
            raise ConfigurationError(
                f"the private key in {name!r} cannot be decrypted: check the password"
            ) from None
        raise ConfigurationError(
            f"the private key in {name!r} cannot be decoded: create or copy it again"
        ) from None
    if not isinstance(key, RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise ConfigurationError(
            f"the private key in {name!r} is of an unsupported kind: use RSA, ECDSA or Ed25519"
        )
    return key


def _password(password: Password) -> bytes:
    value = password() if callable(password) else password
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise TypeError("a password is a string, or bytes, or a function that returns one")


def _check_pair(chain: Sequence[x509.Certificate], cert_name: str, key: PrivateKey, key_name: str) -> None:
    ours = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def belongs(certificate: x509.Certificate) -> bool:
        try:
            theirs = certificate.public_key()
            return theirs.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == ours
        except DECODE_ERRORS:
            return False

    if belongs(chain[0]):
        return
    if any(belongs(certificate) for certificate in chain[1:]):
        raise ConfigurationError(
            f"the certificate of the key in {key_name!r} does not come first in {cert_name!r}: reorder it"
        )
    raise ConfigurationError(
        f"the private key in {key_name!r} does not match the certificate in {cert_name!r}: pass a pair"
    )
