"""Credentials: our own certificate chain, or raw public key, with the use of the key that proves it.

The private key never leaves the closure that signs with it, or is elsewhere altogether: in a token
or a service behind a function of the application.  Everything that can be wrong with files is one
ConfigurationError, one sentence, with what to do next: unreadable, not PEM, encrypted, wrong
password, a key of another certificate, a kind of key TLS 1.3 cannot use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)

from sealwire.crypto import ocsp
from sealwire.crypto.chainsignatures import issuers_of, signatures_of
from sealwire.crypto.compression import CompressedForms
from sealwire.crypto.keys import (
    DECODE_ERRORS,
    PrivateKey,
    PssPublicKey,
    PublicKey,
    certificate_public_key,
    pss_encodings,
)
from sealwire.crypto.names import certificate_names, common_name, matches, reference_name
from sealwire.crypto.rawkeys import parse_raw_public_key, spki_public_key
from sealwire.crypto.signatures import SignatureScheme, schemes_for, sign, verify
from sealwire.crypto.transparency import parse_timestamps
from sealwire.errors import Alert, CertificateError, ConfigurationError, HandshakeError, ProtocolError

__all__ = [
    "Credential",
    "Password",
    "PathName",
    "Sign",
    "Staple",
    "load_callable_credential",
    "load_credential",
    "load_pkcs12_credential",
    "load_raw_credential",
]

PathName = str | os.PathLike[str]
Password = str | bytes | bytearray | Callable[[], str | bytes | bytearray]
#: Signs content, which is not hashed yet, with a scheme: ``sign(scheme, content) -> signature``.
Sign = Callable[[SignatureScheme, bytes], bytes]
#: A DER OCSPResponse (RFC 6960), or a function that returns the one of the moment; ``b""`` for none.
Staple = bytes | Callable[[], bytes]

# A chain is a few kilobytes; a file of this size is something else, and not worth reading.
_FILE_MAXIMUM_BYTES = 4 * 1024 * 1024
_KEY_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """What proves who we are: a certificate chain, or a raw public key, and the use of its key.

    Attributes:
        chain: DER certificates, leaf first, as they are sent; empty for a raw public key.
        schemes: what the key may sign in a handshake, best first.
        sign: signs content with one of `schemes`.
        names: DNS names and addresses of the leaf, lower case (the common name where it has none).
        kind: ``"ecdsa"``, ``"rsa"``, ``"rsa-pss"``, ``"ed25519"``, ``"ed448"``, ``"mldsa44"``...; a context
            holds one of each.
        spki: DER SubjectPublicKeyInfo of the key, which is what a raw public key shows.
        ocsp_response: stapled to the leaf for peers that ask (RFC 6066 section 8); see :meth:`staple`.
        timestamps: signed certificate timestamps, shown with the leaf to peers that ask (RFC 6962).
        chain_signatures: for each certificate of the chain that is not self-signed, the schemes of which a
            peer must know one to check it.
        issuers: DER names of those who issued the chain's certificates.
        compressed: the certificate as it went out before, compressed (RFC 8879).
    """

    chain: tuple[bytes, ...] = field(repr=False)
    schemes: tuple[SignatureScheme, ...]
    sign: Sign = field(repr=False)
    names: tuple[str, ...]
    kind: str
    spki: bytes = field(repr=False, default=b"")
    ocsp_response: Staple = field(repr=False, default=b"")
    timestamps: tuple[bytes, ...] = field(repr=False, default=())
    chain_signatures: tuple[frozenset[SignatureScheme], ...] = field(repr=False, default=())
    issuers: frozenset[bytes] = field(repr=False, default=frozenset())
    compressed: CompressedForms = field(repr=False, default_factory=CompressedForms)

    @classmethod
    def from_callable(
        cls, chain: str | bytes | Sequence[bytes], sign: Sign, *, ocsp_response: Staple = b""
    ) -> Credential:
        """A credential whose private key is elsewhere: in a token, a key management service, a daemon.

        `sign` is called in the handshake and must be quick.  Its first signature is checked against the
        certificate; a wrong key ends that handshake with internal_error and a sentence saying so, as does
        an exception of `sign`.

        Args:
            chain: leaf first; PEM, or one DER certificate, or a sequence of DER certificates.
            sign: ``sign(scheme, content) -> signature``; `content` is not hashed yet.

        Raises:
            ConfigurationError: no certificate, or one TLS 1.3 cannot use; an OCSP response that is none, or
                is about another certificate.
        """
        certificates = _parse_chain(chain)
        public = _usable_public_key(certificates[0], "the certificate")
        schemes = schemes_for(public)
        credential = _certified(certificates, public, schemes, _checked_once(public, schemes, sign))
        return credential.stapled(ocsp_response)

    @classmethod
    def raw_public_key(cls, key: str | bytes, sign: Sign) -> Credential:
        """A raw public key (RFC 7250) whose private key is behind `sign`; see :meth:`from_callable`.

        Args:
            key: SubjectPublicKeyInfo, PEM or DER.

        Raises:
            ConfigurationError: no key, or one TLS 1.3 cannot use.
        """
        spki = parse_raw_public_key(key)
        public = spki_public_key(spki)
        schemes = schemes_for(public)
        return cls((), schemes, _checked_once(public, schemes, sign), (), _kind(public), spki)

    @property
    def is_raw_public_key(self) -> bool:
        """Whether it shows a raw public key and has no certificate."""
        return not self.chain

    def stapled(self, ocsp_response: Staple) -> Credential:
        """The same credential with an OCSP response, or with one for each handshake, from a function.

        Raises:
            ConfigurationError: bytes that are no OCSP response about this certificate.
        """
        if isinstance(ocsp_response, bytes) and ocsp_response:
            if self.is_raw_public_key:
                raise ConfigurationError("a raw public key has no OCSP response: nobody issued it")
            ocsp.check_staple(ocsp_response, self.chain[0])
        return replace(self, ocsp_response=ocsp_response)

    def staple(self, now: float) -> bytes:
        """The OCSP response to send at `now`, seconds since 1970; DER, ``b""`` for none.

        One that is too old to be believed, or a function that fails, gives none: a certificate without a
        staple is worth more than no connection.
        """
        try:
            given = self.ocsp_response
            staple = given if isinstance(given, bytes) else bytes(given())
        except Exception:
            return b""
        return staple if staple and now < ocsp.valid_until(staple) else b""

    def stamped(self, timestamps: bytes) -> Credential:
        """The same credential with signed certificate timestamps (RFC 6962 section 3.3).

        Args:
            timestamps: a SignedCertificateTimestampList; b"" for none.

        Raises:
            ConfigurationError: bytes that are none, or for a raw public key, which is in no log.
        """
        found = parse_timestamps(timestamps)
        if found and self.is_raw_public_key:
            raise ConfigurationError("a raw public key has no certificate timestamps: it is in no log")
        return replace(self, timestamps=found)

    def checkable_with(self, schemes: Sequence[SignatureScheme]) -> bool:
        """Whether a peer that knows `schemes` can check every signature of the chain."""
        return not any(one.isdisjoint(schemes) for one in self.chain_signatures)

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
        keyfile: the private key: RSA, ECDSA (P-256, P-384, P-521), Ed25519, Ed448 or ML-DSA.
        password: of the key, or a function that returns it, called only for an encrypted key.

    Raises:
        ConfigurationError: a sentence that names the file and what to do.
    """
    cert_name = os.fspath(certfile)
    certificates = _certificates(cert_name, _read(cert_name, "certificate"))
    key_name = cert_name if keyfile is None else os.fspath(keyfile)
    key = _private_key(key_name, _read(key_name, "key"), password)
    public = _usable_public_key(certificates[0], repr(cert_name))
    _check_pair(certificates, cert_name, key, key_name)
    schemes = schemes_for(public)
    return _certified(certificates, public, schemes, _sign_with(key, schemes, key_name))


def load_pkcs12_credential(file: PathName, password: Password | None = None) -> Credential:
    """A credential from a PKCS #12 file (.p12, .pfx): key, certificate, and what issued it.

    The chain is put in order; certificates that did not issue another, and a self-signed root, are left
    out, as peers have no use for them.

    Raises:
        ConfigurationError: a sentence that names the file and what to do.
    """
    name = os.fspath(file)
    data = _read(name, "PKCS #12")
    secret = None if password is None else _password(password)
    try:
        key, leaf, others = pkcs12.load_key_and_certificates(data, secret)
    except UnsupportedAlgorithm:
        raise ConfigurationError(
            f"PKCS #12 file {name!r} uses an unsupported cipher: export it again with AES"
        ) from None
    except DECODE_ERRORS:
        raise ConfigurationError(
            f"PKCS #12 file {name!r} cannot be opened: check the password, and that it is such a file"
        ) from None
    if key is None or leaf is None:
        raise ConfigurationError(
            f"PKCS #12 file {name!r} has no private key with its certificate: export it with both"
        )
    if not isinstance(key, PrivateKey):
        raise _unsupported_key(name)
    certificates = _in_order(leaf, others)
    public = _usable_public_key(leaf, repr(name))
    _check_pair(certificates, name, key, name)
    schemes = schemes_for(public)
    return _certified(certificates, public, schemes, _sign_with(key, schemes, name))


def load_callable_credential(certfile: PathName, sign: Sign) -> Credential:
    """As :meth:`Credential.from_callable`, with the chain in a PEM file.

    Raises:
        ConfigurationError: a sentence that names the file and what to do.
    """
    name = os.fspath(certfile)
    certificates = _certificates(name, _read(name, "certificate"))
    public = _usable_public_key(certificates[0], repr(name))
    schemes = schemes_for(public)
    return _certified(certificates, public, schemes, _checked_once(public, schemes, sign))


def load_raw_credential(keyfile: PathName, password: Password | None = None) -> Credential:
    """A raw public key (RFC 7250) with its private key, from the PEM file of the latter.

    Raises:
        ConfigurationError: a sentence that names the file and what to do.
    """
    name = os.fspath(keyfile)
    key = _private_key(name, _read(name, "key"), password)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        public = spki_public_key(spki)
    except CertificateError as error:
        raise ConfigurationError(f"{name!r} cannot be used: {error.reason}") from None
    schemes = schemes_for(public)
    return Credential((), schemes, _sign_with(key, schemes, name), (), _kind(public), spki)


def _certified(
    chain: Sequence[x509.Certificate],
    public: PublicKey,
    schemes: tuple[SignatureScheme, ...],
    sign: Sign,
) -> Credential:
    leaf = chain[0]
    names = tuple(str(name) for name in certificate_names(leaf)) or tuple(filter(None, (common_name(leaf),)))
    if isinstance(public, PssPublicKey):
        # OpenSSL would leave the parameters out.
        signed = leaf.tbs_certificate_bytes
        spki = next(encoding for encoding, _ in pss_encodings(public.rsa) if encoding in signed)
    else:
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    encoded = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    return Credential(
        encoded,
        schemes,
        sign,
        names,
        _kind(public),
        spki,
        chain_signatures=signatures_of(chain),
        issuers=issuers_of(chain),
    )


def _sign_with(key: PrivateKey, schemes: tuple[SignatureScheme, ...], key_name: str) -> Sign:
    def sign_with_key(scheme: SignatureScheme, content: bytes) -> bytes:
        if scheme not in schemes:
            raise ConfigurationError(f"the key in {key_name!r} cannot sign with {scheme.name}")
        return sign(key, scheme, content)

    return sign_with_key


def _checked_once(public: PublicKey, schemes: tuple[SignatureScheme, ...], given: Sign) -> Sign:
    """`given`, with its first signature verified and every failure made an internal_error."""
    checked = False

    def sign_elsewhere(scheme: SignatureScheme, content: bytes) -> bytes:
        nonlocal checked
        if scheme not in schemes:
            raise ConfigurationError(f"the certificate's key cannot sign with {scheme.name}")
        try:
            signature = bytes(given(scheme, content))
        except ProtocolError:
            raise
        except Exception as error:
            raise HandshakeError(Alert.INTERNAL_ERROR, "the function that signs for us failed") from error
        if not checked:
            try:
                verify(public, scheme, signature, content)
            except ProtocolError:
                raise HandshakeError(
                    Alert.INTERNAL_ERROR,
                    "the function that signs for us has another key than the certificate, or signs otherwise",
                ) from None
            checked = True
        return signature

    return sign_elsewhere


def _usable_public_key(leaf: x509.Certificate, where: str) -> PublicKey:
    try:
        return certificate_public_key(leaf)
    except CertificateError as error:
        raise ConfigurationError(f"{where} cannot be used: {error.reason}") from None


def _parse_chain(chain: str | bytes | Sequence[bytes]) -> Sequence[x509.Certificate]:
    try:
        if isinstance(chain, str | bytes):
            data = chain.encode("ascii", "replace") if isinstance(chain, str) else chain
            if b"-----BEGIN " in data:
                return x509.load_pem_x509_certificates(data)
            chain = (data,)
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
    except DECODE_ERRORS:
        raise ConfigurationError(
            "a certificate of the chain cannot be decoded: pass PEM, or DER as bytes"
        ) from None
    if not certificates:
        raise ConfigurationError("the chain is empty: pass at least the certificate of the key")
    return certificates


def _in_order(leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf, its issuer, the issuer's issuer and so on, as far as `others` go; without a root."""
    path = [leaf]
    left = [other for other in others if other.subject != other.issuer]
    while True:
        issuer = next((other for other in left if other.subject == path[-1].issuer), None)
        if issuer is None:
            return path
        left.remove(issuer)
        path.append(issuer)


def _kind(key: PublicKey) -> str:
    match key:
        case PssPublicKey():
            return "rsa-pss"
        case ec.EllipticCurvePublicKey():
            return "ecdsa"
        case RSAPublicKey():
            return "rsa"
        case _:
            # Such a key has one scheme, and the scheme the name of its kind.
            return schemes_for(key)[0].name.lower()


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
        raise _unsupported_key(name) from None
    except (ValueError, TypeError):
        if encrypted:
            raise ConfigurationError(
                f"the private key in {name!r} cannot be decrypted: check the password"
            ) from None
        raise ConfigurationError(
            f"the private key in {name!r} cannot be decoded: create or copy it again"
        ) from None
    if not isinstance(key, PrivateKey):
        raise _unsupported_key(name)
    return key


def _unsupported_key(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"the private key in {name!r} is of an unsupported kind: use RSA, ECDSA or Ed25519"
    )


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
