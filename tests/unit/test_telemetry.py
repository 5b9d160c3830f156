"""Counters and histograms: declared once, added up, never lost."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import dtls
from sealwire.errors import Discard
from sealwire.sim import EndpointPair, Link
from sealwire.telemetry import ConnectionCounters, EndpointCounters, Histogram
from tests.configs import client_context, server_context


@given(st.lists(st.floats(0, 100, allow_nan=False)))
def test_a_histogram_counts_each_value_once(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    assert histogram.counts == [
        sum(value <= 0.5 for value in values),
        sum(0.5 < value <= 1 for value in values),
        sum(1 < value <= 10 for value in values),
        sum(value > 10 for value in values),
    ]


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Histogram(bounds)


@pytest.mark.parametrize("kind", [EndpointCounters, ConnectionCounters])
def test_adding_adds_every_field(kind: type[EndpointCounters] | type[ConnectionCounters]) -> None:
    chance = random.Random(5)

    def filled() -> EndpointCounters | ConnectionCounters:
        counters = kind()
        for field in fields(counters):
            if field.metadata and "bounds" not in field.metadata:
                setattr(counters, field.name, chance.randrange(1, 1_000))
            elif "bounds" in field.metadata:
                getattr(counters, field.name).observe(chance.random())
        counters.discard(Discard.REPLAY)
        return counters

    first, second = filled(), filled()
    second.discard(Discard.EMPTY)
    both = kind()
    both.add(first)  # type: ignore[arg-type]
    both.add(second)  # type: ignore[arg-type]
    a, b, total = first.snapshot(), second.snapshot(), both.snapshot()
    assert total == {name: a.get(name, 0) + b.get(name, 0) for name in total}
    assert total["discard.replay"] == 2
    assert total["discard.empty"] == 1
    if isinstance(both, EndpointCounters):
        assert both.handshake_seconds.count == 2
        # A snapshot has counters alone.
        assert "handshake_seconds" not in total


def test_every_field_says_its_unit_and_meaning() -> None:
    for kind in (EndpointCounters, ConnectionCounters):
        for field in fields(kind):
            if field.name != "discards":
                assert field.metadata["unit"]
                assert field.metadata["meaning"]


def test_totals_of_an_endpoint_outlive_its_connections() -> None:
    endpoint = dtls.Endpoint(server_context().config)
    clients = [
        dtls.Connection.client(client_context().config(), now=0.0, server_name="localhost") for _ in range(3)
    ]
    world = EndpointPair(endpoint, Link(1, delay=0.1), Link(2, delay=0.1))
    for n, client in enumerate(clients):
        world.add(client, ("127.0.0.1", 1_000 + n))
    assert world.run_until(lambda: all(one.was_connected for one in clients), 10.0)
    world.run_for(1.0)
    # Two round trips of 0.2 s, the second of them after the hello that was admitted.
    assert endpoint.counters.handshake_seconds.count == 3
    assert endpoint.counters.handshake_seconds.sum == pytest.approx(3 * 0.2, abs=0.01)
    for client in clients:
        client.send(b"hello")
    for n in range(3):
        world.touch(("127.0.0.1", 1_000 + n))
    world.run_for(1.0)
    before = endpoint.totals()
    assert before.messages_received == 3
    assert before.records_opened > 3
    endpoint.close(world.now)
    world.run_for(2.0)
    assert endpoint.connections == 0
    after = endpoint.totals()
    assert after.messages_received == 3
    assert after.records_opened >= before.records_opened
    assert after.datagrams_sent > before.datagrams_sent
