"""Connection ids through the drivers: a peer whose address changes keeps its channel.

A small relay stands for the network address translator: it forgets its mapping when told to, and the
server sees the same client at another port.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sealwire import dtls
from sealwire.drive import (
    DatagramChannel,
    DatagramSocket,
    create_connection,
    create_datagram_endpoint,
    open_datagram_channel,
    start_datagram_server,
    wrap_socket,
)
from sealwire.drive.udp import Address
from sealwire.errors import Error
from sealwire.tls13.extensions import RETURN_ROUTABILITY, Extension, Extensions
from tests import configs
from tests.unit.drive.harness import echo_datagrams, eventually, port_of, run, udp_socket


class Translator:
    """Carries datagrams between one client and a server; `rebind` gives the client another address."""

    def __init__(self, server_port: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._inside = udp_socket()
        self._outside: list[socket.socket] = []
        self._client: Any = None
        self._loop = asyncio.get_running_loop()
        self.port: int = self._inside.getsockname()[1]
        self._inside.setblocking(False)
        self._loop.add_reader(self._inside.fileno(), self._up)
        self.rebind()

    @property
    def address(self) -> tuple[str, int]:
        """Where the server sees the client now."""
        host, port = self._outside[-1].getsockname()
        return host, port

    def rebind(self) -> None:
        """A new mapping; what comes for the old one goes nowhere from here on."""
        if self._outside:
            self._loop.remove_reader(self._outside[-1].fileno())
        self._outside.append(udp_socket())
        self._outside[-1].setblocking(False)
        self._loop.add_reader(self._outside[-1].fileno(), self._down)

    def _up(self) -> None:
        data, self._client = self._inside.recvfrom(65_535)
        self._outside[-1].sendto(data, self._server)

    def _down(self) -> None:
        self._inside.sendto(self._outside[-1].recv(65_535), self._client)

    def close(self) -> None:
        self._loop.remove_reader(self._inside.fileno())
        self._loop.remove_reader(self._outside[-1].fileno())
        for sock in (self._inside, *self._outside):
            sock.close()


async def say(channel: DatagramChannel, words: bytes) -> bytes:
    """Ask until an answer comes: what was sent to the old mapping is lost."""
    for _ in range(20):
        await channel.send(words)
        try:
            async with asyncio.timeout(0.25):
                while (answer := await channel.recv()) != words:
                    pass
                return answer
        except TimeoutError:
            continue
    raise AssertionError("no answer")


@pytest.mark.requirement("9147-11-7", "9146-3", "9853-1")
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_channel_follows_its_peer_to_another_address(enhanced: bool) -> None:
    channels: list[DatagramChannel] = []

    async def handler(channel: DatagramChannel) -> None:
        channels.append(channel)
        await echo_datagrams(channel)

    async def main() -> None:
        async with await start_datagram_server(
            handler, "127.0.0.1", context=configs.server_context(), cid_bytes=6, enhanced_path_check=enhanced
        ) as server:
            nat = Translator(port_of(server))
            async with open_datagram_channel(
                "127.0.0.1", nat.port, context=configs.client_context(), server_hostname="localhost"
            ) as client:
                assert await say(client, b"one") == b"one"
                [channel] = channels
                assert len(channel.connection.connection_ids.ours) == 6
                for words in (b"two", b"three"):
                    before = nat.address
                    nat.rebind()
                    assert channel.peername == before
                    assert await say(client, words) == words
                    assert channel.peername == nat.address != before
                assert channels == [channel]
                assert server.statistics()["address_changes"] == 2
                assert server.connections == 1
            nat.close()

    run(main())


@pytest.fixture
def without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that know connection ids but no return routability checks."""
    add = Extensions.add

    def but_that(self: Extensions, key: Extension[Any], value: Any) -> None:
        if key is not RETURN_ROUTABILITY:
            add(self, key, value)

    monkeypatch.setattr(Extensions, "add", but_that)


async def rebound(**options: Any) -> tuple[bool, int]:
    """Whether a server heard a client that moved, and how often it moved the channel."""
    heard: list[bytes] = []
    channels: list[DatagramChannel] = []

    async def handler(channel: DatagramChannel) -> None:
        channels.append(channel)
        async for data in channel:
            heard.append(data)  # noqa: PERF401 (the test looks while they come)

    async with await start_datagram_server(
        handler, "127.0.0.1", context=configs.server_context(), **options
    ) as server:
        nat = Translator(port_of(server))
        async with open_datagram_channel(
            "127.0.0.1", nat.port, context=configs.client_context(), server_hostname="localhost"
        ) as client:
            await client.send(b"here")
            await eventually(lambda: heard == [b"here"])
            before = nat.address
            nat.rebind()
            await client.send(b"there")
            await asyncio.sleep(0.05)
            await client.send(b"still there")
            await asyncio.sleep(0.05)
            changes = server.statistics()["address_changes"]
            assert channels[0].peername == (nat.address if changes else before)
        nat.close()
    return heard == [b"here", b"there", b"still there"], changes


@pytest.mark.usefixtures("without_checks")
@pytest.mark.requirement("9147-11-7")
def test_a_peer_that_cannot_be_asked_is_heard_but_not_moved() -> None:
    assert run(rebound()) == (True, 0)


@pytest.mark.usefixtures("without_checks")
def test_the_callback_may_move_such_a_peer() -> None:
    asked: list[tuple[dtls.Connection, Address]] = []

    def may_move(connection: dtls.Connection, address: Address) -> bool:
        asked.append((connection, address))
        return True

    assert run(rebound(on_address_change=may_move)) == (True, 1)
    assert len(asked) == 1


@pytest.mark.usefixtures("without_checks")
def test_a_callback_that_fails_is_reported_and_moves_nothing() -> None:
    def may_move(connection: dtls.Connection, address: Address) -> bool:
        raise RuntimeError("the application's fault")

    assert run(rebound(on_address_change=may_move), reports=2) == (True, 0)


def test_without_ids_a_client_that_moved_is_a_stranger() -> None:
    assert run(rebound(cid_bytes=None)) == (False, 0)


@pytest.mark.requirement("9146-1", "9147-4-7")
def test_a_client_may_want_an_id_of_its_own() -> None:
    async def main() -> None:
        context = configs.server_context()
        async with (
            await start_datagram_server(echo_datagrams, "127.0.0.1", context=context, cid_bytes=0) as server,
            open_datagram_channel(
                "127.0.0.1",
                port_of(server),
                context=configs.client_context(),
                server_hostname="localhost",
                connection_id=b"mine",
            ) as client,
        ):
            assert await say(client, b"hello") == b"hello"
            assert (client.connection.connection_ids.ours, client.connection.connection_ids.theirs) == (
                b"mine",
                b"",
            )

    run(main())


def test_a_serving_protocol_sees_the_new_address_and_answers_there() -> None:
    class Echo(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.seen: list[tuple[bytes, Any]] = []

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.DatagramTransport)
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.seen.append((data, addr))
            self.transport.sendto(data, addr)

    async def main() -> None:
        transport, echo = await create_datagram_endpoint(
            Echo, ("127.0.0.1", 0), context=configs.server_context()
        )
        nat = Translator(transport.get_extra_info("sockname")[1])
        async with open_datagram_channel(
            "127.0.0.1", nat.port, context=configs.client_context(), server_hostname="localhost"
        ) as client:
            assert await say(client, b"one") == b"one"
            assert echo.seen[-1] == (b"one", nat.address)
            nat.rebind()
            assert await say(client, b"two") == b"two"
            assert await say(client, b"three") == b"three"
            assert echo.seen[-1] == (b"three", nat.address)
        nat.close()
        transport.close()
        await asyncio.sleep(0)

    run(main())


def test_a_blocking_server_follows_its_peer() -> None:
    async def main() -> None:
        with udp_socket() as sock:
            sock.settimeout(10)
            port = sock.getsockname()[1]
            names: list[Any] = []

            def serve() -> None:
                with wrap_socket(configs.server_context(), sock, server_side=True, cid_bytes=8) as server:
                    assert isinstance(server, DatagramSocket)
                    for data in server:
                        names.append(server.getpeername())
                        server.send(data)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            nat = Translator(port)
            async with open_datagram_channel(
                "127.0.0.1", nat.port, context=configs.client_context(), server_hostname="localhost"
            ) as client:
                assert await say(client, b"one") == b"one"
                assert names[-1] == nat.address
                nat.rebind()
                assert await say(client, b"two") == b"two"
                assert await say(client, b"three") == b"three"
                assert names[-1] == nat.address
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()
            nat.close()

    run(main())


def test_a_blocking_client_may_want_an_id_of_its_own() -> None:
    with udp_socket() as sock:
        sock.settimeout(10)
        address = sock.getsockname()

        def serve() -> None:
            with wrap_socket(configs.server_context(), sock, server_side=True, cid_bytes=0) as server:
                assert isinstance(server, DatagramSocket)
                server.send(server.recv())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with create_connection(
            address,
            10,
            context=configs.client_context(),
            server_hostname="localhost",
            kind=socket.SOCK_DGRAM,
            connection_id=b"mine",
        ) as client:
            client.send(b"hello")
            assert client.recv() == b"hello"
            assert client.connection.connection_ids.ours == b"mine"
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.requirement("9147-9-9", "9147-11-9")
def test_a_channel_changes_ids_when_told_to() -> None:
    async def main() -> None:
        server = await start_datagram_server(echo_datagrams, "127.0.0.1", context=configs.server_context())
        async with (
            server,
            open_datagram_channel(
                "127.0.0.1",
                port_of(server),
                context=configs.client_context(),
                server_hostname="localhost",
                upkeep=dtls.Upkeep(spare_cids=0),
            ) as channel,
        ):
            assert not channel.rotate_connection_id()
            channel.request_connection_ids(2)
            await eventually(lambda: channel.connection.cids.spare == 2)
            before = channel.connection_ids()
            assert channel.rotate_connection_id()
            after = channel.connection_ids()
            assert before[0] == after[0] == b""
            assert len(before[1]) == len(after[1]) == 8
            assert before[1] != after[1]
            await channel.send(b"under another id")
            assert await channel.recv() == b"under another id"
            with pytest.raises(Error, match="receives no connection ids"):
                channel.offer_connection_ids(1)

    run(main())


def test_a_blocking_socket_changes_ids_when_told_to() -> None:
    plain = udp_socket()
    plain.settimeout(10.0)
    here = plain.getsockname()

    def serve() -> tuple[bytes, bytes]:
        served = wrap_socket(configs.server_context(), plain, server_side=True, cid_bytes=6)
        assert isinstance(served, DatagramSocket)
        with served:
            for message in served:
                served.send(message)
            return served.connection_ids()

    with ThreadPoolExecutor(1) as pool:
        ids = pool.submit(serve)
        with create_connection(
            here,
            10.0,
            context=configs.client_context(),
            server_hostname="localhost",
            kind=socket.SOCK_DGRAM,
        ) as secure:
            secure.request_connection_ids(1)
            secure.send(b"one")
            assert secure.recv() == b"one"
            first = secure.connection_ids()[1]
            assert secure.rotate_connection_id()
            assert secure.connection_ids()[1] != first
            secure.send(b"two")
            assert secure.recv() == b"two"
        assert len(ids.result(10)[0]) == 6
