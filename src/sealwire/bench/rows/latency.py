"""`bench latency`: a message to a server and back, one at a time, beside plain UDP in the same run.

The client is a blocking socket; ours is answered by an asyncio server, plain UDP by a loop of recvfrom
and sendto.  Latencies are time on the wall: whoever else uses the machine is in them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sealwire.bench.closed_loop import closed_loop
from sealwire.bench.measurement import (
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Peer,
    Promise,
    Reading,
    Role,
)
from sealwire.bench.rows.changes import echoing
from sealwire.bench.rows.handshake import FULL, contexts
from sealwire.drive import create_connection

_NAME: Final = "localhost"
_SECONDS: Final = 10.0


class PlainServer:
    """The Peer of plain UDP."""

    def __init__(self, bench: Bench) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))

    @property
    def address(self) -> Mapping[str, Any]:
        return {"port": self._socket.getsockname()[1]}

    def serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(65_535)
            self._socket.sendto(data, address)

    def answer(self, question: str) -> Mapping[str, float]:
        return {}


class Asking:
    """A Body: round trips of one message; what came back must be what went."""

    def __init__(self, bench: Bench, size: int, secured: bool) -> None:
        self._bench = bench
        self._message = bytes(size)
        address = ("127.0.0.1", bench.peer["port"])
        self._socket: Any
        if secured:
            _, context = contexts(bench.directory, FULL)
            self._socket = create_connection(
                address, _SECONDS, kind=socket.SOCK_DGRAM, context=context, server_hostname=_NAME
            )
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.settimeout(_SECONDS)
            self._socket.connect(address)

    def run(self, seconds: float) -> Reading:
        return closed_loop(self._bench, self._round_trip)

    def _round_trip(self) -> Callable[[], None]:
        self._socket.send(self._message)
        if self._socket.recv(2048) != self._message:
            raise OSError("something else came back")
        return _nothing

    def verify(self) -> None:
        pass  # every answer was looked at

    def close(self) -> None:
        self._socket.close()


def _nothing() -> None:
    pass


def _row(size: int) -> Measurement:
    ours: Callable[[Bench], Body] = partial(Asking, size=size, secured=True)
    plain: Callable[[Bench], Body] = partial(Asking, size=size, secured=False)
    peer: Callable[[Bench], Peer] = echoing
    floor: Callable[[Bench], Peer] = PlainServer
    return Measurement(
        f"latency.{size}",
        f"a message of {size:,} B to a server and back",
        (
            Figure("", "ms", Kind.TIME, "median", Promise(1.6, "round trip at most 1.6 ms more than UDP")),
            Figure("p95", "ms", Kind.TIME, "95th percentile"),
            Figure("p99", "ms", Kind.TIME, "99th percentile"),
            Figure("cpu", "us", Kind.TIME, "CPU of both sides"),
        ),
        (
            Contender("sealwire", Role.OURS, ours, peer=peer),
            Contender("plain UDP", Role.RIVAL, plain, peer=floor),
        ),
    )


ROWS: Final = (_row(64), _row(1000))
