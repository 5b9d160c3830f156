"""How long records are over streams: padding, and limits both sides keep (RFC 8449)."""

from __future__ import annotations

from typing import Any

import pytest

from sealwire.context import Context
from sealwire.errors import Alert, LimitReached, PeerAlert, ProtocolError
from sealwire.limits import Limits
from tests import certificates
from tests.configs import client_context, server_context
from tests.unit.stcp.pair import Pair, deliver, inject


def contexts() -> tuple[Context, Context]:
    identity = certificates.large_server(3_000)
    return client_context(identity.cafile), server_context(identity)


def sizes(data: bytes) -> list[int]:
    """Content, type and padding of every protected record."""
    found, at = [], 0
    while at < len(data):
        n = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] == 23:
            found.append(n - 16)
        at += 5 + n
    return found


def watched(pair: Pair) -> dict[str, bytes]:
    """Run the pair; what each side sent."""
    sent = {"client": b"", "server": b""}
    while True:
        up = pair.client.data_to_send()
        if up:
            pair.server.receive_data(up)
        down = pair.server.data_to_send()
        if down:
            pair.client.receive_data(down)
        if not up and not down:
            return sent
        sent["client"] += up
        sent["server"] += down


@pytest.mark.requirement("8449-1")
@pytest.mark.parametrize("block", [0, 100])
@pytest.mark.parametrize(("to_client", "to_server"), [(64, 1000), (600, None), (16_385, 64)])
def test_no_record_is_longer_than_its_receiver_said(
    to_client: int, to_server: int | None, block: int
) -> None:
    client, server = contexts()
    client.record_size_limit, server.record_size_limit = to_client, to_server
    client.set_block_padding(block)
    server.set_block_padding(block)
    pair = Pair(client, server, handshake=False)
    sent = watched(pair)
    assert pair.client.session.record_limits == (to_server or 16_385, to_client)
    data = bytes(range(256)) * 200
    pair.client.send(data)
    pair.server.send(data)
    more = watched(pair)
    assert pair.client.read() == pair.server.read() == data
    assert max(sizes(sent["server"] + more["server"])) <= to_client
    assert max(sizes(sent["client"] + more["client"])) <= (to_server or 16_385)
    if block == 0 or to_client < 200:
        assert max(sizes(more["server"])) == to_client


@pytest.mark.requirement("8449-1", "8446-ALERT-5")
@pytest.mark.parametrize("padding", [0, 60])
def test_a_longer_record_is_an_overflow(padding: int) -> None:
    client, server = contexts()
    client.record_size_limit, server.record_size_limit = 100, 100
    pair = Pair(client, server)
    inject(pair.client, 23, bytes(99 - padding), padding)
    deliver(pair.client, pair.server)
    assert pair.server.read() == bytes(99 - padding)
    inject(pair.client, 23, bytes(100 - padding), padding)
    deliver(pair.client, pair.server)
    assert isinstance(pair.server.error, ProtocolError)
    assert pair.server.error.alert is Alert.RECORD_OVERFLOW
    deliver(pair.server, pair.client)
    assert isinstance(pair.client.error, PeerAlert)


@pytest.mark.parametrize("block", [16, 1000, 16_384])
def test_every_protected_record_is_padded(block: int) -> None:
    client, server = contexts()
    client.set_block_padding(block)
    pair = Pair(client, server, handshake=False)
    sent = watched(pair)
    for size in (1, 15, 16, 999, 1000, 20_000):
        pair.client.send(bytes(size))
    pair.client.close()
    more = watched(pair)
    assert len(pair.server.read()) == 22_031
    for size in sizes(sent["client"] + more["client"]):
        assert size % block == 0 or size == 16_385


def test_padding_by_a_callback() -> None:
    client, server = contexts()
    asked: list[tuple[int, int]] = []

    def callback(content_type: int, n: int) -> int:
        asked.append((content_type, n))
        return 100_000

    client.set_record_padding_callback(callback)
    pair = Pair(client, server)
    pair.client.send(bytes(20_000))
    sent = watched(pair)
    assert sizes(sent["client"]) == [16_385, 16_385]
    assert pair.server.read() == bytes(20_000)
    assert asked[-2:] == [(23, 16_384), (23, 3_616)]


def test_padding_is_charged_before_anything_is_sealed() -> None:
    """What does not fit is refused whole, however much longer padding makes it."""
    client, server = contexts()
    client.set_block_padding(16_384)
    limits = Limits(connection_bytes=60_000)
    pair = Pair(client, server, limits=limits)
    sent = 0
    with pytest.raises(LimitReached):
        sent = _send_until_refused(pair.client, sent)
    assert pair.client.error is None
    pair.run()
    assert set(pair.server.read()) == {ord("x")}


def _send_until_refused(side: Any, sent: int) -> int:
    while True:
        side.send(b"x")
        sent += 1
