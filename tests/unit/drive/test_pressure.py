"""Faults under load, over real sockets: nothing hangs, nothing is lost uncounted, others go on."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from sealwire.drive import (
    DatagramChannel,
    DatagramSocket,
    open_datagram_channel,
    pathmtu,
    start_datagram_server,
    wrap_socket,
)
from sealwire.drive.batches import Entry
from sealwire.drive.udp import UdpSocket
from sealwire.dtls import Train, count_of
from sealwire.errors import ConnectionClosed, Discard
from sealwire.limits import Limits
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_datagrams, eventually, port_of, run, udp_socket

MESSAGE = bytes(1_000)


async def serve(handler: Any = echo_datagrams, **keywords: Any) -> Any:
    return await start_datagram_server(handler, "127.0.0.1", 0, context=server_context(), **keywords)


def connect(server: Any, **keywords: Any) -> Any:
    return open_datagram_channel("127.0.0.1", port_of(server), context=client_context(), **keywords)


class Faulty:
    """Between a UdpSocket and the kernel: refuses what it is told to."""

    def __init__(self, udp: UdpSocket) -> None:
        self._real = udp._send_batch
        udp._send_batch = self.send
        self.error: OSError | None = None
        self.refused = 0

    def send(self, sock: socket.socket, entries: Sequence[Entry], connected: bool) -> int:
        if self.error is not None:
            self.refused += count_of([entries[0][0]])
            raise self.error
        return self._real(sock, entries, connected)


async def echoes(channel: DatagramChannel, count: int = 3) -> None:
    for n in range(count):
        await channel.send(b"%d" % n)
        async with asyncio.timeout(5):
            assert await channel.recv() == b"%d" % n


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM])
def test_what_the_kernel_refuses_is_counted_and_the_rest_goes_on(code: int) -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel, connect(server) as other:
            faulty = Faulty(channel._port.udp)
            faulty.error = OSError(code, "no")
            await channel.send_many([MESSAGE] * 100)
            await channel.drain()
            assert channel._port.udp.dropped == faulty.refused == 100
            assert channel._port.udp.refusals > 0
            await echoes(other)
            faulty.error = None
            await echoes(channel)

    run(main())


def test_a_path_that_became_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMSGSIZE: messages get shorter from then on, what is too long is counted, the connection lives."""

    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            faulty = Faulty(channel._port.udp)
            real = faulty._real

            def narrow(sock: socket.socket, entries: Sequence[Entry], connected: bool) -> int:
                one = entries[0][0]
                if (one.size if isinstance(one, Train) else len(one)) > 600:
                    raise OSError(errno.EMSGSIZE, "Message too long")
                return real(sock, entries[:1], connected)

            channel._port.udp._send_batch = narrow
            monkeypatch.setattr(pathmtu, "estimate", lambda sock: 600)
            before = channel.max_message_bytes
            await channel.send_many([MESSAGE] * 10)
            await channel.drain()
            lost = channel._port.udp.dropped + channel.connection.counters.messages_too_long
            assert lost == 10
            assert channel.max_message_bytes < before
            with pytest.raises(ValueError, match="a datagram carries"):
                await channel.send(MESSAGE)
            assert channel.max_message_bytes < 600
            await echoes(channel)

    run(main())


def test_a_peer_that_vanishes_costs_nobody_else() -> None:
    """Its port is closed: ICMP says so to a connected socket, and the sender goes on until it is closed."""

    async def main() -> None:
        async with (
            await serve() as server,
            await serve() as doomed,
            connect(doomed) as lonely,
            connect(server) as other,
        ):
            for listener in doomed._listeners:
                listener.port.close()  # without a word
            for _ in range(20):
                await lonely.send_many([MESSAGE] * 50)
                await asyncio.sleep(0.01)
            await eventually(lambda: lonely._port.udp.refusals > 0)
            assert not lonely.closed
            await echoes(other)

    run(main())


def test_forged_unreachables_end_nothing() -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            for _ in range(100):
                channel._port.udp._hint(ConnectionRefusedError(errno.ECONNREFUSED, "forged"))
                channel._port.turn()
            await echoes(channel)
            assert channel._port.udp.refusals == 100

    run(main())


def forge_unreachable(raw: socket.socket, source: Any, destination: Any) -> None:
    """ICMP "port unreachable" about a datagram from `source` to `destination`, as anybody may send it."""
    about = struct.pack(
        "!BBHHHBBH4s4sHHHH",
        *(0x45, 0, 60, 0, 0, 64, socket.IPPROTO_UDP, 0),
        socket.inet_aton(source[0]),
        socket.inet_aton(destination[0]),
        *(source[1], destination[1], 40, 0),
    )
    packet = struct.pack("!BBHI", 3, 3, 0, 0) + about
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    raw.sendto(packet[:2] + checksum.to_bytes(2, "big") + packet[4:], (source[0], 0))


def test_unreachables_that_somebody_forges_on_the_wire_end_nothing() -> None:
    """The kernel believes them and tells the sockets; nobody's connection ends and nothing stays unsent."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        pytest.skip("absent: permission to forge ICMP (root)")

    async def main() -> None:
        async with await serve() as server, connect(server) as channel, connect(server) as other:
            ours, theirs = channel._port.udp.sock.getsockname(), server.sockets[0].getsockname()
            for n in range(50):
                forge_unreachable(raw, ours, theirs)
                forge_unreachable(raw, theirs, ours)
                await channel.send(b"%d" % n)
                async with asyncio.timeout(5):
                    assert await channel.recv() == b"%d" % n
            assert channel._port.udp.refusals >= 40
            assert channel._port.udp.dropped == 0
            await echoes(other)
            assert server.statistics()["datagrams_unsendable"] == 0

    with raw:
        run(main())


def test_a_receiver_ten_times_too_slow_costs_only_itself() -> None:
    """Its queue is bounded and what has no room is counted; the other peer of the server gets everything."""

    async def main() -> None:
        counts: dict[str, int] = {"slow": 0, "fast": 0}
        slow_channels: list[DatagramChannel] = []
        over = asyncio.Event()

        async def handler(channel: DatagramChannel) -> None:
            name = (await channel.recv()).decode()
            if name == "slow":
                slow_channels.append(channel)
                await over.wait()  # takes nothing
            async for batch in channel.batches():
                counts[name] += len(batch)
                await channel.send(b"%d" % counts[name])

        limits = Limits(receive_queue_bytes=64 * 1024)
        async with (
            await serve(handler, limits=limits) as server,
            connect(server) as slow,
            connect(server) as fast,
        ):
            await slow.send(b"slow")
            await fast.send(b"fast")
            await eventually(lambda: bool(slow_channels))
            sent = answered = 0
            for _ in range(40):
                await slow.send_many([MESSAGE] * 20)
                await fast.send_many([MESSAGE] * 20)
                sent += 20
                async with asyncio.timeout(5):
                    while answered < sent:
                        answered = int(await fast.recv())
            assert counts["fast"] == sent
            held = slow_channels[0].connection
            dropped = held.counters.discards[Discard.RECEIVE_QUEUE_FULL]
            assert dropped > 0
            assert held.held_bytes < 200_000
            received = held.counters.messages_received - 1  # its name
            assert received + dropped == sent
            over.set()
            await eventually(lambda: counts["slow"] == received)

    run(main())


def test_who_sends_much_does_not_keep_others_waiting() -> None:
    async def main() -> None:
        stop = asyncio.Event()

        async def handler(channel: DatagramChannel) -> None:
            if await channel.recv() == b"pour":
                while not stop.is_set():
                    await channel.send_many([MESSAGE] * 64)
                    await asyncio.sleep(0)
                return
            while not stop.is_set():
                await channel.send(await channel.recv())

        async with await serve(handler) as server, connect(server) as greedy, connect(server) as modest:
            await greedy.send(b"pour")
            await greedy.receive_many()
            await modest.send(b"hello")
            await echoes(modest, 20)
            stop.set()
            await modest.send(b"end")

    run(main())


def test_everything_arrives_in_the_end_with_a_full_socket() -> None:
    """A kernel that takes nothing for a while: the sender waits, and then all of it goes, in order."""

    async def main() -> None:
        received: list[bytes] = []

        async def take(channel: DatagramChannel) -> None:
            async for batch in channel.batches():
                received.extend(batch)

        limits = Limits(send_queue_bytes=64 * 1024)
        async with await serve(take) as server, connect(server, limits=limits) as channel:
            faulty = Faulty(channel._port.udp)
            faulty.error = BlockingIOError(errno.EAGAIN, "full")
            messages = [n.to_bytes(4, "big") + bytes(500) for n in range(500)]

            async def pour() -> None:
                for at in range(0, 500, 50):
                    await channel.send_many(messages[at : at + 50])

            pouring = asyncio.create_task(pour())
            await asyncio.sleep(0.1)
            assert not pouring.done()
            assert channel.get_write_buffer_size() <= 64 * 1024
            faulty.error = None
            await pouring
            await channel.drain()
            assert channel.get_write_buffer_size() == 0
            await eventually(lambda: received == messages)

    run(main())


def test_a_send_waits_above_the_high_mark_until_the_low_one() -> None:
    async def main() -> None:
        async with await serve() as server, connect(server) as channel:
            assert channel.get_write_buffer_limits() == (1 << 16, 1 << 18)
            channel.set_write_buffer_limits(high=8_000)
            assert channel.get_write_buffer_limits() == (2_000, 8_000)
            channel.set_write_buffer_limits(low=1_500)
            assert channel.get_write_buffer_limits() == (1_500, 6_000)
            for high, low in ((10, 20), (None, -1), (-4, None)):
                with pytest.raises(ValueError, match="high"):
                    channel.set_write_buffer_limits(high, low)
            assert channel.get_write_buffer_limits() == (1_500, 6_000)
            faulty = Faulty(channel._port.udp)
            faulty.error = BlockingIOError(errno.EAGAIN, "full")
            sent = 0

            async def pour() -> None:
                nonlocal sent
                while sent < 20:
                    await channel.send(MESSAGE)
                    sent += 1

            pouring = asyncio.create_task(pour())
            await asyncio.sleep(0.1)
            # The first turn's are with the socket, and of the second the one above the mark waits.
            assert 10 <= sent <= 12
            assert 6_000 < channel.get_write_buffer_size() <= 6_000 + 2 * len(MESSAGE)
            faulty.error = None
            await pouring
            await channel.drain()
            assert channel.get_write_buffer_size() == 0
            channel.set_write_buffer_limits()
            assert channel.get_write_buffer_limits() == (1 << 16, 1 << 18)

    run(main())


def test_batches_on_blocking_sockets() -> None:
    async def main() -> None:
        async with await serve() as server:
            port = port_of(server)

            def client() -> int:
                with udp_socket() as sock:
                    sock.connect(("127.0.0.1", port))
                    with wrap_socket(client_context(), sock, server_hostname="localhost") as secured:
                        assert isinstance(secured, DatagramSocket)
                        secured.settimeout(5)
                        secured.send_many([b"%d" % n for n in range(100)])
                        got: list[bytes] = []
                        for batch in secured.batches():
                            got += batch
                            if len(got) == 100:
                                break
                        assert got == [b"%d" % n for n in range(100)]
                        with pytest.raises(ValueError, match="a datagram carries"):
                            secured.send_many([b"x", bytes(5_000)])
                        return len(got)

            assert await asyncio.to_thread(client) == 100

    run(main())


def test_batches_end_with_the_peer() -> None:
    async def main() -> None:
        async def say(channel: DatagramChannel) -> None:
            await channel.send_many([b"a", b"b"])

        async with await serve(say) as server, connect(server) as channel:
            got = [message async for batch in channel.batches() for message in batch]
            assert got == [b"a", b"b"]
            with pytest.raises(ConnectionClosed):
                await channel.receive_many()

    run(main())
