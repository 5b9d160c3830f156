"""What streams of one loop share: an epoll, a turn, and nothing that one of them could do to the others."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from sealwire.drive.aio import turns
from sealwire.drive.aio.turns import Turns, turns_of


def nothing() -> None:
    raise AssertionError("called without being wanted")


@pytest.fixture(params=["epoll", "selector"])
def epoll(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the system's epoll, and as where there is none."""
    if request.param == "selector":
        monkeypatch.setattr(turns, "_HAS_EPOLL", False)
    return bool(turns._HAS_EPOLL)


def test_each_descriptor_gets_what_it_waits_for(epoll: bool) -> None:
    async def main() -> None:
        shared = Turns(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        other, _kept = socket.socketpair()
        seen: list[str] = []

        def readable() -> None:
            seen.append("r" + ours.recv(10).decode())

        with ours, theirs, other, _kept:
            shared.watch(ours.fileno(), True, False, readable, nothing)
            shared.watch(other.fileno(), True, False, nothing, nothing)
            theirs.send(b"1")
            await asyncio.sleep(0.02)
            assert seen == ["r1"]

            def writable() -> None:
                seen.append("w")
                shared.watch(ours.fileno(), False, False, readable, writable)

            shared.watch(ours.fileno(), False, True, nothing, writable)
            theirs.send(b"2")
            await asyncio.sleep(0.02)
            assert seen == ["r1", "w"]  # what came is left where it is
            shared.watch(ours.fileno(), True, True, readable, writable)
            await asyncio.sleep(0.02)
            assert seen[2] == "r2"
            shared.forget(ours.fileno())
            shared.forget(ours.fileno())
            theirs.send(b"3")
            await asyncio.sleep(0.02)
            assert "r3" not in seen
            shared.forget(other.fileno())

    asyncio.run(main())


def test_who_paused_is_not_read_when_the_peer_hangs_up(epoll: bool) -> None:
    async def main() -> None:
        shared = Turns(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        calls = 0

        def writable() -> None:
            nonlocal calls
            calls += 1
            shared.forget(ours.fileno())

        with ours:
            theirs.send(b"waits")
            theirs.close()
            shared.watch(ours.fileno(), False, True, nothing, writable)
            await asyncio.sleep(0.02)
            assert calls == 1
            assert ours.recv(10) == b"waits"

    asyncio.run(main())


@pytest.mark.skipif(not turns._HAS_EPOLL, reason="this system has no epoll")
def test_the_epoll_lives_as_long_as_something_is_watched() -> None:
    async def main() -> None:
        shared = Turns(asyncio.get_running_loop())
        before = len(os.listdir("/proc/self/fd"))
        pairs = [socket.socketpair() for _ in range(3)]
        for ours, _ in pairs:
            shared.watch(ours.fileno(), True, False, nothing, nothing)
        assert len(os.listdir("/proc/self/fd")) == before + 2 * len(pairs) + 1
        for ours, theirs in pairs:
            shared.forget(ours.fileno())
            ours.close()
            theirs.close()
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())


class _Writer:
    def __init__(self, log: list[str], name: str, fails: bool = False) -> None:
        self._log = log
        self._name = name
        self._fails = fails

    def flush(self) -> None:
        if self._fails:
            raise ValueError("cannot")
        self._log.append(self._name)


def test_all_that_wrote_are_flushed_at_the_end_of_the_turn_whatever_one_does() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        log: list[str] = []
        failures: list[Any] = []
        loop.set_exception_handler(lambda loop, context: failures.append(context["exception"]))
        shared = turns_of(loop)
        assert shared is turns_of(loop)
        for name in ("a", "bad", "b"):
            shared.soon(_Writer(log, name, name == "bad"))
        assert log == []
        await asyncio.sleep(0)
        assert log == ["a", "b"]
        assert [str(error) for error in failures] == ["cannot"]
        shared.soon(_Writer(log, "c"))
        await asyncio.sleep(0)
        assert log == ["a", "b", "c"]

    asyncio.run(main())
