"""Early data through the drivers: sent by name, taken by name, and told when it was lost."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import sealwire
from sealwire import dtls, stcp
from sealwire.drive import DatagramChannel, StreamReader, StreamWriter
from sealwire.dtls import EarlyData
from tests import configs
from tests.unit.drive.harness import eventually, port_of, run

SIZE = 2_000


def contexts() -> tuple[sealwire.Context, sealwire.Context]:
    server = configs.server_context()
    server.num_tickets = 2
    server.max_early_data_size = SIZE
    client = configs.client_context()
    client.session_store = sealwire.SessionStore()
    return client, server


def store_of(client: sealwire.Context) -> sealwire.SessionStore:
    assert client.session_store is not None
    return client.session_store


@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-4")
def test_datagram_channels() -> None:
    """Without a ticket it is not offered; with one the handler finds it apart; refused, it is lost."""
    client, server = contexts()
    seen: list[tuple[list[bytes], EarlyData]] = []

    async def handler(channel: DatagramChannel) -> None:
        seen.append((channel.early_messages(), channel.early_data))
        async for data in channel:
            await channel.send(data)

    async def main() -> None:
        async with await sealwire.start_datagram_server(
            handler, "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            for outcome in (EarlyData.NOT_OFFERED, EarlyData.ACCEPTED, EarlyData.REJECTED):
                opening = sealwire.open_datagram_channel("localhost", port_of(listening), context=client)
                opening.send_replayable(b"one", b"two")
                if outcome is EarlyData.REJECTED:
                    server.set_early_data_window(10)  # as after a restart
                async with opening as channel:
                    assert channel.early_data is outcome
                    await channel.send(b"now")
                    assert await channel.recv() == b"now"
                    await eventually(lambda: len(store_of(client)) == 1)

    run(main())
    # Who was asked for a cookie knows nothing of the first hello.
    assert seen == [
        ([], EarlyData.NOT_OFFERED),
        ([b"one", b"two"], EarlyData.ACCEPTED),
        ([], EarlyData.NOT_OFFERED),
    ]


def test_an_answer_before_the_client_has_finished() -> None:
    client, server = contexts()
    states: list[str] = []

    def on_early_data(connection: dtls.Connection, data: bytes) -> None:
        states.append(connection.state)
        connection.send_before_finished(b"answer to " + data)

    async def handler(channel: DatagramChannel) -> None:
        assert channel.early_messages() == []
        async for _ in channel:
            pass

    async def main() -> None:
        async with await sealwire.start_datagram_server(
            handler, "localhost", 0, context=server, family=socket.AF_INET, on_early_data=on_early_data
        ) as listening:
            port = port_of(listening)
            async with sealwire.open_datagram_channel("localhost", port, context=client):
                await eventually(lambda: len(store_of(client)) == 1)
            opening = sealwire.open_datagram_channel("localhost", port, context=client)
            opening.send_replayable(b"question")
            async with opening as channel:
                assert await channel.recv() == b"answer to question"
                assert channel.early_data is EarlyData.ACCEPTED

    run(main())
    assert states == ["handshaking"]


@pytest.mark.parametrize("where", ["datagrams", "stream"])
def test_a_callback_that_fails(where: str) -> None:
    client, server = contexts()

    def on_early_data(connection: Any, data: bytes) -> None:
        raise RuntimeError("no")

    async def serve_channel(channel: DatagramChannel) -> None:
        async for data in channel:
            await channel.send(data)

    async def serve_stream(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    async def datagrams() -> None:
        async with await sealwire.start_datagram_server(
            serve_channel, "localhost", 0, context=server, family=socket.AF_INET, on_early_data=on_early_data
        ) as listening:
            for _ in range(2):
                opening = sealwire.open_datagram_channel("localhost", port_of(listening), context=client)
                opening.send_replayable(b"x")
                async with opening as channel:
                    await channel.send(b"alive")
                    assert await channel.recv() == b"alive"
                    await eventually(lambda: len(store_of(client)) == 1)

    async def stream() -> None:
        async with await sealwire.start_server(
            serve_stream, "localhost", 0, context=server, family=socket.AF_INET, on_early_data=on_early_data
        ) as listening:
            for _ in range(2):
                reader, writer = await sealwire.open_connection(
                    "localhost", port_of(listening), context=client, send_replayable=b"x"
                )
                writer.write(b"alive")
                assert await reader.read() == b"alive"
                writer.close()
                await writer.wait_closed()

    run(datagrams() if where == "datagrams" else stream(), reports=1)


def test_datagram_protocols() -> None:
    client, server = contexts()
    heard: list[bytes] = []

    class Server(asyncio.DatagramProtocol):
        pass

    def on_early_data(connection: dtls.Connection, data: bytes) -> None:
        heard.append(data)

    async def main() -> None:
        serving, _ = await sealwire.create_datagram_endpoint(
            Server, ("127.0.0.1", 0), context=server, on_early_data=on_early_data
        )
        port = serving.get_extra_info("sockname")[1]
        for outcome in (EarlyData.NOT_OFFERED, EarlyData.ACCEPTED):
            transport, _ = await sealwire.create_datagram_endpoint(
                asyncio.DatagramProtocol,
                remote_addr=("127.0.0.1", port),
                context=client,
                send_replayable=(b"early",),
            )
            assert transport.early_data is outcome
            await eventually(lambda: len(store_of(client)) == 1)
            transport.close()
            await asyncio.sleep(0)
        serving.close()
        await asyncio.sleep(0)

    run(main())
    assert heard == [b"early"]


@pytest.mark.parametrize("callback", [False, True])
def test_streams(callback: bool) -> None:
    client, server = contexts()
    heard: list[bytes] = []

    def on_early_data(connection: stcp.Connection, data: bytes) -> None:
        heard.append(data)
        connection.send_before_finished(b"early answer, ")

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        heard.append(reader.read_early())
        writer.write(await reader.read(100))
        writer.close()

    async def main() -> None:
        async with await sealwire.start_server(
            handler,
            "localhost",
            0,
            context=server,
            family=socket.AF_INET,
            on_early_data=on_early_data if callback else None,
        ) as listening:
            for outcome in (EarlyData.NOT_OFFERED, EarlyData.ACCEPTED, EarlyData.REJECTED):
                if outcome is EarlyData.REJECTED:
                    server.set_early_data_window(10)
                reader, writer = await sealwire.open_connection(
                    "localhost", port_of(listening), context=client, send_replayable=b"early"
                )
                assert writer.early_data is outcome
                writer.write(b"later")
                early = b"early answer, " if callback and outcome is EarlyData.ACCEPTED else b""
                assert await reader.read() == early + b"later"
                writer.close()
                await writer.wait_closed()
            counters = listening.counters
            assert (counters.early_data_accepted, counters.early_data_rejected) == (1, 1)

    run(main())
    assert heard == ([b"", b"early", b"", b""] if callback else [b"", b"early", b""])


@contextmanager
def serving(
    server: sealwire.Context, kind: socket.SocketKind, heard: list[Any], callback: Any
) -> Iterator[tuple[int, threading.Semaphore]]:
    """Two connections, one after the other, to one port; each may come when the semaphore says so."""
    ready = threading.Semaphore(0)
    plain = socket.socket(socket.AF_INET, kind)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    plain.bind(("127.0.0.1", 0))
    plain.settimeout(20)
    port = plain.getsockname()[1]
    if kind is socket.SOCK_STREAM:
        plain.listen()

    def serve() -> None:
        bare: socket.socket = plain
        listening: Any = None
        for turn in range(2):
            if kind is socket.SOCK_STREAM:
                listening = listening or server.wrap_socket(bare, server_side=True, on_early_data=callback)
                ready.release()
                sock, _ = listening.accept()
                early = sock.read_early()
            else:
                if turn:
                    bare = socket.socket(socket.AF_INET, kind)
                    bare.bind(("127.0.0.1", port))
                    bare.settimeout(20)
                ready.release()
                sock = server.wrap_socket(bare, server_side=True, on_early_data=callback)
                early = b"".join(sock.early_messages())
            heard.append((early, sock.early_data))
            sock.sendall(sock.recv())
            sock.close()
        if listening is not None:
            listening.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield port, ready
    finally:
        thread.join(30)
        plain.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["stream", "datagram"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["create_connection", "wrap_socket"])
@pytest.mark.parametrize("callback", [False, True])
def test_blocking_sockets(kind: socket.SocketKind, wrapped: bool, callback: bool) -> None:
    from sealwire.drive import create_connection

    client, server = contexts()
    heard: list[Any] = []
    taken: list[bytes] = []

    def on_early_data(connection: Any, data: bytes) -> None:
        taken.append(data)

    with serving(server, kind, heard, on_early_data if callback else None) as (port, ready):
        for outcome in (EarlyData.NOT_OFFERED, EarlyData.ACCEPTED):
            assert ready.acquire(timeout=20)
            if wrapped:
                bare = socket.socket(socket.AF_INET, kind)
                bare.settimeout(20)
                bare.connect(("127.0.0.1", port))
                sock: Any = client.wrap_socket(bare, server_hostname="localhost", send_replayable=b"early")
            else:
                sock = create_connection(
                    ("127.0.0.1", port),
                    20,
                    context=client,
                    server_hostname="localhost",
                    kind=kind,
                    send_replayable=b"early",
                )
            assert sock.early_data is outcome
            sock.sendall(b"later")
            assert sock.recv() == b"later"
            sock.close()
    assert heard == [
        (b"", EarlyData.NOT_OFFERED),
        (b"" if callback else b"early", EarlyData.ACCEPTED),
    ]
    assert taken == ([b"early"] if callback else [])


def test_more_than_the_ticket_allows_is_not_offered() -> None:
    client, server = contexts()

    async def handler(channel: DatagramChannel) -> None:
        async for data in channel:
            await channel.send(data)

    async def main() -> None:
        async with await sealwire.start_datagram_server(
            handler, "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            for _ in range(2):
                opening = sealwire.open_datagram_channel("localhost", port_of(listening), context=client)
                opening.send_replayable(*[bytes(500)] * 5)
                async with opening as channel:
                    assert channel.early_data is EarlyData.NOT_OFFERED
                    await eventually(lambda: len(store_of(client)) == 1)

    run(main())


def test_the_data_goes_to_one_address_of_a_name() -> None:
    """Where nobody answered it may have been acted on; the next address is not given it as well."""
    from sealwire.drive.aio.client import Target, _offer
    from sealwire.drive.sessions import Sessions
    from sealwire.limits import Limits

    client, server = contexts()
    port = 0

    async def main() -> None:
        nonlocal port
        async with await sealwire.start_datagram_server(
            lambda channel: channel.aclose(), "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            port = port_of(listening)
            async with sealwire.open_datagram_channel("localhost", port, context=client):
                await eventually(lambda: len(store_of(client)) == 1)

    run(main())
    config = client.config()
    target = Target("localhost", port, config, None, Limits(), 1200, None, None, 0, replayable=(b"x",))
    for again in (False, True):
        sessions = Sessions(config, "DTLS 1.3", "localhost", port, "localhost")
        ticket, offers = _offer(target, sessions, again=again)
        assert ticket is not None
        assert offers is not again
        sessions._store.put(sessions._place, ticket)  # type: ignore[union-attr]


def test_settings() -> None:
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    assert context.max_early_data_size == 0
    for bad in (-1, 65_537):
        with pytest.raises(ValueError, match=r"0\.\.65536"):
            context.max_early_data_size = bad
    for bad_window in (0, 61):
        with pytest.raises(sealwire.ConfigurationError, match="at most 60 seconds"):
            context.set_early_data_window(bad_window)
    context = configs.server_context()
    assert context.config().strikes is None
    context.max_early_data_size = 100
    first = context.config().strikes
    assert first is not None
    context.max_early_data_size = 200
    assert context.config().strikes is first
    context.set_early_data_window(60, capacity=5)
    second = context.config().strikes
    assert second is not None
    assert (second.window_seconds, second.capacity) == (60, 5)
    assert second.name != first.name
