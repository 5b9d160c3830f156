"""No early flight is accepted twice: the register, against what it promises, in every order of things.

The model knows only what happened: which flights were accepted, by anybody.  A state machine drives two
registers (two processes, one of which restarts and forks) through time that also jumps; a small world is
gone through completely.
"""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sealwire.crypto import strikes
from sealwire.crypto.providers import default_provider
from sealwire.crypto.strikes import StrikeRegister
from sealwire.errors import ConfigurationError

NOW = 1_800_000_000.0


def register(**changes: Any) -> StrikeRegister:
    return StrikeRegister(default_provider(), **changes)


@pytest.mark.requirement("8446-0RTT-2")
def test_once() -> None:
    one = register()
    assert one.would_accept(one.name, b"ticket", NOW, NOW)
    assert one.accept(one.name, b"ticket", NOW, NOW)
    for later in (0.0, 5.0, 10.0, 10.001, 20.0, 1e6):
        assert not one.would_accept(one.name, b"ticket", NOW, NOW + later)
        assert not one.accept(one.name, b"ticket", NOW, NOW + later)
    assert one.accept(one.name, b"another", NOW + 1e6, NOW + 1e6)


@pytest.mark.requirement("8446-0RTT-2")
@pytest.mark.parametrize("window", [1.0, 10.0, 60.0])
def test_the_window_to_the_edge(window: float) -> None:
    one = register(window_seconds=window)
    for n, (off, accepted) in enumerate(
        [(window, True), (window + 0.001, False), (-window, True), (-window - 0.001, False)]
    ):
        now = NOW + n * 1000
        assert one.accept(one.name, b"%d" % n, now - off, now) is accepted


@pytest.mark.requirement("8446-0RTT-2")
def test_other_processes_tickets() -> None:
    one, other = register(), register()
    assert one.name != other.name
    assert not one.accept(other.name, b"ticket", NOW, NOW)
    assert not one.accept(b"", b"ticket", NOW, NOW)
    assert one.accept(one.name, b"ticket", NOW, NOW)
    # A restart is another register, whatever else is the same.
    assert not register().accept(one.name, b"ticket", NOW, NOW)


@pytest.mark.requirement("8446-0RTT-2")
def test_full_is_closed_until_time_makes_room() -> None:
    one = register(capacity=3)
    for n in range(3):
        assert one.accept(one.name, b"%d" % n, NOW + n, NOW + n)
    assert not one.accept(one.name, b"3", NOW + 3, NOW + 3)
    # The first is remembered as long as it can be fresh, and not longer.
    assert not one.accept(one.name, b"3", NOW + 10, NOW + 10)
    assert one.accept(one.name, b"3", NOW + 10.5, NOW + 10.5)
    assert not one.accept(one.name, b"4", NOW + 10.6, NOW + 10.6)
    assert len(one) == 3
    # A flood of what is refused makes no difference.
    for n in range(1000):
        one.accept(one.name, b"x%d" % n, NOW, NOW + 10.7)
    assert len(one) == 3


@pytest.mark.requirement("8446-0RTT-2")
def test_a_clock_that_jumps_back_closes_it() -> None:
    one = register(capacity=2)
    assert one.accept(one.name, b"a", NOW, NOW)
    assert one.accept(one.name, b"b", NOW, NOW)
    assert one.accept(one.name, b"c", NOW + 100, NOW + 100)  # a and b are forgotten now
    for back in (99.9, 50.0, 0.0):
        assert not one.accept(one.name, b"a", NOW, NOW + back)
        assert not one.accept(one.name, b"new", NOW + back, NOW + back)
    assert one.accept(one.name, b"new", NOW + 100, NOW + 100)


@pytest.mark.requirement("8446-0RTT-2")
def test_a_forked_child_begins_anew() -> None:
    one = register()
    name = one.name
    assert one.accept(name, b"before", NOW, NOW)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        answers = [
            one.name == name,
            one.accept(name, b"before", NOW, NOW),
            one.accept(name, b"after", NOW, NOW),
            one.accept(one.name, b"own", NOW, NOW),
            one.accept(one.name, b"own", NOW, NOW),
        ]
        os.write(writing, bytes(answers))
        os._exit(0)
    os.waitpid(pid, 0)
    assert list(os.read(reading, 10)) == [0, 0, 0, 1, 0]
    os.close(reading)
    os.close(writing)
    assert one.name == name
    assert one.accept(name, b"after", NOW, NOW)


@pytest.mark.requirement("8446-0RTT-2")
def test_threads_with_the_same_flight() -> None:
    one = register(capacity=10_000)
    accepted: list[bytes] = []

    def work() -> None:
        flights = [b"%d" % n for n in range(2_000)]
        accepted.extend(ticket for ticket in flights if one.accept(one.name, ticket, NOW, NOW))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == len(set(accepted)) == 2_000


def test_a_thread_that_was_overtaken_refuses() -> None:
    """Between its look at the clock and its entry another one forgot what would have stopped it."""
    one = register(capacity=1)
    assert one.accept(one.name, b"a", NOW, NOW)

    class Overtaken(dict):  # type: ignore[type-arg]
        def setdefault(self, key: Any, default: Any = None) -> Any:
            one._latest = NOW + 100
            self.pop(key, None)
            return super().setdefault(key, default)

    one._struck = Overtaken()
    assert not one.accept(one.name, b"a", NOW, NOW)


def test_what_cannot_be() -> None:
    for window in (0.0, -1.0, 60.1, float("nan")):
        with pytest.raises(ConfigurationError, match="at most 60 seconds"):
            register(window_seconds=window)
    with pytest.raises(ConfigurationError, match="at least one"):
        register(capacity=0)
    assert "1 of 32768" in repr(_struck())


def _struck() -> StrikeRegister:
    one = register()
    one.accept(one.name, b"ticket", NOW, NOW)
    return one


# --- every order of things ------------------------------------------------------------------


@pytest.mark.requirement("8446-0RTT-2")
def test_every_order_of_a_small_world() -> None:
    """Two flights, a clock of five steps that may go back, room for one: all sequences of five events."""
    ticks = (0.0, 1.0, 2.0, 3.0, 4.0)
    flights = ((b"a", 0.0), (b"b", 2.0))
    events = [(flight, now) for flight in flights for now in ticks]
    for sequence in itertools.product(events, repeat=5):
        one = StrikeRegister(_SMALL, window_seconds=1.0, capacity=1)
        accepted: set[bytes] = set()
        for (ticket, due), now in sequence:
            if one.accept(_SMALL_NAME, ticket, due, now):
                assert ticket not in accepted, sequence
                accepted.add(ticket)
            assert len(one) <= 1


class _Names:
    """A provider that gives the same name again, as the worst random generator would."""

    def random(self, n: int) -> bytes:
        return bytes(n)


_SMALL: Any = _Names()
_SMALL_NAME = bytes(strikes.NAME_BYTES)


class Processes(RuleBasedStateMachine):
    """Two servers with the same ticket keys; anybody may send any flight to either at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.servers = [register(capacity=4), register(capacity=4)]
        #: Ticket, name of its issuer's register, when its hello is due.
        self.flights: list[tuple[bytes, bytes, float]] = []
        self.accepted: list[bytes] = []

    @rule(which=st.integers(0, 1), age=st.floats(0, 30), lie=st.floats(-15, 15))
    def a_client_comes_back(self, which: int, age: float, lie: float) -> None:
        flight = (b"%d" % len(self.flights), self.servers[which].name, self.now + age + lie)
        self.flights.append(flight)

    @rule(which=st.integers(0, 1), flight=st.integers(0, 50))
    def a_flight_arrives(self, which: int, flight: int) -> None:
        if not self.flights:
            return
        ticket, name, due = self.flights[flight % len(self.flights)]
        server = self.servers[which]
        expected = server.would_accept(name, ticket, due, self.now)
        took = server.accept(name, ticket, due, self.now)
        assert took is expected
        if took:
            assert abs(self.now - due) <= 10.0
            self.accepted.append(ticket)

    @rule(seconds=st.floats(0, 40) | st.sampled_from([0.001, 9.999, 10.0, 10.001, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.floats(-40, -0.001))
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.integers(0, 1))
    def a_server_restarts(self, which: int) -> None:
        self.servers[which] = register(capacity=4)

    @rule(which=st.integers(0, 1))
    def a_server_forks(self, which: int) -> None:
        """What the child of this server would do from now on."""
        strikes._count_fork()
        self.servers[which].name  # noqa: B018 - notices it
        # The other server did not fork: it was born in what is now.
        self.servers[1 - which]._born_in = strikes._forks

    @invariant()
    def nothing_was_accepted_twice(self) -> None:
        assert len(self.accepted) == len(set(self.accepted))
        assert all(len(server) <= 4 for server in self.servers)


Processes.TestCase.settings = settings(stateful_step_count=40, max_examples=150, deadline=None)
test_processes = pytest.mark.requirement("8446-0RTT-2")(Processes.TestCase)
