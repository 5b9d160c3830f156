"""What keeps a network running: DHCP, NTP and SNMP."""

from __future__ import annotations

from typing import ClassVar, Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.dissect.rare.ber import element, elements
from sealwire.probe.features import UDP

_UDP: Final = frozenset({UDP})
_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE


class Dhcp(Dissector):
    """DHCP (RFC 2131 section 3): BOOTP's header with a magic number behind it."""

    application = "dhcp"
    protocol = Protocol.DHCP
    transports = _UDP
    signs = (Sign(b"\x63\x82\x53\x63", at=236),)

    def dissect(self, opening: Opening) -> Answer | None:
        data = opening.packets[0].data
        if data[:1] not in (b"\1", b"\2") or data[236:240] != b"\x63\x82\x53\x63":
            return None
        # Option 53 comes first in what clients send.
        kind = data[242] if len(data) > 242 and data[240:242] == b"\x35\1" else 0
        return Answer(_CERTAIN, {"message_type": str(kind)} if kind else {})


class Ntp(Dissector):
    """NTP (RFC 5905 section 7.3): an answer repeats the request's transmit timestamp."""

    application = "ntp"
    protocol = Protocol.NTP
    transports = _UDP
    signs = (Sign(port=123),)

    def dissect(self, opening: Opening) -> Answer | None:
        if not opening.has_port(123):
            return None
        asked: dict[bool, bytes] = {}
        details: dict[str, str] = {}
        confirmed = False
        for packet in opening.packets:
            data = packet.data
            version, mode = (data[0] >> 3 & 7, data[0] & 7) if data else (0, 0)
            if len(data) < 12 or not 1 <= version <= 4 or not mode or packet.size % 4:
                return None
            if mode > 5:  # control and private messages (RFC 9327)
                details.setdefault("mode", str(mode))
                continue
            if len(data) < 48:
                return None
            details.setdefault("version", str(version))
            details.setdefault("mode", str(mode))
            before = asked.get(not packet.backward)
            if before is not None and mode in (2, 4) and data[24:32] == before != bytes(8):
                confirmed = True
                details["stratum"] = str(data[1])
            asked[packet.backward] = data[40:48]
        return Answer(_CERTAIN if confirmed else _UNSURE, details)


class Snmp(Dissector):
    """SNMP 1, 2c and 3 (RFC 1157, RFC 3416, RFC 3412): BER that can be read down to the operation."""

    application = "snmp"
    protocol = Protocol.SNMP
    transports = _UDP
    signs = (Sign(port=161), Sign(port=162))
    _VERSIONS: ClassVar = {0: "1", 1: "2c", 3: "3"}

    def dissect(self, opening: Opening) -> Answer | None:
        if not opening.has_port(161) and not opening.has_port(162):
            return None
        first = opening.packets[0]
        whole = element(first.data, 0)
        if whole is None or whole.tag != 0x30 or whole.end != first.size:
            return None
        version = element(first.data, whole.begin)
        if version is None or version.tag != 2 or version.value(first.data) not in (b"\0", b"\1", b"\3"):
            return None
        name = self._VERSIONS[version.value(first.data)[0]]
        second = element(first.data, version.end)
        if second is None:
            return None
        if name == "3":
            # msgGlobalData: id, largest size, flags of one byte, security model.
            tags = [one.tag for one in elements(first.data, second.begin, second.end)]
            return (
                Answer(_CERTAIN, {"version": name}) if second.tag == 0x30 and tags == [2, 2, 4, 2] else None
            )
        operation = element(first.data, second.end)
        if second.tag != 4 or operation is None or not 0xA0 <= operation.tag <= 0xA8:
            return None
        return Answer(_CERTAIN, {"version": name, "pdu": str(operation.tag - 0xA0)})
