"""Batches of datagrams through real sockets, compiled and plain: the same datagrams, addresses and counts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sealwire.drive import batches
from sealwire.drive.peers import Reached, pack_address, unpack_address
from sealwire.drive.udp import UdpSocket
from sealwire.dtls import Train, split_all

HOSTS = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
KINDS = [True, False] if batches.COMPILED else [True]
Make = Callable[..., UdpSocket]

each_kind = pytest.mark.parametrize("plain", KINDS, ids=lambda plain: "plain" if plain else "compiled")
each_family = pytest.mark.parametrize(("family", "host"), HOSTS, ids=["ipv4", "ipv6"])


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[socket.socket] = []

    def one(family: int, host: str, plain: bool, peer: Any = None) -> UdpSocket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        made.append(sock)
        sock.bind((host, 0))
        if peer is not None:
            sock.connect(peer)
        return UdpSocket(sock, connected=peer is not None, plain=plain)

    yield one
    for sock in made:
        sock.close()


def everything(udp: UdpSocket) -> list[tuple[Any, Any]]:
    got = []
    while batch := udp.receive():
        got += batch
    return got


@each_kind
@each_family
def test_datagrams_and_trains_arrive_whole(make: Make, family: int, host: str, plain: bool) -> None:
    receiver = make(family, host, plain)
    here = receiver.sock.getsockname()
    for sender in (make(family, host, plain), make(family, host, plain, here)):
        sent: list[Any] = [
            b"one",
            Train(b"".join(bytes([n]) * 1200 for n in range(20)) + b"end", 1200),
            b"",
            b"x" * 9000,
            Train(b"ab" * 64, 2),
            Train(bytes(65_507), 1229),
        ]
        sender.send((one, here) for one in sent)
        assert not sender.blocked
        got = everything(receiver)
        assert split_all([data for data, _ in got]) == split_all(sent)
        assert {address for _, address in got} == {sender.sock.getsockname()}
        assert (sender.refusals, sender.dropped) == (0, 0)
        if receiver.merges and sender.segments:
            assert any(isinstance(data, Train) for data, _ in got)


@each_kind
@each_family
def test_many_peers_get_each_their_own(make: Make, family: int, host: str, plain: bool) -> None:
    server = make(family, host, plain)
    clients = [make(family, host, plain, server.sock.getsockname()) for _ in range(100)]
    server.send((b"%d" % n, client.sock.getsockname()) for n, client in enumerate(clients))
    assert [client.receive()[0][0] for client in clients] == [b"%d" % n for n in range(100)]


@each_kind
@pytest.mark.parametrize(("family", "everywhere"), [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")])
def test_the_answer_leaves_from_where_the_question_went(
    make: Make, family: int, everywhere: str, plain: bool
) -> None:
    asked = "127.0.0.77" if family == socket.AF_INET else "::1"
    server = make(family, everywhere, plain)
    port = server.sock.getsockname()[1]
    client = make(family, "127.0.0.1" if family == socket.AF_INET else "::1", plain, (asked, port))
    client.send([(Train(b"abab", 2), ())])
    questions = everything(server)
    assert split_all([data for data, _ in questions]) == [b"ab", b"ab"]
    address = questions[0][1]
    assert isinstance(address, Reached)
    assert address == client.sock.getsockname()
    server.send([(Train(b"cdcd", 2), address), (b"e", address)])
    # Connected to the address asked, it would not see an answer from another one.
    assert split_all([data for data, _ in everything(client)]) == [b"cd", b"cd", b"e"]


@each_kind
def test_what_the_kernel_dropped_is_counted(make: Make, plain: bool) -> None:
    receiver = make(socket.AF_INET, "127.0.0.1", plain)
    receiver.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sender = make(socket.AF_INET, "127.0.0.1", plain, receiver.sock.getsockname())
    for _ in range(50):
        sender.send([(bytes(1000), ())])
    kept = len(everything(receiver))
    assert kept < 50
    sender.send([(b"last", ())])  # the count travels with what comes next
    everything(receiver)
    assert receiver.lost == 50 - kept


@each_kind
def test_congestion_marks_are_counted(make: Make, plain: bool) -> None:
    receiver = make(socket.AF_INET, "127.0.0.1", plain)
    sender = make(socket.AF_INET, "127.0.0.1", plain, receiver.sock.getsockname())
    sender.send([(b"plain", ())])
    sender.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 3)
    sender.send([(b"marked", ())])
    assert len(everything(receiver)) == 2
    assert receiver.congestion_marks == 1


@each_kind
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.EMSGSIZE])
def test_a_train_that_is_refused_goes_as_datagrams(
    make: Make, plain: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = make(socket.AF_INET, "127.0.0.1", plain)
    sender = make(socket.AF_INET, "127.0.0.1", plain, receiver.sock.getsockname())
    real, tried = sender._send_batch, []

    def send(sock: socket.socket, entries: Any, connected: bool) -> int:
        if isinstance(entries[0][0], Train):
            tried.append(entries[0])
            raise OSError(code, "not as a train")
        return real(sock, entries[:1], connected)

    monkeypatch.setattr(sender, "_send_batch", send)
    for _ in range(2):
        sender.send([(b"1", ()), (Train(b"2345", 1), ()), (b"6", ())])
    assert b"".join(data for data, _ in everything(receiver)) == b"123456" * 2
    assert sender.dropped == 0
    # What this machine cannot do is tried once; what one path cannot carry, each time.
    assert len(tried) == (1 if code == errno.EIO else 2)


@each_kind
@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH])
def test_a_train_that_is_lost_is_counted(
    make: Make, plain: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = make(socket.AF_INET, "127.0.0.1", plain)

    def send(*_: Any) -> int:
        raise OSError(code, "no")

    monkeypatch.setattr(sender, "_send_batch", send)
    sender.send([(Train(b"2345", 1), ("127.0.0.1", 9)), (b"6", ("127.0.0.1", 9))])
    assert (sender.dropped, sender.refusals, sender.blocked) == (5, 2, False)


@each_kind
def test_a_peer_that_is_gone_is_a_hint(make: Make, plain: bool) -> None:
    gone = make(socket.AF_INET, "127.0.0.1", plain)
    sender = make(socket.AF_INET, "127.0.0.1", plain, gone.sock.getsockname())
    gone.close()
    for _ in range(4):
        sender.send([(b"x", ()), (Train(b"abab", 2), ())])
        sender.receive()
    assert sender.refusals > 0
    assert isinstance(sender.last_refusal, ConnectionRefusedError)


@each_kind
def test_any_buffer_can_be_sent(make: Make, plain: bool) -> None:
    receiver = make(socket.AF_INET, "127.0.0.1", plain)
    sender = make(socket.AF_INET, "127.0.0.1", plain, receiver.sock.getsockname())
    buffers: list[Any] = [bytearray(b"abc"), memoryview(b"def")]
    sender.send((one, ()) for one in buffers)
    assert [data for data, _ in everything(receiver)] == [b"abc", b"def"]


@each_kind
def test_an_address_that_is_a_name(make: Make, plain: bool) -> None:
    receiver = make(socket.AF_INET, "127.0.0.1", plain)
    sender = make(socket.AF_INET, "127.0.0.1", plain)
    port = receiver.sock.getsockname()[1]
    sender.send([(b"a", ("127.0.0.1", port)), (b"b", ("localhost", port)), (b"c", ("127.0.0.1", port))])
    assert [data for data, _ in everything(receiver)] == [b"a", b"b", b"c"]


@each_kind
def test_a_socket_that_is_given_back_has_single_datagrams(make: Make, plain: bool) -> None:
    receiver = make(socket.AF_INET, "127.0.0.1", plain)
    sender = make(socket.AF_INET, "127.0.0.1", plain, receiver.sock.getsockname())
    UdpSocket.release(receiver.sock)
    sender.send([(Train(b"abab", 2), ())])
    assert [receiver.sock.recv(100), receiver.sock.recv(100)] == [b"ab", b"ab"]


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 1), ("255.255.255.255", 65_535), ("::1", 4433, 0, 0), ("fe80::1", 1, 7, 3)]
)
def test_addresses_of_the_kernel(address: Any) -> None:
    assert unpack_address(pack_address(address)) == address


@pytest.mark.parametrize(
    "address", [("localhost", 1), ("127.0.0.1", 65_536), ("fe80::1%lo", 1, 0, 0), ("x",), (1, 2), ("/run/x",)]
)
def test_what_is_no_numeric_address(address: Any) -> None:
    with pytest.raises(ValueError, match="address"):
        pack_address(address)


def test_an_address_of_another_family() -> None:
    assert unpack_address(b"") == unpack_address(b"\1\0/run/x") == ()
