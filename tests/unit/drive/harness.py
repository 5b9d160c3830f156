"""Running drivers in tests: bounded in time, and nothing may be left when it is over."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sealwire.drive import DatagramChannel, StreamReader, StreamWriter

T = TypeVar("T")


def descriptors() -> set[str]:
    """What file descriptors this process has open, by what they lead to."""
    gc.collect()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # the directory itself
    return found


# What makes the loops of `run`; None is asyncio's own.
loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None


def run(main: Coroutine[Any, Any, T], *, seconds: float = 20.0, reports: int | None = 0) -> T:
    """Run `main`.  Fails if it leaves a task or a descriptor, or if the loop was told of more or
    fewer exceptions than `reports`; None means at least one."""
    told: list[dict[str, Any]] = []

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        async with asyncio.timeout(seconds):
            result = await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left: {left}"
        return result

    before = descriptors()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(bounded())
    after = descriptors()
    assert after <= before, f"descriptors left: {after - before}"
    assert told if reports is None else len(told) == reports, told
    return result


async def echo_stream(reader: StreamReader, writer: StreamWriter) -> None:
    """A handler that returns every byte, then closes."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo_datagrams(channel: DatagramChannel) -> None:
    """A handler that returns every message."""
    async for data in channel:
        await channel.send(data)


async def eventually(condition: Any, seconds: float = 5.0) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def port_of(server: Any) -> int:
    port = server.sockets[0].getsockname()[1]
    assert isinstance(port, int)
    return port


def udp_socket() -> socket.socket:
    """A plain bound UDP socket on loopback."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def free_port(kind: int) -> int:
    """A loopback port nobody listens on now."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port
