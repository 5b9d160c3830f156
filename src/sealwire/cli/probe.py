"""`sealwire probe`: a capture file or an interface in, flows out, and a summary that adds up."""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from sealwire.cli import attending, sealing, watching
from sealwire.cli.configured import settings_names
from sealwire.cli.options import seconds
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError
from sealwire.probe import settings as probe_settings
from sealwire.probe.batch import Batch
from sealwire.probe.capture import CaptureError, Reading, read
from sealwire.probe.counters import CaptureCounters, ProbeCounters
from sealwire.probe.features import Flow
from sealwire.probe.settings import Settings
from sealwire.probe.write import SINKS, Sink

_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".arrows": "arrow"}
_PROGRESS_AFTER = 2.0
_PROGRESS_EVERY = 0.5


def options(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("-r", "--read", metavar="FILE", help="a pcap or pcapng file; - for standard input")
    source.add_argument(
        "-i", "--interface", metavar="IFACE", help="capture live there (default: $CAPTURE_IFACE)"
    )
    parser.add_argument(
        "-f", "--filter", metavar="BPF", default="", help="only these packets, as tcpdump says it"
    )
    parser.add_argument("-w", "--write", metavar="OUT", help="where flows go; - for standard output")
    parser.add_argument(
        "--format", choices=sorted(SINKS), help="their form (default: by OUT's name, else eve)"
    )
    parser.add_argument(
        "--timeouts",
        metavar="LIST",
        help="idle=300,active=1800,linger=1 in seconds, each a number or none; or none for all three",
    )
    parser.add_argument("--max-flows", type=int, metavar="N", help="flows held at once (default: 1,000,000)")
    parser.add_argument(
        "--first-packets", type=int, metavar="N", help="sizes and gaps of each flow's first packets"
    )
    parser.add_argument(
        "--tunnels", action="store_true", help="look inside GRE, VXLAN, GTP-U, PPPoE, IP in IP"
    )
    parser.add_argument(
        "--no-dissection", action="store_true", help="only count: no protocols, names, fingerprints"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", default=1, help="threads that read one file (default: 1)"
    )
    parser.add_argument(
        "--pseudonyms", metavar="FILE", help="replace addresses by a hash keyed with FILE's bytes"
    )
    sealing.options(parser)
    attending.options(parser)
    parser.add_argument("--top", type=int, metavar="N", default=0, help="show the N flows with most bytes")
    parser.add_argument("--config", metavar="FILE", help="TOML with a table [probe] of options and settings")
    parser.add_argument(
        "--snaplen", type=int, metavar="N", default=65_535, help="live: bytes looked at of each packet"
    )
    parser.add_argument("--seconds", type=seconds, metavar="S", help="live: stop after this time")
    parser.add_argument("--packets", type=int, metavar="N", help="live: stop after this many packets")
    watching.options(parser)


def run(args: argparse.Namespace, say: Say) -> Exit:
    chosen = _settings(args, os.environ)
    key = _pseudonym_key(args.pseudonyms)
    sealing.check(args)
    to_stdout = args.write == "-" or (args.write is None and args.format is not None)
    if to_stdout and say.json:
        raise Failure(
            Exit.USAGE, "--json and flows on standard output do not go together", "write them with -w FILE"
        )
    if to_stdout:
        say = Say(json=False, text=sys.stderr)
    started = time.monotonic()
    asked = attending.Asked()
    with contextlib.ExitStack() as stack:
        interface = _interface(args)
        reading = _source(args, interface, chosen, stack)
        sink = (
            sealing.sink(args, stack, reading, interface is not None)
            if args.sign
            else _sink(args, stack, to_stdout, chosen.dissect)
        )
        attendance = None
        if interface is not None:
            asked.listen()
            stack.callback(asked.release)
            attendance = _attended(args, reading, sink, say)
        elif args.health is not None:
            raise Failure(Exit.USAGE, "--health is for a live capture", "give -i IFACE")
        # After the signer: a process is better not forked beside a thread.
        stack.enter_context(watching.watched_beside(args, say, _counted(reading, attendance)))
        top: list[tuple[int, int, Flow]] = []
        if interface is not None:
            # The filter is in place: what is sent from now on is seen.
            say.fact("capturing", f"capturing on {interface}; Ctrl-C ends it", interface=interface)
        shown = _Progress(reading, started)
        batches = reading.batches()
        try:
            for batch in _until_interrupted(batches):
                shown.step()
                if attendance is not None:
                    attendance.step()
                ready = batch if key is None else batch.pseudonymised(key)
                if sink is not None:
                    sink.write(ready)
                if args.top:
                    top = _largest(top, ready, args.top)
        except CaptureError as error:
            raise Failure(Exit.ENVIRONMENT, f"{args.read}: {error}", "is it a capture file?") from error
        finally:
            shown.clear()
        if sink is not None:
            sink.close()
    _report(say, reading, sorted(top, reverse=True), time.monotonic() - started)
    if isinstance(sink, sealing.SealingSink):
        sink.report(say)
    if asked.again:
        attending.begin_again()
    return Exit.NO if reading.note else Exit.OK


# What falls again, among what a table counts.
_GAUGES = frozenset(("active", "peak", "held_bytes", "peak_bytes", "dissection_bytes", "dissection_peak"))


def _counted(reading: Reading, attendance: attending.Attendance | None) -> list[watching.Counted]:
    """What --metrics and --control show of a probe."""
    counted = [watching.Counted("probe", "probe", lambda: reading.counters, _GAUGES)]
    if attendance is not None:
        counted.append(
            watching.Counted("probe", "capture", lambda: CaptureCounters(**reading.live_counters()))
        )
        counted.append(attendance.counted())
    return counted


def _attended(args: argparse.Namespace, reading: Reading, sink: object, say: Say) -> attending.Attendance:
    """What a live capture has beside it: health events, and rules."""
    sealed = sink if isinstance(sink, sealing.SealingSink) else None
    return attending.Attendance(args, reading, sealed, say)


def _until_interrupted(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Ctrl-C ends a live capture in order; the flows it held come out."""
    while True:
        try:
            batch = next(batches, None)
        except KeyboardInterrupt:
            return
        if batch is None:
            return
        yield batch


def _interface(args: argparse.Namespace) -> str | None:
    """What to capture from; None for a file."""
    return args.interface or (None if args.read else os.environ.get("CAPTURE_IFACE")) or None


def _source(
    args: argparse.Namespace, interface: str | None, chosen: Settings, stack: contextlib.ExitStack
) -> Reading:
    try:
        if interface is not None:
            from sealwire.probe.capture.live import LiveReading

            live = LiveReading(
                *(interface, chosen),
                bpf=args.filter,
                snaplen=args.snaplen,
                seconds=args.seconds,
                packets=args.packets,
            )
            return stack.enter_context(live)  # gives the ring back, whatever happens
        if args.read is None:
            raise Failure(Exit.USAGE, "nothing to read", "give -r FILE or -i IFACE")
        return stack.enter_context(read(args.read, bpf=args.filter, settings=chosen, workers=args.workers))
    except ConfigurationError as error:
        raise Failure(Exit.USAGE, str(error), "") from error
    except OSError as error:
        raise Failure(
            Exit.ENVIRONMENT, f"{args.read or interface}: {error.strerror or error}", "check that"
        ) from error


def _settings(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """TOML, then the environment, then options: the later one wins."""
    chosen = Settings(dissect=True)
    try:
        if args.config:
            with Path(args.config).open("rb") as file:
                table = tomllib.load(file).get("probe", {})
            known = settings_names()  # the rest are options, which stand on the command line by now
            chosen = probe_settings.from_mapping(
                {name: value for name, value in table.items() if name in known}, chosen
            )
        chosen = probe_settings.from_environment(environment, chosen)
        changes: dict[str, Any] = _timeouts(args.timeouts)
        for name in ("max_flows", "first_packets"):
            if getattr(args, name) is not None:
                changes[name] = getattr(args, name)
        if args.tunnels:
            changes["tunnels"] = True
        if args.no_dissection:
            changes["dissect"] = False
        return replace(chosen, **changes)
    except (ConfigurationError, tomllib.TOMLDecodeError) as error:
        raise Failure(Exit.USAGE, str(error), "") from error
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{args.config}: {error.strerror}", "check --config") from error


_TIMEOUTS = {"idle": "idle_timeout", "active": "active_timeout", "linger": "linger"}


def _timeouts(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text == "none":
        return dict.fromkeys(_TIMEOUTS.values())
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            found[_TIMEOUTS[name]] = None if value == "none" else float(value)
        except (KeyError, ValueError):
            raise Failure(
                Exit.USAGE,
                f"--timeouts: {part!r} is not understood",
                "write idle=300,active=1800,linger=1 or none",
            ) from None
    return found


def _pseudonym_key(name: str | None) -> bytes | None:
    if name is None:
        return None
    try:
        key = Path(name).read_bytes()
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{name}: {error.strerror}", "check --pseudonyms") from error
    if not 16 <= len(key) <= 64:
        raise Failure(
            Exit.USAGE,
            f"--pseudonyms: {name} has {len(key)} bytes",
            "make one of 16 to 64: head -c 32 /dev/urandom",
        )
    return key


def _sink(
    args: argparse.Namespace, stack: contextlib.ExitStack, to_stdout: bool, dissected: bool
) -> Sink | None:
    if args.write is None and not to_stdout:
        return None
    form = args.format or _SUFFIXES.get(Path(args.write).suffix, "eve")
    out: IO[bytes]
    try:
        file = sys.stdout.buffer if to_stdout else Path(args.write).open("wb")  # noqa: SIM115
        out = file if to_stdout else stack.enter_context(file)
        sink: Sink = SINKS[form](out, dissected)
        return sink
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "") from error
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{args.write}: {error.strerror}", "check -w") from error


def _largest(top: list[tuple[int, int, Flow]], batch: Batch, n: int) -> list[tuple[int, int, Flow]]:
    return heapq.nlargest(n, [*top, *((flow.bytes, -flow.first_packet, flow) for flow in batch)])


@dataclass(slots=True)
class _Progress:
    """One line on a terminal, once the work has taken a while."""

    reading: Reading
    started: float
    drawn: float = 0.0

    def step(self) -> None:
        now = time.monotonic()
        late = now - self.started > _PROGRESS_AFTER and now - self.drawn > _PROGRESS_EVERY
        if not (late and sys.stderr.isatty()):
            return
        self.drawn = now
        counters = self.reading.counters
        done, size = self.reading.position
        part = f"{100 * done / size:3.0f} %  " if size else ""
        rate = counters.packets / (now - self.started)
        sys.stderr.write(
            f"\r{part}{counters.packets:,} packets, {rate:,.0f} a second, {counters.active:,} flows  "
        )
        sys.stderr.flush()

    def clear(self) -> None:
        if self.drawn:
            sys.stderr.write("\r\x1b[K")


_TOP = (
    "bytes",
    "packets",
    "source",
    "source_port",
    "destination",
    "destination_port",
    "protocol",
    "conn_state",
)


def _report(say: Say, reading: Reading, top: list[tuple[int, int, Flow]], took: float) -> None:
    counters = reading.counters
    live = reading.live_counters()
    say.record("summary", **counters.snapshot(), **live, note=reading.note, seconds=round(took, 3))
    for line in summary(counters, live, took):
        say.words(line)
    if reading.note:
        say.words(f"the input is {reading.note}")
    for _, _, flow in top:
        say.fact(
            "top",
            f"{flow.bytes:>14,} bytes {flow.packets:>9,} packets  {_end(flow, True)} > {_end(flow, False)}"
            f"  protocol {flow.protocol}  {flow.conn_state}",
            **{name: getattr(flow, name) for name in _TOP},
        )


def _end(flow: Flow, source: bool) -> str:
    address, port = (flow.source, flow.source_port) if source else (flow.destination, flow.destination_port)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def summary(counters: ProbeCounters, live: Mapping[str, int], took: float) -> list[str]:
    """The table people see: every packet is in a flow or in a discard, every flow in an end."""
    rate = counters.packets / took if took > 0 else 0.0
    lines = [
        f"{counters.packets:>14,}  packets, {counters.wire_bytes:,} bytes, {rate:,.0f} packets a second",
        f"{counters.flow_packets:>14,}  packets in flows",
    ]
    for discard in sorted(counters.discards):
        words = discard.name.lower().replace("_", " ")
        lines.append(f"{counters.discards[discard]:>14,}  packets in no flow: {words}")
    lines.append(f"{counters.exported:>14,}  flows, at most {counters.peak:,} at once")
    ends = sorted(counters.ends.items())
    lines.extend(f"{n:>14,}  flows ended: {reason.name.lower().replace('_', ' ')}" for reason, n in ends)
    if counters.backwards:
        lines.append(f"{counters.backwards:>14,}  packets older than one before them")
    if counters.clamped_times:
        lines.append(f"{counters.clamped_times:>14,}  packets with an impossible time")
    for name, value in live.items():
        lines.append(f"{value:>14,}  {name.replace('_', ' ')}")
    return lines
