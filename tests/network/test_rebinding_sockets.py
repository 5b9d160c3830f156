"""A translator between real sockets forgets its mapping, again and again, while data flows both ways.

Client and server are the asyncio drivers.  The translator counts what it could not deliver: that, and
nothing else, may be missing in the end.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import sealwire
from tests import configs
from tests.interop.sockets import PATIENCE_SECONDS

MOVES = 5
MESSAGES = 40


class Translator:
    """Hides a client behind a port of its own, which changes; also what an attacker on the path would be."""

    def __init__(self, server_port: int) -> None:
        self.server = ("127.0.0.1", server_port)
        self.client: Any = None
        self.inside = self.open(self.up)
        self.outside = self.open(self.down)
        self.forgotten: list[socket.socket] = []
        self.last: bytes = b""

    @property
    def port(self) -> int:
        port = self.inside.getsockname()[1]
        assert isinstance(port, int)
        return port

    @property
    def outer_port(self) -> int:
        port = self.outside.getsockname()[1]
        assert isinstance(port, int)
        return port

    def open(self, readable: Any) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, readable)
        return sock

    def up(self) -> None:
        self.last, self.client = self.inside.recvfrom(65_535)
        self.outside.sendto(self.last, self.server)

    def down(self) -> None:
        self.inside.sendto(self.outside.recv(65_535), self.client)

    def rebind(self) -> None:
        """From now on the server sees another port; what still goes to the old one is lost, and counted."""
        asyncio.get_running_loop().remove_reader(self.outside)
        self.forgotten.append(self.outside)
        self.outside = self.open(self.down)

    def undelivered(self) -> list[bytes]:
        """Datagrams that wait at ports nobody reads any more."""
        found = []
        for sock in self.forgotten:
            while True:
                try:
                    found.append(sock.recv(65_535))
                except BlockingIOError:
                    break
        return found

    def close(self) -> None:
        for sock in (self.inside, self.outside):
            asyncio.get_running_loop().remove_reader(sock)
        for sock in (self.inside, self.outside, *self.forgotten):
            sock.close()


async def until(predicate: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not predicate():
            await asyncio.sleep(0.01)


async def serving(handler: Any) -> Any:
    return await sealwire.start_datagram_server(
        handler, "127.0.0.1", context=configs.server_context(), cid_bytes=8
    )


def opened(translator: Translator) -> Any:
    return sealwire.open_datagram_channel(
        "127.0.0.1", translator.port, context=configs.client_context(), server_hostname="localhost"
    )


@pytest.mark.requirement("9147-11-7", "9146-3", "9853-1", "9853-2")
def test_nothing_is_lost_but_what_went_to_ports_that_were_forgotten() -> None:
    async def scenario() -> None:
        heard_up: list[bytes] = []
        heard_down: list[bytes] = []
        channels: list[Any] = []
        ports: list[int] = []

        async def handler(channel: Any) -> None:
            channels.append(channel)
            async for message in channel:
                heard_up.append(message)
                ports.append(channel.peername[1])

        async with await serving(handler) as server:
            translator = Translator(server.sockets[0].getsockname()[1])
            async with opened(translator) as channel:

                async def listen(note: Any = heard_down.append) -> None:
                    async for message in channel:
                        note(message)

                listener = asyncio.create_task(listen())
                await channel.send(b"up first")
                await until(lambda: heard_up)
                up, down = ["first"], []
                for move in range(MOVES):
                    translator.rebind()
                    for number in range(MESSAGES):
                        up.append(f"{move} {number}")
                        down.append(f"{move} {number}")
                        await channel.send(b"up " + up[-1].encode())
                        await channels[0].send((b"down " + down[-1].encode()).ljust(200, b"."))
                        await asyncio.sleep(0.002)
                    await until(lambda move=move: server.statistics()["address_changes"] == move + 1)
                    assert channels[0].peername[1] == translator.outer_port
                await until(lambda: len(heard_up) == len(up))
                lost: list[bytes] = []

                def accounted() -> bool:
                    lost.extend(each for each in translator.undelivered() if len(each) > 200)
                    return len(heard_down) + len(lost) >= len(down)

                await until(accounted)
                await asyncio.sleep(0.1)
                # Every message up arrived, each once: the id in it is good from anywhere.
                assert sorted(heard_up) == sorted(b"up " + each.encode() for each in up)
                assert len(heard_down) == len(set(heard_down)) == len(down) - len(lost)
                # What went to a forgotten port is a round trip's worth and the check's, not the whole of it.
                assert len(lost) < MOVES * MESSAGES // 2
                assert len(channels) == 1
                assert len(set(ports)) == MOVES + 1
                listener.cancel()
            translator.close()

    asyncio.run(scenario())


@pytest.mark.requirement("9147-11-7", "9853-2", "9853-4")
def test_somebody_who_sends_copies_from_another_socket_gets_challenges_and_no_more() -> None:
    async def scenario() -> None:
        heard: list[bytes] = []
        channels: list[Any] = []

        async def handler(channel: Any) -> None:
            channels.append(channel)
            note = heard.append
            async for message in channel:
                note(message)

        async with await serving(handler) as server:
            port = server.sockets[0].getsockname()[1]
            translator = Translator(port)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
                attacker.bind(("127.0.0.1", 0))
                attacker.setblocking(False)
                async with opened(translator) as channel:
                    await channel.send(b"0")
                    await until(lambda: heard)
                    honest = channels[0].peername
                    spent = gained = 0
                    for number in range(1, 60):
                        translator.server = attacker.getsockname()  # the client's copy does not get through
                        await channel.send(b"%d" % number)
                        await asyncio.sleep(0.003)
                        translator.server = ("127.0.0.1", port)
                        spent += attacker.sendto(translator.last, ("127.0.0.1", port))
                        await channels[0].send(b"for the client only".ljust(300, b"."))
                        await asyncio.sleep(0.003)
                    await until(lambda: len(heard) == 60)
                    await asyncio.sleep(0.5)
                    sizes = set()
                    while True:
                        try:
                            datagram, source = attacker.recvfrom(65_535)
                        except BlockingIOError:
                            break
                        if source[1] == port:
                            sizes.add(len(datagram))
                            gained += len(datagram)
                    assert gained <= 3 * spent
                    assert not sizes or max(sizes) < 100  # no data of the server's
                    assert channels[0].peername == honest
                    assert server.statistics()["address_changes"] == 0
            translator.close()

    asyncio.run(scenario())
