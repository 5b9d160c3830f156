"""Project Wycheproof's vectors through our own interfaces: provider, groups and signatures.

The files are C2SP's (github.com/C2SP/wycheproof, Apache-2.0), read in place from the shared data; each
states in every group where its cases come from.  What our interface cannot express (192-bit AES
keys, nonces other than 12 bytes, tags no suite has) is left out by rule and counted against the file's
own totals.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sealwire.crypto.groups import HYBRID_SPECS, Group
from sealwire.crypto.keys import PssPublicKey
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.crypto.signatures import SignatureScheme, verify
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from sealwire.errors import Alert, ProtocolError

Case = dict[str, Any]

PROVIDER = OpenSslProvider()


class FixedProvider(OpenSslProvider):
    """A provider whose private keys are given."""

    def __init__(
        self, x25519: bytes = bytes(range(32)), mlkem_seed: bytes = bytes(64), scalar: int = 1
    ) -> None:
        self._x25519 = x25519
        self._mlkem_seed = mlkem_seed
        self._scalar = scalar

    def x25519_key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self._x25519)

    def curve_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(self._scalar, curve)

    def mlkem768_key(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.from_seed_bytes(self._mlkem_seed)


def cases(shared_data: Path, name: str) -> Iterator[tuple[Case, Case]]:
    """(group, test) for every test of a file."""
    content = json.loads((shared_data / "dtls13" / "wycheproof" / f"{name}_test.json").read_text())
    for group in content["testGroups"]:
        for test in group["tests"]:
            yield group, test


def field(case: Case, name: str) -> bytes:
    return bytes.fromhex(case[name])


def told(case: Case) -> str:
    return f"tcId {case['tcId']}: {case.get('comment', '')}"


def agreed(group: Group, provider: OpenSslProvider, share: bytes) -> bytes | None:
    """The shared secret from both sides of our interface; None where the share is refused."""

    def refusal_is_none(finish: Callable[[], bytes]) -> bytes | None:
        try:
            return finish()
        except ProtocolError as error:
            return None if error.alert is Alert.ILLEGAL_PARAMETER else b"another alert"

    offered = refusal_is_none(lambda: provider.key_share(group).finish(share))
    answered = refusal_is_none(lambda: provider.respond(group, share)[1])
    assert offered == answered
    return offered


AEADS = [
    ("aes_gcm", CipherSuite.TLS_AES_128_GCM_SHA256, {"valid": 40, "invalid": 27}),
    ("aes_gcm", CipherSuite.TLS_AES_256_GCM_SHA384, {"valid": 39, "invalid": 27}),
    ("aes_ccm", CipherSuite.TLS_AES_128_CCM_SHA256, {"valid": 51, "invalid": 27}),
    ("aes_ccm", CipherSuite.TLS_AES_128_CCM_8_SHA256, {"valid": 8}),
    ("chacha20_poly1305", CipherSuite.TLS_CHACHA20_POLY1305_SHA256, {"valid": 256, "invalid": 60}),
]


@pytest.mark.parametrize(("file", "suite", "expected"), AEADS, ids=[suite.name for _, suite, _ in AEADS])
def test_aead(shared_data: Path, file: str, suite: CipherSuite, expected: dict[str, int]) -> None:
    spec: SuiteSpec = SUITES[suite]
    seen: Counter[str] = Counter()
    for group, test in cases(shared_data, file):
        sizes = (group["keySize"], group["ivSize"], group["tagSize"])
        if sizes != (spec.key_bytes * 8, spec.iv_bytes * 8, spec.tag_bytes * 8):
            continue
        aead = PROVIDER.aead(spec, field(test, "key"))
        nonce, aad = field(test, "iv"), field(test, "aad")
        sealed = field(test, "ct") + field(test, "tag")
        if test["result"] == "valid":
            assert aead.open(nonce, sealed, aad) == field(test, "msg"), told(test)
            assert aead.seal(nonce, field(test, "msg"), aad) == sealed, told(test)
        else:
            assert aead.open(nonce, sealed, aad) is None, told(test)
        seen[test["result"]] += 1
    assert seen == expected


@pytest.mark.parametrize(
    ("hash_name", "expected"),
    [("sha256", {"valid": 83, "invalid": 3}), ("sha384", {"valid": 80, "invalid": 3})],
)
def test_hkdf(shared_data: Path, hash_name: str, expected: dict[str, int]) -> None:
    seen: Counter[str] = Counter()
    for _, test in cases(shared_data, f"hkdf_{hash_name}"):
        secret = PROVIDER.hkdf_extract(hash_name, field(test, "salt"), field(test, "ikm"))
        expand = functools.partial(PROVIDER.hkdf_expand, hash_name, secret, field(test, "info"), test["size"])
        if test["result"] == "valid":
            assert expand() == field(test, "okm"), told(test)
        else:
            with pytest.raises(ValueError, match="at most"):
                expand()
        seen[test["result"]] += 1
    assert seen == expected


def test_hmac(shared_data: Path) -> None:
    seen: Counter[str] = Counter()
    for group, test in cases(shared_data, "hmac_sha256"):
        tag = PROVIDER.hmac("sha256", field(test, "key"), field(test, "msg"))[: group["tagSize"] // 8]
        assert (tag == field(test, "tag")) is (test["result"] == "valid"), told(test)
        seen[test["result"]] += 1
    assert seen == {"valid": 66, "invalid": 108}


@pytest.mark.requirement("8446-KS-5")
def test_x25519(shared_data: Path) -> None:
    # "Acceptable" are twist and non-canonical points, which RFC 7748 takes, and points of small order,
    # which RFC 8446 section 7.4.2 refuses.
    seen: Counter[str] = Counter()
    for _, test in cases(shared_data, "x25519"):
        provider = FixedProvider(x25519=field(test, "private"))
        shared = agreed(Group.X25519, provider, field(test, "public"))
        if "ZeroSharedSecret" in test["flags"]:
            assert test["result"] == "acceptable"
            assert shared is None, told(test)
            seen["refused"] += 1
        else:
            assert shared == field(test, "shared"), told(test)
            seen[test["result"]] += 1
    assert seen == {"valid": 264, "acceptable": 223, "refused": 31}


def test_ecdh_p256(shared_data: Path) -> None:
    # RFC 8446 section 4.2.8.2 has no compressed points, so the one "acceptable" case is refused.
    seen: Counter[str] = Counter()
    for _, test in cases(shared_data, "ecdh_secp256r1_ecpoint"):
        provider = FixedProvider(scalar=int(test["private"], 16))
        shared = agreed(Group.SECP256R1, provider, field(test, "public"))
        if test["result"] == "valid":
            assert shared == field(test, "shared"), told(test)
        else:
            assert shared is None, told(test)
        seen[test["result"]] += 1
    assert seen == {"valid": 330, "acceptable": 1, "invalid": 24}


@pytest.mark.requirement("MLKEM-1")
@pytest.mark.parametrize("group", [Group.X25519MLKEM768, Group.SECP256R1MLKEM768], ids=lambda one: one.name)
def test_mlkem_768_inside_the_hybrid_groups(group: Group, shared_data: Path) -> None:
    spec = HYBRID_SPECS[group]
    peer = FixedProvider(x25519=bytes(range(1, 33)), scalar=2).key_share(spec.curve)
    curve_secret = peer.finish(FixedProvider().key_share(spec.curve).public)

    def joined(curve_part: bytes, kem_part: bytes) -> bytes:
        # draft-ietf-tls-ecdhe-mlkem section 4.
        return kem_part + curve_part if group is Group.X25519MLKEM768 else curve_part + kem_part

    seen: Counter[str] = Counter()
    for _, test in cases(shared_data, "mlkem_768"):
        if len(field(test, "seed")) != 64:
            # A private seed of wrong length is not something a peer can send.
            assert test["result"] == "invalid"
            seen["our own seed"] += 1
            continue
        provider = FixedProvider(mlkem_seed=field(test, "seed"))
        share = provider.key_share(group)
        assert share.public == joined(provider.key_share(spec.curve).public, field(test, "ek")), told(test)
        if test["result"] == "valid":
            secret = share.finish(joined(peer.public, field(test, "c")))
            assert secret == joined(curve_secret, field(test, "K")), told(test)
        else:
            with pytest.raises(ProtocolError) as caught:
                share.finish(joined(peer.public, field(test, "c")))
            assert caught.value.alert is Alert.ILLEGAL_PARAMETER
        seen[test["result"]] += 1
    assert seen == {"valid": 153, "invalid": 20, "our own seed": 20}


SIGNATURES = [
    ("ecdsa_secp256r1_sha256", SignatureScheme.ECDSA_SECP256R1_SHA256, {"valid": 174, "invalid": 310}),
    ("ed25519", SignatureScheme.ED25519, {"valid": 88, "invalid": 63}),
    ("rsa_pss_2048_sha256_mgf1_32", SignatureScheme.RSA_PSS_RSAE_SHA256, {"valid": 63, "invalid": 45}),
    ("rsa_pss_2048_sha256_mgf1_32", SignatureScheme.RSA_PSS_PSS_SHA256, {"valid": 63, "invalid": 45}),
]


@pytest.mark.parametrize(
    ("file", "scheme", "expected"), SIGNATURES, ids=[scheme.name for _, scheme, _ in SIGNATURES]
)
def test_signatures(shared_data: Path, file: str, scheme: SignatureScheme, expected: dict[str, int]) -> None:
    seen: Counter[str] = Counter()
    for group, test in cases(shared_data, file):
        key: Any = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        if scheme is SignatureScheme.RSA_PSS_PSS_SHA256:
            key = PssPublicKey(key, "sha256")
        if test["result"] == "valid":
            verify(key, scheme, field(test, "sig"), field(test, "msg"))
        else:
            with pytest.raises(ProtocolError) as caught:
                verify(key, scheme, field(test, "sig"), field(test, "msg"))
            assert caught.value.alert is Alert.DECRYPT_ERROR, told(test)
        seen[test["result"]] += 1
    assert seen == expected
