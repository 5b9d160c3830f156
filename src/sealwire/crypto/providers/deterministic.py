"""A seeded provider: the same seed gives the same randoms and key shares, for tests and simulation.

Never for use on a network: whoever knows the seed knows every secret.  Random bytes are SHAKE-256
of seed and a running counter.  What stays random in spite of the seed, because the libraries
beneath offer no way in: the answering side's ML-KEM encapsulation (so a server's share and secret
of a hybrid group), and the nonces or salts of ECDSA and RSA-PSS signatures; an ECDSA signature's
length varies too.  Ed25519 with X25519, X448 or a NIST curve repeats byte for byte.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sealwire.crypto.providers.openssl import OpenSslProvider

__all__ = ["DeterministicProvider"]


class DeterministicProvider(OpenSslProvider):
    """OpenSSL beneath, with every random number drawn from `seed` in order of the calls.

    Args:
        seed: any bytes, or an int, which stands for its decimal text.
    """

    name = "deterministic"

    def __init__(self, seed: bytes | int) -> None:
        self._seed = seed if isinstance(seed, bytes) else str(seed).encode()
        self._drawn = 0

    def random(self, n: int) -> bytes:
        # The counter has a fixed width and stands first, so no two draws hash the same bytes.
        label = self._drawn.to_bytes(8, "big")
        self._drawn += 1
        return hashlib.shake_256(label + self._seed).digest(n)

    def x25519_key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.random(32))

    def x448_key(self) -> X448PrivateKey:
        return X448PrivateKey.from_private_bytes(self.random(56))

    def curve_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        # 16 bytes more than the order make the bias of the reduction (FIPS 186-5 A.2.1) invisible.
        n = curve.key_size // 8 + 16
        return ec.derive_private_key(
            int.from_bytes(self.random(n), "big") % (curve.group_order - 1) + 1, curve
        )

    def mlkem768_key(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.from_seed_bytes(self.random(64))

    def mlkem1024_key(self) -> MLKEM1024PrivateKey:
        return MLKEM1024PrivateKey.from_seed_bytes(self.random(64))
