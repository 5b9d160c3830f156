"""The messages that change connection ids, as bytes; and the pool under whatever a peer offers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.providers import default_provider
from sealwire.dtls.cid import (
    CidPool,
    Usage,
    decode_new_connection_id,
    encode_new_connection_id,
    encode_request_connection_id,
)
from sealwire.errors import Alert, ProtocolError
from sealwire.tls13.contract import ConnectionIds
from sealwire.tls13.messages import HandshakeType
from sealwire.wire import Reader

NEW = HandshakeType.NEW_CONNECTION_ID
REQUEST = HandshakeType.REQUEST_CONNECTION_ID


def new_ids(cids: list[bytes], usage: int) -> bytes:
    content = b"".join(bytes((len(cid),)) + cid for cid in cids)
    return len(content).to_bytes(2, "big") + content + bytes((usage,))


@given(st.lists(st.binary(min_size=0, max_size=255), max_size=10), st.sampled_from(Usage))
def test_new_connection_ids_round_trip(cids: list[bytes], usage: Usage) -> None:
    message = encode_new_connection_id(cids, usage)
    assert message[0] == NEW
    assert int.from_bytes(message[1:4], "big") == len(message) - 4
    assert message[4:] == new_ids(cids, usage)
    assert decode_new_connection_id(Reader(message[4:])) == (cids, usage)


@given(st.lists(st.binary(max_size=40), max_size=5), st.sampled_from(Usage), st.data())
def test_a_message_cut_short_is_refused(cids: list[bytes], usage: Usage, data: st.DataObject) -> None:
    body = encode_new_connection_id(cids, usage)[4:]
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(ProtocolError) as raised:
        decode_new_connection_id(Reader(body[:cut]))
    assert raised.value.alert is Alert.DECODE_ERROR


@given(st.binary(max_size=64))
def test_any_bytes_are_ids_or_an_alert(body: bytes) -> None:
    alert = None
    try:
        cids, usage = decode_new_connection_id(Reader(body))
    except ProtocolError as error:
        alert = error.alert
    else:
        assert new_ids(cids, usage) == body
    assert alert in (None, Alert.DECODE_ERROR, Alert.ILLEGAL_PARAMETER)


@given(st.integers(1, 255))
def test_requests_are_one_byte(count: int) -> None:
    assert encode_request_connection_id(count) == bytes((REQUEST, 0, 0, 1, count))


@given(st.lists(st.tuples(st.lists(st.binary(min_size=1, max_size=3), max_size=12), st.sampled_from(Usage))))
def test_a_pool_stays_small_whatever_a_peer_offers(offers: list[tuple[list[bytes], Usage]]) -> None:
    pool = CidPool(ConnectionIds(True, b"ours", b"first", False), default_provider().random)
    for cids, usage in offers:
        if cids or usage is Usage.SPARE:
            assert pool.receive(NEW, Reader(new_ids(cids, usage))) == []
            if usage is Usage.IMMEDIATE:
                assert pool.current == cids[0]
        assert pool.spare <= 8
