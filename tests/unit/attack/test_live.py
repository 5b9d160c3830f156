"""Puppets over real sockets, against a server of ours: each does its misdeed, and the server goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import sealwire
from sealwire.attack import Target
from sealwire.attack.live import assault
from sealwire.attack.puppet import HABITS
from sealwire.drive import aio
from tests import configs


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    ready = threading.Event()
    found: list[int] = []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def echo(channel: aio.DatagramChannel) -> None:
        async for data in channel:
            await channel.send(data)

    async def serve() -> None:
        server = await sealwire.start_datagram_server(echo, "127.0.0.1", 0, context=configs.server_context())
        async with server:
            found.append(server.sockets[0].getsockname()[1])
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(20)
    loop.close()


@pytest.mark.parametrize("name", ["broken", "giant", "acks", "replay"])
def test_a_puppet_misbehaves(port: int, name: str) -> None:
    done = assault(Target("127.0.0.1", port), HABITS[name][0], 1, 1.0, None)
    assert done.misdeeds > 0
    assert done.received > 0
    if name in ("broken", "giant"):
        assert any("fatal alert" in how for how in done.ends)
