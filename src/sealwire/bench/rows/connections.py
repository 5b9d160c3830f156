"""`bench connections`: what a connection of a server takes that is only there, and what the others cost it.

`idle` and `asleep`: an Endpoint without sockets gets ever more peers, and the growth of its process's
resident set is divided by their number, tables included.  No application is in it: `memory.idle` and
`memory.asleep` have a task and a channel for each.  Time is virtual: a handshake every 5 ms, so that what
falls asleep makes room for who comes, and five minutes after the last, when keys of handshakes are gone.

`echo`: three asyncio servers with few, more and many connections, of which one in a hundred talks (twenty
at least) and the others sleep; a thousand messages a second each.  The CPU of a server for each echo, and
how much more of it with many than with few.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import sealwire
from sealwire import dtls
from sealwire.bench import measurement
from sealwire.bench.clocks import rss_bytes
from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Check,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Present,
    Promise,
    Reading,
    Role,
    Scale,
)
from sealwire.bench.rows.crowd import Crowd, Server
from sealwire.bench.rows.handshake import FULL, contexts

_NAME: Final = "localhost"
_HANDSHAKE_SECONDS: Final = 0.005
#: The first connections pay for what all share.
FIRST: Final = 300
# Twice the maximum segment lifetime, and some: the keys of the handshake are gone.
KEYS_GONE_SECONDS: Final = 300.0
_MOST_ROUNDS: Final = 8
_MANY: Final = 100_000
_ROOM_BYTES: Final = 3 << 30
_RATE: Final = 1_000.0
_WAKING_RATE: Final = 4_000.0
# Echoes of a shorter turn are too few.
_LEAST_SECONDS: Final = 0.25
# One in a hundred talks.  Where fewer do than this, an echo finds no other to share a turn of the loop with
# and costs more for that alone.
_SILENT: Final = 100
_LEAST_TALKING: Final = 20


class Growth:
    """An endpoint that gets ever more peers; the clients live here too, each for its handshake only.

    Attributes:
        endpoint: the server's.
        now: virtual seconds.
    """

    def __init__(self, directory: Path, idle_seconds: float) -> None:
        many = 1 << 20
        server, client = contexts(directory, FULL)
        limits = sealwire.Limits(
            total_bytes=8 << 30, connections=many, prefixes=many, idle_seconds=idle_seconds
        )
        self.endpoint = dtls.Endpoint(server.config, limits=limits)
        self._config = client.config()
        self.now = 0.0
        self._number = 0

    def one(self) -> None:
        """One more peer, connected and silent.  Raises OSError if it is not connected."""
        self._number += 1
        self.now += _HANDSHAKE_SECONDS
        address = ("127." + ".".join(map(str, self._number.to_bytes(3, "big"))), 4433)
        client = dtls.Connection.client(self._config, now=self.now, server_name=_NAME)
        for _ in range(_MOST_ROUNDS):
            self.endpoint.receive([(one, address) for one in client.transmit(self.now)], self.now)
            answers = self.endpoint.transmit(self.now)
            self.endpoint.events()
            client.receive_run([one for one, _ in answers], self.now)
            if client.was_connected and not answers:
                break
        if not client.was_connected:
            raise OSError("a client was not connected")
        client.abort()
        self._turn()

    def _turn(self) -> None:
        due = self.endpoint.deadline()
        if due is not None and due <= self.now:
            self.endpoint.wake(self.now)
            self.endpoint.transmit(self.now)
            self.endpoint.events()

    def wait(self, seconds: float) -> None:
        """Let time go by, and happen what is due."""
        end = self.now + seconds
        while (due := self.endpoint.deadline()) is not None and due <= end:
            self.now = max(due, self.now)
            self._turn()
        self.now = end


class Growing:
    """The Peer: the process of an endpoint that grows when it is told to."""

    def __init__(self, bench: Bench, idle_seconds: float) -> None:
        self._growth = Growth(bench.directory, idle_seconds)
        # With the turn that warms up, ten times what the scale says are there at the end.
        self._step = max(10 * bench.scale.connections // (bench.scale.runs + 1), 1)
        self._grow(FIRST)
        self._before = self._held()

    def _grow(self, count: int) -> None:
        for _ in range(count):
            self._growth.one()
        self._growth.wait(KEYS_GONE_SECONDS)

    def _held(self) -> tuple[int, int]:
        gc.collect()
        return rss_bytes(), self._growth.endpoint.ledger.held

    @property
    def address(self) -> Mapping[str, Any]:
        return {}

    def serve(self) -> None:
        pass  # it has no socket

    def answer(self, question: str) -> Mapping[str, float]:
        begin = time.process_time()
        self._grow(self._step)
        spent = time.process_time() - begin
        endpoint = self._growth.endpoint
        rss, ledger = (after - before for after, before in zip(self._held(), self._before, strict=True))
        return {
            "rss": rss,
            "ledger": ledger,
            "spent": spent,
            "connections": endpoint.connections,
            "asleep": endpoint.asleep,
        }


class Grown:
    """A Body: asks for more connections, and divides what all of them take by their number."""

    def __init__(self, bench: Bench, sleeping: bool) -> None:
        self._bench = bench
        self._sleeping = sleeping
        self._connections = float(FIRST)

    def run(self, seconds: float) -> Reading:
        begin = time.perf_counter()
        said = self._bench.ask_peer("grow")
        count = said["connections"] - FIRST
        asleep = said["connections"] if self._sleeping else 0
        if said["connections"] <= self._connections or said["asleep"] != asleep:
            raise OSError(f"of {said['connections']:.0f} connections {said['asleep']:.0f} sleep")
        made = said["connections"] - self._connections
        self._connections = said["connections"]
        return Reading(
            values={"": said["rss"] / count, "ledger": said["ledger"] / count},
            units=int(made),
            wall_seconds=time.perf_counter() - begin,
            cpu_seconds=said["spent"],
            rss_bytes=int(said["rss_bytes"]),
        )

    def verify(self) -> None:
        pass  # a handshake that fails raises, and each turn has counted the connections

    def close(self) -> None:
        pass


def numbers(scale: Scale) -> tuple[int, int, int]:
    """How many connections the three servers have: 100, 10,000 and 100,000 where there is room for those.

    A shorter bench has fewer.
    """
    each = scale.connections
    if scale.name != measurement.FULL.name:
        return max(each // 2, 1), max(5 * each // 2, 2), 10 * each
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        free = 0
    return each // 10, 10 * each, 100 * each if free >= _ROOM_BYTES else 20 * each


def _idle_seconds(scale: Scale) -> float:
    """After how long who is silent sleeps: longer than a turn of those who talk."""
    return 10.0 if scale.name == measurement.FULL.name else 2.0


def _talking(number: int) -> range:
    """Who talks among so many, spread over all."""
    return range(0, number, max(min(_SILENT, number // _LEAST_TALKING), 1))


class Servers:
    """The Peer: keeps the three servers, and says what one counts."""

    def __init__(self, bench: Bench) -> None:
        idle_seconds = _idle_seconds(bench.scale)
        self._servers = {
            str(number): Server(bench.directory, idle_seconds) for number in numbers(bench.scale)
        }

    @property
    def address(self) -> Mapping[str, Any]:
        return {number: server.port for number, server in self._servers.items()}

    def serve(self) -> None:
        pass  # they are processes of their own

    def answer(self, question: str) -> Mapping[str, float]:
        return self._servers[question].state()

    def close(self) -> None:
        for server in self._servers.values():
            server.close()


class Echoes:
    """A Body: a crowd for each server; some of each talk, one crowd after the other."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._crowds = {
            number: Crowd(bench.directory, bench.peer[str(number)]) for number in numbers(bench.scale)
        }
        for number, crowd in self._crowds.items():
            crowd.connect(number)
        self._asleep = False

    def _wait_for_sleep(self) -> None:
        """Until all sleep, before the turn that warms up."""
        end = time.monotonic() + _idle_seconds(self._bench.scale) + 30.0
        for number in self._crowds:
            while (said := self._bench.ask_peer(str(number)))["idle"] < number:
                if time.monotonic() > end:
                    raise OSError(f"of {number} connections {said['idle']:.0f} sleep")
                time.sleep(0.1)
        self._asleep = True

    def run(self, seconds: float) -> Reading:
        if not self._asleep:
            self._wait_for_sleep()
        seconds = max(seconds, _LEAST_SECONDS)
        begin = time.perf_counter()
        costs: list[float] = []
        echoes, cpu, rss = 0, 0.0, 0.0
        wrong: list[str] = []
        for number, crowd in self._crowds.items():
            talking = _talking(number)
            # Who talks is awake; what waking costs is not this figure.
            crowd.talk(talking, _WAKING_RATE, (len(talking) + 1) / _WAKING_RATE)
            before = self._bench.ask_peer(str(number))
            crowd.forget()
            crowd.talk(talking, _RATE, seconds)
            after = self._bench.ask_peer(str(number))
            if not crowd.right or crowd.wrong or crowd.missing:
                raise OSError(f"{crowd.right} answers right, {crowd.wrong} wrong, {crowd.missing} missing")
            if after["connections"] != number or after["failed"] or after["shed"]:
                raise OSError(f"of {number} connections {after['connections']:.0f} are there")
            spent = after["cpu"] - before["cpu"]
            costs.append(1e6 * spent / crowd.right)
            echoes += crowd.right
            cpu += spent
            rss = after["rss"]
            if before["idle"] < number - len(talking):
                wrong.append(f"{before['idle']:.0f} of {number}")
        few, more, many = costs
        values = {"": many, "few": few, "more": more, "growth": many / few}
        if max(self._crowds) >= _MANY:
            values["held"] = rss / 1e6
        asleep = "asleep were " + ", ".join(wrong) if wrong else "who does not talk sleeps"
        return Reading(
            values=values,
            units=echoes,
            wall_seconds=time.perf_counter() - begin,
            cpu_seconds=cpu,
            rss_bytes=int(rss),
            checks=(Check("asleep", not wrong, asleep),),
        )

    def verify(self) -> None:
        pass  # each turn has compared its answers

    def close(self) -> None:
        for crowd in self._crowds.values():
            crowd.close()


def presence() -> Present | Absent:
    """Whether one socket can be many addresses here."""
    return Present("") if os.path.exists("/proc/self/statm") else Absent("only Linux has all of 127/8")


def _held(name: str, title: str, idle_seconds: float, promised: Promise) -> Measurement:
    sleeping = idle_seconds < float("inf")
    open_: Callable[[Bench], Body] = partial(Grown, sleeping=sleeping)
    peer: Callable[[Bench], Peer] = partial(Growing, idle_seconds=idle_seconds)
    return Measurement(
        f"connections.{name}",
        title,
        (
            Figure("", "B", Kind.MEMORY, "growth of the resident set", promised),
            Figure("ledger", "B", Kind.MEMORY, "the ledger's account"),
        ),
        (Contender("sealwire", Role.OURS, open_, peer=peer, presence=presence),),
    )


_ECHO: Final = Measurement(
    "connections.echo",
    "an echo at a server whose connections mostly sleep",
    (
        Figure("", "us", Kind.TIME, "CPU of the server, many"),
        Figure("few", "us", Kind.TIME, "CPU of the server, few"),
        Figure("more", "us", Kind.TIME, "CPU of the server, more"),
        Figure("growth", "x", Kind.TIME, "many to few", Promise(1.5, "flat within 1.5")),
        Figure(
            "held",
            "MB",
            Kind.MEMORY,
            "resident set of the server with 100,000, with --full",
            Promise(1_000.0, "100,000 within 1 GB"),
        ),
    ),
    (Contender("sealwire", Role.OURS, Echoes, peer=Servers, presence=presence, patience_seconds=900.0),),
)

ROWS: Final = (
    _held(
        "idle", "an idle connection of an Endpoint", float("inf"), Promise(6 * 1024.0, "6 KB per connection")
    ),
    _held("asleep", "an Endpoint's connection that sleeps", 1.0, Promise(2 * 1024.0, "2 KB per connection")),
    _ECHO,
)
