"""HKDF-Expand-Label, and the keys that follow from a traffic secret.

Every secret of a connection is derived through :func:`expand_label`; the label prefix is the only
difference between a stream and datagrams.  Derivation sits on the handshake's critical path (some
forty of them), so the constant head of each HkdfLabel is built once and kept, and what comes of one
secret is derived in one call (:func:`expand_labels`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from sealwire.crypto.erasing import ERASES, erase

if TYPE_CHECKING:
    from sealwire.crypto.providers import CryptoProvider
    from sealwire.crypto.suites import SuiteSpec

__all__ = [
    "DTLS13_PREFIX",
    "TLS13_PREFIX",
    "Secret",
    "TrafficKeys",
    "expand_label",
    "expand_labels",
    "next_traffic_secret",
    "traffic_keys",
]

TLS13_PREFIX: Final = b"tls13 "
# RFC 9147 section 5.9 [9147-5.9-1]: "dtls13" stands where "tls13 " stood, without a blank after it.
DTLS13_PREFIX: Final = b"dtls13"


class Secret(bytes):
    """Bytes that must not be seen: they print as their length only, and are overwritten when they go."""

    __slots__ = ()

    # Where nothing can be overwritten, there is nothing to call for each of them.
    if ERASES:
        __del__ = erase

    def __repr__(self) -> str:
        return f"<secret of {len(self)} bytes>"

    __str__ = __repr__

    @classmethod
    def taking(cls, derived: bytes) -> Secret:
        """The secret in `derived`, which is erased: the caller made it and nobody else has it."""
        secret = cls(derived)
        erase(derived)
        return secret


@lru_cache(maxsize=256)
def _label_head(prefix: bytes, label: bytes, n: int) -> bytes:
    """The part of HkdfLabel that comes before the context."""
    name = prefix + label
    # RFC 8446 section 7.1: opaque label<7..255>.
    if not 7 <= len(name) <= 255:
        raise ValueError(f"an HKDF label has 7 to 255 bytes, not {len(name)}")
    return n.to_bytes(2, "big") + bytes((len(name),)) + name


def expand_label(
    provider: CryptoProvider,
    hash_name: str,
    secret: bytes,
    prefix: bytes,
    label: bytes,
    context: bytes,
    n: int,
) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1): `n` bytes from `secret`.

    Args:
        prefix: TLS13_PREFIX or DTLS13_PREFIX.
        label: without prefix; with it 7 to 255 bytes, ValueError otherwise (exporters let callers choose).
        context: at most 255 bytes, usually empty or a transcript hash; ValueError above.
        n: at most 255 times the hash length.
    """
    # bytes() of one small int refuses what the one-byte length cannot say.
    info = _label_head(prefix, label, n) + bytes((len(context),)) + context
    return provider.hkdf_expand(hash_name, secret, info, n)


def expand_labels(
    provider: CryptoProvider,
    hash_name: str,
    secret: bytes,
    prefix: bytes,
    labels: tuple[bytes, ...],
    context: bytes,
    n: int,
) -> list[Secret]:
    """:func:`expand_label` with each of `labels` in turn, `n` bytes each, `n` at most one hash long."""
    tail = bytes((len(context),)) + context
    infos = tuple([(_label_head(prefix, label, n) + tail, n) for label in labels])
    return provider.hkdf_secrets(hash_name, secret, infos)


_NO_KEY: Final = Secret()


class TrafficKeys(NamedTuple):
    """What protects records of one direction and epoch; `sn_key` masks record numbers (DTLS only)."""

    key: Secret
    iv: Secret
    sn_key: Secret = _NO_KEY

    def __repr__(self) -> str:
        return f"TrafficKeys(key={self.key!r}, iv={self.iv!r}, sn_key={self.sn_key!r})"


@lru_cache(maxsize=16)
def _traffic_infos(prefix: bytes, key_bytes: int, iv_bytes: int) -> tuple[tuple[bytes, int], ...]:
    parts = [(b"key", key_bytes), (b"iv", iv_bytes)]
    if prefix == DTLS13_PREFIX:
        # RFC 9147 section 4.2.3 [9147-4.2.3-2]: sn_key has the key length of the suite.
        parts.append((b"sn", key_bytes))
    return tuple((_label_head(prefix, label, n) + b"\0", n) for label, n in parts)


def traffic_keys(provider: CryptoProvider, spec: SuiteSpec, secret: bytes, prefix: bytes) -> TrafficKeys:
    """Keys of a traffic secret (RFC 8446 section 7.3; RFC 9147 section 4.2.3 for ``sn``)."""
    infos = _traffic_infos(prefix, spec.key_bytes, spec.iv_bytes)
    return TrafficKeys(*provider.hkdf_secrets(spec.hash_name, secret, infos))


def next_traffic_secret(provider: CryptoProvider, spec: SuiteSpec, secret: bytes, prefix: bytes) -> Secret:
    """The secret after a KeyUpdate (RFC 8446 section 7.2)."""
    return Secret.taking(
        expand_label(provider, spec.hash_name, secret, prefix, b"traffic upd", b"", spec.hash_bytes)
    )
