"""DTLS under asyncio's DatagramProtocol, client and server."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from sealwire.drive import (
    DatagramTransport,
    create_datagram_endpoint,
    open_datagram_channel,
    start_datagram_server,
)
from sealwire.errors import CertificateError, ConnectionClosed, Error
from sealwire.limits import Limits
from tests import certificates
from tests.certificates import Kind
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_datagrams, eventually, free_port, port_of, run
from tests.unit.drive.test_aio_datagrams import Reluctant


class Recorder(asyncio.DatagramProtocol):
    """Writes down what it is called with; echoes if asked to."""

    def __init__(self, *, echo: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.echo = echo
        self.transport: DatagramTransport | None = None

    def last(self) -> tuple[Any, ...]:
        return self.calls[-1]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append(("made",))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.calls.append(("received", data))
        if self.echo and self.transport is not None:
            self.transport.sendto(data, addr)

    def error_received(self, exc: Exception) -> None:
        self.calls.append(("error", type(exc)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", type(exc)))

    def pause_writing(self) -> None:
        self.calls.append(("pause",))

    def resume_writing(self) -> None:
        self.calls.append(("resume",))


def test_a_client_protocol() -> None:
    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=server_context()
        ) as server:
            address = server.sockets[0].getsockname()
            transport, protocol = await create_datagram_endpoint(
                Recorder, remote_addr=address, context=client_context()
            )
            assert protocol.calls == [("made",)]
            transport.sendto(b"one")
            transport.sendto(b"two")
            await eventually(lambda: len(protocol.calls) == 3)
            assert protocol.calls[1:] == [("received", b"one"), ("received", b"two")]
            assert transport.version() == transport.peer(address).version() == "DTLSv1.3"
            assert transport.get_extra_info("peername") == address
            assert transport.get_extra_info("cipher") == transport.cipher()
            assert transport.get_extra_info("peercert") == transport.getpeercert()
            assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
            assert isinstance(transport.get_extra_info("socket"), socket.socket)
            assert transport.get_extra_info("nonsense", 1) == 1
            with pytest.raises(ValueError, match="above"):
                transport.sendto(bytes(2_000))
            transport.close()
            transport.close()
            assert transport.is_closing()
            await asyncio.sleep(0)
            assert protocol.last() == ("lost", type(None))
            transport.sendto(b"late")
            assert protocol.last()[0] == "error"
            await eventually(lambda: server.connections == 0)

    run(main())


def test_a_serving_protocol() -> None:
    async def main() -> None:
        transport, protocol = await create_datagram_endpoint(
            lambda: Recorder(echo=True), local_addr=("127.0.0.1", 0), context=server_context()
        )
        port = transport.get_extra_info("sockname")[1]
        async with (
            open_datagram_channel("127.0.0.1", port, context=client_context()) as first,
            open_datagram_channel("127.0.0.1", port, context=client_context()) as second,
        ):
            await first.send(b"1")
            await second.send(b"2")
            assert await first.recv() == b"1"
            assert await second.recv() == b"2"
            assert transport.peer(first.sockname).version() == "DTLSv1.3"
            with pytest.raises(Error):
                transport.version()
            with pytest.raises(ConnectionClosed):
                transport.peer(("127.0.0.1", 1))
            transport.sendto(b"x", ("127.0.0.1", 1))
            assert protocol.last() == ("error", ConnectionClosed)
            transport.close()
            assert [data async for data in first] == []
        assert protocol.last() == ("lost", type(None))

    run(main())


def test_the_peer_goes() -> None:
    async def main() -> None:
        async def handler(channel: Any) -> None:
            await channel.send(b"bye")

        async with await start_datagram_server(handler, "127.0.0.1", 0, context=server_context()) as server:
            _, protocol = await create_datagram_endpoint(
                Recorder, remote_addr=("127.0.0.1", port_of(server)), context=client_context()
            )
            await eventually(lambda: protocol.last()[0] == "lost")
            assert protocol.calls == [("made",), ("received", b"bye"), ("lost", type(None))]

    run(main())


def test_writing_is_paused_while_the_socket_is_full() -> None:
    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=server_context()
        ) as server:
            transport, protocol = await create_datagram_endpoint(
                Recorder,
                remote_addr=("127.0.0.1", port_of(server)),
                context=client_context(),
                limits=Limits(send_queue_bytes=10_000),
            )
            assert transport._port is not None
            reluctant = Reluctant(transport._port.udp)
            reluctant.taking = False
            transport.sendto(bytes(1_000))
            await asyncio.sleep(0.01)
            while protocol.last() != ("pause",):
                assert len(protocol.calls) < 5
                transport.sendto(bytes(1_000))
            low, high = transport.get_write_buffer_limits()
            assert (low, high) == (1_250, 5_000)
            assert high < transport.get_write_buffer_size() <= high + 1_100
            for _ in range(10):
                transport.sendto(bytes(1_000))
            assert protocol.last()[0] == "error"  # the queue has an end
            assert transport.get_write_buffer_size() <= 10_000
            reluctant.taking = True
            await eventually(lambda: ("resume",) in protocol.calls)
            transport.abort()
            await asyncio.sleep(0)

    run(main())


def test_marks_of_a_transport_that_serves() -> None:
    """Each peer counts by itself: one that is full pauses the protocol, until its queue has ebbed."""

    async def main() -> None:
        transport, protocol = await create_datagram_endpoint(
            Recorder, local_addr=("127.0.0.1", 0), context=server_context()
        )
        address = transport.get_extra_info("sockname")
        clients = [
            await create_datagram_endpoint(Recorder, remote_addr=address, context=client_context())
            for _ in range(2)
        ]
        for client, _ in clients:
            client.sendto(b"here")
        await eventually(lambda: len(protocol.calls) == 3)
        peers = [client.get_extra_info("sockname") for client, _ in clients]
        assert transport._port is not None
        reluctant = Reluctant(transport._port.udp)
        reluctant.taking = False
        transport.sendto(bytes(500), peers[0])
        await asyncio.sleep(0.01)
        for peer in peers:
            for _ in range(3):
                transport.sendto(bytes(500), peer)
        size = transport.get_write_buffer_size()
        assert 3_000 <= size <= 4_000
        assert ("pause",) not in protocol.calls
        transport.set_write_buffer_limits(high=1_000, low=0)
        assert protocol.calls.count(("pause",)) == 1
        with pytest.raises(ValueError, match="high"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.sendto(bytes(500), peers[0])
        assert protocol.calls.count(("pause",)) == 1
        reluctant.taking = True
        await eventually(lambda: ("resume",) in protocol.calls)
        assert protocol.calls.count(("resume",)) == 1
        assert transport.get_write_buffer_size() == 0
        for client, _ in clients:
            client.abort()
        transport.abort()
        await asyncio.sleep(0)

    run(main())


def test_no_connection_no_protocol() -> None:
    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=server_context()
        ) as server:
            strangers = client_context(certificates.server(Kind.RSA_2048).cafile)
            with pytest.raises(CertificateError):
                await create_datagram_endpoint(
                    Recorder, remote_addr=("127.0.0.1", port_of(server)), context=strangers
                )
        with pytest.raises(TimeoutError):
            await create_datagram_endpoint(
                Recorder,
                remote_addr=("127.0.0.1", free_port(socket.SOCK_DGRAM)),
                context=client_context(),
                timeout=0.1,
            )
        with pytest.raises(ValueError, match="local_addr"):
            await create_datagram_endpoint(Recorder, context=client_context())

    run(main())


def test_a_failing_protocol_is_reported_and_lives_on() -> None:
    class Failing(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"bad":
                raise RuntimeError("a mistake in the application")

    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=server_context()
        ) as server:
            transport, protocol = await create_datagram_endpoint(
                Failing, remote_addr=("127.0.0.1", port_of(server)), context=client_context()
            )
            transport.sendto(b"bad")
            transport.sendto(b"good")
            await eventually(lambda: protocol.last() == ("received", b"good"))
            transport.close()
            await asyncio.sleep(0)

    run(main(), reports=1)
