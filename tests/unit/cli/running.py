"""The program as a user starts it: processes, their words, their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60.0


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "sealwire.cli", *map(str, arguments)]


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def sealwire(*arguments: str | Path, given: bytes = b"") -> Ended:
    """Run to the end."""
    done = subprocess.run(
        command(arguments), input=given, capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


class Server:
    """`sealwire --json serve`, or another verb that serves, ready; what it says is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.listening = self.next_object()

    @property
    def port(self) -> int:
        return int(self.listening["port"])

    def next_object(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server ended"
        value: dict[str, Any] = json.loads(line)
        return value

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return Ended(self.process.returncode, out, err.decode())


@contextmanager
def serving(*arguments: str | Path) -> Iterator[Server]:
    with started("serve", *arguments) as server:
        yield server


@contextmanager
def started(verb: str, *arguments: str | Path) -> Iterator[Server]:
    """A verb that serves."""
    process = subprocess.Popen(
        command(["--json", verb, *arguments]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Its end is the test's to decide, not that of a Ctrl-C meant for the test run.
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


def one_sentence(ended: Ended) -> str:
    """What a failed run said: exactly one line, without a traceback."""
    assert "Traceback" not in ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("sealwire: ")
    return line.removeprefix("sealwire: ")
