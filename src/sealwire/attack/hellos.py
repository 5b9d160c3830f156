"""Datagrams a stranger can send: hellos, pieces of them, forged cookies and records, and garbage.

A hello is one of our own client's, so that a server has to take it seriously, with fresh random
bytes each time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from sealwire import dtls
from sealwire.context import CERT_NONE, PROTOCOL_CLIENT, Context
from sealwire.dtls.header import (
    ContentType,
    decode_fragments,
    decode_plaintext,
    encode_plaintext,
    fragment_header,
)
from sealwire.errors import Discard
from sealwire.tls13 import extensions as ext
from sealwire.tls13.messages import HandshakeType
from sealwire.wire import Reader

Payload = Callable[[random.Random], bytes]

_RANDOM_BYTES: Final = 32
#: Where the random stands in a ClientHello's body, behind legacy_version.
_RANDOM_AT: Final = 2
_COOKIE_BYTES: Final = 100
_RECORD_BYTES: Final = 200


def hello_body(*, post_quantum: bool = False) -> bytes:
    """The body of a first ClientHello as our client sends it."""
    context = Context(PROTOCOL_CLIENT)
    context.check_hostname = False
    context.verify_mode = CERT_NONE
    context.set_key_shares(["X25519MLKEM768" if post_quantum else "X25519"])
    connection = dtls.Connection.client(context.config(), now=0.0, mtu=65_000)
    (datagram,) = connection.transmit(0.0)
    record = decode_plaintext(datagram, 0)
    assert not isinstance(record, Discard)
    (fragment,) = decode_fragments(record.content)
    return bytes(fragment.data)


def whole(body: bytes, message_seq: int = 0, sequence: int = 0) -> bytes:
    """The datagram that carries a ClientHello in one piece."""
    header = fragment_header(HandshakeType.CLIENT_HELLO, len(body), message_seq, 0, len(body))
    return encode_plaintext(ContentType.HANDSHAKE, sequence, header + body)


def first_hellos() -> Payload:
    """Whole first hellos: each asks for a HelloRetryRequest."""
    body = hello_body()
    datagram = whole(body)
    at = len(datagram) - len(body) + _RANDOM_AT
    head, tail = datagram[:at], datagram[at + _RANDOM_BYTES :]
    return lambda choose: head + choose.randbytes(_RANDOM_BYTES) + tail


def first_pieces() -> Payload:
    """The first halves of post-quantum hellos, whose second halves never come."""
    body = hello_body(post_quantum=True)
    size = len(body) // 2
    header = fragment_header(HandshakeType.CLIENT_HELLO, len(body), 0, 0, size)
    return lambda choose: encode_plaintext(
        ContentType.HANDSHAKE, 0, header + body[:2] + choose.randbytes(_RANDOM_BYTES) + body[34:size]
    )


def forged_cookies() -> Payload:
    """Second hellos with a cookie nobody made."""
    marker = bytes(range(_COOKIE_BYTES))
    body = hello_body()
    datagram = whole(with_cookie(body, marker), message_seq=1, sequence=1)
    at = datagram.index(marker)
    head, tail = datagram[:at], datagram[at + _COOKIE_BYTES :]
    return lambda choose: head + choose.randbytes(_COOKIE_BYTES) + tail


def with_cookie(body: bytes, cookie: bytes) -> bytes:
    """A ClientHello's body with a cookie in front of its other extensions (RFC 8446 section 4.2.2)."""
    reader = Reader(body, "ClientHello")
    reader.take(_RANDOM_AT + _RANDOM_BYTES)
    reader.vector8()
    reader.vector8()
    reader.vector16()
    reader.vector8()
    extensions = reader.vector16()
    ahead = body[: len(body) - len(extensions) - 2]
    value = len(cookie).to_bytes(2) + cookie
    mine = ext.COOKIE.code.to_bytes(2) + len(value).to_bytes(2) + value
    return ahead + (len(mine) + len(extensions)).to_bytes(2) + mine + extensions


def protected_records() -> Payload:
    """What looks like a protected record of the first application epoch (RFC 9147 section 4)."""
    size = _RECORD_BYTES - 5
    head = b"\x2f"
    return lambda choose: head + choose.randbytes(2) + size.to_bytes(2) + choose.randbytes(size)


def garbage() -> Payload:
    """Bytes without meaning, of any length that fits."""
    return lambda choose: choose.randbytes(choose.randint(1, 1200))


#: What can be sent from forged addresses, by name, with what it is.
FLOODS: Final[dict[str, tuple[Callable[[], Payload], str]]] = {
    "hellos": (first_hellos, "whole first ClientHellos"),
    "pieces": (first_pieces, "first halves of ClientHellos that are never finished"),
    "cookies": (forged_cookies, "second ClientHellos with forged cookies"),
    "records": (protected_records, "what looks like protected records"),
    "garbage": (garbage, "bytes without meaning"),
}
