"""Keepalive, the path's MTU and closing one way, through the drivers."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sealwire import dtls
from sealwire.drive import (
    DatagramSocket,
    batches,
    create_connection,
    open_datagram_channel,
    pathmtu,
    start_datagram_server,
    wrap_socket,
)
from sealwire.drive.aio import DatagramChannel
from sealwire.errors import ConnectionClosed
from tests import configs
from tests.unit.drive.harness import echo_datagrams, eventually, port_of, run, udp_socket


async def swallow(channel: DatagramChannel) -> None:
    async for _ in channel:
        pass


LARGE = dtls.Upkeep(max_mtu=8972)


async def opened(handler: Any, upkeep: dtls.Upkeep, **options: Any) -> tuple[Any, DatagramChannel]:
    server = await start_datagram_server(
        handler, "127.0.0.1", context=configs.server_context(), upkeep=upkeep, **options
    )
    channel = await open_datagram_channel(
        "127.0.0.1",
        port_of(server),
        context=configs.client_context(),
        server_hostname="localhost",
        upkeep=upkeep,
    )
    return server, channel


@pytest.mark.requirement("9147-4.4-4", "9147-4.4-8", "9147-4.4-9")
def test_a_channel_finds_what_loopback_carries() -> None:
    async def main() -> None:
        server, channel = await opened(echo_datagrams, LARGE)
        async with server, channel:
            sizes: list[int] = []
            channel.on_message_size = sizes.append
            await eventually(lambda: channel.connection.mtu == 8972)
            assert sizes[-1] == channel.max_message_bytes > 8900
            [served] = list(server.endpoints[0])
            await eventually(lambda: served.mtu == 8972)
            await channel.send(bytes(channel.max_message_bytes))
            assert await channel.recv() == bytes(sizes[-1])
            # IP_MTU_DISCOVER is IP_PMTUDISC_PROBE: nobody cuts a datagram.
            assert channel._port.udp.sock.getsockopt(socket.IPPROTO_IP, 10) == 3

    run(main())


def test_without_being_told_to_nothing_is_looked_for() -> None:
    async def main() -> None:
        server, channel = await opened(echo_datagrams, dtls.Upkeep())
        async with server, channel:
            before = channel.max_message_bytes
            await asyncio.sleep(0.1)
            assert channel.max_message_bytes == before
            assert channel.max_probe_bytes == 0
            assert channel._port.udp.sock.getsockopt(socket.IPPROTO_IP, 10) != 3

    run(main())


def test_the_application_says_what_arrived_where_the_peer_cannot_be_asked() -> None:
    async def main() -> None:
        server, channel = await opened(swallow, LARGE, cid_bytes=None)
        async with server, channel:
            before = channel.max_message_bytes
            channel.send_probe(bytes(channel.max_probe_bytes))
            [served] = list(server.endpoints[0])
            await eventually(lambda: served.counters.messages_received == 1)
            assert channel.max_message_bytes == before
            largest = channel.max_probe_bytes
            channel.confirm_message_bytes(largest)
            assert channel.max_message_bytes == largest > before
            channel.deny_message_bytes(largest)
            assert channel.max_message_bytes == before

    run(main())


@pytest.mark.requirement("9147-4.4-6", "9147-4.4-10", "9147-4.4-11")
def test_a_datagram_the_kernel_refuses_is_cut_and_sent_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an interface with an MTU of 600: the handshake goes on in smaller pieces, without a timer."""
    real = batches.send

    def send(sock: Any, entries: Sequence[batches.Entry], connected: bool) -> int:
        largest = [one.size if isinstance(one, dtls.Train) else len(one) for one, _ in entries]
        fitting = next((n for n, size in enumerate(largest) if size > 548), len(entries))
        if not fitting:
            raise OSError(errno.EMSGSIZE, "Message too long")
        return real(sock, entries[:fitting], connected)

    for name in ("send", "plain_send"):
        monkeypatch.setattr(batches, name, send)
    monkeypatch.setattr(pathmtu, "estimate", lambda sock: 548)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        server, channel = await opened(echo_datagrams, dtls.Upkeep())
        async with server, channel:
            assert loop.time() - began < 0.9
            assert channel.connection.mtu == 548
            await channel.send(bytes(channel.max_message_bytes))
            assert len(await channel.recv()) == channel.max_message_bytes < 548

    run(main())


def test_a_channel_notices_that_its_server_is_gone() -> None:
    async def main() -> None:
        server, channel = await opened(echo_datagrams, dtls.Upkeep(keepalive=0.1, keepalive_tries=2))
        async with server, channel:
            await asyncio.sleep(0.5)
            await channel.send(b"still there")
            assert await channel.recv() == b"still there"
            for listener in server._listeners:
                listener.port.close()
            with pytest.raises(TimeoutError, match="2 checks"):
                await channel.recv()

    run(main())


@pytest.mark.requirement("9147-5.10-5", "8446-ALERT-2")
def test_a_channel_closes_one_way() -> None:
    async def count(channel: DatagramChannel) -> None:
        heard = [data async for data in channel]
        await channel.send(b"%d" % len(heard))

    async def main() -> None:
        server, channel = await opened(count, dtls.Upkeep())
        async with server, channel:
            for n in range(3):
                await channel.send(b"%d" % n)
            channel.close_write()
            with pytest.raises(ConnectionClosed):
                await channel.send(b"more")
            assert await channel.recv() == b"3"
            with pytest.raises(ConnectionClosed):
                await channel.recv()
            await eventually(lambda: channel.connection.state == "closed")
            assert channel.connection.error is None

    run(main())


@pytest.mark.requirement("9147-5.10-5")
def test_a_blocking_socket_closes_one_way() -> None:
    plain = udp_socket()
    plain.settimeout(10.0)
    here = plain.getsockname()

    def serve() -> list[bytes]:
        served = wrap_socket(configs.server_context(), plain, server_side=True)
        assert isinstance(served, DatagramSocket)
        with served:
            heard = list(served)
            served.send(b"%d" % len(heard))
            return heard

    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(serve)
        with create_connection(
            here, 10.0, context=configs.client_context(), server_hostname="localhost", kind=socket.SOCK_DGRAM
        ) as secure:
            secure.send(b"one")
            secure.send(b"two")
            secure.shutdown(socket.SHUT_RD)
            secure.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionClosed):
                secure.send(b"three")
            assert secure.recv() == b"2"
        assert heard.result(10) == [b"one", b"two"]
