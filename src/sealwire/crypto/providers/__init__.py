"""The seam between protocol and cryptography: what a provider must offer, and the default one.

A provider is stateless apart from its random numbers, so one serves every connection of a process.
It never sees protocol messages; it is handed keys, nonces and bytes.  The default uses OpenSSL
through ``cryptography`` and the standard library; tests use the seeded one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Protocol

from sealwire.crypto.groups import Group, KeyShare

if TYPE_CHECKING:
    from sealwire.crypto.hkdf import Secret
    from sealwire.crypto.suites import SuiteSpec
    from sealwire.wire import Buffer

__all__ = ["Aead", "CryptoProvider", "Digest", "KeyShare", "Mask", "default_provider"]


class Digest(Protocol):
    """A running hash; the objects of :mod:`hashlib` fit."""

    def update(self, data: Buffer, /) -> None: ...

    def copy(self) -> Digest: ...

    def digest(self) -> bytes: ...


class Aead(Protocol):
    """An AEAD under one key.  Nonces are 12 bytes; the tag (of the suite's length) ends the ciphertext."""

    def seal(self, nonce: bytes, data: Buffer, aad: Buffer) -> bytes:
        """Ciphertext and tag."""
        ...

    def open(self, nonce: bytes, data: Buffer, aad: Buffer) -> bytes | None:
        """Plaintext; None if `data` did not authenticate, which on a network is no exception."""
        ...


#: From the first 16 bytes of a ciphertext to at least 2 bytes to xor over its record number.
Mask = Callable[[bytes], bytes]


class CryptoProvider(Protocol):
    """What the protocol needs from cryptography.  `hash_name` is ``"sha256"`` or ``"sha384"``."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str: ...

    def random(self, n: int) -> bytes:
        """`n` unpredictable bytes."""
        ...

    def digest(self, hash_name: str) -> Digest: ...

    def hmac(self, hash_name: str, key: bytes, data: bytes) -> bytes: ...

    def hkdf_extract(self, hash_name: str, salt: bytes, secret: bytes) -> bytes:
        """RFC 5869 section 2.2.  Bytes of its own, as for :meth:`hkdf_expand`."""
        ...

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, n: int) -> bytes:
        """RFC 5869 section 2.3.  ValueError above 255 hash lengths.

        Each call makes bytes of its own: whoever asked overwrites them when they were used.
        """
        ...

    def hkdf_secrets(
        self, hash_name: str, secret: bytes, infos: tuple[tuple[bytes, int], ...]
    ) -> list[Secret]:
        """:meth:`hkdf_expand` of one secret for each info and number of bytes, one hash at most."""
        ...

    def supports(self, group: Group) -> bool:
        """Whether the libraries beneath can do `group` (ML-KEM needs a recent OpenSSL)."""
        ...

    def key_share(self, group: Group) -> KeyShare:
        """A fresh share to offer.  ConfigurationError for a group that is not supported."""
        ...

    def respond(self, group: Group, peer_share: bytes) -> tuple[bytes, bytes]:
        """The answering side: our share and the shared secret.

        ProtocolError(illegal_parameter) for a share the group does not allow.
        """
        ...

    def aead(self, spec: SuiteSpec, key: bytes) -> Aead: ...

    def mask(self, spec: SuiteSpec, sn_key: bytes) -> Mask:
        """The record number mask of RFC 9147 section 4.2.3 under `sn_key`."""
        ...


@cache
def default_provider() -> CryptoProvider:
    """The provider every Context uses unless told otherwise."""
    from sealwire.crypto.providers.openssl import OpenSslProvider

    return OpenSslProvider()
