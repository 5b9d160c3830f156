"""Free lists of buffers: record what a server under load asks for, and replay it against each policy.

    python benchmarks/buffers.py record            # three loads on this machine, to benchmarks/traces/
    python benchmarks/buffers.py                   # the table of docs/buffers.md, from what was recorded
    python benchmarks/buffers.py cost              # nanoseconds of lending and of plain allocation

A trace is a list of [microseconds since the last event, buffers taken (+) or given back (-)]: one for
each datagram from its arrival until it is done with, or the application took its message: so long a
pooled receive buffer would be out.  Sizes adapt every half second of a trace instead of every 30 s, and look
back 15 s instead of 15 minutes, as the traces are a sixtieth as long as the day they stand for.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
import timeit
from pathlib import Path
from typing import Any

import sealwire
from sealwire.drive.buffers import FreeList
from sealwire.drive.sizing import DEFAULT_SIZING, POLICIES, Sizing
from sealwire.dtls import Endpoint
from sealwire.record.train import Train
from tests.configs import client_context, server_context

TRACES = Path(__file__).parent / "traces"
SECONDS = 20.0
SCALED = Sizing(every_seconds=0.5, window_seconds=15.0)
BUFFER_BYTES = 65_535
# A trace of so many events is small enough to be committed.
MOST_EVENTS = 4_000


class Recording:
    """Events of one run, kept within MOST_EVENTS by joining those of one millisecond."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.events: list[tuple[float, int]] = []

    def add(self, delta: int) -> None:
        if delta:
            self.events.append((time.perf_counter() - self.start, delta))

    def save(self, name: str) -> None:
        joined: list[list[int]] = []
        grain = 1e-3
        while True:
            joined, last, lent = [], 0.0, 0
            for at, delta in self.events:
                lent += delta
                if joined and at - last < grain and (delta > 0) == (joined[-1][1] > 0):
                    joined[-1][1] += delta
                else:
                    joined.append([round((at - last) * 1e6), delta])
                    last = at
            if len(joined) <= MOST_EVENTS:
                break
            grain *= 1.5
            if grain > 0.05:
                joined = joined[:MOST_EVENTS]
                break
        TRACES.mkdir(exist_ok=True)
        text = json.dumps(joined, separators=(",", ":"))
        (TRACES / f"{name}.json").write_text(text + "\n")
        print(f"{name}: {len(joined)} events, {len(text)} bytes")


async def record(name: str) -> None:
    """Serve one kind of load for SECONDS and write down what it asked for."""
    recording = Recording()
    receive = Endpoint.receive

    def watched(self: Endpoint, batch: Any, now: float) -> None:
        arrived = sum(one.count if isinstance(one, Train) else 1 for one, _ in batch)
        before = self.totals().messages_received
        recording.add(arrived)
        receive(self, batch, now)
        # All but the messages that wait for the application now are done with.
        recording.add(self.totals().messages_received - before - arrived)

    async def handler(channel: sealwire.drive.DatagramChannel) -> None:
        async for data in channel:
            recording.add(-1)
            if name != "bulk":
                await channel.send(data)

    Endpoint.receive = watched  # type: ignore[method-assign]
    server = await sealwire.start_datagram_server(handler, "127.0.0.1", 0, context=server_context())
    async with server:
        port = server.sockets[0].getsockname()[1]
        end = time.perf_counter() + SECONDS
        client = client_context()
        chance = random.Random(1)

        async def bulk() -> None:
            async with sealwire.open_datagram_channel("127.0.0.1", port, context=client) as channel:
                while time.perf_counter() < end:
                    await channel.send_many([bytes(1_000)] * 32)
                    await asyncio.sleep(0.01 if int(time.perf_counter()) % 4 else 0.2)

        async def chatter() -> None:
            while time.perf_counter() < end:
                async with sealwire.open_datagram_channel("127.0.0.1", port, context=client) as channel:
                    for _ in range(chance.randrange(1, 40)):
                        await channel.send(b"question")
                        await channel.recv()
                        await asyncio.sleep(chance.expovariate(20))

        async def crowd() -> None:
            while time.perf_counter() < end:
                await asyncio.sleep(chance.uniform(1, 4))
                await asyncio.gather(*(visit() for _ in range(chance.randrange(5, 40))))

        async def visit() -> None:
            async with sealwire.open_datagram_channel("127.0.0.1", port, context=client) as channel:
                await channel.send_many([b"hello"] * 8)
                await channel.recv()

        tasks = {
            "bulk": lambda: [bulk() for _ in range(2)],
            "chatter": lambda: [chatter() for _ in range(20)],
            "crowd": lambda: [crowd()],
        }[name]()
        await asyncio.gather(*tasks, return_exceptions=True)
    Endpoint.receive = receive  # type: ignore[method-assign]
    recording.save(name)


def replay(trace: list[list[int]], policy: str) -> dict[str, float]:
    """What a free list with `policy` makes of a trace."""
    pool: FreeList[bytearray] = FreeList(lambda: bytearray(0), BUFFER_BYTES, POLICIES[policy](SCALED))
    out: list[bytearray] = []
    now = held_time = 0.0
    held_peak = 0
    for microseconds, delta in trace:
        held = pool.statistics().held_bytes
        held_time += held * microseconds / 1e6
        held_peak = max(held_peak, held)
        now += microseconds / 1e6
        pool.adapt(now)
        out += [pool.lend() for _ in range(delta)]
        for _ in range(min(-delta, len(out))):
            pool.give_back(out.pop())
    found = pool.statistics()
    return {
        "hit rate": found.hit_rate,
        "most out": found.high_water,
        "mean idle KiB": held_time / max(now, 1e-9) / 1024,
        "most idle KiB": held_peak / 1024,
        "allocations": found.misses,
    }


def table() -> str:
    """The comparison, as Markdown."""
    rows = [
        "| trace | policy | hit rate | allocations | most out | idle, mean | idle, most |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(TRACES.glob("*.json")):
        trace = json.loads(path.read_text())
        for policy in POLICIES:
            one = replay(trace, policy)
            rows.append(
                f"| {path.stem} | {policy} | {100 * one['hit rate']:.1f} % | {one['allocations']:.0f} | "
                f"{one['most out']:.0f} | {one['mean idle KiB']:.0f} KiB | {one['most idle KiB']:.0f} KiB |"
            )
    return "\n".join(rows)


def cost() -> None:
    """What one lending costs, and what it saves."""
    pool: FreeList[bytearray] = FreeList(
        lambda: bytearray(BUFFER_BYTES), BUFFER_BYTES, POLICIES["balanced"](DEFAULT_SIZING)
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def lend() -> None:
        pool.give_back(pool.lend())

    def allocate() -> None:
        bytearray(BUFFER_BYTES)

    def received() -> None:
        theirs.send(_MESSAGE)
        ours.recv(BUFFER_BYTES)

    def received_into() -> None:
        theirs.send(_MESSAGE)
        buffer = pool.lend()
        n = ours.recv_into(buffer)
        bytes(memoryview(buffer)[:n])
        pool.give_back(buffer)

    for name, what in (
        ("lend and give back", lend),
        ("allocate 64 KiB (zeroed) and free it", allocate),
        ("recv into memory that recv allocates", received),
        ("recv into a lent buffer, and copy out", received_into),
    ):
        best = min(timeit.repeat(what, number=20_000, repeat=7)) / 20_000
        print(f"{name:<42} {best * 1e9:7.0f} ns")
    ours.close()
    theirs.close()


_MESSAGE = bytes(1_200)

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record"]:
            for load in ("bulk", "chatter", "crowd"):
                asyncio.run(record(load))
        case ["cost"]:
            cost()
        case _:
            print(table())
