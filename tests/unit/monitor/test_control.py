"""The control socket: who may ask, what, and what a new user meets where nobody answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sealwire.monitor import ControlError, Monitor, ask, control, serve_control
from tests.unit.monitor.sources import Fixed, peer

Use = Callable[[Path, Fixed], Awaitable[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def served(path: Path, use: Use) -> None:
    async def main() -> None:
        source = Fixed()
        source.peers = [peer(n, 100 * n) for n in range(1, 30)]
        watch = Monitor()
        watch.watch(source)
        async with await serve_control(watch, path):
            await use(path, source)

    asyncio.run(main())
    assert not path.exists()


async def raw(path: Path, request: bytes, *, end: bool = True) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def test_asking(path: Path) -> None:
    async def use(path: Path, source: Fixed) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        status = await asyncio.to_thread(ask, path, {"ask": "status"})
        assert status["servers"]["dtls"]["connections"] == 3
        top = await asyncio.to_thread(ask, path, {"ask": "top", "n": 3, "by": "held_bytes"})
        assert [one["held_bytes"] for one in top] == [2_900, 2_800, 2_700]
        assert top[0]["peer"] == "192.0.2.29:1000"
        assert top[0]["server"] == "dtls"

    served(path, use)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\n",
        b"[]\n",
        b"5\n",
        b"{}\n",
        b'{"ask": 5}\n',
        b'{"ask": "shutdown"}\n',
        b'{"ask": "top", "n": 0}\n',
        b'{"ask": "top", "n": true}\n',
        b'{"ask": "top", "n": 1e9}\n',
        b'{"ask": "top", "by": 5}\n',
        b"[" * 4_000 + b"\n",
        b"\xff\xfe\n",
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(path: Path, request_bytes: bytes) -> None:
    async def use(path: Path, source: Fixed) -> None:
        answer = json.loads(await raw(path, request_bytes))
        assert set(answer) == {"error"}

    served(path, use)


def test_a_request_is_bounded_and_several_fit_a_connection(path: Path) -> None:
    async def use(path: Path, source: Fixed) -> None:
        assert await raw(path, b"x" * 100_000) == b""
        answers = await raw(path, b'{"ask": "status"}\n' * 3)
        assert len(answers.splitlines()) == 3

    served(path, use)


class Strange:
    """Credentials of a user who is neither root nor ours, whatever the kernel says."""

    def __init__(self, credentials: struct.Struct) -> None:
        self.size = credentials.size

    def unpack(self, raw: bytes) -> tuple[int, int, int]:
        assert len(raw) == self.size
        return 1, 1234, 1


def test_another_user_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(path: Path, source: Fixed) -> None:
        own = os.geteuid()
        if own == 0:
            # Root may always: the kernel says that it is somebody else.
            stranger = struct.Struct("3i")
            monkeypatch.setattr(control, "_CREDENTIALS", Strange(stranger))
        else:
            monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(ControlError) as raised:
            await asyncio.to_thread(ask, path, {"ask": "status"})
        assert "user of the server" in raised.value.next_step or "start a server" in raised.value.next_step

    served(path, use)


def test_a_socket_left_behind_is_replaced_and_nothing_else(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()

    async def use(path: Path, source: Fixed) -> None:
        with pytest.raises(FileExistsError):
            await serve_control(Monitor(), path)  # one that answers

    served(path, use)
    path.write_text("a file of yours")

    async def refused() -> None:
        with pytest.raises(FileExistsError):
            await serve_control(Monitor(), path)

    asyncio.run(refused())
    assert path.read_text() == "a file of yours"


def test_a_socket_that_another_program_made_meanwhile_is_left(path: Path) -> None:
    async def main() -> None:
        watch = Monitor()
        server = await serve_control(watch, path)
        path.unlink()
        path.write_text("another")
        await server.aclose()
        await server.aclose()

    asyncio.run(main())
    assert path.read_text() == "another"


def test_asking_where_nobody_is(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="there is no control socket at") as raised:
        ask(path, {"ask": "status"})
    assert f"--control {path}" in raised.value.next_step
    path.write_text("")
    with pytest.raises(ControlError, match="is not a control socket"):
        ask(path, {"ask": "status"})
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(ControlError, match="nobody answers"):
        ask(path, {"ask": "status"})
    path.unlink()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(ControlError, match="does not answer within"):
            ask(path, {"ask": "status"}, timeout=0.1)


@pytest.mark.parametrize("answer", [b"hello\n", b"5\n", b'{"error": "no"}\n', b""])
def test_asking_something_else(path: Path, answer: bytes) -> None:
    async def main() -> None:
        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(answer)
            writer.close()

        server = await asyncio.start_unix_server(other, path)
        with pytest.raises(ControlError):
            await asyncio.to_thread(ask, path, {"ask": "status"})
        server.close()
        await server.wait_closed()

    asyncio.run(main())
