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
from typing import Any, Final

from sealwire.errors import ConfigurationError
from sealwire.probe.events import Gap, GapReason
from sealwire.probe.seal.clocks import moment, uptime
from sealwire.probe.seal.intake import Flows, Intake, Transactions
from sealwire.probe.seal.keys import load_signing_key
from sealwire.probe.seal.recorder import Recorder
from sealwire.probe.seal.wire import FLOWS, Kind, Messages, json_message
from sealwire.probe.spool import Directory, Spool

#: How often a full disk is tried again, seconds.
_STALLED_SECONDS: Final = 0.2
#: Part of the free disk that a spool may count on; the rest is other people's.
_FREE_SHARE: Final = 0.9

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
    directory = Directory(config["spool"])
    try:
        spool = Spool(directory, spool_bytes(config["spool"], config["spool_bytes"]))
        recorder = Recorder(
            *(spool, key, moment()),
            boot=os.urandom(16),
            software=config["software"],
            heartbeat=config["heartbeat"],
            old_key=old_key,
        )
        stream.sendall(json_message(Kind.READY, key=key.id.hex(), next_event=recorder.sequence))
        waiting: queue.Queue[Item] = queue.Queue()
        threading.Thread(target=_receive, args=(stream, waiting), daemon=True).start()
        _Loop(recorder, stream, waiting).run()
    finally:
        directory.close()


def _receive(stream: socket.socket, waiting: queue.Queue[Item]) -> None:
    messages = Messages(stream)
    try:
        while (item := messages.read()) is not None:
            waiting.put(item)
    except (OSError, ValueError):
        pass
    waiting.put(None)


class _Loop:
    def __init__(self, recorder: Recorder, stream: socket.socket, waiting: queue.Queue[Item]) -> None:
        self._recorder = recorder
        self._stream = stream
        self._waiting = waiting
        self._reported: dict[str, Any] = {}
        #: What was taken and may not be durable: the sequence behind it, and how many events it is.
        self._taken: collections.deque[tuple[int, int]] = collections.deque()

    def run(self) -> None:
        while True:
            patience = max((self._recorder.deadline() - uptime()) / 1e9, 0.0)
            try:
                item = self._waiting.get(timeout=min(patience, 60.0))
            except queue.Empty:
                self._recorder.wake(moment())
                self._report(0)
                continue
            if item is None:
                self._abandoned()
                return
            kind, body = item
            if kind in (Kind.FLOWS, Kind.TRANSACTIONS):
                self._take(_intake(kind, body), len(body))
            elif kind is Kind.COUNTERS:
                self._recorder.counters.update(json.loads(body))
            elif kind is Kind.LOST:
                self._recorder.event(_lost(json.loads(body)), moment())
            elif kind is Kind.STOP:
                self._recorder.close(moment())
                self._report(0)
                self._stream.sendall(json_message(Kind.DONE))
                return
            if self._recorder.deadline() <= uptime():
                self._recorder.wake(moment())
                self._report(0)

    def _take(self, intake: Intake, size: int) -> None:
        taken = self._recorder.take(intake, moment())
        while intake.left:
            # The disk is full.  The queue behind us fills, and its policy decides.
            self._report(0)
            time.sleep(_STALLED_SECONDS)
            self._recorder.wake(moment())
            taken += self._recorder.take(intake, moment())
        self._taken.append((self._recorder.sequence, taken))
        self._report(size)

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
        if taken or events or facts != self._reported:
            self._reported = facts
            try:
                self._stream.sendall(json_message(Kind.TAKEN, bytes=taken, events=events, **facts))
            except OSError:
                pass  # the other end is gone, which the receiving thread says too

    def _abandoned(self) -> None:
        now = moment()
        gap = Gap(now.wall, GapReason.PROBE_ENDED, None, now.wall, None, None, None, None, None, None)
        self._recorder.close(now, gap)


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
