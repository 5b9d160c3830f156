"""`sealwire bench`: measure, compare, hold against objectives, report."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sealwire.bench import probe_files, report, results, runner, slo, tables
from sealwire.bench.compare import Thresholds, compare
from sealwire.bench.measurement import FULL, QUICK, Measurement, Scale
from sealwire.bench.results import Measured, Result, UnusableResult
from sealwire.bench.rows import LOCATION, ROWS
from sealwire.bench.runner import Plan
from sealwire.bench.trial import trial
from sealwire.cli import authority, grid, throughput
from sealwire.cli.say import Exit, Failure, Say
from sealwire.record import protect

_WHAT = (
    "what to do: names of groups (record, handshake, memory, connections, crypto, udp, bulk), of rows"
    " (record.seal.64, patterns like 'handshake.*'), or 'all' to measure; 'list'; 'compare OLD NEW';"
    " 'slo OBJECTIVES RESULT'; 'report RESULT...', oldest first; 'trial ROWS...' to put the alarm itself"
    " to the test; 'dtls' with -s or -c HOST between two machines; 'stcp' for requests and answers over"
    " STCP, beside Python's ssl and plain TCP"
)
_ACTIONS = ("list", "compare", "slo", "report", "trial")
_FLOOR = ("udp",)
# Which options an action knows; the rest of them belong to measuring.
_MEASURING = ("full", "runs", "seconds", "no_rivals", "pure_ok", "out")
_KNOWN = {
    "list": (),
    "compare": ("markdown", "time", "rate", "memory"),
    "slo": (),
    "report": ("markdown", "html"),
    "trial": ("full", "runs", "seconds", "no_rivals", "pure_ok", "repeat", "slow_down", "out"),
    "measure": _MEASURING,
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="WHAT", help=_WHAT)
    parser.add_argument("--full", action="store_true", help="longer turns, 1,000 handshakes for percentiles")
    parser.add_argument(
        "--runs", type=int, metavar="N", help="turns per contender (default: 5, or 7 with --full)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a turn (default: 0.05, or 0.5)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the result as JSON, into a directory by machine and commit",
    )
    parser.add_argument("--no-rivals", action="store_true", help="measure sealwire alone")
    parser.add_argument(
        "--pure-ok", action="store_true", help="measure the plain-Python twin if that is in use"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="report, compare: write Markdown")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="report: write a page that needs nothing else"
    )
    parser.add_argument(
        "--time", type=_part, metavar="PART", help="compare: alarm when slower by (default: 0.10)"
    )
    parser.add_argument(
        "--rate", type=_part, metavar="PART", help="compare: alarm when less by (default: 0.05)"
    )
    parser.add_argument(
        "--memory", type=_part, metavar="PART", help="compare: alarm when more by (default: 0.15)"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="trial: runs without a change (default: 20)")
    parser.add_argument(
        "--slow-down", type=_part, metavar="PART", help="trial: what to inject (default: 0.15)"
    )

    parser.add_argument(
        "--make", type=Path, metavar="DIR", help="probe: make the capture files of its rows in DIR"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="probe: what they are made from (default: 1)"
    )
    parser.add_argument(
        "--captures", type=Path, metavar="DIR", help="probe: captures whose packets make the mix"
    )
    throughput.options(parser)
    grid.options(parser)


def run(args: argparse.Namespace, say: Say) -> Exit:
    if args.what == ["dtls"]:
        return throughput.run(args, say)
    if throughput.given(args, but=grid.SHARED if args.what == ["stcp"] else ()):
        raise Failure(
            Exit.USAGE, "-s, -c and what goes with them are for bench dtls", "see sealwire bench --help"
        )
    if args.what == ["stcp"]:
        if args.certificates is not None:
            return grid.run(args, say, args.certificates)
        with _certificates() as directory:
            return grid.run(args, say, Path(directory))
    if grid.given(args):
        raise Failure(
            Exit.USAGE,
            "--size, --clients and what goes with them are for bench stcp",
            "see sealwire bench --help",
        )
    if args.make is not None:
        return _make(args, say)
    action = args.what[0] if args.what[0] in _ACTIONS else "measure"
    for option in sorted({name for names in _KNOWN.values() for name in names}):
        if option not in _KNOWN[action] and getattr(args, option) not in (None, False):
            written = "--" + option.replace("_", "-")
            raise Failure(Exit.USAGE, f"bench {action} has no {written}", "see sealwire bench --help")
    verbs: dict[str, Callable[[argparse.Namespace, Say], Exit]] = {
        "list": _list,
        "compare": _compare,
        "slo": _slo,
        "report": _report,
        "trial": _trial,
        "measure": _measure,
    }
    try:
        return verbs[action](args, say)
    except (UnusableResult, slo.UnusableObjectives) as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "") from error


def _make(args: argparse.Namespace, say: Say) -> Exit:
    """`bench probe --make DIR [NAMES...]`."""
    first, *names = args.what
    unknown = sorted(set(names) - set(probe_files.NAMES))
    if first != "probe" or unknown:
        what = f"there is no file {unknown[0]!r}" if unknown else f"--make is for probe, not {first!r}"
        raise Failure(Exit.USAGE, what, f"files are {', '.join(probe_files.NAMES)}")
    for path, packets in probe_files.make_all(tuple(names), args.make, args.seed, args.captures):
        say.fact("made", f"{path}: {packets:,} packets", file=str(path), packets=packets)
    say.words(f"measure with them: SEALWIRE_PROBE_FILES={args.make} sealwire bench probe")
    return Exit.OK


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no part between 0 and 1, such as 0.1 for 10 %")
    return value


# --- measuring -------------------------------------------------------------------------------


def _measure(args: argparse.Namespace, say: Say) -> Exit:
    chosen, unknown = _choose(args.what)
    progress = _Progress(say, len(chosen))
    with _certificates() as directory:
        plan = dataclasses.replace(
            _plan(args, Path(directory)), progress=progress.now, finished=progress.finished
        )
        result = runner.run(chosen, plan)
    progress.clear()
    _show(result, say)
    if args.out is not None:
        file = args.out / results.baseline_name(result) if args.out.is_dir() else args.out
        _write(file, lambda path: results.save(result, path), say)
    for name in unknown:
        say.fact("unknown", _unknown(name), name=name)
    failed = result.failed_checks()
    for name, check in failed:
        say.fact(
            "check",
            f"NOT believable: {name}, {check.name}: {check.sentence}",
            row=name,
            check=check.name,
            sentence=check.sentence,
        )
    return (
        Exit.NO
        if failed or unknown or any(one.entries[0].status == "failed" for one in result.measured)
        else Exit.OK
    )


def _plan(args: argparse.Namespace, directory: Path) -> Plan:
    if not protect.COMPILED and not args.pure_ok:
        raise Failure(
            Exit.ENVIRONMENT,
            f"record protection is {protect.describe()}, whose figures are not this package's",
            "build the compiled modules, or say --pure-ok",
        )
    scale: Scale = FULL if args.full else QUICK
    if args.runs is not None:
        if args.runs < runner.LEAST_RUNS:
            raise Failure(
                Exit.USAGE,
                f"--runs {args.runs} says nothing about noise",
                f"use at least {runner.LEAST_RUNS}",
            )
        scale = dataclasses.replace(scale, runs=args.runs)
    if args.seconds is not None:
        if not 0.01 <= args.seconds <= 3600:
            raise Failure(
                Exit.USAGE,
                f"--seconds {args.seconds:g} is not between 0.01 and 3600",
                "choose another length",
            )
        scale = dataclasses.replace(scale, seconds=args.seconds)
    return Plan(location=LOCATION, directory=directory, scale=scale, rivals=not args.no_rivals)


def _choose(names: Sequence[str]) -> tuple[list[Measurement], list[str]]:
    """The measurements that were named, in the order of the rows, and the names nothing has."""
    unknown = []
    wanted: set[str] = set()
    for name in names:
        found = [one.name for one in ROWS if name == "all" or _names(one, name)]
        wanted.update(found)
        if not found:
            unknown.append(name)
    if not wanted:
        raise Failure(Exit.USAGE, _unknown(unknown[0]), "")
    return [one for one in ROWS if one.name in wanted], unknown


def _names(measurement: Measurement, name: str) -> bool:
    rows = (measurement.name, *(measurement.row_name(figure) for figure in measurement.figures))
    return name == measurement.group or any(fnmatch.fnmatchcase(row, name) for row in rows)


def _unknown(name: str) -> str:
    return f"there is no group or row {name!r}; sealwire bench list names all of them"


def _certificates() -> tempfile.TemporaryDirectory[str]:
    temporary = tempfile.TemporaryDirectory(prefix="sealwire-bench-")
    made = authority.make(authority.LOCAL_NAMES, authority.LOCAL_ADDRESSES, days=1, key_type="ec")
    authority.write(Path(temporary.name), made)
    return temporary


class _Progress:
    """What is being measured, on a terminal; each measurement to programs as it is done."""

    def __init__(self, say: Say, count: int) -> None:
        self._say = say
        self._shown = not say.json and sys.stderr.isatty()
        self._count = count
        self._done = 0
        self._next = 0.0

    def now(self, line: str) -> None:
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{f'[{self._done} of {self._count}] {line}'[:width]}")
            sys.stderr.flush()

    def finished(self, measured: Measured) -> None:
        self._done += 1
        for row in measured.rows():
            for entry in row.entries:
                summary = row.summary(entry)
                if summary is None:
                    continue
                self._say.record(
                    "row",
                    row=row.name,
                    contender=entry.name,
                    role=entry.role.value,
                    unit=row.figure.unit,
                    **dataclasses.asdict(summary),
                )

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _show(result: Result, say: Say) -> None:
    width = shutil.get_terminal_size((200, 24)).columns
    for table in tables.tables(result):
        say.words("\n".join(["", *tables.as_text(table, width)]))
    say.words("")
    for key, value in tables.conditions(result):
        say.words(f"{key}: {value}")


def _write(path: Path, write: Callable[[Path], object], say: Say) -> None:
    try:
        write(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(Exit.ENVIRONMENT, f"cannot write {path}, {reason}", "choose another file") from error
    say.fact("written", f"written: {path}", file=str(path))


# --- what is done with results ----------------------------------------------------------------


def _list(args: argparse.Namespace, say: Say) -> Exit:
    for measurement in ROWS:
        for figure in measurement.figures:
            name = measurement.row_name(figure)
            title = f"{measurement.title}, {figure.title}"
            say.fact(
                "row",
                f"{name:36}{figure.unit:6}{title}",
                row=name,
                unit=figure.unit,
                direction=figure.kind.direction,
                title=title,
            )
    return Exit.OK


def _files(args: argparse.Namespace, count: int, usage: str) -> list[Path]:
    files = [Path(name) for name in args.what[1:]]
    if len(files) != count:
        raise Failure(Exit.USAGE, f"bench {args.what[0]} takes {usage}", "see sealwire bench --help")
    return files


def _compare(args: argparse.Namespace, say: Say) -> Exit:
    before, after = _files(args, 2, "two results, OLD and NEW")
    new = results.load(after)
    old = results.baseline(before, new) if before.is_dir() else results.load(before)
    given = {
        name: getattr(args, name) for name in ("time", "rate", "memory") if getattr(args, name) is not None
    }
    comparison = compare(old, new, Thresholds(**given))
    table = tables.change_table(comparison)
    say.words("\n".join(tables.as_text(table)))
    for change in comparison.changes:
        say.record("change", **{**dataclasses.asdict(change), "kind": change.kind.value})
    if args.markdown is not None:
        text = (
            "\n".join(["# Compared", "", *_verdict(comparison.alarms), "", *tables.as_markdown(table)]) + "\n"
        )
        _write(args.markdown, lambda path: path.write_text(text, "utf-8"), say)
    say.fact(
        "verdict", " ".join(_verdict(comparison.alarms)), alarms=[change.row for change in comparison.alarms]
    )
    return Exit.NO if comparison.alarms else Exit.OK


def _verdict(alarms: Sequence[object]) -> list[str]:
    if not alarms:
        return ["No row is worse beyond its threshold and beyond noise."]
    return [f"{len(alarms)} {'row is' if len(alarms) == 1 else 'rows are'} WORSE."]


def _slo(args: argparse.Namespace, say: Say) -> Exit:
    objectives, measured = _files(args, 2, "a file of objectives and a result")
    wanted, result = slo.load(objectives), results.load(measured)
    outcomes = [slo.judge(result, objective) for objective in wanted]
    for outcome in outcomes:
        mark = "met    " if outcome.met else "NOT MET"
        say.fact("objective", f"{mark}  {outcome.sentence}", met=outcome.met, sentence=outcome.sentence)
    return Exit.OK if all(outcome.met for outcome in outcomes) else Exit.NO


def _report(args: argparse.Namespace, say: Say) -> Exit:
    if len(args.what) < 2:
        raise Failure(Exit.USAGE, "bench report takes at least one result", "see sealwire bench --help")
    *earlier, result = [results.load(Path(name)) for name in args.what[1:]]
    if any(one.machine["id"] != result.machine["id"] for one in earlier):
        raise UnusableResult("the results come from different machines, whose figures cannot be compared")
    if args.html is not None:
        _write(args.html, lambda path: path.write_text(report.html(result, earlier), "utf-8"), say)
    if args.markdown is not None:
        _write(args.markdown, lambda path: path.write_text(report.markdown(result), "utf-8"), say)
    if args.html is None and args.markdown is None:
        _show(result, say)
    return Exit.OK


def _trial(args: argparse.Namespace, say: Say) -> Exit:
    chosen, unknown = _choose(args.what[1:] or ["record", "crypto"])
    if unknown:
        raise Failure(Exit.USAGE, _unknown(unknown[0]), "")
    if any(one.group in _FLOOR for one in chosen):
        raise Failure(Exit.USAGE, "plain UDP has nothing of ours to slow down", "leave it out")
    slow_down = 0.15 if args.slow_down is None else args.slow_down
    repeat = 20 if args.repeat is None else args.repeat

    def keep(name: str, result: Result) -> None:
        if args.out is not None:
            _write(args.out / f"{name}.json", lambda path: results.save(result, path), say)

    with _certificates() as directory:
        outcome = trial(
            chosen,
            _plan(args, Path(directory)),
            runs=repeat,
            slow_down=slow_down,
            tell=lambda line: say.fact("trial", line, line=line),
            keep=keep,
        )
    say.words("\n".join(tables.as_text(tables.change_table(outcome.slowed))))
    silent = [
        f"{word}: {', '.join(rows)}"
        for word, rows in (("MISSED", outcome.missed), ("hidden in noise", outcome.hidden))
        if rows
    ]
    say.fact(
        "verdict",
        f"{outcome.false_alarms} alarms in {repeat} runs without a change; {len(outcome.slowed.alarms)} rows"
        f" reported when slowed by {slow_down:.0%}" + "".join(f"; {part}" for part in silent),
        false_alarms=outcome.false_alarms,
        caught=[change.row for change in outcome.slowed.alarms],
        missed=outcome.missed,
        hidden=outcome.hidden,
    )
    return Exit.OK if outcome.false_alarms <= 1 and not outcome.missed else Exit.NO
