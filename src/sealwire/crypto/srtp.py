"""SRTP protection profiles, and how exported material becomes their keys (RFC 5764, RFC 7714).

DTLS agrees on a profile and makes the keys; protecting media with them is for an SRTP stack.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.errors import ConfigurationError

#: RFC 5764 section 4.2.
EXPORTER_LABEL: Final = b"EXTRACTOR-dtls_srtp"


class SrtpProfile(enum.IntEnum):
    """Profiles by their IANA numbers (RFC 5764 section 4.1.2, RFC 7714 section 14.2)."""

    SRTP_AES128_CM_SHA1_80 = 0x0001
    SRTP_AES128_CM_SHA1_32 = 0x0002
    SRTP_AEAD_AES_128_GCM = 0x0007
    SRTP_AEAD_AES_256_GCM = 0x0008

    @property
    def key_bytes(self) -> int:
        """Length of a master key."""
        return 32 if self is SrtpProfile.SRTP_AEAD_AES_256_GCM else 16

    @property
    def salt_bytes(self) -> int:
        """Length of a master salt: 112 bits, and 96 with GCM."""
        gcm = self in (SrtpProfile.SRTP_AEAD_AES_128_GCM, SrtpProfile.SRTP_AEAD_AES_256_GCM)
        return 12 if gcm else 14


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """Master keys and salts of both directions, each what its side sends with."""

    profile: SrtpProfile
    client_key: bytes
    server_key: bytes
    client_salt: bytes
    server_salt: bytes

    def __repr__(self) -> str:
        return f"<SrtpKeys {self.profile.name}>"

    @staticmethod
    def material_bytes(profile: SrtpProfile) -> int:
        """How much keying material `profile` needs."""
        return 2 * (profile.key_bytes + profile.salt_bytes)

    @classmethod
    def split(cls, profile: SrtpProfile, material: bytes) -> SrtpKeys:
        """The keys in so much exported material, in the order of RFC 5764 section 4.2."""
        key, salt = profile.key_bytes, profile.salt_bytes
        ends = (key, 2 * key, 2 * key + salt, 2 * (key + salt))
        first, second, third, fourth = (
            material[start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)
        )
        return cls(profile, first, second, third, fourth)


def parse_srtp_profiles(names: str | Sequence[str]) -> tuple[SrtpProfile, ...]:
    """Profiles by name, best first; one string with ``:``, as openssl has it, or a list.

    Raises:
        ConfigurationError: an unknown name, or one that is there twice.
    """
    chosen: list[SrtpProfile] = []
    for name in names.split(":") if isinstance(names, str) else names:
        profile = SrtpProfile.__members__.get(name)
        if profile is None:
            known = ", ".join(SrtpProfile.__members__)
            raise ConfigurationError(f"unknown SRTP profile {name!r}: known are {known}")
        if profile in chosen:
            raise ConfigurationError(f"SRTP profile {name} is named twice")
        chosen.append(profile)
    return tuple(chosen)
