"""Values of extensions that have more than one part; their codecs are in `extensions`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealwire.crypto.groups import Group


class CertificateType(enum.IntEnum):
    """CertificateType (RFC 7250 section 3).  Unknown codes survive."""

    X509 = 0
    RAW_PUBLIC_KEY = 2

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__

    @classmethod
    def _missing_(cls, value: object) -> CertificateType | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"CERTIFICATE_TYPE_{value}"
        member._value_ = value
        return member


class KeyShareEntry(NamedTuple):
    """A group and a public value for it (RFC 8446 section 4.2.8)."""

    group: Group
    share: bytes


@dataclass(frozen=True, slots=True)
class SrtpOffer:
    """SRTP profiles by number, and a master key identifier (RFC 5764); an answer names one."""

    profiles: tuple[int, ...]
    mki: bytes


class PskIdentity(NamedTuple):
    """One offered pre-shared key (RFC 8446 section 4.2.11)."""

    identity: bytes
    obfuscated_ticket_age: int


@dataclass(frozen=True, slots=True)
class OfferedPsks:
    """The pre_shared_key extension of a ClientHello."""

    identities: tuple[PskIdentity, ...]
    binders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """A client's status_request (RFC 6066 section 8).

    Attributes:
        kind: CertificateStatusType; only OCSP is used.
        body: what follows it, well-formed for OCSP.
    """

    kind: int
    body: bytes


#: CertificateStatusType ocsp.
STATUS_OCSP: Final = 1
#: A request for any OCSP response: no responder preferred, no extensions.
ANY_OCSP_RESPONSE: Final = StatusRequest(STATUS_OCSP, bytes(4))
