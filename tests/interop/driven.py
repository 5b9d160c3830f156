"""Peers that are libraries: a process of ours around each, told what to do and saying what happens.

Both ways go lines of JSON.  Events have a name under "event": port (servers), connected, data,
updating, peer closed, closing, failed, again, and refused when the library does not take an option.
Commands have a name under "do": send, update, close, rebind, again.  What each driver understands
beyond that is said in its own file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import socket
import time
from typing import Any, cast

from sealwire import dtls
from tests.interop.programs import Program
from tests.interop.sockets import DatagramClient, DatagramServer, GaveUp, watch

#: The label the drivers export keying material under, and the context.
EXPORTER = b"EXPORTER-sealwire-interop"


class DrivenPeer:
    """A driver's process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        watch(self._check_alive)

    def _check_alive(self) -> None:
        if self.program.ended and not self.program.stopped:
            raise GaveUp(f"the peer ended: {self.program.process.returncode}, {self.program.said[-2_000:]}")

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything it said so far."""
        output = self.program.output
        return [json.loads(line) for line in output[: output.rfind(b"\n") + 1].splitlines()]

    def find(self, event: str, number: int = 0) -> dict[str, Any] | None:
        """The event of that name, the first or a later one; None while it has not happened."""
        found = [each for each in self.events if each["event"] == event]
        return found[number] if number < len(found) else None

    def wait_for(
        self, event: str, loop: DatagramClient | DatagramServer | None = None, number: int = 0
    ) -> dict[str, Any]:
        """That event, while `loop` turns; an AssertionError if it does not come, or it failed."""

        def happened() -> bool:
            if event != "failed" and (failure := self.find("failed")) is not None:
                raise GaveUp(f"the peer failed before {event!r}: {failure}")
            if self.program.ended:
                raise GaveUp(f"the peer ended before {event!r}: {self.program.said[-2_000:]}")
            return self.find(event, number) is not None

        if loop is None:
            self.program.wait_for(happened, event)
        else:
            loop.run_until(happened, event)
        found = self.find(event, number)
        assert found is not None
        return found

    def tell(self, do: str, **details: object) -> None:
        self.program.write(json.dumps({"do": do, **details}).encode() + b"\n")

    def send(self, data: bytes) -> None:
        """One message of application data."""
        self.tell("send", data_hex=data.hex())

    def has_received(self, data: bytes) -> bool:
        """Whether what its present connection received is exactly `data`, by hash."""
        last = next((each for each in reversed(self.events) if each["event"] in ("data", "again")), None)
        return last is not None and last.get("sha256") == hashlib.sha256(data).hexdigest()


def exchange(loop: DatagramClient | DatagramServer, connection: dtls.Connection, peer: DrivenPeer) -> None:
    """A line each way."""
    before = len(loop.received)
    peer.send(b"from the peer")
    loop.run_until(lambda: loop.received[before:] == [b"from the peer"], "their line")
    n = len([event for event in peer.events if event["event"] == "data"])
    connection.send(b"from sealwire")
    data = peer.wait_for("data", loop, n)
    assert bytes.fromhex(data["hex"]) == b"from sealwire"


def update_all(loop: DatagramClient | DatagramServer, connection: dtls.Connection, peer: DrivenPeer) -> None:
    """Ours alone, ours with a request, theirs (which asks for ours), both at once; data after each."""
    epochs = (3, 3)
    for ours, request, theirs in (
        (True, False, False),
        (True, True, False),
        (False, False, True),
        (True, True, True),
    ):
        if theirs:
            peer.tell("update")
        if ours:
            connection.update_keys(time.monotonic(), request_peer=request)
        wanted = (epochs[0] + (ours or theirs), epochs[1] + (theirs or request))
        loop.run_until(functools.partial(_reached, connection, wanted), f"epochs {wanted}")
        exchange(loop, connection, peer)
        epochs = (connection.key_usage.sending_epoch, connection.key_usage.receiving_epoch)


def _reached(connection: dtls.Connection, wanted: tuple[int, int]) -> bool:
    usage = connection.key_usage
    return usage.sending_epoch >= wanted[0] and usage.receiving_epoch >= wanted[1]


def exchange_much(
    loop: DatagramClient | DatagramServer, connection: dtls.Connection, peer: DrivenPeer
) -> None:
    """Half a megabyte each way, compared by hash."""
    theirs, ours = random.Random(1).randbytes(500_000), random.Random(2).randbytes(500_000)
    before = len(loop.received)
    for start in range(0, len(theirs), 10_000):
        for at in range(start, start + 10_000, 1_000):
            peer.send(theirs[at : at + 1_000])
        loop.run_until(functools.partial(_has, loop, before, start + 10_000), "their data")
    assert b"".join(loop.received[before:]) == theirs
    for start in range(0, len(ours), 10_000):
        connection.send_many([ours[at : at + 1_000] for at in range(start, start + 10_000, 1_000)])
        loop.run_until(functools.partial(peer.has_received, ours[: start + 10_000]), "our data")


def _has(loop: DatagramClient | DatagramServer, before: int, n: int) -> bool:
    return sum(map(len, loop.received[before:])) >= n


def complete_over_loss(loop: DatagramClient | DatagramServer, seed: int, peer: DrivenPeer) -> None:
    """A handshake while the path loses a fifth of all datagrams, then data both ways while it loses none."""
    lossy = LossySocket.around(loop, seed, 0.2)
    if isinstance(loop, DatagramClient):
        loop.handshake()
        connection = loop.connection
    else:
        connection = loop.accept()
    peer.wait_for("connected", loop)
    lossy.loss = 0.0
    exchange(loop, connection, peer)
    assert lossy.lost


class LossySocket:
    """A socket that loses a part of what passes it, each way."""

    def __init__(self, sock: socket.socket, seed: int, loss: float) -> None:
        self._sock, self._random, self.loss = sock, random.Random(seed), loss
        self.passed = self.lost = 0

    @classmethod
    def around(cls, loop: DatagramClient | DatagramServer, seed: int, loss: float) -> LossySocket:
        """Between `loop` and its socket."""
        lossy = cls(loop.sock, seed, loss)
        loop.sock = cast(socket.socket, lossy)
        return lossy

    def _loses(self) -> bool:
        # The second datagram always, so that no seed loses nothing.
        self.passed += 1
        lost = bool(self.loss) and (self.passed == 2 or self._random.random() < self.loss)
        self.lost += lost
        return lost

    def send(self, data: bytes) -> int:
        return len(data) if self._loses() else self._sock.send(data)

    def sendto(self, data: bytes, address: Any) -> int:
        return len(data) if self._loses() else self._sock.sendto(data, address)

    def recvfrom(self, n: int) -> tuple[bytes, Any]:
        while True:
            datagram = self._sock.recvfrom(n)
            if not self._loses():
                return datagram

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
