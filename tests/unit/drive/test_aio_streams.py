"""STCP on asyncio: readers, writers and servers over real sockets on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket

import pytest

from sealwire.context import Context
from sealwire.drive import StreamReader, StreamServer, StreamWriter, open_connection, start_server
from sealwire.errors import (
    Alert,
    CertificateError,
    ConfigurationError,
    ConnectionClosed,
    LimitReached,
    PeerAlert,
    Truncated,
)
from sealwire.limits import Limits, Purpose
from tests import certificates
from tests.certificates import Kind
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_stream, eventually, free_port, port_of, run


async def serve(
    handler: object = echo_stream, context: Context | None = None, **keywords: object
) -> StreamServer:
    return await start_server(
        handler,  # type: ignore[arg-type]
        "127.0.0.1",
        0,
        context=context or server_context(),
        **keywords,  # type: ignore[arg-type]
    )


async def connect(
    server: StreamServer, context: Context | None = None, **keywords: object
) -> tuple[StreamReader, StreamWriter]:
    return await open_connection(
        "127.0.0.1",
        port_of(server),
        context=context or client_context(),
        **keywords,  # type: ignore[arg-type]
    )


async def finish(writer: StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def test_echo_and_facts() -> None:
    async def main() -> None:
        seen: list[StreamWriter] = []

        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            seen.append(writer)
            await echo_stream(reader, writer)

        identity = certificates.client()
        context = server_context(client_roots=identity.cafile, alpn=["echo/1"])
        async with await serve(handler, context) as server:
            reader, writer = await connect(server, client_context(identity=identity, alpn=["echo/1", "x"]))
            writer.write(b"hel")
            writer.writelines([b"lo", b"\nmore\n"])
            assert await reader.readline() == b"hello\n"
            assert await reader.readuntil(b"re") == b"more"
            writer.write_eof()
            assert await reader.read() == b"\n"
            assert reader.at_eof()
            for facts in (reader, writer, seen[0]):
                assert facts.version() == "TLSv1.3"
                assert facts.cipher() == ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)
                assert facts.group() == "X25519MLKEM768"
                assert facts.selected_alpn_protocol() == "echo/1"
            certificate = writer.getpeercert()
            assert certificate is not None
            assert ("DNS", "localhost") in certificate["subjectAltName"]
            assert writer.getpeercert(binary_form=True) == certificates.server().chain[0]
            assert seen[0].getpeercert(binary_form=True) == identity.chain[0]
            assert writer.get_channel_binding() == seen[0].get_channel_binding()
            with pytest.raises(ValueError, match="tls-unique"):
                writer.get_channel_binding("tls-unique")
            assert writer.export_keying_material(b"EXPORTER-x", 20) == seen[0].export_keying_material(
                b"EXPORTER-x", 20
            )
            assert writer.get_extra_info("peername") == server.sockets[0].getsockname()
            assert writer.get_extra_info("sockname") == seen[0].get_extra_info("peername")
            assert writer.get_extra_info("cipher") == writer.cipher()
            assert writer.get_extra_info("peercert") == certificate
            assert writer.get_extra_info("nonsense", 5) == 5
            assert writer.statistics()["records_opened"] > 0
            await finish(writer)
            assert writer.is_closing()
            await eventually(lambda: server.connections == 0)
            assert server.counters.handshakes_completed == server.counters.connections_closed == 1
        assert server.ledger.held == 0

    run(main())


def test_more_than_any_buffer_holds() -> None:
    async def main() -> None:
        blob = os.urandom(3_000_000)
        limits = Limits(receive_queue_bytes=50_000, send_queue_bytes=40_000)
        async with await serve(limits=limits) as server:
            reader, writer = await connect(server, limits=limits)
            writer.write(blob)  # any amount at once

            async def put() -> None:
                await writer.drain()
                writer.write_eof()

            task = asyncio.create_task(put())
            assert await reader.readexactly(len(blob)) == blob
            await task
            assert await reader.read() == b""
            await finish(writer)
        assert server.ledger.held == 0
        assert server.ledger.peak < 500_000

    run(main())


def test_a_reader_that_does_not_read_stops_its_peer() -> None:
    async def main() -> None:
        go = asyncio.Event()
        total = 0

        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            nonlocal total
            await go.wait()
            while data := await reader.read(10_000):
                total += len(data)
            writer.close()

        limits = Limits(receive_queue_bytes=50_000, send_queue_bytes=50_000)
        async with await serve(handler, limits=limits) as server:
            reader, writer = await connect(server, limits=limits)
            sent = 0

            async def write(*, drain: bool) -> None:
                nonlocal sent
                while True:
                    writer.write(bytes(20_000))
                    sent += 20_000
                    if drain:
                        await writer.drain()

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(write(drain=True), 0.5)
            # The peer takes nothing: a program that does not wait for drain is told so.
            with pytest.raises(LimitReached) as caught:
                await write(drain=False)
            assert caught.value.name == "send_queue_bytes"
            # One read of 64 KiB may come on top of the limit.
            assert server.ledger.held_for(Purpose.RECEIVE_QUEUE) < 50_000 + 65_536
            go.set()
            await writer.drain()
            writer.write_eof()
            assert await reader.read() == b""
            assert total == sent
            await finish(writer)

    run(main())


def test_a_full_ledger_pauses_everybody_and_recovers() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server)
            server.ledger.charge(Purpose.TABLES, server.ledger.limit - server.ledger.held - 1_000_000)
            writer.write(b"waits")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.readexactly(5)
            server.ledger.release(Purpose.TABLES, server.ledger.held_for(Purpose.TABLES))
            assert await reader.readexactly(5) == b"waits"
            await finish(writer)

    run(main())


def test_a_cancelled_read_loses_nothing() -> None:
    async def main() -> None:
        limits = Limits(receive_queue_bytes=20_000)
        async with await serve() as server:
            reader, writer = await connect(server, limits=limits)
            blob = os.urandom(100_000)
            writer.write(blob)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.readexactly(200_000)
            assert await reader.readexactly(10) == blob[:10]
            assert await reader.readuntil(blob[90:100]) == blob[10:100]
            assert await reader.readexactly(len(blob) - 100) == blob[100:]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read(1)
            writer.write(b"after\n")
            assert await reader.readline() == b"after\n"
            await finish(writer)

    run(main())


async def both_readers(
    pieces: list[bytes], limit: int
) -> tuple[StreamReader, asyncio.StreamReader, StreamWriter]:
    """The same bytes and end, in our reader and in asyncio's."""

    async def handler(_reader: StreamReader, writer: StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.close()

    server = await serve(handler)
    ours, writer = await connect(server, limit=limit)
    theirs = asyncio.StreamReader(limit)
    for piece in pieces:
        theirs.feed_data(piece)
    theirs.feed_eof()
    await eventually(lambda: ours.connection.peer_closed)
    await finish(writer)
    await server.shutdown()
    return ours, theirs, writer


PIECES = [[b"ab\r\ncd\n", b"ef", b"\nrest"], [b"x" * 150 + b"\n", b"y" * 30, b"\n"], []]
CALLS = [
    [("readline",)] * 6,
    [("readuntil", b"\r\n"), ("readuntil", b"\n"), ("readuntil", b"zz"), ("read",)],
    [("readexactly", 3), ("read", 4), ("readexactly", 0), ("readexactly", 10_000), ("read",)],
    [("read",), ("read", 5), ("readexactly", 1), ("readline",)],
    [("readuntil", b"y"), ("readline",), ("read", 0), ("readexactly", 2)],
]


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(
    "pieces", [[b"ab\r\ncd\n", b"ef", b"\nrest"], [b"x" * 150 + b"\n", b"y" * 30, b"\n"], []]
)
def test_reading_is_what_asyncio_does(calls: list[tuple[object, ...]], pieces: list[bytes]) -> None:
    async def main() -> None:
        ours, theirs, _ = await both_readers(pieces, 100)
        for name, *arguments in calls:
            outcomes = []
            for reader in (ours, theirs):
                try:
                    outcomes.append(await getattr(reader, str(name))(*arguments))
                except asyncio.IncompleteReadError as error:
                    outcomes.append(("incomplete", error.partial, error.expected))
                except asyncio.LimitOverrunError as error:
                    outcomes.append(("overrun", error.args[0]))
                except ValueError:
                    outcomes.append("too long")
            assert outcomes[0] == outcomes[1], (name, arguments)
        assert ours.at_eof() == theirs.at_eof()

    run(main())


def test_iterating_lines() -> None:
    async def main() -> None:
        ours, _, _ = await both_readers([b"a\nb\nc"], 100)
        assert [line async for line in ours] == [b"a\n", b"b\n", b"c"]
        with pytest.raises(ValueError, match="less than zero"):
            await ours.readexactly(-1)
        with pytest.raises(ValueError, match="at least one-byte"):
            await ours.readuntil(b"")

    run(main())


def test_a_line_that_never_ends() -> None:
    async def main() -> None:
        async def handler(_reader: StreamReader, writer: StreamWriter) -> None:
            for _ in range(100):
                writer.write(bytes(10_000))
                await writer.drain()
            writer.close()

        async with await serve(handler) as server:
            reader, writer = await connect(server)
            with pytest.raises(ValueError, match="exceed the limit"):
                await reader.readline()
            writer.abort()
            await writer.wait_closed()

    run(main())


def test_half_close_both_ways() -> None:
    async def main() -> None:
        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            assert writer.can_write_eof()
            writer.write_eof()
            with pytest.raises(ConnectionClosed):
                writer.write(b"too late")
            received.append(await reader.read())
            writer.close()

        received: list[bytes] = []
        async with await serve(handler) as server:
            reader, writer = await connect(server)
            assert await reader.read() == b""
            writer.write(b"after the server's end")
            await finish(writer)
            await eventually(lambda: received)
        assert received == [b"after the server's end"]

    run(main())


def test_an_aborted_stream_is_truncated_for_its_peer() -> None:
    async def main() -> None:
        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            writer.write(await reader.readexactly(4))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.abort()

        async with await serve(handler) as server:
            reader, writer = await connect(server)
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            with pytest.raises(Truncated):
                await reader.read()
            for _ in range(2):
                with pytest.raises(Truncated):
                    writer.write(b"x")
            with pytest.raises(Truncated):
                await writer.drain()
            await writer.wait_closed()

    run(main())


def test_what_was_written_arrives_although_the_writer_closed_at_once() -> None:
    async def main() -> None:
        blob = os.urandom(400_000)

        async def handler(reader: StreamReader, writer: StreamWriter) -> None:
            await reader.readexactly(10)  # and leave the rest unread
            writer.write(blob)
            writer.close()

        async with await serve(handler) as server:
            reader, writer = await connect(server)
            writer.write(bytes(100_000))
            assert await reader.read() == blob
            await finish(writer)

    run(main())


def test_failed_handshakes_are_told_and_leave_nothing() -> None:
    async def main() -> None:
        strangers = client_context(certificates.server(Kind.RSA_2048).cafile)
        async with await serve() as server:
            with pytest.raises(CertificateError):
                await connect(server, strangers)
            with pytest.raises(CertificateError):
                await connect(server, server_hostname="elsewhere.example")
            await eventually(lambda: server.counters.handshakes_failed == 2)
            _, writer = await connect(server)
            await finish(writer)
        asks = server_context(client_roots=certificates.client().cafile)
        async with await serve(context=asks) as server:
            reader, writer = await connect(server)
            # TLS 1.3 lets a client finish before its certificate is judged.
            with pytest.raises(PeerAlert) as caught:
                await reader.read()
            assert caught.value.alert is Alert.CERTIFICATE_REQUIRED
            await writer.wait_closed()
        assert server.ledger.held == 0

    run(main())


def test_nobody_there() -> None:
    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await open_connection(
                "localhost", free_port(socket.SOCK_STREAM), context=client_context(), timeout=5
            )
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(TimeoutError, match=rf"127\.0\.0\.1:{port} within 0\.1 seconds"):
                await open_connection("127.0.0.1", port, context=client_context(), timeout=0.1)
            limits = Limits(handshake_seconds=0.1)
            with pytest.raises(TimeoutError):
                await open_connection("127.0.0.1", port, context=client_context(), limits=limits)
        with pytest.raises(ValueError, match="host and port"):
            await open_connection(context=client_context())

    run(main())


def test_what_cannot_be_served() -> None:
    async def main() -> None:
        async with await serve() as server:
            with pytest.raises(OSError, match=r"in use") as caught:
                await start_server(echo_stream, "127.0.0.1", port_of(server), context=server_context())
            assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(ConfigurationError):
            await serve(context=Context(server_context().protocol))

    run(main())


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.002, 0.004, 0.008])
def test_cancelling_an_opening_leaves_nothing(delay: float) -> None:
    async def main() -> None:
        async with await serve() as server:
            task = asyncio.create_task(connect(server))
            await asyncio.sleep(delay)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                _, writer = await task
                writer.abort()
            await eventually(lambda: server.connections == 0)
        assert server.ledger.held == 0

    run(main())


def test_a_failing_handler_is_reported_and_costs_one_connection() -> None:
    async def main() -> None:
        async def handler(reader: StreamReader, _writer: StreamWriter) -> None:
            await reader.readexactly(1)
            raise RuntimeError("a mistake in the application")

        async with await serve(handler) as server:
            for _ in range(2):
                reader, writer = await connect(server)
                writer.write(b"x")
                assert await reader.read() == b""
                await finish(writer)

    run(main(), reports=2)


def test_a_handler_that_lets_the_end_of_its_connection_through_is_no_news() -> None:
    async def main() -> None:
        async def handler(reader: StreamReader, _writer: StreamWriter) -> None:
            await reader.readexactly(100)

        async with await serve(handler) as server:
            _, writer = await connect(server)
            writer.abort()
            _, other = await connect(server)
            await finish(other)
            await eventually(lambda: server.connections == 0)

    run(main(), reports=0)


def test_a_server_has_limits() -> None:
    async def main() -> None:
        async with await serve(limits=Limits(connections=2, handshakes=1, handshake_seconds=0.3)) as server:
            with socket.create_connection(("127.0.0.1", port_of(server))) as idle:
                idle.setblocking(False)
                await eventually(lambda: server.connections == 1)
                with pytest.raises((ConnectionResetError, Truncated)):
                    await connect(server, timeout=2)
                assert server.counters.admissions_refused == 1
                # A stranger who says nothing is gone after the handshake's time.
                await eventually(lambda: server.connections == 0)
                assert server.counters.handshakes_failed == 1
                await asyncio.get_running_loop().sock_recv(idle, 1)
            writers = [(await connect(server))[1] for _ in range(2)]
            with pytest.raises((ConnectionResetError, Truncated)):
                await connect(server, timeout=2)
            for writer in writers:
                await finish(writer)
        assert server.ledger.held == 0

    run(main())


def test_a_server_out_of_descriptors_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("sealwire.drive.aio.streams.EXHAUSTED_SECONDS", 0.1)
        async with await serve() as server:
            with socket.create_connection(("127.0.0.1", port_of(server))):
                lowest_free = os.dup(0)
                os.close(lowest_free)
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
                try:
                    await eventually(lambda: server._paused)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert server.connections == 0
                await eventually(lambda: server.connections == 1)
            _, writer = await connect(server, timeout=5)
            await finish(writer)

    run(main())


def test_certificates_change_without_a_restart() -> None:
    async def main() -> None:
        context = server_context(certificates.server(Kind.ECDSA_P256))
        other = certificates.server(Kind.RSA_2048)
        async with await serve(context=context) as server:
            _, first = await connect(server)
            context.load_cert_chain(other.certfile, other.keyfile)
            both = client_context(certificates.all_roots([certificates.server(), other]))
            _, second = await connect(server, both)
            # Both credentials are there now; the engine picks by the client's schemes.
            assert first.getpeercert(binary_form=True) == certificates.server().chain[0]
            assert second.getpeercert(binary_form=True) in (certificates.server().chain[0], other.chain[0])
            await finish(first)
            await finish(second)

    run(main())


def test_the_server_closes_its_clients_when_it_goes() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server)
            task = asyncio.create_task(server.serve_forever())
            await asyncio.sleep(0)
            assert server.is_serving()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not server.is_serving()
            await server.wait_closed()
            assert await reader.read() == b""
            await finish(writer)

    run(main())


def test_handlers_that_never_end_are_cancelled() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def handler(_reader: StreamReader, _writer: StreamWriter) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        server = await serve(handler)
        _, writer = await connect(server)
        await eventually(lambda: server.counters.handshakes_completed)
        await server.shutdown(0.05)
        assert ended == ["cancelled"]
        await finish(writer)

    run(main())


def test_a_plain_callback_will_do() -> None:
    async def main() -> None:
        waiting: asyncio.Queue[tuple[StreamReader, StreamWriter]] = asyncio.Queue()
        async with await serve(lambda reader, writer: waiting.put_nowait((reader, writer))) as server:
            reader, writer = await connect(server)
            their_reader, their_writer = await waiting.get()
            writer.write(b"unread")
            await finish(writer)
            await eventually(lambda: their_reader.connection.buffered)
            their_writer.close()
            await eventually(lambda: server.connections == 0)
            assert server.ledger.held_for(Purpose.RECEIVE_QUEUE) == 6
            assert await their_reader.read() == b"unread"
            del reader
        assert server.ledger.held == 0

    run(main())


def test_a_socket_of_ones_own() -> None:
    async def main() -> None:
        async with await serve() as server:
            sock = socket.create_connection(("127.0.0.1", port_of(server)))
            reader, writer = await open_connection(
                sock=sock, context=client_context(), server_hostname="localhost"
            )
            assert writer.get_extra_info("socket") is sock
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            await finish(writer)
            assert writer.get_extra_info("socket") is None

    run(main())


def test_the_peers_keys_may_change_at_any_time() -> None:
    async def main() -> None:
        async with await serve() as server:
            reader, writer = await connect(server)
            for n in range(20):
                await writer.update_keys(request_peer=n % 2 == 0)
                writer.write(b"%03d" % n)
                assert await reader.readexactly(3) == b"%03d" % n
            assert writer.statistics()["key_updates"] >= 30
            await finish(writer)

    run(main())


def test_a_peer_that_is_gone_when_it_is_accepted_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with await serve() as server:
            with monkeypatch.context() as patch:
                patch.setattr(
                    "sealwire.drive.aio.streams.Stream",
                    lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOTCONN, "not connected")),
                )
                for _ in range(3):
                    with socket.create_connection(("127.0.0.1", port_of(server))) as stranger:
                        stranger.setblocking(False)
                        assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
            assert server.ledger.held == 0
            _, writer = await connect(server)
            await finish(writer)

    run(main())
