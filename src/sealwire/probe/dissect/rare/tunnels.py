"""Tunnels: WireGuard and OpenVPN."""

from __future__ import annotations

from typing import ClassVar, Final

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.features import TCP, UDP

_UDP: Final = frozenset({UDP})
_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE


class WireGuard(Dissector):
    """WireGuard (its white paper, section 5.4): initiation and response name each other's indices."""

    application = "wireguard"
    protocol = Protocol.WIREGUARD
    transports = _UDP
    signs = (Sign(b"\0\0\0\0", mask=b"\xf8\xff\xff\xff", every=True),)
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


class OpenVpn(Dissector):
    """OpenVPN (its protocol description, ssl_pkt.h): the answer to a reset names the client's session."""

    application = "openvpn"
    protocol = Protocol.OPENVPN
    _PORT = 1194
    # A client's reset of version 2 or 3, key 0; over TCP behind a length.
    signs = (
        Sign(b"\x38"),
        Sign(b"\x50"),
        Sign(b"\0\0\x38", mask=b"\xff\0\xff"),
        Sign(b"\0\0\x50", mask=b"\xff\0\xff"),
    )

    def dissect(self, opening: Opening) -> Answer | None:
        skip = 2 if opening.protocol == TCP else 0
        first = opening.packets[0]
        data = first.data[skip:]
        if len(data) < 14 or data[0] not in (0x38, 0x50):
            return None
        if skip and int.from_bytes(first.data[:2], "big") + skip != first.size:
            return None
        # Without a key of its own: no acknowledgments, message 0.
        plain = first.size - skip == 14 and data[9:14] == bytes(5)
        for packet in opening.packets[1:]:
            answer = packet.data[skip:]
            if packet.backward == first.backward:
                continue
            if answer[:1] != b"\x40":
                return None
            if data[1:9] in answer[9:]:
                return Answer(_CERTAIN, {"wrapped": "no" if plain else "tls-auth"})
            # With tls-crypt all behind the session's name is encrypted.
            return Answer(_UNSURE, {"wrapped": "tls-crypt"}) if first.size - skip >= 42 else None
        return Answer(_UNSURE) if plain and opening.has_port(self._PORT) else None
