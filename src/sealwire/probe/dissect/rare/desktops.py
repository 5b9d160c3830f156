"""Desktops' protocols: RDP, SMB and NetBIOS."""

from __future__ import annotations

from typing import Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.features import TCP, UDP

_TCP: Final = frozenset({TCP})
_UDP: Final = frozenset({UDP})
_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE


class Rdp(Dissector):
    """RDP (MS-RDPBCGR section 2.2.1.1): an X.224 connection request with its cookie or negotiation."""

    application = "rdp"
    protocol = Protocol.RDP
    transports = _TCP
    signs = (Sign(b"\3\0"),)

    def dissect(self, opening: Opening) -> Answer | None:
        first = opening.packets[0]
        data = first.data
        if (
            len(data) < 11
            or data[:2] != b"\3\0"
            or int.from_bytes(data[2:4], "big") != first.size
            or data[5] != 0xE0
        ):
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
    signs = (Sign(b"\xfeSMB", at=4), Sign(b"\xffSMB", at=4))

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


class NetBios(Dissector):
    """NetBIOS name and datagram services (RFC 1002 sections 4.2 and 4.4)."""

    application = "netbios"
    protocol = Protocol.NETBIOS
    transports = _UDP
    signs = (Sign(port=137), Sign(port=138))

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
