"""Protocols that are rare in most networks, in plain Python: TABLE says which, and what each is proved on.

Certain is what has a magic no other protocol has, or what both directions confirm; ports alone make
nothing certain.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening
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


class WireGuard(Dissector):
    """WireGuard (its white paper, section 5.4): initiation and response name each other's indices."""

    application = "wireguard"
    protocol = Protocol.WIREGUARD
    transports = _UDP
    _SIZES: ClassVar = {1: 148, 2: 92, 3: 64}

    def dissect(self, opening: Opening) -> Answer | None:
        for packet in opening.packets:
            data = packet.data
            if len(data) < 32 or data[1:4] != b"\0\0\0" or data[0] not in (1, 2, 3, 4):
                return None
            size = self._SIZES.get(data[0])
            if packet.size != size if size else packet.size % 16:
                return None
        first = opening.packets[0]
        if first.data[0] == 1:
            sender = first.data[4:8]
            for packet in opening.packets[1:]:
                if packet.backward != first.backward and packet.data[0] == 2 and packet.data[8:12] == sender:
                    return Answer(_CERTAIN)
        return Answer(_UNSURE) if first.data[0] in (1, 2) or len(opening.packets) > 1 else None


class Rdp(Dissector):
    """RDP (MS-RDPBCGR section 2.2.1.1): an X.224 connection request with its cookie or negotiation."""

    application = "rdp"
    protocol = Protocol.RDP
    transports = _TCP

    def dissect(self, opening: Opening) -> Answer | None:
        first = opening.packets[0]
        data = first.data
        if len(data) < 11 or data[:2] != b"\3\0" or _u16(data, 2) != first.size or data[5] != 0xE0:
            return None
        rest = data[11:]
        # rdpNegReq: type 1, flags, length 8, protocols.
        at = len(rest) - 8
        asks = at >= 0 and rest[at : at + 1] == b"\1" and rest[at + 2 : at + 4] == b"\x08\0"
        if rest.startswith((b"Cookie: mstshash=", b"Cookie: msts=")) or asks:
            wanted = int.from_bytes(rest[-4:], "little") if asks else 0
            return Answer(_CERTAIN, {"requested_protocols": str(wanted)})
        return Answer(_UNSURE) if opening.has_port(3389) else None


class Smb(Dissector):
    """SMB 1 to 3 over TCP (MS-SMB2 section 2.1): a length, then a name nothing else has."""

    application = "smb"
    protocol = Protocol.SMB
    transports = _TCP

    def dissect(self, opening: Opening) -> Answer | None:
        for packet in opening.packets:
            data = packet.data
            if len(data) < 8 or data[0]:
                continue
            if data[4:8] == b"\xfeSMB":
                return Answer(_CERTAIN, {"dialect": "2 or 3"})
            if data[4:8] == b"\xffSMB":
                return Answer(_CERTAIN, {"dialect": "1"})
        return None


class Modbus(Dissector):
    """Modbus/TCP (MODBUS Messaging on TCP/IP 1.0b section 3.1): answers repeat transaction and function."""

    application = "modbus"
    protocol = Protocol.MODBUS
    transports = _TCP
    _PORT = 502

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


class Sip(Dissector):
    """SIP (RFC 3261 section 7): a request or status line with its version."""

    application = "sip"
    protocol = Protocol.SIP
    _METHODS = frozenset(
        b"INVITE ACK BYE CANCEL REGISTER OPTIONS PRACK SUBSCRIBE NOTIFY PUBLISH INFO REFER MESSAGE".split()
    )

    def dissect(self, opening: Opening) -> Answer | None:
        line, _, _ = opening.packets[0].data.partition(b"\r\n")
        parts = line.split(b" ")
        if parts[0] == b"SIP/2.0" and len(parts) >= 2 and len(parts[1]) == 3 and parts[1].isdigit():
            return Answer(_CERTAIN, {"status": parts[1].decode("ascii")})
        whole = len(parts) == 3 and parts[2] == b"SIP/2.0" and parts[1][:4] in (b"sip:", b"sips", b"tel:")
        if parts[0] in self._METHODS and whole:
            return Answer(_CERTAIN, {"method": parts[0].decode("ascii")})
        return Answer(_UNSURE) if parts[0] in self._METHODS and opening.has_port(5060) else None


class Dhcp(Dissector):
    """DHCP (RFC 2131 section 3): BOOTP's header with a magic number behind it."""

    application = "dhcp"
    protocol = Protocol.DHCP
    transports = _UDP

    def dissect(self, opening: Opening) -> Answer | None:
        data = opening.packets[0].data
        if data[:1] not in (b"\1", b"\2") or data[236:240] != b"\x63\x82\x53\x63":
            return None
        # Option 53 comes first in what clients send.
        kind = data[242] if len(data) > 242 and data[240:242] == b"\x35\1" else 0
        return Answer(_CERTAIN, {"message_type": str(kind)} if kind else {})


class Rtp(Dissector):
    """RTP (RFC 3550 section 5.1): nothing is sure about it but that numbers go up under one source."""

    application = "rtp"
    protocol = Protocol.RTP
    transports = _UDP
    _LEAST = 3

    def dissect(self, opening: Opening) -> Answer | None:
        for backward in (False, True):
            packets = [packet for packet in opening.packets if packet.backward == backward]
            if len(packets) < self._LEAST:
                continue
            heads = [packet.data[:12] for packet in packets]
            if any(len(head) < 12 or head[0] >> 6 != 2 or 72 <= head[1] & 0x7F <= 76 for head in heads):
                return None
            numbers = [_u16(head, 2) for head in heads]
            steps = [(b - a) & 0xFFFF for a, b in pairwise(numbers)]
            if len({head[8:12] for head in heads}) == 1 and all(1 <= step <= 3 for step in steps):
                return Answer(_UNSURE, {"payload_type": str(heads[0][1] & 0x7F)})
        return None


class NetBios(Dissector):
    """NetBIOS name and datagram services (RFC 1002 sections 4.2 and 4.4)."""

    application = "netbios"
    protocol = Protocol.NETBIOS
    transports = _UDP

    def dissect(self, opening: Opening) -> Answer | None:
        data = opening.packets[0].data
        if opening.has_port(137) and len(data) >= 46:
            name = data[13:45]
            # Each half byte of a name is a letter from A to P.
            letters = data[12] == 32 and all(0x41 <= letter <= 0x50 for letter in name)
            pairs = zip(name[::2], name[1::2], strict=True)
            decoded = bytes((high - 0x41) << 4 | low - 0x41 for high, low in pairs) if letters else b""
            shown = decoded[:15].rstrip().decode("latin-1")
            return Answer(_CERTAIN if letters else _UNSURE, {"name": shown} if letters else {})
        if opening.has_port(138) and len(data) >= 14 and 0x10 <= data[0] <= 0x16:
            return Answer(_UNSURE)
        return None


#: In the order in which they are asked; the first that is certain wins, else the first that is unsure.
DISSECTORS: Final[tuple[Dissector, ...]] = (
    *(Mqtt(), Smb(), Rdp(), Modbus(), WireGuard(), Coap(), Sip(), Dhcp(), NetBios()),
    Rtp(),
)

#: Protocol, facts, the capture (of shared/data/probe) each is proved on; docs/probe/dissectors.md has it.
TABLE: Final[tuple[tuple[str, str, str], ...]] = (
    ("mqtt", "level", "mqtt.pcap"),
    ("coap", "code, path", "coap_mqtt.pcap"),
    ("wireguard", "", "wireguard.pcap"),
    ("rdp", "requested_protocols", "rdp.pcap"),
    ("smb", "dialect", "smb_deletefile.pcap"),
    ("modbus", "function", "modbus.pcap"),
    ("dhcp", "message_type", "fuzz-2006-06-26-2594.pcap"),
    ("netbios", "name", "fuzz-2006-06-26-2594.pcap"),
    ("rtp", "payload_type", "fuzz-2006-06-26-2594.pcap"),
    ("sip", "method, status", "fuzz-2006-06-26-2594.pcap"),
)
