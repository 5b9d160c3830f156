"""The capturing side: flows and their transactions go to the signer's process, which alone holds the key.

What waits for the signer is bounded and counted here, and here is decided what happens when it does
not keep up.  A signer that dies is started again; what was on its way is said to be lost.
"""

from __future__ import annotations

import collections
import enum
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Self

from sealwire.errors import ConfigurationError, Error
from sealwire.probe.batch import Batch
from sealwire.probe.events import GapReason, Health
from sealwire.probe.features import row_struct
from sealwire.probe.pressure import SAMPLE, THRESHOLD, Pressure, Sampler, Step
from sealwire.probe.seal.wire import Kind, Messages, Piece, json_message, message, pieces

__all__ = ["SealingFailed", "Signer", "WhenFull"]

#: So many signers may end by themselves within that time.
_RESTARTS: Final = 5
_RESTARTS_SECONDS: Final = 10.0
#: Losses of one kind are added up for so long before a Gap says them.
_GAP_SECONDS: Final = 1.0
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
    DROP = "drop"  #: fewer are kept, and Gaps say how many were not: capture never waits


@dataclass(slots=True)
class QueueState:
    """The queue between capture and signer."""

    depth: int = 0  #: bytes that wait for the signer
    peak: int = 0  #: most of that so far
    events: int = 0  #: flows and transactions given to the signer that are not durable yet
    dropped: int = 0  #: those not kept, because it or the spool was too full
    restarts: int = 0  #: signers that ended by themselves
    lost: int = 0  #: flows and transactions that may have been lost with them
    undelivered: int = 0  #: bytes of the spool that no collector has


@dataclass(slots=True)
class _LeftOut:
    """Events that were not kept, for one reason, and not said yet."""

    events: int
    since: int  #: nanoseconds since 1970


class Signer:
    """The capturing side of a signer's process.

    `queue_bytes` bounds what waits for the signer, `spool_bytes` the spool on disk; `threshold` is how full
    one of them is, as a part, when `when_full` begins to apply (see sealwire.probe.pressure).  With
    `deliver`, segments stay in the spool until an exporter brought a collector's receipt for them.
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
        threshold: float = THRESHOLD,
        sample: int = SAMPLE,
        when_full: WhenFull = WhenFull.WAIT,
        heartbeat: int = 60,
        deliver: bool = False,
    ) -> None:
        self._config: dict[str, Any] = {
            "spool": os.fspath(spool),
            "key": os.fspath(key),
            "old_key": None if old_key is None else os.fspath(old_key),
            "spool_bytes": spool_bytes,
            "heartbeat": heartbeat,
            "software": f"sealwire {_version()}",
            "deliver": deliver,
        }
        self._queue_bytes, self._spool_bytes = queue_bytes, spool_bytes
        self._threshold = threshold
        self._when_full = when_full
        self._pressure = Pressure(threshold)
        self._sampler = Sampler(sample)
        self._left_out: dict[GapReason, _LeftOut] = {}
        self._gaps_due = 0.0
        #: What the signer's socket had no room for; bytes that wait there are in queue.depth.
        self._outbox: collections.deque[memoryview] = collections.deque()
        self._counters: bytes = b""
        self._restarts: collections.deque[float] = collections.deque(maxlen=_RESTARTS)
        self._ended = False
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
        self._stream, self._messages, self._reaped = ours, Messages(ours), False
        while not self._hear(wait=True):
            pass

    @property
    def pid(self) -> int:
        """The signer's process."""
        return self._process.pid

    @property
    def step(self) -> Step:
        """How events are treated now."""
        return self._pressure.step

    @property
    def fill(self) -> float:
        """How full the queue or the undelivered spool is, whichever is fuller; 0 to 1."""
        return max(*self.fills, 1.0 if self._stalled else 0.0)

    @property
    def fills(self) -> tuple[float, float]:
        """How full the queue is, and the undelivered spool; 0 to 1."""
        return self.queue.depth / self._queue_bytes, self.queue.undelivered / self._spool_bytes

    @property
    def _stalled(self) -> bool:
        return bool(self.committed.get("stalled"))

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
            self.queue.undelivered = facts.get("undelivered", 0)
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
        self._mind(self._listen)
        self._judge()
        if counters:
            self._counters = json_message(Kind.COUNTERS, **counters, queue_dropped=self.queue.dropped)
        if self._when_full is WhenFull.DROP and self._pressure.step >= Step.SAMPLE:
            batch = self._sampled(batch)
        for piece in pieces(batch):
            self._write(piece)
        self._say_counters()
        if self._left_out and time.monotonic() >= self._gaps_due:
            self._say_left_out()
        self._mind(self._pump)

    def health(self, health: Health) -> None:
        """Seal how the probe is."""
        self._send(json_message(Kind.HEALTH, **asdict(health)))

    def _judge(self) -> None:
        """Choose how events are treated, and say it if that changed."""
        drops = self._when_full is WhenFull.DROP
        changed = self._pressure.note(
            self.fill if drops else 0.0, bool(self.committed.get("away")), time.monotonic()
        )
        if changed:
            self._say_policy()

    def _say_policy(self) -> None:
        pressure = self._pressure
        self._say_left_out()
        sample = self._sampler.every if pressure.step >= Step.SAMPLE else 1
        facts = {"time": time.time_ns(), "treatment": int(pressure.step), "sample": sample}
        self._send(json_message(Kind.POLICY, **facts, fill=round(pressure.fill * 1000)))

    def _sampled(self, batch: Batch) -> Batch:
        """What is kept of a batch; of the rest, how much it is."""
        stride = row_struct(batch.first_packets).size
        flows = self._sampler.rows(batch.rows, stride, batch.facts, self._pressure.step)
        transactions = self._sampler.transactions(batch.event_data)
        for kept in (flows, transactions):
            for reason, n in kept.left_out.items():
                self._leave_out(reason, n)
        return Batch(flows.data, batch.first_packets, flows.facts, transactions.data, batch.dissected)

    def _write(self, piece: Piece) -> None:
        size = len(piece.body)
        self._mind(self._listen)
        if self._when_full is WhenFull.WAIT:
            while self.queue.depth and self.queue.depth + size > self._threshold * self._queue_bytes:
                self._mind(lambda: self._hear(wait=True))
        elif self._stalled or (self.queue.depth and self.queue.depth + size > self._queue_bytes):
            if self._pressure.full():
                self._say_policy()
            self._leave_out(GapReason.QUEUE_FULL, piece.events)
            return
        self.queue.depth += size
        self.queue.events += piece.events
        self.queue.peak = max(self.queue.peak, self.queue.depth)
        self._send(message(piece.kind, piece.body))

    def _leave_out(self, reason: GapReason, events: int) -> None:
        self.queue.dropped += events
        if reason in self._left_out:
            self._left_out[reason].events += events
            return
        if not self._left_out:
            self._gaps_due = time.monotonic() + _GAP_SECONDS
        self._left_out[reason] = _LeftOut(events, time.time_ns())

    def _say_left_out(self) -> None:
        left_out, self._left_out = self._left_out, {}
        for reason, one in left_out.items():
            self._say_lost(reason, one.since, one.events)

    def _say_lost(self, reason: GapReason, since: int, events: int) -> None:
        facts = {"reason": int(reason), "since": since, "until": time.time_ns(), "events": events}
        self.queue.events += events  # until that is durable, it can be lost with the signer as well
        self._send(json_message(Kind.LOST, **facts))

    def _say_counters(self) -> None:
        """Totals replace each other: only the newest are sent, and not behind a jam."""
        if self._counters and not self._outbox:
            data, self._counters = self._counters, b""
            self._send(data)

    def _send(self, data: bytes) -> None:
        self._outbox.append(memoryview(data))
        self._mind(self._pump if self._when_full is WhenFull.DROP else self._flush)

    def _pump(self) -> None:
        """Send what the socket takes now: capture does not wait for a signer that is stopped."""
        while self._outbox:
            try:
                n = self._stream.send(self._outbox[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._sent(n)

    def _flush(self) -> None:
        while self._outbox:
            self._sent(self._stream.send(self._outbox[0]))

    def _sent(self, n: int) -> None:
        rest = self._outbox[0][n:]
        if rest:
            self._outbox[0] = rest
        else:
            self._outbox.popleft()

    def _mind(self, act: Any) -> None:
        """Do something with the signer; if it is gone, start another one and go on."""
        try:
            act()
        except (ConnectionError, BrokenPipeError):
            self._again()

    def _again(self) -> None:
        since = time.time_ns()
        self._last_words()
        self._reap()
        lost = self.queue.events
        self._outbox.clear()
        self.queue.lost += lost
        self.queue.depth = self.queue.events = 0
        while True:
            now = time.monotonic()
            if len(self._restarts) == _RESTARTS and now - self._restarts[0] < _RESTARTS_SECONDS:
                self._ended = True
                raise SealingFailed("the signer ends again and again")
            self._restarts.append(now)
            self.queue.restarts += 1
            try:
                self._start()
                break
            except ConnectionError:
                self._reap()
        self._say_lost(GapReason.SIGNER_LOST, since, lost)
        if self._pressure.step is not Step.DELIVER:
            self._say_policy()

    def _last_words(self) -> None:
        """What a signer that ended had said: perhaps why."""
        try:
            while True:
                self._hear(wait=True)
        except ConnectionError:
            pass

    def _reap(self) -> None:
        self._reaped = True
        self._stream.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def finish(self) -> None:
        """Seal what is left and say that this is the end; the signer still takes receipts until close().

        Raises SealingFailed if it cannot be stored.
        """
        if self._ended:
            return
        self._say_left_out()
        self._say_counters()
        before = -1
        while before != self.queue.restarts:  # a signer that ends right here takes the word with it
            before = self.queue.restarts
            self._send(json_message(Kind.STOP))
            self._mind(self._flush)
        self._ended = True
        try:
            while not self._hear(wait=True):
                pass
        except ConnectionError:
            self._reap()
            raise SealingFailed("the signer ended before it had stored everything") from None

    def close(self) -> None:
        """finish(), and end the signer."""
        self.finish()
        if not self._reaped:
            self._reap()

    def abandon(self) -> None:
        """End without an end: the signer says that the probe was cut off.  May be called after close()."""
        self._ended = True
        if not self._reaped:
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
