"""Calls: SIP, RTP and RTCP."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.features import UDP

_UDP: Final = frozenset({UDP})
_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE
_SIP_METHODS: Final = (
    b"INVITE ACK BYE CANCEL REGISTER OPTIONS PRACK SUBSCRIBE NOTIFY PUBLISH INFO REFER MESSAGE".split()
)


class Sip(Dissector):
    """SIP (RFC 3261 section 7): a request or status line with its version."""

    application = "sip"
    protocol = Protocol.SIP
    _METHODS = frozenset(_SIP_METHODS)
    signs = tuple(Sign(begin) for begin in (b"SIP/2.0 ", *(method + b" " for method in _SIP_METHODS)))

    def dissect(self, opening: Opening) -> Answer | None:
        line, _, _ = opening.packets[0].data.partition(b"\r\n")
        parts = line.split(b" ")
        if parts[0] == b"SIP/2.0" and len(parts) >= 2 and len(parts[1]) == 3 and parts[1].isdigit():
            return Answer(_CERTAIN, {"status": parts[1].decode("ascii")})
        whole = len(parts) == 3 and parts[2] == b"SIP/2.0" and parts[1][:4] in (b"sip:", b"sips", b"tel:")
        if parts[0] in self._METHODS and whole:
            return Answer(_CERTAIN, {"method": parts[0].decode("ascii")})
        return Answer(_UNSURE) if parts[0] in self._METHODS and opening.has_port(5060) else None


class Rtp(Dissector):
    """RTP (RFC 3550 section 5.1): nothing is sure about it but that numbers go up under one source."""

    application = "rtp"
    protocol = Protocol.RTP
    transports = _UDP
    _LEAST = 3
    # Version 2 in all of them.
    signs = (Sign(b"\x80", mask=b"\xc0", every=True, least=3),)

    def dissect(self, opening: Opening) -> Answer | None:
        for backward in (False, True):
            packets = [packet for packet in opening.packets if packet.backward == backward]
            if len(packets) < self._LEAST:
                continue
            heads = [packet.data[:12] for packet in packets]
            if any(len(head) < 12 or head[0] >> 6 != 2 or 72 <= head[1] & 0x7F <= 76 for head in heads):
                return None
            numbers = [int.from_bytes(head[2:4], "big") for head in heads]
            steps = [(b - a) & 0xFFFF for a, b in pairwise(numbers)]
            if len({head[8:12] for head in heads}) == 1 and all(1 <= step <= 3 for step in steps):
                return Answer(_UNSURE, {"payload_type": str(heads[0][1] & 0x7F)})
        return None


class Rtcp(Dissector):
    """RTCP (RFC 3550 section 6): packets of known types that fill the datagram, a report first."""

    application = "rtcp"
    protocol = Protocol.RTCP
    transports = _UDP
    signs = tuple(Sign(b"\x80" + bytes((kind,)), mask=b"\xc0\xff", every=True) for kind in (200, 201))
    _KINDS = range(200, 208)

    def dissect(self, opening: Opening) -> Answer | None:
        certain = False
        sources: dict[bool, bytes] = {}
        for packet in opening.packets:
            kinds = self._kinds(packet.data, packet.size)
            if not kinds or kinds[0] not in (200, 201):
                return None
            source = packet.data[4:8]
            # Section 6.1: a compound packet has its source's name; else a second report of one source.
            certain = certain or 202 in kinds or sources.get(packet.backward) == source
            sources[packet.backward] = source
        details = {"ssrc": opening.packets[0].data[4:8].hex()}
        return Answer(_CERTAIN if certain else _UNSURE, details)

    def _kinds(self, data: bytes, size: int) -> list[int]:
        """Types of the packets in a datagram; none if they do not fill it."""
        found, at = [], 0
        while at + 4 <= len(data):
            if data[at] >> 6 != 2 or data[at + 1] not in self._KINDS:
                return []
            found.append(data[at + 1])
            at += 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        # What is behind the bytes that are here cannot be seen.
        return found if at == size or (at < size and len(data) < size and at >= len(data)) else []
