"""What other stacks really sent, whole and damaged, given to every entrance.

Without their keys the datagrams are hellos to answer and noise to drop.  Some captures are copied
into the repository; where the shared data is there, all of it is used.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from sealwire import dtls
from sealwire.context import Config
from sealwire.errors import Error
from sealwire.limits import Limits
from tests import configs
from tests.fuzzing.mutations import damage, damage_count, sample
from tests.fuzzing.test_datagrams import assert_ended_well
from tests.network.world import address

OWN = Path(__file__).resolve().parents[1] / "data" / "dtls13"
#: More are many of the same kind: 600 records of data, sixty of key updates.
FIRST = 40


def datagrams_of(path: Path) -> list[bytes]:
    case = json.loads(path.read_text())
    return [bytes.fromhex(entry["hex"]) for entry in case.get("datagrams", [])][:FIRST]


def captures(directory: Path) -> list[list[bytes]]:
    return [datagrams for path in sorted(directory.glob("*.json")) if (datagrams := datagrams_of(path))]


def law(connection: dtls.Connection, now: float) -> None:
    sent = connection.transmit(now)
    connection.events()
    connection.messages()
    connection.deadline()
    assert_ended_well(connection, sent)


@functools.cache
def client_config() -> Config:
    return configs.client_context().config()


@functools.cache
def server_config() -> Config:
    return configs.server_context().config()


def fresh() -> tuple[dtls.Connection, dtls.Connection]:
    """A client that has sent its hello, and a server."""
    client = dtls.Connection.client(client_config(), now=0.0, server_name="localhost")
    client.transmit(0.0)
    return client, dtls.Connection.server(server_config(), now=0.0)


def feed(runs: list[list[bytes]]) -> None:
    """Each run to a fresh client, a fresh server, and all of them to one endpoint."""
    endpoint = dtls.Endpoint(server_config, limits=Limits())
    at_rest = endpoint.ledger.held
    for number, run in enumerate(runs):
        for connection in fresh():
            for datagram in run:
                connection.receive(datagram, 0.1)
                law(connection, 0.1)
                if connection.state == "closed":
                    assert isinstance(connection.error, Error)
                    break
        for datagram in run:
            endpoint.receive([(datagram, address(number))], 1.0)
            answers = endpoint.transmit(1.0)
            assert sum(len(answer) for answer, _ in answers) <= 3 * sum(map(len, run))
            assert endpoint.events() == []
    assert endpoint.connections == 0
    assert endpoint.counters.hello_retry_requests > 0
    assert endpoint.ledger.held == at_rest


def test_the_captures_of_this_repository() -> None:
    runs = captures(OWN)
    assert len(runs) >= 5
    feed(runs)


def test_all_captures(shared_data: Path) -> None:
    runs = captures(shared_data / "dtls13" / "dtls13_captures")
    assert len(runs) >= 30
    feed(runs)


def damaged_runs(directory: Path, count: int) -> list[list[bytes]]:
    """Runs of which one datagram is damaged: the hellos around it make state for it to meet."""
    places = [
        (run, position, number)
        for run in captures(directory)
        for position, datagram in enumerate(run[:8])
        for number in range(damage_count(datagram))
    ]
    return [
        [*run[max(0, position - 2) : position], damage(run[position], number), *run[position : position + 2]]
        for run, position, number in sample(places, count, "captures")
    ]


@pytest.mark.requirement("9147-4.5.2-1")
def test_damaged_captures_of_this_repository() -> None:
    feed(damaged_runs(OWN, 1_500))


@pytest.mark.long
@pytest.mark.requirement("9147-4.5.2-1")
def test_damaged_captures(shared_data: Path) -> None:
    feed(damaged_runs(shared_data / "dtls13" / "dtls13_captures", 60_000))
