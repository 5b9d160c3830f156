"""What flows have to do with each other: one connection on several addresses, names, ICMP errors.

`Links` ties flows of one DTLS or QUIC connection by the ids its handshake showed: a flow without
handshake whose packets carry them, to and from the same server, is the same connection on another
path.  Ids that several connections have link nothing; that is counted.  `Names` remembers which name a
client asked DNS for when it was told an address.  Both are bounded and forget what is oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from sealwire.probe.dissect.facts import Certainty
from sealwire.probe.dissect.plugin import FirstPacket
from sealwire.probe.features import ICMP, community_id_of, id_of

#: Connections whose ids are remembered, and addresses whose names are.
MAX_CONNECTIONS: Final = 65_536
MAX_NAMES: Final = 65_536
#: Ids of fewer bytes in all make a link likely, not certain.
CERTAIN_BYTES: Final = 4

_RECORD_WITH_ID: Final = b"\x19\xfe\xfd"  # RFC 9146 section 4: tls12_cid


class Handshake(NamedTuple):
    """What the event of a handshake says of a connection with ids; made for many of them."""

    time: int
    #: The flow's ends and place, as ROW_KEY has them: what its association id is made of.
    key: bytes
    protocol: int
    #: What packets to the server, and to the client, carry.
    to_server: bytes
    to_client: bytes
    server_name: bytes

    @property
    def association(self) -> int:
        """The id of the flow with the handshake."""
        return id_of(self.key)

    @property
    def client(self) -> tuple[bytes, int]:
        """Address and port."""
        return self.key[:16], int.from_bytes(self.key[32:34], "little")

    @property
    def server(self) -> bytes:
        """Address, and port in two bytes, little-endian."""
        return self.key[16:32] + self.key[34:36]


class Links:
    """Connections by server and id."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[bytes, bytes], Handshake | None] = OrderedDict()
        self._lengths: dict[bytes, set[int]] = {}
        self._servers: set[bytes] = set()
        #: Flows whose ids fit several connections.
        self.ambiguous = 0

    @property
    def servers(self) -> AbstractSet[bytes]:
        """Each server whose ids are known or expected, as Handshake.server has it."""
        return self._servers

    def expect(self, servers: AbstractSet[bytes]) -> None:
        """Servers whose handshakes are going to be learnt."""
        self._servers |= servers

    def learn(self, made: Handshake) -> None:
        """Remember the ids of a handshake."""
        server = made.server
        key = (server, made.to_server)
        before = self._known.pop(key, made)
        # Two connections with one id: whose packets these are cannot be told any more.
        self._known[key] = made if before is made else None
        lengths = self._lengths.get(server)
        if lengths is None:
            lengths = self._lengths[server] = set()
        lengths.add(len(made.to_server))
        self._servers.add(server)
        if len(self._known) > MAX_CONNECTIONS:
            (old, _), _ = self._known.popitem(last=False)
            if not any(server == old for server, _ in list(self._known)[:64]):
                self._lengths.pop(old, None)
                self._servers.discard(old)

    def find(
        self, source: bytes, destination: bytes, packets: tuple[FirstPacket, ...]
    ) -> tuple[Handshake, Certainty] | None:
        """The connection a flow without handshake belongs to."""
        if not self._lengths:
            return None
        for server, backward in ((destination, False), (source, True)):
            lengths = self._lengths.get(server)
            if lengths:
                return self._match(server, lengths, backward, packets)
        return None

    def _match(
        self, server: bytes, lengths: set[int], backward: bool, packets: tuple[FirstPacket, ...]
    ) -> tuple[Handshake, Certainty] | None:
        there = [packet.data for packet in packets if packet.backward == backward]
        back = [packet.data for packet in packets if packet.backward != backward]
        found: list[Handshake] = []
        unclear = False
        for length in sorted(lengths):
            ids = {_id_of(data, length) for data in there}
            if len(ids) != 1 or (one := ids.pop()) is None or (server, one) not in self._known:
                continue
            connection = self._known[server, one]
            if connection is None:
                unclear = True
            elif all(_carries(data, connection.to_client) for data in back):
                found.append(connection)
        if unclear or len(found) > 1:
            self.ambiguous += 1
            return None
        if not found:
            return None
        proved = len(found[0].to_server) + (len(found[0].to_client) if back else 0)
        return found[0], Certainty.CERTAIN if proved >= CERTAIN_BYTES else Certainty.UNSURE


def _id_of(data: bytes, length: int) -> bytes | None:
    """The id a protected packet would carry if it had `length` bytes; None if it is no such packet."""
    if data[:3] == _RECORD_WITH_ID:
        end = 11 + length
        # The record's length stands behind the id.
        return data[11:end] if len(data) >= end + 2 else None
    # RFC 9147 section 4: 001CSLEE with C set; RFC 9000 section 17.3: 01.
    if data and (data[0] & 0xF0 == 0x30 or data[0] & 0xC0 == 0x40):
        return data[1 : 1 + length] if len(data) > length else None
    return None


def _carries(data: bytes, expected: bytes) -> bool:
    if not expected:
        # Packets to a client that asked for no ids have none to compare.
        return (data[:1] != b"" and data[0] >> 5 in (1, 2, 3)) or data[:2] in (b"\x16\xfe", b"\x17\xfe")
    return _id_of(data, len(expected)) == expected


class Names:
    """Names by client and the address it was told."""

    def __init__(self, most: int = MAX_NAMES) -> None:
        self._most = most
        #: Client and address together -> when it was told, and the name.
        self.known: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()

    def learn(self, time: int, client: bytes, name: bytes, addresses: tuple[bytes, ...]) -> None:
        """Remember an answer."""
        known = self.known
        for address in addresses:
            key = client + address
            if key in known:
                known.move_to_end(key)
            known[key] = (time, name)
            if len(known) > self._most:
                known.popitem(last=False)

    def find(self, ends: bytes) -> tuple[int, bytes] | None:
        """When a client was last told an address, and for which name; `ends` is client, then address."""
        return self.known.get(ends)


_ERRORS: Final = {ICMP: frozenset({3, 4, 5, 11, 12}), 58: frozenset({1, 2, 3, 4})}


def cited(protocol: int, kind: int, data: bytes) -> str | None:
    """Community ID of the flow an ICMP error speaks of (RFC 792, RFC 4443), from what it quotes."""
    if kind not in _ERRORS[protocol]:
        return None
    if protocol == ICMP:
        if len(data) < 20 or data[0] >> 4 != 4:
            return None
        behind = (data[0] & 15) * 4
        inner, source, destination = data[9], data[12:16].ljust(16, b"\0"), data[16:20].ljust(16, b"\0")
    else:
        if len(data) < 40 or data[0] >> 4 != 6:
            return None
        behind, inner, source, destination = 40, data[6], data[8:24], data[24:40]
    if inner not in (6, 17, 132) or len(data) < behind + 4:
        return None
    first = int.from_bytes(data[behind : behind + 2], "big")
    second = int.from_bytes(data[behind + 2 : behind + 4], "big")
    return community_id_of(source, destination, first, second, 4 if protocol == ICMP else 6, inner)
