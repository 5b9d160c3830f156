"""Key exchange groups: code points, names, and the exact length of every share.

A share travels twice: the offer (client) and the answer (server).  For the curves both have one
length; X25519MLKEM768 sends an encapsulation key one way and a ciphertext the other, each in
front of an X25519 share (draft-ietf-tls-ecdhe-mlkem).  Lengths are checked before any arithmetic.
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
    "MLKEM768_CIPHERTEXT_BYTES",
    "MLKEM768_KEY_BYTES",
    "Group",
    "GroupSpec",
    "KeyShare",
    "bad_share",
    "parse_groups",
]


class Group(enum.IntEnum):
    """NamedGroup (RFC 8446 section 4.2.7).  Unknown 16-bit values survive."""

    SECP256R1 = 0x0017
    SECP384R1 = 0x0018
    X25519 = 0x001D
    X25519MLKEM768 = 0x11EC

    @classmethod
    def _missing_(cls, value: object) -> Group | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"GROUP_{value:04X}"
        member._value_ = value
        return member


#: Groups with a post-quantum part; their shares need a datagram of their own.
HYBRID_GROUPS = frozenset((Group.X25519MLKEM768,))

# FIPS 203 table 3, parameter set ML-KEM-768.
MLKEM768_KEY_BYTES = 1184
MLKEM768_CIPHERTEXT_BYTES = 1088


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """Lengths of a group's shares and shared secret, in bytes, and the names people give it."""

    group: Group
    offer_bytes: int
    answer_bytes: int
    secret_bytes: int
    names: tuple[str, ...]


#: Every group this package speaks, in default order of preference.
GROUPS: Mapping[Group, GroupSpec] = MappingProxyType(
    {
        spec.group: spec
        for spec in (
            GroupSpec(
                Group.X25519MLKEM768,
                MLKEM768_KEY_BYTES + 32,
                MLKEM768_CIPHERTEXT_BYTES + 32,
                64,
                ("X25519MLKEM768",),
            ),
            GroupSpec(Group.X25519, 32, 32, 32, ("x25519", "curve25519")),
            GroupSpec(Group.SECP256R1, 65, 65, 32, ("secp256r1", "P-256", "prime256v1")),
            GroupSpec(Group.SECP384R1, 97, 97, 48, ("secp384r1", "P-384")),
        )
    }
)

DEFAULT_GROUPS: tuple[Group, ...] = tuple(GROUPS)

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
