"""Two sockets on one port: what goes where, who is refused, and servers that have them."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sealwire.drive import (
    create_connection,
    open_datagram_channel,
    start_datagram_server,
    steering,
    wrap_socket,
)
from sealwire.drive.blocking.datagram import ServerDatagramSocket
from sealwire.errors import Discard
from tests import configs
from tests.unit.drive.harness import echo_datagrams, eventually, port_of, run, udp_socket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux steers datagrams")


def bound(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def drained(sock: socket.socket) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(sock.recv(2048))
    except BlockingIOError:
        return found


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.requirement("9147-4.1-2")
def test_protected_records_go_to_one_socket_and_all_else_to_the_other(family: socket.AddressFamily) -> None:
    with bound(family) as data, socket.socket(family, socket.SOCK_DGRAM) as sender:
        split = steering.split(data)
        assert split.handshakes is not None, split.why
        with split.handshakes as handshakes:
            for first in range(256):
                sender.sendto(bytes((first,)) + b"x" * 20, data.getsockname())
            sender.sendto(b"", data.getsockname())
            assert [one[:1] for one in drained(data)] == [*(bytes((n,)) for n in range(0x20, 0x40)), b""]
            assert [one[0] for one in drained(handshakes)] == [*range(0x20), *range(0x40, 0x100)]


def test_the_port_is_still_one_servers_alone() -> None:
    with bound() as data:
        split = steering.split(data)
        assert split.handshakes is not None
        with split.handshakes, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
            with pytest.raises(OSError, match="in use") as caught:
                second.bind(data.getsockname())
            assert caught.value.errno == errno.EADDRINUSE


def test_a_port_that_is_shared_already_is_left_alone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as data:
        data.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        data.bind(("127.0.0.1", 0))
        split = steering.split(data)
        assert split.handshakes is None
        assert "other processes" in split.why


@pytest.mark.parametrize("refused", ["join", "attach"])
def test_where_the_kernel_refuses_one_socket_has_everything(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(steering, refused, refuse)
    with bound() as data, udp_socket() as sender:
        split = steering.split(data)
        assert split.handshakes is None
        assert "refused to steer them (Operation not permitted)" in split.why
        for first in (0x16, 0x2F):
            sender.sendto(bytes((first,)), data.getsockname())
        assert len(drained(data)) == 2
        assert not data.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with bound() as data:
        assert steering.split(data).handshakes is None
        assert steering.dropped(data) == 0


def test_what_the_kernel_dropped_is_known() -> None:
    with bound() as data, udp_socket() as sender:
        data.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(200):
            sender.sendto(bytes(500), data.getsockname())
        kept = len(drained(data))
        assert 0 < kept < 200
        assert steering.dropped(data) == 200 - kept
    assert steering.dropped(data) == 0


@pytest.mark.parametrize("steer", [True, False])
def test_a_server_on_asyncio(steer: bool) -> None:
    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", context=configs.server_context(), steer=steer
        ) as server:
            [why] = server.steering
            assert ("socket of their own" in why) == steer
            async with open_datagram_channel(
                "127.0.0.1", port_of(server), context=configs.client_context()
            ) as channel:
                # Thousands of hellos while the server has no time, and then data.
                with udp_socket() as stranger:
                    for _ in range(6_000):
                        stranger.sendto(b"\x16" + bytes(200), ("127.0.0.1", port_of(server)))
                for n in range(50):
                    await channel.send(b"%d" % n)
                assert [await channel.recv() for _ in range(50)] == [b"%d" % n for n in range(50)]
            counters = server.endpoint_counters()
            assert (counters.hellos_overflowed > 0) == steer
            if steer:
                assert counters.datagrams_overflowed == 0
            await eventually(lambda: not server.connections)

    run(main())


@pytest.mark.parametrize(("bound_to", "asked"), [("0.0.0.0", "127.0.0.5"), ("::", "::1"), ("::1", "::1")])
def test_the_answer_to_a_hello_comes_from_where_it_was_asked(bound_to: str, asked: str) -> None:
    """The handshake socket answers by itself, from the address the hello reached."""

    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, bound_to, context=configs.server_context()
        ) as server:
            assert "socket of their own" in server.steering[0]
            context = configs.client_context()
            context.check_hostname = False
            async with open_datagram_channel(asked, port_of(server), context=context) as channel:
                await channel.send(b"here")
                assert await channel.recv() == b"here"
                assert channel.peername[0] == asked
            assert server.endpoint_counters().hello_retry_requests == 1

    run(main())


def test_pieces_of_a_hello_and_what_is_no_hello_on_a_handshake_socket() -> None:
    """Post-quantum shares come in two datagrams, and noise of all kinds between them."""

    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", context=configs.server_context()
        ) as server:
            with udp_socket() as stranger:
                for noise in (b"", b"\0" * 40, b"\x15" + bytes(20), b"\x1a" + bytes(20), b"\x16" + bytes(60)):
                    stranger.sendto(noise, ("127.0.0.1", port_of(server)))
            context = configs.client_context(key_shares=["X25519MLKEM768"], groups=["X25519MLKEM768"])
            async with open_datagram_channel("127.0.0.1", port_of(server), context=context) as channel:
                await channel.send(b"x")
                assert await channel.recv() == b"x"
            counters = server.endpoint_counters()
            assert counters.discards[Discard.EMPTY] == 1
            assert counters.discards[Discard.OTHER_PROTOCOL] == 1
            assert counters.discards[Discard.UNKNOWN_PEER] == 2
            assert counters.discards[Discard.NOT_DTLS] == 1
            assert counters.discards[Discard.INCOMPLETE_HELLO] == 2
            assert counters.datagrams_received > 10

    run(main())


def test_whom_a_server_lets_in() -> None:
    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", context=configs.server_context()
        ) as server:
            server.block("127.0.0.0/8", seconds=100.0)
            assert server.listed()["127.0.0.0/8"][0] == "blocked"
            assert 90 < server.listed()["127.0.0.0/8"][1] <= 100
            opening = open_datagram_channel("127.0.0.1", port_of(server), context=configs.client_context())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3), opening:
                    pass
            assert server.endpoint_counters().discards[Discard.REFUSED] >= 1
            server.allow("127.0.0.1")
            async with open_datagram_channel(
                "127.0.0.1", port_of(server), context=configs.client_context()
            ) as channel:
                await channel.send(b"in")
                assert await channel.recv() == b"in"
            assert server.unlist("127.0.0.0/8")
            assert not server.unlist("192.0.2.0/24")
            assert server.listed() == {"127.0.0.1/32": ("allowed", float("inf"))}

    run(main())


def test_another_protocol_on_the_port_keeps_one_socket() -> None:
    async def main() -> None:
        got: list[bytes] = []
        async with await start_datagram_server(
            echo_datagrams,
            "127.0.0.1",
            context=configs.server_context(),
            on_other=lambda datagram, _: got.append(datagram),
        ) as server:
            assert "another protocol" in server.steering[0]
            with udp_socket() as stranger:
                stranger.sendto(b"\x00\x01stun", ("127.0.0.1", port_of(server)))
            await eventually(lambda: got == [b"\x00\x01stun"])

    run(main())


@pytest.mark.parametrize("cid_bytes", [8, None])
def test_a_blocking_server_with_its_peer(cid_bytes: int | None) -> None:
    """A peer known by an id may come from elsewhere, so strangers' datagrams end at a socket nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain, udp_socket() as stranger:
        plain.bind(("127.0.0.1", 0))
        address = plain.getsockname()
        started = threading.Event()

        def serve() -> tuple[bytes, str, int]:
            started.set()
            with wrap_socket(
                configs.server_context(), plain, server_side=True, cid_bytes=cid_bytes
            ) as server:
                assert isinstance(server, ServerDatagramSocket)
                server.settimeout(10)
                for _ in range(1_000):
                    stranger.sendto(b"\x16" + bytes(200), address)
                before = server._endpoint.counters.datagrams_received
                message = server.recv()
                server.send(message)
                return message, server.steering, server._endpoint.counters.datagrams_received - before

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(serve)
            assert started.wait(10)
            with create_connection(
                address,
                10,
                kind=socket.SOCK_DGRAM,
                context=configs.client_context(),
                server_hostname="localhost",
                connection_id=b"",
            ) as client:
                client.send(b"here")
                assert client.recv() == b"here"
                message, why, received = future.result(10)
        assert message == b"here"
        assert ("socket of their own" in why) == (cid_bytes is not None)
        assert received < 50


# -- workers: 2 N sockets on one port

_IN_A_RECORD = 20


def group(address: tuple[str, int] | tuple[str, int, int, int], workers: int) -> steering.Division:
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    first = socket.socket(family, socket.SOCK_DGRAM)
    first.setblocking(False)
    if family == socket.AF_INET6:
        first.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
    first.bind(address)
    return steering.divide(first, workers)


PLACES = [
    pytest.param(("127.0.0.1", 0), "127.0.0.1", id="IPv4"),
    pytest.param(("::1", 0, 0, 0), "::1", id="IPv6"),
    pytest.param(("::", 0, 0, 0), "::ffff:127.0.0.1", id="IPv4 at an IPv6 socket"),
]


@pytest.mark.parametrize(("address", "reach"), PLACES)
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_each_id_leads_to_its_worker(address: Any, reach: str, workers: int) -> None:
    division = group(address, workers)
    try:
        family = division.data[0].family
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            port = division.data[0].getsockname()[1]
            for worker_byte in range(256):
                for first in (0x30, 0x3F):
                    sender.sendto(bytes((first, worker_byte)) + bytes(_IN_A_RECORD), (reach, port))
                expected = division.data[worker_byte % workers]
                assert [one[1] for one in drained(expected)] == [worker_byte] * 2
                assert not any(drained(sock) for sock in (*division.data, *division.handshakes))
    finally:
        division.close()


@pytest.mark.parametrize(("address", "reach"), PLACES)
def test_all_else_of_one_peer_goes_to_one_worker(address: Any, reach: str) -> None:
    division = group(address, 4)
    try:
        met = set()
        for _ in range(64):
            with socket.socket(division.data[0].family, socket.SOCK_DGRAM) as sender:
                port = division.data[0].getsockname()[1]
                for first in (*range(0x30), *range(0x40, 0x100)):
                    sender.sendto(bytes((first,)) + bytes(_IN_A_RECORD), (reach, port))
            records = [sorted({one[0] for one in drained(sock)}) for sock in division.data]
            others = [sorted({one[0] for one in drained(sock)}) for sock in division.handshakes]
            [worker] = [n for n, found in enumerate(records) if found]
            assert records[worker] == list(range(0x20, 0x30))
            assert [n for n, found in enumerate(others) if found] == [worker]
            assert others[worker] == [*range(0x20), *range(0x40, 0x100)]
            met.add(worker)
        assert met == {0, 1, 2, 3}
    finally:
        division.close()


@pytest.mark.parametrize("datagram", [b"", b"\x30", b"\x3f"])
def test_what_is_too_short_to_say_goes_to_the_first_worker(datagram: bytes) -> None:
    division = group(("127.0.0.1", 0), 3)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(datagram, division.data[0].getsockname())
        assert [drained(sock) for sock in division.data] == [[datagram], [], []]
    finally:
        division.close()


def test_a_kernel_that_takes_no_program_spreads_peers_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(steering, "attach", refuse)
    division = group(("127.0.0.1", 0), 3)
    try:
        assert division.handshakes == ()
        assert "refused to steer by connection id (Protocol not available)" in division.why
        met = set()
        for _ in range(64):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for first in (0x16, 0x2F, 0x3F):
                    sender.sendto(bytes((first,)) + bytes(_IN_A_RECORD), division.data[0].getsockname())
            [worker] = [n for n, sock in enumerate(division.data) if len(drained(sock)) == 3]
            met.add(worker)
        assert met == {0, 1, 2}
    finally:
        division.close()


def test_elsewhere_than_on_linux_a_port_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with bound() as first, pytest.raises(OSError, match="only Linux"):
        steering.divide(first, 2)
