"""A datagram network on virtual time: seeded, deterministic, without sockets or clocks.

A Link is one direction of a path.  Whatever is sent into it is lost, held back, doubled, damaged
or swallowed for its size as a seeded generator says, and comes out at a virtual time.  A Pair joins
two sans-IO connections by two links, an EndpointPair joins many clients to one endpoint; both jump
from one moment at which something happens to the next, so a minute of retransmissions costs
milliseconds, and the same seed gives the same run.

Each datagram draws the same number of random values whatever becomes of it.  So a hook that drops
one datagram more does not change the fate of those after it, and two runs can be compared.
"""

from __future__ import annotations

import enum
import heapq
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from sealwire.dtls.events import Closed

Address = tuple[str, int]


class Fate(enum.Enum):
    """What became of a datagram that was sent into a link."""

    DELIVERED = "delivered"
    LOST = "lost by chance"
    DROPPED = "dropped by a hook"
    TOO_BIG = "larger than the link's MTU"
    OVERFLOWED = "no room in the queue before the link"


@dataclass(frozen=True, slots=True)
class Crossing:
    """One datagram that was sent into a link.

    Attributes:
        link: name of the link, which is the direction.
        number: counts the link's datagrams from 0, in the order they were sent.
        sent: virtual time it was sent, seconds.
        data: the datagram as sent.
        path: the sender's (or, towards clients, the receiver's) address; ``()`` on a Pair.
        fate: what became of it.
        arrivals: virtual times of arrival; empty unless delivered, two when duplicated.
        corrupted: one bit was changed on the way.
    """

    link: str
    number: int
    sent: float
    data: bytes
    path: tuple[Any, ...]
    fate: Fate
    arrivals: tuple[float, ...]
    corrupted: bool


@dataclass(slots=True)
class LinkCounters:
    """Datagrams of one link by what became of them; bytes as sent."""

    sent: int = 0
    sent_bytes: int = 0
    delivered: int = 0
    lost: int = 0
    dropped: int = 0
    too_big: int = 0
    overflowed: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0


class Stalled(AssertionError):
    """A connection asks to be woken at a time that has passed, again and again: a hang."""


@dataclass(order=True, slots=True)
class _InFlight:
    arrives: float
    order: int
    data: bytes
    path: tuple[Any, ...]


def _probability(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is a probability, so {value!r} cannot be")
    return value


class Link:
    """One direction of a path.

    Args:
        seed: of this link's own generator; equal seeds and equal traffic give equal fates.
        loss: probability that a datagram is lost.
        duplicate: probability that a delivered datagram arrives twice.
        reorder: probability that a datagram is held back by up to `hold` seconds, so that later
            ones overtake it.  Nothing else changes the order.
        delay: seconds from end to end.
        jitter: up to this many seconds more, uniformly.
        mtu: bytes of the largest datagram that passes; larger ones vanish and are counted.
        corrupt: probability that one bit of a delivered datagram is changed.
        bandwidth: bytes per second; None is infinite.
        queue: bytes that wait for the link at most; only with `bandwidth`.  None is infinite.
        hold: see `reorder`; by default four times `delay`, at least 10 ms.
        name: the direction's name in captures.
        record: keep every :class:`Crossing` in :attr:`capture`.

    Conditions (`loss`, `mtu`, `delay`...) are plain attributes and may be changed while running.

    Raises:
        ValueError: for a condition that cannot be.
    """

    __slots__ = (
        "_busy_until",
        "_drop_numbers",
        "_in_flight",
        "_last_arrival",
        "_order",
        "_random",
        "bandwidth",
        "capture",
        "corrupt",
        "counters",
        "delay",
        "drop_if",
        "duplicate",
        "hold",
        "jitter",
        "loss",
        "mtu",
        "name",
        "queue",
        "record",
        "reorder",
    )

    def __init__(
        self,
        seed: int | str,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        delay: float = 0.02,
        jitter: float = 0.0,
        mtu: int = 1500,
        corrupt: float = 0.0,
        bandwidth: float | None = None,
        queue: int | None = None,
        hold: float | None = None,
        name: str = "link",
        record: bool = False,
    ) -> None:
        self.loss = _probability("loss", loss)
        self.duplicate = _probability("duplicate", duplicate)
        self.reorder = _probability("reorder", reorder)
        self.corrupt = _probability("corrupt", corrupt)
        if delay < 0 or jitter < 0 or (hold is not None and hold < 0):
            raise ValueError("a link cannot deliver before it was sent to")
        if mtu <= 0 or (bandwidth is not None and bandwidth <= 0):
            raise ValueError("a link needs a positive mtu and bandwidth")
        self.delay = delay
        self.jitter = jitter
        self.mtu = mtu
        self.bandwidth = bandwidth
        self.queue = queue
        self.hold = max(4 * delay, 0.01) if hold is None else hold
        self.name = name
        self.record = record
        #: Every datagram sent so far, if `record`; the test or the tool may clear it.
        self.capture: list[Crossing] = []
        self.counters = LinkCounters()
        #: A predicate (number, datagram) -> bool; True drops the datagram.  None drops nothing.
        self.drop_if: Callable[[int, bytes], bool] | None = None
        self._drop_numbers: set[int] = set()
        self._random = random.Random(seed)  # noqa: S311 -- a network is to be repeated, not to be secret
        self._in_flight: list[_InFlight] = []
        self._order = 0
        self._last_arrival = 0.0
        self._busy_until = 0.0

    def drop(self, *numbers: int) -> None:
        """Drop the n-th datagrams of this link, counted from 0 over its whole life."""
        self._drop_numbers.update(numbers)

    def send(self, data: bytes, now: float, path: tuple[Any, ...] = ()) -> None:
        """Send `data` into the link at `now`; `path` is carried along unread."""
        number = self.counters.sent
        self.counters.sent += 1
        self.counters.sent_bytes += len(data)
        draw = self._random.random
        lost, doubled, held, damaged = draw(), draw(), draw(), draw()
        jitter, second_jitter, hold, bit = draw(), draw(), draw(), draw()

        fate = self._fate(number, data, now, lost)
        arrivals: tuple[float, ...] = ()
        corrupted = False
        if fate is Fate.DELIVERED:
            corrupted = damaged < self.corrupt and len(data) > 0
            carried = _flip(data, int(bit * 8 * len(data))) if corrupted else data
            departs = now
            if self.bandwidth is not None:
                departs = self._busy_until = max(now, self._busy_until) + len(data) / self.bandwidth
            arrives = departs + self.delay + jitter * self.jitter
            if held < self.reorder:
                self.counters.reordered += 1
                arrives += hold * self.hold
            else:
                # Jitter alone keeps the order, as a queue does; only `reorder` lets datagrams overtake.
                arrives = self._last_arrival = max(arrives, self._last_arrival)
            arrivals = (arrives,)
            if doubled < self.duplicate:
                self.counters.duplicated += 1
                arrivals = (arrives, arrives + second_jitter * max(self.jitter, self.delay))
            self.counters.delivered += 1
            self.counters.corrupted += corrupted
            for moment in arrivals:
                self._order += 1
                heapq.heappush(self._in_flight, _InFlight(moment, self._order, carried, path))
        if self.record:
            self.capture.append(Crossing(self.name, number, now, data, path, fate, arrivals, corrupted))

    def _fate(self, number: int, data: bytes, now: float, lost: float) -> Fate:
        counters = self.counters
        if number in self._drop_numbers or (self.drop_if is not None and self.drop_if(number, data)):
            counters.dropped += 1
            return Fate.DROPPED
        if len(data) > self.mtu:
            counters.too_big += 1
            return Fate.TOO_BIG
        if lost < self.loss:
            counters.lost += 1
            return Fate.LOST
        if self.bandwidth is not None and self.queue is not None:
            waiting = max(0.0, self._busy_until - now) * self.bandwidth
            if waiting + len(data) > self.queue:
                counters.overflowed += 1
                return Fate.OVERFLOWED
        return Fate.DELIVERED

    def next_arrival(self) -> float | None:
        """Virtual time of the next arrival; None if nothing is on its way."""
        return self._in_flight[0].arrives if self._in_flight else None

    def arrivals(self, now: float) -> list[tuple[bytes, tuple[Any, ...]]]:
        """What has arrived by `now` and was not taken before: (datagram, path), in order of arrival."""
        out: list[tuple[bytes, tuple[Any, ...]]] = []
        while self._in_flight and self._in_flight[0].arrives <= now:
            item = heapq.heappop(self._in_flight)
            out.append((item.data, item.path))
        return out

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{f.name}={value}" for f in fields(self.counters) if (value := getattr(self.counters, f.name))
        )
        return f"<Link {self.name}: {counts or 'unused'}>"


def _flip(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


class Peer(Protocol):
    """What a Pair drives: the sans-IO law of every connection in this package."""

    def receive(self, datagram: bytes, now: float) -> None: ...
    def transmit(self, now: float) -> Sequence[bytes]: ...
    def deadline(self) -> float | None: ...
    def wake(self, now: float) -> None: ...
    def events(self) -> Sequence[Any]: ...
    def messages(self) -> Sequence[bytes]: ...


class BatchPeer(Protocol):
    """What an EndpointPair drives on the server's side: a socket's worth of peers."""

    def receive(self, batch: Sequence[tuple[bytes, Address]], now: float) -> None: ...
    def transmit(self, now: float) -> Sequence[tuple[bytes, Any]]: ...
    def deadline(self) -> float | None: ...
    def wake(self, now: float) -> None: ...
    def events(self) -> Sequence[tuple[Any, Any]]: ...


#: Wake-ups at one and the same virtual instant before a run counts as hanging.
_WAKES_AT_ONCE = 1_000


class _Clock:
    """Virtual time, and the guard against a peer that never lets it pass."""

    __slots__ = ("now", "wakes")

    def __init__(self, now: float) -> None:
        self.now = now
        self.wakes = 0

    def advance(self, moment: float) -> None:
        if moment > self.now:
            self.now = moment
            self.wakes = 0
            return
        self.wakes += 1
        if self.wakes > _WAKES_AT_ONCE:
            raise Stalled(f"time stands still at {self.now:.6f} s: a deadline that has passed is never met")


class _World(ABC):
    """What a Pair and an EndpointPair have in common: virtual time, and running through it."""

    def __init__(self, start: float) -> None:
        self._clock = _Clock(start)

    @property
    def now(self) -> float:
        """Virtual time, seconds."""
        return self._clock.now

    @abstractmethod
    def flush(self) -> None:
        """Send what is to be sent now."""

    @abstractmethod
    def step(self, until: float | None = None) -> bool:
        """Go to the next moment at which something happens; False if there is none up to `until`."""

    def run_until(self, predicate: Callable[[], bool], deadline: float) -> bool:
        """Step until `predicate()`; False if virtual time would pass `deadline`, or nothing happens."""
        self.flush()
        while not predicate():
            if not self.step(until=deadline):
                return predicate()
        return True

    def run_for(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass."""
        end = self.now + seconds
        while self.step(until=end):
            pass
        self._clock.advance(end)


class Pair(_World):
    """Two connections, `client` and `server`, and a link each way, on one virtual clock.

    What the engines report is collected: ``client_events``, ``server_events`` (in order),
    ``client_messages``, ``server_messages`` (application datagrams received).

    Args:
        client, server: connections; both may have been made at any `now` up to `start`.
        forward: link from client to server.
        backward: link from server to client.
        start: virtual time of the beginning, seconds.
    """

    def __init__(
        self, client: Peer, server: Peer, forward: Link, backward: Link, *, start: float = 0.0
    ) -> None:
        self.client = client
        self.server = server
        self.forward = forward
        self.backward = backward
        super().__init__(start)
        self.client_events: list[Any] = []
        self.server_events: list[Any] = []
        self.client_messages: list[bytes] = []
        self.server_messages: list[bytes] = []

    def flush(self) -> None:
        """Send what both sides have to send now, and collect their events and messages."""
        now = self.now
        for datagram in self.client.transmit(now):
            self.forward.send(datagram, now)
        for datagram in self.server.transmit(now):
            self.backward.send(datagram, now)
        self.client_events += self.client.events()
        self.server_events += self.server.events()
        self.client_messages += self.client.messages()
        self.server_messages += self.server.messages()

    def next_moment(self) -> float | None:
        """When something happens next; None if nothing ever will."""
        return _earliest(
            self.forward.next_arrival(),
            self.backward.next_arrival(),
            self.client.deadline(),
            self.server.deadline(),
        )

    def step(self, until: float | None = None) -> bool:
        """Flush, jump to the next moment, deliver and wake.

        Returns False, with time unchanged, if nothing will happen (up to `until`, if given).

        Raises:
            Stalled: if a connection keeps asking for a moment that has passed.
        """
        self.flush()
        moment = self.next_moment()
        if moment is None or (until is not None and moment > until):
            return False
        self._clock.advance(moment)
        now = self.now
        for datagram, _ in self.forward.arrivals(now):
            self.server.receive(datagram, now)
        for datagram, _ in self.backward.arrivals(now):
            self.client.receive(datagram, now)
        for peer in (self.client, self.server):
            if _due(peer.deadline(), now):
                peer.wake(now)
        self.flush()
        return True


class EndpointPair(_World):
    """Many clients, each with an address, before one endpoint; all traffic shares two links.

    Only what was touched (by a datagram, a wake-up or :meth:`touch`) is asked for output, so a
    thousand clients cost what their traffic costs.

    Attributes:
        clients: address to connection, of those not removed.
        client_events, client_messages: by address, in order.
        server_events: (connection, event) in order.
        served: address to the endpoint's connection there, learnt from its events; the last one stays
            when it is closed.
    """

    def __init__(self, endpoint: BatchPeer, forward: Link, backward: Link, *, start: float = 0.0) -> None:
        self.endpoint = endpoint
        self.forward = forward
        self.backward = backward
        super().__init__(start)
        self.clients: dict[Address, Peer] = {}
        self.client_events: dict[Address, list[Any]] = {}
        self.client_messages: dict[Address, list[bytes]] = {}
        self.server_events: list[tuple[Any, Any]] = []
        self.served: dict[Address, Any] = {}
        self._touched: dict[Address, None] = {}
        # (deadline, address); an entry counts only while it is the client's latest word.
        self._deadlines: list[tuple[float, Address]] = []
        self._deadline_of: dict[Address, float] = {}

    def add(self, client: Peer, address: Address) -> None:
        """Let `client` take part under `address`; one that was there before is replaced (a restart)."""
        self.clients[address] = client
        self.client_events.setdefault(address, [])
        self.client_messages.setdefault(address, [])
        self.touch(address)

    def remove(self, address: Address) -> None:
        """The client at `address` vanishes without a word; what is sent to it goes nowhere."""
        del self.clients[address]
        self._touched.pop(address, None)
        self._deadline_of.pop(address, None)

    def rebind(self, old: Address, new: Address) -> None:
        """The client at `old` is seen at `new` from now on, as behind a NAT that lost its mapping."""
        client = self.clients[old]
        self.remove(old)
        self.add(client, new)

    def touch(self, address: Address) -> None:
        """Say that the client at `address` was acted on (send, close) outside the pair."""
        self._touched[address] = None

    def flush(self) -> None:
        """Send what touched clients and the endpoint have to send, and collect what they report."""
        now = self.now
        touched, self._touched = self._touched, {}
        for address in touched:
            client = self.clients[address]
            for datagram in client.transmit(now):
                self.forward.send(datagram, now, address)
            self.client_events[address] += client.events()
            self.client_messages[address] += client.messages()
            deadline = client.deadline()
            if deadline is None:
                self._deadline_of.pop(address, None)
            elif self._deadline_of.get(address) != deadline:
                self._deadline_of[address] = deadline
                heapq.heappush(self._deadlines, (deadline, address))
        for datagram, address in self.endpoint.transmit(now):
            self.backward.send(datagram, now, address)
        for connection, event in self.endpoint.events():
            self.server_events.append((connection, event))
            # The end of an association that a newer one has replaced tells nothing new.
            if not isinstance(event, Closed):
                self.served[connection.address] = connection

    def next_moment(self) -> float | None:
        """When something happens next; None if nothing ever will."""
        return _earliest(
            self.forward.next_arrival(),
            self.backward.next_arrival(),
            self._next_deadline(),
            self.endpoint.deadline(),
        )

    def _next_deadline(self) -> float | None:
        while self._deadlines:
            deadline, address = self._deadlines[0]
            if self._deadline_of.get(address) == deadline:
                return deadline
            heapq.heappop(self._deadlines)
        return None

    def step(self, until: float | None = None) -> bool:
        """As :meth:`Pair.step`.  Datagrams that arrive at one instant reach the endpoint as one batch."""
        self.flush()
        moment = self.next_moment()
        if moment is None or (until is not None and moment > until):
            return False
        self._clock.advance(moment)
        now = self.now
        batch: list[tuple[bytes, Address]] = [
            (datagram, (path[0], path[1])) for datagram, path in self.forward.arrivals(now)
        ]
        if batch:
            self.endpoint.receive(batch, now)
        for datagram, path in self.backward.arrivals(now):
            address = (path[0], path[1])
            if address in self.clients:
                self.clients[address].receive(datagram, now)
                self.touch(address)
        while (deadline := self._next_deadline()) is not None and deadline <= now:
            _, address = heapq.heappop(self._deadlines)
            del self._deadline_of[address]
            self.clients[address].wake(now)
            self.touch(address)
        if _due(self.endpoint.deadline(), now):
            self.endpoint.wake(now)
        self.flush()
        return True


def _earliest(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _due(deadline: float | None, now: float) -> bool:
    return deadline is not None and deadline <= now
