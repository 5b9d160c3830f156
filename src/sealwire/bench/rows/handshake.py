"""`bench handshake`: full, with client certificate, and with a retry; in memory and over loopback UDP.

In memory both engines run in one process and the CPU of each side is taken apart.  Over UDP client
and server are processes on different CPUs, driven as applications drive them (blocking socket,
asyncio server), the cookie exchange included; handshakes follow one another, so that rate times
mean latency must be one: Little's law with one client.

The group is X25519, the suite AES-128-GCM, the certificates P-256 and verified, as for all rivals; a
chain that was accepted before is remembered, as in a program that connects again, and the row
"first" is what the first connection costs.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import sealwire
from sealwire import dtls
from sealwire.bench.closed_loop import closed_loop
from sealwire.bench.crypto_replay import Replay
from sealwire.bench.loops import Loop, clock_check
from sealwire.bench.measurement import (
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Promise,
    Reading,
    Role,
)
from sealwire.bench.rivals import openssl_memory, openssl_sockets, programs
from sealwire.context import Config, Context
from sealwire.crypto.certificates import CertificateVerifier
from sealwire.drive import aio, blocking

_SUITE: Final = "TLS_AES_128_GCM_SHA256"
_GROUP: Final = "x25519"
_NAME: Final = "localhost"
_ADDRESS: Final = ("192.0.2.1", 4433)  # in memory only
#: All clients of the bench are one address, which is no flood here.
LIMITS: Final = sealwire.Limits(
    connections=1 << 16,
    prefix_connections=1 << 16,
    prefix_handshakes=1 << 10,
    site_connections=1 << 16,
    hello_replies_per_second=1 << 16,
    hello_replies_per_prefix_per_second=1 << 16,
    hello_reply_bytes_per_second=1 << 28,
)
# More than any handshake here needs.
_MOST_ROUNDS: Final = 12
_FEWEST: Final = 5

#: How the handshakes of the rows differ.
FULL: Final = "full"
FIRST: Final = "first"
CLIENT_AUTH: Final = "client-auth"
RETRY: Final = "retry"


def contexts(directory: Path, variant: str) -> tuple[Context, Context]:
    """Server and client for one variant."""
    server, client = Context(sealwire.PROTOCOL_SERVER), Context(sealwire.PROTOCOL_CLIENT)
    server.load_cert_chain(directory / "server.pem", directory / "server.key")
    client.load_verify_locations(cafile=directory / "ca.pem")
    for context in (server, client):
        context.set_ciphersuites(_SUITE)
        context.set_groups(_GROUP)
    if variant == CLIENT_AUTH:
        server.load_verify_locations(cafile=directory / "ca.pem")
        server.verify_mode = sealwire.CERT_REQUIRED
        client.load_cert_chain(directory / "client.pem", directory / "client.key")
    elif variant == RETRY:
        # The client offers its share of a group the server does not take, and is sent back for another.
        client.set_groups(["secp256r1", _GROUP])
        client.set_key_shares(["secp256r1"])
    return server, client


def without_crypto(bench: Bench, context: Context) -> None:
    """Where the bench says so, take the crypto out of what drivers make with `context`."""
    if not bench.crypto.on:
        frozen = bench.crypto.config(context.config())
        # Drivers ask the context at each new peer; that is where the crypto goes.
        anything: Any = context
        anything.config = lambda: frozen


class _Forgetful:
    """The verifier of a Config that never saw a chain before."""

    def __init__(self, verifier: CertificateVerifier) -> None:
        self._verifier = verifier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier.afresh(), name)


def _asked_by(client: Context, variant: str) -> Config:
    config = client.config()
    forgetful: Any = _Forgetful(config.verifier)
    return replace(config, verifier=forgetful) if variant == FIRST else config


class Memory:
    """A Body: handshakes between two engines in one process."""

    def __init__(self, bench: Bench, variant: str) -> None:
        server, client = contexts(bench.directory, variant)
        self._server: Config = bench.crypto.config(server.config())
        self._client: Config = bench.crypto.config(_asked_by(client, variant))
        self._stopwatch = bench.stopwatch
        self._retried = variant == RETRY
        self._last: tuple[dtls.Connection, dtls.Connection] | None = None

    def run(self, seconds: float) -> Reading:
        gc.collect()
        watch = self._stopwatch
        client_seconds = server_seconds = 0.0
        count = datagrams = sent_bytes = 0
        cpu = time.process_time
        while watch.cpu_seconds < seconds or count < _FEWEST:
            watch.start()
            at = cpu()
            client = dtls.Connection.client(self._client, now=0.0, server_name=_NAME)
            client_seconds += (now := cpu()) - at
            server = dtls.Connection.server(self._server, now=0.0)
            server_seconds += cpu() - now
            for _ in range(_MOST_ROUNDS):
                at = cpu()
                flight = client.transmit(0.0)
                client_seconds += (now := cpu()) - at
                server.receive_run(flight, 0.0)
                answer = server.transmit(0.0)
                server_seconds += (at := cpu()) - now
                client.receive_run(answer, 0.0)
                client_seconds += cpu() - at
                datagrams += len(flight) + len(answer)
                sent_bytes += sum(map(len, flight)) + sum(map(len, answer))
                if not flight and not answer:
                    break
            watch.stop()
            count += 1
            self._last = client, server
            if not (client.was_connected and server.was_connected):
                raise OSError(f"the handshake did not complete: {client.error or server.error}")
        # The stopwatch's time, divided as the laps say.
        client_part = client_seconds / (client_seconds + server_seconds)
        each = watch.cpu_seconds / count * 1e6
        return Reading(
            values={
                "": each,
                "client": each * client_part,
                "server": each * (1 - client_part),
                "wire": sent_bytes / count,
            },
            units=count,
            wall_seconds=watch.wall_seconds,
            cpu_seconds=watch.cpu_seconds,
            checks=(clock_check(watch),),
        )

    def verify(self) -> None:
        assert self._last is not None
        client, server = self._last
        if client.export(b"EXPORTER-bench", b"", 32) != server.export(b"EXPORTER-bench", b"", 32):
            raise ValueError("client and server do not agree on their secrets")
        if client.session.retried is not self._retried:
            raise ValueError("the handshake was retried, or was not, against the name of the row")
        if client.session.peer is None:
            raise ValueError("the server was not authenticated")

    def close(self) -> None:
        pass


async def _wait_for_the_end(channel: aio.DatagramChannel) -> None:
    async for _ in channel:
        pass


class Server:
    """The Peer: an asyncio DTLS server, each channel of which is given to `handler`."""

    def __init__(
        self,
        bench: Bench,
        context: Context,
        handler: Callable[[aio.DatagramChannel], Coroutine[None, None, None]] = _wait_for_the_end,
    ) -> None:
        without_crypto(bench, context)
        self._loop = asyncio.new_event_loop()
        self._context = context
        self._handler = handler
        self._ready = threading.Event()
        self._port = 0

    @property
    def address(self) -> Mapping[str, Any]:
        if not self._ready.wait(10):
            raise OSError("the server did not start")
        return {"port": self._port}

    def serve(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with await sealwire.start_datagram_server(
            self._handler, "127.0.0.1", 0, context=self._context, limits=LIMITS
        ) as server:
            self._port = server.sockets[0].getsockname()[1]
            # Connections that are opened, not used and closed again are an attack, but for a bench.
            for endpoint in server.endpoints:
                endpoint.load.force(False, time.monotonic())
            self._ready.set()
            await server.serve_forever()

    def answer(self, question: str) -> Mapping[str, float]:
        return {}


class Client:
    """A Body: one handshake after another with the Peer, each on a socket of its own."""

    def __init__(self, bench: Bench, variant: str) -> None:
        _, self._context = contexts(bench.directory, variant)
        without_crypto(bench, self._context)
        self._bench = bench

    def run(self, seconds: float) -> Reading:
        return closed_loop(self._bench, self._handshake)

    def _handshake(self) -> Callable[[], None]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", self._bench.peer["port"]))
        secured = self._context.wrap_socket(sock, server_hostname=_NAME)
        assert isinstance(secured, blocking.DatagramSocket)
        secured.settimeout(20.0)
        secured.do_handshake()
        return secured.close

    def verify(self) -> None:
        pass  # a handshake that fails raises

    def close(self) -> None:
        pass


def _alone(variant: str, figure: str) -> Callable[[Bench], Body]:
    def open_(bench: Bench) -> Body:
        server, client = contexts(bench.directory, variant)
        return Loop(bench, Replay(server.config(), _asked_by(client, variant)), figure=figure)

    return open_


def _memory_row(variant: str, title: str, rivals: tuple[Contender, ...]) -> Measurement:
    open_: Callable[[Bench], Body] = partial(Memory, variant=variant)
    figures = (
        Figure("", "us", Kind.TIME, "CPU of both sides"),
        Figure("client", "us", Kind.TIME, "CPU of the client"),
        Figure("server", "us", Kind.TIME, "CPU of the server"),
        Figure("wire", "B", Kind.MEMORY, "bytes of UDP payload"),
    )
    return Measurement(
        f"handshake.memory.{variant}",
        f"handshake in memory, {title}",
        figures,
        (
            Contender("sealwire", Role.OURS, open_),
            Contender("sealwire without crypto", Role.WITHOUT_CRYPTO, open_),
            Contender("the crypto alone", Role.CRYPTO_ALONE, _alone(variant, "")),
            *rivals,
        ),
    )


_P50 = Promise(5.0, "handshake p50 below 5 ms")
_P95 = Promise(15.0, "handshake p95 below 15 ms")
_P99 = Promise(14.8, "handshake p99 14.8 ms")
_SETUP = Promise(1000.0, "above 1,000 handshakes a second and core")


def _udp_row(variant: str, title: str, rivals: tuple[Contender, ...]) -> Measurement:
    open_: Callable[[Bench], Body] = partial(Client, variant=variant)

    def peer(bench: Bench) -> Peer:
        return Server(bench, contexts(bench.directory, variant)[0])

    figures = (
        Figure("", "ms", Kind.TIME, "median latency", _P50),
        Figure("p95", "ms", Kind.TIME, "95th percentile of latency", _P95),
        Figure("p99", "ms", Kind.TIME, "99th percentile of latency", _P99),
        Figure("rate", "1/s", Kind.RATE, "handshakes a second, one after another"),
        Figure("cpu", "us", Kind.TIME, "CPU of both sides"),
        Figure("client", "us", Kind.TIME, "CPU of the client"),
        Figure("server", "us", Kind.TIME, "CPU of the server", _SETUP),
    )
    return Measurement(
        f"handshake.udp.{variant}",
        f"handshake over loopback UDP with cookie, {title}",
        figures,
        (
            Contender("sealwire", Role.OURS, open_, peer=peer),
            Contender("sealwire without crypto", Role.WITHOUT_CRYPTO, open_, peer=peer),
            Contender("the crypto alone", Role.CRYPTO_ALONE, _alone(variant, "cpu")),
            *rivals,
        ),
        # Latency is time on the wall and suffers from whoever else uses the machine.
        crypto_figure="cpu",
    )


ROWS = (
    _memory_row(
        FULL,
        "full",
        (
            openssl_memory.dtls12_handshakes(client_auth=False),
            openssl_memory.ssl_handshakes(client_auth=False),
            *programs.memory_handshake_contenders(cookie=False),
        ),
    ),
    _memory_row(FIRST, "with a server not seen before", ()),
    _memory_row(
        CLIENT_AUTH,
        "client certificate",
        (
            openssl_memory.dtls12_handshakes(client_auth=True),
            openssl_memory.ssl_handshakes(client_auth=True),
        ),
    ),
    _memory_row(RETRY, "another group asked for", ()),
    _udp_row(
        FULL,
        "full",
        (
            openssl_sockets.dtls12_handshakes(client_auth=False),
            openssl_sockets.ssl_handshakes(client_auth=False),
            *programs.udp_handshake_contenders(),
            programs.wolfssl_package_handshakes(),
        ),
    ),
    _udp_row(
        CLIENT_AUTH,
        "client certificate",
        (
            openssl_sockets.dtls12_handshakes(client_auth=True),
            openssl_sockets.ssl_handshakes(client_auth=True),
        ),
    ),
    _udp_row(RETRY, "another group asked for", ()),
)
