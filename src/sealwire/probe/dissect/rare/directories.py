"""Directories: LDAP and Kerberos."""

from __future__ import annotations

from typing import ClassVar, Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.dissect.rare.ber import Element, element
from sealwire.probe.features import TCP

_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE
#: Bytes of a message that may follow in other packets.
_MOST_FOLLOWING: Final = 1 << 20


class Ldap(Dissector):
    """LDAP 3 (RFC 4511 section 4.1): a request, and an answer of its kind with its number."""

    application = "ldap"
    protocol = Protocol.LDAP
    _PORTS = (389, 3268)
    # A sequence, its length in one to five bytes, and a number.
    signs = tuple(Sign(b"\x30" + bytes(n) + b"\2", mask=b"\xff" + bytes(n) + b"\xff") for n in range(1, 6))
    _OPERATIONS: ClassVar = {
        **{0x60: "bind", 0x42: "unbind", 0x63: "search", 0x66: "modify", 0x68: "add", 0x4A: "delete"},
        **{0x6C: "rename", 0x6E: "compare", 0x77: "extended"},
    }
    _ANSWERS: ClassVar = {
        **{0x60: (0x61,), 0x63: (0x64, 0x65, 0x73), 0x66: (0x67,), 0x68: (0x69,), 0x4A: (0x6B,)},
        **{0x6C: (0x6D,), 0x6E: (0x6F,), 0x77: (0x78,)},
    }

    def dissect(self, opening: Opening) -> Answer | None:
        first = opening.packets[0]
        asked = _ldap_message(first.data, first.size)
        if asked is None or asked[1].tag not in self._OPERATIONS:
            return None
        number, operation = asked
        details = {"operation": self._OPERATIONS[operation.tag]}
        for packet in opening.packets[1:]:
            if packet.backward == first.backward:
                continue
            answer = _ldap_message(packet.data, packet.size)
            if (
                answer is None
                or answer[0] != number
                or answer[1].tag not in self._ANSWERS.get(operation.tag, ())
            ):
                return None
            return Answer(_CERTAIN, details)
        return Answer(_UNSURE, details) if any(opening.has_port(port) for port in self._PORTS) else None


def _ldap_message(data: bytes, size: int) -> tuple[bytes, Element] | None:
    """The number and the operation of the first message in a packet."""
    whole = element(data, 0)
    if whole is None or whole.tag != 0x30 or whole.end > max(size, len(data)) + _MOST_FOLLOWING:
        return None
    number = element(data, whole.begin)
    if number is None or number.tag != 2 or not 1 <= number.end - number.begin <= 4:
        return None
    operation = element(data, number.end)
    return None if operation is None else (number.value(data), operation)


class Kerberos(Dissector):
    """Kerberos 5 (RFC 4120 section 5): an application tag, its version and the type that is the tag again."""

    application = "krb5"
    protocol = Protocol.KRB5
    signs = (Sign(port=88),)
    _NAMES: ClassVar = {
        **{10: "as-req", 11: "as-rep", 12: "tgs-req", 13: "tgs-rep", 14: "ap-req", 15: "ap-rep"},
        **{20: "safe", 21: "priv", 22: "cred", 30: "error"},
    }

    def dissect(self, opening: Opening) -> Answer | None:
        if not opening.has_port(88):
            return None
        first = opening.packets[0]
        data, size = first.data, first.size
        if opening.protocol == TCP:  # section 7.2.2: behind a length of four bytes
            if int.from_bytes(data[:4], "big") + 4 < size:
                return None
            data, size = data[4:], size - 4
        outer = element(data, 0)
        kind = outer.tag & 0x1F if outer is not None and outer.tag & 0xE0 == 0x60 else 0
        if outer is None or kind not in self._NAMES:
            return None
        inner = element(data, outer.begin)
        if inner is None or inner.tag != 0x30 or inner.end != outer.end:
            return None
        # pvno, then msg-type: the first two fields, in requests numbered from 1, else from 0.
        fields = data[inner.begin : inner.begin + 10]
        version = (b"\3\2\1\5", b"\3\2\1" + bytes((kind,)))
        if (fields[1:5], fields[6:10]) != version or (fields[0], fields[5]) not in (
            (0xA0, 0xA1),
            (0xA1, 0xA2),
        ):
            return None
        return Answer(_CERTAIN, {"message_type": self._NAMES[kind]})
