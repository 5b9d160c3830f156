"""A proxy over real sockets on loopback: ends, resets, stalls, limits, drains, and who is believed."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import resource
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sealwire.context import Context, SessionStore
from sealwire.drive import StreamReader, StreamWriter, open_connection, start_server
from sealwire.drive.aio import passage
from sealwire.drive.aio import proxy as proxies
from sealwire.drive.aio import stream as streams
from sealwire.drive.aio.passage import ProxySettings, Report, Trouble
from sealwire.drive.aio.proxy import Proxy, start_proxy
from sealwire.errors import (
    Alert,
    ConfigurationError,
    HandshakeError,
    LimitReached,
    PeerAlert,
    ProtocolError,
    Truncated,
)
from sealwire.limits import Limits, Purpose, prefixes_of
from sealwire.proxy import Header, Routes, Target, TlsFacts
from sealwire.proxy.header import decode, missing
from tests import certificates
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_stream, eventually, free_port, port_of, run

LINGER = struct.pack("ii", 1, 0)


class Backend:
    """A plain service: each connection it gets is handed to the test."""

    def __init__(self, path: Path | None = None) -> None:
        kind = socket.AF_INET if path is None else socket.AF_UNIX
        self.listening = socket.socket(kind, socket.SOCK_STREAM)
        self.listening.setblocking(False)
        self.listening.bind(("127.0.0.1", 0) if path is None else str(path))
        self.listening.listen(64)
        name = self.listening.getsockname()
        self.target = Target(*name) if path is None else Target(path=str(path))
        self.accepted: list[socket.socket] = []

    async def accept(self) -> socket.socket:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.listening)
        self.accepted.append(sock)
        return sock

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self.accepted, self.listening):
            sock.close()


async def receive(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = await asyncio.get_running_loop().sock_recv(sock, n - len(data))
        if not part:
            break
        data += part
    return data


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def plain_connection(proxy: Proxy) -> socket.socket:
    sock = socket.socket(proxy.sockets[0].family, socket.SOCK_STREAM)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, proxy.sockets[0].getsockname())
    return sock


@contextlib.asynccontextmanager
async def proxied(
    target: Target | Routes,
    *,
    context: Context | None = None,
    limits: Limits | None = None,
    reports: list[Report] | None = None,
    **settings: Any,
) -> AsyncIterator[Proxy]:
    routes = target if isinstance(target, Routes) else Routes(target)
    chosen = ProxySettings(listen=Target("127.0.0.1", 0), routes=routes, **settings)
    proxy = await start_proxy(
        chosen,
        context=context or server_context(),
        limits=limits or Limits(handshake_seconds=5.0),
        on_trouble=None if reports is None else reports.append,
    )
    async with proxy:
        yield proxy
    assert proxy.connections == proxy.handshaking == 0
    assert proxy.ledger.held == 0


@contextlib.asynccontextmanager
async def outward(
    port: int,
    *,
    context: Context | None = None,
    listen: Target | None = None,
    reports: list[Report] | None = None,
    **settings: Any,
) -> AsyncIterator[Proxy]:
    """A proxy that is plain in and secure out."""
    chosen = ProxySettings(
        listen=listen or Target("127.0.0.1", 0), secure=Target("localhost", port), **settings
    )
    proxy = await start_proxy(
        chosen,
        context=context or client_context(),
        limits=Limits(handshake_seconds=5.0),
        on_trouble=None if reports is None else reports.append,
    )
    async with proxy:
        yield proxy
    assert proxy.connections == 0
    assert proxy.ledger.held == 0


async def connect(proxy: Proxy, context: Context | None = None, **keywords: Any) -> Any:
    return await open_connection(
        "127.0.0.1",
        port_of(proxy),
        context=context or client_context(),
        **{"server_hostname": "localhost", **keywords},
    )


async def finish(writer: StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def fill(writer: StreamWriter, seconds: float = 0.7) -> int:
    """Write until the other side takes nothing for so long; how much it was."""
    sent = 0
    try:
        while True:
            writer.write(bytes(50_000))
            sent += 50_000
            async with asyncio.timeout(seconds):
                await writer.drain()
    except TimeoutError:
        return sent


async def answer_to(sock: socket.socket, data: bytes) -> bytes:
    await send(sock, data)
    return await receive(sock, 1)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    sock.close()


# -- ends


def test_bytes_and_ends_go_both_ways_apart() -> None:
    async def main() -> None:
        with Backend() as backend:
            async with proxied(backend.target) as proxy:
                reader, writer = await connect(proxy)
                plain = await backend.accept()
                writer.write(b"question")
                assert await receive(plain, 8) == b"question"
                writer.write_eof()
                assert await receive(plain, 1) == b""  # close_notify became FIN
                await send(plain, b"answer, after the question ended")
                assert await reader.readexactly(32) == b"answer, after the question ended"
                plain.shutdown(socket.SHUT_WR)
                assert await reader.read() == b""  # FIN became close_notify: no Truncated
                await finish(writer)
                await eventually(lambda: proxy.connections == 0)
                counters = proxy.proxy_counters
                assert (counters.passages_finished, counters.passages_broken) == (1, 0)
                assert (counters.bytes_to_plain, counters.bytes_to_secure) == (8, 32)

                reader, writer = await connect(proxy)
                plain = await backend.accept()
                plain.shutdown(socket.SHUT_WR)  # the backend ends first
                assert await reader.read() == b""
                writer.write(b"still")
                writer.close()
                assert await receive(plain, 100) == b"still"
                await writer.wait_closed()
            assert proxy.counters.handshakes_completed == proxy.counters.connections_closed == 2

    run(main())


@pytest.mark.parametrize("size", [1, 100_000, 5_000_000])
def test_two_proxies_carry_more_than_any_buffer_holds(size: int, tmp_path: Path) -> None:
    async def main() -> None:
        blob = os.urandom(size)
        with Backend(tmp_path / "service") as backend:
            async with (
                proxied(backend.target) as inner,
                outward(port_of(inner), listen=Target(path=str(tmp_path / "in"))) as outer,
            ):
                client = await plain_connection(outer)
                with client:
                    there = asyncio.create_task(send(client, blob))
                    plain = await backend.accept()
                    back = asyncio.create_task(send(plain, blob))
                    assert await receive(plain, size) == blob
                    assert await receive(client, size) == blob
                    await there
                    await back
                    client.shutdown(socket.SHUT_WR)
                    assert await receive(plain, 1) == b""
                    plain.close()
                    assert await receive(client, 1) == b""
                assert inner.ledger.peak < 3_000_000
                await eventually(lambda: outer.proxy_counters.passages_finished == 1)
            assert not (tmp_path / "in").exists()

    run(main())


def test_a_cut_stream_is_no_end_to_the_plain_side() -> None:
    async def main() -> None:
        with Backend() as backend:
            async with proxied(backend.target) as proxy:
                _, writer = await connect(proxy)
                plain = await backend.accept()
                writer.write(b"half a")
                assert await receive(plain, 6) == b"half a"
                # FIN without close_notify: whoever is on the path can do this.
                writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionResetError):
                    await receive(plain, 1)
                writer.abort()
                await eventually(lambda: proxy.connections == 0)
                assert proxy.proxy_counters.passages_broken == 1

                _, writer = await connect(proxy)
                plain = await backend.accept()
                await send(plain, b"x")
                reset(writer.get_extra_info("socket").dup())
                sock = writer.get_extra_info("socket")
                os.write(sock.fileno(), b"\x17\x03\x03\x00\x14" + bytes(20))  # a record nobody sealed
                with pytest.raises(ConnectionResetError):
                    await receive(plain, 1)
                writer.abort()
                await eventually(lambda: proxy.connections == 0)

    run(main())


def test_a_reset_backend_is_no_end_to_the_secure_side() -> None:
    async def main() -> None:
        with Backend() as backend:
            reports: list[Report] = []
            async with proxied(backend.target, reports=reports) as proxy:
                reader, writer = await connect(proxy)
                plain = await backend.accept()
                await send(plain, b"half an answer")
                assert await reader.readexactly(14) == b"half an answer"
                reset(plain)
                with pytest.raises(PeerAlert) as caught:
                    await reader.read()
                assert caught.value.alert is Alert.INTERNAL_ERROR
                await eventually(lambda: proxy.connections == 0)
                assert [report.trouble for report in reports] == [Trouble.BROKEN]
                assert isinstance(reports[0].error, ConnectionResetError)
                await finish(writer)

    run(main())


def test_an_early_answer_is_still_read_and_then_the_reset() -> None:
    """A backend that answers and closes with the question unread resets; what it said first counts."""

    async def main() -> None:
        with Backend() as backend:
            async with proxied(backend.target) as proxy:
                reader, writer = await connect(proxy)
                plain = await backend.accept()
                writer.write(b"x" * 200_000)
                await eventually(lambda: proxy.proxy_counters.bytes_to_plain == 200_000)
                await send(plain, b"too long")
                plain.close()
                assert await reader.readexactly(8) == b"too long"
                with pytest.raises(PeerAlert):
                    await reader.read()
                await finish(writer)

    run(main())


# -- stalls and limits


def test_a_backend_that_does_not_read_stops_its_client_alone() -> None:
    async def main() -> None:
        limits = Limits(receive_queue_bytes=100_000, send_queue_bytes=100_000)
        with Backend() as backend:
            backend.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            async with proxied(backend.target, limits=limits) as proxy:
                _, writer = await connect(proxy)
                stalled = await backend.accept()
                sent = await fill(writer)
                # What waits here is bounded and charged; the rest waits in kernels and with the sender.
                held = proxy.ledger.held_for(Purpose.RECEIVE_QUEUE)
                assert 0 < held <= 2 * (100_000 + 64 * 1024)
                assert sent < 12_000_000
                reader, other = await connect(proxy)
                quick = await backend.accept()
                other.write(b"quick")
                assert await receive(quick, 5) == b"quick"
                await send(quick, b"answer")
                assert await reader.readexactly(6) == b"answer"
                await finish(other)

                async def read_all() -> int:
                    # A window of the smallest kind opens one delayed ACK at a time.
                    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                    return len(await receive(stalled, sent))

                reading = asyncio.create_task(read_all())
                await writer.drain()
                writer.write_eof()
                assert await reading == sent
                writer.abort()

    run(main())


def test_a_client_that_does_not_read_stops_its_backend() -> None:
    async def main() -> None:
        limits = Limits(receive_queue_bytes=100_000, send_queue_bytes=100_000)
        with Backend() as backend:
            async with proxied(backend.target, limits=limits) as proxy:
                reader, writer = await connect(proxy, limits=limits)
                plain = await backend.accept()
                blob = os.urandom(20_000_000)
                sending = asyncio.create_task(send(plain, blob))
                await asyncio.sleep(0.5)
                assert not sending.done()
                assert proxy.ledger.held < 400_000
                assert await reader.readexactly(len(blob)) == blob
                await sending
                await finish(writer)

    run(main(), seconds=40)


def test_a_full_ledger_stops_reading_the_plain_side_and_lets_it_go_on() -> None:
    async def main() -> None:
        with Backend() as backend:
            async with proxied(backend.target) as proxy:
                reader, writer = await connect(proxy)
                plain = await backend.accept()
                ledger = proxy.ledger
                ledger.charge(Purpose.TABLES, ledger.limit - ledger.held - 1_000_000)
                await send(plain, b"waits")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await reader.readexactly(5)
                ledger.release(Purpose.TABLES, ledger.held_for(Purpose.TABLES))
                assert await reader.readexactly(5) == b"waits"
                await finish(writer)

    run(main())


def test_at_its_cap_it_accepts_no_more_until_one_ends() -> None:
    async def main() -> None:
        with Backend() as backend:
            async with proxied(backend.target, limits=Limits(connections=2, handshakes=2)) as proxy:
                first, second = await connect(proxy), await connect(proxy)
                third = asyncio.create_task(connect(proxy))
                await eventually(lambda: proxy.proxy_counters.accepts_paused == 1)
                await asyncio.sleep(0.2)
                assert not third.done()
                assert proxy.connections == 2
                assert proxy.ledger.reached["connections"] == 1
                first[1].abort()
                await third  # waited in the kernel
                for _, writer in (second, third.result()):
                    writer.abort()

    run(main())


def test_one_client_has_a_share_and_silence_gives_way() -> None:
    async def main() -> None:
        limits = Limits(prefix_connections=2, prefix_handshakes=2)
        with Backend() as backend:
            async with proxied(backend.target, limits=limits) as proxy:
                writers = [(await connect(proxy))[1] for _ in range(2)]
                with pytest.raises((ConnectionResetError, Truncated)):
                    await connect(proxy)
                assert proxy.counters.admissions_refused == 1
                assert proxy.ledger.reached["prefix_connections"] == 1
                for writer in writers:
                    writer.abort()
            async with proxied(backend.target, limits=Limits(handshakes=1)) as proxy:
                silent = await plain_connection(proxy)
                with silent:
                    await eventually(lambda: proxy.handshaking == 1)
                    with pytest.raises((ConnectionResetError, Truncated)):
                        await connect(proxy)  # the silent one is young
                    await asyncio.sleep(1.0)
                    _, writer = await connect(proxy)
                    assert proxy.counters.handshakes_shed == 1
                    writer.abort()

    run(main())


def test_behind_a_balancer_the_share_is_that_of_the_client_it_names(tmp_path: Path) -> None:
    async def hello_from(proxy: Proxy, client: str) -> socket.socket:
        sock = await plain_connection(proxy)
        await send(sock, Header((client, 5), ("198.51.100.1", 443)).encode())
        return sock

    async def main() -> None:
        limits = Limits(prefix_connections=1, prefix_handshakes=1)
        reports: list[Report] = []
        with Backend() as backend, contextlib.ExitStack() as stack:
            balanced = {"accept_header": ANYWHERE, "limits": limits, "reports": reports}
            async with proxied(backend.target, **balanced) as proxy:  # type: ignore[arg-type]
                for client in ("192.0.2.1", "192.0.2.2"):
                    stack.enter_context(await hello_from(proxy, client))
                await eventually(lambda: proxy.ledger.prefixes.full(prefixes_of(("192.0.2.2", 1))))
                with await hello_from(proxy, "192.0.2.1") as third, pytest.raises(ConnectionResetError):
                    await receive(third, 1)
                assert proxy.counters.admissions_refused == 1
                assert proxy.ledger.reached["prefix_handshakes"] == 1
        assert isinstance(reports[0].error, LimitReached)

    run(main())


def test_the_secure_side_may_be_a_unix_socket(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "secure"
        with Backend() as backend:
            settings = ProxySettings(
                listen=Target(path=str(path)), routes=Routes(backend.target), send_header=True
            )
            async with await start_proxy(settings, context=server_context()) as inner:
                outer = ProxySettings(
                    listen=Target("127.0.0.1", 0), secure=Target(path=str(path)), server_name="localhost"
                )
                async with await start_proxy(outer, context=client_context()) as near:
                    with await plain_connection(near) as client:
                        await send(client, b"hello")
                        plain = await backend.accept()
                        assert (await read_header(plain)).source == ""
                        assert await receive(plain, 5) == b"hello"
                assert inner.counters.handshakes_completed == 1

    run(main())


def test_time_is_limited() -> None:
    async def main() -> None:
        reports: list[Report] = []
        with Backend() as backend:
            short = Limits(handshake_seconds=0.2)
            async with proxied(backend.target, limits=short, reports=reports, idle_seconds=0.3) as proxy:
                with await plain_connection(proxy):
                    await eventually(lambda: proxy.counters.handshakes_failed == 1)
                reader, writer = await connect(proxy)
                plain = await backend.accept()
                for _ in range(4):  # what moves is not idle
                    await send(plain, b"x")
                    await reader.readexactly(1)
                    await asyncio.sleep(0.12)
                with pytest.raises(PeerAlert):
                    await reader.read()
                with pytest.raises(ConnectionResetError):
                    await receive(plain, 1)
                await finish(writer)
                await eventually(lambda: proxy.connections == 0)
                assert proxy.proxy_counters.passages_idle == 1
        assert [report.trouble for report in reports] == [Trouble.HANDSHAKE]

    run(main())


# -- onward


def test_a_backend_that_is_down_or_never_answers() -> None:
    async def main() -> None:
        reports: list[Report] = []
        down = Target("127.0.0.1", free_port(socket.SOCK_STREAM))
        async with proxied(down, reports=reports) as proxy:
            reader, writer = await connect(proxy)
            with pytest.raises(PeerAlert) as caught:
                await reader.read()
            assert caught.value.alert is Alert.INTERNAL_ERROR
            await finish(writer)
            await eventually(lambda: proxy.connections == 0)
            assert proxy.proxy_counters.backends_unreachable == 1
        assert (reports[0].trouble, reports[0].onward) == (Trouble.UNREACHABLE, str(down))
        # A queue that is full: nobody answers.
        with socket.socket() as full, contextlib.ExitStack() as fillers:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(3):
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            async with proxied(Target(*full.getsockname()), reports=reports, connect_seconds=0.3) as proxy:
                reader, writer = await connect(proxy)
                with pytest.raises(PeerAlert):
                    await reader.read()
                await finish(writer)
        assert "no connection within 0.3 seconds" in str(reports[1].error)

    run(main())


def test_a_plain_client_learns_that_the_secure_side_failed() -> None:
    async def main() -> None:
        reports: list[Report] = []
        async with outward(free_port(socket.SOCK_STREAM), reports=reports) as proxy:
            client = await plain_connection(proxy)
            with client, pytest.raises(ConnectionResetError):
                await receive(client, 1)
        async with await start_server(echo_stream, "127.0.0.1", 0, context=server_context()) as server:
            wrong = {"context": client_context(), "server_name": "elsewhere.example"}
            async with outward(port_of(server), reports=reports, **wrong) as proxy:  # type: ignore[arg-type]
                client = await plain_connection(proxy)
                with client, pytest.raises(ConnectionResetError):
                    await answer_to(client, b"secret")
                await eventually(lambda: proxy.connections == 0)
        kinds = [report.trouble for report in reports]
        assert kinds == [Trouble.UNREACHABLE, Trouble.HANDSHAKE]
        assert "elsewhere.example" in str(reports[1].error)

    run(main())


def test_tickets_spare_the_second_handshake() -> None:
    async def main() -> None:
        context = server_context()
        context.num_tickets = 2
        mine = client_context()
        mine.session_store = SessionStore()
        resumed = []

        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            resumed.append(writer.session_reused)
            await echo_stream(reader, writer)

        async with (
            await start_server(handler, "127.0.0.1", 0, context=context) as server,
            outward(port_of(server), context=mine) as proxy,
        ):
            for _ in range(2):
                with await plain_connection(proxy) as client:
                    assert await answer_to(client, b"x") == b"x"
                    client.shutdown(socket.SHUT_WR)
                    assert await receive(client, 1) == b""
        assert resumed == [False, True]

    run(main())


# -- routes


def test_routes_by_name_and_protocol() -> None:
    async def main() -> None:
        context = server_context(alpn=["h2", "http/1.1"])
        with Backend() as one, Backend() as two, Backend() as three:
            routes = Routes(None, {"localhost": one.target, "*.example": two.target}, {b"h2": three.target})
            reports: list[Report] = []
            async with proxied(routes, context=context, reports=reports) as proxy:
                client = client_context()
                client.check_hostname = False
                for name, protocols, backend in (
                    ("localhost", [], one),
                    ("a.example", ["http/1.1"], two),
                    ("localhost", ["h2"], three),
                ):
                    if protocols:
                        client.set_alpn_protocols(protocols)
                    _, writer = await connect(proxy, client, server_hostname=name)
                    await backend.accept()
                    writer.abort()
                client.set_alpn_protocols(["http/1.1"])
                reader, writer = await connect(proxy, client, server_hostname="elsewhere")
                with pytest.raises(PeerAlert) as caught:
                    await reader.read()
                assert caught.value.alert is Alert.UNRECOGNIZED_NAME
                await finish(writer)
            assert proxy.proxy_counters.clients_refused == 1
            assert reports[-1].trouble is Trouble.REFUSED
            # Without routes by protocol the name alone decides, so the handshake itself fails.
            async with proxied(Routes(None, {"localhost": one.target})) as proxy:
                with pytest.raises(PeerAlert) as caught:
                    await connect(proxy, client_context(), server_hostname="elsewhere")
                assert caught.value.alert is Alert.UNRECOGNIZED_NAME
            async with proxied(Routes(None, {}, {b"h2": one.target}), context=context) as proxy:
                reader, writer = await connect(proxy, client_context())
                with pytest.raises(PeerAlert) as caught:
                    await reader.read()
                assert caught.value.alert is Alert.NO_APPLICATION_PROTOCOL
                await finish(writer)
        with pytest.raises(ConfigurationError, match="set_alpn_protocols"):
            async with proxied(Routes(None, {}, {b"h2": one.target})):
                pass

    run(main())


def test_only_clients_with_an_allowed_name() -> None:
    async def main() -> None:
        known, other = certificates.client(name="known"), certificates.client(name="other")
        context = server_context(client_roots=known.cafile)
        context.load_verify_locations(cafile=other.cafile)
        with Backend() as backend:
            async with proxied(
                backend.target, context=context, allow_names=frozenset({"known"}), send_header=True
            ) as proxy:
                reader, writer = await connect(proxy, client_context(identity=other))
                with pytest.raises(PeerAlert) as caught:
                    await reader.read()
                assert caught.value.alert is Alert.ACCESS_DENIED
                await finish(writer)
                _, writer = await connect(proxy, client_context(identity=known))
                plain = await backend.accept()
                header = await read_header(plain)
                assert header.tls is not None
                assert header.tls.certificate
                assert header.tls.verified
                writer.abort()

    run(main())


# -- the PROXY protocol


async def read_header(sock: socket.socket) -> Header:
    data = b""
    while n := missing(data):
        data += await receive(sock, n)
    return decode(data)


ANYWHERE = (ipaddress.ip_network("0.0.0.0/0"),)


def test_the_backend_is_told_who_the_client_is() -> None:
    async def main() -> None:
        with Backend() as backend:
            async with proxied(
                backend.target, context=server_context(alpn=["x/1"]), send_header=True
            ) as proxy:
                _, writer = await connect(proxy, client_context(alpn=["x/1"]))
                plain = await backend.accept()
                assert await read_header(plain) == Header(
                    writer.get_extra_info("sockname"),
                    writer.get_extra_info("peername"),
                    alpn=b"x/1",
                    authority="localhost",
                    tls=TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
                )
                writer.write(b"then data")
                assert await receive(plain, 9) == b"then data"
                writer.abort()

    run(main())


def test_headers_pass_through_a_pair() -> None:
    async def main() -> None:
        with Backend() as backend:
            async with (
                proxied(backend.target, send_header=True, accept_header=ANYWHERE) as inner,
                outward(port_of(inner), send_header=True, accept_header=ANYWHERE) as outer,
            ):
                client = await plain_connection(outer)
                said = Header(("192.0.2.9", 9), ("198.51.100.1", 443), unique_id=b"id")
                with client:
                    await send(client, said.encode() + b"data")
                    plain = await backend.accept()
                    found = await read_header(plain)
                    assert (found.source, found.destination) == (said.source, said.destination)
                    assert found.authority == "localhost"
                    assert await receive(plain, 4) == b"data"
                    assert [one.peer for one in inner.top_peers()] == ["192.0.2.9:9"]
                client = await plain_connection(outer)
                with client:
                    await send(client, bytes.fromhex("0d0a0d0a000d0a515549540a 20 00 0000"))
                    # A health check speaks for itself, and nobody else is named.
                    assert (await read_header(await backend.accept())).source is None

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff",
    ],
)
def test_a_connection_without_a_good_header_is_turned_away(sent: bytes) -> None:
    async def main() -> None:
        reports: list[Report] = []
        with Backend() as backend:
            async with proxied(backend.target, accept_header=ANYWHERE, reports=reports) as proxy:
                client = await plain_connection(proxy)
                with client, pytest.raises(ConnectionResetError):
                    await answer_to(client, sent)
                await eventually(lambda: proxy.connections == 0)
                assert proxy.proxy_counters.headers_refused == 1
                assert [report.trouble for report in reports] == [Trouble.HEADER]

    run(main())


def test_a_header_is_not_believed_unless_it_was_asked_for_from_there() -> None:
    async def main() -> None:
        said = Header(("192.0.2.9", 9), ("198.51.100.1", 443)).encode()
        with Backend() as backend:
            async with proxied(backend.target) as proxy:  # nobody asked for headers
                client = await plain_connection(proxy)
                with client:
                    await send(client, said)
                    await eventually(lambda: proxy.counters.handshakes_failed == 1)
            elsewhere = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))
            async with proxied(backend.target, accept_header=elsewhere) as proxy:
                client = await plain_connection(proxy)
                with client, pytest.raises(ConnectionResetError):
                    await receive(client, 1)
                await eventually(lambda: proxy.proxy_counters.headers_refused == 1)
            async with proxied(
                backend.target, accept_header=ANYWHERE, limits=Limits(handshake_seconds=0.2)
            ) as proxy:
                with await plain_connection(proxy) as slow:
                    await send(slow, said[:20])  # and then nothing
                    await eventually(lambda: proxy.connections == 0)

    run(main())


# -- running it


def test_draining_lets_what_goes_on_finish_and_cuts_the_rest() -> None:
    async def main() -> None:
        with Backend() as backend:
            async with proxied(backend.target) as proxy:
                finishing, stubborn = await connect(proxy), await connect(proxy)
                plain = [await backend.accept() for _ in range(2)]
                port = port_of(proxy)
                draining = asyncio.create_task(proxy.drain(0.6))
                await asyncio.sleep(0.05)
                assert not proxy.is_serving()
                with pytest.raises(ConnectionRefusedError):
                    await open_connection("127.0.0.1", port, context=client_context())
                finishing[1].write(b"last words")
                await eventually(lambda: proxy.proxy_counters.bytes_to_plain == 10)
                finishing[1].close()
                for sock in plain:
                    with contextlib.suppress(OSError):
                        data = await asyncio.wait_for(receive(sock, 100), 0.2)
                        assert data == b"last words"
                        sock.close()
                assert await draining == 1
                with pytest.raises(PeerAlert):
                    await stubborn[0].read()
                await finish(stubborn[1])
                assert proxy.proxy_counters.passages_cut == 1
                assert proxy.proxy_counters.passages_finished == 1

    run(main())


def test_certificates_are_replaced_without_dropping_connections() -> None:
    async def main() -> None:
        first, second = certificates.server(), certificates.server(certificates.Kind.RSA_2048)
        with Backend() as backend:
            async with proxied(backend.target, context=server_context(first)) as proxy:
                _, old = await connect(proxy)
                plain = await backend.accept()
                proxy.reload(server_context(second))
                trusting = client_context()
                trusting.load_verify_locations(cafile=second.cafile)
                _, new = await connect(proxy, trusting)
                assert old.getpeercert(binary_form=True) == first.chain[0]
                assert new.getpeercert(binary_form=True) == second.chain[0]
                old.write(b"lives on")
                assert await receive(plain, 8) == b"lives on"
                with pytest.raises(ConfigurationError):
                    proxy.reload(Context(server_context().protocol))
                assert (proxy.proxy_counters.reloads, proxy.proxy_counters.reloads_failed) == (1, 1)
                for writer in (old, new):
                    writer.abort()

    run(main())


def test_a_unix_socket_left_behind_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "in"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        async with await start_server(echo_stream, "127.0.0.1", 0, context=server_context()) as server:
            async with outward(port_of(server), listen=Target(path=str(path))) as proxy:
                client = await plain_connection(proxy)
                with client:
                    await send(client, b"x")
                    assert await receive(client, 1) == b"x"
                    (peer,) = proxy.top_peers()
                    assert peer.peer == "a local program"
                with pytest.raises(OSError, match="in use"):
                    async with outward(port_of(server), listen=Target(path=str(path))):
                        pass
            assert not path.exists()
            path.write_text("precious")
            with pytest.raises(OSError, match="in use"):
                async with outward(port_of(server), listen=Target(path=str(path))):
                    pass
            assert path.read_text() == "precious"

    run(main())


def test_out_of_descriptors_it_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:

        monkeypatch.setattr(proxies, "EXHAUSTED_SECONDS", 0.1)
        with Backend() as backend:
            async with proxied(backend.target) as proxy:
                with socket.create_connection(("127.0.0.1", port_of(proxy))):
                    lowest_free = os.dup(0)
                    os.close(lowest_free)
                    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
                    try:
                        await eventually(lambda: proxy.proxy_counters.accepts_paused)
                    finally:
                        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    await eventually(lambda: proxy.connections == 1)
                _, writer = await connect(proxy)
                writer.abort()

    run(main())


def test_settings_have_one_side_each() -> None:
    here = Target("127.0.0.1", 1)
    for keywords in ({}, {"routes": Routes(here), "secure": here}):
        with pytest.raises(ValueError, match="either"):
            ProxySettings(listen=here, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_left_of_clients_and_backends_that_come_and_go_as_they_like(seed: int) -> None:
    async def behave(sock: socket.socket, dice: random.Random) -> None:
        """Send, read, wait, and end in one of three ways."""
        with sock, contextlib.suppress(OSError, TimeoutError):
            for _ in range(dice.randrange(6)):
                act = dice.randrange(3)
                if act == 0:
                    await asyncio.wait_for(send(sock, dice.randbytes(dice.choice((1, 5_000, 400_000)))), 0.3)
                elif act == 1:
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 100_000), 0.1)
                else:
                    await asyncio.sleep(dice.random() / 50)
            end = dice.randrange(3)
            if end == 0:
                reset(sock)
            elif end == 1:
                sock.shutdown(socket.SHUT_WR)
                await asyncio.wait_for(receive(sock, 10_000_000), 0.3)

    async def main() -> None:
        dice = random.Random(seed)
        limits = Limits(receive_queue_bytes=60_000, send_queue_bytes=60_000, handshake_seconds=5.0)
        with Backend() as backend:
            serving: set[asyncio.Task[None]] = set()

            async def serve() -> None:
                while True:
                    serving.add(asyncio.create_task(behave(await backend.accept(), dice)))

            server = asyncio.create_task(serve())
            async with (
                proxied(backend.target, limits=limits, idle_seconds=0.5) as inner,
                outward(port_of(inner), idle_seconds=0.7) as outer,
            ):
                clients = [
                    asyncio.create_task(behave(await plain_connection(outer), dice)) for _ in range(40)
                ]
                await asyncio.gather(*clients)
                await eventually(lambda: outer.connections == inner.connections == 0, 10.0)
                for proxy in (inner, outer):
                    counted = proxy.proxy_counters
                    ended = counted.passages_finished + counted.passages_broken + counted.passages_idle
                    assert ended + proxy.counters.handshakes_failed + counted.backends_unreachable <= 40
                    assert ended > 0
            server.cancel()
            await asyncio.gather(server, *serving, return_exceptions=True)

    run(main(), seconds=40)


# -- what the pump asks of a stream


def test_a_failed_stream_tells_its_peer_and_keeps_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_FLUSH_SECONDS", 0.3)

    async def main() -> None:
        failing: list[StreamWriter] = []

        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            failing.append(writer)
            await reader.read(1)

        async with await start_server(handler, "127.0.0.1", 0, context=server_context()) as server:
            error = ProtocolError(Alert.INTERNAL_ERROR, "because")
            reader, writer = await open_connection(
                "127.0.0.1", port_of(server), context=client_context(), server_hostname="localhost"
            )
            await eventually(lambda: len(failing) == 1)
            failing[0]._stream.fail(error)
            with pytest.raises(PeerAlert):
                await reader.read()
            await finish(writer)
            # A peer that takes nothing cannot keep what failed.
            small = Limits(receive_queue_bytes=20_000)
            _, writer = await open_connection(
                "127.0.0.1",
                port_of(server),
                context=client_context(),
                server_hostname="localhost",
                limits=small,
            )
            await eventually(lambda: len(failing) == 2)
            assert await fill(failing[1])
            failing[1]._stream.fail(error)
            assert not failing[1]._stream.gone.done()
            await eventually(lambda: failing[1]._stream.gone.done())
            writer.abort()

    run(main())


def test_the_kinds_of_trouble() -> None:
    access = HandshakeError(Alert.ACCESS_DENIED, "x")
    assert passage.trouble_of(access) is Trouble.REFUSED
    assert passage.trouble_of(HandshakeError(Alert.HANDSHAKE_FAILURE, "x")) is Trouble.HANDSHAKE
