"""The signer's process: flows and transactions in over a socket, sealed segments out to a spool.

It alone holds the key; the process that reads packets, and parses what strangers sent, never does.
A thread takes messages off the socket into a queue, whose bound the sender keeps (it counts what
was not yet reported as taken); the main loop seals.  It ends when told to, or when the other end of
the socket is gone: then it seals what it has and says that the probe ended without a word.
"""

from __future__ import annotations

import collections
import json
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from sealwire.errors import ConfigurationError
from sealwire.probe.events import Gap, GapReason, Health, Policy
from sealwire.probe.seal.clocks import moment, uptime
from sealwire.probe.seal.delivered import Delivered
from sealwire.probe.seal.intake import Flows, Intake, Transactions
from sealwire.probe.seal.keys import PublicKey, load_public_key, load_signing_key
from sealwire.probe.seal.outlet import Outlet
from sealwire.probe.seal.recorder import LINGER_NANOSECONDS, Committed, Recorder, SpoolFailed
from sealwire.probe.seal.wire import FLOWS, Kind, Messages, json_message
from sealwire.probe.spool import Directory, Spool

#: How often a full disk is tried again, seconds.
_STALLED_SECONDS: Final = 0.2
#: Part of the free disk that a spool may count on; the rest is other people's.
_FREE_SHARE: Final = 0.9
#: A spool is so many files, none of them smaller than that.
_FILES: Final = 16
_FILE_MINIMUM_BYTES: Final = 64 * 1024
#: How long a segment that is to be delivered waits for more events: a receipt within 100 ms of the packet.
_DELIVERY_LINGER_NANOSECONDS: Final = 25_000_000
#: How long to wait for a signer that is still ending.
_LOCK_SECONDS: Final = 5.0
#: How long a signer whose probe is gone waits for room on a full disk.
_ALONE_SECONDS: Final = 3.0
#: How often what was delivered is written down.
_WRITE_NANOSECONDS: Final = 1_000_000_000
#: The key that receipts are signed with; the exporter puts it into the spool if nobody did.
COLLECTOR: Final = "collector.pub"

Item = tuple[Kind, bytes] | None


def main(arguments: list[str]) -> int:
    """Run with one argument, the configuration in JSON; the socket is its `socket`."""
    # Ctrl-C reaches the whole process group, and a service manager asks every process to end.  The end
    # is the other side's to say: it still holds flows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A core file would hold the key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    config = json.loads(arguments[0])
    with socket.socket(fileno=config["socket"]) as stream:
        try:
            _serve(config, stream)
        except (OSError, ValueError) as error:
            kind = "configuration" if isinstance(error, ConfigurationError) else "environment"
            try:
                stream.sendall(json_message(Kind.FAILED, kind=kind, reason=_words(error)))
            except OSError:
                pass
            return 1
    return 0


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def spool_bytes(path: str, wanted: int) -> int:
    """How large a spool may become there: what is wanted, or what the disk has."""
    held = sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    room = os.statvfs(path)
    return min(wanted, held + int(room.f_bavail * room.f_frsize * _FREE_SHARE))


def _serve(config: dict[str, Any], stream: socket.socket) -> None:
    key = load_signing_key(config["key"])
    old_key = load_signing_key(config["old_key"]) if config.get("old_key") else None
    directory = _locked(config["spool"])
    try:
        delivered = Delivered(directory) if config.get("deliver") else None
        most = spool_bytes(config["spool"], config["spool_bytes"])
        spool = Spool(directory, most, max(most // _FILES, _FILE_MINIMUM_BYTES), delivered)
        recorder = Recorder(
            *(spool, key, moment()),
            boot=os.urandom(16),
            software=config["software"],
            heartbeat=config["heartbeat"],
            old_key=old_key,
            linger=LINGER_NANOSECONDS if delivered is None else _DELIVERY_LINGER_NANOSECONDS,
        )
        stream.sendall(json_message(Kind.READY, key=key.id.hex(), next_event=recorder.sequence))
        waiting: queue.Queue[Item] = queue.Queue()
        outlet = None if delivered is None else Outlet(directory.path, waiting.put)
        threading.Thread(target=_receive, args=(stream, waiting), daemon=True).start()
        _Loop(recorder, spool, stream, waiting, outlet, config["spool_bytes"]).run()
    finally:
        directory.close()


def _locked(path: str) -> Directory:
    """The spool's directory.  The signer before may still be ending, where the probe was killed."""
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return Directory(path)
        except ConfigurationError:
            if time.monotonic() > end:
                raise
            time.sleep(_STALLED_SECONDS)


def _receive(stream: socket.socket, waiting: queue.Queue[Item]) -> None:
    messages = Messages(stream)
    try:
        while (item := messages.read()) is not None:
            waiting.put(item)
    except (OSError, ValueError):
        pass
    waiting.put(None)


class _Loop:
    def __init__(
        self,
        recorder: Recorder,
        spool: Spool,
        stream: socket.socket,
        waiting: queue.Queue[Item],
        outlet: Outlet | None,
        wanted_bytes: int,
    ) -> None:
        self._recorder = recorder
        self._spool = spool
        self._stream = stream
        self._waiting = waiting
        self._outlet = outlet
        self._wanted_bytes = wanted_bytes
        self._reported: dict[str, Any] = {}
        #: What was taken and may not be durable: the sequence behind it, and how many events it is.
        self._taken: collections.deque[tuple[int, int]] = collections.deque()
        #: Whether delivery waits for the collector.
        self._away = outlet is not None
        self._collector: PublicKey | None = None
        self._written = uptime()
        #: What the exporter was told last to be durable.
        self._told: Committed | None = None
        self._tell_again = True

    def run(self) -> None:
        while True:
            patience = max((self._recorder.deadline() - uptime()) / 1e9, 0.0)
            if self._outlet is not None:
                patience = min(patience, 1.0)
            try:
                item = self._waiting.get(timeout=min(patience, 60.0))
            except queue.Empty:
                if self._recorder.stalled:
                    self._measure()
                self._recorder.wake(moment())
                self._report(0)
                continue
            if item is None:
                self._abandoned()
                return
            kind, body = item
            if kind is Kind.STOP:
                self._recorder.close(moment())
                self._report(0)
                self._stream.sendall(json_message(Kind.DONE))
                self._linger()
                return
            self._treat(kind, body)
            if self._recorder.deadline() <= uptime():
                self._recorder.wake(moment())
                self._report(0)

    def _linger(self) -> None:
        """Everything is sealed; receipts are taken until the other end says that it is enough."""
        while self._outlet is not None:
            try:
                item = self._waiting.get(timeout=1.0)
            except queue.Empty:
                self._report(0)
                continue
            if item is None:
                break
            if item[0] in (Kind.RECEIPT, Kind.STATE):
                self._of_exporter(*item)
                self._report(0)
        self._write_delivered(last=True)

    def _treat(self, kind: Kind, body: bytes) -> None:
        if kind in (Kind.FLOWS, Kind.TRANSACTIONS):
            self._take(_intake(kind, body), len(body))
        elif kind is Kind.COUNTERS:
            self._recorder.counters.update(json.loads(body))
        elif kind is Kind.LOST:
            facts = json.loads(body)
            self._recorder.event(_lost(facts), moment())
            self._taken.append((self._recorder.sequence, facts["events"]))
        elif kind is Kind.POLICY:
            self._recorder.event(Policy(**json.loads(body)), moment())
        elif kind is Kind.HEALTH:
            self._recorder.event(Health(**json.loads(body)), moment())
        elif kind in (Kind.RECEIPT, Kind.STATE):
            self._of_exporter(kind, body)
            self._report(0)

    def _take(self, intake: Intake, size: int) -> None:
        taken = self._recorder.take(intake, moment())
        alone = 0
        while intake.left:
            # The disk is full.  The queue behind us fills, and its policy decides.
            self._report(0)
            alone = alone + 1 if self._wait_for_room() else 0
            if alone * _STALLED_SECONDS > _ALONE_SECONDS:
                raise SpoolFailed("the disk is full, and the probe is gone")
            self._recorder.wake(moment())
            taken += self._recorder.take(intake, moment())
        self._taken.append((self._recorder.sequence, taken))
        self._report(size)

    def _wait_for_room(self) -> bool:
        """A while, in which receipts may make room; whether the probe is gone meanwhile."""
        end = time.monotonic() + _STALLED_SECONDS
        held: list[Item] = []
        while (patience := end - time.monotonic()) > 0:
            try:
                item = self._waiting.get(timeout=patience)
            except queue.Empty:
                break
            if item is not None and item[0] in (Kind.RECEIPT, Kind.STATE):
                self._of_exporter(*item)
            else:
                held.append(item)
        with self._waiting.mutex:
            self._waiting.queue.extendleft(reversed(held))
        self._measure()
        return None in held

    def _measure(self) -> None:
        """What the spool may take now that there is more or less room."""
        self._spool.most_bytes = spool_bytes(str(self._spool_path), self._wanted_bytes)

    @property
    def _spool_path(self) -> Path:
        assert isinstance(self._spool.disk, Directory), "the signer's spool is a directory"
        return self._spool.disk.path

    def _of_exporter(self, kind: Kind, body: bytes) -> None:
        delivered = self._spool.delivered
        assert delivered is not None, "an exporter comes to an outlet"
        if kind is Kind.STATE:
            self._away = json.loads(body).get("away", True)
            self._tell_again = True  # it asked
            return
        if self._collector is None:
            try:
                self._collector = load_public_key(self._spool_path / COLLECTOR)
            except (OSError, ConfigurationError):
                return  # nobody to believe; the exporter sends again what is not delivered
        delivered.take(body, self._recorder.probe, self._collector)

    def _write_delivered(self, last: bool = False) -> None:
        delivered, now = self._spool.delivered, uptime()
        if delivered is not None and (last or now - self._written >= _WRITE_NANOSECONDS):
            self._written = now
            try:
                delivered.write()
            except OSError:
                pass  # a full disk: then more is sent twice after a restart

    def _report(self, taken: int) -> None:
        """Say how many bytes left the queue, and how many events became durable."""
        committed = self._recorder.committed
        facts: dict[str, Any] = {"stalled": self._recorder.stalled}
        events = 0
        while committed is not None and self._taken and self._taken[0][0] <= committed.last_event + 1:
            events += self._taken.popleft()[1]
        if committed is not None:
            facts |= {
                "segment": committed.segment,
                "event": committed.last_event,
                "hash": committed.hash.hex(),
            }
        if self._outlet is not None:
            facts |= {"undelivered": self._spool.undelivered, "away": self._away}
        if taken or events or facts != self._reported:
            self._reported = facts
            try:
                self._stream.sendall(json_message(Kind.TAKEN, bytes=taken, events=events, **facts))
            except OSError:
                pass  # the other end is gone, which the receiving thread says too
        self._tell_exporter()

    def _tell_exporter(self) -> None:
        delivered = self._spool.delivered
        if self._outlet is None or delivered is None:
            return
        self._write_delivered()
        if self._tell_again or self._recorder.committed != self._told:
            self._told, self._tell_again = self._recorder.committed, False
            self._outlet.tell(
                probe=self._recorder.probe.hex(),
                files=self._spool.readable(),
                delivered=delivered.numbers.ranges,
                undelivered=self._spool.undelivered,
            )

    def _abandoned(self) -> None:
        now = moment()
        gap = Gap(now.wall, GapReason.PROBE_ENDED, None, now.wall, None, None, None, None, None, None)
        self._recorder.close(now, gap)
        self._write_delivered(last=True)


def _intake(kind: Kind, body: bytes) -> Intake:
    """What a message of flows or transactions holds."""
    if kind is Kind.TRANSACTIONS:
        return Transactions(body)
    stride, n = FLOWS.unpack_from(body)
    behind = FLOWS.size + n
    return Flows(body[FLOWS.size : behind], stride, body[behind:])


def _lost(facts: dict[str, Any]) -> Gap:
    return Gap(
        *(facts["until"], facts["reason"], facts["since"], facts["until"], facts["events"]),
        *(None, None, None, None, None),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
