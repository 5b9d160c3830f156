"""Pre-shared keys through the drivers: which key it was, and no certificate to show."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

import sealwire
from sealwire.crypto.psk import ExternalPsk
from sealwire.drive import DatagramChannel, StreamReader, StreamWriter
from sealwire.drive.facts import Facts
from tests import psks
from tests.psks import SECRET
from tests.unit.drive.harness import echo_datagrams, echo_stream, port_of, run

IMPORTED = ExternalPsk("größe", SECRET, imported=True, context=b"x")
#: Bytes that are no text; a callback is asked for them the way file names are.
RAW = ExternalPsk(b"\xff\x00id", SECRET)
EACH_KEY = pytest.mark.parametrize(
    ("key", "identity"), [(psks.DEVICE, "device"), (IMPORTED, "größe"), (RAW, "\udcff\x00id")]
)


def server_context(key: ExternalPsk, identity: str) -> sealwire.Context:
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.set_psk_server_callback({identity: key}.get)
    return context


def check(facts: Facts, identity: str, protocol: str) -> None:
    assert facts.psk_identity() == identity
    assert facts.getpeercert() is None
    assert facts.getpeercert(binary_form=True) is None
    assert facts.version() == protocol
    assert facts.cipher()[0] == "TLS_AES_128_GCM_SHA256"


@EACH_KEY
def test_datagram_channels(key: ExternalPsk, identity: str) -> None:
    seen: list[DatagramChannel] = []

    async def handler(channel: DatagramChannel) -> None:
        seen.append(channel)
        await echo_datagrams(channel)

    async def main() -> None:
        context = server_context(key, identity)
        async with await sealwire.start_datagram_server(handler, "127.0.0.1", 0, context=context) as server:
            client = psks.client_context(key)
            async with sealwire.open_datagram_channel(
                "127.0.0.1", port_of(server), context=client
            ) as channel:
                await channel.send(b"hello")
                assert await channel.recv() == b"hello"
                for facts in (channel, seen[0]):
                    check(facts, identity, "DTLSv1.3")
                assert channel.get_channel_binding() == seen[0].get_channel_binding()

    run(main())


@EACH_KEY
def test_streams(key: ExternalPsk, identity: str) -> None:
    seen: list[StreamWriter] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        seen.append(writer)
        await echo_stream(reader, writer)

    async def main() -> None:
        context = server_context(key, identity)
        async with await sealwire.start_server(handler, "127.0.0.1", 0, context=context) as server:
            reader, writer = await sealwire.open_connection(
                "127.0.0.1", port_of(server), context=psks.client_context(key)
            )
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            for facts in (reader, writer, seen[0]):
                check(facts, identity, "TLSv1.3")
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_blocking_sockets(kind: socket.SocketKind) -> None:
    seen: list[str | None] = []
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(10)
    address = sock.getsockname()
    if kind == socket.SOCK_STREAM:
        sock.listen()

    def serve() -> None:
        secure: Any = server_context(psks.DEVICE, "device").wrap_socket(sock, server_side=True)
        with secure:
            if kind == socket.SOCK_STREAM:
                secure, _ = secure.accept()
            with secure:
                seen.append(secure.psk_identity())
                secure.send(secure.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    client: Any = sealwire.create_connection(
        address,
        10,
        context=psks.client_context(psks.DEVICE),
        kind=kind,
    )
    with client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        check(client, "device", "TLSv1.3" if kind == socket.SOCK_STREAM else "DTLSv1.3")
    thread.join()
    assert seen == ["device"]


def test_with_certificates_there_is_no_identity() -> None:
    """Also where a key was offered, but not taken."""

    async def main() -> None:
        context = psks.server_context(psks.DEVICE, certified=True)
        async with await sealwire.start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=context
        ) as server:
            client = psks.client_context(ExternalPsk("stranger", SECRET), trusting=True)
            async with sealwire.open_datagram_channel(
                "127.0.0.1", port_of(server), context=client, server_hostname="localhost"
            ) as channel:
                assert channel.psk_identity() is None
                assert channel.getpeercert() is not None

    run(main())
