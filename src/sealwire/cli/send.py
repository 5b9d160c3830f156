"""The demo's sending side: ping, then send a file, over anything with messages or bytes.

The same two functions run over DTLS and plain UDP, over TLS and plain TCP, so what is compared
differs in protection alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sealwire.cli import transfer

Progress = Callable[[float], None]

_PINGS = 50
_PING_SECONDS = 1.0
_WRITE_BYTES = 128 * 1024


class Channel(Protocol):
    """What DatagramChannel and PlainChannel have in common."""

    @property
    def max_message_bytes(self) -> int: ...
    async def send_many(self, messages: Sequence[bytes]) -> None: ...
    async def recv(self) -> bytes: ...


class Reader(Protocol):
    """What sealwire's and asyncio's StreamReader have in common."""

    async def read(self, n: int = -1) -> bytes: ...
    async def readexactly(self, n: int) -> bytes: ...


class Writer(Protocol):
    """What sealwire's and asyncio's StreamWriter have in common."""

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way of sending did."""

    round_trip_seconds: float
    transfer_seconds: float
    intact: bool
    #: Chunks sent again; always 0 over streams, where the kernel does that.
    retransmissions: int


async def over_datagrams(channel: Channel, data: bytes, progress: Progress) -> Measured:
    """Ping and send `data` over a channel of datagrams."""
    times: list[float] = []
    for number in range(_PINGS):
        body = number.to_bytes(transfer.PING_BYTES - 1)
        start = time.perf_counter()
        await channel.send_many([bytes([transfer.PING]) + body])
        try:
            async with asyncio.timeout(_PING_SECONDS):
                while await channel.recv() != bytes([transfer.PONG]) + body:
                    pass
        except TimeoutError:
            continue  # lost: there is no round trip to measure
        times.append(time.perf_counter() - start)

    sender = transfer.Sender(data, channel.max_message_bytes - transfer.DATA_HEADER_BYTES)
    news = asyncio.Event()

    async def listen() -> None:
        while not sender.verdict:
            sender.receive(await channel.recv(), time.perf_counter())
            news.set()

    start = time.perf_counter()
    listener = asyncio.create_task(listen())
    try:
        while not sender.verdict:
            if listener.done():
                listener.result()
            news.clear()
            now = time.perf_counter()
            messages = sender.transmit(now)
            if messages:
                await channel.send_many(messages)
                await asyncio.sleep(0)  # let acknowledgements in
                continue
            progress(sender.acknowledged_bytes / max(len(data), 1))
            try:
                async with asyncio.timeout(sender.deadline() - now):
                    await news.wait()
            except TimeoutError:
                pass
    finally:
        listener.cancel()
    seconds = time.perf_counter() - start
    intact = sender.verdict == hashlib.sha256(data).digest()
    return Measured(statistics.median(times), seconds, intact, sender.retransmissions)


async def over_stream(reader: Reader, writer: Writer, data: bytes, progress: Progress) -> Measured:
    """Ping and send `data` over a stream."""
    times: list[float] = []
    for number in range(_PINGS):
        body = number.to_bytes(transfer.PING_BYTES - 1)
        start = time.perf_counter()
        writer.write(bytes([transfer.PING]) + body)
        await writer.drain()
        await reader.readexactly(transfer.PING_BYTES)
        times.append(time.perf_counter() - start)

    start = time.perf_counter()
    writer.write(transfer.opening(data, 0))
    for at in range(0, len(data), _WRITE_BYTES):
        writer.write(data[at : at + _WRITE_BYTES])
        await writer.drain()
        progress(at / len(data))
    verdict = await reader.readexactly(transfer.VERDICT_BYTES)
    seconds = time.perf_counter() - start
    return Measured(statistics.median(times), seconds, verdict[1:] == hashlib.sha256(data).digest(), 0)
