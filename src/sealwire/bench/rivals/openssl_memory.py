"""Python's ssl (TLS 1.3) and pyOpenSSL (DTLS 1.2) in memory: their engines without sockets.

Both are OpenSSL below Python, driven as their users drive them: one call per message, and BIOs on
the network's side.  All use AES-128-GCM, X25519 and the same certificates as we do; Python's ssl
can be told the suite only by OpenSSL's configuration file, which the contender's environment names.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from sealwire.bench.loops import Loop
from sealwire.bench.measurement import Absent, Bench, Body, Contender, Present, Reading, Role

_MTU: Final = 1200
_CIPHER: Final = b"ECDHE-ECDSA-AES128-GCM-SHA256"
_OPENED_BYTES: Final = 1 << 19
_MOST_RUNS: Final = 8
_DATAGRAM_BYTES: Final = 1 << 16
_FLIGHTS: Final = 20

_CONFIGURATION: Final = """openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = defaults
[defaults]
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""


@cache
def _configuration() -> str:
    """A file that makes Python's ssl use the suite and the group of everybody else."""
    descriptor, name = tempfile.mkstemp(prefix="sealwire-bench-", suffix=".cnf")
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(_CONFIGURATION)
    import atexit

    atexit.register(Path(name).unlink, missing_ok=True)
    return name


def ssl_environment() -> dict[str, str]:
    """The environment that makes Python's ssl use what everybody else uses."""
    return {"OPENSSL_CONF": _configuration()}


def ssl_presence() -> Present | Absent:
    return Present(f"{ssl.OPENSSL_VERSION}, TLS 1.3, AES-128-GCM")


def pyopenssl_presence() -> Present | Absent:
    if importlib.util.find_spec("OpenSSL") is None:
        return Absent("needs the package pyOpenSSL (pip install 'sealwire[bench]')")
    module: Any = importlib.import_module("OpenSSL")
    backend: Any = importlib.import_module("OpenSSL.SSL")
    library = backend.OpenSSL_version(backend.OPENSSL_VERSION).decode()
    return Present(f"pyOpenSSL {module.__version__}, {library}, DTLS 1.2, AES-128-GCM")


# --- Python's ssl ------------------------------------------------------------------------------


class SslPair:
    """Two SSLObjects and the BIOs between them."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self.to_client, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.to_client, self.to_server, server_hostname="localhost")
        self.server = server.wrap_bio(self.to_server, self.to_client, server_side=True)

    def handshake(self, lap: Callable[[int], None] = lambda side: None) -> None:
        """Complete it; `lap` is called after each side's step with 0 for the client, 1 for the server."""
        done = [False, False]
        for _ in range(_FLIGHTS):
            for side, end in enumerate((self.client, self.server)):
                if not done[side]:
                    try:
                        end.do_handshake()
                        done[side] = True
                    except ssl.SSLWantReadError:
                        pass
                    lap(side)
            if all(done):
                # The client takes the tickets, as it would with its first read.
                try:
                    self.client.read(1)
                except ssl.SSLWantReadError:
                    pass
                lap(0)
                return
        raise OSError("the handshake did not complete")


def ssl_contexts(directory: Path, client_auth: bool = False) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server and client with the bench's certificates."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.minimum_version = client.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(directory / "server.pem", directory / "server.key")
    client.load_verify_locations(directory / "ca.pem")
    if client_auth:
        server.load_verify_locations(directory / "ca.pem")
        server.verify_mode = ssl.CERT_REQUIRED
        client.load_cert_chain(directory / "client.pem", directory / "client.key")
    return server, client


class _SslRecords:
    """A Task over an SslPair: write and take out, or put in and read, a run of messages."""

    def __init__(self, directory: Path, size: int, run: int, sealing: bool) -> None:
        pair = SslPair(*ssl_contexts(directory))
        pair.handshake()
        self._pair = pair
        self._messages = [os.urandom(size) for _ in range(run)]
        self._sealing = sealing
        self._runs = 1 if sealing else max(1, min(_MOST_RUNS, _OPENED_BYTES // (run * size)))
        self.units = self._runs * run
        self._sealed: list[bytes] = []
        self._last = b""

    def _seal(self) -> bytes:
        write = self._pair.client.write
        for message in self._messages:
            write(message)
        return self._pair.to_server.read()

    def prepare(self, passes: int) -> None:
        if not self._sealing:
            self._sealed = [self._seal() for _ in range(passes * self._runs)]

    def work(self, passes: int) -> None:
        if self._sealing:
            for _ in range(passes):
                self._last = self._seal()
            return
        put, read = self._pair.to_server.write, self._pair.server.read
        for sealed in self._sealed:
            put(sealed)
            for _ in self._messages:
                self._last = read(1 << 14)

    def verify(self) -> None:
        if self._sealing:
            if sum(map(len, self._messages)) >= len(self._last):
                raise ValueError("what was sealed is too short")
        elif self._last != self._messages[-1]:
            raise ValueError("what was opened is not what was sealed")


def ssl_records(size: int, run: int, sealing: bool) -> Contender:
    return Contender(
        "Python ssl, TLS 1.3",
        Role.RIVAL,
        lambda bench: Loop(bench, _SslRecords(bench.directory, size, run, sealing)),
        presence=ssl_presence,
        environment=ssl_environment,
    )


# --- pyOpenSSL ---------------------------------------------------------------------------------


class DtlsPair:
    """Two DTLS 1.2 connections of pyOpenSSL over memory BIOs, a datagram at a time."""

    def __init__(self, server: Any, client: Any) -> None:
        module: Any = importlib.import_module("OpenSSL.SSL")
        self._want_read = module.WantReadError
        self.client, self.server = module.Connection(client, None), module.Connection(server, None)
        for end in (self.client, self.server):
            end.set_ciphertext_mtu(_MTU)
        self.client.set_tlsext_host_name(b"localhost")
        self.client.set_connect_state()
        self.server.set_accept_state()

    def handshake(self, lap: Callable[[int], None] = lambda side: None) -> None:
        done = [False, False]
        for _ in range(_FLIGHTS):
            for side, (end, other) in enumerate(((self.client, self.server), (self.server, self.client))):
                if not done[side]:
                    try:
                        end.do_handshake()
                        done[side] = True
                    except self._want_read:
                        pass
                flight = take(end, self._want_read)
                lap(side)
                for datagram in flight:
                    other.bio_write(datagram)
            if all(done):
                return
        raise OSError("the handshake did not complete")


def take(end: Any, want_read: type[Exception]) -> list[bytes]:
    """What `end` wants to send."""
    taken = []
    try:
        while True:
            taken.append(end.bio_read(_DATAGRAM_BYTES))
    except want_read:
        return taken


def dtls12_contexts(directory: Path, client_auth: bool = False) -> tuple[Any, Any]:
    """Server and client with the bench's certificates, X25519 and AES-128-GCM."""
    module: Any = importlib.import_module("OpenSSL.SSL")
    server, client = module.Context(module.DTLS_SERVER_METHOD), module.Context(module.DTLS_CLIENT_METHOD)
    for context in (server, client):
        context.set_options(module.OP_NO_QUERY_MTU)
        context.set_cipher_list(_CIPHER)

    def accept(connection: Any, certificate: Any, errno: int, depth: int, good: int) -> bool:
        return bool(good)

    server.use_certificate_chain_file(str(directory / "server.pem"))
    server.use_privatekey_file(str(directory / "server.key"))
    client.load_verify_locations(str(directory / "ca.pem"))
    client.set_verify(module.VERIFY_PEER, accept)
    if client_auth:
        server.load_verify_locations(str(directory / "ca.pem"))
        server.set_verify(module.VERIFY_PEER | module.VERIFY_FAIL_IF_NO_PEER_CERT, accept)
        client.use_certificate_chain_file(str(directory / "client.pem"))
        client.use_privatekey_file(str(directory / "client.key"))
    return server, client


class _DtlsRecords:
    """A Task over a DtlsPair."""

    def __init__(self, directory: Path, size: int, run: int, sealing: bool) -> None:
        pair = DtlsPair(*dtls12_contexts(directory))
        pair.handshake()
        self._pair = pair
        self._messages = [os.urandom(size) for _ in range(run)]
        self._sealing = sealing
        self._runs = 1 if sealing else max(1, min(_MOST_RUNS, _OPENED_BYTES // (run * size)))
        self.units = self._runs * run
        self._sealed: list[bytes] = []
        self._last: Any = b""

    def _seal(self) -> list[bytes]:
        send, out = self._pair.client.send, self._pair.client.bio_read
        sealed = []
        for message in self._messages:
            send(message)
            sealed.append(out(_DATAGRAM_BYTES))
        return sealed

    def prepare(self, passes: int) -> None:
        if not self._sealing:
            self._sealed = [one for _ in range(passes * self._runs) for one in self._seal()]

    def work(self, passes: int) -> None:
        if self._sealing:
            for _ in range(passes):
                self._last = self._seal()
            return
        put, receive = self._pair.server.bio_write, self._pair.server.recv
        for datagram in self._sealed:
            put(datagram)
            self._last = receive(_DATAGRAM_BYTES)

    def verify(self) -> None:
        if self._sealing:
            if any(len(a) <= len(b) for a, b in zip(self._last, self._messages, strict=True)):
                raise ValueError("what was sealed is too short")
        elif self._last != self._messages[-1]:
            raise ValueError("what was opened is not what was sealed")


def dtls12_records(size: int, run: int, sealing: bool) -> Contender:
    return Contender(
        "pyOpenSSL, DTLS 1.2",
        Role.RIVAL,
        lambda bench: Loop(bench, _DtlsRecords(bench.directory, size, run, sealing)),
        presence=pyopenssl_presence,
    )


# --- handshakes --------------------------------------------------------------------------------


class Handshakes:
    """A Body: handshakes one after another, CPU time of each side apart.

    Figures: "" for both, "client", "server"; microseconds of CPU.
    """

    def __init__(self, bench: Bench, pair: Callable[[], SslPair | DtlsPair]) -> None:
        self._stopwatch = bench.stopwatch
        self._pair = pair
        self._sides = [0.0, 0.0]

    def run(self, seconds: float) -> Reading:
        watch = self._stopwatch
        self._sides = [0.0, 0.0]
        count = 0
        while watch.cpu_seconds < seconds or count < 3:
            watch.start()
            self._at = time.process_time()
            self._pair().handshake(self._lap)
            watch.stop()
            count += 1
        client, server = (side / count * 1e6 for side in self._sides)
        return Reading(
            values={"": watch.cpu_seconds / count * 1e6, "client": client, "server": server},
            units=count,
            wall_seconds=watch.wall_seconds,
            cpu_seconds=watch.cpu_seconds,
        )

    def _lap(self, side: int) -> None:
        now = time.process_time()
        self._sides[side] += now - self._at
        self._at = now

    def verify(self) -> None:
        pass  # a handshake that does not complete has raised already

    def close(self) -> None:
        pass


def ssl_handshakes(client_auth: bool) -> Contender:
    def open_(bench: Bench) -> Body:
        contexts = ssl_contexts(bench.directory, client_auth)
        return Handshakes(bench, lambda: SslPair(*contexts))

    return Contender(
        "Python ssl, TLS 1.3", Role.RIVAL, open_, presence=ssl_presence, environment=ssl_environment
    )


def dtls12_handshakes(client_auth: bool) -> Contender:
    def open_(bench: Bench) -> Body:
        contexts = dtls12_contexts(bench.directory, client_auth)
        return Handshakes(bench, lambda: DtlsPair(*contexts))

    return Contender("pyOpenSSL, DTLS 1.2", Role.RIVAL, open_, presence=pyopenssl_presence)
