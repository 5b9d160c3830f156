"""DTLS channels and servers on asyncio, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from sealwire import dtls
from sealwire.context import Context
from sealwire.drive import DatagramChannel, DatagramServer, open_datagram_channel, start_datagram_server
from sealwire.drive.aio.client import Opening
from sealwire.drive.udp import Entry, UdpSocket
from sealwire.errors import (
    Alert,
    CertificateError,
    ConfigurationError,
    ConnectionClosed,
    HandshakeError,
    LimitReached,
    PeerAlert,
)
from sealwire.limits import Limits
from tests import certificates
from tests.certificates import Kind
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_datagrams, eventually, free_port, port_of, run, udp_socket


async def serve(
    handler: Any = echo_datagrams, context: Context | None = None, host: Any = "127.0.0.1", **keywords: Any
) -> DatagramServer:
    return await start_datagram_server(handler, host, 0, context=context or server_context(), **keywords)


def connect(server: DatagramServer, context: Context | None = None, **keywords: Any) -> Opening:
    return open_datagram_channel(
        "127.0.0.1", port_of(server), context=context or client_context(), **keywords
    )


def test_echo_and_facts() -> None:
    async def main() -> None:
        seen: list[DatagramChannel] = []

        async def handler(channel: DatagramChannel) -> None:
            seen.append(channel)
            await echo_datagrams(channel)

        identity = certificates.client()
        context = server_context(client_roots=identity.cafile, alpn=["echo/1"])
        async with await serve(handler, context) as server:
            async with connect(server, client_context(identity=identity, alpn=["echo/1"])) as channel:
                for message in (b"hello", b"", b"x" * channel.max_message_bytes):
                    await channel.send(message)
                    assert await channel.recv() == message
                with pytest.raises(ValueError, match="above"):
                    await channel.send(bytes(channel.max_message_bytes + 1))
                for facts in (channel, seen[0]):
                    assert facts.version() == "DTLSv1.3"
                    assert facts.cipher() == ("TLS_AES_128_GCM_SHA256", "DTLSv1.3", 128)
                    assert facts.group() == "X25519MLKEM768"
                    assert facts.selected_alpn_protocol() == "echo/1"
                assert channel.getpeercert(binary_form=True) == certificates.server().chain[0]
                assert seen[0].getpeercert(binary_form=True) == identity.chain[0]
                assert channel.get_channel_binding() == seen[0].get_channel_binding()
                assert channel.peername == server.sockets[0].getsockname()
                assert channel.sockname == seen[0].peername
                assert channel.statistics()["messages_received"] == 3
            assert channel.closed
            with pytest.raises(ConnectionClosed):
                await channel.send(b"late")
            with pytest.raises(ConnectionClosed):
                await channel.recv()
            await eventually(lambda: server.connections == 0)
            statistics = server.statistics()
            assert statistics["handshakes_completed"] == statistics["connections_closed"] == 1
            assert statistics["hello_retry_requests"] == 1
        assert [endpoint.ledger.held for endpoint in server.endpoints] == [0]
        assert server.sockets == ()

    run(main())


def test_many_messages_in_one_turn() -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            messages = [b"%d" % n for n in range(200)]
            await channel.send_many(messages)
            assert [await channel.recv() for _ in messages] == messages
            big = [os.urandom(1_000) for _ in range(2_000)]
            with pytest.raises(LimitReached):
                await channel.send_many(big)

    run(main())


def test_both_families_and_every_address_of_a_name() -> None:
    async def main() -> None:
        async with await serve(host=None) as server:
            ports = {sock.getsockname()[1] for sock in server.sockets}
            assert len(ports) == 1
            for host in ("127.0.0.1", "::1", "localhost"):
                async with open_datagram_channel(
                    host, ports.copy().pop(), context=client_context()
                ) as channel:
                    await channel.send(b"x")
                    assert await channel.recv() == b"x"
        # Alone, the wildcard of IPv6 takes IPv4 too.
        async with await serve(host="::") as server, connect(server) as channel:
            assert channel.peername[0] == "127.0.0.1"
            await channel.send(b"y")
            assert await channel.recv() == b"y"

    run(main())


@pytest.mark.parametrize("host", [None, "0.0.0.0", "::"])
def test_the_answer_comes_from_the_address_that_was_asked(host: str | None) -> None:
    async def main() -> None:
        async with await serve(host=host) as server:
            for asked in ("127.0.0.1", "127.0.0.2", "::1") if host != "0.0.0.0" else ("127.0.0.3",):
                async with open_datagram_channel(
                    asked, port_of(server), context=client_context(), server_hostname="localhost", timeout=3
                ) as channel:
                    await channel.send(b"x")
                    assert await channel.recv() == b"x"

    run(main())


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with await serve() as server:
            loop = asyncio.get_running_loop()
            silent = udp_socket()
            refused = free_port(socket.SOCK_DGRAM)

            async def addresses(*_: Any, **__: Any) -> list[Any]:
                kind = (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "")
                ports = (refused, silent.getsockname()[1], port_of(server))
                return [(*kind, ("127.0.0.1", port)) for port in ports]

            monkeypatch.setattr(loop, "getaddrinfo", addresses)
            start = loop.time()
            async with open_datagram_channel(
                "localhost", 1, context=client_context(), timeout=1.0
            ) as channel:
                await channel.send(b"x")
                assert await channel.recv() == b"x"
            # The refused one at once, the silent one after half of the time.
            assert 0.4 < loop.time() - start < 1.0
            silent.close()

    run(main())


def test_closing_from_the_servers_side() -> None:
    async def main() -> None:
        async def handler(channel: DatagramChannel) -> None:
            await channel.send(b"last words")

        async with await serve(handler) as server, connect(server) as channel:
            assert [data async for data in channel] == [b"last words"]
            with pytest.raises(ConnectionClosed):
                await channel.recv()
            await channel.send(b"nobody minds")  # our direction is still open

    run(main())


def test_nobody_answers() -> None:
    async def main() -> None:
        with udp_socket() as silent:
            port = silent.getsockname()[1]
            with pytest.raises(TimeoutError, match=rf"no answer from 127\.0\.0\.1:{port} within 0"):
                await open_datagram_channel("127.0.0.1", port, context=client_context(), timeout=0.1)
            limits = Limits(handshake_seconds=0.1)
            with pytest.raises(TimeoutError):
                await open_datagram_channel("127.0.0.1", port, context=client_context(), limits=limits)
        closed = free_port(socket.SOCK_DGRAM)
        with pytest.raises(TimeoutError, match="port unreachable was reported"):
            await open_datagram_channel("127.0.0.1", closed, context=client_context(), timeout=0.2)
        with pytest.raises(socket.gaierror):
            await open_datagram_channel("no.such.name.invalid", 1, context=client_context(), timeout=5)

    run(main())


def test_a_refused_port_ends_the_wait_early_but_not_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(ConnectionRefusedError, match="port unreachable was reported"):
            await open_datagram_channel("127.0.0.1", free_port(socket.SOCK_DGRAM), context=client_context())
        # Transmissions at 0, 1 and 3 seconds.
        assert 2.5 < loop.time() - start < 5

    run(main())


def test_a_forged_refusal_harms_no_established_channel() -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            await channel.send(b"x")
            assert await channel.recv() == b"x"
            udp = channel._port.udp
            for _ in range(10):
                udp._hint(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
                channel._port.turn()
            await channel.send(b"y")
            assert await channel.recv() == b"y"

    run(main())


def test_failed_handshakes_are_told_and_leave_nothing() -> None:
    async def main() -> None:
        async with await serve() as server:
            with pytest.raises(CertificateError):
                await connect(server, client_context(certificates.server(Kind.RSA_2048).cafile))
            with pytest.raises(CertificateError):
                await connect(server, server_hostname="elsewhere.example")
            await eventually(lambda: server.statistics()["handshakes_failed"] == 2)
            with pytest.raises(PeerAlert):
                await connect(server, client_context(suites=["TLS_AES_256_GCM_SHA384"], groups=["P-384"]))
        assert server.endpoints[0].ledger.held == 0

    only_one = server_context(suites=["TLS_CHACHA20_POLY1305_SHA256"], groups=["x25519"])

    async def nothing_in_common() -> None:
        async with await serve(context=only_one) as server:
            with pytest.raises((PeerAlert, HandshakeError)):
                await connect(server, client_context(suites=["TLS_AES_256_GCM_SHA384"]), timeout=3)

    run(nothing_in_common())
    with pytest.raises(ConfigurationError):
        run(serve(context=Context(server_context().protocol)))


def test_a_port_in_use() -> None:
    async def main() -> None:
        async with await serve() as server:
            with pytest.raises(OSError, match="in use") as caught:
                await start_datagram_server(
                    echo_datagrams, "127.0.0.1", port_of(server), context=server_context()
                )
            assert caught.value.errno == errno.EADDRINUSE

    run(main())


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.006, 0.01])
def test_cancelling_an_opening_leaves_nothing(delay: float) -> None:
    async def main() -> None:
        async with await serve(limits=Limits(handshake_seconds=0.5)) as server:

            async def opening() -> DatagramChannel:
                return await connect(server)

            task = asyncio.create_task(opening())
            await asyncio.sleep(delay)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await (await task).aclose()
        assert server.endpoints[0].ledger.held == 0

    run(main())


def test_cancelling_a_receiver_loses_nothing() -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            waiting = asyncio.create_task(channel.recv())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await channel.send(b"x")
            assert await channel.recv() == b"x"

    run(main())


def test_a_failing_handler_costs_its_own_connection() -> None:
    async def main() -> None:
        async def handler(channel: DatagramChannel) -> None:
            await channel.recv()
            raise RuntimeError("a mistake in the application")

        async with await serve(handler) as server:
            for _ in range(2):
                async with connect(server) as channel:
                    await channel.send(b"x")
                    with pytest.raises(ConnectionClosed):
                        await channel.recv()

    run(main(), reports=2)


def test_a_handler_that_lets_the_end_of_its_connection_through_is_no_news() -> None:
    async def main() -> None:
        async def handler(channel: DatagramChannel) -> None:
            while True:
                await channel.recv()

        async with await serve(handler) as server:
            async with connect(server) as channel:
                await channel.send(b"x")
            await eventually(lambda: server.connections == 0)

    run(main())


def test_a_server_that_goes_says_goodbye() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def handler(channel: DatagramChannel) -> None:
            async for _ in channel:
                pass
            ended.append("in order")

        async def stubborn(_channel: DatagramChannel) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        for each in (handler, stubborn):
            server = await serve(each)
            async with connect(server) as channel:
                task = asyncio.create_task(server.serve_forever())
                await asyncio.sleep(0.02)
                assert server.is_serving()
                await server.shutdown(0.05)
                await task
                assert not server.is_serving()
                await server.wait_closed()
                assert [data async for data in channel] == []
        assert ended == ["in order", "cancelled"]

    run(main())


def test_a_closed_server_lets_its_connections_finish() -> None:
    async def main() -> None:
        server = await serve()
        async with connect(server) as channel:
            server.close()
            await channel.send(b"still here")
            assert await channel.recv() == b"still here"
            with pytest.raises(TimeoutError):
                await connect(server, timeout=0.2)
        async with asyncio.timeout(2):
            await server.wait_closed()

    run(main())


def test_limits_and_admission() -> None:
    async def main() -> None:
        async with await serve(limits=Limits(connections=1, handshakes=1)) as server:
            async with connect(server) as first:
                await first.send(b"x")
                assert await first.recv() == b"x"
                with pytest.raises((TimeoutError, OSError)):
                    await connect(server, timeout=0.3)
                assert server.statistics()["admissions_refused"] > 0
            await eventually(lambda: server.connections == 0)
            async with connect(server):
                pass
        asked: list[dtls.Attempt] = []

        def admission(attempt: dtls.Attempt) -> dtls.Admission:
            asked.append(attempt)
            return dtls.Admission.REFUSE

        async with await serve(admission=admission) as server:
            with pytest.raises(PeerAlert) as caught:
                await connect(server, timeout=3)
            assert caught.value.alert is Alert.ACCESS_DENIED
            assert len(asked) == 1

    run(main())


def test_a_failing_callback_is_reported_and_harms_nobody() -> None:
    async def main() -> None:
        def on_other(_data: bytes, _address: Any) -> None:
            raise RuntimeError("a mistake in the application")

        async with await serve(on_other=on_other) as server, connect(server) as channel:
            with udp_socket() as stranger:
                stranger.sendto(b"\x00\x01\x00\x00", server.sockets[0].getsockname())
                await channel.send(b"x")
                assert await channel.recv() == b"x"

    run(main(), reports=1)

    async def failing_admission() -> None:
        def admission(_attempt: dtls.Attempt) -> dtls.Admission:
            raise RuntimeError("a mistake in the application")

        async with await serve(admission=admission) as server:
            with pytest.raises(TimeoutError):
                await connect(server, timeout=0.3)

    run(failing_admission(), reports=None)  # once per transmission of the hello


def test_another_protocol_on_the_same_port() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def on_other(data: bytes, address: Any) -> None:
            server.sendto(b"stun? " + data, address)

        async with await serve(on_other=on_other) as server, connect(server) as channel:
            with udp_socket() as stranger:
                stranger.setblocking(False)
                stranger.sendto(b"\x00\x01", server.sockets[0].getsockname())
                assert await loop.sock_recv(stranger, 100) == b"stun? \x00\x01"
            await channel.send(b"x")
            assert await channel.recv() == b"x"
            with pytest.raises(ValueError, match="no socket"):
                server.sendto(b"x", ("::1", 1, 0, 0))

    run(main())


class Reluctant:
    """A socket whose kernel takes no datagrams until told to."""

    def __init__(self, udp: UdpSocket) -> None:
        self._real = udp._send_batch
        udp._send_batch = self.send
        self.taking = True

    def send(self, sock: socket.socket, entries: Sequence[Entry], connected: bool) -> int:
        if not self.taking:
            raise BlockingIOError
        return self._real(sock, entries, connected)


def test_a_full_socket_holds_the_sender_and_loses_nothing() -> None:
    async def main() -> None:
        limits = Limits(send_queue_bytes=20_000)
        async with await serve() as server, connect(server, limits=limits) as channel:
            reluctant = Reluctant(channel._port.udp)
            reluctant.taking = False
            sent = 0

            async def send() -> None:
                nonlocal sent
                while sent < 100:
                    await channel.send(b"%03d" % sent + bytes(1_000))
                    sent += 1

            task = asyncio.create_task(send())
            await asyncio.sleep(0.1)
            assert 10 <= sent <= 40  # a queue and what the socket was given, no more
            reluctant.taking = True
            received = [int((await channel.recv())[:3]) for _ in range(100)]
            assert received == list(range(100))
            await task
            # Closing does not wait for ever.
            reluctant.taking = False
            await channel.send(b"x")
            start = asyncio.get_running_loop().time()
            await channel.aclose()
            assert asyncio.get_running_loop().time() - start < 2

    run(main())


def test_messages_the_application_does_not_take_are_bounded() -> None:
    async def main() -> None:
        enough = asyncio.Event()

        async def flood(channel: DatagramChannel) -> None:
            while not enough.is_set():
                await channel.send(bytes(1_000))
                await asyncio.sleep(0.0005)
            await channel.recv()

        limits = Limits(receive_queue_bytes=20_000)
        async with await serve(flood) as server, connect(server, limits=limits) as channel:
            await eventually(lambda: channel.statistics().get("discard.receive_queue_full", 0) > 100)
            assert channel.connection.held_bytes < 40_000
            enough.set()
            await asyncio.sleep(0.05)  # until nothing is on its way any more
            await channel.send(b"enough")
            assert 10 < len([data async for data in channel]) < 20

    run(main())


def test_a_local_address() -> None:
    async def main() -> None:
        port = free_port(socket.SOCK_DGRAM)
        async with await serve() as server:
            async with connect(server, local_addr=("127.0.0.1", port)) as channel:
                assert channel.sockname == ("127.0.0.1", port)
            with pytest.raises(OSError, match="no local address"):
                await connect(server, local_addr=("::1", 0))

    run(main())


def test_closing_ends_a_wait_for_messages() -> None:
    async def main() -> None:
        async with await serve() as server:
            for full in (False, True):
                channel = await connect(server)
                waiting = asyncio.create_task(channel.recv())
                await asyncio.sleep(0)
                if full:
                    reluctant = Reluctant(channel._port.udp)
                    reluctant.taking = False
                    await channel.send(b"x")
                    await asyncio.sleep(0.01)
                await channel.aclose()
                with pytest.raises(ConnectionClosed):
                    await waiting

    run(main())


def test_an_update_that_nobody_acknowledges_ends_with_the_connection() -> None:
    async def main() -> None:
        limits = Limits(retransmissions=1)
        async with await serve() as server, connect(server, limits=limits) as channel:
            for listener in server._listeners:
                listener.port.close()
            with pytest.raises(TimeoutError, match="did not answer"):
                await channel.update_keys()

    run(main())


def test_an_update_of_a_channel_that_is_closed_meanwhile() -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            for listener in server._listeners:
                listener.port.close()
            waiting = asyncio.create_task(channel.update_keys())
            await asyncio.sleep(0.05)
            await channel.aclose()
            with pytest.raises(ConnectionClosed):
                await waiting

    run(main())


@pytest.mark.requirement("9147-8-1")
def test_keys_may_change_at_any_time() -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            for n in range(10):
                before = channel.key_usage().sending_epoch
                await channel.update_keys(request_peer=n % 2 == 0)
                assert channel.key_usage().sending_epoch == before + 1
                for k in range(5):
                    await channel.send(b"%d" % k)
                    assert await channel.recv() == b"%d" % k
            statistics = channel.statistics()
            assert statistics["key_updates"] >= 10
            assert statistics["acks_received"] >= 5

    run(main())


def test_a_closed_channel_waits_for_no_collector() -> None:
    """Nothing of a connection that is over refers to itself: it goes with its last reference."""

    async def main() -> None:
        async with await serve() as server:
            gone = []

            async def once() -> None:
                async with connect(server) as channel:
                    gone.append(weakref.ref(channel.connection))
                    await channel.send(b"x")
                    await channel.recv()
                    [served] = server.endpoints[0]
                    gone.append(weakref.ref(served))

            await once()  # what is imported on the way comes and stays
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await once()
                await eventually(lambda: server.connections == 0)
                await eventually(lambda: all(one() is None for one in gone))
            finally:
                gc.enable()

    run(main())
