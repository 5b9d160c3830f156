"""The plain side of a proxy: sockets that anybody on the machine can speak to, TCP or Unix.

Nothing here is secured, so nothing here is believed, except a PROXY protocol header from where one is
expected: that is read to its last byte and no further, so that what follows stays in the kernel for
whoever speaks next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sealwire.drive.addresses import bind, resolve, resolve_for_listening
from sealwire.proxy import header

if TYPE_CHECKING:
    from sealwire.proxy import Header, Target

_RESET: Final = struct.pack("ii", 1, 0)


async def connect(loop: asyncio.AbstractEventLoop, target: Target) -> socket.socket:
    """A connected socket; every address of a name is tried in turn.  Raises the last one's OSError."""
    if target.path:
        return await _connected(loop, socket.AF_UNIX, target.path)
    failure: OSError | None = None
    for family, _, _, _, address in await resolve(loop, target.host, target.port, socket.SOCK_STREAM):
        try:
            return await _connected(loop, family, address)
        except OSError as error:
            failure = error
    raise failure or OSError(f"{target.host} has no address")


async def _connected(loop: asyncio.AbstractEventLoop, family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)  # type: ignore[arg-type]
        keep(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def keep(sock: socket.socket) -> None:
    """Small writes leave at once, and a peer that is gone without a word is noticed some day."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def acknowledge(sock: socket.socket) -> None:
    """Acknowledge what came now: a client that waits for that with its first bytes (Nagle) waits 40 ms.

    Its Finished has no answer where no tickets are given, so nothing else would carry the ACK.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, AttributeError):  # Linux alone has it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


async def listen(
    loop: asyncio.AbstractEventLoop, target: Target, *, reuse_port: bool = False
) -> list[socket.socket]:
    """Bound sockets, which do not listen yet; a Unix socket that nobody answers at is replaced.

    Raises:
        OSError: the address or path cannot be had.
    """
    if not target.path:
        found = await resolve_for_listening(loop, target.host, target.port, socket.SOCK_STREAM)
        return bind(found, reuse_port=reuse_port)
    path = Path(target.path)
    if path.is_socket() and not _answers(target.path):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(target.path)
    except BaseException:
        sock.close()
        raise
    return [sock]


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # somebody whose queue is full, or whose socket is not ours to ask
            return True
        return True


def unlink(sock: socket.socket) -> None:
    """Take the name of a listening Unix socket away, which closing it does not."""
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(sock.getsockname())


async def read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Header:
    """The PROXY protocol header that comes first on `sock`, and nothing of what comes behind it.

    Raises:
        HeaderError: there is none, or none that may be believed.
        OSError: the connection broke.
    """
    data = b""
    while n := header.missing(data):
        part = await loop.sock_recv(sock, n)
        if not part:
            raise header.HeaderError("the connection ended within a PROXY protocol header")
        data += part
    return header.decode(data)


def reset(sock: socket.socket) -> None:
    """Close so that the other end sees an error, not an end.

    A Unix socket has no reset: its other end sees an end unless bytes of its own are lost with it.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
