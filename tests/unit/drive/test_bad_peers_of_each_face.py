"""Bad input from strangers and from peers, to every face: a typed error, in time, and nobody else notices.

test_bad_streams.py has the whole of it for an asyncio server of messages; this is the same for threads,
blocking sockets, plain streams and proxies, and for the clients among them.  The engine alone, at every
byte: tests/network/test_stream_boundaries.py.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sealwire.errors import Alert, HandshakeError, PeerAlert, ProtocolError, Truncated
from sealwire.limits import Limits
from sealwire.stcp.frames import word_of
from tests import certificates
from tests.unit.drive.faces import CLIENTS, SECONDS, SERVERS, Honest, ServerFace, eventually
from tests.unit.drive.harness import descriptors
from tests.unit.drive.test_bad_streams import RESET, STRANGERS, hello, to_its_end

HANDSHAKE_SECONDS = 0.4
LIMITS = Limits(handshake_seconds=HANDSHAKE_SECONDS)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before


@pytest.fixture(params=SERVERS)
def face(request: pytest.FixtureRequest) -> Iterator[ServerFace]:
    with SERVERS[request.param](LIMITS, HANDSHAKE_SECONDS) as server:
        yield server


def meanwhile(face: ServerFace, work: Callable[[], Any]) -> Any:
    """What `work` gives, while an honest client asks; afterwards the server is as it was."""
    results: list[Any] = []
    with Honest(face) as honest:
        honest.ask()
        held = face.held()
        thread = threading.Thread(target=lambda: results.append(work()))
        thread.start()
        while thread.is_alive():
            honest.ask()
            assert face.held() < held + LIMITS.handshake_bytes + LIMITS.connection_bytes
            time.sleep(0.002)
        eventually(lambda: face.living() == 1)
        honest.ask()
        eventually(lambda: face.held() <= held)
    eventually(lambda: face.living() == 0)
    assert face.held() == 0
    assert results, "the stranger failed"
    return results[0]


# -- before the handshake


def stranger(port: int, data: bytes, end: str) -> bytes:
    """What a plain TCP client gets for `data`, until the server ends it."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(data)
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return b""
        if end == "close":
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := sock.recv(65_536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger(face: ServerFace, kind: str) -> None:
    make, end = STRANGERS[kind]
    answer = meanwhile(face, lambda: stranger(face.port, make(), end))
    # Nothing, an alert in plaintext, or a handshake and an alert: no word of any other kind.
    assert not answer or answer[0] in (21, 22)
    # Who is gone again before it is accepted never was a connection.
    eventually(lambda: face.failed() == 1 or end == "reset")
    assert face.ends == [None]


def test_a_hello_that_drips(face: ServerFace) -> None:
    """A byte now and then is not progress enough: the handshake has its time and no more."""

    def drip() -> float:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", face.port), SECONDS) as sock:
            try:
                for byte in hello():
                    sock.sendall(bytes((byte,)))
                    time.sleep(0.02)
            except OSError:
                return time.monotonic() - began
        raise AssertionError("the whole hello went through")

    assert meanwhile(face, drip) < HANDSHAKE_SECONDS + 3
    eventually(lambda: face.failed() == 1)


# -- behind a handshake


def raw(data: bytes) -> Callable[[ssl.SSLSocket], str]:
    """Bytes on the wire that TLS did not make."""

    def act(secure: ssl.SSLSocket) -> str:
        os.write(secure.fileno(), data)
        return to_its_end(secure)

    return act


def cut(data: bytes) -> Callable[[ssl.SSLSocket], str]:
    """Bytes on the wire, and the end of TCP."""

    def act(secure: ssl.SSLSocket) -> str:
        os.write(secure.fileno(), data)
        with socket.socket(fileno=os.dup(secure.fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)
        to_its_end(secure)
        return ""

    return act


def reset(secure: ssl.SSLSocket) -> str:
    secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    secure.close()
    return ""


def framed(data: bytes) -> Callable[[ssl.SSLSocket], str]:
    """Bytes inside TLS that are no frames."""

    def act(secure: ssl.SSLSocket) -> str:
        secure.sendall(data)
        return to_its_end(secure)

    return act


ACTS: dict[str, tuple[Callable[[ssl.SSLSocket], str], str]] = {
    "no close_notify": (cut(b""), ""),
    "cut in a header": (cut(b"\x17\x03"), ""),
    "cut in a record": (cut(b"\x17\x03\x03\x00\x40" + bytes(10)), ""),
    "a reset": (reset, ""),
    "a record of 2^14+257": (raw(b"\x17\x03\x03" + (16_384 + 257).to_bytes(2, "big")), "record overflow"),
    "a record of nobody": (raw(b"\x17\x03\x03\x00\x20" + bytes(32)), "bad record mac"),
    "plaintext": (raw(b"\x15\x03\x03\x00\x02\x02\x28"), "unexpected message"),
    "HTTP": (raw(b"GET / HTTP/1.1\r\n\r\n"), "unexpected message"),
}
FRAMES: dict[str, tuple[Callable[[ssl.SSLSocket], str], str]] = {
    "a length beyond the limit": (framed(word_of(33_554_432)), "illegal parameter"),
    "no frame": (framed(b"GET / HTTP/1.1\r\n\r\n"), "decode error"),
    "a reserved bit": (framed(b"\x08\x00\x00\x00"), "decode error"),
    "too many pings": (
        framed(b"\x80\x00\x00\x09\x01\x00\x00\x00\x00\x00\x00\x00\x01" * 99),
        "unexpected message",
    ),
}


def speak(face: ServerFace, act: Callable[[ssl.SSLSocket], str]) -> str:
    """An echo, then `act`; how that ended for the one who did it."""
    context = ssl.create_default_context(cafile=str(certificates.server().cafile))
    if face.messages:
        context.set_alpn_protocols(["stcp/1"])
    said = word_of(2) + b"hi" if face.messages else b"hi"
    with (
        socket.create_connection(("127.0.0.1", face.port), SECONDS) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        secure.sendall(said)
        assert secure.recv(100) == said
        return act(secure).replace("_", " ")


@pytest.mark.parametrize("kind", ACTS)
def test_a_peer_that_breaks_off_or_lies(face: ServerFace, kind: str, request: pytest.FixtureRequest) -> None:
    act, alert = ACTS[kind]
    assert alert in meanwhile(face, lambda: speak(face, act))
    assert face.failed() == 0
    wrong, honest = face.ends
    assert honest is None
    if request.node.callspec.params["face"] == "proxy":
        # The plain service must not take it for an end.
        assert isinstance(wrong, ConnectionResetError)
    else:
        assert type(wrong) is (ProtocolError if alert else Truncated)


@pytest.mark.parametrize("kind", FRAMES)
def test_a_peer_whose_frames_are_none(kind: str) -> None:
    act, alert = FRAMES[kind]
    with SERVERS["threads"](LIMITS, HANDSHAKE_SECONDS) as face:
        assert alert in meanwhile(face, lambda: speak(face, act))
        assert [type(end) for end in face.ends] == [ProtocolError, type(None)]


# -- servers that speak badly, and our clients


@contextmanager
def bad_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """One connection for `serve`, in a thread; the port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(SECONDS)

        def work() -> None:
            accepted, _ = sock.accept()
            accepted.settimeout(SECONDS)
            with accepted:
                try:
                    serve(accepted)
                except (ConnectionError, ssl.SSLError):
                    pass  # the client went

        thread = threading.Thread(target=work)
        thread.start()
        yield sock.getsockname()[1]
        thread.join(SECONDS)
        assert not thread.is_alive()


def says(data: bytes, end: str = "stay") -> Callable[[socket.socket], None]:
    """A server that answers a hello with `data`."""

    def serve(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(data)
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif end == "stay":
            while sock.recv(65_536):
                pass

    return serve


def drips(sock: socket.socket) -> None:
    """Part of a ServerHello, a byte at a time."""
    sock.recv(65_536)
    for byte in b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(100):
        sock.sendall(bytes((byte,)))
        time.sleep(0.02)


def _theirs() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = certificates.server()
    context.load_cert_chain(identity.certfile, identity.keyfile)
    return context


def older(sock: socket.socket) -> None:
    context = _theirs()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(sock, server_side=True):
        pass


def flight_with(change: Callable[[bytes], bytes]) -> Callable[[socket.socket], None]:
    """The first flight of OpenSSL's server, changed on the way."""

    def serve(sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = _theirs().wrap_bio(incoming, outgoing, server_side=True)
        while not outgoing.pending:
            incoming.write(sock.recv(65_536))
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                pass
        sock.sendall(change(outgoing.read()))
        while sock.recv(65_536):
            pass

    return serve


def _behind_the_first_record(flight: bytes, put: bytes) -> bytes:
    end = 5 + int.from_bytes(flight[3:5], "big")
    return flight[:end] + put + flight[end:]


BAD_SERVERS: dict[str, tuple[Callable[[socket.socket], None], type[BaseException], Alert | None]] = {
    "HTTP": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), HandshakeError, Alert.UNEXPECTED_MESSAGE),
    "nothing": (says(b""), TimeoutError, None),
    "nothing, and goes": (says(b"", "close"), Truncated, None),
    "half a header, and goes": (says(b"\x16\x03", "close"), Truncated, None),
    "half a hello, and goes": (says(b"\x16\x03\x03\x00\x7a\x02\x00", "close"), Truncated, None),
    "half a hello, and a reset": (says(b"\x16\x03\x03\x00\x7a\x02\x00", "reset"), Truncated, None),
    "a byte now and then": (drips, TimeoutError, None),
    "a record of 2^14+257": (says(b"\x16\x03\x03\x41\x01"), HandshakeError, Alert.RECORD_OVERFLOW),
    "an alert": (says(b"\x15\x03\x03\x00\x02\x02\x28"), PeerAlert, Alert.HANDSHAKE_FAILURE),
    "TLS 1.2": (older, PeerAlert, Alert.PROTOCOL_VERSION),
    "a record of nobody behind its hello": (
        flight_with(lambda flight: _behind_the_first_record(flight, b"\x17\x03\x03\x00\x20" + bytes(32))),
        HandshakeError,
        Alert.BAD_RECORD_MAC,
    ),
    "bytes behind its hello": (
        flight_with(lambda flight: _behind_the_first_record(flight, b"injected")),
        HandshakeError,
        Alert.UNEXPECTED_MESSAGE,
    ),
    "a flipped bit in its flight": (
        flight_with(lambda flight: flight[:-1] + bytes((flight[-1] ^ 1,))),
        HandshakeError,
        Alert.BAD_RECORD_MAC,
    ),
}


def check(error: BaseException | None, wanted: type[BaseException], alert: Alert | None) -> None:
    assert isinstance(error, wanted), repr(error)
    if alert is not None:
        assert isinstance(error, (ProtocolError, PeerAlert))
        assert error.alert is alert


@pytest.mark.parametrize("kind", BAD_SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_is_none(client: str, kind: str) -> None:
    serve, wanted, alert = BAD_SERVERS[kind]
    began = time.monotonic()
    with bad_server(serve) as port:
        check(CLIENTS[client](port, HANDSHAKE_SECONDS), wanted, alert)
    assert time.monotonic() - began < HANDSHAKE_SECONDS + 5


@pytest.mark.parametrize("kind", ACTS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_breaks_off_or_lies(client: str, kind: str) -> None:
    act, alert = ACTS[kind]
    told: list[str] = []

    def serve(sock: socket.socket) -> None:
        with _theirs().wrap_socket(sock, server_side=True) as secure:
            secure.sendall(secure.recv(100))
            told.append(act(secure).replace("_", " "))

    with bad_server(serve) as port:
        error = CLIENTS[client](port, SECONDS)
    check(error, ProtocolError if alert else Truncated, None)
    assert alert in told[0]
