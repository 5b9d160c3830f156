"""T13: what a record and a handshake cost with one worker and with several, in CPU of the workers.

    python benchmarks/workers.py [--workers 1 2] [--rounds 5] [--seconds 3] [--connections 16] [--json]

In each round every number of workers serves in turn: echoing messages of 1,100 bytes, 64 at a time on each
connection, then handshakes, eight at a time.  The clients are processes of their own, always as many as the
most workers, and are not counted.  Times are CPU seconds of the workers by the kernel's account (10 ms
steps); counts are the workers' own.  Prints the median over rounds, the spread, the ratio to the first
number of workers, and how records and handshakes were spread.  Exit code 1 if a ratio leaves 0.85 to 1.15
or a record reached a worker that does not know its connection id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sealwire
from sealwire.drive import DatagramChannel, Seat, WorkerGroup

MESSAGE_BYTES = 1100
WINDOW = 64
HANDSHAKES_AT_ONCE = 8
FLAT = 0.15
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """One turn: microseconds of CPU, how many they are for, and how many each worker had."""

    micros: float
    count: int
    spread: tuple[int, ...]


def certificates(directory: Path) -> tuple[Path, Path, Path]:
    """Of a server, its key, and of who made it."""
    command = [sys.executable, "-m", "sealwire.cli", "cert", "--dir", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return directory / "server.pem", directory / "server.key", directory / "ca.pem"


def work(seat: Seat, certfile: Path, keyfile: Path) -> None:
    """A worker: sends back what comes."""

    async def echo(channel: DatagramChannel) -> None:
        async for batch in channel.batches():
            await channel.send_many(batch)

    async def main() -> None:
        context = sealwire.Context(sealwire.PROTOCOL_SERVER)
        context.load_cert_chain(certfile, keyfile)
        server = await sealwire.start_datagram_server(echo, context=context, seat=seat)
        async with server:
            await seat.serve(server)

    asyncio.run(main())


def load(what: str, address: tuple[str, int], cafile: Path, seconds: float, connections: int) -> None:
    """A process of clients."""

    async def main() -> None:
        context = sealwire.Context(sealwire.PROTOCOL_CLIENT)
        context.load_verify_locations(cafile=cafile)
        end = time.monotonic() + seconds

        async def open_one() -> DatagramChannel:
            return await sealwire.open_datagram_channel(
                *address, context=context, server_hostname="localhost"
            )

        async def talk() -> None:
            messages = [bytes(MESSAGE_BYTES)] * WINDOW
            async with await open_one() as channel:
                while time.monotonic() < end:
                    await channel.send_many(messages)
                    waiting = WINDOW
                    try:
                        async with asyncio.timeout(1.0):
                            while waiting > 0:
                                waiting -= len(await channel.receive_many())
                    except TimeoutError:
                        continue  # the network may lose some

        async def shake_hands() -> None:
            while time.monotonic() < end:
                async with await open_one():
                    pass

        job, count = (talk, connections) if what == "record" else (shake_hands, HANDSHAKES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(job())

    asyncio.run(main())


def cpu_seconds(pids: list[int | None]) -> float:
    """User and system time of all."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def turn(what: str, workers: int, options: argparse.Namespace, files: tuple[Path, Path, Path]) -> Cost:
    """One number of workers under one kind of load."""
    spawn = multiprocessing.get_context("spawn")
    with WorkerGroup(work, "127.0.0.1", workers=workers, args=files[:2], drain_seconds=0.0) as group:
        group.start()
        before = cpu_seconds(group.pids)
        processes = max(options.workers)
        share = max(options.connections // processes, 1)
        arguments = (what, group.addresses[0], files[2], options.seconds, share)
        clients = [spawn.Process(target=load, args=arguments) for _ in range(processes)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            group.step(0.1)
        used = cpu_seconds(group.pids) - before
        for client in clients:
            client.join()
            if client.exitcode:
                raise SystemExit("a client failed")
        group.step(1.5)  # until the last reports
        group.step(1.5)
        counted = group.statistics()
    lost = sum(one.get("discard.unknown_cid", 0) + one.get("datagrams_forwarded", 0) for one in counted)
    if what == "record" and lost:
        print(f"{lost} records reached a worker that is not theirs", file=sys.stderr)
        raise SystemExit(1)
    name = "datagrams_received" if what == "record" else "handshakes_completed"
    spread = tuple(one.get(name, 0) for one in counted)
    return Cost(1e6 * used / sum(spread), sum(spread), spread)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    costs: dict[tuple[str, int], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as directory:
        files = certificates(Path(directory))
        for _ in range(options.rounds):
            for workers in options.workers:
                for what in ("record", "handshake"):
                    costs.setdefault((what, workers), []).append(turn(what, workers, options, files))
    flat = True
    rows: list[dict[str, Any]] = []
    for what in ("record", "handshake"):
        first = statistics.median(one.micros for one in costs[what, options.workers[0]])
        for workers in options.workers:
            turns = costs[what, workers]
            micros = statistics.median(one.micros for one in turns)
            flat = flat and abs(micros / first - 1) <= FLAT
            row = {
                "what": what,
                "workers": workers,
                "micros": round(micros, 2),
                "low": round(min(one.micros for one in turns), 2),
                "high": round(max(one.micros for one in turns), 2),
                "ratio": round(micros / first, 3),
                "count": sum(one.count for one in turns),
                "spread": turns[-1].spread,
            }
            rows.append(row)
            if not options.json:
                print(
                    f"{what:9}  {workers} workers  {micros:8.2f} us CPU each "
                    f"({row['low']} to {row['high']}), {row['ratio']:.3f} of the first; "
                    f"{row['count']} counted, last turn {list(turns[-1].spread)}"
                )
    if options.json:
        print(json.dumps({"load": os.getloadavg()[0], "rows": rows}))
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
