"""ThreadedServer: socketserver's handlers over TLS, threads that are bounded, strangers, and ends."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import sealwire
from sealwire import stcp
from sealwire.drive.blocking import StreamSocket, ThreadedServer
from sealwire.errors import ConfigurationError, ConnectionClosed
from tests.configs import client_context, server_context


def echo(request: StreamSocket, address: object, server: object) -> None:
    for message in request.messages():
        request.write_message(message)


@contextmanager
def served(handler: Any = echo, **options: Any) -> Iterator[ThreadedServer]:
    options.setdefault("messages", True)
    with ThreadedServer(("127.0.0.1", 0), handler, context=server_context(), **options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(20)
            assert not thread.is_alive()


def connect(server: ThreadedServer, **options: Any) -> StreamSocket:
    options.setdefault("messages", True)
    host, port = server.server_address[:2]
    assert isinstance(host, str)
    secure = sealwire.create_connection((host, port), 10, context=client_context(), **options)
    assert isinstance(secure, StreamSocket)
    return secure


def eventually(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_many_clients_at_once() -> None:
    with served() as server:
        clients = [connect(server) for _ in range(8)]
        for n, client in enumerate(clients):
            client.write_message(str(n).encode())
        assert [client.read_message() for client in clients] == [str(n).encode() for n in range(8)]
        for client in clients:
            client.close()
        eventually(lambda: server.connections == 0)
        assert server.handshakes_completed == 8


class Lines(socketserver.StreamRequestHandler):
    """A handler that knows nothing of TLS."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


def test_a_handler_of_socketserver() -> None:
    with served(Lines, messages=False) as server, connect(server, messages=False) as client:
        client.sendall(b"one\ntwo\n")
        with client.makefile("rb") as lines:
            assert [next(lines), next(lines)] == [b"ONE\n", b"TWO\n"]
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == client.type == socket.SOCK_STREAM
        assert client.compression() is None


def test_threads_are_bounded_and_the_next_ones_wait() -> None:
    with served(threads=2) as server:
        first, second = connect(server), connect(server)
        came = threading.Event()

        def third() -> None:
            with connect(server) as client:
                client.write_message(b"at last")
                assert client.read_message() == b"at last"
            came.set()

        waiting = threading.Thread(target=third)
        waiting.start()
        assert not came.wait(0.3)
        assert server.connections == 2
        first.close()
        assert came.wait(10)
        waiting.join()
        second.close()


def test_strangers_are_counters(capsys: pytest.CaptureFixture[str]) -> None:
    with served(handshake_timeout=0.2, threads=2) as server:
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", server.socket.getsockname()[1])) as sock:
                sock.sendall(data)
                if not data.startswith(b"\x16"):
                    sock.shutdown(socket.SHUT_WR)
                sock.settimeout(10)
                try:
                    while sock.recv(100):
                        pass
                except ConnectionResetError:
                    pass
        eventually(lambda: server.handshakes_failed == 3)
        with connect(server) as client:
            client.write_message(b"still here")
            assert client.read_message() == b"still here"
    assert capsys.readouterr().err == ""


def test_a_handler_that_fails_is_reported_and_a_peer_that_goes_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def handler(request: StreamSocket, address: object, server: object) -> None:
        if request.read_message() == b"fail":
            raise ZeroDivisionError("of the application")
        request.read_message()

    with served(handler) as server:
        with connect(server) as client:
            client.write_message(b"close before the next")
        eventually(lambda: server.connections == 0)
        assert capsys.readouterr().err == ""
        with connect(server) as client:
            client.write_message(b"fail")
            with pytest.raises(ConnectionClosed):
                client.read_message()
        eventually(lambda: server.connections == 0)
        assert "of the application" in capsys.readouterr().err


def test_drain_lets_what_is_under_way_end() -> None:
    with served() as server, connect(server) as client:
        client.write_message(b"under way")
        assert client.read_message() == b"under way"
        done: list[int] = []
        draining = threading.Thread(target=lambda: done.append(server.drain(20)))
        draining.start()
        client.settimeout(0.02)
        while not client.peer_going_away:
            with pytest.raises(TimeoutError):
                client.read_message()
        client.settimeout(10)
        client.write_message(b"one more")
        assert client.read_message() == b"one more"
        client.close()
        draining.join(20)
        assert done == [0]


def test_drain_closes_who_does_not_go() -> None:
    with served() as server, connect(server) as client:
        assert server.drain(0.1) == 1
        with pytest.raises(ConnectionClosed):
            client.read_message()


def test_early_data_and_keepalive_are_passed_on() -> None:
    with served(keepalive=stcp.Keepalive(after=0.02, within=10)) as server, connect(server) as client:
        (secure,) = server._living()
        client.settimeout(0.02)
        while secure.connection.round_trip is None:
            with pytest.raises(TimeoutError):
                client.read_message()


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="threads"):
        ThreadedServer(("127.0.0.1", 0), echo, context=server_context(), threads=0)
    with pytest.raises(ConfigurationError):
        ThreadedServer(("127.0.0.1", 0), echo, context=server_context(), messages="")
    with pytest.raises(ConfigurationError):
        ThreadedServer(("127.0.0.1", 0), echo, context=sealwire.Context(sealwire.PROTOCOL_SERVER))
