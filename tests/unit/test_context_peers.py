"""Context: credentials of every kind, pins and raw public keys, as verbs and in the Config."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PublicFormat, pkcs12

from sealwire.context import CERT_NONE, CERT_REQUIRED, PROTOCOL_CLIENT, PROTOCOL_SERVER, Context
from sealwire.crypto.certificates import Purpose, RawPublicKey
from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.credentials import Credential
from sealwire.crypto.signatures import SignatureScheme, sign
from sealwire.errors import CertificateError, ConfigurationError
from tests.staples import staple
from tests.unit.crypto.authority import NOW, authority, ec_key, issue, rsa_key

ROOT = authority()
KEY = ec_key()
LEAF = issue("server", ROOT, key=KEY, names=["server.test"])
OTHER = issue("server", ROOT, key=rsa_key(), names=["other.test"])
STAPLE = staple(LEAF.certificate, ROOT.certificate, ROOT.key, now=NOW)
SCHEME = SignatureScheme.ECDSA_SECP256R1_SHA256
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signer(scheme: SignatureScheme, content: bytes) -> bytes:
    return sign(LEAF.key, scheme, content)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    path = tmp_path / "chain.pem"
    path.write_bytes(LEAF.pem + ROOT.pem)
    return path


def test_a_chain_with_a_function_that_signs(chain: Path) -> None:
    context = Context(PROTOCOL_SERVER)
    context.load_cert_chain(chain, sign=signer, ocsp_response=STAPLE)
    (credential,) = context.config().credentials
    assert credential.chain == (LEAF.der, ROOT.der)
    assert credential.sign(SCHEME, b"c")
    assert credential.staple(NOW.timestamp()) == STAPLE
    before = context.config()
    with pytest.raises(ConfigurationError, match="one of them"):
        context.load_cert_chain(chain, chain, sign=signer)
    with pytest.raises(ConfigurationError, match="one of them"):
        context.load_cert_chain(chain, password="x", sign=signer)
    assert context.config() is before


def test_a_staple_for_a_key_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_bytes(LEAF.pem + LEAF.key_pem())
    context = Context(PROTOCOL_SERVER)
    context.load_cert_chain(tmp_path / "both.pem", ocsp_response=lambda: STAPLE)
    assert context.config().credentials[0].staple(NOW.timestamp()) == STAPLE


def test_pkcs12(tmp_path: Path) -> None:
    (tmp_path / "a.p12").write_bytes(
        pkcs12.serialize_key_and_certificates(None, KEY, LEAF.certificate, None, NoEncryption())
    )
    context = Context(PROTOCOL_SERVER)
    context.load_pkcs12(tmp_path / "a.p12", ocsp_response=STAPLE)
    (credential,) = context.config().credentials
    assert (credential.chain, credential.staple(NOW.timestamp())) == ((LEAF.der,), STAPLE)
    with pytest.raises(ConfigurationError, match="cannot read"):
        context.load_pkcs12(tmp_path / "missing.p12")


@pytest.mark.requirement("7250-1")
def test_raw_public_keys_stand_beside_certificates(tmp_path: Path, chain: Path) -> None:
    (tmp_path / "key.pem").write_bytes(LEAF.key_pem())
    context = Context(PROTOCOL_SERVER)
    context.load_raw_public_key(tmp_path / "key.pem")
    # A server may have nothing else.
    (raw,) = context.config().credentials
    assert raw.is_raw_public_key
    context.load_cert_chain(chain, sign=signer)
    config = context.config()
    assert len(config.credentials) == 2
    certified = config.credential_for("server.test", (SCHEME,))
    assert certified is not None
    assert certified.chain
    assert config.credential_for("server.test", (SCHEME,), raw_public_key=True) is raw
    assert config.credential_for(None, (SignatureScheme.ED25519,), raw_public_key=True) is None
    # The same kind again replaces its like.
    replaced = Credential.raw_public_key(PEM, lambda scheme, content: sign(KEY, scheme, content))
    context.use_credential(replaced)
    config = context.config()
    assert config.credential_for(None, (SCHEME,), raw_public_key=True) is replaced
    assert len(config.credentials) == 2


def test_pins_decide_in_place_of_authorities() -> None:
    context = Context(PROTOCOL_CLIENT)
    context.set_pinned_fingerprints([f"sha256:{hashlib.sha256(LEAF.der).hexdigest()}"])
    config = context.config()
    assert config.verifier.verify([LEAF.der], purpose=Purpose.SERVER, name="x").path == (LEAF.der,)
    with pytest.raises(CertificateError, match="pinned"):
        config.verifier.verify([OTHER.der], purpose=Purpose.SERVER, name="x")
    with pytest.raises(ConfigurationError, match="hex digits"):
        context.set_pinned_fingerprints(["sha256:00"])
    assert context.config() is config
    context.set_pinned_fingerprints([])
    with pytest.raises(CertificateError, match="no certificate authority"):
        context.config().verifier.verify([LEAF.der], purpose=Purpose.SERVER, name="x")


@pytest.mark.requirement("7250-1")
@pytest.mark.parametrize("key", [SPKI, PEM, PEM.decode()], ids=["der", "pem", "text"])
def test_trusted_raw_public_keys(key: str | bytes) -> None:
    context = Context(PROTOCOL_CLIENT)
    assert not context.config().verifier.accepts_raw_public_keys
    context.set_raw_public_keys([key])
    verifier = context.config().verifier
    assert verifier.accepts_raw_public_keys
    assert verifier.verify(RawPublicKey(SPKI), purpose=Purpose.SERVER, name=None).key.spki == SPKI
    for bad, complaint in (([b"junk"], "no public key"), (PEM, "list")):
        with pytest.raises(ConfigurationError, match=complaint):
            context.set_raw_public_keys(bad)  # type: ignore[arg-type]
    context.set_raw_public_keys([])
    with pytest.raises(CertificateError):
        context.config().verifier.verify(RawPublicKey(SPKI), purpose=Purpose.SERVER, name=None)


def test_naming_whom_to_trust_turns_verification_on() -> None:
    pinning, trusting = Context(PROTOCOL_SERVER), Context(PROTOCOL_SERVER)
    assert pinning.verify_mode is trusting.verify_mode is CERT_NONE
    pinning.set_pinned_fingerprints(["00" * 32])
    trusting.set_raw_public_keys([SPKI])
    assert pinning.verify_mode is trusting.verify_mode is CERT_REQUIRED
    context = Context(PROTOCOL_SERVER)
    context.set_pinned_fingerprints([])
    context.set_raw_public_keys([])
    assert context.verify_mode is CERT_NONE


@pytest.mark.requirement("8879-1")
def test_certificate_compression_is_off_until_asked_for() -> None:
    context = Context(PROTOCOL_CLIENT)
    assert context.config().certificate_compression == ()
    context.set_certificate_compression(["zlib"])
    config = context.config()
    assert config.certificate_compression == (CompressionAlgorithm.ZLIB,)
    with pytest.raises(ConfigurationError, match="unknown"):
        context.set_certificate_compression("gzip")
    assert context.config() is config
    context.set_certificate_compression([])
    assert context.config().certificate_compression == ()
