"""The default provider: OpenSSL, reached through ``cryptography`` and the standard library.

Hashes and HMAC go through hashlib and hmac.digest, which call OpenSSL in one step; HKDF is two
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
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealwire.crypto.groups import (
    GROUPS,
    MLKEM768_CIPHERTEXT_BYTES,
    MLKEM768_KEY_BYTES,
    Group,
    KeyShare,
    bad_share,
)
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import Aead, Digest, Mask
from sealwire.crypto.suites import AeadKind, SuiteSpec
from sealwire.errors import ConfigurationError
from sealwire.wire import Buffer

__all__ = ["OpenSslProvider"]

_HASHES: dict[str, Callable[[], Digest]] = {"sha256": hashlib.sha256, "sha384": hashlib.sha384}
_HASH_BYTES = {"sha256": 32, "sha384": 48}
_CURVES: dict[Group, type[ec.EllipticCurve]] = {Group.SECP256R1: ec.SECP256R1, Group.SECP384R1: ec.SECP384R1}


class OpenSslProvider:
    """CryptoProvider over OpenSSL; stateless, and safe to share between threads."""

    name = "openssl"

    def random(self, n: int) -> bytes:
        return os.urandom(n)

    def digest(self, hash_name: str) -> Digest:
        return _HASHES[hash_name]()

    def hmac(self, hash_name: str, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, hash_name)

    def hkdf_extract(self, hash_name: str, salt: bytes, secret: bytes) -> bytes:
        # RFC 5869 section 2.2: no salt means a string of HashLen zeros, to HMAC the same as an empty key.
        return hmac.digest(salt, secret, hash_name)

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, n: int) -> bytes:
        size = _HASH_BYTES[hash_name]
        block = hmac.digest(secret, info + b"\x01", hash_name)
        if n <= size:
            return block[:n]
        if n > 255 * size:
            raise ValueError(f"HKDF with {hash_name} yields at most {255 * size} bytes, not {n}")
        output = bytearray(block)
        counter = 1
        while len(output) < n:
            counter += 1
            block = hmac.digest(secret, block + info + bytes((counter,)), hash_name)
            output += block
        return bytes(output[:n])

    def supports(self, group: Group) -> bool:
        if group is Group.X25519MLKEM768:
            return _mlkem_available()
        return group in GROUPS

    def key_share(self, group: Group) -> KeyShare:
        if group is Group.X25519:
            return _X25519Share(self.x25519_key())
        if group in _CURVES:
            return _CurveShare(group, self.curve_key(_CURVES[group]()))
        if group is Group.X25519MLKEM768 and _mlkem_available():
            return _HybridShare(self.mlkem768_key(), self.x25519_key())
        raise ConfigurationError(f"group {group.name} is not supported by this build of cryptography")

    def respond(self, group: Group, peer_share: bytes) -> tuple[bytes, bytes]:
        if group is not Group.X25519MLKEM768:
            share = self.key_share(group)
            return share.public, share.finish(peer_share)
        if not _mlkem_available():
            raise ConfigurationError(f"group {group.name} is not supported by this build of cryptography")
        if len(peer_share) != GROUPS[group].offer_bytes:
            raise bad_share(group)
        try:
            # FIPS 203 section 7.2: OpenSSL runs the modulus check on the encapsulation key.
            kem = MLKEM768PublicKey.from_public_bytes(peer_share[:MLKEM768_KEY_BYTES])
        except ValueError:
            raise bad_share(group) from None
        private = self.x25519_key()
        curve_secret = _x25519(private, peer_share[MLKEM768_KEY_BYTES:], group)
        kem_secret, ciphertext = kem.encapsulate()
        # draft-ietf-tls-ecdhe-mlkem section 4: in this group the ML-KEM part comes first everywhere.
        return ciphertext + private.public_key().public_bytes_raw(), Secret(kem_secret + curve_secret)

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

    def curve_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(curve)

    def mlkem768_key(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.generate()


@lru_cache(maxsize=1)
def _mlkem_available() -> bool:
    try:
        MLKEM768PrivateKey.from_seed_bytes(bytes(64))
    except UnsupportedAlgorithm:
        return False
    return True


def _x25519(private: X25519PrivateKey, share: bytes, group: Group) -> bytes:
    if len(share) != 32:
        raise bad_share(group)
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError:
        raise bad_share(group) from None
    # RFC 8446 section 7.4.2 [8446-KS-5]: an all-zero result means a point of small order.  OpenSSL has
    # looked already; this line holds whatever library is beneath.
    if hmac.compare_digest(secret, bytes(32)):
        raise bad_share(group)
    return secret


class _X25519Share:
    __slots__ = ("_private", "public")

    group = Group.X25519

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    def finish(self, peer_share: bytes) -> bytes:
        return Secret(_x25519(self._private, peer_share, self.group))


class _CurveShare:
    __slots__ = ("_private", "group", "public")

    def __init__(self, group: Group, private: ec.EllipticCurvePrivateKey) -> None:
        self.group = group
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, peer_share: bytes) -> bytes:
        # RFC 8446 section 4.2.8.2: uncompressed points only, and each is checked to lie on the curve.
        if len(peer_share) != len(self.public) or peer_share[0] != 4:
            raise bad_share(self.group)
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._private.curve, peer_share)
            return Secret(self._private.exchange(ec.ECDH(), point))
        except ValueError:
            raise bad_share(self.group) from None


class _HybridShare:
    __slots__ = ("_curve", "_kem", "public")

    group = Group.X25519MLKEM768

    def __init__(self, kem: MLKEM768PrivateKey, curve: X25519PrivateKey) -> None:
        self._kem = kem
        self._curve = curve
        self.public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def finish(self, peer_share: bytes) -> bytes:
        if len(peer_share) != GROUPS[self.group].answer_bytes:
            raise bad_share(self.group)
        curve_secret = _x25519(self._curve, peer_share[MLKEM768_CIPHERTEXT_BYTES:], self.group)
        try:
            kem_secret = self._kem.decapsulate(peer_share[:MLKEM768_CIPHERTEXT_BYTES])
        except ValueError:
            raise bad_share(self.group) from None
        return Secret(kem_secret + curve_secret)


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
