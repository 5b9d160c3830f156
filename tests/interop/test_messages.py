"""Message mode with peers that know TLS and docs/wire-stcp.md: a few lines of Python's ssl, and openssl."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import sealwire
from sealwire.drive import StreamReader, StreamWriter
from sealwire.drive.blocking import StreamSocket
from tests import certificates
from tests.configs import client_context, server_context
from tests.interop.programs import Openssl
from tests.unit.drive.harness import port_of, run

pytestmark = pytest.mark.interop


class Speaker:
    """Frames over an ssl.SSLSocket, written from the page."""

    def __init__(self, secure: ssl.SSLSocket) -> None:
        self.secure = secure
        self.incoming = secure.makefile("rb")

    def frame(self, data: bytes, control: int = 0) -> None:
        self.secure.sendall(struct.pack(">I", control << 31 | len(data)) + data)

    def next(self) -> tuple[bool, bytes]:
        (word,) = struct.unpack(">I", self.incoming.read(4))
        return bool(word >> 31), self.incoming.read(word & 0x03FF_FFFF)


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    async for message in reader:
        writer.write_message(message)
        await writer.drain()
    writer.close()


def their_client(port: int, name: str, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(certificates.server().cafile))
    context.set_alpn_protocols([name])
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost", session=session
    )


@pytest.mark.parametrize("application", [True, "echo"])
def test_ssl_as_client(application: bool | str) -> None:
    name = "stcp/1" if application is True else f"stcp/1:{application}"

    def talk(port: int) -> None:
        with their_client(port, name) as secure:
            assert secure.selected_alpn_protocol() == name
            speaker = Speaker(secure)
            for message in (b"", b"hello", bytes(100_000)):
                speaker.frame(message)
                assert speaker.next() == (False, message)
            speaker.frame(b"\x01" + b"12345678", control=1)
            assert speaker.next() == (True, b"\x02" + b"12345678")
            speaker.frame(b"\x03", control=1)
            speaker.frame(b"the last")
            assert speaker.next() == (False, b"the last")
            secure.unwrap().close()

    async def main() -> None:
        async with await sealwire.start_server(
            echo, "127.0.0.1", 0, context=server_context(), messages=application
        ) as server:
            await asyncio.to_thread(talk, port_of(server))

    run(main())


@contextmanager
def their_server(*protocols: str) -> Iterator[tuple[int, list[tuple[bool, bytes]]]]:
    """Echoes messages, answers pings, and keeps every frame that came."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = certificates.server()
    context.load_cert_chain(identity.certfile, identity.keyfile)
    context.set_alpn_protocols(list(protocols))
    seen: list[tuple[bool, bytes]] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as secure:
                speaker = Speaker(secure)
                while True:
                    is_control, body = speaker.next()
                    seen.append((is_control, body))
                    if not is_control:
                        speaker.frame(body)
                    elif body[0] == 1:
                        speaker.frame(b"\x02" + body[1:], control=1)
        except (struct.error, OSError):
            pass  # the end
        except BaseException as error:
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=work)
        thread.start()
        yield listening.getsockname()[1], seen
        thread.join(20)
        assert failures == []


def test_ssl_as_server() -> None:
    with their_server("stcp/1:other", "stcp/1:echo") as (port, seen):
        secure = sealwire.create_connection(
            ("127.0.0.1", port),
            10,
            context=client_context(),
            messages="echo",
            keepalive=sealwire.stcp.Keepalive(after=0.05, within=10),
        )
        assert isinstance(secure, StreamSocket)
        with secure:
            assert secure.application == "echo"
            for message in (b"", b"hello", bytes(100_000)):
                secure.write_message(message)
                assert secure.read_message() == message
            secure.settimeout(0.02)
            while secure.connection.round_trip is None:
                with pytest.raises(TimeoutError):
                    secure.read_message()
            secure.go_away()
            secure.write_message(b"the last")
            secure.settimeout(10)
            assert secure.read_message() == b"the last"
    assert [body for is_control, body in seen if not is_control] == [
        b"",
        b"hello",
        bytes(100_000),
        b"the last",
    ]
    assert (True, b"\x03") in seen


def test_ssl_as_server_that_knows_no_message_mode() -> None:
    with their_server("http/1.1") as (port, seen):
        # It ignores ALPN without anything in common, as OpenSSL's callback in Python does.
        with pytest.raises(sealwire.HandshakeError) as caught:
            sealwire.create_connection(("127.0.0.1", port), 10, context=client_context(), messages=True)
        assert caught.value.alert is sealwire.Alert.NO_APPLICATION_PROTOCOL
    assert seen == []


def test_s_client_sends_frames(openssl: Openssl) -> None:
    async def main() -> None:
        async with await sealwire.start_server(
            echo, "127.0.0.1", 0, context=server_context(), messages=True
        ) as server:

            def talk() -> None:
                cafile = certificates.server().cafile
                with openssl.client(port_of(server), cafile, "-alpn", "stcp/1", "-quiet") as program:
                    sent = (
                        struct.pack(">I", 5) + b"hello" + struct.pack(">I", 0) + struct.pack(">I", 2) + b"hi"
                    )
                    program.write(sent)
                    program.wait_for(lambda: sent in program.output, "our frames")

            await asyncio.to_thread(talk)

    run(main())


def test_s_server_gets_frames(openssl: Openssl) -> None:
    with openssl.server(certificates.server(), "-alpn", "stcp/1") as (program, port):
        secure = sealwire.create_connection(("127.0.0.1", port), 10, context=client_context(), messages=True)
        assert isinstance(secure, StreamSocket)
        with secure:
            secure.write_message(b"hello")
            frame = struct.pack(">I", 5) + b"hello"
            program.wait_for(lambda: frame in program.output, "our frame")
            program.write(struct.pack(">I", 2) + b"hi")
            assert secure.read_message() == b"hi"
