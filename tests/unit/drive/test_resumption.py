"""A session store on a context: every driver puts tickets in and takes them out by itself."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import sealwire
from sealwire.drive import StreamReader, StreamWriter
from sealwire.drive.facts import Facts
from tests import certificates, configs, psks
from tests.unit.drive.harness import echo_datagrams, echo_stream, eventually, port_of, run


def contexts(*, tickets: int = 2) -> tuple[sealwire.Context, sealwire.Context, sealwire.SessionStore]:
    server = configs.server_context()
    server.num_tickets = tickets
    client = configs.client_context()
    client.session_store = store = sealwire.SessionStore()
    return client, server, store


def check(connected: Facts, reused: bool) -> None:
    assert connected.session_reused is reused
    assert connected.getpeercert() is not None


def test_datagram_channels() -> None:
    client, server, store = contexts()

    async def main() -> None:
        async with await sealwire.start_datagram_server(
            echo_datagrams, "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            port = port_of(listening)
            for reused in (False, True, True):
                async with sealwire.open_datagram_channel("localhost", port, context=client) as channel:
                    check(channel, reused)
                    await channel.send(b"hello")
                    assert await channel.recv() == b"hello"
                    # Asked for one after each handshake.
                    await eventually(lambda: len(store) == 1)
            # Under another name the tickets are nobody's.
            async with sealwire.open_datagram_channel(
                "127.0.0.1", port, context=client, server_hostname="localhost"
            ) as channel:
                check(channel, False)

    run(main())


def test_datagram_protocols() -> None:
    client, server, store = contexts()

    async def main() -> None:
        async with await sealwire.start_datagram_server(
            echo_datagrams, "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            for reused in (False, True):
                transport, _ = await sealwire.create_datagram_endpoint(
                    asyncio.DatagramProtocol,
                    remote_addr=("localhost", port_of(listening)),
                    context=client,
                )
                check(transport, reused)
                await eventually(lambda: len(store) == 1)
                transport.close()
                await asyncio.sleep(0)

    run(main())


def test_streams() -> None:
    client, server, store = contexts()

    async def main() -> None:
        async with await sealwire.start_server(
            echo_stream, "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            port = port_of(listening)
            for reused in (False, True):
                reader, writer = await sealwire.open_connection("localhost", port, context=client)
                await echo(reader, writer, reused)
                assert len(store) == 1
            # A socket connected by somebody else is known by its address.
            for reused in (False, True):
                loop = asyncio.get_running_loop()
                sock = socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", port))
                reader, writer = await sealwire.open_connection(
                    sock=sock, context=client, server_hostname="localhost"
                )
                await echo(reader, writer, reused)

    async def echo(reader: StreamReader, writer: StreamWriter, reused: bool) -> None:
        check(writer, reused)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()

    run(main())


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["stream", "datagram"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["create_connection", "wrap_socket"])
def test_blocking_sockets(kind: socket.SocketKind, wrapped: bool) -> None:
    client, server, store = contexts()
    port = 0
    for reused in (False, True):
        plain = socket.socket(socket.AF_INET, kind)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        plain.bind(("127.0.0.1", port))
        port = plain.getsockname()[1]
        if kind is socket.SOCK_STREAM:
            plain.listen()
        plain.settimeout(20)
        reuse: list[Any] = []

        def serve(plain: socket.socket = plain, reuse: list[Any] = reuse) -> None:
            if kind is socket.SOCK_STREAM:
                accepted, _ = plain.accept()
                plain.close()
                accepted.settimeout(20)
                sock: Any = server.wrap_socket(accepted, server_side=True)
            else:
                sock = server.wrap_socket(plain, server_side=True)
            reuse.append(sock.session_reused)
            sock.sendall(sock.recv())
            sock.close()

        thread = in_thread(serve)
        if wrapped:
            bare = socket.socket(socket.AF_INET, kind)
            bare.settimeout(20)
            bare.connect(("127.0.0.1", port))
            sock: Any = client.wrap_socket(bare, server_hostname="localhost")
        else:
            from sealwire.drive import create_connection

            sock = create_connection(
                ("127.0.0.1", port), 20, context=client, server_hostname="localhost", kind=kind
            )
        check(sock, reused)
        sock.sendall(b"hello")
        assert sock.recv() == b"hello"
        sock.close()
        thread.join(20)
        assert reuse == [reused]
        assert len(store) == 1


def test_no_store_no_tickets() -> None:
    """Without a store nothing is asked for and nothing kept."""
    client, server, _ = contexts()
    client.session_store = None
    assert client.config().num_tickets == 0
    with pytest.raises(TypeError, match="SessionStore or None"):
        client.session_store = {}  # type: ignore[assignment]

    async def main() -> None:
        async with await sealwire.start_datagram_server(
            echo_datagrams, "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            for _ in range(2):
                async with sealwire.open_datagram_channel(
                    "localhost", port_of(listening), context=client
                ) as channel:
                    check(channel, False)

    run(main())


@pytest.mark.requirement("8446-PSK-5")
def test_a_ticket_is_not_used_as_somebody_else() -> None:
    """It would bring back the client it was given to, whoever shows which certificate now."""
    own, other = certificates.client(), certificates.client(name="other")
    server = configs.server_context(client_roots=own.cafile)
    server.load_verify_locations(cafile=other.cafile)
    server.num_tickets = 2
    store = sealwire.SessionStore()

    async def main() -> None:
        async with await sealwire.start_datagram_server(
            echo_datagrams, "localhost", 0, context=server, family=socket.AF_INET
        ) as listening:
            for identity, reused in ((own, False), (other, False), (own, True)):
                client = configs.client_context(identity=identity)
                client.session_store = store
                async with sealwire.open_datagram_channel(
                    "localhost", port_of(listening), context=client
                ) as channel:
                    check(channel, reused)
                    before = len(store)
                    await channel.send(b"hello")
                    assert await channel.recv() == b"hello"
                    await eventually(lambda before=before: len(store) >= max(before, 1))

    run(main())


@pytest.mark.requirement("8446-PSK-5")
def test_tickets_that_came_with_a_pre_shared_key_are_not_kept() -> None:
    from sealwire.drive.sessions import Sessions
    from sealwire.tls13.flavor import DTLS
    from tests.unit.tls13.test_tickets import World, first_ticket

    client = psks.client_context(psks.DEVICE)
    client.session_store = store = sealwire.SessionStore()
    sessions = Sessions(client.config(), "DTLS 1.3", "host", 1, "host")

    class ByKey:
        class session:
            psk_identity = b"device"

    sessions.keep(first_ticket(World.make(), DTLS), ByKey())  # type: ignore[arg-type]
    assert len(store) == 0
    # What another version saved is as good as none.
    ByKey.session.psk_identity = None  # type: ignore[assignment]
    store.put(sessions._place, type("T", (), {"expires_at": 1e12, "encode": lambda self: b"junk"})())
    assert sessions.take() is None
