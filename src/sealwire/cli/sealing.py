"""`sealwire probe --sign`: flows go to a signer's process, sealed segments into a spool."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sealwire.cli import delivering
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError
from sealwire.probe.batch import Batch
from sealwire.probe.capture import Reading
from sealwire.probe.counters import ProbeCounters
from sealwire.probe.pressure import THRESHOLD

if TYPE_CHECKING:
    from sealwire.probe.seal.client import Signer

_MIB = 1 << 20
_THRESHOLD_MINIMUM_BYTES = 1024
#: What a counter holds now, not since the beginning; a header has totals only.
_GAUGES = {"active", "peak", "held_bytes", "peak_bytes", "dissection_bytes", "dissection_peak"}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sign", metavar="KEY", help="seal flows and what they are with this key; OUT is then a directory"
    )
    parser.add_argument(
        "--spool", metavar="DIR", help="the directory of sealed events (as -w; default: $BUFFER_DIR)"
    )
    parser.add_argument(
        "--old-key", metavar="KEY", help="the key the spool was sealed with so far; it signs that KEY follows"
    )
    parser.add_argument(
        "--spool-max",
        type=int,
        metavar="MB",
        help="most the spool takes on disk (default: $SPOOL_MAX_MB or 1024)",
    )
    parser.add_argument(
        "--when-full",
        choices=("wait", "drop"),
        help="events that the signer cannot take yet (default: wait for a file, drop live, with a Gap)",
    )
    delivering.options(parser)
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="under pressure keep one event of N, before worse (default: 10)",
    )
    parser.add_argument(
        "--heartbeat",
        type=int,
        metavar="S",
        help="seal a heartbeat after so many quiet seconds (default: 60)",
    )


def check(args: argparse.Namespace) -> None:
    """What does not go together.  Raises Failure."""
    delivering.check(args)
    if args.spool and args.write:
        raise Failure(Exit.USAGE, "--spool and -w name the same thing", "give one of them")
    if args.sign is None:
        for name in ("old_key", "spool", "spool_max", "when_full", "sample", "heartbeat"):
            if getattr(args, name) is not None:
                option = "--" + name.replace("_", "-")
                raise Failure(Exit.USAGE, f"{option} is given without --sign", "name the key with --sign KEY")
        return
    args.write = args.write or args.spool or os.environ.get("BUFFER_DIR")
    if args.write in (None, "-") or args.format is not None:
        raise Failure(Exit.USAGE, "sealed events go to a directory, in their own form", "name it with -w DIR")


def sink(args: argparse.Namespace, stack: contextlib.ExitStack, reading: Reading, live: bool) -> SealingSink:
    """The signer's end; `stack` ends it as the work ends."""
    spool = _megabytes(args.spool_max, "SPOOL_MAX_MB", 1024, 1, 1 << 20)
    queue = _megabytes(None, "MAX_BUFFER_SIZE_MB", 256, 1, 10_000)
    threshold = _threshold(os.environ.get("BACKPRESSURE_THRESHOLD"), queue)
    sample = _integer(None if args.sample is None else str(args.sample), "--sample", 10, 2, 1_000_000)
    heartbeat = 60 if args.heartbeat is None else args.heartbeat
    if not 1 <= heartbeat <= 3600:
        raise Failure(Exit.USAGE, f"--heartbeat must be from 1 to 3600 seconds, not {heartbeat}", "")
    try:
        from sealwire.probe.seal.client import Signer, WhenFull

        signer = Signer(
            *(args.write, args.sign),
            old_key=args.old_key,
            spool_bytes=spool,
            queue_bytes=queue,
            threshold=threshold,
            sample=sample,
            when_full=WhenFull(args.when_full or ("drop" if live else "wait")),
            heartbeat=heartbeat,
            deliver=args.to is not None,
        )
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "") from error
    stack.callback(signer.abandon)
    return SealingSink(signer, reading, delivering.export(args, stack))


def _threshold(text: str | None, queue_bytes: int) -> float:
    """BACKPRESSURE_THRESHOLD: a part (0.8), or bytes of the queue (from 1024 on)."""
    try:
        value = THRESHOLD if text is None else float(text)
        part = value if value <= 1 else value / queue_bytes
        if (0 < value <= 1 or value >= _THRESHOLD_MINIMUM_BYTES) and part <= 1:
            return part
    except ValueError:
        pass
    raise Failure(
        Exit.USAGE,
        f"BACKPRESSURE_THRESHOLD={text!r} is no part from 0 to 1, and no bytes from 1024 to {queue_bytes}",
        "give 0.8, say",
    )


def _megabytes(given: int | None, name: str, default: int, least: int, most: int) -> int:
    text = os.environ.get(name) if given is None else str(given)
    return _MIB * _integer(text, name, default, least, most)


def _integer(text: str | None, name: str, default: int, least: int, most: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or not least <= int(text) <= most:
        raise Failure(Exit.USAGE, f"{name}={text!r} is no number from {least} to {most}", "")
    return int(text)


class SealingSink:
    """Where batches go when they are sealed."""

    def __init__(self, signer: Signer, reading: Reading, delivery: delivering.Delivery | None) -> None:
        self.signer = self._signer = signer
        self._delivery = delivery
        self._totals: Callable[[], dict[str, int]] = lambda: totals(reading.counters, reading.live_counters())

    def write(self, batch: Batch) -> None:
        self._signer.write(batch, self._totals())

    def transmitted(self) -> int:
        """Events that a collector has acknowledged, of this run."""
        return 0 if self._delivery is None else self._delivery.acknowledged()

    def close(self) -> None:
        """Seal the last ones.  Raises SealingFailed."""
        self._signer.write(Batch(b"", 0), self._totals())
        self._signer.finish()
        if self._delivery is not None:
            self._delivery.finish()
        self._signer.close()

    def report(self, say: Say) -> None:
        """What became of the events, for the summary."""
        queue, committed = self._signer.queue, self._signer.committed
        head = str(committed.get("hash", ""))
        lost = f", {queue.dropped:,} events dropped" if queue.dropped else ""
        lost += f", {queue.restarts} signers lost with up to {queue.lost:,} events" if queue.restarts else ""
        say.fact(
            "sealed",
            f"{'sealed':>14}  up to segment {committed.get('segment')}, event {committed.get('event')}; "
            f"at most {queue.peak:,} bytes waited{lost}\n{'head':>14}  {head}",
            segment=committed.get("segment"),
            sequence=committed.get("event"),
            head=head,
            queue_peak=queue.peak,
            queue_depth=queue.depth,
            dropped=queue.dropped,
            restarts=queue.restarts,
            lost=queue.lost,
        )
        if self._delivery is not None:
            self._delivery.report(say)


def totals(counters: ProbeCounters, live: dict[str, int]) -> dict[str, int]:
    """What goes into every header: totals, with every kind of drop, and nothing that goes back."""
    return {name: value for name, value in {**counters.snapshot(), **live}.items() if name not in _GAUGES}
