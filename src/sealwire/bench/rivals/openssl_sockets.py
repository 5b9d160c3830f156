"""pyOpenSSL (DTLS 1.2 over UDP) and Python's ssl (TLS 1.3 over TCP): handshakes through sockets.

Both servers answer one client after another, blocking, which is the cheapest way to drive them.
Python's ssl cannot do datagrams; its row is TCP, connection included.  DTLS 1.2 runs without its
cookie exchange, to its advantage.
"""

from __future__ import annotations

import importlib
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sealwire.bench.closed_loop import closed_loop
from sealwire.bench.measurement import Bench, Body, Contender, Peer, Reading, Role
from sealwire.bench.rivals.openssl_memory import (
    dtls12_contexts,
    pyopenssl_presence,
    ssl_contexts,
    ssl_environment,
    ssl_presence,
    take,
)

_MTU: Final = 1200
_DATAGRAM_BYTES: Final = 1 << 16
_SECONDS: Final = 20.0


class DtlsServer:
    """A Peer: connections by the address datagrams come from."""

    def __init__(self, bench: Bench, client_auth: bool) -> None:
        self._context, _ = dtls12_contexts(bench.directory, client_auth)
        self._module: Any = importlib.import_module("OpenSSL.SSL")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))

    @property
    def address(self) -> Mapping[str, Any]:
        return {"port": self._socket.getsockname()[1]}

    def serve(self) -> None:
        connections: dict[Any, Any] = {}
        want_read = self._module.WantReadError
        while True:
            datagram, address = self._socket.recvfrom(_DATAGRAM_BYTES)
            connection = connections.get(address)
            if connection is None:
                # One at a time, as the clients come.
                connections.clear()
                connection = connections[address] = self._module.Connection(self._context, None)
                connection.set_ciphertext_mtu(_MTU)
                connection.set_accept_state()
            connection.bio_write(datagram)
            try:
                connection.do_handshake()
            except want_read:
                pass
            except self._module.Error:
                del connections[address]
                continue
            for answer in take(connection, want_read):
                self._socket.sendto(answer, address)

    def answer(self, question: str) -> Mapping[str, float]:
        return {}


class DtlsClient:
    """A Body: handshakes with a DtlsServer."""

    def __init__(self, bench: Bench, client_auth: bool) -> None:
        _, self._context = dtls12_contexts(bench.directory, client_auth)
        self._module: Any = importlib.import_module("OpenSSL.SSL")
        self._bench = bench

    def run(self, seconds: float) -> Reading:
        return closed_loop(self._bench, self._handshake)

    def _handshake(self) -> Callable[[], None]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", self._bench.peer["port"]))
        sock.settimeout(_SECONDS)
        connection = self._module.Connection(self._context, None)
        connection.set_ciphertext_mtu(_MTU)
        connection.set_tlsext_host_name(b"localhost")
        connection.set_connect_state()
        want_read = self._module.WantReadError
        while True:
            try:
                connection.do_handshake()
                break
            except want_read:
                pass
            for datagram in take(connection, want_read):
                sock.send(datagram)
            connection.bio_write(sock.recv(_DATAGRAM_BYTES))
        for datagram in take(connection, want_read):
            sock.send(datagram)
        return sock.close

    def verify(self) -> None:
        pass  # a handshake that fails raises

    def close(self) -> None:
        pass


class TlsServer:
    """A Peer: TLS 1.3 over TCP, one connection after another."""

    def __init__(self, bench: Bench, client_auth: bool) -> None:
        self._context, _ = ssl_contexts(bench.directory, client_auth)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)

    @property
    def address(self) -> Mapping[str, Any]:
        return {"port": self._socket.getsockname()[1]}

    def serve(self) -> None:
        open_: list[ssl.SSLSocket] = []
        while True:
            sock, _ = self._socket.accept()
            try:
                open_.append(self._context.wrap_socket(sock, server_side=True))
            except OSError:
                sock.close()
            # Those the client has closed.
            for done in select.select(open_, [], [], 0)[0]:
                open_.remove(done)
                done.close()

    def answer(self, question: str) -> Mapping[str, float]:
        return {}


class TlsClient:
    """A Body: connections and handshakes with a TlsServer."""

    def __init__(self, bench: Bench, client_auth: bool) -> None:
        _, self._context = ssl_contexts(bench.directory, client_auth)
        self._bench = bench

    def run(self, seconds: float) -> Reading:
        return closed_loop(self._bench, self._handshake)

    def _handshake(self) -> Callable[[], None]:
        sock = socket.create_connection(("127.0.0.1", self._bench.peer["port"]), timeout=_SECONDS)
        return self._context.wrap_socket(sock, server_hostname="localhost").close

    def verify(self) -> None:
        pass  # a handshake that fails raises

    def close(self) -> None:
        pass


def dtls12_handshakes(client_auth: bool) -> Contender:
    open_: Callable[[Bench], Body] = partial(DtlsClient, client_auth=client_auth)
    peer: Callable[[Bench], Peer] = partial(DtlsServer, client_auth=client_auth)
    return Contender("pyOpenSSL, DTLS 1.2", Role.RIVAL, open_, peer=peer, presence=pyopenssl_presence)


def ssl_handshakes(client_auth: bool) -> Contender:
    open_: Callable[[Bench], Body] = partial(TlsClient, client_auth=client_auth)
    peer: Callable[[Bench], Peer] = partial(TlsServer, client_auth=client_auth)
    return Contender(
        "Python ssl, TLS 1.3 over TCP",
        Role.RIVAL,
        open_,
        peer=peer,
        presence=ssl_presence,
        environment=ssl_environment,
    )
