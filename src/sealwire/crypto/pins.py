"""Pinned fingerprints: peers known by the hash of their certificate, as in WebRTC (RFC 8122).

A pin replaces everything a path would say, names, dates and issuers: whoever holds the key of a
pinned certificate is the peer.  Where the fingerprints come from, such as a signalling channel, is
what the trust then rests on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from sealwire.errors import ConfigurationError

__all__ = ["Pins"]

# RFC 8122 section 5 names them with a hyphen; what openssl and people write is allowed too.
_HASHES: Final = {
    "sha256": "sha256",
    "sha-256": "sha256",
    "sha384": "sha384",
    "sha-384": "sha384",
    "sha512": "sha512",
    "sha-512": "sha512",
}
_NAMED: Final = re.compile(r"(sha-?\d+)[:= ]\s*(.*)", re.IGNORECASE)


class Pins:
    """Fingerprints of certificates; immutable.

    Args:
        fingerprints: each ``"sha256:HEX"``, ``"sha-256 AB:CD:..."`` as in SDP (also 384 and 512), or the hex
            of a SHA-256 alone; colons and letter case do not matter.

    Raises:
        ConfigurationError: a fingerprint that is none, or of a hash too weak to pin with.
    """

    __slots__ = ("_digests",)

    def __init__(self, fingerprints: Iterable[str] = ()) -> None:
        if isinstance(fingerprints, str):
            raise ConfigurationError("fingerprints come as a list: pass [fingerprint]")
        self._digests = frozenset(_parse(one) for one in fingerprints)

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, der: bytes) -> bool:
        """Whether `der`, a certificate, has one of the fingerprints."""
        names = {name for name, _ in self._digests}
        return any((name, hashlib.new(name, der).digest()) in self._digests for name in names)


def _parse(text: str) -> tuple[str, bytes]:
    name, digits = "sha256", text.strip()
    named = _NAMED.fullmatch(digits)
    if named is not None:
        name, digits = named[1].lower(), named[2]
    if name not in _HASHES:
        raise ConfigurationError(f"fingerprint {text!r} is of a hash that is not sha256, sha384 or sha512")
    name = _HASHES[name]
    try:
        digest = bytes.fromhex(digits.replace(":", ""))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.new(name).digest_size:
        size = 2 * hashlib.new(name).digest_size
        raise ConfigurationError(
            f"fingerprint {text!r} is not {size} hex digits: openssl x509 -fingerprint -{name} prints it"
        )
    return name, digest
