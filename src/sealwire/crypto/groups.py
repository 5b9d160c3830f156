"""Key exchange groups: code points, names, and the exact length of every share.

A share travels twice: the offer (client) and the answer (server).  For the curves both have one
length; a hybrid group sends an ML-KEM encapsulation key one way and a ciphertext the other, beside
a share of its curve (draft-ietf-tls-ecdhe-mlkem).  Lengths are checked before any arithmetic.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from sealwire.errors import Alert, ConfigurationError, ProtocolError

__all__ = [
    "DEFAULT_GROUPS",
    "GROUPS",
    "HYBRID_GROUPS",
    "HYBRID_SPECS",
    "Group",
    "GroupSpec",
    "HybridSpec",
    "KeyShare",
    "bad_share",
    "parse_groups",
]


class Group(enum.IntEnum):
    """NamedGroup (RFC 8446 section 4.2.7).  Unknown 16-bit values survive."""

    SECP256R1 = 0x0017
    SECP384R1 = 0x0018
    SECP521R1 = 0x0019
    X25519 = 0x001D
    X448 = 0x001E
    SECP256R1MLKEM768 = 0x11EB
    X25519MLKEM768 = 0x11EC
    SECP384R1MLKEM1024 = 0x11ED

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__

    @classmethod
    def _missing_(cls, value: object) -> Group | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"GROUP_{value:04X}"
        member._value_ = value
        return member


@dataclass(frozen=True, slots=True)
class HybridSpec:
    """What a hybrid group is made of; sizes in bytes, of the ML-KEM parts alone.

    `curve_first` is the order of shares and secrets.
    """

    curve: Group
    parameter_set: int
    key_bytes: int
    ciphertext_bytes: int
    curve_first: bool


# FIPS 203 table 3 for the sizes.  draft-ietf-tls-ecdhe-mlkem section 4 [MLKEM-1]: with X25519 the ML-KEM
# part comes first, with the NIST curves the ECDH part, in shares and secret alike.
HYBRID_SPECS: Mapping[Group, HybridSpec] = MappingProxyType(
    {
        Group.X25519MLKEM768: HybridSpec(Group.X25519, 768, 1184, 1088, False),
        Group.SECP256R1MLKEM768: HybridSpec(Group.SECP256R1, 768, 1184, 1088, True),
        Group.SECP384R1MLKEM1024: HybridSpec(Group.SECP384R1, 1024, 1568, 1568, True),
    }
)

#: Groups with a post-quantum part; their shares need a datagram of their own.
HYBRID_GROUPS = frozenset(HYBRID_SPECS)

_MLKEM_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """Lengths of a group's shares and shared secret, in bytes, and the names people give it."""

    group: Group
    offer_bytes: int
    answer_bytes: int
    secret_bytes: int
    names: tuple[str, ...]


def _hybrid(group: Group, curve: GroupSpec, name: str) -> GroupSpec:
    spec = HYBRID_SPECS[group]
    return GroupSpec(
        group,
        spec.key_bytes + curve.offer_bytes,
        spec.ciphertext_bytes + curve.answer_bytes,
        _MLKEM_SECRET_BYTES + curve.secret_bytes,
        (name,),
    )


_X25519 = GroupSpec(Group.X25519, 32, 32, 32, ("x25519", "curve25519"))
_P256 = GroupSpec(Group.SECP256R1, 65, 65, 32, ("secp256r1", "P-256", "prime256v1"))
_P384 = GroupSpec(Group.SECP384R1, 97, 97, 48, ("secp384r1", "P-384"))

#: Every group this package speaks: the defaults in order of preference, then those to be asked for.
GROUPS: Mapping[Group, GroupSpec] = MappingProxyType(
    {
        spec.group: spec
        for spec in (
            _hybrid(Group.X25519MLKEM768, _X25519, "X25519MLKEM768"),
            _X25519,
            _P256,
            _P384,
            GroupSpec(Group.SECP521R1, 133, 133, 66, ("secp521r1", "P-521")),
            GroupSpec(Group.X448, 56, 56, 56, ("x448", "curve448")),
            _hybrid(Group.SECP256R1MLKEM768, _P256, "SecP256r1MLKEM768"),
            _hybrid(Group.SECP384R1MLKEM1024, _P384, "SecP384r1MLKEM1024"),
        )
    }
)

#: What is offered and accepted unless the application says otherwise.
DEFAULT_GROUPS: tuple[Group, ...] = (Group.X25519MLKEM768, Group.X25519, Group.SECP256R1, Group.SECP384R1)

_BY_NAME = {name.lower(): spec.group for spec in GROUPS.values() for name in spec.names}


class KeyShare(Protocol):
    """The offering side's private half of an exchange, good for one :meth:`finish`."""

    @property
    def group(self) -> Group: ...

    @property
    def public(self) -> bytes:
        """The share as key_share carries it."""
        ...

    def finish(self, peer_share: bytes) -> bytes:
        """The shared secret.  ProtocolError(illegal_parameter) for a share the group does not allow."""
        ...


def bad_share(group: Group) -> ProtocolError:
    """The one error for a share of wrong length, off its curve, or yielding a forbidden secret.

    RFC 8446 section 4.2.8.2.
    """
    return ProtocolError(Alert.ILLEGAL_PARAMETER, f"the peer's key share for {group.name} is invalid")


def parse_groups(names: str | Sequence[str]) -> tuple[Group, ...]:
    """Groups by name, in the order given; letter case does not matter.

    Args:
        names: a list of names, or one string separated by ``:`` as OpenSSL's ``-groups``.

    Raises:
        ConfigurationError: no name, a group twice, or a name that is not known.
    """
    wanted = names.split(":") if isinstance(names, str) else list(names)
    known = ", ".join(spec.names[0] for spec in GROUPS.values())
    result: list[Group] = []
    for name in (word.strip() for word in wanted):
        group = _BY_NAME.get(name.lower())
        if group is None:
            raise ConfigurationError(f"unknown group {name!r}: choose from {known}")
        if group in result:
            raise ConfigurationError(f"group {name} is listed twice: name each group once")
        result.append(group)
    if not result:
        raise ConfigurationError(f"no group given: choose from {known}")
    return tuple(result)
