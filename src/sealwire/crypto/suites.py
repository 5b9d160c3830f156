"""Cipher suites: code points, and for each the numbers the record layer lives by.

A suite of TLS 1.3 names an AEAD and a hash, nothing else.  The two limits come with the suite
because a suite is not usable in DTLS without them (RFC 9147 section 4.5.3): how many records may
be sealed under one key, and how many forgeries may be tried against it.  Two suites are
never used unless asked for: CCM is slow and made for small devices, and CCM_8 is weak besides.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sealwire.errors import ConfigurationError

__all__ = ["DEFAULT_SUITES", "SUITES", "AeadKind", "CipherSuite", "SuiteSpec", "parse_suites"]


class CipherSuite(enum.IntEnum):
    """A suite's code point (RFC 8446 appendix B.4).  Unknown 16-bit values survive."""

    TLS_AES_128_GCM_SHA256 = 0x1301
    TLS_AES_256_GCM_SHA384 = 0x1302
    TLS_CHACHA20_POLY1305_SHA256 = 0x1303
    TLS_AES_128_CCM_SHA256 = 0x1304
    TLS_AES_128_CCM_8_SHA256 = 0x1305

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__

    @classmethod
    def _missing_(cls, value: object) -> CipherSuite | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"SUITE_{value:04X}"
        member._value_ = value
        return member


class AeadKind(enum.Enum):
    """The AEAD construction of a suite; it also decides how record numbers are masked."""

    AES_GCM = "aes-gcm"
    CHACHA20_POLY1305 = "chacha20-poly1305"
    AES_CCM = "aes-ccm"


# RFC 9147 section 4.5.3 [9147-4.5.3-1]: 2^24.5 full-size records keep GCM's confidentiality margin.
_GCM_SEAL_LIMIT_RECORDS = 23_726_566
# RFC 9147 section 4.5.3: with ChaCha20-Poly1305 the 48-bit record number ends before the margin does.
_CHACHA_SEAL_LIMIT_RECORDS = (1 << 48) - 1
# RFC 9147 section 4.5.3 [9147-4.5.3-5]: 2^36 failed authentications for both constructions.
_FORGERY_LIMIT_RECORDS = 1 << 36
# RFC 9147 section 4.5.3 [9147-4.5.3-1], [9147-4.5.3-6]: AEAD_AES_128_CCM, 2^23 sealed and 2^23.5 forged.
_CCM_SEAL_LIMIT_RECORDS = 1 << 23
_CCM_FORGERY_LIMIT_RECORDS = 11_863_283
# RFC 9147 section 4.5.3 and appendix B.3 [9147-4.5.3-8]: with a tag of 8 bytes a forger has the usual
# chance (2^-57) after 2^7 attempts.
_CCM_8_FORGERY_LIMIT_RECORDS = 1 << 7

_SHORT_TAG_BYTES = 8


@dataclass(frozen=True, slots=True)
class SuiteSpec:
    """What a suite is made of.  Sizes in bytes, limits in records per key.

    Source: RFC 8446 appendix B.4; RFC 9147 section 4.5.3 for the limits.
    """

    suite: CipherSuite
    name: str
    hash_name: str
    hash_bytes: int
    key_bytes: int
    aead: AeadKind
    seal_limit: int
    forgery_limit: int
    iv_bytes: int = 12
    tag_bytes: int = 16

    @property
    def has_short_tag(self) -> bool:
        """Whether forgeries are so likely that the suite must be asked for in so many words."""
        return self.tag_bytes <= _SHORT_TAG_BYTES


def _spec(suite: CipherSuite, hash_name: str, hash_bytes: int, key_bytes: int, aead: AeadKind) -> SuiteSpec:
    limit = _GCM_SEAL_LIMIT_RECORDS if aead is AeadKind.AES_GCM else _CHACHA_SEAL_LIMIT_RECORDS
    return SuiteSpec(suite, suite.name, hash_name, hash_bytes, key_bytes, aead, limit, _FORGERY_LIMIT_RECORDS)


def _ccm(suite: CipherSuite, forgery_limit: int, tag_bytes: int) -> SuiteSpec:
    return SuiteSpec(
        suite,
        suite.name,
        "sha256",
        32,
        16,
        AeadKind.AES_CCM,
        _CCM_SEAL_LIMIT_RECORDS,
        forgery_limit,
        tag_bytes=tag_bytes,
    )


#: Every suite this package speaks: the defaults in order of preference, then those to be asked for.
# RFC 9147 section 4.5.3 [9147-4.5.3-9, 9147-14-1]: a suite used with DTLS states both of its limits; those
# here are all registered for DTLS [9147-5.3-8, 8447/9847-1].
SUITES: Mapping[CipherSuite, SuiteSpec] = MappingProxyType(
    {
        spec.suite: spec
        for spec in (
            _spec(CipherSuite.TLS_AES_128_GCM_SHA256, "sha256", 32, 16, AeadKind.AES_GCM),
            _spec(CipherSuite.TLS_AES_256_GCM_SHA384, "sha384", 48, 32, AeadKind.AES_GCM),
            _spec(CipherSuite.TLS_CHACHA20_POLY1305_SHA256, "sha256", 32, 32, AeadKind.CHACHA20_POLY1305),
            _ccm(CipherSuite.TLS_AES_128_CCM_SHA256, _CCM_FORGERY_LIMIT_RECORDS, 16),
            _ccm(CipherSuite.TLS_AES_128_CCM_8_SHA256, _CCM_8_FORGERY_LIMIT_RECORDS, _SHORT_TAG_BYTES),
        )
    }
)

#: What is offered and accepted unless the application says otherwise.
# RFC 9147 section 4.5.3 [9147-4.5.3-7]: CCM_8 is not used without more protection against forgeries.
DEFAULT_SUITES: tuple[CipherSuite, ...] = tuple(
    suite for suite, spec in SUITES.items() if spec.aead is not AeadKind.AES_CCM
)


def parse_suites(names: str | Sequence[str], *, allow_short_tags: bool = False) -> tuple[CipherSuite, ...]:
    """Suites by their registry names, in the order given.

    Args:
        names: a list of names, or one string separated by ``:`` as OpenSSL's ``-ciphersuites``.
        allow_short_tags: accept TLS_AES_128_CCM_8_SHA256, whose keys stand only 128 forged records.

    Raises:
        ConfigurationError: no name, a name twice, one that is not known, or a short tag not allowed.
    """
    wanted = names.split(":") if isinstance(names, str) else list(names)
    known = {suite.name: suite for suite in SUITES}
    result: list[CipherSuite] = []
    for name in (word.strip() for word in wanted):
        if name not in known:
            raise ConfigurationError(f"unknown cipher suite {name!r}: choose from {', '.join(known)}")
        if SUITES[known[name]].has_short_tag and not allow_short_tags:
            raise ConfigurationError(
                f"cipher suite {name} has a tag of 8 bytes, which 128 forged records may exhaust: "
                "pass allow_short_tags=True to use it all the same"
            )
        if known[name] in result:
            raise ConfigurationError(f"cipher suite {name} is listed twice: name each suite once")
        result.append(known[name])
    if not result:
        raise ConfigurationError(f"no cipher suite given: choose from {', '.join(known)}")
    return tuple(result)
