"""`bench workers`: what a record and a handshake cost with one worker and with two (docs/workers.md).

A parent keeps a group of one worker and a group of two.  In each turn both groups get the same load,
one after the other: messages echoed in batches on sixteen connections that stand, or handshakes, eight at
a time from each client.  Clients are two processes in any case, and are not counted.  CPU is that of the
workers, by the kernel's clock of each process.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sealwire
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
)
from sealwire.bench.rows.handshake import FULL, LIMITS, contexts
from sealwire.drive import WorkerGroup
from sealwire.drive.aio import DatagramChannel

if TYPE_CHECKING:
    from sealwire.drive import Seat

_NUMBERS: Final = (1, 2)
_CLIENTS: Final = 2
_CONNECTIONS: Final = 8
_AT_ONCE: Final = 8
_MESSAGE_BYTES: Final = 1100
_WINDOW: Final = 64
_NAME: Final = "localhost"
# A shorter turn is mostly its beginning.
_LEAST_SECONDS: Final = 0.5
_STEP_SECONDS: Final = 0.05
RECORDS: Final = "record"
HANDSHAKES: Final = "handshake"


def work(seat: Seat, directory: Path) -> None:
    """A worker: sends back what comes."""

    async def echo(channel: DatagramChannel) -> None:
        async for batch in channel.batches():
            await channel.send_many(batch)

    async def main() -> None:
        context, _ = contexts(directory, FULL)
        server = await sealwire.start_datagram_server(echo, context=context, seat=seat, limits=LIMITS)
        async with server:
            await seat.serve(server)

    asyncio.run(main())


class Groups:
    """The Peer: one group of each number of workers, supervised in turns."""

    def __init__(self, bench: Bench) -> None:
        # Workers inherit this, and are to use whatever CPU is free.
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        self._lock = threading.Lock()
        self._groups = {
            number: WorkerGroup(work, "127.0.0.1", workers=number, args=(bench.directory,), drain_seconds=0.0)
            for number in _NUMBERS
        }
        for group in self._groups.values():
            group.start()

    @property
    def address(self) -> Mapping[str, Any]:
        return {str(number): group.addresses[0][1] for number, group in self._groups.items()}

    def serve(self) -> None:
        while True:
            for group in self._groups.values():
                with self._lock:
                    group.step(0.0)
            time.sleep(_STEP_SECONDS)

    def answer(self, question: str) -> Mapping[str, float]:
        with self._lock:
            group = self._groups[int(question)]
            counted = group.statistics()
            return {
                "workers": sum(map(_cpu_seconds, group.pids)),
                "astray": float(
                    sum(
                        one.get("discard.unknown_cid", 0) + one.get("datagrams_forwarded", 0)
                        for one in counted
                    )
                ),
                "restarts": float(sum(group.starts) - int(question)),
            }


def _cpu_seconds(pid: int | None) -> float:
    """User and system time of another process, by the clock that clock_getcpuclockid(3) names."""
    return 0.0 if pid is None else time.clock_gettime(~pid << 3 | 2)


def load(orders: Connection, what: str, directory: Path, ports: Mapping[str, int]) -> None:
    """A process of clients: carries orders out until there are no more."""
    asyncio.run(_load(orders, what, directory, ports))


async def _load(orders: Connection, what: str, directory: Path, ports: Mapping[str, int]) -> None:
    _, context = contexts(directory, FULL)

    async def connect(port: int) -> DatagramChannel:
        return await sealwire.open_datagram_channel(
            "127.0.0.1", port, context=context, server_hostname=_NAME, limits=LIMITS, timeout=20.0
        )

    standing: dict[str, list[DatagramChannel]] = {}
    if what == RECORDS:
        standing = {
            number: [await connect(port) for _ in range(_CONNECTIONS)] for number, port in ports.items()
        }
    orders.send("ready")
    loop = asyncio.get_running_loop()
    while True:
        try:
            number, seconds = await loop.run_in_executor(None, orders.recv)
        except EOFError:
            return
        end = time.monotonic() + seconds
        if what == RECORDS:
            jobs = [_talk(channel, end) for channel in standing[number]]
        else:
            jobs = [_shake_hands(partial(connect, ports[number]), end) for _ in range(_AT_ONCE)]
        orders.send(sum(await asyncio.gather(*jobs)))


async def _talk(channel: DatagramChannel, end: float) -> int:
    messages = [bytes(_MESSAGE_BYTES)] * _WINDOW
    count = 0
    while time.monotonic() < end:
        await channel.send_many(messages)
        waiting = _WINDOW
        try:
            async with asyncio.timeout(1.0):
                while waiting > 0:
                    waiting -= len(await channel.receive_many())
        except TimeoutError:
            pass  # the network may lose some
        count += _WINDOW - waiting
    return count


async def _shake_hands(connect: Callable[[], Any], end: float) -> int:
    count = 0
    while time.monotonic() < end:
        async with await connect():
            count += 1
    return count


class Clients:
    """A Body: two processes of clients."""

    def __init__(self, bench: Bench, what: str) -> None:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        self._bench = bench
        spawn = multiprocessing.get_context("spawn")
        self._orders: list[Connection] = []
        ports = {str(number): bench.peer[str(number)] for number in _NUMBERS}
        for _ in range(_CLIENTS):
            ours, theirs = spawn.Pipe()
            arguments = (theirs, what, bench.directory, ports)
            spawn.Process(target=load, args=arguments, daemon=True).start()
            theirs.close()
            self._orders.append(ours)
        self._answers()

    def _answers(self) -> list[Any]:
        try:
            return [orders.recv() for orders in self._orders]
        except EOFError:
            raise OSError("a client failed") from None

    def _cost(self, number: int, seconds: float) -> tuple[float, int, Mapping[str, float]]:
        """CPU of the workers for one unit in microseconds, units, and what else they say."""
        before = self._bench.ask_peer(str(number))
        for orders in self._orders:
            orders.send((str(number), seconds))
        count = sum(self._answers())
        after = self._bench.ask_peer(str(number))
        if not count:
            raise OSError("nothing was answered")
        return 1e6 * (after["workers"] - before["workers"]) / count, count, after

    def run(self, seconds: float) -> Reading:
        seconds = max(seconds, _LEAST_SECONDS)
        watch = self._bench.stopwatch
        watch.start()
        one, first, _ = self._cost(1, seconds)
        two, second, said = self._cost(2, seconds)
        wall = watch.stop()
        return Reading(
            values={"": two, "one": one, "ratio": two / one},
            units=first + second,
            wall_seconds=wall,
            cpu_seconds=(one * first + two * second) * 1e-6,
            checks=(
                Check(
                    "steering",
                    not said["astray"],
                    f"{said['astray']:.0f} records reached a worker that is not theirs",
                ),
                Check("workers", not said["restarts"], f"{said['restarts']:.0f} workers had to be replaced"),
            ),
        )

    def verify(self) -> None:
        pass  # what was not answered was not counted

    def close(self) -> None:
        for orders in self._orders:
            orders.close()


def presence() -> Present | Absent:
    """Whether this system lets several processes share a port."""
    return (
        Present("")
        if hasattr(os, "sched_setaffinity")
        else Absent("only Linux spreads datagrams over sockets")
    )


def _row(what: str, title: str) -> Measurement:
    open_: Callable[[Bench], Body] = partial(Clients, what=what)
    peer: Callable[[Bench], Peer] = Groups
    return Measurement(
        f"workers.{what}",
        title,
        (
            Figure("", "us", Kind.TIME, "CPU of two workers"),
            Figure("one", "us", Kind.TIME, "CPU of one worker"),
            Figure("ratio", "x", Kind.TIME, "of two to one", Promise(1.15, "flat within 15 %")),
        ),
        (Contender("sealwire", Role.OURS, open_, peer=peer, presence=presence, patience_seconds=120.0),),
    )


ROWS: Final = (
    _row(RECORDS, f"a message of {_MESSAGE_BYTES:,} B received by a worker and sent back"),
    _row(HANDSHAKES, "a full handshake at a worker"),
)
