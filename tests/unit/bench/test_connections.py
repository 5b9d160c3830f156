"""The rows of many connections, with few: what they count, and what they refuse to count."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sealwire import dtls
from sealwire.bench import measurement
from sealwire.bench.clocks import Stopwatch
from sealwire.bench.crypto_switch import Crypto
from sealwire.bench.measurement import Bench, Scale
from sealwire.bench.rows import connections, crowd
from sealwire.cli import authority
from sealwire.limits.weights import ASLEEP_BYTES, CONNECTION_BYTES

SCALE = Scale("test", runs=5, seconds=0.001, handshakes=3, connections=12)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    authority.write(path, authority.make(("localhost",), (), days=1, key_type="ec"))
    return path


def _bench(directory: Path) -> Bench:
    return Bench(directory, SCALE, Crypto(), Stopwatch(), {}, lambda question: {})


def _asking(bench: Bench, growing: connections.Growing) -> Bench:
    def ask(question: str) -> Mapping[str, float]:
        return {"rss_bytes": 0.0, **growing.answer(question)}

    return dataclasses.replace(bench, ask_peer=ask)


@pytest.mark.parametrize(("idle_seconds", "charged"), [(float("inf"), CONNECTION_BYTES), (1.0, ASLEEP_BYTES)])
def test_silent_connections_are_divided_by_their_number(
    directory: Path, idle_seconds: float, charged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "FIRST", 10)
    sleeping = idle_seconds == 1.0
    bench = _bench(directory)
    bench = _asking(bench, connections.Growing(bench, idle_seconds))
    body = connections.Grown(bench, sleeping)
    for _ in range(2):
        reading = body.run(0.0)
        assert reading.units == 20
        assert reading.values["ledger"] == pytest.approx(charged, rel=0.05)
        assert set(reading.values) == {"", "ledger"}
    # A row whose connections are not in the state it names is no row.
    with pytest.raises(OSError, match="sleep"):
        connections.Grown(bench, not sleeping).run(0.0)


@pytest.fixture
def server(directory: Path) -> Iterator[crowd.Server]:
    with crowd.Server(directory, idle_seconds=0.3) as one:
        yield one


def test_a_crowd_connects_sleeps_and_compares_every_answer(directory: Path, server: crowd.Server) -> None:
    with closing(crowd.Crowd(directory, server.port)) as clients:
        clients.connect(30)
        assert all(client.was_connected for client in clients.clients)
        said = server.state()
        assert (said["connections"], said["failed"], said["shed"]) == (30, 0, 0)
        clients.talk(range(0, 30, 10), 200.0, 0.2)
        assert clients.right >= 3
        assert (clients.wrong, clients.missing, clients.late) == (0, 0, 0)
        after = server.state()
        assert after["cpu"] > said["cpu"]
        assert after["rss"] > 1 << 20


class _Changed:
    """A client that reads something else than came."""

    def __init__(self, client: dtls.Connection, found: list[bytes]) -> None:
        self._client = client
        self._found = found

    def messages(self) -> list[bytes]:
        return self._found if self._client.messages() else []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_an_answer_that_is_another_or_none_is_counted(
    directory: Path, server: crowd.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "ANSWER_SECONDS", 0.5)
    with closing(crowd.Crowd(directory, server.port)) as clients:
        clients.connect(3)
        for number, found in ((0, [b"something else"]), (1, [])):
            clients.clients[number] = _Changed(clients.clients[number], found)  # type: ignore[call-overload]
        clients.talk([0, 1, 2], 1_000.0, 0.02)
        assert clients.wrong > 0
        assert clients.right > 0
        assert clients.missing == 1


def test_echoes_of_three_servers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_idle_seconds", lambda scale: 0.4)
    monkeypatch.setattr(connections, "numbers", lambda scale: (1, 5, 110))
    bench = _bench(directory)
    with closing(connections.Servers(bench)) as peer:
        bench = dataclasses.replace(bench, peer=peer.address, ask_peer=peer.answer)
        with closing(connections.Echoes(bench)) as body:
            reading = body.run(0.0)
            assert set(reading.values) == {"", "few", "more", "growth"}
            assert all(value > 0 for value in reading.values.values())
            assert reading.values["growth"] == reading.values[""] / reading.values["few"]
            assert all(check.passed for check in reading.checks)
            monkeypatch.setattr(connections, "_MANY", 110)
            assert 20 < body.run(0.0).values["held"] < 500
            # An echo that does not come is no cheap one.
            monkeypatch.setattr(crowd, "ANSWER_SECONDS", 0.3)
            body._crowds[5]._server = body._crowds[1]._server
            with pytest.raises(OSError, match="answers right"):
                body.run(0.0)


def test_only_a_full_bench_has_a_hundred_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connections.numbers(measurement.QUICK) == (100, 500, 2_000)
    monkeypatch.setattr(connections, "_ROOM_BYTES", 1)
    assert connections.numbers(measurement.FULL) == (100, 10_000, 100_000)
    monkeypatch.setattr(connections, "_ROOM_BYTES", 1 << 60)
    assert max(connections.numbers(measurement.FULL)) < connections._MANY
