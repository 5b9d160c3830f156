"""What dissection says of a flow, as bytes that both twins write alike.

A *facts block* is a head (protocol, certainty, flags) and tagged values, in the order in which they
were learnt; "" says nothing is known.  An *event* is such a block with the flow's ends and a time in
front.  `Facts` reads a block; TAGS declares each value once: name, kind, meaning.
docs/probe/dissectors.md is this table for people, and a test compares the two.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealwire.probe.features import FLOW_ID_MASK, NO_VLAN, ROW_KEY, address


class Protocol(enum.IntEnum):
    """What a flow speaks.  The names are those of Suricata where it has one."""

    UNKNOWN = 0
    TLS = 1
    DTLS = 2
    QUIC = 3
    DNS = 4
    MDNS = 5
    HTTP = 6
    STUN = 7
    SSH = 8
    # In plain Python, from the first packets of flows that are none of those above.
    MQTT = 32
    COAP = 33
    WIREGUARD = 34
    RDP = 35
    SMB = 36
    MODBUS = 37
    RTP = 38
    RTCP = 39
    SIP = 40
    DHCP = 41
    NTP = 42
    SNMP = 43
    REDIS = 44
    PGSQL = 45
    MYSQL = 46
    KRB5 = 47
    LDAP = 48
    DNP3 = 49
    OPENVPN = 50
    BITTORRENT = 51
    NETBIOS = 52
    #: Named by a plugin; the name is a fact.
    PLUGIN = 0xFFFF

    @property
    def label(self) -> str:
        """The name as it is written."""
        return self.name.lower()


def label(number: int) -> str:
    """A protocol's name, or its number where this version does not know it; "" for UNKNOWN."""
    if number == Protocol.UNKNOWN:
        return ""
    try:
        return Protocol(number).label
    except ValueError:
        return str(number)


class Certainty(enum.IntEnum):
    """How sure a dissector is."""

    NOT_MINE = 0  #: it is something else
    UNSURE = 1  #: it looks like it, but other things do, too
    CERTAIN = 2  #: nothing else looks so


class Flag(enum.IntFlag):
    """What to know about a block."""

    TRUNCATED = 1  #: a limit was reached, or bytes were missing, before everything was read
    MALFORMED = 2  #: what came contradicts itself


class Kind(enum.Enum):
    """How a value is to be read."""

    NUMBER = "number"  #: little-endian, as long as the value
    TEXT = "text"  #: bytes of the other side's making, shown in ASCII with escapes
    HEX = "hex"  #: bytes, shown in hexadecimal
    NAMES = "names"  #: TEXT with a byte of length in front of each
    ADDRESS = "address"  #: an address and a port
    ANSWER = "answer"  #: a DNS record: type, time to live, value
    PAIR = "pair"  #: a name, a zero, a text
    CERTIFICATE = "certificate"  #: DER
    HEAD = "head"  #: first packets, for dissectors in Python; never handed on


@dataclass(frozen=True, slots=True)
class Tag:
    """One kind of fact."""

    number: int
    name: str
    kind: Kind
    meaning: str


class Fact(enum.IntEnum):
    """Numbers of the tags."""

    VERSION = 1
    NAME = 2
    ALPN = 3
    ALPN_CHOSEN = 4
    CIPHER = 5
    GROUP = 6
    JA3 = 7
    JA3S = 8
    JA4 = 9
    CLIENT_ID = 10
    SERVER_ID = 11
    ECH = 12
    CERTIFICATE = 13
    RETRY = 14
    ALERT = 15
    OFFERED = 16
    QUIC_VERSION = 17
    APPLICATION = 18
    DNS_ID = 20
    DNS_FLAGS = 21
    DNS_TYPE = 22
    DNS_ANSWER = 23
    METHOD = 30
    TARGET = 31
    USER_AGENT = 32
    STATUS = 33
    CONTENT_TYPE = 34
    SERVER = 35
    CLIENT_SOFTWARE = 40
    SERVER_SOFTWARE = 41
    HASSH = 42
    HASSH_SERVER = 43
    STUN_METHOD = 50
    MAPPED = 51
    HEAD = 60
    LEARNED_NAME = 61
    ASSOCIATION = 62
    PATH = 59
    DETAIL = 63


TAGS: Final[dict[int, Tag]] = {
    tag.number: tag
    for tag in (
        Tag(Fact.VERSION, "version", Kind.NUMBER, "version the server chose (TLS, DTLS)"),
        Tag(
            Fact.NAME,
            "server_name",
            Kind.TEXT,
            "name of the server: SNI, Host, the first name asked for, STUN's realm",
        ),
        Tag(Fact.ALPN, "alpn_offered", Kind.NAMES, "application protocols the client offers"),
        Tag(Fact.ALPN_CHOSEN, "alpn", Kind.TEXT, "the one the server chose, where that is in the clear"),
        Tag(Fact.CIPHER, "cipher", Kind.NUMBER, "cipher suite the server chose"),
        Tag(Fact.GROUP, "group", Kind.NUMBER, "key exchange group the server chose (TLS 1.3)"),
        Tag(Fact.JA3, "ja3", Kind.HEX, "JA3 of the first ClientHello"),
        Tag(Fact.JA3S, "ja3s", Kind.HEX, "JA3S of the ServerHello"),
        Tag(Fact.JA4, "ja4", Kind.TEXT, "JA4 of the first ClientHello"),
        Tag(
            Fact.CLIENT_ID,
            "client_id",
            Kind.HEX,
            "connection id packets to the client carry (DTLS, QUIC); may be empty",
        ),
        Tag(Fact.SERVER_ID, "server_id", Kind.HEX, "connection id packets to the server carry"),
        Tag(
            Fact.ECH,
            "ech",
            Kind.NUMBER,
            "1: the hello has encrypted_client_hello, so server_name may be that of a front",
        ),
        Tag(Fact.CERTIFICATE, "certificate", Kind.CERTIFICATE, "the server's certificate (up to TLS 1.2)"),
        Tag(Fact.RETRY, "retry", Kind.NUMBER, "1: the server asked for another hello"),
        Tag(Fact.ALERT, "alert", Kind.NUMBER, "description of an alert in the clear"),
        Tag(Fact.OFFERED, "version_offered", Kind.NUMBER, "highest version the client offers"),
        Tag(Fact.QUIC_VERSION, "quic_version", Kind.NUMBER, "version of QUIC"),
        Tag(Fact.APPLICATION, "application", Kind.TEXT, "what a plugin calls the protocol"),
        Tag(Fact.DNS_ID, "id", Kind.NUMBER, "id of the DNS message"),
        Tag(Fact.DNS_FLAGS, "flags", Kind.NUMBER, "flags of the DNS message; of a flow, of the first answer"),
        Tag(Fact.DNS_TYPE, "rrtype", Kind.NUMBER, "type asked for"),
        Tag(Fact.DNS_ANSWER, "answers", Kind.ANSWER, "records of the answer section, the first 16"),
        Tag(Fact.METHOD, "http_method", Kind.TEXT, "method of the first request"),
        Tag(Fact.TARGET, "url", Kind.TEXT, "its target, at most 1,024 bytes"),
        Tag(Fact.USER_AGENT, "http_user_agent", Kind.TEXT, "its User-Agent"),
        Tag(Fact.STATUS, "status", Kind.NUMBER, "status of the first response"),
        Tag(Fact.CONTENT_TYPE, "http_content_type", Kind.TEXT, "its Content-Type"),
        Tag(Fact.SERVER, "http_server", Kind.TEXT, "its Server"),
        Tag(Fact.CLIENT_SOFTWARE, "client_software", Kind.TEXT, "what the client calls itself (SSH, STUN)"),
        Tag(Fact.SERVER_SOFTWARE, "server_software", Kind.TEXT, "what the server calls itself (SSH, STUN)"),
        Tag(Fact.HASSH, "hassh", Kind.HEX, "HASSH of the client"),
        Tag(Fact.HASSH_SERVER, "hassh_server", Kind.HEX, "HASSH of the server"),
        Tag(Fact.STUN_METHOD, "stun_method", Kind.NUMBER, "method of the first STUN message"),
        Tag(Fact.MAPPED, "mapped_address", Kind.ADDRESS, "address STUN says the client has"),
        Tag(
            Fact.LEARNED_NAME,
            "learned_name",
            Kind.TEXT,
            "name the client asked DNS for when it was told this address; only where the flow tells none",
        ),
        Tag(
            Fact.ASSOCIATION,
            "association_id",
            Kind.NUMBER,
            "the same for all flows of one DTLS or QUIC connection with ids",
        ),
        Tag(Fact.PATH, "path_from", Kind.ADDRESS, "address the client had when the connection began"),
        Tag(Fact.HEAD, "head", Kind.HEAD, ""),
        Tag(Fact.DETAIL, "details", Kind.PAIR, "what a dissector in Python found, by name"),
    )
}

#: Name of the detail in which an ICMP error says which flow it is about.
CITED: Final = b"cited_community_id"
#: Protocol, certainty, flags.
BLOCK_HEAD: Final = struct.Struct("<HBB")
#: Tag, length of the value.
FACT_HEAD: Final = struct.Struct("<BH")
#: Longest facts block; what does not fit is left out and the block marked as truncated.
MAX_BLOCK_BYTES: Final = 12_288
#: Length of the whole event, time, flow key as in features.ROW_KEY, VLAN ids.
EVENT_HEAD: Final = struct.Struct("<Iq16s16sHHBBIqQHH")

#: A block that says nothing, for facts to be put behind it.
NOTHING: Final = BLOCK_HEAD.pack(Protocol.UNKNOWN, Certainty.NOT_MINE, 0)

Value = int | str | list[str] | tuple[str, int] | dict[str, object] | bytes


def facts_block(protocol: int, certainty: int, facts: Iterable[tuple[int, bytes]], flags: int = 0) -> bytes:
    """A block of tags and values."""
    return BLOCK_HEAD.pack(protocol, certainty, flags) + b"".join(fact(tag, value) for tag, value in facts)


def fact(tag: int, value: bytes) -> bytes:
    """A fact as it stands in a block."""
    return FACT_HEAD.pack(tag, len(value)) + value


def without_head(block: bytes) -> bytes:
    """A block without first packets; empty if nothing is left."""
    rest = b"".join(fact(tag, value) for tag, value in Facts(block) if tag != Fact.HEAD)
    return block[: BLOCK_HEAD.size] + rest if rest or block[:2] != b"\0\0" else b""


class Facts:
    """One facts block, read when asked."""

    __slots__ = ("block",)

    def __init__(self, block: bytes) -> None:
        self.block = block

    @property
    def protocol(self) -> Protocol:
        """What the flow speaks, UNKNOWN if nobody knows."""
        return Protocol(BLOCK_HEAD.unpack_from(self.block)[0]) if self.block else Protocol.UNKNOWN

    @property
    def application(self) -> str:
        """The protocol's name, or the one a plugin gave it; "" if nobody knows.

        One that this version does not know is its number: the block may be another version's.
        """
        number = BLOCK_HEAD.unpack_from(self.block)[0] if self.block else 0
        return self.text(Fact.APPLICATION) or "" if number == Protocol.PLUGIN else label(number)

    @property
    def certainty(self) -> Certainty:
        """How sure that is."""
        return Certainty(self.block[2]) if self.block else Certainty.NOT_MINE

    @property
    def flags(self) -> Flag:
        """What to know about the block."""
        return Flag(self.block[3]) if self.block else Flag(0)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Tags and values as they are written."""
        block, at = self.block, BLOCK_HEAD.size
        while at < len(block):
            tag, n = FACT_HEAD.unpack_from(block, at)
            at += FACT_HEAD.size
            yield tag, block[at : at + n]
            at += n

    def raw(self, wanted: int) -> bytes | None:
        """The first value of a tag, None where there is none."""
        block, at = self.block, BLOCK_HEAD.size
        while at < len(block):
            end = at + FACT_HEAD.size + (block[at + 1] | block[at + 2] << 8)
            if block[at] == wanted:
                return block[at + FACT_HEAD.size : end]
            at = end
        return None

    def number(self, wanted: int) -> int | None:
        """The first value of a tag as a number."""
        value = self.raw(wanted)
        return None if value is None else int.from_bytes(value, "little")

    def text(self, wanted: int) -> str | None:
        """The first value of a tag as text: ASCII, everything else escaped."""
        value = self.raw(wanted)
        return None if value is None else text(value)

    @property
    def version(self) -> int | None:
        """TLS or DTLS version: what the server chose, else the highest the client offers."""
        chosen = self.number(Fact.VERSION)
        return self.number(Fact.OFFERED) if chosen is None else chosen

    @property
    def server_name(self) -> str:
        """Name of the server; "" if it is not known."""
        return self.text(Fact.NAME) or ""

    def as_dict(self) -> dict[str, Value]:
        """All facts by name; what may come several times is a list."""
        found: dict[str, Value] = {}
        for number, value in self:
            tag = TAGS[number]
            match tag.kind:
                case Kind.NUMBER:
                    found.setdefault(tag.name, int.from_bytes(value, "little"))
                case Kind.TEXT:
                    found.setdefault(tag.name, text(value))
                case Kind.HEX:
                    found.setdefault(tag.name, value.hex())
                case Kind.NAMES:
                    found.setdefault(tag.name, names(value))
                case Kind.ADDRESS:
                    found.setdefault(tag.name, list(map(str, endpoint(value))))
                case Kind.ANSWER:
                    listed = found.setdefault(tag.name, [])
                    assert isinstance(listed, list)
                    listed.append(answer(value))  # type: ignore[arg-type]
                case Kind.PAIR:
                    name, _, detail = value.partition(b"\0")
                    details = found.setdefault("details", {})
                    assert isinstance(details, dict)
                    details.setdefault(text(name), text(detail))
                case Kind.CERTIFICATE | Kind.HEAD:
                    pass
        return found


def pseudonymised(block: bytes, key: bytes) -> bytes:
    """A block without the addresses in it; association ids stay the same for the same connection.

    Names stay: they are not addresses, though one may be written like one.
    """
    if not block:
        return block
    protocol, certainty, flags = BLOCK_HEAD.unpack_from(block)
    kept: list[tuple[int, bytes]] = []
    for tag, value in Facts(block):
        if tag == Fact.ASSOCIATION:
            value = hashlib.blake2b(value, digest_size=8, key=key).digest()
            value = (int.from_bytes(value, "little") & FLOW_ID_MASK).to_bytes(8, "little")
        elif TAGS[tag].kind is Kind.ADDRESS or value.startswith(CITED + b"\0"):
            continue
        elif tag == Fact.DNS_ANSWER and value[:2] in (b"\1\0", b"\x1c\0"):
            value = value[:6]
        kept.append((tag, value))
    return facts_block(protocol, certainty, kept, flags)


def text(value: bytes) -> str:
    """Bytes of somebody else's making as ASCII text; control characters and the rest escaped."""
    if value.isascii() and (shown := value.decode("ascii")).isprintable():
        return shown
    return "".join(chr(b) if 0x20 <= b < 0x7F else f"\\x{b:02x}" for b in value)


def names(value: bytes) -> list[str]:
    """The texts of a NAMES value."""
    found, at = [], 0
    while at < len(value):
        found.append(text(value[at + 1 : at + 1 + value[at]]))
        at += 1 + value[at]
    return found


def endpoint(value: bytes) -> tuple[str, int]:
    """Address and port of an ADDRESS value: port, then 4 or 16 bytes."""
    where = value[2:]
    return address(where.ljust(16, b"\0"), 4 if len(where) == 4 else 6), int.from_bytes(value[:2], "little")


def answer(value: bytes) -> dict[str, object]:
    """A DNS record as EVE has it."""
    kind, ttl = struct.unpack_from("<HI", value)
    data = value[6:]
    found: dict[str, object] = {"rrtype": rrtype(kind), "ttl": ttl}
    if kind in (1, 28) and len(data) in (4, 16):
        found["rdata"] = address(data.ljust(16, b"\0"), 4 if len(data) == 4 else 6)
    elif data:
        found["rdata"] = text(data)
    return found


_RRTYPES: Final = {
    **{1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA"},
    **{29: "LOC", 33: "SRV", 35: "NAPTR", 39: "DNAME", 41: "OPT", 43: "DS", 46: "RRSIG", 47: "NSEC"},
    **{48: "DNSKEY", 50: "NSEC3", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 99: "SPF", 249: "TKEY"},
    **{250: "TSIG", 251: "IXFR", 252: "AXFR", 255: "ANY", 257: "CAA"},
}


def rrtype(kind: int) -> str:
    """Name of a DNS type, TYPEn where it has none here (RFC 3597 section 5)."""
    return _RRTYPES.get(kind) or f"TYPE{kind}"


class Event(NamedTuple):
    """One transaction or handshake of a flow; `time` in nanoseconds since 1970."""

    facts: Facts
    time: int
    source_address: bytes
    destination_address: bytes
    source_port: int
    destination_port: int
    ip_version: int
    protocol: int
    part: int
    flow_start: int
    first_packet: int
    vlan: int
    vlan_inner: int

    @property
    def vlans(self) -> list[int]:
        """VLAN ids of the flow's first packet, outer first."""
        return [vlan for vlan in (self.vlan, self.vlan_inner) if vlan != NO_VLAN]

    @property
    def key(self) -> bytes:
        """What flow_id is made of."""
        return ROW_KEY.pack(
            *(self.source_address, self.destination_address, self.source_port, self.destination_port),
            *(self.ip_version, self.protocol, self.part, self.flow_start, self.first_packet),
        )


def events(data: bytes) -> Iterator[Event]:
    """The events of concatenated records."""
    at = 0
    while at < len(data):
        length, *head = EVENT_HEAD.unpack_from(data, at)
        yield Event(Facts(data[at + EVENT_HEAD.size : at + length]), *head)
        at += length
