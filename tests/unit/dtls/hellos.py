"""ClientHellos as datagrams: real ones from our client, cut, changed and answered by hand."""

from __future__ import annotations

from sealwire import dtls
from sealwire.context import Config
from sealwire.dtls.cookie import Address
from sealwire.dtls.header import (
    ContentType,
    PlaintextRecord,
    decode_fragments,
    decode_plaintext,
    encode_plaintext,
    fragment_header,
)
from tests import configs

HERE: Address = ("192.0.2.1", 4433)
THERE: Address = ("192.0.2.99", 4433)


class Hello:
    """A client before any answer, and its hellos."""

    def __init__(self, config: Config | None = None, mtu: int = 1200) -> None:
        self.client = dtls.Connection.client(
            config or configs.client_context().config(), now=0.0, server_name="localhost", mtu=mtu
        )
        self.first = self.client.transmit(0.0)

    def second(self, request: bytes, now: float = 0.0) -> list[bytes]:
        """The datagrams of the second hello, in answer to `request`."""
        self.client.receive(request, now)
        assert self.client.state is dtls.State.HANDSHAKING, self.client.error
        return self.client.transmit(now)


def record(datagram: bytes) -> PlaintextRecord:
    """The one record of a plaintext datagram."""
    found = decode_plaintext(datagram, 0)
    assert isinstance(found, PlaintextRecord)
    assert found.end == len(datagram)
    return found


def body(datagrams: list[bytes]) -> bytes:
    """The body of the hello that `datagrams` hold."""
    fragments = [one for datagram in datagrams for one in decode_fragments(record(datagram).content)]
    fragments.sort(key=lambda one: one.offset)
    whole = b"".join(one.data for one in fragments)
    assert len(whole) == fragments[0].length
    return whole


def hello(content: bytes, *, seq: int = 0, number: int = 0) -> bytes:
    """One datagram with the hello `content` (its body)."""
    return encode_plaintext(
        ContentType.HANDSHAKE, number, fragment_header(1, len(content), seq, 0, len(content)) + content
    )


def pieces(content: bytes, size: int, *, seq: int = 0, number: int = 0) -> list[bytes]:
    """The same cut into datagrams of `size` bytes of body each."""
    return [
        encode_plaintext(
            ContentType.HANDSHAKE,
            number + n,
            fragment_header(1, len(content), seq, start, len(content[start : start + size]))
            + content[start : start + size],
        )
        for n, start in enumerate(range(0, len(content), size))
    ]


def alert_of(datagram: bytes) -> int:
    """The description of the plaintext alert that `datagram` is."""
    found = record(datagram)
    assert found.content_type == ContentType.ALERT
    assert len(found.content) == 2
    assert found.content[0] == 2
    return found.content[1]
