"""The capturing side: flows and their transactions go to the signer's process, which alone holds the key.

What waits for the signer is bounded and counted here, and here is decided what happens when it does
not keep up.  A signer that dies is started again; what was on its way is said to be lost.
"""

from __future__ import annotations

import enum
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from sealwire.errors import ConfigurationError, Error
from sealwire.probe.batch import Batch
from sealwire.probe.events import GapReason
from sealwire.probe.seal.wire import Kind, Messages, Piece, json_message, message, pieces

__all__ = ["SealingFailed", "Signer", "WhenFull"]

#: Where the queue counts as emptied again, as a part of where it counted as full.
_RELIEF: Final = 5 / 8
_RESTARTS: Final = 5
_STOP_SECONDS: Final = 60.0


def _version() -> str:
    try:
        return importlib.metadata.version("sealwire")
    except importlib.metadata.PackageNotFoundError:
        return "of a source tree"


class SealingFailed(Error):
    """Events cannot be sealed any more."""


class WhenFull(enum.Enum):
    """What happens to events when the signer does not keep up."""

    WAIT = "wait"  #: the reader waits: nothing is lost of a file
    DROP = "drop"  #: they are dropped and a Gap says how many: capture never waits


@dataclass(slots=True)
class QueueState:
    """The queue between capture and signer."""

    depth: int = 0  #: bytes that wait for the signer
    peak: int = 0  #: most of that so far
    events: int = 0  #: flows and transactions given to the signer that are not durable yet
    dropped: int = 0  #: those dropped because it was full
    restarts: int = 0  #: signers that ended by themselves
    lost: int = 0  #: flows and transactions that may have been lost with them


class Signer:
    """The capturing side of a signer's process.

    `queue_bytes` bounds what waits for the signer; from `threshold` (default 80 % of it) on,
    `when_full` applies until five eighths of that are left.  `spool_bytes` bounds the spool on disk.
    A signer that ends by itself is started again, and a Gap says what may be lost.

    Raises ConfigurationError for a key or spool that cannot be used, SealingFailed later.
    """

    def __init__(
        self,
        spool: str | os.PathLike[str],
        key: str | os.PathLike[str],
        *,
        old_key: str | os.PathLike[str] | None = None,
        spool_bytes: int = 1 << 30,
        queue_bytes: int = 256 << 20,
        threshold: int | None = None,
        when_full: WhenFull = WhenFull.WAIT,
        heartbeat: int = 60,
    ) -> None:
        self._config: dict[str, Any] = {
            "spool": os.fspath(spool),
            "key": os.fspath(key),
            "old_key": None if old_key is None else os.fspath(old_key),
            "spool_bytes": spool_bytes,
            "heartbeat": heartbeat,
            "software": f"sealwire {_version()}",
        }
        self._threshold = min(threshold or queue_bytes * 4 // 5, queue_bytes)
        self._when_full = when_full
        self._refusing = False
        self._dropped = 0
        self._dropping_since = 0
        self._ended = False
        self._failure = ""
        self.queue = QueueState()
        #: What the signer last said is durable: segment, event and hash; empty before.
        self.committed: dict[str, Any] = {}
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            config = json.dumps({**self._config, "socket": theirs.fileno()})
            command = [sys.executable, "-m", "sealwire.probe.seal.signer", config]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
        self._stream, self._messages = ours, Messages(ours)
        while not self._hear(wait=True):
            pass

    @property
    def pid(self) -> int:
        """The signer's process."""
        return self._process.pid

    def _hear(self, wait: bool) -> bool:
        """Take one message of the signer; whether it was READY or DONE.  Raises as the class says."""
        heard = self._messages.read(wait)
        if heard is None:
            if wait:
                raise ConnectionResetError("the signer ended")
            raise BlockingIOError
        kind, body = heard
        facts = json.loads(body)
        if kind is Kind.FAILED:
            self._ended = True
            self._reap()
            failure = ConfigurationError if facts["kind"] == "configuration" else SealingFailed
            raise failure(facts["reason"])
        if kind is Kind.TAKEN:
            self.queue.depth -= facts.pop("bytes")
            self.queue.events -= facts.pop("events")
            self.committed = facts
        return kind in (Kind.READY, Kind.DONE)

    def _listen(self) -> None:
        """Take what the signer has said so far."""
        try:
            while True:
                self._hear(wait=False)
        except BlockingIOError:
            pass

    def write(self, batch: Batch, counters: Mapping[str, int] | None = None) -> None:
        """Seal a batch, what dissection says of it included, and the totals that hold with it."""
        if counters:
            self._send(json_message(Kind.COUNTERS, **counters, queue_dropped=self.queue.dropped))
        for piece in pieces(batch):
            self._write(piece)

    def _write(self, piece: Piece) -> None:
        size = len(piece.body)
        self._mind(self._listen)
        if self._when_full is WhenFull.WAIT:
            while self.queue.depth and self.queue.depth + size > self._threshold:
                self._mind(lambda: self._hear(wait=True))
        elif self._full(size):
            if not self._dropped:
                self._dropping_since = time.time_ns()
            self._dropped += piece.events
            self.queue.dropped += piece.events
            return
        self._say_dropped()
        self.queue.depth += size
        self.queue.events += piece.events
        self.queue.peak = max(self.queue.peak, self.queue.depth)
        self._send(message(piece.kind, piece.body))

    def _full(self, more: int) -> bool:
        limit = self._threshold * _RELIEF if self._refusing else self._threshold
        self._refusing = self.queue.depth > 0 and self.queue.depth + more > limit
        return self._refusing

    def _say_dropped(self) -> None:
        if self._dropped:
            events, self._dropped = self._dropped, 0
            self._say_lost(GapReason.QUEUE_FULL, self._dropping_since, events)

    def _say_lost(self, reason: GapReason, since: int, events: int) -> None:
        facts = {"reason": int(reason), "since": since, "until": time.time_ns(), "events": events}
        self._send(json_message(Kind.LOST, **facts))

    def _send(self, data: bytes) -> None:
        self._mind(lambda: self._stream.sendall(data))

    def _mind(self, act: Any) -> None:
        """Do something with the signer; if it is gone, start another one and go on."""
        try:
            act()
        except (ConnectionError, BrokenPipeError):
            self._again()

    def _again(self) -> None:
        lost, since = self.queue.events, time.time_ns()
        self._last_words()
        self._reap()
        self.queue.lost += lost
        self.queue.depth = self.queue.events = 0
        while True:
            if self.queue.restarts >= _RESTARTS:
                self._ended = True
                raise SealingFailed("the signer ends again and again")
            self.queue.restarts += 1
            try:
                self._start()
                break
            except ConnectionError:
                self._reap()
        self._say_lost(GapReason.SIGNER_LOST, since, lost)

    def _last_words(self) -> None:
        """What a signer that ended had said: perhaps why."""
        try:
            while True:
                self._hear(wait=True)
        except ConnectionError:
            pass

    def _reap(self) -> None:
        self._stream.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Seal what is left and say that this is the end.  Raises SealingFailed if it cannot be stored."""
        if self._ended:
            return
        self._say_dropped()
        self._send(json_message(Kind.STOP))
        self._ended = True
        try:
            while not self._hear(wait=True):
                pass
        except ConnectionError:
            raise SealingFailed("the signer ended before it had stored everything") from None
        finally:
            self._reap()

    def abandon(self) -> None:
        """End without an end: the signer says that the probe was cut off.  May be called after close()."""
        if not self._ended:
            self._ended = True
            self._reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
