"""Looks for inputs that break a promise of `tests/fuzzing/targets`, for as long as it is told.

    python -m tests.fuzzing.fuzz GROUP... [--seconds N] [--blind] [--keep DIRECTORY]

Groups are those of targets.py, and two more: `machines` (hypothesis plays two live engines over the
virtual network, see test_datagram_machine.py and test_stream_machine.py) and `sanitized` (the record
group on the compiled modules built with AddressSanitizer and UndefinedBehaviorSanitizer, together with what
probe_sanitized.py does for the probe's).  With atheris installed (pip install atheris) libFuzzer follows
the coverage of sealwire's Python code; without it, or with --blind, inputs are the corpus changed at
random.  A finding is written to build/fuzz, named in the last line, and ends the run with an error;
make it a file of tests/fuzzing/corpus once it is fixed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"
FOUND = ROOT / "build" / "fuzz"
#: Longer inputs find nothing that shorter ones do not.
LONGEST = 600
GROUPS = (
    *("messages", "handshake", "datagrams", "streams", "frames", "headers"),
    *("files", "identities", "records", "gate", "sealed"),
)
MORE = ("machines", "sanitized")


def seeds(group: str) -> list[bytes]:
    """The corpus of a group."""
    return [path.read_bytes() for path in sorted((CORPUS / group).iterdir())]


def change(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """`data` with a few changes, or joined with another input."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 | 1 if at < len(changed):
                changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 3:
                del changed[at : at + chance.randrange(1, 9)]
            case 4:
                changed[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 5:
                other = chance.choice(others)
                changed[at:] = other[min(at, len(other)) :]
            case _:
                n = chance.randrange(1, 33)
                changed[at:at] = changed[max(at - n, 0) : at]
    return bytes(changed[:LONGEST])


def keep(group: str, data: bytes) -> Path:
    """Write an input down, under its digest."""
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / f"{group}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


def fuzz_blind(group: str, seconds: float) -> int:
    """Random changes of the corpus; 1 if something was found."""
    targets = importlib.import_module("tests.fuzzing.targets")
    seed = random.randrange(1 << 32)
    chance, corpus, runs = random.Random(seed), seeds(group), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = change(chance, chance.choice(corpus), corpus)
        if chance.random() < 0.05:
            data = chance.randbytes(chance.randrange(1, 200))
        try:
            targets.run(group, data)
        except BaseException:
            traceback.print_exc()
            print(f"{group}: found after {runs} runs: {keep(group, data)}", flush=True)
            return 1
        runs += 1
    print(f"{group}: {runs} runs in {seconds:g} s, seed {seed}, nothing found", flush=True)
    return 0


def fuzz_guided(group: str, seconds: float) -> None:
    """libFuzzer, which ends the process by itself."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["sealwire"]):
        targets = importlib.import_module("tests.fuzzing.targets")

    def one(data: bytes) -> None:
        targets.run(group, data)

    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as grown:
        atheris.Setup(
            [
                "sealwire",
                grown,
                str(CORPUS / group),
                f"-max_total_time={int(seconds)}",
                f"-max_len={LONGEST}",
                f"-artifact_prefix={FOUND}/{group}-",
                "-print_final_stats=1",
                "-timeout=60",
                "-rss_limit_mb=2048",
            ],
            one,
        )
        atheris.Fuzz()


def fuzz_machines(seconds: float) -> int:
    """Both state machines, with longer lives, again and again with new seeds."""
    from hypothesis import HealthCheck, settings

    from tests.fuzzing.test_datagram_machine import TestDatagramMachine
    from tests.fuzzing.test_stream_machine import TestStreamMachine

    lives = 100
    chosen = settings(
        max_examples=lives,
        stateful_step_count=60,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for machine in (TestDatagramMachine, TestStreamMachine):
            machine.settings = chosen
            machine("runTest").runTest()
        rounds += 1
    print(f"machines: {rounds * lives} lives of each in {seconds:g} s, nothing found", flush=True)
    return 0


def restart(group: str, seconds: float, *, blind: bool) -> int:
    """One group in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzzing.fuzz", group, "--seconds", str(seconds), "--inside"]
    done = subprocess.run([*command, "--blind"] if blind else command, cwd=ROOT, check=False)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Look for inputs that break a promise.")
    parser.add_argument("groups", nargs="+", choices=[*GROUPS, *MORE, "all"], metavar="GROUP")
    parser.add_argument("--seconds", type=float, default=600.0, help="for each group")
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    guided = importlib.util.find_spec("atheris") is not None and not options.blind
    groups = [*GROUPS, *MORE] if "all" in options.groups else options.groups
    if options.inside:
        [group] = groups
        if group == "machines":
            return fuzz_machines(options.seconds)
        if guided:
            fuzz_guided(group, options.seconds)
        return fuzz_blind(group, options.seconds)
    failed = []
    for group in groups:
        if group == "sanitized":
            command = [sys.executable, "-m", "tests.fuzzing.records_sanitized", str(options.seconds)]
            code = subprocess.run(command, cwd=ROOT, env=os.environ, check=False).returncode
        else:
            code = restart(group, options.seconds, blind=not guided)
        print(f"{group}: {'FOUND SOMETHING' if code else 'nothing found'}", flush=True)
        failed += [group] if code else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
