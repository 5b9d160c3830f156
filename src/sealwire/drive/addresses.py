"""Names to addresses, and sockets bound to them; the same for datagrams and streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

#: family, type, protocol, canonical name, address: what getaddrinfo returns.
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

Hosts = str | Sequence[str] | None


@lru_cache(maxsize=256)
def _looked_up(host: str | None, port: int, family: int, kind: int, flags: int) -> tuple[AddressInfo, ...]:
    found = socket.getaddrinfo(host, port, family=family, type=kind, flags=flags)
    return tuple(dict.fromkeys(found))


def as_it_stands(
    host: str | None, port: int, kind: int, *, family: int = 0, flags: int = 0
) -> list[AddressInfo] | None:
    """What an address is that is no name: it asks nobody and is the same each time; None for a name."""
    numeric = flags | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    # The number of a zone's interface may change.
    look_up = _looked_up.__wrapped__ if host is not None and "%" in host else _looked_up
    try:
        return list(look_up(host, port, family, kind, numeric))
    except socket.gaierror:
        return None


async def resolve(
    loop: asyncio.AbstractEventLoop,
    host: str | None,
    port: int,
    kind: int,
    *,
    family: int = 0,
    flags: int = 0,
) -> list[AddressInfo]:
    """The addresses of a name, without repetition.  Raises socket.gaierror, an OSError."""
    # A thread to ask in costs more than half a handshake.
    known = as_it_stands(host, port, kind, family=family, flags=flags)
    if known is not None:
        return known
    found = await loop.getaddrinfo(host, port, family=family, type=kind, flags=flags)
    return list(dict.fromkeys(found))


async def resolve_for_listening(
    loop: asyncio.AbstractEventLoop, host: Hosts, port: int, kind: int, *, family: int = 0
) -> list[AddressInfo]:
    """The addresses to listen on: every interface of both families for None or ``""``."""
    hosts: Sequence[str | None] = [host or None] if host is None or isinstance(host, str) else list(host)
    found: dict[AddressInfo, None] = {}
    for name in hosts:
        infos = await resolve(loop, name, port, kind, family=family, flags=socket.AI_PASSIVE)
        found.update(dict.fromkeys(infos))
    return list(found)


def bind(infos: Sequence[AddressInfo], *, reuse_port: bool = False) -> list[socket.socket]:
    """A non-blocking socket bound to each address; with port 0 all get the number of the first.

    ``"::"`` alone takes IPv4 as well; beside other addresses it is IPv6 only, so that both fit.

    Raises:
        OSError: an address cannot be bound (in use, not ours, not allowed); nothing stays open.
    """
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, kind, protocol, _, address in infos:
            try:
                sock = opened.enter_context(socket.socket(family, kind, protocol))
            except OSError:
                if len(infos) == 1:
                    raise
                continue  # a kernel without IPv6 resolves its addresses all the same
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, len(infos) > 1)
            if sockets and address[1] == 0:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sock.bind(address)
            sockets.append(sock)
        if not sockets:
            raise OSError("none of the addresses has a family this machine supports")
        opened.pop_all()
        return sockets


def show(address: Any) -> str:
    """An address for people: ``127.0.0.1:4433``, ``[::1]:4433``."""
    if not isinstance(address, tuple) or len(address) < 2:
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
