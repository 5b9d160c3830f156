"""How long a message may be, over the life of a connection."""

from __future__ import annotations

import pytest

from sealwire import dtls
from sealwire.errors import ConnectionClosed
from sealwire.sim.link import Link, Pair
from tests import configs


@pytest.mark.requirement("9147-4.4-4")
def test_nothing_fits_before_keys_exist_nor_once_they_are_gone() -> None:
    client = dtls.Connection.client(configs.client_context().config(), now=0.0, server_name="localhost")
    server = dtls.Connection.server(configs.server_context().config(), now=0.0)
    pair = Pair(client, server, Link(1), Link(2))
    assert client.max_message_bytes == 0
    assert pair.run_until(lambda: client.state is server.state is dtls.State.CONNECTED, 10)
    longest = client.max_message_bytes
    assert 1_100 < longest < 1_200
    client.send(bytes(longest))
    client.close(pair.now)
    pair.run_for(600)
    assert client.state is dtls.State.CLOSED
    assert client.max_message_bytes == 0
    with pytest.raises(ConnectionClosed):
        client.send(b"late")
    assert [len(message) for message in pair.server_messages] == [longest]
