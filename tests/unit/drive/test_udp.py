"""The UDP socket under the drivers, and addresses: runs, full sockets, complaints of the network."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sealwire.drive import pathmtu
from sealwire.drive.addresses import bind, resolve_for_listening, show
from sealwire.drive.udp import BATCH, Refusals, UdpSocket
from sealwire.telemetry import ConnectionCounters
from tests.unit.drive.harness import free_port, udp_socket


class Scripted:
    """Stands in for a socket: each call does the next thing of the script."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.sent: list[bytes] = []

    def setblocking(self, flag: bool) -> None: ...
    def getsockopt(self, *_: int) -> int:
        return 1 << 30

    def close(self) -> None: ...

    def getsockname(self) -> Any:
        return HERE

    def getpeername(self) -> Any:
        return HERE

    family = socket.AF_INET

    def _next(self) -> Any:
        if not self.script:
            raise BlockingIOError
        thing = self.script.pop(0)
        if isinstance(thing, OSError):
            raise thing
        return thing

    def setsockopt(self, *_: Any) -> None: ...

    def recvmsg(self, _n: int, _control: int) -> Any:
        data, address = self._next()
        return data, [], 0, address

    def sendmsg(self, parts: list[bytes], *_: Any) -> int:
        self._next()
        self.sent += parts
        return sum(map(len, parts))


def scripted(*script: Any, connected: bool = True) -> tuple[UdpSocket, Scripted]:
    stand_in = Scripted(*script)
    return UdpSocket(stand_in, connected=connected, plain=True), stand_in  # type: ignore[arg-type]


HERE = ("127.0.0.1", 1)
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def test_a_batch_has_an_end() -> None:
    with udp_socket() as sender, udp_socket() as receiver:
        udp = UdpSocket(receiver, connected=False)
        for n in range(BATCH + 5):
            sender.sendto(b"%d" % n, receiver.getsockname())
        first, second = udp.receive(), udp.receive()
        assert [int(data) for data, _ in first + second if isinstance(data, bytes)] == list(range(BATCH + 5))
        assert len(first) == BATCH
        assert {address for _, address in first} == {sender.getsockname()}
        assert udp.receive() == []


def test_an_error_in_the_middle_of_a_run_is_a_hint() -> None:
    udp, _ = scripted((b"1", HERE), REFUSED, (b"2", HERE), InterruptedError(), (b"3", HERE))
    assert udp.receive() == [(b"1", HERE), (b"2", HERE)]
    assert udp.refusals == 1
    assert udp.last_refusal is REFUSED


def test_errors_without_end_do_not_hold_the_loop() -> None:
    udp, stand_in = scripted(*[REFUSED] * 1_000)
    assert udp.receive() == []
    assert len(stand_in.script) == 1_000 - BATCH


def test_what_a_full_socket_does_not_take_waits_in_order() -> None:
    udp, stand_in = scripted(None, None)
    udp.send((b"%d" % n, HERE) for n in range(5))
    assert stand_in.sent == [b"0", b"1"]
    assert udp.blocked
    stand_in.script += [None] * 10
    udp.send([(b"5", HERE)])
    assert stand_in.sent == [b"%d" % n for n in range(6)]
    assert not udp.blocked


def test_a_refusal_of_something_earlier_does_not_cost_a_datagram() -> None:
    udp, stand_in = scripted(REFUSED, None, None)
    udp.send([(b"1", HERE), (b"2", HERE)])
    assert stand_in.sent == [b"1", b"2"]
    assert (udp.refusals, udp.dropped) == (1, 0)


@pytest.mark.parametrize(
    "code", [errno.EMSGSIZE, errno.EPERM, errno.ENETUNREACH, errno.EINVAL, errno.ENOBUFS]
)
def test_a_destination_that_cannot_be_reached_stops_nobody_else(code: int) -> None:
    udp, stand_in = scripted(None, OSError(code, "no"), None, connected=False)
    udp.send([(b"1", HERE), (b"2", HERE), (b"3", HERE)])
    assert stand_in.sent == [b"1", b"3"]
    assert (udp.refusals, udp.dropped) == (1, 1)


@pytest.mark.requirement("9147-4.4-2", "9147-4.4-6")
def test_a_router_that_carries_less_is_heard() -> None:
    """With one peer; what is heard is what the kernel remembers, whatever the datagrams' sizes."""
    udp, _ = scripted(OSError(errno.EMSGSIZE, "Message too long"), (b"x", HERE))
    told: list[tuple[int, Any]] = []
    udp.on_too_big = lambda size, address: told.append((size, address))
    assert udp.receive() == [(b"x", HERE)]
    assert told == [(65_507, HERE)]
    assert udp.refusals == 1
    served, _ = scripted(OSError(errno.EMSGSIZE, "Message too long"), (b"x", HERE), connected=False)
    served.on_too_big = udp.on_too_big
    assert served.receive() == [(b"x", HERE)]
    assert len(told) == 1


@pytest.mark.requirement("9147-4.4-6", "9147-4.4-11")
def test_what_a_router_says_of_an_earlier_datagram_does_not_cost_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pathmtu, "estimate", lambda sock: 972)
    told: list[int] = []
    udp, stand_in = scripted(None, OSError(errno.EMSGSIZE, "Message too long"), None, None)
    udp.on_too_big = lambda size, address: told.append(size)
    udp.send([(bytes(1200), HERE), (bytes(278), HERE), (b"x", HERE)])
    assert list(map(len, stand_in.sent)) == [1200, 278, 1]
    assert (told, udp.refusals, udp.dropped) == ([972], 1, 0)
    # One that is too long itself is not tried again.
    udp, stand_in = scripted(OSError(errno.EMSGSIZE, "Message too long"), None)
    udp.on_too_big = lambda size, address: told.append(size)
    udp.send([(bytes(1200), HERE), (b"x", HERE)])
    assert list(map(len, stand_in.sent)) == [1]
    assert (told, udp.refusals, udp.dropped) == ([972, 972], 1, 1)


@pytest.mark.requirement("9147-4.4-6", "9147-4.4-11")
def test_an_answer_that_sendmmsg_swallowed_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it sent fewer than it was given, and the next call goes on as if nothing had been."""
    monkeypatch.setattr(pathmtu, "estimate", lambda sock: 972)
    told: list[int] = []
    for script, heard in (([1, 2], 1), ([3], 0), ([1, BlockingIOError()], 0), ([1, REFUSED, 1, 1], 1)):
        told.clear()
        udp, _ = scripted()
        udp.on_too_big = lambda size, address: told.append(size)
        steps = iter(script)

        def send(sock: Any, batch: list[Any], connected: bool, steps: Iterator[Any] = steps) -> int:
            step = next(steps)
            if isinstance(step, OSError):
                raise step
            assert isinstance(step, int)
            return min(step, len(batch))

        monkeypatch.setattr(udp, "_send_batch", send)
        monkeypatch.setattr(udp, "_most_sent", 3)
        udp.send([(bytes(1200), HERE), (bytes(278), HERE), (b"x", HERE)])
        assert udp.refusals == heard
        assert told == ([972] if script == [1, 2] else [])
        assert udp.blocked is (script[-1].__class__ is BlockingIOError)


@pytest.mark.requirement("9147-4.4-2")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_what_the_kernel_says_of_loopback(family: socket.AddressFamily, host: str) -> None:
    longest = 65_507 if family == socket.AF_INET else 65_488
    with socket.socket(family, socket.SOCK_DGRAM) as peer, socket.socket(family, socket.SOCK_DGRAM) as sock:
        peer.bind((host, 0))
        address = peer.getsockname()
        sock.bind((host, 0))
        assert UdpSocket(sock, connected=False).path_estimate(address) == longest
        assert pathmtu.estimate(sock) is None
        sock.connect(address)
        assert UdpSocket(sock, connected=True).path_estimate(address) == longest
        with pytest.raises(BlockingIOError):
            peer.recv(1, socket.MSG_DONTWAIT)
    # Nobody is asked about what is no address, and no socket that is closed.
    assert pathmtu.estimate_to(("no such host of ours.invalid", 1), family) is None
    assert pathmtu.estimate(sock) is None


@pytest.mark.requirement("9147-4.4-2")
def test_other_systems_do_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with udp_socket() as sock:
        sock.connect(("127.0.0.1", 9))
        assert pathmtu.estimate(sock) is None


def test_a_broken_socket_is_no_hint() -> None:
    udp, _ = scripted(OSError(errno.EBADF, "bad"))
    with pytest.raises(OSError, match="bad"):
        udp.receive()


def test_a_forged_source_port_of_zero() -> None:
    with udp_socket() as sock:
        udp = UdpSocket(sock, connected=False)
        udp.send([(b"x", ("127.0.0.1", 0))])
        assert udp.dropped == 1


def test_when_refusals_end_the_wait() -> None:
    udp, _ = scripted(*[REFUSED] * 10)
    counters = ConnectionCounters()
    refusals = Refusals(udp, counters)
    refusals.give_up_if_hopeless()
    assert refusals.words == ""
    for transmission in (1, 2):
        counters.datagrams_sent += 2
        for _ in range(2):  # one for each datagram of the transmission
            udp._hint(REFUSED)
            refusals.give_up_if_hopeless()
        assert refusals.words == "; port unreachable was reported"
        assert transmission
    counters.datagrams_sent += 1
    udp._hint(REFUSED)
    with pytest.raises(ConnectionRefusedError, match="port unreachable"):
        refusals.give_up_if_hopeless()
    # Once somebody answered, a refusal says nothing.
    counters.datagrams_received = 1
    counters.datagrams_sent += 1
    udp._hint(OSError(errno.EHOSTUNREACH, "No route to host"))
    refusals.give_up_if_hopeless()
    assert refusals.words == "; the path reported: No route to host"


def test_the_first_refusal_is_enough_where_another_address_is_left() -> None:
    udp, _ = scripted()
    counters = ConnectionCounters(datagrams_sent=1)
    refusals = Refusals(udp, counters)
    refusals.move_on = True
    udp._hint(REFUSED)
    with pytest.raises(ConnectionRefusedError):
        refusals.give_up_if_hopeless()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_binding(kind: int) -> None:
    async def infos(host: Any, port: int = 0) -> Any:
        return await resolve_for_listening(asyncio.get_running_loop(), host, port, kind)

    everywhere = asyncio.run(infos(None))
    sockets = bind(everywhere)
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        sock.close()
    both = asyncio.run(infos(["127.0.0.1", "::1", "127.0.0.1"]))
    assert len(both) == 2
    sockets = bind(both, reuse_port=True)
    again = bind(
        [(*info[:4], (info[4][0], sockets[0].getsockname()[1], *info[4][2:])) for info in both],
        reuse_port=True,
    )
    for sock in sockets + again:
        sock.close()
    port = free_port(kind)
    holder = socket.socket(socket.AF_INET6, kind)
    holder.bind(("::1", port))
    if kind == socket.SOCK_STREAM:
        holder.listen()
    # The second address is taken, so the first is given back too.
    with holder, pytest.raises(OSError, match="in use"):
        bind(asyncio.run(infos(["127.0.0.1", "::1"], port)))
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", port))


def test_showing_addresses() -> None:
    assert show(("127.0.0.1", 4433)) == "127.0.0.1:4433"
    assert show(("::1", 4433, 0, 0)) == "[::1]:4433"
    assert show("/run/x") == "/run/x"
