"""Machines' protocols: MQTT, CoAP, Modbus and DNP3."""

from __future__ import annotations

from typing import Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.features import TCP, UDP

_TCP: Final = frozenset({TCP})
_UDP: Final = frozenset({UDP})
_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


class Mqtt(Dissector):
    """MQTT 3.1 to 5 (OASIS MQTT 5.0 section 3.1): CONNECT names the protocol."""

    application = "mqtt"
    protocol = Protocol.MQTT
    transports = _TCP
    _PORT = 1883
    signs = (
        Sign(b"\x10"),
        Sign(b"\xc0\0", every=False),
        Sign(port=1883),
    )

    def dissect(self, opening: Opening) -> Answer | None:
        first = opening.packets[0]
        data = first.data
        if data[:1] == b"\x10" and (body := _after_length(data, 1)) is not None:
            for name, levels in ((b"\0\4MQTT", (4, 5)), (b"\0\6MQIsdp", (3,))):
                if data[body : body + len(name)] == name:
                    level = data[body + len(name) : body + len(name) + 1]
                    known = level and level[0] in levels
                    return Answer(_CERTAIN if known else _UNSURE, {"level": str(level[0])} if known else {})
        # Begun before the capture was: packets of the right shape on its port.
        if not all(_is_mqtt(p.data, p.size) for p in opening.packets):
            return None
        pings = {packet.data for packet in opening.packets if packet.size == 2}
        return Answer(_UNSURE) if opening.has_port(self._PORT) or pings >= {b"\xc0\0", b"\xd0\0"} else None


def _after_length(data: bytes, at: int) -> int | None:
    """Where what follows MQTT's variable length begins."""
    for i in range(at, min(at + 4, len(data))):
        if not data[i] & 0x80:
            return i + 1
    return None


def _is_mqtt(data: bytes, size: int) -> bool:
    """Whether the first control packet of a segment fits it."""
    body = _after_length(data, 1) if len(data) >= 2 and 3 <= data[0] >> 4 <= 14 else None
    if body is None:
        return False
    length = sum((data[i] & 0x7F) << 7 * (i - 1) for i in range(1, body))
    return body + length <= size and (data[0] >> 4 < 12 or length <= 2)


class Coap(Dissector):
    """CoAP (RFC 7252 section 3): version 1, a code that exists, options that can be read to the end."""

    application = "coap"
    protocol = Protocol.COAP
    transports = _UDP
    _PORTS = (5683, 5684)
    # Version 1 in all of them, and the token's length in what is asked.
    signs = (Sign(b"\x40", mask=b"\xc0", every=True),)

    def dissect(self, opening: Opening) -> Answer | None:
        if not all(_is_coap(packet.data, packet.size) for packet in opening.packets):
            return None
        first = opening.packets[0].data
        request = 1 <= first[1] <= 7
        details = {"code": f"{first[1] >> 5}.{first[1] & 31:02d}"}
        path = _coap_path(first)
        if request and path:
            details["path"] = path
        if any(opening.has_port(port) for port in self._PORTS):
            return Answer(_CERTAIN, details)
        # The response has the request's token.
        back = [p.data for p in opening.packets if p.backward]
        n = first[0] & 0xF
        answered = n >= 2 and request and any(d[4 : 4 + (d[0] & 0xF)] == first[4 : 4 + n] for d in back)
        return Answer(_UNSURE, details) if answered else None


def _is_coap(data: bytes, size: int) -> bool:
    if len(data) < 4 or data[0] >> 6 != 1 or data[0] & 0xF > 8:
        return False
    token, code = data[0] & 0xF, data[1]
    if code == 0:  # an empty message is four bytes (section 4.1)
        return size == 4
    if code >> 5 not in (0, 2, 4, 5) or (code >> 5 == 0 and code > 7) or len(data) < 4 + token:
        return False
    return _coap_options(data, 4 + token, size) is not None


def _coap_options(data: bytes, at: int, size: int) -> list[tuple[int, bytes]] | None:
    """Section 3.1; None if they contradict themselves."""
    options: list[tuple[int, bytes]] = []
    number = 0
    while at < len(data):
        if data[at] == 0xFF:
            return options if at + 1 < size else None
        parts = []
        head = data[at]
        at += 1
        for nibble in (head >> 4, head & 15):
            extra = {13: 1, 14: 2}.get(nibble, 0)
            if nibble == 15 or at + extra > len(data):
                return None
            value = int.from_bytes(data[at : at + extra], "big") + {1: 13, 2: 269}.get(extra, 0)
            parts.append(value if extra else nibble)
            at += extra
        number += parts[0]
        if at + parts[1] > size:
            return None
        options.append((number, data[at : at + parts[1]]))
        at += parts[1]
    return options


def _coap_path(data: bytes) -> str:
    options = _coap_options(data, 4 + (data[0] & 0xF), len(data)) or []
    return "/".join(value.decode("latin-1") for number, value in options if number == 11)


class Modbus(Dissector):
    """Modbus/TCP (MODBUS Messaging on TCP/IP 1.0b section 3.1): answers repeat transaction and function."""

    application = "modbus"
    protocol = Protocol.MODBUS
    transports = _TCP
    _PORT = 502
    signs = (Sign(b"\0\0\0", at=2, every=True),)

    def dissect(self, opening: Opening) -> Answer | None:
        asked: dict[tuple[bool, int], int] = {}
        confirmed = False
        for packet in opening.packets:
            data = packet.data
            if len(data) < 8 or data[2:4] != b"\0\0" or _u16(data, 4) + 6 != packet.size or packet.size > 260:
                return None
            function = data[7]
            if not function & 0x7F:
                return None
            before = asked.get((not packet.backward, _u16(data, 0)))
            confirmed = confirmed or (before is not None and before == function & 0x7F)
            asked[packet.backward, _u16(data, 0)] = function
        details = {"function": str(opening.packets[0].data[7] & 0x7F)}
        if confirmed and opening.has_port(self._PORT):
            return Answer(_CERTAIN, details)
        return Answer(_UNSURE, details) if confirmed or opening.has_port(self._PORT) else None


class Dnp3(Dissector):
    """DNP3 (IEEE 1815 section 9.2): its link header ends with a checksum of its own."""

    application = "dnp3"
    protocol = Protocol.DNP3
    signs = (Sign(b"\x05\x64"),)

    def dissect(self, opening: Opening) -> Answer | None:
        data = opening.packets[0].data
        if len(data) < 10 or data[:2] != b"\x05\x64" or data[2] < 5:
            return None
        if _dnp3_checksum(data[:8]) != int.from_bytes(data[8:10], "little"):
            return None
        details = {
            "destination": str(int.from_bytes(data[4:6], "little")),
            "source": str(int.from_bytes(data[6:8], "little")),
        }
        return Answer(_CERTAIN, details)


def _dnp3_checksum(data: bytes) -> int:
    """CRC-16 with DNP3's polynomial, reflected, complemented."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA6BC if value & 1 else 0)
    return value ^ 0xFFFF
