"""The virtual network keeps its word: what it loses, delays and doubles, and that a seed repeats a run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sealwire.sim import EndpointPair, Fate, Link, Pair, Stalled


def drain(link: Link) -> list[bytes]:
    """Everything still on its way, in order of arrival."""
    out: list[bytes] = []
    while (moment := link.next_arrival()) is not None:
        out += [datagram for datagram, _ in link.arrivals(moment)]
    return out


def numbered(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") * 4 for number in range(count)]


def fates(seed: int, **conditions: float) -> list[tuple[Fate, tuple[float, ...]]]:
    link = Link(seed, record=True, loss=0.3, reorder=0.3, duplicate=0.2, jitter=0.01, corrupt=0.1)
    for name, value in conditions.items():
        setattr(link, name, value)
    for number, datagram in enumerate(numbered(300)):
        link.send(datagram, number * 0.001)
    return [(crossing.fate, crossing.arrivals) for crossing in link.capture]


def test_a_perfect_link_delivers_in_order_after_its_delay() -> None:
    link = Link(1, delay=0.25)
    for number, datagram in enumerate(numbered(5)):
        link.send(datagram, float(number))
    assert link.next_arrival() == 0.25
    assert link.arrivals(0.2) == []
    assert [datagram for datagram, _ in link.arrivals(1.25)] == numbered(2)
    assert drain(link) == numbered(5)[2:]
    assert link.next_arrival() is None


def test_equal_seeds_give_equal_fates_and_others_do_not() -> None:
    assert fates(7) == fates(7)
    assert fates(7) != fates(8)


def test_a_hook_changes_the_fate_of_its_datagram_and_of_no_other() -> None:
    def run(*dropped: int) -> list[tuple[Fate, bool]]:
        link = Link(3, loss=0.2, duplicate=0.2, reorder=0.2, record=True)
        link.drop(*dropped)
        for datagram in numbered(100):
            link.send(datagram, 0.0)
        return [(crossing.fate, len(crossing.arrivals) == 2) for crossing in link.capture]

    free, hooked = run(), run(0, 41)
    assert [number for number in range(100) if free[number] != hooked[number]] == [
        number for number in (0, 41) if free[number][0] is not Fate.DROPPED
    ]
    assert hooked[0][0] is hooked[41][0] is Fate.DROPPED


def test_rates_come_out_as_asked() -> None:
    link = Link(11, loss=0.2, duplicate=0.05, reorder=0.2, corrupt=0.1)
    for number in range(20_000):
        link.send(b"x" * 20, number * 0.001)
    counters = link.counters
    assert counters.sent == 20_000
    assert counters.lost + counters.delivered == counters.sent
    assert counters.lost == pytest.approx(4_000, rel=0.06)
    assert counters.duplicated == pytest.approx(0.05 * counters.delivered, rel=0.12)
    assert counters.reordered == pytest.approx(0.2 * counters.delivered, rel=0.06)
    assert counters.corrupted == pytest.approx(0.1 * counters.delivered, rel=0.12)


def test_a_datagram_above_the_mtu_vanishes_and_is_counted() -> None:
    link = Link(1, mtu=100, record=True)
    link.send(b"a" * 100, 0.0)
    link.send(b"b" * 101, 0.0)
    assert drain(link) == [b"a" * 100]
    assert link.counters.too_big == 1
    assert [crossing.fate for crossing in link.capture] == [Fate.DELIVERED, Fate.TOO_BIG]


def test_reordering_lets_later_datagrams_overtake_and_loses_none() -> None:
    link = Link(5, reorder=0.3, delay=0.01)
    for number, datagram in enumerate(numbered(200)):
        link.send(datagram, number * 0.002)
    arrived = drain(link)
    assert arrived != numbered(200)
    assert sorted(arrived) == numbered(200)


def test_jitter_alone_keeps_the_order() -> None:
    link = Link(5, jitter=0.5, delay=0.01)
    for number, datagram in enumerate(numbered(200)):
        link.send(datagram, number * 0.002)
    assert drain(link) == numbered(200)


def test_a_duplicate_is_the_same_datagram_twice() -> None:
    link = Link(2, duplicate=1.0)
    link.send(b"once", 0.0)
    assert drain(link) == [b"once", b"once"]


def test_corruption_changes_exactly_one_bit() -> None:
    link = Link(2, corrupt=1.0)
    link.send(bytes(50), 0.0)
    (arrived,) = drain(link)
    assert sum(byte.bit_count() for byte in arrived) == 1


def test_bandwidth_spaces_datagrams_and_the_queue_overflows() -> None:
    link = Link(2, delay=0.0, bandwidth=1_000.0, queue=250)
    for _ in range(4):
        link.send(b"x" * 100, 0.0)
    # The second waits behind the first, the third behind both; for the fourth there is no room.
    assert link.counters.overflowed == 2
    moments = []
    while (moment := link.next_arrival()) is not None:
        link.arrivals(moment)
        moments.append(moment)
    assert moments == [pytest.approx(0.1), pytest.approx(0.2)]


def test_drop_if_sees_number_and_datagram() -> None:
    link = Link(2)
    link.drop_if = lambda number, datagram: datagram == b"no" or number == 2
    for datagram in (b"yes", b"no", b"third", b"fourth"):
        link.send(datagram, 0.0)
    assert drain(link) == [b"yes", b"fourth"]
    assert link.counters.dropped == 2


@pytest.mark.parametrize(
    "conditions",
    [{"loss": 1.5}, {"duplicate": -0.1}, {"delay": -1.0}, {"mtu": 0}, {"bandwidth": 0.0}, {"hold": -1.0}],
)
def test_impossible_conditions_are_refused(conditions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Link(1, **conditions)  # type: ignore[arg-type]


class Asker:
    """Sends a question until it is answered; one second, then two, then four."""

    def __init__(self) -> None:
        self.wait = 1.0
        self.next: float | None = 0.0
        self.pending: list[bytes] = []
        self.said: list[str] = []
        self.got: list[bytes] = []

    def receive(self, datagram: bytes, now: float) -> None:
        if self.next is not None:
            self.next = None
            self.said.append(f"answered at {now:.2f}")
        self.got.append(datagram)

    def transmit(self, now: float) -> list[bytes]:
        out, self.pending = self.pending, []
        return out

    def deadline(self) -> float | None:
        return self.next

    def wake(self, now: float) -> None:
        assert self.next is not None
        assert now >= self.next
        self.pending.append(b"question")
        self.next = now + self.wait
        self.wait *= 2

    def events(self) -> list[str]:
        out, self.said = self.said, []
        return out

    def messages(self) -> list[bytes]:
        out, self.got = self.got, []
        return out


class Answerer:
    def __init__(self) -> None:
        self.pending: list[bytes] = []

    def receive(self, datagram: bytes, now: float) -> None:
        self.pending.append(b"answer to " + datagram)

    def transmit(self, now: float) -> list[bytes]:
        out, self.pending = self.pending, []
        return out

    def deadline(self) -> float | None:
        return None

    def wake(self, now: float) -> None:
        raise AssertionError("woken without a deadline")

    def events(self) -> list[str]:
        return []

    def messages(self) -> list[bytes]:
        return []


def test_a_pair_jumps_from_moment_to_moment() -> None:
    forward, backward = Link(1, delay=0.1), Link(2, delay=0.1)
    forward.drop(0, 1)
    pair = Pair(Asker(), Answerer(), forward, backward)
    assert pair.run_until(lambda: bool(pair.client_messages), deadline=10.0)
    # Questions at 0, 1 and 3 s; the third gets through and its answer is back after two delays.
    assert pair.now == pytest.approx(3.2)
    assert pair.client_events == ["answered at 3.20"]
    assert pair.client_messages == [b"answer to question"]
    assert not pair.step()


def test_run_until_stops_at_the_deadline_and_says_so() -> None:
    forward, backward = Link(1, loss=1.0), Link(2)
    pair = Pair(Asker(), Answerer(), forward, backward)
    assert not pair.run_until(lambda: bool(pair.client_messages), deadline=10.0)
    assert pair.now <= 10.0
    assert forward.counters.lost == 4  # at 0, 1, 3 and 7 s


def test_run_for_lets_exactly_that_time_pass() -> None:
    pair = Pair(Asker(), Answerer(), Link(1), Link(2), start=5.0)
    pair.run_for(2.5)
    assert pair.now == 7.5


class Sleepwalker(Answerer):
    """Asks to be woken at a moment that has passed, for ever."""

    def deadline(self) -> float | None:
        return 1.0

    def wake(self, now: float) -> None:
        pass


def test_a_peer_that_hangs_is_found() -> None:
    pair = Pair(Sleepwalker(), Answerer(), Link(1), Link(2))
    with pytest.raises(Stalled, match=r"1\.000000 s"):
        pair.run_for(5.0)


class Served:
    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address


class Counter:
    """An endpoint that answers every peer and reports each new one."""

    def __init__(self) -> None:
        self.pending: list[tuple[bytes, tuple[str, int]]] = []
        self.known: dict[tuple[str, int], Served] = {}
        self.fresh: list[tuple[Served, str]] = []
        self.batches: list[int] = []

    def receive(self, batch: Sequence[tuple[bytes, tuple[str, int]]], now: float) -> None:
        self.batches.append(len(batch))
        for datagram, address in batch:
            if address not in self.known:
                self.known[address] = Served(address)
                self.fresh.append((self.known[address], "new"))
            self.pending.append((b"answer to " + datagram, address))

    def transmit(self, now: float) -> list[tuple[bytes, tuple[str, int]]]:
        out, self.pending = self.pending, []
        return out

    def deadline(self) -> float | None:
        return None

    def wake(self, now: float) -> None:
        raise AssertionError("woken without a deadline")

    def events(self) -> list[tuple[Served, str]]:
        out, self.fresh = self.fresh, []
        return out


def test_an_endpoint_pair_keeps_clients_apart_and_batches_what_arrives_together() -> None:
    endpoint = Counter()
    pair = EndpointPair(endpoint, Link(1, loss=0.2, delay=0.1), Link(2, loss=0.2, delay=0.1))
    clients = {("10.0.0.1", port): Asker() for port in range(1, 21)}
    for address, client in clients.items():
        pair.add(client, address)
    assert pair.run_until(lambda: all(pair.client_messages.values()), deadline=200.0)
    assert set(pair.served) == set(clients)
    assert all(len(events) == 1 for events in pair.client_events.values())
    assert max(endpoint.batches) > 1
    assert not pair.step()


def test_what_is_sent_to_a_vanished_client_goes_nowhere_and_a_rebound_one_is_heard_anew() -> None:
    endpoint = Counter()
    pair = EndpointPair(endpoint, Link(1, delay=0.1), Link(2, delay=0.1))
    old, new = ("10.0.0.1", 1), ("10.0.0.1", 2)
    client = Asker()
    pair.add(client, old)
    pair.step()
    pair.rebind(old, new)
    pair.run_for(0.5)
    assert pair.client_messages[new] == []  # the answer went to the old address
    pair.run_for(1.0)
    assert pair.client_messages[new] == [b"answer to question"]
    assert set(pair.served) == {old, new}
