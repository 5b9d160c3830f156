"""How a probe is, while it captures: --health events, numbers for --metrics, rules of degradation in words.

The capturing loop calls `step` whenever it comes round; the numbers are taken once a second.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from sealwire.cli import watching
from sealwire.cli.say import Exit, Failure, Say
from sealwire.probe.capture import Reading

if TYPE_CHECKING:
    from sealwire.cli.sealing import SealingSink

_EVERY_SECONDS = 1.0
_LEAST, _MOST, _DEFAULT = 10, 3600, 60
#: Of a segment: what 512 KiB of leaves are, about.
_SEGMENT_EVENTS = 3_000
#: What a live reading calls what it did not see.
_DROPS = ("kernel_drops",)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--health",
        type=int,
        metavar="S",
        help=f"live: seal how the probe is every S seconds, {_LEAST} to {_MOST} "
        f"(default: $HEALTH_REPORT_INTERVAL_SECONDS or {_DEFAULT})",
    )


def interval(args: argparse.Namespace) -> int:
    """Seconds between health events.  Raises Failure."""
    name = "--health" if args.health is not None else "HEALTH_REPORT_INTERVAL_SECONDS"
    text = str(args.health) if args.health is not None else os.environ.get(name, str(_DEFAULT))
    if not text.lstrip("-").isdecimal() or not _LEAST <= int(text) <= _MOST:
        raise Failure(Exit.USAGE, f"{name}={text} is no number of seconds from {_LEAST} to {_MOST}", "")
    return int(text)


class Asked:
    """What signals have asked a live probe to do: to end, or to end and begin again."""

    def __init__(self) -> None:
        self.again = False
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """A service manager's SIGTERM is Ctrl-C: flows that are held come out, and everything is sealed."""
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload)

    def _reload(self, number: int, frame: object) -> None:
        self.again = True
        raise KeyboardInterrupt

    def release(self) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)


def begin_again() -> NoReturn:
    """Run the same command line anew in this process: it reads its configuration again."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "sealwire.cli", *sys.argv[1:]])  # noqa: S606


class Attendance:
    """The numbers of a probe that captures, who is told of them, and when."""

    def __init__(
        self, args: argparse.Namespace, reading: Reading, sink: SealingSink | None, say: Say
    ) -> None:
        from sealwire.probe.health import Watch

        self._interval = interval(args)
        self._reading = reading
        self._sink = sink
        self._say = say
        self.watch = Watch()
        self._due = 0.0
        self._health_at = time.monotonic() + self._interval
        self._first_event: int | None = None

    def counted(self) -> watching.Counted:
        """The numbers, for metrics."""
        from sealwire.probe.health import GAUGES

        return watching.Counted("probe", "health", lambda: self.watch.numbers, GAUGES)

    def step(self) -> None:
        """Take the numbers, if a second has passed; say and seal what is to be said."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _EVERY_SECONDS
        self._take()
        for rule, holds in self.watch.note(now):
            words = f"degraded: {rule.name}: {rule.mitigation}"
            words = words if holds else f"no longer degraded: {rule.name}"
            value = getattr(self.watch.numbers, rule.number)
            if self._say.json:
                facts = {"rule": rule.name, "holds": holds, "value": value, "mitigation": rule.mitigation}
                self._say.record("degradation", **facts)
            else:
                sys.stderr.write(f"sealwire: {words}\n")
        if now >= self._health_at:
            self._health_at = now + self._interval
            if self._sink is not None:
                self._sink.signer.health(self.watch.event(time.time_ns()))

    def _take(self) -> None:
        numbers, counters = self.watch.numbers, self._reading.counters
        live = self._reading.live_counters()
        numbers.packets_captured = counters.packets
        numbers.flows_exported = counters.exported
        numbers.active_flows = counters.active
        numbers.packets_dropped = sum(live.get(name, 0) for name in _DROPS)
        if self._sink is None:
            return
        signer = self._sink.signer
        event = signer.committed.get("event")
        if event is not None:
            self._first_event = event if self._first_event is None else self._first_event
            numbers.events_signed = event - self._first_event
        numbers.unsigned_events = max(signer.queue.events, 0)
        numbers.unsigned_segments = numbers.unsigned_events / _SEGMENT_EVENTS
        numbers.queue_utilization, numbers.buffer_utilization = signer.fills
        numbers.events_transmitted = self._sink.transmitted()
