"""ClientHello and ServerHello as a bystander reads them, and the fingerprints JA3, JA3S and JA4.

`tls13.messages` judges what a peer may send us; a bystander also wants to know hellos of other
versions and hellos with broken extensions.  So only the outer shape must be right here, and an
extension whose inside is wrong is only not learnt from.  Where `tls13.messages` accepts a hello, both
read the same (tests/unit/probe/dissect).

JA3: https://github.com/salesforce/ja3.  JA4: https://github.com/FoxIO-LLC/ja4 (the TLS client
fingerprint, BSD 3-clause; its relatives have another licence and are not here).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from sealwire.errors import ProtocolError
from sealwire.probe.dissect.bounded import Budget
from sealwire.probe.dissect.case import Case
from sealwire.probe.dissect.facts import Fact
from sealwire.tls13.messages import HELLO_RETRY_RANDOM
from sealwire.wire import Reader

SERVER_NAME: Final = 0
GROUPS: Final = 10
POINT_FORMATS: Final = 11
SIGNATURE_ALGORITHMS: Final = 13
ALPN: Final = 16
SUPPORTED_VERSIONS: Final = 43
KEY_SHARE: Final = 51
CONNECTION_ID: Final = 54
#: draft-ietf-tls-esni-18 and later.
ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D

_LONGEST_NAME: Final = 255
_LONGEST_ALPN: Final = 512


def is_grease(code: int) -> bool:
    """RFC 8701: values that mean nothing, sent to keep others tolerant."""
    return code & 0x0F0F == 0x0A0A and code >> 8 == code & 0xFF


@dataclass(frozen=True, slots=True)
class Hello:
    """The outside of a hello: lists as they came, extensions unread."""

    version: int
    random: bytes
    suites: tuple[int, ...]
    extensions: tuple[tuple[int, bytes], ...]

    def extension(self, code: int) -> bytes | None:
        """Content of the first extension of that code."""
        return next((body for kind, body in self.extensions if kind == code), None)


def client_hello(body: bytes, datagrams: bool) -> Hello | None:
    """The ClientHello whose body this is (RFC 8446 section 4.1.2, RFC 9147 section 5.3), or None."""
    reader = Reader(body)
    try:
        version, random = reader.u16(), reader.take(32)
        reader.vector8(high=32)
        if datagrams:
            reader.vector8()
        suites = reader.list16_of_u16()
        reader.vector8(low=1)
        return Hello(version, random, suites, _extensions(reader))
    except ProtocolError:
        return None


def server_hello(body: bytes) -> Hello | None:
    """The ServerHello or HelloRetryRequest whose body this is (RFC 8446 section 4.1.3), or None."""
    reader = Reader(body)
    try:
        version, random = reader.u16(), reader.take(32)
        reader.vector8(high=32)
        suite = reader.u16()
        reader.u8()
        return Hello(version, random, (suite,), _extensions(reader))
    except ProtocolError:
        return None


def _extensions(reader: Reader) -> tuple[tuple[int, bytes], ...]:
    found = []
    if reader.remaining:
        inner = reader.sub16()
        while inner.remaining:
            found.append((inner.u16(), inner.vector16()))
        reader.finish()
    return tuple(found)


def learn_client(case: Case, budget: Budget, hello: Hello, transport: str) -> None:
    """Facts of a client's first hello; `transport` is t, d or q as in JA4."""
    offered = offered_version(hello)
    case.number(budget, Fact.OFFERED, offered)
    name = server_name(hello)
    if name is not None:
        case.put(budget, Fact.NAME, name)
    alpn = protocols(hello)
    if alpn:
        case.put(budget, Fact.ALPN, _whole(alpn))
    if hello.extension(ENCRYPTED_CLIENT_HELLO) is not None:
        case.number(budget, Fact.ECH, 1, 1)
    if transport == "d":
        learn_id(case, budget, hello, Fact.CLIENT_ID)
    case.put(budget, Fact.JA3, md5(ja3(hello)))
    case.put(budget, Fact.JA4, ja4(hello, transport).encode("latin-1"))


def learn_server(case: Case, budget: Budget, hello: Hello, datagrams: bool) -> bool:
    """Facts of a server's hello; False if it only asks for another one of the client."""
    # RFC 8446 section 4.1.3: this random makes it a HelloRetryRequest.
    if hello.random == HELLO_RETRY_RANDOM:
        case.number(budget, Fact.RETRY, 1, 1)
        return False
    case.number(budget, Fact.VERSION, chosen_version(hello))
    case.number(budget, Fact.CIPHER, hello.suites[0])
    share = hello.extension(KEY_SHARE)
    if share is not None and len(share) >= 2:
        case.number(budget, Fact.GROUP, share[0] << 8 | share[1])
    alpn = protocols(hello)
    if alpn:
        case.put(budget, Fact.ALPN_CHOSEN, alpn[1 : 1 + alpn[0]])
    if datagrams:
        learn_id(case, budget, hello, Fact.SERVER_ID)
    case.put(budget, Fact.JA3S, md5(ja3s(hello)))
    return True


def learn_id(case: Case, budget: Budget, hello: Hello, tag: Fact) -> None:
    """RFC 9146 section 3: the id the sender wants to see in what it receives."""
    body = hello.extension(CONNECTION_ID)
    if body and body[0] == len(body) - 1:
        case.put(budget, tag, body[1:])


def server_name(hello: Hello) -> bytes | None:
    """The host_name of server_name (RFC 6066 section 3)."""
    body = hello.extension(SERVER_NAME)
    if body is None or len(body) < 5 or body[2] != 0:
        return None
    listed, n = body[0] << 8 | body[1], body[3] << 8 | body[4]
    if listed != len(body) - 2 or not 0 < n <= min(listed - 3, _LONGEST_NAME):
        return None
    return body[5 : 5 + n]


def protocols(hello: Hello) -> bytes:
    """The list of ALPN (RFC 7301 section 3.1) as it came, without its length; b"" if there is none."""
    body = hello.extension(ALPN)
    if body is None or len(body) < 4 or body[0] << 8 | body[1] != len(body) - 2:
        return b""
    listed, at = body[2:], 0
    while at < len(listed):
        if listed[at] == 0:
            return b""
        at += 1 + listed[at]
    return listed if at == len(listed) else b""


def _whole(alpn: bytes) -> bytes:
    """As many names as fit."""
    at = 0
    while at < len(alpn) and at + 1 + alpn[at] <= _LONGEST_ALPN:
        at += 1 + alpn[at]
    return alpn[:at]


def _versions(hello: Hello) -> list[int]:
    body = hello.extension(SUPPORTED_VERSIONS)
    if body is None or len(body) < 3 or body[0] != len(body) - 1 or body[0] % 2:
        return []
    listed = [body[at] << 8 | body[at + 1] for at in range(1, len(body), 2)]
    return [version for version in listed if not is_grease(version)]


def offered_version(hello: Hello) -> int:
    """The highest version a client offers.  DTLS counts downwards."""
    versions = _versions(hello)
    if not versions:
        return hello.version
    datagrams = [version for version in versions if version >> 8 == 0xFE]
    return min(datagrams) if datagrams else max(versions)


def chosen_version(hello: Hello) -> int:
    """The version a server chose."""
    body = hello.extension(SUPPORTED_VERSIONS)
    return body[0] << 8 | body[1] if body is not None and len(body) == 2 else hello.version


def _list16(body: bytes | None) -> list[int]:
    """A vector of 16-bit values with a two-byte length; empty if it is no such vector."""
    if body is None or len(body) < 2 or body[0] << 8 | body[1] != len(body) - 2 or len(body) % 2:
        return []
    return [body[at] << 8 | body[at + 1] for at in range(2, len(body), 2)]


def md5(text: str) -> bytes:
    """MD5 of a text, a byte for each character."""
    # JA3's definition; it identifies and protects nothing.
    return hashlib.md5(text.encode("latin-1"), usedforsecurity=False).digest()


def ja3(hello: Hello) -> str:
    """The text whose MD5 is JA3."""
    formats = hello.extension(POINT_FORMATS) or b""
    points = formats[1:] if formats and formats[0] == len(formats) - 1 else b""
    parts = (
        [code for code in hello.suites if not is_grease(code)],
        [code for code, _ in hello.extensions if not is_grease(code)],
        [code for code in _list16(hello.extension(GROUPS)) if not is_grease(code)],
        list(points),
    )
    return ",".join([str(hello.version), *("-".join(map(str, part)) for part in parts)])


def ja3s(hello: Hello) -> str:
    """The text whose MD5 is JA3S."""
    extensions = "-".join(str(code) for code, _ in hello.extensions)
    return f"{hello.version},{hello.suites[0]},{extensions}"


_JA4_VERSIONS: Final = {
    **{0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"},
    **{0xFEFF: "d1", 0xFEFD: "d2", 0xFEFC: "d3"},
}
_NOTHING: Final = "000000000000"


def ja4(hello: Hello, transport: str) -> str:
    """JA4 of a ClientHello."""
    suites = [f"{code:04x}" for code in hello.suites if not is_grease(code)]
    codes = [code for code, _ in hello.extensions if not is_grease(code)]
    listed = sorted(f"{code:04x}" for code in codes if code not in (SERVER_NAME, ALPN))
    schemes = [
        f"{code:04x}" for code in _list16(hello.extension(SIGNATURE_ALGORITHMS)) if not is_grease(code)
    ]
    return "".join(
        (
            transport,
            _JA4_VERSIONS.get(offered_version(hello), "00"),
            "d" if SERVER_NAME in codes else "i",
            f"{min(len(suites), 99):02d}{min(len(codes), 99):02d}",
            _first_protocol(hello),
            "_",
            _short_hash(",".join(sorted(suites))) if suites else _NOTHING,
            "_",
            _short_hash(",".join(listed) + ("_" + ",".join(schemes) if schemes else ""))
            if codes
            else _NOTHING,
        )
    )


def _first_protocol(hello: Hello) -> str:
    listed = protocols(hello)
    if not listed:
        return "00"
    name = listed[1 : 1 + listed[0]]
    ends = name[:1] + name[-1:]
    # Whatever is neither letter nor digit would make the fingerprint unreadable.
    return ends.decode("ascii") if ends.isalnum() and ends.isascii() else name.hex()[0] + name.hex()[-1]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]
