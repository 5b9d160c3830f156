"""A certificate authority for development: one CA, one server and one client certificate.

The profile is the one strict verifiers ask for: version 3, random serial numbers, subject
alternative names, both key identifiers, one extended usage each.  The CA signs with ECDSA P-256
whatever the leaves use, because chains below Ed25519 authorities are widely refused.  Keys are
written without a password and readable by their owner alone; they are for development.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

KEY_TYPES: dict[str, Callable[[], PrivateKey]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}

LOCAL_NAMES = ("localhost",)
LOCAL_ADDRESSES: tuple[Address, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))

# Machines of one developer disagree about the time by less than this.
_CLOCK_DIFFERENCE = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Made:
    """One certificate and its key, not yet on disk."""

    role: str
    certificate: x509.Certificate
    key: PrivateKey
    names: tuple[str, ...]

    @property
    def files(self) -> tuple[str, str]:
        """Names of the certificate's and the key's file."""
        return f"{self.role}.pem", f"{self.role}.key"


FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")


def make(
    names: Sequence[str], addresses: Sequence[Address], days: int, key_type: str
) -> tuple[Made, Made, Made]:
    """CA, server and client; the server is valid for `names` and `addresses`, all for `days` days.

    Raises ValueError for a name that is no ASCII host name.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    # The CA's name holds its key's beginning: one made later is not mistaken for this one.
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()).digest.hex()
    ca_name = _name(f"sealwire development CA {ca_id[:8]}")
    start = datetime.datetime.now(datetime.UTC) - _CLOCK_DIFFERENCE
    end = start + _CLOCK_DIFFERENCE + datetime.timedelta(days=days)

    def certificate(
        subject: x509.Name, key: PrivateKey, extensions: Sequence[tuple[x509.ExtensionType, bool]]
    ) -> x509.Certificate:
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issuer_id, critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256())

    def leaf(role: str, usage: x509.ObjectIdentifier, alternatives: Sequence[x509.GeneralName]) -> Made:
        key = KEY_TYPES[key_type]()
        made = certificate(
            _name(f"sealwire development {role}"),
            key,
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (_key_usage(digital_signature=True), True),
                (x509.ExtendedKeyUsage([usage]), False),
                (x509.SubjectAlternativeName(alternatives), False),
            ],
        )
        return Made(role, made, key, tuple(str(alternative.value) for alternative in alternatives))

    ca = certificate(
        ca_name,
        ca_key,
        [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_key_usage(key_cert_sign=True, crl_sign=True), True),
        ],
    )
    server_names = [*map(x509.DNSName, names), *map(x509.IPAddress, addresses)]
    return (
        Made("ca", ca, ca_key, ()),
        leaf("server", ExtendedKeyUsageOID.SERVER_AUTH, server_names),
        leaf("client", ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName("client")]),
    )


def write(directory: Path, made: Sequence[Made]) -> None:
    """Write every certificate and key; a file is replaced whole or not at all.  Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for item in made:
        certificate, key = item.files
        _write(directory / certificate, item.certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        pem = item.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(directory / key, pem, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    # The mode is set as the file is made: a key is never readable by others, not even briefly.
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as out:
        out.write(content)
    fresh.replace(path)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
