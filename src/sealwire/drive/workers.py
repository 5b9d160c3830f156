"""Workers: several processes that serve one UDP port, and the parent that keeps them.

The parent binds all sockets, in order, and never closes one before the end: an index in the kernel's
group is an order of binding, and closing one would renumber the others.  Workers are started anew
(spawned), never forked, so that nothing but what a seat holds passes from the parent: no thread, no
loop, no key of another's.  So one can be started again at any time, in the same slot, on the same
sockets, with the same cookie and ticket keys; what its predecessor's peers send it, it does not know.

The parent reads no datagram.  It waits for workers that end and for signals.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import secrets
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final

from sealwire.drive.addresses import Hosts, bind
from sealwire.drive.estate import Estate
from sealwire.drive.letters import post_offices
from sealwire.drive.seat import LAST, Keys, Place, Seat
from sealwire.drive.steering import Division, divide
from sealwire.drive.succession import Succession
from sealwire.dtls import COOKIE_PERIOD_SECONDS, MOST_SLOTS, KeyRatchet
from sealwire.dtls.handover import KEY_BYTES
from sealwire.errors import ConfigurationError, Error

__all__ = ["WorkerGroup", "WorkerNews", "run_workers"]

# A worker that lived this long did not fail at once: the next failure is a first one.
_HEALTHY_SECONDS: Final = 10.0
_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 30.0
# From its beginning to its first word; it loads Python, a context and keys.
_START_SECONDS: Final = 60.0
# Beyond the time to drain, before a worker is killed that does not end.
_MERCY_SECONDS: Final = 5.0
_REPORT_BYTES: Final = 65_536
# As TicketKeys by itself: half a day each, tickets of a day.
_TICKET_PERIOD_SECONDS: Final = 43_200.0
_TICKET_KEYS_KEPT: Final = 2

Target = Callable[..., None]


@dataclass(frozen=True, slots=True)
class WorkerNews:
    """What became of a worker.

    Attributes:
        what: ``"ready"``, ``"ended"`` (it was asked to), or ``"failed"``.
        index, pid: which.
        words: for people.
    """

    what: str
    index: int
    pid: int
    words: str


@dataclass(slots=True)
class _Post:
    """One slot, and the process in it."""

    index: int
    process: SpawnProcess | None = None
    control: socket.socket | None = None
    ready: bool = False
    leaving: bool = False
    #: When it is killed if it has not started, or ended, by then.
    deadline: float = float("inf")
    began: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    starts: int = 0
    connections: int = 0
    #: What its processes that ended counted, and what this one has so far.
    gone: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)


class WorkerGroup:
    """A port and its workers.  Not thread-safe.

    Args:
        target: runs in each worker with its :class:`~sealwire.drive.seat.Seat` and `args`; a function
            of a module, as :mod:`multiprocessing` can find no other, which ends when it is done serving.
        host: an address or name, several, or None for every interface.
        port: 0 lets the kernel choose; see `addresses`.
        workers: how many, 1 to 64, for as long as the group lives.
        steer: have the kernel send records to the worker in their connection id, hellos to sockets of
            their own.  Off, it spreads peers by a hash of addresses, and workers hand on what is another's.
        drain_seconds: how long connections may go on when a worker is to end.
        hand_over: a worker that is replaced moves its connections to the next process of its slot instead;
            their handlers begin anew there.  A directory: so does the whole group when it ends, to the next
            one of as many workers that is given that directory (:class:`~sealwire.drive.estate.Estate`).
        on_news: told what becomes of workers.

    Raises:
        ConfigurationError: a number of workers that cannot be, or a directory that cannot be used.
        OSError: the address cannot be bound or resolved, or this system does not share ports.
    """

    def __init__(
        self,
        target: Target,
        host: Hosts = None,
        port: int = 0,
        *,
        workers: int,
        args: tuple[Any, ...] = (),
        family: int = 0,
        steer: bool = True,
        drain_seconds: float = 5.0,
        hand_over: bool | str | os.PathLike[str] = False,
        on_news: Callable[[WorkerNews], None] | None = None,
    ) -> None:
        if not 1 <= workers <= MOST_SLOTS:
            raise ConfigurationError(f"1 to {MOST_SLOTS} workers can share a port, not {workers}")
        if not drain_seconds >= 0:
            raise ConfigurationError("a worker drains for 0 seconds or more")
        self._target = target
        self._args = args
        self._on_news = on_news
        self._drain_seconds = drain_seconds
        # The group's own, which goes with it, or one that stays for the next.
        self._passing = Path(tempfile.mkdtemp(prefix="sealwire-")) if hand_over is True else None
        self._passing_key = secrets.token_bytes(KEY_BYTES)
        self._stopping = False
        self._wakes: socket.socket | None = None
        self._to_restart: list[int] = []
        self._spawn = multiprocessing.get_context("spawn")
        self._divisions = _bound(host, port, family, workers, steer)
        try:
            self._estate = None if isinstance(hand_over, bool) else Estate(hand_over, workers)
        except BaseException:
            for division in self._divisions:
                division.close()
            raise
        self._letters = [post_offices(workers) for _ in self._divisions]
        # Cookies go by the monotonic clock, one for all processes of a machine; tickets by the wall's.
        self._cookies = KeyRatchet.begin(time.monotonic(), period=COOKIE_PERIOD_SECONDS, keep=1)
        self._tickets = KeyRatchet.begin(time.time(), period=_TICKET_PERIOD_SECONDS, keep=_TICKET_KEYS_KEPT)
        self._posts = [_Post(index) for index in range(workers)]

    @property
    def addresses(self) -> list[Any]:
        """Where the group listens."""
        return [division.data[0].getsockname() for division in self._divisions]

    @property
    def steering(self) -> tuple[str, ...]:
        """For each address how datagrams find their worker, in a sentence."""
        return tuple(division.why for division in self._divisions)

    @property
    def pids(self) -> list[int | None]:
        """The process of each slot, None where there is none now."""
        return [None if post.process is None else post.process.pid for post in self._posts]

    @property
    def ready(self) -> bool:
        """Whether every worker serves."""
        return all(post.ready and not post.leaving for post in self._posts)

    @property
    def alive(self) -> bool:
        """Whether there is any process."""
        return any(post.process is not None for post in self._posts)

    @property
    def starts(self) -> list[int]:
        """How many processes each slot has had."""
        return [post.starts for post in self._posts]

    def statistics(self) -> list[dict[str, int]]:
        """What each slot counted (names of ``DatagramServer.statistics()``), as reported a second ago.

        A process that was killed took with it what it counted after its last report.
        """
        return [_sum(post.gone, post.counted) for post in self._posts]

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all workers and wait until they serve.

        Raises:
            Error: one ended before it served; the others were ended, too.
        """
        for post in self._posts:
            self._begin(post)
        try:
            while not self.ready:
                self.step(_START_SECONDS)
                failed = next((post for post in self._posts if post.failures), None)
                if failed is not None:
                    raise Error(f"worker {failed.index} ended before it served; it said why itself")
        except BaseException:
            self.close()
            raise

    def step(self, seconds: float) -> None:
        """Wait for something to happen, `seconds` at most, and see to it."""
        now = time.monotonic()
        due = [post.start_at if post.process is None else post.deadline for post in self._posts]
        wait = max(min(min(due) - now, seconds), 0.0)
        waiting: dict[int, _Post] = {}
        for post in self._posts:
            if post.process is not None:
                waiting[post.process.sentinel] = post
            if post.control is not None:
                waiting[post.control.fileno()] = post
        poll = select.poll()
        for descriptor in waiting:
            poll.register(descriptor, select.POLLIN)
        # After a signal's handler the wait would go on.
        if self._wakes is not None:
            poll.register(self._wakes, select.POLLIN)
        for descriptor, _ in poll.poll(wait * 1000):
            if descriptor in waiting:
                self._listen(waiting[descriptor])
            else:
                with contextlib.suppress(BlockingIOError):
                    assert self._wakes is not None
                    self._wakes.recv(64)
        now = time.monotonic()
        for post in self._posts:
            self._look(post, now)
        self._go_on_restarting()

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT; SIGHUP restarts the workers one after the other.

        To be called in the main thread; starts the workers where :meth:`start` was not called.

        Raises:
            Error: as :meth:`start`.
        """
        wakes, waker = socket.socketpair()
        wakes.setblocking(False)
        waker.setblocking(False)
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        woken = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            for number in _SIGNALS:
                signal.signal(number, self._signalled)
            self._wakes = wakes
            if not self.alive:
                self.start()
            while self.alive or not self._stopping:
                self.step(_START_SECONDS)
        finally:
            self.close()
            self._wakes = None
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken)
            wakes.close()
            waker.close()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.restart()
        else:
            self.stop()

    def restart(self) -> None:
        """Have every worker drain and another one take its slot, one slot after the other."""
        if not self._stopping:
            self._to_restart = [post.index for post in self._posts]

    def stop(self) -> None:
        """Have all workers drain and end; :meth:`step` until `alive` is False."""
        self._stopping = True
        self._to_restart.clear()
        for post in self._posts:
            self._ask_to_leave(post)

    def close(self) -> None:
        """End all workers, by force where they do not by themselves, and close the sockets."""
        self.stop()
        while self.alive:
            self.step(_MERCY_SECONDS)
        if self._passing is not None:
            shutil.rmtree(self._passing, ignore_errors=True)
        if self._estate is not None:
            self._estate.close()
            self._estate = None
        for division in self._divisions:
            division.close()
        for offices in self._letters:
            for letters in offices:
                letters.close()

    def __enter__(self) -> WorkerGroup:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    # --- one slot --------------------------------------------------------------------------

    def _begin(self, post: _Post) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        seat = Seat(
            post.index,
            len(self._posts),
            tuple(_place(division, post.index) for division in self._divisions),
            tuple(offices[post.index] for offices in self._letters),
            theirs,
            Keys(*self._cookies.state(time.monotonic()), self._cookies.period, self._cookies.keep),
            Keys(*self._tickets.state(time.time()), self._tickets.period, self._tickets.keep),
            self._drain_seconds,
            self._succession(post.index),
        )
        name = f"sealwire worker {post.index}"
        process = self._spawn.Process(target=_work, args=(self._target, seat, self._args), name=name)
        try:
            process.start()
        except BaseException:
            control.close()
            raise
        finally:
            theirs.close()
        now = time.monotonic()
        post.process, post.control = process, control
        post.ready = post.leaving = False
        post.began, post.deadline = now, now + _START_SECONDS
        post.starts += 1
        if self._stopping:
            self._ask_to_leave(post)

    def _succession(self, index: int) -> Succession | None:
        if self._estate is not None:
            return self._estate.succession(index)
        if self._passing is None:
            return None
        place = self._passing / str(index)
        place.mkdir(mode=0o700, exist_ok=True)
        return Succession(place, self._passing_key)

    def _ask_to_leave(self, post: _Post) -> None:
        if post.process is not None and not post.leaving:
            post.leaving = True
            if self._stopping and post.control is not None:
                with contextlib.suppress(OSError):
                    post.control.send(LAST)
            post.deadline = time.monotonic() + self._drain_seconds + _MERCY_SECONDS
            post.process.terminate()

    def _listen(self, post: _Post) -> None:
        """Read what a worker said."""
        while post.control is not None:
            try:
                said = post.control.recv(_REPORT_BYTES)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                post.control.close()
                post.control = None
                return
            words = json.loads(said)
            if "statistics" in words:
                post.counted, post.connections = words["statistics"], words["connections"]
            elif not post.ready:
                post.ready, post.deadline = True, float("inf")
                self._tell("ready", post, "serves")
                if post.leaving:
                    post.deadline = time.monotonic() + self._drain_seconds + _MERCY_SECONDS

    def _look(self, post: _Post, now: float) -> None:
        """See whether the process of a slot ended, has to, or is to begin."""
        process = post.process
        if process is None:
            if not self._stopping and now >= post.start_at:
                self._begin(post)
            return
        if process.exitcode is not None:
            self._ended(post, process.exitcode, now)
        elif now >= post.deadline:
            # It neither began nor ended in time.
            process.kill()
            post.deadline = float("inf")

    def _ended(self, post: _Post, code: int, now: float) -> None:
        assert post.process is not None
        self._listen(post)
        lived = now - post.began
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if post.leaving or (code == 0 and post.ready):
            post.failures, post.start_at = 0, now
            as_asked = code in (0, -signal.SIGTERM)
            self._tell("ended", post, "ended as it was asked to" if as_asked else f"was ended {how}")
        else:
            post.failures = 1 if post.ready and lived >= _HEALTHY_SECONDS else post.failures + 1
            delay = min(_FIRST_BACKOFF_SECONDS * 2 ** (post.failures - 1), _LONGEST_BACKOFF_SECONDS)
            post.start_at = now + delay
            self._tell("failed", post, f"was ended {how}; the next one starts in {delay:g} s")
        post.process.join()
        post.process.close()
        if post.control is not None:
            post.control.close()
        post.process = post.control = None
        post.ready = post.leaving = False
        post.deadline, post.connections = float("inf"), 0
        post.gone, post.counted = _sum(post.gone, post.counted), {}

    def _go_on_restarting(self) -> None:
        if self._to_restart and self.ready:
            self._ask_to_leave(self._posts[self._to_restart.pop(0)])

    def _tell(self, what: str, post: _Post, words: str) -> None:
        if self._on_news is not None and post.process is not None:
            self._on_news(WorkerNews(what, post.index, post.process.pid or 0, words))


def run_workers(
    target: Target,
    host: Hosts = None,
    port: int = 0,
    *,
    workers: int,
    args: tuple[Any, ...] = (),
    family: int = 0,
    steer: bool = True,
    drain_seconds: float = 5.0,
    hand_over: bool | str | os.PathLike[str] = False,
    on_news: Callable[[WorkerNews], None] | None = None,
) -> None:
    """Serve a port with several processes until SIGTERM or SIGINT; the arguments are :class:`WorkerGroup`'s.

    ``target(seat, *args)`` usually runs an event loop, in which
    ``start_datagram_server(..., seat=seat)`` makes the server and ``await seat.serve(server)`` the rest.

    Raises:
        ConfigurationError, OSError: as :class:`WorkerGroup`.
        Error: a worker ended before it served.
    """
    with WorkerGroup(
        target,
        host,
        port,
        workers=workers,
        args=args,
        family=family,
        steer=steer,
        drain_seconds=drain_seconds,
        hand_over=hand_over,
        on_news=on_news,
    ) as group:
        group.run()


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _work(target: Target, seat: Seat, args: tuple[Any, ...]) -> None:
    """A worker's whole life."""
    # Ctrl-C reaches every process of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        target(seat, *args)
    finally:
        seat.close()


def _bound(host: Hosts, port: int, family: int, workers: int, steer: bool) -> list[Division]:
    hosts = [host or None] if host is None or isinstance(host, str) else list(host)
    infos: dict[Any, None] = {}
    for name in hosts:
        found = socket.getaddrinfo(name, port, family=family, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
        infos.update(dict.fromkeys(found))
    with contextlib.ExitStack() as opened:
        firsts = [opened.enter_context(sock) for sock in bind(list(infos))]
        divisions: list[Division] = []
        for first in firsts:
            divisions.append(divide(first, workers, steer=steer))
            opened.callback(divisions[-1].close)
        opened.pop_all()
        return divisions


def _place(division: Division, index: int) -> Place:
    return Place(
        division.data[index], division.handshakes[index] if division.handshakes else None, division.why
    )


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
