"""Peers that speak only the version before: one clear error, soon."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sealwire.drive import open_connection, open_datagram_channel, start_datagram_server, start_server
from sealwire.errors import Alert, HandshakeError, PeerAlert
from tests import certificates
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_datagrams, echo_stream, eventually, free_port, port_of, run

pytestmark = pytest.mark.interop


@contextmanager
def openssl_server(openssl: str, version: str, port: int) -> Iterator[None]:
    identity = certificates.server()
    arguments = ["s_server", version, "-accept", f"127.0.0.1:{port}", "-cert", identity.certfile]
    with subprocess.Popen(
        [openssl, *map(str, arguments), "-key", str(identity.keyfile)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            while b"ACCEPT" not in process.stdout.readline():
                assert process.poll() is None
            yield
        finally:
            process.kill()
            process.communicate()


def test_a_dtls_12_server(program: Callable[[str], str]) -> None:
    async def main() -> None:
        port = free_port(socket.SOCK_DGRAM)
        with openssl_server(program("openssl"), "-dtls1_2", port):
            with pytest.raises(HandshakeError, match=r"only DTLS 1\.2") as caught:
                await open_datagram_channel("127.0.0.1", port, context=client_context(), timeout=10)
            assert caught.value.alert is Alert.PROTOCOL_VERSION

    run(main())


def test_a_tls_12_server(program: Callable[[str], str]) -> None:
    async def main() -> None:
        port = free_port(socket.SOCK_STREAM)
        with openssl_server(program("openssl"), "-tls1_2", port):
            with pytest.raises(PeerAlert) as caught:
                await open_connection("127.0.0.1", port, context=client_context(), timeout=10)
            assert caught.value.alert is Alert.PROTOCOL_VERSION

    run(main())


@pytest.mark.parametrize("version", ["-dtls1_2", "-tls1_2"])
def test_an_older_client(program: Callable[[str], str], version: str) -> None:
    async def main() -> None:
        if version == "-dtls1_2":
            server: object = await start_datagram_server(
                echo_datagrams, "127.0.0.1", 0, context=server_context()
            )
        else:
            server = await start_server(echo_stream, "127.0.0.1", 0, context=server_context())
        port = port_of(server)
        done = await asyncio.to_thread(
            subprocess.run,
            [program("openssl"), "s_client", version, "-connect", f"127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=15,
            check=False,
        )
        assert b"alert protocol version" in done.stderr
        await eventually(lambda: server.connections == 0)  # type: ignore[attr-defined]
        await server.shutdown()  # type: ignore[attr-defined]

    run(main())
