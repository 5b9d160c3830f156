"""Run BoringSSL's test runner against the shim, both lists of names, and count what came of it.

    make bogo BOGO_RUNNER=/path/to/runner

The runner is BoringSSL's own program, built from its sources (`go test -c` in ssl/test/runner); it is
not part of this project, and without it this says so and does nothing.  ``--test`` takes the runner's
patterns (``DTLS-Retransmit-*;KeyUpdate-*``) in place of the lists.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: What each list is called, and its file among the shared data: one name in a line.
LISTS = {"DTLS 1.3": "bogo_dtls13_dev.txt", "TLS 1.3 over a stream": "bogo_tls13_stream_dev.txt"}
BEGIN = "<!-- counts: written by make bogo -->"
END = "<!-- end of counts -->"
_OUTCOME = re.compile(r"^(PASSED|FAILED|UNIMPLEMENTED) \((.*)\)$")


def main(arguments: list[str] | None = None) -> int:
    """0 if nothing failed, 1 otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runner", default=os.environ.get("BOGO_RUNNER", ""), help="BoringSSL's runner")
    parser.add_argument("--test", help="patterns separated by semicolons, in place of the lists")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--loose", action="store_true", help="accept any words of ours for an error")
    parser.add_argument("--all", action="store_true", help="run disabled cases too")
    parser.add_argument("--report", type=Path, help="Markdown to write the counts into, between its marks")
    options = parser.parse_args(arguments)
    if not options.runner:
        print("bogo: skipped, there is no runner: give one with BOGO_RUNNER=<binary> (tests/bogo/README.md)")
        return 0
    if options.test:
        lists: dict[str, tuple[str, list[str]]] = {"chosen": (options.test, [])}
    else:
        names = shared_names()
        if not names:
            print("bogo: skipped, the lists of names are not here: set SEALWIRE_SHARED, or give --test")
            return 0
        lists = {title: (";".join(each), each) for title, each in names.items()}
    failures = 0
    tables: list[str] = []
    for title, (patterns, names_of_list) in lists.items():
        outcomes, sound = run(Path(options.runner), patterns, options)
        if not options.all:
            # The runner is silent about what is disabled.
            outcomes["DISABLED"] = [name for name in names_of_list if reason_for(name)]
        failures += report(title, outcomes)
        tables.append(table(title, len(names_of_list), outcomes))
        if not sound:
            print(f"{title}: the runner itself broke off")
            failures += 1
    if options.report and not options.test and not failures:
        write_report(options.report, tables)
    return 1 if failures else 0


def shared_names() -> dict[str, list[str]]:
    """The names of each list; none if the shared data is not here."""
    shared = Path(os.environ.get("SEALWIRE_SHARED", ROOT.parent / "shared"))
    found = {}
    for title, file in LISTS.items():
        path = shared / "data" / "dtls13" / file
        if path.is_file():
            found[title] = path.read_text().split()
    return found


def run(runner: Path, patterns: str, options: argparse.Namespace) -> tuple[dict[str, list[str]], bool]:
    """Names by outcome, and whether the runner came to its end; what failed is printed as it comes."""
    command = [
        str(runner.resolve()),
        *("-test", patterns),
        *("-shim-path", str(HERE / "shim.py")),
        *("-shim-config", str(HERE / "config.json")),
        *("-num-workers", str(options.workers)),
        "-allow-unimplemented",
        "-pipe",
    ]
    command += ["-loose-errors"] if options.loose else []
    command += ["-include-disabled"] if options.all else []
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outcomes: dict[str, list[str]] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            cwd=directory,
        ) as process,
    ):
        assert process.stdout is not None
        failed = False
        for line in process.stdout:
            match = _OUTCOME.match(line.rstrip("\n"))
            if match is not None:
                outcomes.setdefault(match[1], []).append(match[2])
                failed = match[1] == "FAILED"
            if failed:
                print(line, end="", flush=True)
    # The runner ends with 1 if a test failed, and with something else if it broke.
    return outcomes, process.returncode in (0, 1)


def report(title: str, outcomes: dict[str, list[str]]) -> int:
    """Print the counts and how many of each reason are disabled; returns the number of failures."""
    print(f"{title}: {counted(outcomes)}")
    for reason, names in reasons(outcomes):
        print(f"  disabled {len(names):4}: {reason}")
    for name in outcomes.get("UNIMPLEMENTED", ()):
        print(f"  unimplemented: {name}")
    return len(outcomes.get("FAILED", ()))


def counted(outcomes: dict[str, list[str]]) -> str:
    """How many of each outcome."""
    kinds = ("PASSED", "FAILED", "DISABLED", "UNIMPLEMENTED")
    return ", ".join(f"{len(outcomes.get(kind, ()))} {kind.lower()}" for kind in kinds)


def reasons(outcomes: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """Why cases are disabled, and which, most first."""
    found: dict[str, list[str]] = {}
    for name in outcomes.get("DISABLED", ()):
        found.setdefault(reason_for(name), []).append(name)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def table(title: str, names: int, outcomes: dict[str, list[str]]) -> str:
    """Markdown: the counts of a list, and what is disabled why, one example of each."""
    lines = [f"### {title}", "", f"{names} names: {counted(outcomes)}.", "", "| disabled | why | such as |"]
    lines.append("| --- | --- | --- |")
    lines += [f"| {len(names)} | {reason} | `{min(names)}` |" for reason, names in reasons(outcomes)]
    return "\n".join(lines)


def write_report(path: Path, tables: list[str]) -> None:
    """Put the tables between their marks in `path`."""
    head, _, rest = path.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text("\n\n".join((head + BEGIN, *tables, END + tail)))


def disabled() -> Iterator[tuple[re.Pattern[str], str]]:
    """Each disabled pattern, in which only ``*`` is special, with its reason."""
    config = json.loads((HERE / "config.json").read_text())
    for pattern, reason in config["DisabledTests"].items():
        yield re.compile(".*".join(map(re.escape, pattern.split("*")))), reason


_DISABLED = list(disabled())


def reason_for(name: str) -> str:
    """Why a case is disabled, empty if it is not."""
    return next((reason for pattern, reason in _DISABLED if pattern.fullmatch(name)), "")


if __name__ == "__main__":
    sys.exit(main())
