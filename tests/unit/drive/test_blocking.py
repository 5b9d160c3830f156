"""Blocking sockets, datagrams and streams: in the words of ssl, with honest timeouts, from two threads."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from sealwire.context import Context
from sealwire.drive import DatagramSocket, ListeningSocket, StreamSocket, create_connection, wrap_socket
from sealwire.errors import (
    Alert,
    CertificateError,
    ConfigurationError,
    ConnectionClosed,
    LimitReached,
    PeerAlert,
    Truncated,
)
from sealwire.limits import Limits
from tests import certificates
from tests.certificates import Kind
from tests.configs import client_context, server_context
from tests.unit.drive.harness import descriptors, free_port, udp_socket

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
Handler = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before


@contextmanager
def peer(
    kind: int, handler: Handler, context: Context | None = None, host: str = "127.0.0.1"
) -> Iterator[tuple[int, Future[Any]]]:
    """A server for one connection in a thread: its port, and what the handler returned."""
    context = context or server_context()
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind((host, 0))
    sock.settimeout(10)
    port = sock.getsockname()[1]
    if kind == STREAM:
        sock.listen()

    def serve() -> Any:
        secure = context.wrap_socket(sock, server_side=True)
        if isinstance(secure, ListeningSocket):
            with secure:
                accepted, _ = secure.accept()
            with accepted:
                return handler(accepted)
        with secure:
            return handler(secure)

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        yield port, served
        served.exception(timeout=15)


def echo(secure: StreamSocket | DatagramSocket) -> int:
    """Return everything until the peer closes; how many pieces."""
    pieces = 0
    try:
        while data := secure.recv(65_536):
            secure.sendall(data)
            pieces += 1
    except ConnectionClosed:
        assert isinstance(secure, DatagramSocket)
    return pieces


def connect(
    port: int, kind: int, context: Context | None = None, timeout: float | None = 10, **more: Any
) -> Any:
    return create_connection(
        ("127.0.0.1", port),
        timeout,
        context=context or client_context(),
        kind=kind,  # type: ignore[call-overload]
        **more,
    )


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_echo_and_facts(kind: int) -> None:
    identity = certificates.client()
    context = server_context(client_roots=identity.cafile, alpn=["echo/1"])
    facts: list[Any] = []

    def handler(secure: Any) -> int:
        facts.append((secure.getpeercert(binary_form=True), secure.get_channel_binding()))
        return echo(secure)

    with peer(kind, handler, context) as (port, served):
        with connect(port, kind, client_context(identity=identity, alpn=["echo/1"])) as secure:
            protocol = "TLSv1.3" if kind == STREAM else "DTLSv1.3"
            assert secure.version() == protocol
            assert secure.cipher() == ("TLS_AES_128_GCM_SHA256", protocol, 128)
            assert secure.selected_alpn_protocol() == "echo/1"
            assert ("DNS", "localhost") in secure.getpeercert()["subjectAltName"]
            assert secure.gettimeout() == 10
            assert secure.fileno() >= 0
            assert secure.getpeername() == ("127.0.0.1", port)
            assert secure.getsockname()[0] == "127.0.0.1"
            for data in (b"hello", os.urandom(1_100)):
                assert secure.send(data) == len(data)
                assert secure.recv(2_048) == data
            secure.sendall(b"abc")
            buffer = bytearray(10)
            assert secure.recv_into(buffer) == 3
            assert buffer[:3] == b"abc"
            assert secure.pending() == 0
            assert secure.export_keying_material(b"EXPORTER-x", 7) != bytes(7)
            binding = secure.get_channel_binding("tls-exporter")
        assert secure.fileno() == -1
        secure.close()
        with pytest.raises(ConnectionClosed):
            secure.recv()
        assert served.result() == 3
        assert facts == [(identity.chain[0], binding)]


def test_a_large_stream_from_two_threads() -> None:
    blob = os.urandom(4_000_000)
    with peer(STREAM, echo) as (port, _), connect(port, STREAM) as secure:
        sender = threading.Thread(target=secure.sendall, args=(blob,))
        sender.start()
        got = bytearray()
        while len(got) < len(blob):
            got += secure.recv()
        sender.join()
        assert got == blob


def test_datagrams_from_two_threads() -> None:
    def slow_echo(secure: DatagramSocket) -> None:
        for message in secure:
            secure.send(message)

    with peer(DATAGRAM, slow_echo) as (port, _), connect(port, DATAGRAM) as secure:
        window = threading.Semaphore(50)

        def send() -> None:
            for n in range(1_000):
                window.acquire()
                secure.send(b"%04d" % n)

        sender = threading.Thread(target=send)
        sender.start()
        got = []
        for _ in range(1_000):
            got.append(int(secure.recv()))
            window.release()
        sender.join()
        assert sorted(got) == list(range(1_000))
        # Every record number was used once: none of ours was dropped as a replay.
        assert "discard.replay" not in secure.statistics()


def test_messages_stay_whole() -> None:
    with peer(DATAGRAM, echo) as (port, _), connect(port, DATAGRAM) as secure:
        secure.send(b"x" * secure.max_message_bytes)
        with pytest.raises(ValueError, match="more than 100"):
            secure.recv(100)
        assert secure.pending() == secure.max_message_bytes
        assert secure.recv() == b"x" * secure.max_message_bytes
        with pytest.raises(ValueError, match="above"):
            secure.send(bytes(secure.max_message_bytes + 1))


def test_iterating_ends_when_the_peer_closes() -> None:
    def handler(secure: DatagramSocket) -> None:
        secure.send(b"1")
        secure.send(b"2")

    with peer(DATAGRAM, handler) as (port, _), connect(port, DATAGRAM) as secure:
        assert list(secure) == [b"1", b"2"]


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_timeouts(kind: int) -> None:
    with peer(kind, echo) as (port, _), connect(port, kind) as secure:
        secure.settimeout(0.1)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            secure.recv()
        assert 0.09 < time.monotonic() - start < 2
        secure.setblocking(False)
        assert secure.gettimeout() == 0
        with pytest.raises(BlockingIOError):
            secure.recv()
        secure.setblocking(True)
        secure.send(b"x")
        assert secure.recv() == b"x"
        with pytest.raises(ValueError, match="out of range"):
            secure.settimeout(-1)


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_a_handshake_step_by_step(kind: int) -> None:
    with peer(kind, echo) as (port, _):
        sock = socket.socket(socket.AF_INET, kind)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        secure: Any = wrap_socket(client_context(), sock, server_hostname="localhost")
        with pytest.raises(OSError, match="closed"):
            sock.send(b"the socket is not ours any more") if sock.fileno() >= 0 else _raise_closed()
        for _ in range(2_000):
            try:
                secure.do_handshake()
                break
            except BlockingIOError:
                time.sleep(0.005)
        assert secure.version().endswith("TLSv1.3")
        secure.settimeout(5)
        secure.send(b"x")
        assert secure.recv() == b"x"
        secure.close()


def _raise_closed() -> None:
    raise OSError("closed")


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_failed_handshakes(kind: int) -> None:
    strangers = client_context(certificates.server(Kind.RSA_2048).cafile)
    with peer(kind, echo) as (port, served):
        with pytest.raises(CertificateError):
            connect(port, kind, strangers)
        if kind == STREAM:
            assert isinstance(served.exception(timeout=10), PeerAlert)
        else:
            # A datagram server goes on waiting for a peer that does better.
            with connect(port, kind) as secure:
                secure.send(b"x")
                assert secure.recv() == b"x"
    with peer(kind, echo) as (port, _):
        with pytest.raises(CertificateError):
            connect(port, kind, server_hostname="elsewhere.example")
        if kind == DATAGRAM:
            connect(port, kind).close()


def test_a_client_without_the_certificate_asked_for() -> None:
    asks = server_context(client_roots=certificates.client().cafile)
    with peer(STREAM, echo, asks) as (port, _), connect(port, STREAM) as secure:
        with pytest.raises(PeerAlert) as caught:
            secure.recv()
        assert caught.value.alert is Alert.CERTIFICATE_REQUIRED
        with pytest.raises(PeerAlert):
            secure.send(b"x")


def test_nobody_there() -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(free_port(STREAM), STREAM)
    with pytest.raises(TimeoutError, match="port unreachable was reported"):
        connect(free_port(DATAGRAM), DATAGRAM, timeout=0.2)
    with udp_socket() as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match=f"no answer from 127.0.0.1:{port}"):
            connect(port, DATAGRAM, timeout=0.1)
        with pytest.raises(TimeoutError):
            connect(port, DATAGRAM, timeout=None, limits=Limits(handshake_seconds=0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent_stream, pytest.raises(TimeoutError):
        connect(silent_stream.getsockname()[1], STREAM, timeout=0.1)


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(DATAGRAM, echo) as (port, _):
        ports = (free_port(DATAGRAM), port)
        kind = (socket.AF_INET, DATAGRAM, socket.IPPROTO_UDP, "")
        infos = [(*kind, ("127.0.0.1", each)) for each in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
        start = time.monotonic()
        with connect(1, DATAGRAM) as secure:
            assert secure.getpeername()[1] == port
        assert time.monotonic() - start < 2.5


def test_lost_flights_are_sent_again_inside_calls() -> None:
    """A relay loses the first datagram of each side: time passes only inside calls, and is enough."""
    relay = udp_socket()
    lost = {"up": 1, "down": 1}

    with peer(DATAGRAM, echo) as (port, _):
        upstream = socket.socket(socket.AF_INET, DATAGRAM)
        upstream.connect(("127.0.0.1", port))
        relay.settimeout(0.01)
        upstream.settimeout(0.01)
        stop = threading.Event()

        def forward() -> None:
            client: Any = None
            while not stop.is_set():
                for direction, source in (("up", relay), ("down", upstream)):
                    try:
                        data, address = source.recvfrom(65_535)
                    except OSError:
                        continue
                    if lost[direction]:
                        lost[direction] -= 1
                    elif direction == "up":
                        client = address
                        upstream.send(data)
                    elif client is not None:
                        relay.sendto(data, client)

        thread = threading.Thread(target=forward)
        thread.start()
        try:
            with connect(relay.getsockname()[1], DATAGRAM, timeout=20) as secure:
                secure.send(b"x")
                assert secure.recv() == b"x"
                assert secure.statistics()["retransmissions"] > 0
                assert lost == {"up": 0, "down": 0}
                secure.close()
                time.sleep(0.1)  # until the relay has passed the close_notify on
        finally:
            stop.set()
            thread.join()
            relay.close()
            upstream.close()


def test_unwrap_gives_the_plain_socket_back() -> None:
    def handler(secure: StreamSocket) -> bytes:
        assert secure.recv() == b"secret"
        assert secure.recv() == b""
        plain = secure.unwrap()
        with plain:
            plain.sendall(b"in the clear")
        return b""

    with peer(STREAM, handler) as (port, _):
        secure = connect(port, STREAM)
        secure.sendall(b"secret")
        with secure.unwrap() as plain:
            assert plain.recv(100) == b"in the clear"


def test_half_close() -> None:
    def handler(secure: StreamSocket) -> bytes:
        data = b"".join(iter(secure.recv, b""))
        secure.sendall(data[::-1])
        return data

    with peer(STREAM, handler) as (port, _), connect(port, STREAM) as secure:
        secure.sendall(b"abc")
        secure.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosed):
            secure.send(b"x")
        assert secure.recv() == b"cba"
        assert secure.recv() == b""
        secure.shutdown(socket.SHUT_RD)


def test_a_stream_that_is_cut() -> None:
    def handler(secure: StreamSocket) -> None:
        secure.sendall(b"half")
        secure._sock.close()

    with peer(STREAM, handler) as (port, _), connect(port, STREAM) as secure:
        assert secure.recv() == b"half"
        with pytest.raises(Truncated):
            secure.recv()


def test_what_was_sent_arrives_although_the_sender_closed_at_once() -> None:
    blob = os.urandom(300_000)

    def handler(secure: StreamSocket) -> None:
        assert secure.recv(10) == bytes(10)  # and leaves the rest unread
        secure.sendall(blob)

    with peer(STREAM, handler) as (port, _), connect(port, STREAM) as secure:
        secure.sendall(bytes(50_000))
        assert b"".join(iter(secure.recv, b"")) == blob


def test_a_peer_that_reads_nothing() -> None:
    stop = threading.Event()
    with peer(STREAM, lambda _: stop.wait(10)) as (port, _), connect(port, STREAM, timeout=0.3) as secure:
        try:
            with pytest.raises(TimeoutError):
                secure.sendall(bytes(50_000_000))
        finally:
            stop.set()


def test_files_over_a_socket() -> None:
    with peer(STREAM, echo) as (port, _), connect(port, STREAM) as secure:
        file = secure.makefile("rwb")
        file.write(b"one\ntwo\n")
        file.flush()
        assert file.readline() == b"one\n"
        assert file.readline() == b"two\n"
        text = secure.makefile("r", encoding="utf-8")
        raw = secure.makefile("wb", 0)
        assert raw.write("drei €\n".encode()) == 9
        assert text.readline() == "drei €\n"
        writer = secure.makefile("w", encoding="utf-8")
        writer.write("four\n")
        writer.flush()
        assert text.readline() == "four\n"
        with pytest.raises(ValueError, match="binary"):
            secure.makefile("r", 0)


def test_what_cannot_be_wrapped() -> None:
    with socket.socket() as sock, pytest.raises(ValueError, match="connected"):
        wrap_socket(client_context(), sock, server_hostname="localhost")
    with udp_socket() as sock, pytest.raises(ValueError, match="connected"):
        wrap_socket(client_context(), sock, server_hostname="localhost")
    with udp_socket() as sock, pytest.raises(ValueError, match="client mode"):
        wrap_socket(server_context(), sock, True, "localhost")
    with udp_socket() as sock, pytest.raises(ConfigurationError):
        wrap_socket(Context(server_context().protocol), sock, True)
    with udp_socket() as sock:
        sock.connect(("127.0.0.1", 9))
        with pytest.raises(ConfigurationError, match="name"):
            wrap_socket(client_context(), sock)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other, pytest.raises(ValueError, match="SOCK_STREAM"):
        wrap_socket(client_context(), one)


def test_a_stream_over_a_socketpair() -> None:
    one, other = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(wrap_socket, server_context(), other, server_side=True)
        ours = wrap_socket(client_context(), one, server_hostname="localhost")
        assert isinstance(ours, StreamSocket)
        with ours, theirs.result(10) as secure:
            assert isinstance(secure, StreamSocket)
            ours.send(b"x")
            assert secure.recv() == b"x"


def test_a_datagram_server_serves_the_first_peer_and_nobody_else() -> None:
    with peer(DATAGRAM, echo) as (port, _), connect(port, DATAGRAM) as secure:
        secure.send(b"x")
        assert secure.recv() == b"x"
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            connect(port, DATAGRAM, timeout=0.3)
        secure.send(b"y")
        assert secure.recv() == b"y"


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_two_threads_may_receive(kind: int) -> None:
    with peer(kind, echo) as (port, _), connect(port, kind) as secure, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(secure.recv, 1 if kind == STREAM else 100) for _ in range(2)]
        time.sleep(0.05)
        secure.sendall(b"a")
        secure.sendall(b"b")
        assert sorted(each.result(10) for each in waiting) == [b"a", b"b"]


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_closing_ends_a_wait_in_another_thread(kind: int) -> None:
    with peer(kind, echo) as (port, _), ThreadPoolExecutor(1) as pool:
        secure = connect(port, kind)
        waiting = pool.submit(secure.recv)
        time.sleep(0.05)
        secure.close()
        try:
            assert waiting.result(5) == b""
        except ConnectionClosed:
            pass


def test_a_message_that_never_fits_is_refused() -> None:
    limits = Limits(send_queue_bytes=500)
    with peer(DATAGRAM, echo) as (port, _), connect(port, DATAGRAM, limits=limits) as secure:
        secure.send(b"x" * 100)
        assert secure.recv() == b"x" * 100
        with pytest.raises(LimitReached):
            secure.send(b"x" * 1_000)


def test_a_server_on_every_address_answers_from_the_one_that_was_asked() -> None:
    def handler(secure: DatagramSocket) -> Any:
        echo(secure)
        return secure.getpeername()

    with peer(DATAGRAM, handler, host="0.0.0.0") as (port, served):
        with create_connection(
            ("127.0.0.2", port), 5, context=client_context(), server_hostname="localhost", kind=DATAGRAM
        ) as secure:
            secure.send(b"x")
            assert secure.recv() == b"x"
            here = secure.getsockname()
            # Strangers are not served and do not disturb.
            with udp_socket() as stranger:
                stranger.sendto(b"\x16\xfe\xfd" + bytes(50), ("127.0.0.2", port))
            secure.send(b"y")
            assert secure.recv() == b"y"
        assert served.result(10) == here


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_keys_may_change_at_any_time(kind: int) -> None:
    with peer(kind, echo) as (port, _), connect(port, kind) as secure:
        for n in range(10):
            before = secure.key_usage().sending_epoch
            secure.update_keys(request_peer=n % 2 == 0)
            assert secure.key_usage().sending_epoch > before
            for _ in range(5):
                secure.send(b"x")
                assert secure.recv() == b"x"
        assert secure.statistics()["key_updates"] >= 10
