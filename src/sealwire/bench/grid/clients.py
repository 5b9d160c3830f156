"""The clients of the grid: so many, each with one request in flight.

Steady: connections stay.  Churn: each makes some requests and a new connection then.  Throughput:
messages one way, as fast as they are taken, counted at the other end.  An operation that takes longer
than `timeout` ends its client's connection and is an error, as is an answer that is not the question.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import time
from dataclasses import dataclass
from typing import Any, Final

from sealwire.bench.grid.serving import ANSWER, ASK, COUNT
from sealwire.bench.grid.tally import Tally
from sealwire.bench.grid.transports import Transport

# An answer must be the one to this question, not to the one before.
_PAYLOADS: Final = 4
# How often a client looks for operations that take too long.
_WATCH_SECONDS: Final = 0.25


class Mode(enum.StrEnum):
    STEADY = "steady"
    CHURN = "churn"
    THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the server.

    Attributes:
        clients: how many.
        size: bytes of a message.
        mode: see above.
        messages_per_connection: in churn.
        timeout: seconds an operation may take.
        seed: of what messages are made of.
    """

    clients: int
    size: int
    mode: Mode = Mode.STEADY
    messages_per_connection: int = 100
    timeout: float = 10.0
    seed: int = 1


class _Client:
    """One client, its connection and what it asks."""

    def __init__(self, number: int, load: Load) -> None:
        source = random.Random(f"{load.seed}/{number}")  # noqa: S311 - to compare, not to hide
        self.payloads = [source.randbytes(load.size) for _ in range(_PAYLOADS)]
        self.streams: tuple[Any, Any] | None = None
        self.task: asyncio.Task[None] | None = None
        # When the operation in progress began; None between turns.
        self.since: float | None = None
        self.late = False
        self.sent = 0


class Clients:
    """All clients of one process.  `open` first, then as many turns of `run` as wanted."""

    def __init__(self, transport: Transport, load: Load, host: str, port: int) -> None:
        self._transport = transport
        self._load = load
        self._host = host
        self._port = port
        self._clients = [_Client(number, load) for number in range(load.clients)]

    async def open(self) -> None:
        """Connect.  Whatever the first connection that fails raises, with how many there were before it."""
        for number, client in enumerate(self._clients):
            try:
                client.streams = await self._connect()
            except OSError as error:
                made = f"only {number} of {len(self._clients)} connections could be made"
                why = str(error) or f"the next one took more than {self._load.timeout:g} seconds"
                raise OSError(f"{made}: {why}") from error
            if self._load.mode is Mode.THROUGHPUT:
                _, writer = client.streams
                self._transport.framing.send(writer, COUNT)
                self._transport.framing.send(writer, client.payloads[0])
                await writer.drain()
                client.sent = 1

    async def _connect(self) -> tuple[Any, Any]:
        async with asyncio.timeout(self._load.timeout):
            return await self._transport.connect(self._host, self._port)

    async def run(self, seconds: float, tally: Tally) -> float:
        """A turn of so many seconds; the wall seconds it took."""
        work = {Mode.STEADY: self._ask, Mode.CHURN: self._churn, Mode.THROUGHPUT: self._pour}[self._load.mode]
        begin = time.perf_counter()
        end = begin + seconds
        for client in self._clients:
            client.task = asyncio.create_task(work(client, end, tally))
        tasks = [client.task for client in self._clients if client.task is not None]
        watch = asyncio.create_task(self._watch())
        await asyncio.gather(*tasks, return_exceptions=True)
        watch.cancel()
        return time.perf_counter() - begin

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.perf_counter()
            for client in self._clients:
                if client.since is not None and now - client.since > self._load.timeout and client.task:
                    client.late = True
                    client.task.cancel()

    async def _guarded(self, client: _Client, tally: Tally, error: BaseException) -> None:
        """After a failure: count it, and come back with a new connection a little later."""
        tally.failed("TimeoutError" if client.late else error)
        client.late = False
        client.since = None
        if client.streams is not None:
            client.streams[1].close()
            client.streams = None
        await asyncio.sleep(_WATCH_SECONDS)

    async def _ask(self, client: _Client, end: float, tally: Tally) -> None:
        while time.perf_counter() < end:
            try:
                if client.streams is None:
                    client.streams = await self._connect()
                await self._converse(client, end, tally)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and not client.late:
                    raise
                await self._guarded(client, tally, error)
        client.since = None

    async def _converse(self, client: _Client, end: float, tally: Tally, count: int = -1) -> None:
        """Requests, one after the other, until the time is over or there were `count`."""
        assert client.streams is not None
        reader, writer = client.streams
        send, receive = self._transport.framing.send, self._transport.framing.receive
        clock, add, payloads = time.perf_counter, tally.latencies.add, client.payloads
        turn = 0
        now = clock()
        while now < end and turn != count:
            client.since = now
            payload = payloads[turn % _PAYLOADS]
            send(writer, payload)
            await writer.drain()
            answer = await receive(reader)
            after = clock()
            if answer == payload:
                add(after - now)
            else:
                tally.failed("wrong answer")
            turn += 1
            now = after

    async def _churn(self, client: _Client, end: float, tally: Tally) -> None:
        if client.streams is not None:
            client.streams[1].close()
            client.streams = None
        while (now := time.perf_counter()) < end:
            client.since = now
            try:
                client.streams = await self._connect()
                tally.connects.add(time.perf_counter() - now)
                await self._converse(client, end, tally, self._load.messages_per_connection)
                writer = client.streams[1]
                client.streams = None
                writer.close()
                await writer.wait_closed()
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and not client.late:
                    raise
                await self._guarded(client, tally, error)
        client.since = None

    async def _pour(self, client: _Client, end: float, tally: Tally) -> None:
        assert client.streams is not None
        reader, writer = client.streams
        send, payload, clock = self._transport.framing.send, client.payloads[0], time.perf_counter
        before = client.sent
        try:
            while (now := clock()) < end:
                client.since = now
                send(writer, payload)
                await writer.drain()
                client.sent += 1
            send(writer, ASK)
            await writer.drain()
            good, bad = ANSWER.unpack(await self._transport.framing.receive(reader))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not client.late:
                raise
            tally.failed("TimeoutError" if client.late else error)
            client.since = None
            return
        client.since = None
        if bad or good != client.sent:
            tally.failed("message lost or changed")
        tally.messages += client.sent - before

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            if client.streams is not None:
                client.streams[1].close()
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(1):
                        await client.streams[1].wait_closed()
                client.streams = None
