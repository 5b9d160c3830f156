"""The default provider: OpenSSL, reached through ``cryptography`` and the standard library.

Hashes go through hashlib, HMAC through the compiled `_mac` or else hmac.digest, and HKDF is two
lines above HMAC (measured beside cryptography's HKDFExpand: the same time for one block, less
above it).  AEADs and key exchange come from ``cryptography``.  Whatever a peer can send wrong in
a key share ends in one error, illegal_parameter, before or after OpenSSL has looked at it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from functools import lru_cache

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealwire.crypto.erasing import erase
from sealwire.crypto.groups import GROUPS, HYBRID_SPECS, Group, HybridSpec, KeyShare, bad_share
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import Aead, Digest, Mask
from sealwire.crypto.suites import AeadKind, SuiteSpec
from sealwire.errors import ConfigurationError
from sealwire.wire import Buffer

__all__ = ["OpenSslProvider"]

_HASHES: dict[str, Callable[[], Digest]] = {"sha256": hashlib.sha256, "sha384": hashlib.sha384}
_HASH_BYTES = {"sha256": 32, "sha384": 48}
_CURVES: dict[Group, type[ec.EllipticCurve]] = {
    Group.SECP256R1: ec.SECP256R1,
    Group.SECP384R1: ec.SECP384R1,
    Group.SECP521R1: ec.SECP521R1,
}


# HKDF of one secret several times, as :func:`sealwire.crypto._mac.expand`.
_Expand = Callable[[str, bytes, tuple[tuple[bytes, int], ...], type[Secret]], list[Secret]]


def _choose_hmac() -> tuple[Callable[[str, bytes, bytes], bytes], _Expand | None]:
    """HMAC of (hash name, key, data), and HKDF above it: the compiled ones where they work."""
    reason = ""
    if os.environ.get("SEALWIRE_PURE") != "1":
        try:
            import sealwire.crypto._evp as evp
            import sealwire.crypto._mac as mac
        except ImportError as error:
            reason = str(error)
        else:
            try:
                mac.load()
            except evp.Unavailable as error:
                reason = str(error)
            else:
                return mac.digest, mac.expand
    if reason and os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
        raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {reason}")
    return (lambda hash_name, key, data: hmac.digest(key, data, hash_name)), None


_hmac, _expand = _choose_hmac()


class OpenSslProvider:
    """CryptoProvider over OpenSSL; stateless, and safe to share between threads."""

    name = "openssl"

    def random(self, n: int) -> bytes:
        return os.urandom(n)

    def digest(self, hash_name: str) -> Digest:
        return _HASHES[hash_name]()

    def hmac(self, hash_name: str, key: bytes, data: bytes) -> bytes:
        return _hmac(hash_name, key, data)

    def hkdf_extract(self, hash_name: str, salt: bytes, secret: bytes) -> bytes:
        # RFC 5869 section 2.2: no salt means a string of HashLen zeros, to HMAC the same as an empty key.
        return _hmac(hash_name, salt, secret)

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, n: int) -> bytes:
        size = _HASH_BYTES[hash_name]
        block = _hmac(hash_name, secret, info + b"\x01")
        if n < size:
            derived = block[:n]
            erase(block)
            return derived
        if n == size:
            return block
        if n > 255 * size:
            raise ValueError(f"HKDF with {hash_name} yields at most {255 * size} bytes, not {n}")
        output = bytearray(block)
        counter = 1
        while len(output) < n:
            counter += 1
            block = _hmac(hash_name, secret, block + info + bytes((counter,)))
            output += block
        return bytes(output[:n])

    def hkdf_secrets(
        self, hash_name: str, secret: bytes, infos: tuple[tuple[bytes, int], ...]
    ) -> list[Secret]:
        # A provider with an HKDF of its own is obeyed.
        if _expand is not None and type(self).hkdf_expand is OpenSslProvider.hkdf_expand:
            return _expand(hash_name, secret, infos, Secret)
        return [Secret.taking(self.hkdf_expand(hash_name, secret, info, n)) for info, n in infos]

    def supports(self, group: Group) -> bool:
        return group in GROUPS and _available(group)

    def key_share(self, group: Group) -> KeyShare:
        hybrid = HYBRID_SPECS.get(group)
        if not self.supports(group):
            raise _unsupported(group)
        if hybrid is None:
            return self._classical(group, group)
        return _HybridShare(group, hybrid, self._kem_key(hybrid), self._classical(hybrid.curve, group))

    def respond(self, group: Group, peer_share: bytes) -> tuple[bytes, bytes]:
        hybrid = HYBRID_SPECS.get(group)
        if hybrid is None:
            share = self.key_share(group)
            return share.public, share.finish(peer_share)
        if not self.supports(group):
            raise _unsupported(group)
        if len(peer_share) != GROUPS[group].offer_bytes:
            raise bad_share(group)
        curve_part, kem_part = _split(hybrid, peer_share, hybrid.key_bytes)
        public = MLKEM768PublicKey if hybrid.parameter_set == 768 else MLKEM1024PublicKey
        try:
            # FIPS 203 section 7.2: OpenSSL runs the modulus check on the encapsulation key.
            kem = public.from_public_bytes(kem_part)
        except ValueError:
            raise bad_share(group) from None
        curve = self._classical(hybrid.curve, group)
        curve_secret = curve.finish(curve_part)
        kem_secret, ciphertext = kem.encapsulate()
        return _join(hybrid, curve.public, ciphertext), Secret(_join(hybrid, curve_secret, kem_secret))

    def _classical(self, curve: Group, group: Group) -> KeyShare:
        """A share of `curve`, alone or as a part of `group`, which is what errors name."""
        if curve is Group.X25519:
            return _MontgomeryShare(group, self.x25519_key(), X25519PublicKey)
        if curve is Group.X448:
            return _MontgomeryShare(group, self.x448_key(), X448PublicKey)
        return _CurveShare(group, self.curve_key(_CURVES[curve]()))

    def _kem_key(self, hybrid: HybridSpec) -> MLKEM768PrivateKey | MLKEM1024PrivateKey:
        return self.mlkem768_key() if hybrid.parameter_set == 768 else self.mlkem1024_key()

    def aead(self, spec: SuiteSpec, key: bytes) -> Aead:
        if len(key) != spec.key_bytes:
            raise ValueError(f"{spec.name} takes a key of {spec.key_bytes} bytes, not {len(key)}")
        match spec.aead:
            case AeadKind.AES_GCM:
                return _Aead(AESGCM(key))
            case AeadKind.AES_CCM:
                return _Aead(AESCCM(key, spec.tag_bytes))
            case AeadKind.CHACHA20_POLY1305:
                return _Aead(ChaCha20Poly1305(key))

    def mask(self, spec: SuiteSpec, sn_key: bytes) -> Mask:
        if len(sn_key) != spec.key_bytes:
            raise ValueError(f"{spec.name} takes an sn_key of {spec.key_bytes} bytes, not {len(sn_key)}")
        # RFC 9147 section 4.2.3 [9147-4.2.3-1]: AES-ECB of the sample; for ChaCha20 the sample is block
        # counter (4 bytes, little-endian) and nonce (12), just as `cryptography` lays out its 16-byte nonce.
        if spec.aead is not AeadKind.CHACHA20_POLY1305:
            # Whole blocks leave no state in ECB, so one encryptor serves every record.
            return Cipher(AES(sn_key), ECB()).encryptor().update  # noqa: S305
        encryptor = Cipher(ChaCha20(sn_key, bytes(16)), None).encryptor()

        def chacha_mask(sample: bytes) -> bytes:
            encryptor.reset_nonce(sample)
            return encryptor.update(b"\0\0")

        return chacha_mask

    # Where private keys come from; the deterministic provider replaces these.

    def x25519_key(self) -> X25519PrivateKey:
        return X25519PrivateKey.generate()

    def x448_key(self) -> X448PrivateKey:
        return X448PrivateKey.generate()

    def curve_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(curve)

    def mlkem768_key(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.generate()

    def mlkem1024_key(self) -> MLKEM1024PrivateKey:
        return MLKEM1024PrivateKey.generate()


def _unsupported(group: Group) -> ConfigurationError:
    return ConfigurationError(f"group {group.name} is not supported by this build of cryptography")


@lru_cache(maxsize=len(GROUPS))
def _available(group: Group) -> bool:
    """Whether the OpenSSL beneath has what `group` needs, found out by making keys of fixed bytes."""
    hybrid = HYBRID_SPECS.get(group)
    try:
        if group is Group.X448:
            X448PrivateKey.from_private_bytes(bytes(range(56)))
        elif hybrid is not None and hybrid.parameter_set == 768:
            MLKEM768PrivateKey.from_seed_bytes(bytes(64))
        elif hybrid is not None:
            MLKEM1024PrivateKey.from_seed_bytes(bytes(64))
    except UnsupportedAlgorithm:
        return False
    return True


def _split(hybrid: HybridSpec, share: bytes, kem_bytes: int) -> tuple[bytes, bytes]:
    """The curve's part and ML-KEM's, which has `kem_bytes`, of a hybrid share."""
    if hybrid.curve_first:
        return share[:-kem_bytes], share[-kem_bytes:]
    return share[kem_bytes:], share[:kem_bytes]


def _join(hybrid: HybridSpec, curve_part: bytes, kem_part: bytes) -> bytes:
    return curve_part + kem_part if hybrid.curve_first else kem_part + curve_part


class _MontgomeryShare:
    """X25519 or X448."""

    __slots__ = ("_decode", "_private", "group", "public")

    def __init__(
        self,
        group: Group,
        private: X25519PrivateKey | X448PrivateKey,
        kind: type[X25519PublicKey] | type[X448PublicKey],
    ) -> None:
        self.group = group
        self._private = private
        self._decode = kind.from_public_bytes
        self.public = private.public_key().public_bytes_raw()

    def finish(self, peer_share: bytes) -> bytes:
        if len(peer_share) != len(self.public):
            raise bad_share(self.group)
        try:
            secret = self._private.exchange(self._decode(peer_share))  # type: ignore[arg-type]
        except ValueError:
            raise bad_share(self.group) from None
        # RFC 8446 section 7.4.2 [8446-KS-5]: an all-zero result means a point of small order.  OpenSSL has
        # looked already; this line holds whatever library is beneath.
        if hmac.compare_digest(secret, bytes(len(secret))):
            raise bad_share(self.group)
        return Secret(secret)


class _CurveShare:
    __slots__ = ("_private", "group", "public")

    def __init__(self, group: Group, private: ec.EllipticCurvePrivateKey) -> None:
        self.group = group
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, peer_share: bytes) -> bytes:
        # RFC 8446 section 4.2.8.2 [8446-KS-6]: uncompressed points only, each checked to lie on the curve.
        if len(peer_share) != len(self.public) or peer_share[0] != 4:
            raise bad_share(self.group)
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._private.curve, peer_share)
            return Secret(self._private.exchange(ec.ECDH(), point))
        except ValueError:
            raise bad_share(self.group) from None


class _HybridShare:
    __slots__ = ("_curve", "_kem", "_spec", "group", "public")

    def __init__(
        self, group: Group, spec: HybridSpec, kem: MLKEM768PrivateKey | MLKEM1024PrivateKey, curve: KeyShare
    ) -> None:
        self.group = group
        self._spec = spec
        self._kem = kem
        self._curve = curve
        self.public = _join(spec, curve.public, kem.public_key().public_bytes_raw())

    def finish(self, peer_share: bytes) -> bytes:
        if len(peer_share) != GROUPS[self.group].answer_bytes:
            raise bad_share(self.group)
        curve_part, kem_part = _split(self._spec, peer_share, self._spec.ciphertext_bytes)
        curve_secret = self._curve.finish(curve_part)
        try:
            kem_secret = self._kem.decapsulate(kem_part)
        except ValueError:
            raise bad_share(self.group) from None
        return Secret(_join(self._spec, curve_secret, kem_secret))


class _Aead:
    __slots__ = ("_decrypt", "seal")

    def __init__(self, cipher: AESGCM | AESCCM | ChaCha20Poly1305) -> None:
        self.seal = cipher.encrypt
        self._decrypt = cipher.decrypt

    def open(self, nonce: bytes, data: Buffer, aad: Buffer) -> bytes | None:
        try:
            return self._decrypt(nonce, data, aad)
        except InvalidTag:
            return None
