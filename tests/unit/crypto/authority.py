"""A certificate authority for tests: certificates of every shape, right and wrong, made in memory."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from sealwire.crypto.keys import PlainPrivateKey, PrivateKey

Key = PrivateKey

#: The moment tests judge by.
NOW = datetime.datetime(2030, 6, 1, 12, 0, tzinfo=datetime.UTC)

KEY_CERT_SIGN = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
DIGITAL_SIGNATURE = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
KEY_ENCIPHERMENT = x509.KeyUsage(False, False, True, False, False, False, False, False, False)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def issue(
    subject: str,
    issuer: Issued | None = None,
    *,
    key: Key | None = None,
    ca: bool = False,
    names: Sequence[str] = (),
    usages: Sequence[x509.ObjectIdentifier] = (),
    key_usage: x509.KeyUsage | None = None,
    days: tuple[float, float] = (-1, 30),
    key_identifiers: bool = True,
    path_length: int | None = None,
    issuer_name: str | None = None,
    constrained_to: str | None = None,
    now: datetime.datetime = NOW,
) -> Issued:
    """A certificate for `subject`; self-signed without `issuer`.  `days` are counted from `now`."""
    key = key or ec_key()
    signer = issuer.key if issuer is not None else key
    signed_by = issuer.certificate.subject if issuer is not None else named(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer_name) if issuer_name is not None else signed_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=not subject
        )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if constrained_to is not None:
        builder = builder.add_extension(
            x509.NameConstraints([x509.DNSName(constrained_to)], None), critical=True
        )
    if key_identifiers:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    algorithm = None if isinstance(signer, PlainPrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, algorithm), key)


def authority(subject: str = "Test Root", issuer: Issued | None = None, **more: object) -> Issued:
    """A certificate that may issue others."""
    options: dict[str, object] = {"ca": True, "key_usage": KEY_CERT_SIGN, **more}
    return issue(subject, issuer, **options)  # type: ignore[arg-type]


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
