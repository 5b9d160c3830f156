"""`bench bulk`: DTLS from one process to another as applications send it, beside plain UDP and C stacks.

One connection over loopback, sender and receiver on a CPU each, one message a datagram.  In bulk the
application gives and takes batches (`send_many`, `batches`); in "messages" it awaits one `send` for
each and takes them one by one; in "single" it calls a blocking socket's `send` for each.  The figure
is the highest offered rate at which nothing was lost, the kernel's receive buffer the same for
everybody.  Drivers of C stacks are not paced: their figure is what arrived while they sent flat out,
which flatters them.  Blocks of a run cost everybody in Python the same (`even_allocation`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import sealwire
from sealwire.bench.clocks import Stopwatch
from sealwire.bench.measurement import (
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Promise,
    Reading,
    Role,
)
from sealwire.bench.processes import even_allocation
from sealwire.bench.rate_search import RateSearch
from sealwire.bench.rivals import programs, udp_loop
from sealwire.bench.rows import record, udp
from sealwire.bench.rows.handshake import FULL, contexts, without_crypto
from sealwire.drive import aio

_NAME: Final = "localhost"
_MTU: Final = 1472
# Header, number, length, connection id, type and tag, with some room.
_OVERHEAD_BYTES: Final = 64
# Trains of a call in bulk; messages between two turns of the loop where each is sent by itself.
_TRAINS: Final = 3
_RUN: Final = 64
# Messages a second, by their bytes.
_PROMISED: Final = {64: 145_000.0, 1024: 95_000.0, 1400: 85_000.0, 16_384: 7_200.0}
# Calls between two looks at the clock, as plain UDP has them.
_CALLS: Final = 16
_STILL_SECONDS: Final = 0.02
_MOST_STILL: Final = 100


class Receiver:
    """The Peer: an asyncio server that counts what one client sends."""

    def __init__(self, bench: Bench, batched: bool) -> None:
        self._context, _ = contexts(bench.directory, FULL)
        without_crypto(bench, self._context)
        bench.crypto.switch_runs()
        self._batched = batched
        self._count = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._address: dict[str, Any] = {}

    @property
    def address(self) -> Mapping[str, Any]:
        if not self._ready.wait(10):
            raise OSError("the server did not start")
        return self._address

    def serve(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with await sealwire.start_datagram_server(
            self._take, "127.0.0.1", 0, context=self._context, mtu=_MTU
        ) as server:
            granted = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            self._address = {"port": server.sockets[0].getsockname()[1], "receive_buffer_bytes": granted}
            self._ready.set()
            await server.serve_forever()

    async def _take(self, channel: aio.DatagramChannel) -> None:
        if self._batched:
            async for messages in channel.batches():
                self._count += len(messages)
        else:
            async for _ in channel:
                self._count += 1

    def answer(self, question: str) -> Mapping[str, float]:
        if question == "settled":
            before, still = -1, 0
            while (before != self._count or not before) and still < _MOST_STILL:
                before, still = self._count, still + 1
                time.sleep(_STILL_SECONDS)
        return {"count": float(self._count)}


class Sender(RateSearch):
    """A Body: a client that offers rates."""

    def __init__(self, bench: Bench, batched: bool, size: int) -> None:
        super().__init__(bench)
        _, context = contexts(bench.directory, FULL)
        without_crypto(bench, context)
        bench.crypto.switch_runs()
        self._batched = batched
        run = _TRAINS * record.run_of(size) if batched else _RUN
        self._messages = [os.urandom(size) for _ in range(run)]
        self._loop = asyncio.new_event_loop()
        # A record of 16 KiB is one datagram on loopback.
        self._mtu = max(_MTU, size + _OVERHEAD_BYTES)
        self._channel = self._loop.run_until_complete(self._open(context))

    async def _open(self, context: sealwire.Context) -> aio.DatagramChannel:
        return await sealwire.open_datagram_channel(
            "127.0.0.1", self._bench.peer["port"], context=context, server_hostname=_NAME, mtu=self._mtu
        )

    def send(self, rate: float, seconds: float) -> int:
        return self._loop.run_until_complete(self._send(rate, seconds))

    async def _send(self, rate: float, seconds: float) -> int:
        channel, messages, clock = self._channel, self._messages, time.perf_counter
        start = clock()
        end = start + seconds
        sent = 0
        while clock() < end:
            if rate:
                self.wait_until(start + sent / rate)
            if self._batched:
                await channel.send_many(messages)
            else:
                for message in messages:
                    await channel.send(message)
            sent += len(messages)
            await asyncio.sleep(0)
        await channel.drain()
        return sent

    def close(self) -> None:
        self._loop.run_until_complete(self._channel.aclose())
        self._loop.close()


class SingleReceiver:
    """The Peer: a blocking socket that takes messages one by one."""

    def __init__(self, bench: Bench) -> None:
        context, _ = contexts(bench.directory, FULL)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        self._port: int = sock.getsockname()[1]
        self._socket = context.wrap_socket(sock, server_side=True, mtu=_MTU, do_handshake_on_connect=False)
        self._count = 0

    @property
    def address(self) -> Mapping[str, Any]:
        granted = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return {"port": self._port, "receive_buffer_bytes": granted}

    def serve(self) -> None:
        for _ in self._socket:
            self._count += 1

    def answer(self, question: str) -> Mapping[str, float]:
        if question == "settled":
            before, still = -1, 0
            while (before != self._count or not before) and still < _MOST_STILL:
                before, still = self._count, still + 1
                time.sleep(_STILL_SECONDS)
        return {"count": float(self._count)}


class SingleSender(RateSearch):
    """A Body: a blocking client, a call for each message."""

    def __init__(self, bench: Bench, size: int) -> None:
        super().__init__(bench)
        _, context = contexts(bench.directory, FULL)
        self._message = os.urandom(size)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", bench.peer["port"]))
        self._socket = context.wrap_socket(sock, server_hostname=_NAME, mtu=_MTU)
        self._socket.do_handshake()

    def send(self, rate: float, seconds: float) -> int:
        message, send, clock = self._message, self._socket.send, time.perf_counter
        start = clock()
        end = start + seconds
        sent = 0
        while clock() < end:
            if rate:
                self.wait_until(start + sent / rate)
            for _ in range(_CALLS):
                send(message)
            sent += _CALLS
        return sent

    def close(self) -> None:
        self._socket.close()


def _figures(promise: Promise | None) -> tuple[Figure, ...]:
    return (
        Figure("", "1/s", Kind.RATE, "messages without loss", promise),
        Figure("sender", "us", Kind.TIME, "sender's CPU per message"),
        Figure("receiver", "us", Kind.TIME, "receiver's CPU per message"),
        Figure("cpu", "us", Kind.TIME, "CPU of both per message"),
    )


class RecordCrypto:
    """A Body: what the crypto of a message costs alone, sealing and opening together."""

    def __init__(self, bench: Bench, size: int) -> None:
        self._watches = [Stopwatch(), Stopwatch()]
        self._ways = [
            record.crypto_alone(replace(bench, stopwatch=watch), size, sealing)
            for sealing, watch in zip((True, False), self._watches, strict=True)
        ]

    def run(self, seconds: float) -> Reading:
        for watch in self._watches:
            watch.reset()
        seal, open_ = (way.run(seconds) for way in self._ways)
        return Reading(
            values={"cpu": seal.values[""] + open_.values[""]},
            units=seal.units,
            wall_seconds=seal.wall_seconds + open_.wall_seconds,
            cpu_seconds=seal.cpu_seconds + open_.cpu_seconds,
        )

    def verify(self) -> None:
        for way in self._ways:
            way.verify()

    def close(self) -> None:
        for way in self._ways:
            way.close()


def _ours(batched: bool, size: int) -> tuple[Contender, ...]:
    open_: Callable[[Bench], Body] = partial(Sender, batched=batched, size=size)
    peer: Callable[[Bench], Peer] = partial(Receiver, batched=batched)
    return (
        Contender("sealwire", Role.OURS, open_, peer=peer, environment=even_allocation),
        Contender(
            "sealwire without crypto", Role.WITHOUT_CRYPTO, open_, peer=peer, environment=even_allocation
        ),
        Contender(
            "the crypto alone",
            Role.CRYPTO_ALONE,
            partial(RecordCrypto, size=size),
            presence=record.crypto_alone_presence,
        ),
    )


def _plain(batched: bool, size: int) -> Contender:
    open_: Callable[[Bench], Body] = partial(udp.Sender, batched=batched, size=size)
    peer: Callable[[Bench], Peer] = partial(udp.Receiver, batched=batched, size=size)
    name = "plain UDP, GSO and GRO" if batched else "plain UDP, a call each"
    return Contender(
        name, Role.RIVAL, open_, peer=peer, presence=udp.segmentation, environment=even_allocation
    )


def _row(size: int) -> Measurement:
    return Measurement(
        f"bulk.{size}",
        f"bulk over loopback, messages of {size:,} B, batches",
        _figures(Promise(100_000.0, "above 100,000 small messages a second") if size == 64 else None),
        (
            *_ours(True, size),
            udp_loop.contender(size),
            _plain(False, size),
            _plain(True, size),
            *programs.bulk_contenders(size),
        ),
        # What stands in for the crypto is Python, which costs a part of what it saves.
        crypto_part=(0.3, 2.0),
        crypto_figure="cpu",
    )


def _promised(size: int) -> Promise | None:
    rate = _PROMISED.get(size)
    return None if rate is None else Promise(rate, f"{rate:,.0f} messages of {size:,} B a second")


def _messages(size: int) -> Measurement:
    return Measurement(
        f"bulk.messages.{size}",
        f"one awaited send for each message of {size:,} B",
        _figures(_promised(size)),
        # A tenth of it is crypto, less than its noise: `bulk.N` has the sabotage test.
        (_ours(False, size)[0], _plain(False, size)),
    )


def _single(size: int) -> Measurement:
    open_: Callable[[Bench], Body] = partial(SingleSender, size=size)
    return Measurement(
        f"bulk.single.{size}",
        f"one blocking send for each message of {size:,} B",
        _figures(None),
        (Contender("sealwire", Role.OURS, open_, peer=SingleReceiver), _plain(False, size)),
    )


ROWS: Final = (
    _row(1200),
    _row(64),
    *map(_messages, (64, 1024, 1200, 1400, 16_384)),
    _single(64),
    _single(1200),
)
