"""Forged datagrams as they arrive: who they say they are from, and that they are what they look like."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from sealwire import dtls
from sealwire.attack import Target
from sealwire.attack.forged import Forger, packets
from sealwire.attack.hellos import FLOODS
from sealwire.errors import Discard
from tests import configs


@contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(5)
        yield sock


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_forged_datagram_arrives_from_whom_it_says(host: str) -> None:
    with listening(host) as sock:
        target = Target(host, sock.getsockname()[1])
        ring = list(packets(target, target.default_sources, FLOODS["garbage"][0](), 50, seed=7))
        try:
            forger = Forger(target, ring)
        except PermissionError:
            pytest.skip("absent: permission to forge addresses (CAP_NET_RAW)")
        while forger.sent.datagrams < 50:
            forger.send(50)
        forger.close()
        got = [sock.recvfrom(2048) for _ in range(50)]
    # The checksums hold, or nothing would have arrived; the bytes end the packets in order.
    assert all(packet.endswith(data) for packet, (data, _) in zip(ring, got, strict=True))
    assert sum(len(data) for data, _ in got) == forger.sent.payload_bytes
    sources = {source[0] for _, source in got}
    assert all(ip_address(one) in target.default_sources for one in sources)
    assert len(sources) > 40 if host == "127.0.0.1" else len({source[1] for _, source in got}) > 40
    assert list(packets(target, target.default_sources, FLOODS["garbage"][0](), 50, seed=7)) == ring


@pytest.mark.parametrize("name", sorted(FLOODS))
def test_what_each_flood_is_to_a_server(name: str) -> None:
    """A flood that a server discards at the first byte would measure nothing."""
    endpoint = dtls.Endpoint(configs.server_context().config)
    payload, choose = FLOODS[name][0](), random.Random(3)
    sent = [payload(choose) for _ in range(20)]
    assert len(set(sent)) == 20
    at_rest = endpoint.ledger.held
    endpoint.receive([(data, ("192.0.2.1", 1000 + n)) for n, data in enumerate(sent)], 0.0)
    counters = endpoint.counters
    assert endpoint.connections == 0
    assert endpoint.ledger.held == at_rest
    if name == "hellos":
        assert counters.hello_retry_requests == 20
        assert counters.discards == {}
    elif name == "pieces":
        assert counters.discards == {Discard.INCOMPLETE_HELLO: 20}
    elif name == "cookies":
        assert counters.cookies_refused == 20
    elif name == "records":
        assert counters.discards == {Discard.UNKNOWN_PEER: 20}
    else:
        assert sum(counters.discards.values()) == 20
