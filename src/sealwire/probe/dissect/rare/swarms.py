"""Swarms: BitTorrent between peers and its distributed hash table."""

from __future__ import annotations

from sealwire.probe.dissect.facts import Certainty, Protocol
from sealwire.probe.dissect.plugin import Answer, Dissector, Opening, Sign
from sealwire.probe.features import TCP

_CERTAIN, _UNSURE = Certainty.CERTAIN, Certainty.UNSURE


class BitTorrent(Dissector):
    """BitTorrent (BEP 3) over TCP, and its hash table (BEP 5) over UDP, whose messages are dictionaries."""

    application = "bittorrent"
    protocol = Protocol.BITTORRENT
    signs = (Sign(b"\x13BitTorrent prot"), Sign(b"d1:ad2:id20:"), Sign(b"d1:rd2:id20:"), Sign(b"d1:eli20"))

    def dissect(self, opening: Opening) -> Answer | None:
        if opening.protocol == TCP:
            for packet in opening.packets:
                if packet.data[:20] == b"\x13BitTorrent protocol" and packet.size >= 48:
                    return Answer(_CERTAIN, {"info_hash": packet.data[28:48].hex()})
            return None
        for packet in opening.packets:
            data = packet.data
            if data[:12] in (b"d1:ad2:id20:", b"d1:rd2:id20:") and packet.size >= 32:
                asked = _after(data, b"1:q")
                return Answer(_CERTAIN, {"query": asked} if asked and data[1:3] == b"1:" else {})
        return None


def _after(data: bytes, key: bytes) -> str:
    """The text behind a key of a dictionary (BEP 3: its length, a colon, its bytes)."""
    at = data.rfind(key)
    length, colon, rest = data[at + len(key) :].partition(b":") if at >= 0 else (b"", b"", b"")
    if not colon or len(length) > 2 or not length.isdigit():
        return ""
    text = rest[: int(length)]
    return (
        text.decode("ascii")
        if (len(text) == int(length) and text.isalnum()) or (b"_" in text and text.isascii())
        else ""
    )
