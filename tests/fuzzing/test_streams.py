"""The byte streams of three TLS connections, damaged and cut: an error that knows its alert, or the same end.

In a stream one damaged record is the end of the connection (RFC 8446 section 5.2), so each damage
needs a connection of its own; a sample is taken of all of them.
"""

from __future__ import annotations

import pytest

from sealwire import stcp
from sealwire.errors import Alert, Error, ProtocolError
from tests.fuzzing.mutations import damage, damage_count, sample
from tests.fuzzing.recordings import NAMES, recording

RECORDINGS = pytest.mark.parametrize("name", NAMES)
SAMPLED = 800


class Streams:
    """Both ends; what each has to send is carried to the other, flight by flight."""

    def __init__(self, name: str) -> None:
        recorded = recording(name)
        self.client = stcp.Connection.client(recorded.client, now=0.0, server_name="localhost")
        self.server = stcp.Connection.server(recorded.server, now=0.0)

    def sender(self, number: int) -> stcp.Connection:
        return self.client if number % 2 == 0 else self.server

    def receiver(self, number: int) -> stcp.Connection:
        return self.server if number % 2 == 0 else self.client

    def flight(self, number: int) -> bytes:
        """What the sender of flight `number` has to send, once those before it were delivered."""
        if self.sender(number).state == "connected" and number >= 2:
            self.sender(number).send(b"data")
        return self.sender(number).data_to_send()

    def deliver(self, upto: int) -> None:
        for number in range(upto):
            self.receiver(number).receive_data(self.flight(number))


FLIGHTS = {"hybrid": 4, "mutual with retry": 6, "chacha": 4}


@RECORDINGS
def test_the_flights_are_all_there(name: str) -> None:
    streams = Streams(name)
    streams.deliver(FLIGHTS[name])
    assert streams.client.state == streams.server.state == "connected"
    assert streams.server.read() == b"data"
    assert streams.client.read() == b"data"


def take_damage(name: str, number: int, which: int) -> str:
    streams = Streams(name)
    streams.deliver(number)
    receiver = streams.receiver(number)
    receiver.receive_data(damage(streams.flight(number), which))
    sent = receiver.data_to_send()
    receiver.events()
    receiver.deadline()
    if receiver.error is None:
        # A prefix, or a hello that is merely another one; the stream's end tells them apart.
        receiver.receive_eof()
    else:
        assert isinstance(receiver.error, ProtocolError), receiver.error
        assert isinstance(receiver.error.alert, Alert)
        assert sent, "an alert"
    assert receiver.state == "closed"
    assert isinstance(receiver.error, Error)
    return type(receiver.error).__name__


@pytest.mark.requirement("8446-ALERT-5", "8446-ALERT-6")
@RECORDINGS
def test_damaged_flights(name: str) -> None:
    streams = Streams(name)
    places = []
    for number in range(FLIGHTS[name]):
        flight = streams.flight(number)
        streams.receiver(number).receive_data(flight)
        places += [(number, which) for which in range(damage_count(flight))]
    outcomes = {take_damage(name, *place) for place in sample(places, SAMPLED, name)}
    assert "HandshakeError" in outcomes
    assert "Truncated" in outcomes


@RECORDINGS
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_cut_in_pieces_of_any_size(name: str, size: int) -> None:
    streams = Streams(name)
    for number in range(FLIGHTS[name]):
        flight = streams.flight(number)
        for start in range(0, len(flight), size):
            streams.receiver(number).receive_data(flight[start : start + size])
    assert streams.client.state == streams.server.state == "connected"
    assert streams.server.read() == b"data"
    assert streams.client.read() == b"data"
