"""What the presets of sealwire.presets change, measured on loopback.

    python benchmarks/presets.py            # the table of docs/presets.md

For each: the time of a small question and its answer over datagrams (median of 500), how many small
writes of a stream go through in a second and how many of them share a record, and the most memory one
peer can make the server hold in its queues (sent to without the application reading, from the ledger).
"""

from __future__ import annotations

import asyncio
import statistics
import time

import sealwire
from sealwire.drive.aio import Batcher
from sealwire.limits import Limits
from sealwire.presets import PRESETS, Flush, Preset
from tests.configs import client_context, server_context

QUESTIONS = 500
WRITES = 20_000
SMALL = bytes(100)


async def answer(channel: sealwire.drive.DatagramChannel) -> None:
    async for data in channel:
        await channel.send(data)


async def ask(preset: Preset) -> float:
    """Seconds of a question and its answer, median."""
    options = preset.datagrams()
    server = await sealwire.start_datagram_server(answer, "127.0.0.1", 0, context=server_context(), **options)
    async with server:
        port = server.sockets[0].getsockname()[1]
        took = []
        async with sealwire.open_datagram_channel(
            "127.0.0.1", port, context=client_context(), **options
        ) as channel:
            for _ in range(QUESTIONS):
                start = time.perf_counter()
                await channel.send(SMALL)
                await channel.recv()
                took.append(time.perf_counter() - start)
    return statistics.median(took)


async def write(preset: Preset) -> tuple[float, float]:
    """Small writes a second, and writes a record."""
    arrived = asyncio.Event()

    async def count(reader: sealwire.drive.StreamReader, writer: sealwire.drive.StreamWriter) -> None:
        await reader.readexactly(WRITES * len(SMALL))
        arrived.set()
        writer.close()

    server = await sealwire.start_server(count, "127.0.0.1", 0, context=server_context(), **preset.streams())
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await sealwire.open_connection(
            "127.0.0.1", port, context=client_context(), **preset.streams()
        )
        before = writer.statistics()["records_sealed"]
        start = time.perf_counter()
        flush = preset.flush
        async with Batcher(
            writer, seconds=flush.seconds, most_bytes=flush.most_bytes, most_messages=flush.most_messages
        ) as batcher:
            for _ in range(WRITES):
                await batcher.send(SMALL)
        await arrived.wait()
        seconds = time.perf_counter() - start
        records = writer.statistics()["records_sealed"] - before
        writer.close()
        await writer.wait_closed()
    return WRITES / seconds, WRITES / records


async def fill(preset: Preset) -> int:
    """Bytes held for a peer whose messages nobody reads."""
    stuck = asyncio.Event()

    async def idle(_channel: sealwire.drive.DatagramChannel) -> None:
        await stuck.wait()

    options = preset.datagrams()
    server = await sealwire.start_datagram_server(idle, "127.0.0.1", 0, context=server_context(), **options)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with sealwire.open_datagram_channel(
            "127.0.0.1", port, context=client_context(), **options
        ) as channel:
            most = 0
            for _ in range(400):
                await channel.send_many([bytes(1_000)] * min(32, options["limits"].send_queue_bytes // 1_100))
                await asyncio.sleep(0)
                most = max(most, server.top_peers(1)[0].held_bytes if server.connections else 0)
            stuck.set()
    return most


async def main() -> None:
    default = Preset("default", "", Limits(), sealwire.Upkeep(), Flush(), 0.0)
    head = (
        "preset",
        "question and answer",
        "small writes a second",
        "writes a record",
        "held, nobody reading",
    )
    print(f"| {' | '.join(head)} |")
    print("|---|---|---|---|---|")
    for preset in (default, *PRESETS.values()):
        round_trip = await ask(preset)
        writes, shared = await write(preset)
        held = await fill(preset)
        print(
            f"| {preset.name} | {round_trip * 1e6:.0f} us | {writes / 1000:.0f} thousand | {shared:.1f} | "
            f"{held / 1024:.0f} KiB |"
        )


if __name__ == "__main__":
    asyncio.run(main())
