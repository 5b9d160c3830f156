"""The registry of live objects, and what applications' tests use of it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import sealwire
from sealwire import dtls, ownership, stcp
from sealwire.ownership import Kind, Registry
from sealwire.sim import Link, Pair
from sealwire.testing import Leaks, assert_no_leaks, find_leaks
from tests.configs import client_context, server_context


class Thing:
    """Something that can be owned."""


@pytest.fixture(autouse=True)
def unwatched() -> Iterator[None]:
    before = ownership.registry
    ownership.unwatch()
    yield
    ownership.registry = before


def connected_pair() -> Pair:
    """A client and a server of ours, shaken hands, on virtual time."""
    client = dtls.Connection.client(client_context().config(), now=0.0, server_name="localhost")
    server = dtls.Connection.server(server_context().config(), now=0.0)
    pair = Pair(client, server, Link(1), Link(2))
    assert pair.run_until(lambda: client.was_connected and server.was_connected, 10.0)
    return pair


def test_nobody_watches_unless_asked() -> None:
    assert ownership.registry is None
    ownership.own(Kind.TIMER, Thing())
    assert find_leaks() == []


def test_an_entry_lives_as_long_as_its_thing() -> None:
    registry = ownership.watch()
    thing = Thing()
    ownership.own(Kind.TIMER, thing)
    assert [entry() for entry in registry.entries()] == [thing]
    assert registry.counts()[Kind.TIMER] == 1
    del thing
    assert registry.entries() == []
    assert registry.counts()[Kind.TIMER] == 0
    assert registry.dropped == 0  # a timer need not be cancelled


def test_what_was_let_go_is_open_no_more_but_may_live() -> None:
    registry = ownership.watch()
    thing = Thing()
    ownership.own(Kind.CONNECTION, thing)
    ownership.let_go(thing)
    ownership.let_go(thing)
    assert registry.entries() == []
    assert [entry() for entry in registry.entries(closed=True)] == [thing]


def test_dropping_what_has_an_end_is_a_warning() -> None:
    registry = ownership.watch()
    thing = Thing()
    ownership.own(Kind.CONNECTION, thing)
    with pytest.warns(ResourceWarning, match="dropped without being closed: .*Thing number 1"):
        del thing
    assert registry.dropped == 1
    closed = Thing()
    ownership.own(Kind.CONNECTION, closed)
    ownership.let_go(closed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del closed
    assert registry.dropped == 1


def test_what_cannot_be_referred_to_weakly_is_left_out() -> None:
    registry = Registry()
    registry.own(Kind.TIMER, 5)
    registry.let_go(5)
    assert registry.entries() == []


def test_an_identity_used_again_is_another_thing() -> None:
    registry = ownership.watch()
    for _ in range(1_000):
        thing = Thing()
        ownership.own(Kind.KEYS, thing)
        assert [entry() for entry in registry.entries()] == [thing]


def test_forgetting_ends_the_warnings() -> None:
    ownership.watch()
    thing = Thing()
    ownership.own(Kind.CONNECTION, thing)
    ownership.unwatch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del thing


def test_things_may_come_and_go_in_threads() -> None:
    registry = ownership.watch()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(2_000):
                thing = Thing()
                ownership.own(Kind.BUFFER, thing)
                registry.counts()
                ownership.let_go(thing)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert registry.entries(closed=True) == []


def test_a_leak_is_listed_with_its_site() -> None:
    kept = []
    tracemalloc.start(5)
    try:
        with pytest.raises(Leaks) as raised, assert_no_leaks():  # noqa: PT012
            thing = Thing()
            ownership.own(Kind.TIMER, thing)
            kept.append(thing)
    finally:
        tracemalloc.stop()
    text = str(raised.value)
    assert "left behind: 1 timers" in text
    assert "Thing number" in text
    assert "test_ownership.py" in text
    assert "ownership.own(Kind.TIMER, thing)" in text
    assert ownership.registry is None


def test_a_failure_inside_is_not_hidden() -> None:
    kept = []
    with pytest.raises(KeyError), assert_no_leaks():  # noqa: PT012
        kept.append(Thing())
        ownership.own(Kind.TIMER, kept[0])
        raise KeyError


def test_only_what_was_made_inside_counts() -> None:
    ownership.watch()
    old = Thing()
    ownership.own(Kind.TIMER, old)
    with assert_no_leaks():
        pass
    assert ownership.registry is not None  # it watched before
    ownership.let_go(old)


def test_descriptors_are_counted_when_asked() -> None:
    with pytest.raises(Leaks, match=r"descriptor \d+ socket:"), assert_no_leaks(descriptors=True):
        sock = socket.socket()
    sock.close()


def test_as_a_decorator() -> None:
    kept = []

    @assert_no_leaks()
    def leaks(much: bool) -> str:
        if much:
            kept.append(Thing())
            ownership.own(Kind.TIMER, kept[0])
        return "done"

    @assert_no_leaks()
    async def later() -> str:
        return "later"

    assert leaks(False) == "done"
    with pytest.raises(Leaks):
        leaks(True)
    assert leaks(False) == "done"
    assert asyncio.run(later()) == "later"


def test_engines_are_entered_until_they_are_closed() -> None:
    with assert_no_leaks():
        pair = connected_pair()
        counts = ownership.watch().counts()
        assert counts[Kind.CONNECTION] == 2
        # Two directions of the application's epoch and of the handshake's, on both sides.
        assert counts[Kind.KEYS] >= 4
        for side in (pair.client, pair.server):
            assert isinstance(side, dtls.Connection)
            side.close(pair.now)
            side.transmit(pair.now)


def test_an_engine_nobody_closes_is_a_leak_or_a_warning() -> None:
    with pytest.raises(Leaks, match=r"2 connections, \d+ keys"), assert_no_leaks():
        pair = connected_pair()
    del pair
    gc.collect()
    with pytest.raises(Leaks, match="dropped without being closed"), assert_no_leaks():  # noqa: PT012
        pair = connected_pair()
        with pytest.warns(ResourceWarning, match="dropped without being closed"):
            del pair


def streams() -> tuple[stcp.Connection, stcp.Connection]:
    client = stcp.Connection.client(client_context().config(), now=0.0, server_name="localhost")
    server = stcp.Connection.server(server_context().config(), now=0.0)
    for _ in range(6):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    return client, server


def test_stream_engines_likewise() -> None:
    with assert_no_leaks():
        client, server = streams()
        assert ownership.watch().counts()[Kind.CONNECTION] == 2
        assert ownership.watch().counts()[Kind.KEYS] == 4
        client.close()
        server.close()
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
        assert ownership.watch().counts()[Kind.KEYS] == 0


async def _echo(channel: Any) -> None:
    async for data in channel:
        await channel.send(data)


async def _echo_stream(reader: Any, writer: Any) -> None:
    while data := await reader.read(1_000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _talk() -> None:
    server = await sealwire.start_datagram_server(_echo, "127.0.0.1", 0, context=server_context())
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with sealwire.open_datagram_channel("127.0.0.1", port, context=client_context()) as channel:
            await channel.send(b"hello")
            assert await channel.recv() == b"hello"


async def _talk_streams() -> None:
    server = await sealwire.start_server(_echo_stream, "127.0.0.1", 0, context=server_context())
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await sealwire.open_connection("127.0.0.1", port, context=client_context())
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()


def test_asyncio_leaves_nothing() -> None:
    with assert_no_leaks(descriptors=True, closed=True):
        asyncio.run(_talk())
    with assert_no_leaks(descriptors=True, closed=True):
        asyncio.run(_talk_streams())


def test_asyncio_leaves_nothing_while_the_loop_runs() -> None:
    async def main() -> None:
        async with assert_no_leaks(descriptors=True):
            await _talk()
        async with assert_no_leaks(descriptors=True):
            await _talk_streams()

    asyncio.run(main())


def test_a_channel_left_open_is_found() -> None:
    async def main() -> None:
        server = await sealwire.start_datagram_server(_echo, "127.0.0.1", 0, context=server_context())
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Leaks, match="connections") as raised, assert_no_leaks():  # noqa: PT012
                channel = await sealwire.open_datagram_channel("127.0.0.1", port, context=client_context())
                await channel.send(b"hello")
                assert await channel.recv() == b"hello"
            kinds = {entry.kind for entry in raised.value.found}
            assert {Kind.CONNECTION, Kind.SOCKET, Kind.KEYS, Kind.TASK} <= kinds
            await channel.aclose()

    asyncio.run(main())


def _serve_one(sock: socket.socket, context: sealwire.Context) -> None:
    with context.wrap_socket(sock, server_side=True) as secure:
        secure.send(secure.recv(100))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_blocking_sockets_leave_nothing(kind: socket.SocketKind) -> None:
    with assert_no_leaks(descriptors=True, closed=True):
        if kind == socket.SOCK_STREAM:
            ours, theirs = socket.socketpair()
        else:
            ours, theirs = (socket.socket(socket.AF_INET, kind) for _ in range(2))
            ours.bind(("127.0.0.1", 0))
            theirs.bind(("127.0.0.1", 0))
            ours.connect(theirs.getsockname())
        thread = threading.Thread(target=_serve_one, args=(theirs, server_context()))
        thread.start()
        with client_context().wrap_socket(ours, server_hostname="localhost") as secure:
            secure.send(b"hello")
            assert secure.recv(100) == b"hello"
        thread.join()
        del secure, thread, ours, theirs


def test_a_blocking_socket_dropped_open_is_a_warning() -> None:
    ours, theirs = socket.socketpair()
    context = client_context()
    secure = context.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False)
    with pytest.warns(ResourceWarning) as told:  # noqa: PT031
        del secure
        gc.collect()
    (warning,) = (one for one in told if "unclosed StreamSocket" in str(one.message))
    assert warning.source is not None
    warning.source.close()
    theirs.close()


@pytest.mark.parametrize("engine", ["datagrams", "streams"])
def test_memory_goes_at_close_without_the_cyclic_collector(engine: str) -> None:
    """No connection is part of a reference cycle, so its memory and its keys go when it is dropped."""
    gc.collect()
    gc.disable()
    try:
        with assert_no_leaks(closed=True, cycles=False):
            if engine == "datagrams":
                pair = connected_pair()
                for side in (pair.client, pair.server):
                    assert isinstance(side, dtls.Connection)
                    side.close(pair.now)
                    side.transmit(pair.now)
                    side.events()
                del pair, side
            else:
                client, server = streams()
                client.close()
                server.close()
                server.receive_data(client.data_to_send())
                client.receive_data(server.data_to_send())
                del client, server
    finally:
        gc.enable()


def test_the_environment_switches_it_on() -> None:
    code = "from sealwire import ownership; print(ownership.registry is not None)"
    for value, expected in (("1", "True"), ("0", "False"), ("", "False")):
        environment = {**os.environ, "SEALWIRE_DEBUG_LEAKS": value}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
