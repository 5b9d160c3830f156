"""Removes or inverts one security check after another, and shows which test notices.

    python -m tests.mutation.run [--only WORD] [--report docs/security.md] [--jobs N]

A check nobody would miss is not tested.  Each mutant of `tests/mutation/mutants.py` is one change of the
text of one file, made in a temporary copy of src; the test files named with it run against the copy until
the first failure.  Before that the same files run against an unchanged copy, because a test that
fails anyway proves nothing.  A mutant that lives is an error, and so is one whose text is not there any more.
Mutants of the record layer change the plain-Python twin, which the copy is then told to use; the
compiled one is held to the twin by tests/unit/record/test_differential.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutant import Mutant
from tests.mutation.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- mutants: written by make mutate -->"
END = "<!-- end of mutants -->"
#: A mutant that makes a loop endless is noticed as well.
PATIENCE_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant; `killer` is the test that failed, "" if none did."""

    mutant: Mutant
    killer: str
    output: str


def pytest(copy: Path, files: Sequence[str], *, twin: bool) -> tuple[int, str]:
    """Exit status and output of `files` against the package in `copy`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / "hypothesis"),
    }
    environment.pop("SEALWIRE_REQUIRE_COMPILED", None)
    if twin:
        environment["SEALWIRE_PURE"] = "1"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=line"]
    try:
        done = subprocess.run(
            [*command, *files],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"FAILED no end within {PATIENCE_SECONDS} seconds"
    return done.returncode, done.stdout + done.stderr


def fresh_copy(into: Path) -> Path:
    """src as it is, compiled modules included."""
    shutil.copytree(ROOT / "src", into / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return into


def mutated(text: str, mutant: Mutant) -> str:
    """The text with the check gone.  LookupError unless it is there exactly once."""
    if text.count(mutant.old) != 1:
        raise LookupError(
            f"{mutant.check}: {mutant.old!r} is in {mutant.file} {text.count(mutant.old)} times"
        )
    return text.replace(mutant.old, mutant.new)


def judge(mutant: Mutant) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        copy = fresh_copy(Path(name))
        path = copy / "src/sealwire" / mutant.file
        path.write_text(mutated(path.read_text(), mutant))
        code, output = pytest(copy, mutant.tests, twin=mutant.twin)
    killer = ""
    found = re.search(r"^(FAILED|ERROR) (\S+)", output, re.MULTILINE)
    # A file that cannot even be collected has not looked at the check.
    collected = found is None or found[1] == "FAILED" or "::" in found[2]
    if code == 1 and collected:
        killer = found[2] if found else output.strip().splitlines()[-1]
    elif code != 0:
        # Usage errors say nothing about the check, and a package that cannot be imported neither.
        raise RuntimeError(f"{mutant.check}: pytest ended with {code}\n{output[-2000:]}")
    print(f"{'killed' if killer else 'LIVES '}  {mutant.check}  {killer}", flush=True)
    return Verdict(mutant, killer, output)


def check_baseline(mutants: Sequence[Mutant]) -> None:
    """Everything passes while nothing is changed.  RuntimeError otherwise."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        copy = fresh_copy(Path(name))
        for twin in (False, True):
            files = sorted({file for mutant in mutants if mutant.twin is twin for file in mutant.tests})
            if not files:
                continue
            code, output = pytest(copy, files, twin=twin)
            if code != 0:
                raise RuntimeError(f"the tests fail without any mutant\n{output[-3000:]}")
            print(f"unchanged{', twin' if twin else ''}: {output.strip().splitlines()[-1]}", flush=True)


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown; the tests by function, because parameters change more often than what is tested."""
    lines = ["| check | where | without it | noticed by |", "| --- | --- | --- | --- |"]
    for verdict in verdicts:
        killer = re.sub(r"\[.*", "", verdict.killer).removeprefix("tests/")
        mutant = verdict.mutant
        lines.append(f"| {mutant.check} | `{mutant.file}` | {mutant.effect} | `{killer or 'nobody'}` |")
    return "\n".join(lines)


def write_report(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Put the table between its marks in `path`."""
    text = path.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    killed = sum(bool(verdict.killer) for verdict in verdicts)
    summary = f"{killed} of {len(verdicts)} mutants are noticed."
    path.write_text(f"{head}{BEGIN}\n\n{summary}\n\n{table(verdicts)}\n\n{END}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Remove security checks one at a time; see which test notices."
    )
    parser.add_argument("--only", metavar="WORD", help="mutants whose check or file holds this")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--report", type=Path, help="a Markdown file to write the table into, between its marks"
    )
    parser.add_argument(
        "--no-baseline", action="store_true", help="do not run the tests without a mutant first"
    )
    options = parser.parse_args()
    chosen = [one for one in MUTANTS if not options.only or options.only in f"{one.check} {one.file}"]
    if not options.no_baseline:
        check_baseline(chosen)
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(judge, chosen))
    living = [verdict.mutant.check for verdict in verdicts if not verdict.killer]
    print(f"{len(verdicts) - len(living)} of {len(verdicts)} mutants were noticed")
    if options.report is not None:
        write_report(options.report, verdicts)
    return 1 if living else 0


if __name__ == "__main__":
    sys.exit(main())
