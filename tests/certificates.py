"""Certificates for tests: made on first use, kept for the process, gone with it.

Every identity comes as PEM files (for programs and for load_cert_chain) and as DER (for engines).
Leaves hang below a root of their own kind, so RSA needs no elliptic curve to be verified, except
Ed25519 and RSA-PSS leaves, which hang below a P-256 root: path validation in `cryptography` takes
no Ed25519 issuers.  `bulk_bytes` makes a chain as large as asked for, by an extension that means
nothing, spread over the leaf and its intermediates.
"""

from __future__ import annotations

import datetime
import enum
import functools
import ipaddress
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_MEANINGLESS_EXTENSION = ObjectIdentifier("1.3.6.1.4.1.32473.1")  # 32473 is for examples (RFC 5612)


class Kind(enum.Enum):
    """What a leaf signs with."""

    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    RSA_2048 = "rsa-2048"
    RSA_PSS = "rsa-pss"
    ED25519 = "ed25519"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and the chain that vouches for it.

    Attributes:
        certfile: PEM, the chain without its root, leaf first.
        keyfile: PEM, PKCS #8, unencrypted.
        cafile: PEM, the root.
        chain: DER of what `certfile` holds.
        root: DER of the root.
    """

    certfile: Path
    keyfile: Path
    cafile: Path
    chain: tuple[bytes, ...]
    root: bytes

    @property
    def chain_bytes(self) -> int:
        return sum(len(certificate) for certificate in self.chain)


@functools.cache
def directory() -> Path:
    """The temporary directory of this process; removed when it ends."""
    # Held by the cache of _holder, so that it goes with the interpreter.
    return Path(_holder().name)


@functools.cache
def _holder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sealwire-certificates-", ignore_cleanup_errors=True)


def server(
    kind: Kind = Kind.ECDSA_P256,
    *,
    names: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
    intermediates: int = 0,
    bulk_bytes: int = 0,
) -> Identity:
    """A server's identity.  `names` are DNS names and IP addresses."""
    return _identity("server", kind, tuple(names), intermediates, bulk_bytes)


def client(kind: Kind = Kind.ECDSA_P256, *, name: str = "client.example", intermediates: int = 0) -> Identity:
    """A client's identity."""
    return _identity("client", kind, (name,), intermediates, 0)


def large_server(chain_bytes: int = 20_000) -> Identity:
    """A P-256 server whose chain of four certificates has about `chain_bytes` bytes, at least that many."""
    return server(intermediates=3, bulk_bytes=max(0, chain_bytes - 4 * 450))


def all_roots(identities: Sequence[Identity]) -> Path:
    """One PEM file with the roots of `identities`."""
    path = directory() / f"roots-{abs(hash(tuple(identities))):x}.pem"
    path.write_bytes(b"".join(sorted({identity.cafile.read_bytes() for identity in identities})))
    return path


def _issuer_kind(kind: Kind) -> Kind:
    return kind if kind in (Kind.ECDSA_P256, Kind.ECDSA_P384, Kind.RSA_2048) else Kind.ECDSA_P256


def _generate(kind: Kind) -> PrivateKey:
    match kind:
        case Kind.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case Kind.ECDSA_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case Kind.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _digest(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1":
        return hashes.SHA384()
    return hashes.SHA256()


def _builder(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey,
    issuer: x509.Name,
    issuer_key: PrivateKey,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, issuer: bool, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issuer,
        key_cert_sign=issuer,
        crl_sign=issuer,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(
    common_name: str, key: PrivateKey, issuer: x509.Name, issuer_key: PrivateKey, bulk: int
) -> x509.Certificate:
    builder = (
        _builder(_name(common_name), key.public_key(), issuer, issuer_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(issuer=True), critical=True)
    )
    return _bulky(builder, bulk).sign(issuer_key, _digest(issuer_key))


def _bulky(builder: x509.CertificateBuilder, n: int) -> x509.CertificateBuilder:
    if n == 0:
        return builder
    # An OCTET STRING of n zero bytes with a two-byte length.
    value = b"\x04\x82" + n.to_bytes(2, "big") + bytes(n)
    return builder.add_extension(x509.UnrecognizedExtension(_MEANINGLESS_EXTENSION, value), critical=False)


@functools.cache
def _root(kind: Kind) -> tuple[x509.Certificate, PrivateKey, Path]:
    key = _generate(kind)
    name = f"Test root {kind.value}"
    certificate = _authority(name, key, _name(name), key, 0)
    path = directory() / f"root-{kind.value}.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return certificate, key, path


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@functools.cache
def _identity(role: str, kind: Kind, names: tuple[str, ...], intermediates: int, bulk_bytes: int) -> Identity:
    issuer_kind = _issuer_kind(kind)
    root, issuer_key, cafile = _root(issuer_kind)
    issuer = root.subject
    bulk = bulk_bytes // (intermediates + 1)
    chain: list[x509.Certificate] = []
    for depth in range(intermediates):
        key = _generate(issuer_kind)
        chain.insert(0, _authority(f"Test intermediate {depth}", key, issuer, issuer_key, bulk))
        issuer, issuer_key = chain[0].subject, key

    stem = f"{role}-{kind.value}-{intermediates}-{bulk_bytes}-{abs(hash(names)):x}"
    keyfile = directory() / f"{stem}.key"
    if kind is Kind.RSA_PSS:
        leaf = _pss_leaf(role, keyfile, names, root, issuer_key)
    else:
        leaf_key = _generate(kind)
        keyfile.write_bytes(leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        usage = ExtendedKeyUsageOID.SERVER_AUTH if role == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(_name(names[0]), leaf_key.public_key(), issuer, issuer_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            # NSS takes no RSA key for a server that may not encipher, even where TLS 1.3 only signs.
            .add_extension(_key_usage(issuer=False, encipher=kind is Kind.RSA_2048), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_alternative_name(name) for name in names]), critical=False
            )
        )
        leaf = _bulky(builder, bulk).sign(issuer_key, _digest(issuer_key))
    chain.insert(0, leaf)

    certfile = directory() / f"{stem}.pem"
    certfile.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain))
    return Identity(
        certfile,
        keyfile,
        cafile,
        tuple(certificate.public_bytes(Encoding.DER) for certificate in chain),
        root.public_bytes(Encoding.DER),
    )


def _pss_leaf(
    role: str, keyfile: Path, names: tuple[str, ...], root: x509.Certificate, root_key: PrivateKey
) -> x509.Certificate:
    """A leaf whose key is marked RSASSA-PSS; only the openssl program makes such keys here."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("absent: openssl")
    stem = keyfile.with_suffix("")
    ca, ca_key = stem.with_suffix(".ca"), stem.with_suffix(".cakey")
    ca.write_bytes(root.public_bytes(Encoding.PEM))
    ca_key.write_bytes(root_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    extensions = stem.with_suffix(".ext")
    kinds = [
        ("IP" if isinstance(_alternative_name(name), x509.IPAddress) else "DNS") + f":{name}"
        for name in names
    ]
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        f"extendedKeyUsage={role}Auth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        f"subjectAltName={','.join(kinds)}\n"
    )

    def run(*arguments: str | Path) -> None:
        subprocess.run([openssl, *map(str, arguments)], check=True, capture_output=True, timeout=60)

    # The key carries no parameters, so any hash may be used with it; NSS and WebPKI want it so too.
    run("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", keyfile)
    request, out = stem.with_suffix(".csr"), stem.with_suffix(".leaf")
    run("req", "-new", "-key", keyfile, "-subj", f"/CN={names[0]}", "-out", request, "-sigopt",
        "rsa_padding_mode:pss", "-sha256")  # fmt: skip
    run("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-days", "30", "-sha256",
        "-set_serial", str(x509.random_serial_number()), "-extfile", extensions, "-out", out)  # fmt: skip
    ca_key.unlink()
    return x509.load_pem_x509_certificate(out.read_bytes())


def private_key(identity: Identity) -> PrivateKey:
    """The key of `identity` as `cryptography` loads it."""
    key = load_pem_private_key(identity.keyfile.read_bytes(), None)
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey))
    return key


def root_of(identity: Identity) -> tuple[x509.Certificate, PrivateKey]:
    """The root that issued `identity`, with its key."""
    for kind in (Kind.ECDSA_P256, Kind.ECDSA_P384, Kind.RSA_2048):
        certificate, key, path = _root(kind)
        if path == identity.cafile:
            return certificate, key
    raise AssertionError("no root of ours issued it")
