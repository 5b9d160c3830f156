"""Several processes on one port: what reaches whom, and what becomes of peers when a worker ends.

These are real processes, started anew, so each takes a second or more where the machine is busy.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sealwire import dtls
from sealwire.context import SessionStore
from sealwire.drive import WorkerGroup, WorkerNews, create_connection, run_workers
from sealwire.drive.blocking import DatagramSocket
from sealwire.errors import ConfigurationError, Discard, Error
from tests import certificates, configs
from tests.unit.drive import worker_programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads datagrams over sockets")

# Of a machine on which many tests run at once.
PATIENCE_SECONDS = 120.0
_SOL_UDP, _UDP_SEGMENT = 17, 103
# What a handshake on a busy machine may bring twice.
REPEATED = {Discard.UNEXPECTED_PLAINTEXT, Discard.STALE_MESSAGE}


@contextlib.contextmanager
def group(workers: int, **options: object) -> Iterator[WorkerGroup]:
    identity = certificates.server()
    options.setdefault("drain_seconds", 0.2)
    made = WorkerGroup(
        worker_programs.echo,
        "127.0.0.1",
        workers=workers,
        args=(identity.certfile, identity.keyfile),
        **options,  # type: ignore[arg-type]
    )
    with made:
        made.start()
        yield made


def until(one: WorkerGroup, condition: Callable[[], bool]) -> None:
    """Supervise until `condition` holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, (one.statistics(), one.pids)
        one.step(0.05)


class Client:
    """A client that a test moves by hand."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(address)
        self.sock.setblocking(False)
        config = configs.client_context().config()
        self.connection = dtls.Connection.client(config, now=time.monotonic(), server_name="localhost")

    def move(self, seconds: float) -> None:
        """Send what is to be sent, then take what comes within `seconds`."""
        now = time.monotonic()
        deadline = self.connection.deadline()
        if deadline is not None and deadline <= now:
            self.connection.wake(now)
        for datagram in self.connection.transmit(now):
            self.sock.send(datagram)
        if select.select([self.sock], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.connection.receive(self.sock.recv(65_535), time.monotonic())

    def connect(self) -> Client:
        end = time.monotonic() + PATIENCE_SECONDS
        while self.connection.state is not dtls.State.CONNECTED or not self.worker_byte_known:
            assert time.monotonic() < end
            assert self.connection.error is None
            self.move(0.05)
        return self

    @property
    def worker_byte_known(self) -> bool:
        return bool(self.connection.cids.current)

    def worker(self, count: int) -> int:
        """The worker in the id the server gave."""
        return self.connection.cids.current[0] % count

    def ask(self, message: bytes) -> bytes:
        """The answer to `message`, which is sent once."""
        self.connection.send(message)
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            self.move(0.05)
            for answer in self.connection.messages():
                if answer.endswith(message):
                    return answer
        raise AssertionError(f"no answer to {message!r}")

    def close(self) -> None:
        self.sock.close()


@contextlib.contextmanager
def clients_of_every_worker(one: WorkerGroup, count: int) -> Iterator[dict[int, Client]]:
    """A connected client of each worker."""
    with contextlib.ExitStack() as stack:
        found: dict[int, Client] = {}
        while len(found) < count:
            client = Client(one.addresses[0])
            stack.callback(client.close)
            found.setdefault(client.connect().worker(count), client)
        yield found


def counted(one: WorkerGroup, name: str) -> list[int]:
    return [statistics.get(name, 0) for statistics in one.statistics()]


def test_each_datagram_with_an_id_reaches_its_worker() -> None:
    with group(4) as one, clients_of_every_worker(one, 4) as clients:
        assert one.steering == ("records go to the worker in their connection id, all else by address",)
        for n in range(25):
            for index, client in clients.items():
                assert client.ask(b"%d" % n).split()[:2] == [b"%d" % index, b"%d" % (one.pids[index] or 0)]
        # Ids nobody has, with every first byte there is, from one address.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for first in range(256):
                stranger.sendto(bytes((0x3D, first)) + bytes(40), one.addresses[0])
        until(one, lambda: sum(counted(one, "discard.unknown_cid")) == 256)
        assert counted(one, "discard.unknown_cid") == [64] * 4
        assert counted(one, "discard.unknown_peer") == [0] * 4
        assert counted(one, "datagrams_forwarded") == counted(one, "datagrams_unforwarded") == [0] * 4

        # A run of both's records from somewhere else goes where its first one belongs, and is sorted there.
        _a_run_of_two(clients[0], clients[1], one.addresses[0])
        until(one, lambda: sum(counted(one, "datagrams_forwarded")) == 10)
        assert counted(one, "datagrams_forwarded") == [10, 0, 0, 0]
        assert counted(one, "datagrams_unforwarded") == [0] * 4
        for index in (0, 1):
            answers = _answers(clients[index], 10)
            assert [answer.split()[0] for answer in answers] == [b"%d" % index] * 10
            assert [answer.split()[2] for answer in answers] == [b"run-%d" % n for n in range(10)]


def _a_run_of_two(one: Client, two: Client, address: tuple[str, int]) -> None:
    run: list[bytes] = []
    for n in range(10):
        for client in (one, two):
            client.connection.send(b"run-%d" % n)
            run += client.connection.transmit(time.monotonic())
    assert len({len(datagram) for datagram in run}) == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        segment = struct.pack("=H", len(run[0]))
        elsewhere.sendmsg([b"".join(run)], [(_SOL_UDP, _UDP_SEGMENT, segment)], 0, address)


def _answers(client: Client, n: int) -> list[bytes]:
    found: list[bytes] = []
    end = time.monotonic() + PATIENCE_SECONDS
    while len(found) < n:
        assert time.monotonic() < end, found
        client.move(0.05)
        found += client.connection.messages()
    return found


def test_a_killed_worker_harms_nobody_elses_peers_and_is_started_again() -> None:
    news: list[WorkerNews] = []
    with group(3, on_news=news.append) as one, clients_of_every_worker(one, 3) as clients:
        pids = one.pids
        assert pids[1] is not None
        for n in range(50):
            if n == 5:
                os.kill(pids[1], signal.SIGKILL)
            for index in (0, 2):
                assert clients[index].ask(b"on %d" % n).split()[0] == b"%d" % index
            # Its peer goes on talking, too.
            with contextlib.suppress(OSError):
                clients[1].connection.send(b"anybody?")
                clients[1].move(0.0)
            one.step(0.0)
        until(one, lambda: one.ready and one.starts == [1, 2, 1])
        assert [pids[0], pids[2]] == [one.pids[0], one.pids[2]]
        assert one.pids[1] != pids[1]
        failed = [found for found in news if found.what == "failed"]
        assert [(found.index, found.pid) for found in failed] == [(1, pids[1])]
        assert "SIGKILL" in failed[0].words
        # What the old one's peer sends is nobody's, and is counted.
        clients[1].connection.send(b"anybody?")
        clients[1].move(0.0)
        until(one, lambda: counted(one, "discard.unknown_cid")[1] > 0)
        assert counted(one, "discard.unknown_cid")[::2] == [0, 0]
        # There is room for new ones in its place.
        with clients_of_every_worker(one, 3) as others:
            assert others[1].ask(b"new").split()[:2] == [b"1", b"%d" % (one.pids[1] or 0)]


def _visit(address: tuple[str, int], store: SessionStore | None) -> tuple[int, bool]:
    """Which process answered, and whether the session was resumed."""
    context = configs.client_context()
    if store is not None:
        context.session_store = store
    with create_connection(
        address, PATIENCE_SECONDS, kind=socket.SOCK_DGRAM, context=context, server_hostname="localhost"
    ) as sock:
        assert isinstance(sock, DatagramSocket)
        sock.send(b"who?")
        return int(sock.recv().split()[1]), sock.connection.session.resumed


def test_workers_are_replaced_one_by_one_and_tickets_and_hellos_survive_it() -> None:
    with group(2) as one, clients_of_every_worker(one, 2) as clients:
        before = one.pids
        store = SessionStore()
        first, resumed = _visit(one.addresses[0], store)
        assert first in before
        assert not resumed
        one.restart()
        with ThreadPoolExecutor(2) as pool:
            visits: list[Future[tuple[int, bool]]] = []
            leaving = set()
            end = time.monotonic() + PATIENCE_SECONDS
            while one.starts != [2, 2] or not one.ready:
                assert time.monotonic() < end
                leaving.add(tuple(post.leaving for post in one._posts))
                one.step(0.05)
                if len(visits) < 8:
                    visits.append(pool.submit(_visit, one.addresses[0], None))
            # All who came meanwhile were served, by whomever.
            for visit in visits:
                until(one, visit.done)
                assert visit.result()[0] in {*before, *one.pids}
        assert (True, True) not in leaving
        assert not set(one.pids) & set(before)
        # Peers of the old ones were told, and no tickets were lost: the new ones have the same keys.
        for client in clients.values():
            client.move(1.0)
            assert any(isinstance(event, dtls.PeerClosed) for event in client.connection.events())
        second, resumed = _visit(one.addresses[0], store)
        assert second in one.pids
        assert resumed


def test_a_worker_that_is_replaced_hands_its_connections_over() -> None:
    """Its peers go on talking, are answered by another process, and notice new keys alone."""
    with group(2, hand_over=True, drain_seconds=20.0) as one, clients_of_every_worker(one, 2) as clients:
        before = one.pids
        answers: dict[int, list[bytes]] = {0: [], 1: []}
        one.restart()
        end = time.monotonic() + PATIENCE_SECONDS
        n = 0
        while one.starts != [2, 2] or not one.ready or n < 20:
            assert time.monotonic() < end, (one.statistics(), one.pids)
            one.step(0.02)
            n += 1
            for index, client in clients.items():
                # Sent once: what comes while nobody reads waits in the kernel for the one that takes over.
                client.connection.send(b"%d" % n)
                client.move(0.0)
                answers[index] += client.connection.messages()
        for index, client in clients.items():
            while len(answers[index]) < n or client.connection.sending_epoch == 3:
                assert time.monotonic() < end, answers[index][-1:]
                one.step(0.0)
                client.move(0.02)
                answers[index] += client.connection.messages()
            words = [answer.split() for answer in answers[index]]
            assert {int(word[0]) for word in words} == {index}
            assert sorted(int(word[2]) for word in words) == list(range(1, n + 1)), "none was lost"
            assert {int(word[1]) for word in words} == {before[index], one.pids[index]}
            assert client.connection.error is None
            assert set(client.connection.counters.discards) <= REPEATED
        until(one, lambda: counted(one, "associations_taken") == [1, 1])
        assert counted(one, "associations_left") == [1, 1]
        assert counted(one, "associations_refused") == [0, 0]
        assert one._passing is not None
        assert not list(one._passing.rglob("*.state")), "what was taken is gone"
        estate = one._passing
        # The group ends: there is nobody to hand anything over to, and peers are told.
        one.stop()
        until(one, lambda: not one.alive)
        for client in clients.values():
            client.move(0.05)
            assert client.connection.state in (dtls.State.CLOSED, dtls.State.CLOSING) or any(
                isinstance(event, dtls.PeerClosed) for event in client.connection.events()
            )
    assert not estate.exists()


def test_a_worker_that_is_told_to_end_drains_and_is_replaced() -> None:
    news: list[WorkerNews] = []
    with group(1, drain_seconds=60.0, on_news=news.append) as one:
        [pid] = one.pids
        assert pid is not None
        client = Client(one.addresses[0]).connect()
        os.kill(pid, signal.SIGTERM)

        def ask() -> None:
            for n in range(10):
                assert client.ask(b"%d" % n).split()[1] == b"%d" % pid
                one.step(0.0)

        # Connections go on, and who knocks meanwhile is let in by the next one.
        ask()  # and the worker has come to the signal
        with ThreadPoolExecutor(1) as pool:
            visit = pool.submit(_visit, one.addresses[0], None)
            ask()
            assert not visit.done()
            client.connection.close(time.monotonic())
            client.move(0.0)
            until(one, visit.done)
            assert visit.result()[0] == one.pids[0] != pid
        client.close()
        assert [found.what for found in news if found.pid == pid] == ["ready", "ended"]
        assert counted(one, "handshakes_completed")[0] >= 1


def test_a_worker_that_cannot_begin_ends_the_group() -> None:
    started = time.monotonic()
    made = WorkerGroup(worker_programs.fails, "127.0.0.1", workers=2, drain_seconds=0.0)
    with pytest.raises(Error, match="worker 1 ended before it served"):
        made.start()
    assert not made.alive
    assert time.monotonic() - started < PATIENCE_SECONDS


def test_a_port_that_is_in_use_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            run_workers(worker_programs.fails, "127.0.0.1", taken.getsockname()[1], workers=2)


@pytest.mark.parametrize("workers", [0, 65, -1])
def test_numbers_of_workers_that_cannot_be(workers: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 64 workers"):
        run_workers(worker_programs.fails, workers=workers)
    with pytest.raises(ConfigurationError, match="drains"):
        WorkerGroup(worker_programs.fails, workers=1, drain_seconds=-1.0)
