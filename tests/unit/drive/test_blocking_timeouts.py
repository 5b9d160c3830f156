"""Every call of a blocking stream, timed out at every byte it waits for, and called again: nothing is lost.

The peer is the engine at the other end of a socket pair, fed and emptied by the test, so that each call of
ours stops where the test wants it to.  In time 0 it is BlockingIOError, else TimeoutError.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest

from sealwire import stcp
from sealwire.drive.blocking import StreamSocket, wrap_socket
from sealwire.errors import ConnectionClosed, Truncated
from tests import psks
from tests.unit.drive.harness import descriptors

T = TypeVar("T")
#: The group of short shares, and no certificates: fewer bytes, and so fewer places to stop at.
_GROUPS = ("X25519",)
_TIMEOUTS = {0.0: BlockingIOError, 0.0005: TimeoutError}


@pytest.fixture(scope="module", autouse=True)
def _nothing_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before


class Pair:
    """`ours`, which waits `timeout` seconds at most, and `peer`, of whose bytes one comes at a time."""

    def __init__(self, timeout: float, *, we_serve: bool, messages: bool = False) -> None:
        client = psks.client_context(psks.DEVICE, groups=_GROUPS)
        server = psks.server_context(psks.DEVICE, groups=_GROUPS)
        near, self.far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.far.setblocking(False)
        near.settimeout(timeout)
        kind = _TIMEOUTS[timeout]
        self.waits = (kind,)
        now = time.monotonic()
        if we_serve:
            self.peer = stcp.Connection.client(
                client.config(), now=now, server_name="localhost", messages=messages
            )
        else:
            self.peer = stcp.Connection.server(server.config(), now=now, messages=messages)
        made = wrap_socket(
            server if we_serve else client,
            near,
            server_side=we_serve,
            server_hostname=None if we_serve else "localhost",
            do_handshake_on_connect=False,
            messages=messages,
        )
        assert isinstance(made, StreamSocket)
        self.ours = made
        self.messages = messages
        self.stops = 0
        self.came = self.waiting = b""

    def hear(self, most: int = 1 << 20) -> int:
        """Take what `ours` sent; how much."""
        try:
            data = self.far.recv(most)
        except BlockingIOError:
            return 0
        if data:
            self.peer.receive_data(data, time.monotonic())
        else:
            self.peer.receive_eof()
        if not self.messages:
            self.came += self.peer.read()
        return len(data)

    def drip(self) -> None:
        """One byte of the peer's, after it heard everything."""
        self.hear()
        self.give(1)

    def give(self, most: int) -> None:
        """Some of what the peer says."""
        self.waiting += self.peer.data_to_send()
        if self.waiting:
            self.far.sendall(self.waiting[:most])
            self.waiting = self.waiting[most:]

    def again_and_again(self, call: Callable[[], T], between: Callable[[], object] | None = None) -> T:
        """`call` until it comes through; one byte comes each time it does not."""
        for _ in range(5_000):
            try:
                return call()
            except self.waits:
                self.stops += 1
                (between or self.drip)()
        raise AssertionError("it never came through")

    def settle(self) -> None:
        """Let the peer's bytes come, and ours go."""
        self.hear()
        self.give(1 << 20)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.settimeout(0)
        self.far.close()
        self.ours.close()


@pytest.fixture(params=_TIMEOUTS, ids=["not at all", "half a millisecond"])
def timeout(request: pytest.FixtureRequest) -> float:
    value: float = request.param
    return value


SIDES = pytest.mark.parametrize("we_serve", [False, True], ids=["client", "server"])


@SIDES
def test_the_handshake(timeout: float, we_serve: bool) -> None:
    with Pair(timeout, we_serve=we_serve) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        assert pair.stops > 100
        assert pair.ours.version() == "TLSv1.3"


@SIDES
def test_receiving(timeout: float, we_serve: bool) -> None:
    with Pair(timeout, we_serve=we_serve) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()
        sent = came = b""
        buffer = bytearray(3)
        file = pair.ours.makefile("rb", 0)
        calls: tuple[Callable[[], Any], ...] = (
            lambda: pair.ours.recv(5),
            lambda: bytes(buffer[: pair.ours.recv_into(buffer)]),
            lambda: file.read(2) or _nothing_yet(),
        )
        for n in range(12):
            piece = b"%04d" % n
            pair.peer.send(piece)
            sent += piece
            if n == 6:
                pair.peer.update_keys(request_peer=True)
            while len(came) < len(sent):
                came += pair.again_and_again(partial(_or_timeout, calls[n % 3], timeout))
        assert came == sent
        assert pair.stops > 100
        pair.peer.close()
        assert pair.again_and_again(lambda: pair.ours.recv(5)) == b""


def _or_timeout(call: Callable[[], T], timeout: float) -> T:
    try:
        return call()
    except BlockingIOError:
        # A file over a socket says None for both; see `_nothing_yet`.
        raise (BlockingIOError if timeout == 0 else TimeoutError) from None


def _nothing_yet() -> Any:
    raise BlockingIOError


def test_sending_more_than_fits(timeout: float) -> None:
    """What `send` took is sent once, whatever it was interrupted by; and what it did not take is not."""
    with Pair(timeout, we_serve=False) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()
        data = bytes(n % 251 for n in range(400_000))
        sent = 0
        while sent < len(data):
            piece = data[sent : sent + 70_000]
            sent += pair.again_and_again(partial(pair.ours.send, piece), partial(pair.hear, 3_000))
        assert pair.stops > 20
        assert data.startswith(pair.came)
        # The last of it goes with the next call, whatever that is.
        while len(pair.came) < len(data):
            with pytest.raises(pair.waits):
                pair.ours.recv(1)
            pair.hear()
        assert pair.came == data


def test_sendall_is_over_when_the_kernel_has_it() -> None:
    with Pair(0.0005, we_serve=False) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()
        with pytest.raises(TimeoutError):
            pair.ours.sendall(bytes(20_000))
        # What is on its way is waited for, too.
        pair.again_and_again(partial(pair.ours.sendall, b""), partial(pair.hear, 3_000))
        assert pair.stops
        pair.hear()
        assert pair.came == bytes(20_000)
    with Pair(0.0005, we_serve=False) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()
        pair.ours.sendall(bytes(2_000))
        assert pair.hear() > 2_000


@SIDES
def test_messages(timeout: float, we_serve: bool) -> None:
    with Pair(timeout, we_serve=we_serve, messages=True) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()
        for n in range(8):
            pair.peer.write_message(b"%d" % n * n)
            assert pair.again_and_again(pair.ours.read_message) == b"%d" % n * n
        heard: list[bytes] = []

        def hear() -> None:
            pair.hear(3_000)
            heard.extend(pair.peer.read_messages())

        wanted = [bytes([n]) * 20_000 for n in range(20)]
        for message in wanted:
            pair.again_and_again(partial(pair.ours.write_message, message), hear)
        while len(heard) < len(wanted):
            with pytest.raises(pair.waits):
                pair.ours.read_message()
            hear()
        assert heard == wanted
        pair.again_and_again(pair.ours.go_away)
        pair.peer.close()
        with pytest.raises(ConnectionClosed):
            pair.again_and_again(pair.ours.read_message)


@SIDES
def test_new_keys_and_both_ends(timeout: float, we_serve: bool) -> None:
    with Pair(timeout, we_serve=we_serve) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()
        pair.again_and_again(lambda: pair.ours.update_keys(request_peer=True))
        pair.peer.send(b"x")
        assert pair.again_and_again(lambda: pair.ours.recv(1)) == b"x"
        assert pair.ours.connection.counters.key_updates >= 1
        pair.again_and_again(lambda: pair.ours.shutdown(socket.SHUT_WR))
        with pytest.raises(ConnectionClosed):
            pair.ours.send(b"x")
        pair.hear()
        assert pair.peer.peer_closed
        pair.peer.send(b"last words")
        pair.peer.close()
        came = b""
        while part := pair.again_and_again(lambda: pair.ours.recv(4)):
            came += part
        assert came == b"last words"


@SIDES
def test_unwrapping(timeout: float, we_serve: bool) -> None:
    with Pair(timeout, we_serve=we_serve) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()

        def drip() -> None:
            pair.hear()
            if pair.peer.peer_closed:
                pair.peer.close()
            pair.give(1)

        with pair.again_and_again(pair.ours.unwrap, drip) as plain:
            assert pair.stops > 100
            pair.far.sendall(b"in the clear")
            plain.settimeout(5)
            assert plain.recv(100) == b"in the clear"


@SIDES
def test_a_timeout_and_then_the_end(timeout: float, we_serve: bool) -> None:
    """Closed, when it is not usable: the peer goes in the middle of what a call waits for."""
    with Pair(timeout, we_serve=we_serve) as pair:
        pair.again_and_again(pair.ours.do_handshake)
        pair.settle()
        pair.peer.send(b"never whole")
        for _ in range(9):
            with pytest.raises(pair.waits):
                pair.ours.recv(1)
            pair.drip()
        pair.far.shutdown(socket.SHUT_WR)
        for call in (lambda: pair.ours.recv(1), lambda: pair.ours.send(b"x"), pair.ours.unwrap):
            with pytest.raises(Truncated):
                call()
