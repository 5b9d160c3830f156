"""Requests and answers: that what clients count is what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.bench.clocks import Stopwatch
from sealwire.bench.crypto_switch import Crypto
from sealwire.bench.grid.clients import Clients, Load, Mode
from sealwire.bench.grid.serving import Server
from sealwire.bench.grid.session import Sample, Setting, measure, slope
from sealwire.bench.grid.tally import Latencies, Tally
from sealwire.bench.grid.transports import TRANSPORTS, Transport
from sealwire.bench.measurement import QUICK, Bench
from sealwire.cli import authority

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    path = tmp_path_factory.mktemp("certificates")
    authority.write(path, authority.make(("localhost",), (), days=1, key_type="ec"))
    return Bench(path, QUICK, Crypto(), Stopwatch(), {}, lambda question: {})


def turn(transport: Transport, load: Load, seconds: float = 0.15, server: Transport | None = None) -> Tally:
    """Server and clients on one loop."""

    async def main() -> Tally:
        ready = asyncio.Event()
        serving = Server(server or transport, HOST, 0)
        task = asyncio.create_task(serving.run(ready.set))
        await ready.wait()
        clients = Clients(transport, load, HOST, serving.port)
        if load.mode is not Mode.CHURN:
            await clients.open()
        tally = Tally()
        await clients.run(seconds, tally)
        await clients.close()
        task.cancel()
        await asyncio.sleep(0.1)  # the server's side is closed, too
        assert serving.failures == 0
        return tally

    return asyncio.run(main())


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=300))
def test_quantiles_are_those_of_the_nearest_rank(values: list[float]) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    ordered = sorted(values)
    found = latencies.quantiles((0.0, 50.0, 99.0, 100.0))
    for percent in (0.0, 50.0, 99.0, 100.0):
        rank = max(1, -int(-percent * len(ordered) // 100))
        assert abs(found[f"{percent:g}"] / 1e3 - ordered[rank - 1]) <= 1.01e-6
    assert latencies.mean == pytest.approx(sum(values) / len(values))


def test_nothing_counted_has_no_quantiles() -> None:
    assert Latencies().quantiles() == {}
    assert Latencies().mean == 0.0


@pytest.mark.parametrize("name", list(TRANSPORTS))
@pytest.mark.parametrize("mode", list(Mode))
def test_each_transport_in_each_mode(bench: Bench, name: str, mode: Mode) -> None:
    load = Load(3, 1000, mode, messages_per_connection=2)
    tally = turn(TRANSPORTS[name](bench), load)
    assert not tally.errors
    if mode is Mode.THROUGHPUT:
        assert tally.messages > 0
    else:
        assert tally.latencies.count > 0
        assert tally.latencies.mean > 0
    assert (tally.connects.count > 0) is (mode is Mode.CHURN)


class _Misbehaving(Transport):
    """Serves by a handler of the test's."""

    def __init__(self, bench: Bench, handler: Callable[[Any, Any], Awaitable[None]]) -> None:
        super().__init__(bench)
        self._handler = handler

    async def serve(self, handler: object, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._handler, host, port)


async def answer_wrongly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(16):
        writer.write(data.replace(data[-1:], b"\0"))
    writer.close()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 20):
        pass
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


@pytest.mark.parametrize(
    ("handler", "error"),
    [(answer_wrongly, "wrong answer"), (say_nothing, "TimeoutError"), (hang_up, "IncompleteReadError")],
)
def test_what_goes_wrong_is_an_error(bench: Bench, handler: Any, error: str) -> None:
    load = Load(1, 8, timeout=0.1)
    tally = turn(TRANSPORTS["tcp"](bench), load, 0.4, _Misbehaving(bench, handler))
    assert tally.errors[error] > 0
    assert tally.latencies.count == 0


@pytest.mark.parametrize("server", ["asyncio", "threaded"])
def test_both_processes_are_watched(bench: Bench, server: str) -> None:
    reports: list[object] = []
    setting = Setting("stcp", server, Load(2, 64), seconds=0.5, warm_up=0.1, every=0.1)
    outcome = measure(setting, bench.directory, reports.append)
    assert not outcome.errors
    assert outcome.requests > 0
    assert reports
    assert outcome.server_cpu is not None
    assert outcome.server_cpu > 0
    assert outcome.in_flight == pytest.approx(2, rel=0.3)
    for samples in (outcome.client_samples, outcome.server_samples):
        assert len(samples) >= 2
        assert samples[0].descriptors == samples[-1].descriptors


def test_a_slope_is_what_is_gained_a_second() -> None:
    samples = [Sample(float(n), 1_000 + 50 * n, 7) for n in range(5)]
    assert slope(samples, lambda one: one.rss_bytes) == pytest.approx(50)
    assert slope(samples, lambda one: one.descriptors) == 0
    assert slope(samples[:1], lambda one: one.rss_bytes) == 0
