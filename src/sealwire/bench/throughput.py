"""`sealwire bench dtls`: messages from one machine to another for some seconds, in the words of iperf3.

A client opens one channel a stream and says what it wants; the server answers, and each side that
sends does so until the time is over.  At the end each tells the other what it sent and what came, so
that loss is known on both sides.  Requests are repeated until they are answered: nothing here
relies on a datagram to arrive.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import sealwire
from sealwire.drive.aio import DatagramChannel
from sealwire.errors import Error

#: Longest measurement a server takes part in.
MOST_SECONDS: Final = 3_600.0
ALPN: Final = "sealwire-bench/1"
_RUN: Final = 64
_CONTROL: Final = b"{"
_DATA: Final = b"\0"
_REPEAT_SECONDS: Final = 0.2
_ATTEMPTS: Final = 25


class Refused(Exception):
    """The server does not do what was asked of it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for.

    Attributes:
        seconds: how long.
        length: bytes of a message.
        rate: bytes a second for each stream and direction; 0: as fast as can be.
        up, down: whether the client sends, the server sends.
    """

    seconds: float
    length: int
    rate: float = 0.0
    up: bool = True
    down: bool = False

    @staticmethod
    def read(values: Any, most_length: int) -> Order:
        """What somebody sent.  ValueError where it is not an order that can be carried out."""
        order = Order(
            float(values["seconds"]),
            int(values["length"]),
            float(values["rate"]),
            bool(values["up"]),
            bool(values["down"]),
        )
        if not (0 < order.seconds <= MOST_SECONDS and 1 <= order.length <= most_length and order.rate >= 0):
            raise ValueError("an order that cannot be carried out")
        return order


@dataclass(slots=True)
class Count:
    """One direction of one stream: what was sent, what came, in messages and bytes."""

    sent: int = 0
    received: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        return max(self.sent - self.received, 0)


@dataclass(slots=True)
class Outcome:
    """One stream: both directions, as the client knows them at the end."""

    up: Count = field(default_factory=Count)
    down: Count = field(default_factory=Count)


class Stream:
    """One end of a stream: sends, counts what comes, and passes on what is said beside the data."""

    def __init__(self, channel: DatagramChannel) -> None:
        self.channel = channel
        self.count = Count()
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue(16)

    async def listen(self) -> None:
        """Take what comes until the peer closes."""
        count = self.count
        async for batch in self.channel.batches():
            for message in batch:
                if message[:1] == _CONTROL:
                    self._hear(message)
                    continue
                count.received += 1
                count.received_bytes += len(message)

    def _hear(self, message: bytes) -> None:
        try:
            said = json.loads(message)
            if isinstance(said, dict) and not self.said.full():
                self.said.put_nowait(said)
        except ValueError:
            pass  # nobody this program knows says such things

    async def say(self, **what: Any) -> None:
        await self.channel.send(json.dumps(what).encode())

    async def ask(self, answer: str, **what: Any) -> Any:
        """Say it again and again until `answer` comes; TimeoutError or Refused where it does not."""
        for _ in range(_ATTEMPTS):
            await self.say(**what)
            try:
                async with asyncio.timeout(_REPEAT_SECONDS):
                    while True:
                        said = await self.said.get()
                        if "refused" in said:
                            raise Refused(str(said["refused"])[:100])
                        if answer in said:
                            return said[answer]
            except TimeoutError:
                continue
        raise TimeoutError(f"the other side did not say {answer}")

    async def send(self, order: Order) -> None:
        """Send what `order` says, for as long as it says."""
        count, channel = self.count, self.channel
        message = _DATA + os.urandom(order.length - 1)
        run = [message] * _RUN
        channel.pace(order.rate or None)
        start = time.perf_counter()
        end = start + order.seconds
        while time.perf_counter() < end:
            await channel.send_many(run)
            count.sent += _RUN
            count.sent_bytes += _RUN * order.length
            await asyncio.sleep(0)
        channel.pace(None)
        await channel.drain()
        count.seconds = time.perf_counter() - start


async def attend(channel: DatagramChannel) -> None:
    """A server's part of one stream: the handler of its peers."""
    stream = Stream(channel)
    listening = asyncio.ensure_future(stream.listen())
    sending: asyncio.Future[None] | None = None
    used = time.process_time()
    try:
        while not listening.done():
            told = asyncio.ensure_future(stream.said.get())
            await asyncio.wait((told, listening), return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                told.cancel()
                break
            said = told.result()
            if "start" in said and sending is None:
                try:
                    order = Order.read(said["start"], channel.max_message_bytes)
                except (KeyError, TypeError, ValueError):
                    await stream.say(refused="an order this server does not carry out")
                    continue
                used = time.process_time()
                sending = asyncio.ensure_future(stream.send(order) if order.down else asyncio.sleep(0))
            if "start" in said:
                await stream.say(ready=True)
            elif "end" in said and sending is not None and sending.done():  # asked again until it is
                cpu = time.process_time() - used
                await stream.say(result={**asdict(stream.count), "cpu_seconds": cpu})
    except Error:
        pass  # the client is gone
    finally:
        for task in (listening, sending):
            if task is not None:
                task.cancel()


async def measure(
    open_channel: Callable[[], Any],
    order: Order,
    streams: int,
    tell: Callable[[float, list[Stream]], None],
    interval: float,
) -> tuple[list[Outcome], float]:
    """A client's part: what became of each stream, and seconds of CPU the server used.

    Args:
        open_channel: opens a channel, once for each stream.
        tell: told every `interval` seconds how far the streams are.

    Raises:
        TimeoutError: the server does not answer.
        Refused: it does not carry out such an order.
        Error: a connection failed.
    """
    channels = [await open_channel() for _ in range(streams)]
    ends = [Stream(channel) for channel in channels]
    listening = [asyncio.ensure_future(end.listen()) for end in ends]
    try:
        for end in ends:
            await end.ask("ready", start=asdict(order))
        ticking = asyncio.ensure_future(_tick(ends, tell, interval))
        try:
            if order.up:
                await asyncio.gather(*(end.send(order) for end in ends))
            else:
                await asyncio.sleep(order.seconds)
        finally:
            ticking.cancel()
        results = [await end.ask("result", end=True) for end in ends]
    finally:
        for task in listening:
            task.cancel()
        for channel in channels:
            await channel.aclose()
    outcomes = []
    for end, result in zip(ends, results, strict=True):
        own, received = end.count, int(result["received"])
        up = Count(own.sent, received, own.sent_bytes, int(result["received_bytes"]), own.seconds)
        sent, seconds = int(result["sent"]), float(result["seconds"])
        down = Count(sent, own.received, int(result["sent_bytes"]), own.received_bytes, seconds)
        outcomes.append(Outcome(up, down))
    return outcomes, max(float(result["cpu_seconds"]) for result in results)


async def _tick(ends: list[Stream], tell: Callable[[float, list[Stream]], None], interval: float) -> None:
    start = time.perf_counter()
    while True:
        await asyncio.sleep(interval)
        tell(time.perf_counter() - start, ends)


def server_context(certfile: str, keyfile: str) -> sealwire.Context:
    """A server's context that speaks to this program only."""
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(certfile, keyfile)
    context.set_alpn_protocols([ALPN])
    return context


def client_context() -> sealwire.Context:
    """A client's context.  It takes any certificate: what is sent is of no worth to anybody."""
    context = sealwire.Context(sealwire.PROTOCOL_CLIENT)
    context.check_hostname = False
    context.verify_mode = sealwire.CERT_NONE
    context.set_alpn_protocols([ALPN])
    return context
