"""`sealwire bench stcp`: requests and answers over STCP, Python's ssl and plain TCP in one run."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import signal
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from sealwire.bench.grid import GRID, Cell
from sealwire.bench.grid.clients import Load, Mode
from sealwire.bench.grid.session import Outcome, Setting, measure, one_way, serving, slope, two_way
from sealwire.bench.processes import Lost
from sealwire.cli.say import Exit, Failure, Say
from sealwire.cli.throughput import PORT
from sealwire.limits import Limits
from sealwire.record import protect

_SERVERS: Final = ("asyncio", "uvloop", "threaded")
_TRANSPORTS: Final = ("tcp", "ssl", "stcp")
_NAMES: Final = {"tcp": "plain TCP", "ssl": "Python ssl", "stcp": "STCP"}
_SECONDS: Final = 5.0
_MOST_CLIENTS: Final = 2_000
# In a closed loop what is in flight is known, but for what clients do between two requests.
_FLIGHT: Final = (0.9, 1.02)
#: What nothing else of `bench` knows.
_OWN: Final = (
    "clients", "size", "duration", "mode", "server", "report_every", "timeout", "warm_up",
    "messages_per_connection", "proto", "certificates",
)  # fmt: skip
#: Words of `bench dtls` that mean the same here.
SHARED: Final = ("s", "c", "p")


#: What other measurements know and this one does not, with what to say here.
_FOREIGN: Final = {
    "full": "say how long with --duration",
    "seconds": "say how long with --duration",
    "out": "`sealwire --json bench stcp` prints every count",
    "markdown": "`sealwire --json bench stcp` prints every count",
    "html": "`sealwire --json bench stcp` prints every count",
    "make": "see sealwire bench --help",
    "captures": "see sealwire bench --help",
    "time": "see sealwire bench --help",
    "rate": "see sealwire bench --help",
    "memory": "see sealwire bench --help",
    "repeat": "say how many turns with --runs",
    "slow_down": "see sealwire bench --help",
}


def options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stcp", "without --size and --clients the whole grid is measured")
    group.add_argument("--clients", type=int, metavar="N", help="connections, one request in flight each")
    group.add_argument("--size", type=int, metavar="N", help="bytes of a message")
    group.add_argument("--duration", type=float, metavar="S", help="seconds of a turn (default: 5)")
    group.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        help="steady: connections stay; churn: each makes some requests; throughput: one way",
    )
    group.add_argument("--server", choices=_SERVERS, help="what serves (default: asyncio)")
    group.add_argument("--report-every", type=float, metavar="S", help="seconds between reports")
    group.add_argument("--timeout", type=float, metavar="S", help="seconds for an operation (default: 10)")
    group.add_argument("--warm-up", type=float, metavar="S", help="seconds that do not count (default: 1)")
    group.add_argument(
        "--messages-per-connection",
        type=int,
        metavar="N",
        help="churn: requests of each (default: 100)",
    )
    group.add_argument(
        "--proto",
        action="append",
        choices=_TRANSPORTS,
        help="a transport (default: all; stcp with -s and -c); may be repeated",
    )
    group.add_argument(
        "--certificates",
        type=Path,
        metavar="DIR",
        help="what `sealwire cert --dir DIR` made; for -s and -c, the same on both machines",
    )


def given(args: argparse.Namespace) -> bool:
    """Whether options of this measurement were given, which nothing else knows."""
    return any(getattr(args, name) is not None for name in _OWN)


def run(args: argparse.Namespace, say: Say, directory: Path) -> Exit:
    """Measure; `directory` holds certificates."""
    for name, step in _FOREIGN.items():
        if getattr(args, name) not in (None, False):
            raise Failure(Exit.USAGE, f"bench stcp has no --{name.replace('_', '-')}", step)
    if not protect.COMPILED and not args.pure_ok:
        raise Failure(
            Exit.ENVIRONMENT,
            f"record protection is {protect.describe()}, whose figures are not this package's",
            "build the compiled modules, or say --pure-ok",
        )
    server = args.server or "asyncio"
    if server == "uvloop" and importlib.util.find_spec("uvloop") is None:
        raise Failure(Exit.ENVIRONMENT, "uvloop is not installed here", "pip install 'sealwire[bench]'")
    runs = 1 if args.runs is None else args.runs
    if runs < 1:
        raise Failure(Exit.USAGE, f"--runs {runs} is none", "use 1 or more")
    _check_ends(args, directory)
    if args.s:
        return _serve(args, server, directory, say)
    wrong = False
    for cell, load in _loads(args):
        transports = [one for one in _transports(args) if one == "stcp" or not args.no_rivals]
        if not transports:
            raise Failure(Exit.USAGE, "--no-rivals leaves nothing to measure", "leave out --proto")
        table: list[tuple[Setting, list[Outcome]]] = [
            (_setting(args, transport, server, load), []) for transport in transports
        ]
        for _ in range(runs):
            for setting, outcomes in table:
                try:
                    outcome = measure(setting, directory, partial(_report, say, setting))
                except Lost as error:
                    name = _NAMES[setting.transport]
                    raise Failure(Exit.NO, f"{name}: {error}", _step(error)) from error
                outcomes.append(outcome)
                wrong |= _tell(say, setting, outcome)
        _show(say, cell, table)
    return Exit.NO if wrong else Exit.OK


def _transports(args: argparse.Namespace) -> tuple[str, ...]:
    """A server that is elsewhere speaks one of them."""
    return tuple(args.proto or (("stcp",) if args.s or args.c else _TRANSPORTS))


def _check_ends(args: argparse.Namespace, directory: Path) -> None:
    """Raise Failure if the two machines cannot meet so."""
    if not (args.s or args.c):
        if args.p is not None or args.certificates is not None:
            raise Failure(Exit.USAGE, "-p and --certificates go with -s and -c", "leave them out here")
        return
    if args.s and args.c:
        raise Failure(Exit.USAGE, "-s serves and -c measures", "-s on one machine, -c its name on the other")
    if len(_transports(args)) > 1:
        raise Failure(Exit.USAGE, "a server speaks one transport", "say one with --proto, on both machines")
    if not 0 <= (0 if args.p is None else args.p) <= 65_535:
        raise Failure(Exit.USAGE, f"-p {args.p} is no port", "a port is a number up to 65535")
    if args.certificates is None:
        raise Failure(
            Exit.USAGE,
            "both machines need the same certificates",
            "make them with `sealwire cert --dir DIR`, copy DIR, and say --certificates DIR on both",
        )
    wanted = ("server.pem", "server.key") if args.s else ("ca.pem",)
    for name in wanted:
        if not (directory / name).is_file():
            raise Failure(
                Exit.ENVIRONMENT,
                f"there is no {name} in {directory}",
                "make it with `sealwire cert --dir DIR`",
            )


def _serve(args: argparse.Namespace, server: str, directory: Path, say: Say) -> Exit:
    """`-s`: until Ctrl-C or SIGTERM."""
    (transport,) = _transports(args)
    port = PORT if args.p is None else args.p
    setting = Setting(transport, server, Load(1, 8), seconds=_SECONDS, host="0.0.0.0", port=port)  # noqa: S104 - for others
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with serving(setting, directory) as bound:
            words = f"listening on port {bound} for {_NAMES[transport]}, {server}; Ctrl-C ends"
            say.fact("listening", words, port=bound, transport=transport, server=server)
            ended.wait()
    except Lost as error:
        raise Failure(
            Exit.ENVIRONMENT, f"{_NAMES[transport]}: {error}", "choose another port with -p"
        ) from error
    return Exit.OK


def _step(error: Lost) -> str:
    """What to do about a turn that did not come to its end."""
    if "connections could be made" in str(error):
        return "use fewer --clients, a longer --timeout, or raise `ulimit -n`"
    return ""


def _loads(args: argparse.Namespace) -> Iterator[tuple[Cell | None, Load]]:
    mode = Mode(args.mode or Mode.STEADY)
    common: dict[str, Any] = {
        "mode": mode,
        "timeout": _positive(args.timeout, "--timeout", 10.0),
        "seed": args.seed,
        "messages_per_connection": 100
        if args.messages_per_connection is None
        else args.messages_per_connection,
    }
    if args.messages_per_connection is not None and mode is not Mode.CHURN:
        raise Failure(
            Exit.USAGE, "--messages-per-connection goes with --mode churn", "leave it out, or say so"
        )
    if common["messages_per_connection"] < 1:
        raise Failure(Exit.USAGE, "--messages-per-connection is below 1", "use 1 or more")
    if args.size is None and args.clients is None:
        for cell in GRID:
            yield cell, Load(cell.clients, cell.size, **common)
        return
    size, clients = 256 if args.size is None else args.size, 50 if args.clients is None else args.clients
    if not 8 <= size <= Limits().message_bytes:
        raise Failure(Exit.USAGE, f"--size {size} is not between 8 and {Limits().message_bytes:,}", "")
    if not 1 <= clients <= _MOST_CLIENTS:
        raise Failure(Exit.USAGE, f"--clients {clients} is not between 1 and {_MOST_CLIENTS:,}", "")
    known = (cell for cell in GRID if (cell.size, cell.clients) == (size, clients))
    yield next(known, None), Load(clients, size, **common)


def _setting(args: argparse.Namespace, transport: str, server: str, load: Load) -> Setting:
    warm_up = 1.0 if args.warm_up is None else args.warm_up
    return Setting(
        transport,
        server,
        load,
        seconds=_positive(args.duration, "--duration", _SECONDS),
        warm_up=max(0.0, warm_up),
        every=0.0 if args.report_every is None else _positive(args.report_every, "--report-every", 0.0),
        host=args.c or "127.0.0.1",
        port=(PORT if args.p is None else args.p) if args.c else 0,
        remote=bool(args.c),
    )


def _positive(value: float | None, name: str, default: float) -> float:
    if value is None:
        return default
    if not 0 < value <= 86_400:
        raise Failure(Exit.USAGE, f"{name} {value:g} is not between 0 and 86,400 seconds", "")
    return value


def _report(say: Say, setting: Setting, report: Mapping[str, Any]) -> None:
    errors = sum(report["errors"].values())
    say.fact(
        "report",
        f"{_NAMES[setting.transport]:10}{report['seconds']:9.1f} s{report['rate']:12,.0f}/s  errors {errors}",
        transport=setting.transport,
        **report,
    )


def _tell(say: Say, setting: Setting, outcome: Outcome) -> bool:
    """A turn for programs, and what is wrong with it for people; whether something is."""
    load = setting.load
    say.record(
        "turn",
        transport=setting.transport,
        server=setting.server,
        **{**dataclasses.asdict(load), "mode": load.mode.value},
        rate=outcome.rate,
        one_way_mb_per_second=one_way(setting, outcome),
        two_way_mb_per_second=two_way(setting, outcome),
        in_flight=outcome.in_flight,
        cpu_us=_cpu(outcome),
        server_cpu_us=_server_cpu(outcome),
        rss_bytes_per_second={
            "client": slope(outcome.client_samples, lambda one: one.rss_bytes),
            "server": slope(outcome.server_samples, lambda one: one.rss_bytes),
        },
        descriptors_per_second={
            "client": slope(outcome.client_samples, lambda one: one.descriptors),
            "server": slope(outcome.server_samples, lambda one: one.descriptors),
        },
        **dataclasses.asdict(outcome),
    )
    wrong = False
    name = _NAMES[setting.transport]
    if outcome.errors:
        words = ", ".join(f"{count} {error}" for error, count in sorted(outcome.errors.items()))
        say.words(f"{name}: errors: {words}")
        wrong = True
    if load.mode is Mode.STEADY and not outcome.errors:
        low, high = (part * load.clients for part in _FLIGHT)
        if not low <= outcome.in_flight <= high:
            say.words(
                f"{name}: NOT believable: {outcome.in_flight:.1f} requests in flight, not {load.clients}"
            )
            wrong = True
    return wrong


def _cpu(outcome: Outcome) -> float:
    """CPU of both processes for one request or message, in microseconds."""
    return (outcome.client_cpu + (outcome.server_cpu or 0.0)) / max(1, outcome.units) * 1e6


def _server_cpu(outcome: Outcome) -> float:
    """CPU of the server alone for one request or message, in microseconds."""
    return (outcome.server_cpu or 0.0) / max(1, outcome.units) * 1e6


def _show(say: Say, cell: Cell | None, table: Sequence[tuple[Setting, Sequence[Outcome]]]) -> None:
    setting = table[0][0]
    load = setting.load
    counted = "messages one way" if load.mode is Mode.THROUGHPUT else "and back"
    say.words("")
    say.words(
        f"{load.size:,} B {counted}, {load.clients} clients, {load.mode.value}, {setting.server} server,"
        f" {setting.seconds:g} s"
    )
    say.words(
        f"{'':12}{'per second':>12}{'one-way MB/s':>14}{'two-way MB/s':>14}{'p50 ms':>9}{'p95 ms':>9}"
        f"{'p99 ms':>9}{'in flight':>11}{'CPU us':>9}{'server':>8}{'errors':>8}"
    )
    rates: dict[str, float] = {}
    for setting, outcomes in table:
        rates[setting.transport] = statistics.median(one.rate for one in outcomes)
        middle = min(outcomes, key=lambda one: abs(one.rate - rates[setting.transport]))
        latency = middle.latency_ms
        errors = sum(sum(one.errors.values()) for one in outcomes)
        say.words(
            f"{_NAMES[setting.transport]:12}{middle.rate:>12,.0f}{one_way(setting, middle):>14,.1f}"
            f"{two_way(setting, middle):>14,.1f}"
            + "".join(f"{latency[key]:>9.2f}" if latency else f"{'-':>9}" for key in ("50", "95", "99"))
            + (f"{middle.in_flight:>11.1f}" if middle.requests else f"{'-':>11}")
            + f"{_cpu(middle):>9.1f}{_server_cpu(middle):>8.1f}{errors:>8}"
        )
        if middle.connections:
            per_second = middle.connections / middle.wall_seconds
            times = middle.connect_ms
            words = f"{per_second:,.0f} connections a second, each made in"
            say.words(f"{'':12}{words} {times['50']:.2f} ms, 99 % in {times['99']:.2f} ms")
        _show_growth(say, middle)
    if cell is not None and load.mode is Mode.STEADY:
        both = 2 * cell.size * cell.rate / 1e6
        say.words(f"{'promised':12}{cell.rate:>12,.0f}{'':14}{both:>14,.1f}{'':18}{cell.p99:>9.2f}")
    if "stcp" in rates:
        parts = [
            f"{rates['stcp'] / rates[other]:.2f} x {_NAMES[other]}" for other in rates if other != "stcp"
        ]
        if cell is not None and load.mode is Mode.STEADY:
            parts.append(f"{rates['stcp'] / cell.rate:.1f} x promised")
        if parts:
            say.words(f"STCP is {', '.join(parts)}")


def _show_growth(say: Say, outcome: Outcome) -> None:
    for name, samples in (("clients", outcome.client_samples), ("server", outcome.server_samples)):
        if len(samples) < 4:
            continue
        half = samples[len(samples) // 2 :]
        grown = slope(half, lambda one: one.rss_bytes) * 60 / 1024
        say.words(
            f"{'':12}{name}: {samples[-1].rss_bytes / 2**20:.1f} MiB, {grown:+.1f} KiB a minute;"
            f" {samples[-1].descriptors} descriptors, {samples[-1].descriptors - samples[0].descriptors:+d}"
        )
