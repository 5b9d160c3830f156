"""Client certificates and resumption by the faces people use: each peer, each way, asyncio and sockets.

The engines alone have the rest of the table (test_openssl.py, test_python_ssl.py); here two connections
follow each other, both sides show a certificate, and the second one resumes the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sealwire
from sealwire.drive import ListeningSocket
from sealwire.drive.blocking import StreamSocket
from tests import certificates, configs
from tests.interop import features
from tests.interop.programs import Openssl
from tests.interop.sockets import PATIENCE_SECONDS
from tests.unit.drive.faces import in_a_thread
from tests.unit.drive.harness import port_of

FACES = pytest.mark.parametrize("face", ["asyncio", "blocking"])
OURS = certificates.server()
THEIRS = certificates.client()
#: Of each connection: whether it was resumed, and the certificate the client showed.
Seen = list[tuple[bool, bytes | None]]
EXPECTED: Seen = [(False, THEIRS.chain[0]), (True, THEIRS.chain[0])]


# -- our servers


@contextmanager
def our_server(face: str) -> Iterator[tuple[int, Seen]]:
    """Gives each line back in capitals; two connections at most."""
    context = configs.server_context(OURS, client_roots=THEIRS.cafile)
    context.num_tickets = 1
    seen: Seen = []
    with (_aio_server if face == "asyncio" else _blocking_server)(context, seen) as port:
        yield port, seen


@contextmanager
def _aio_server(context: sealwire.Context, seen: Seen) -> Iterator[int]:
    async def handler(reader: Any, writer: Any) -> None:
        seen.append((writer.session_reused, writer.getpeercert(True)))
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with await sealwire.start_server(handler, "127.0.0.1", 0, context=context) as server:
            yield server

    with in_a_thread(make) as server:
        yield port_of(server)


@contextmanager
def _blocking_server(context: sealwire.Context, seen: Seen) -> Iterator[int]:
    plain = socket.create_server(("127.0.0.1", 0))
    plain.settimeout(PATIENCE_SECONDS)
    listening = context.wrap_socket(plain, server_side=True)
    assert isinstance(listening, ListeningSocket)

    def serve() -> None:
        for _ in range(2):
            secure, _ = listening.accept()
            with secure, secure.makefile("rb") as lines:
                seen.append((secure.session_reused, secure.getpeercert(True)))
                for line in lines:
                    secure.sendall(line.upper())

    with listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@features.shows("mutual authentication", "resumption by ticket", peer="Python ssl", they="client")
@FACES
def test_ssl_as_client(face: str) -> None:
    context = ssl.create_default_context(cafile=str(OURS.cafile))
    context.load_cert_chain(THEIRS.certfile, THEIRS.keyfile)
    session = None
    with our_server(face) as (port, seen):
        for turn in range(2):
            with (
                socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as sock,
                context.wrap_socket(sock, server_hostname="localhost", session=session) as secure,
            ):
                secure.sendall(b"quiet\n")
                assert secure.recv(100) == b"QUIET\n"
                assert secure.session_reused is bool(turn)
                session = secure.session
                secure.unwrap()
    assert seen == EXPECTED


@features.shows("mutual authentication", "resumption by ticket", peer="OpenSSL", they="client")
@FACES
def test_s_client(openssl: Openssl, face: str, tmp_path: Path) -> None:
    kept = tmp_path / "session.pem"
    shown = ("-cert", THEIRS.certfile, "-key", THEIRS.keyfile)
    with our_server(face) as (port, seen):
        for options in (("-sess_out", kept), ("-sess_in", kept)):
            with openssl.client(port, OURS.cafile, *shown, *options) as program:
                program.write(b"quiet\n")
                program.wait_for(lambda: program.output == b"QUIET\n", "our line")
                program.wait_for(kept.is_file, "no session")
                program.end_of_input()
                assert program.wait() == 0
    assert seen == EXPECTED


# -- our clients


def our_client(face: str, port: int) -> list[bool]:
    """Two connections, one after the other, a word each: whether they were resumed."""
    context = configs.client_context(OURS.cafile, identity=THEIRS)
    context.session_store = sealwire.SessionStore()
    resumed: list[bool] = []

    async def connect() -> None:
        reader, writer = await sealwire.open_connection(
            "127.0.0.1", port, context=context, server_hostname="localhost"
        )
        writer.write(b"drawer\n")
        assert await reader.readline() == b"reward\n"
        resumed.append(writer.session_reused)
        writer.close()
        await writer.wait_closed()

    for _ in range(2):
        if face == "asyncio":
            asyncio.run(connect())
            continue
        with sealwire.create_connection(
            ("127.0.0.1", port), PATIENCE_SECONDS, context=context, server_hostname="localhost"
        ) as secure:
            assert isinstance(secure, StreamSocket)
            secure.sendall(b"drawer\n")
            with secure.makefile("rb") as lines:
                assert lines.readline() == b"reward\n"
            resumed.append(secure.session_reused)
    return resumed


@features.shows("mutual authentication", "resumption by ticket", peer="Python ssl", they="server")
@FACES
def test_ssl_as_server(face: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(OURS.certfile, OURS.keyfile)
    context.load_verify_locations(cafile=THEIRS.cafile)
    context.verify_mode = ssl.CERT_REQUIRED
    seen: Seen = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE_SECONDS)
            with context.wrap_socket(sock, server_side=True) as secure:
                word = secure.recv(100).strip()
                seen.append((bool(secure.session_reused), secure.getpeercert(True)))
                secure.sendall(word[::-1] + b"\n")
                secure.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert our_client(face, listener.getsockname()[1]) == [False, True]
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert seen == EXPECTED


@features.shows("mutual authentication", "resumption by ticket", peer="OpenSSL", they="server")
@FACES
def test_s_server(openssl: Openssl, face: str) -> None:
    wanted = ("-Verify", "3", "-verify_return_error", "-CAfile", THEIRS.cafile)
    with openssl.server(OURS, "-rev", "-naccept", "2", *wanted) as (program, port):
        assert our_client(face, port) == [False, True]
        assert "Peer certificate: CN = client.example" in program.said
