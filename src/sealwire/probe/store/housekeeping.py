"""Compaction and retention beside a collector: a child process now and then, never in the collector's loop.

`poll` is called about once a second; it starts the child when a file is complete or retention is due, and
takes its answer.  The child may be killed at any time: the next one goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sealwire.probe.store import reading
from sealwire.probe.store.compaction import complete
from sealwire.probe.store.disk import Folders

#: Between looks at the store for what is complete, and between retentions, seconds.
_LOOK_SECONDS: Final = 10.0
_RETAIN_SECONDS: Final = 600.0
#: After a child that failed.
_PATIENCE_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
#: The lowest priority: what arrives goes first.
_NICE: Final = [name, "-n", "19"] if (name := shutil.which("nice")) else []


@dataclass(slots=True)
class HousekeepingState:
    """What has been done, for metrics and words."""

    compactions: int = 0
    retentions: int = 0
    rows: int = 0
    removed_events: int = 0
    failures: int = 0
    #: What the last child that failed said.
    trouble: str = ""


class Housekeeping:
    """Compacts a store; with `age` (nanoseconds) or `most_bytes`, and a key, lets the oldest go."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        age: int | None = None,
        most_bytes: int | None = None,
        sign: str | os.PathLike[str] | None = None,
    ) -> None:
        assert sign is not None or (age is None and most_bytes is None), "retention is signed for"
        self._directory = Path(directory)
        self._age, self._most_bytes = age, most_bytes
        self._sign = None if sign is None else os.fspath(sign)
        self._child: subprocess.Popen[bytes] | None = None
        self._verb = ""
        self._look_at = self._retain_at = 0.0
        self.state = HousekeepingState()

    @property
    def busy(self) -> bool:
        """Whether a child works."""
        return self._child is not None

    def poll(self, now: float) -> None:
        """Take what a child said; start one when there is work.  `now`: seconds of a steady clock."""
        if self._child is not None:
            if self._child.poll() is not None:
                self._done(now)
            return
        if (self._age or self._most_bytes) and now >= self._retain_at:
            self._retain_at = now + _RETAIN_SECONDS
            self._start("retain", *self._policy())
        elif now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            if self._work():
                self._start("compact")

    def _policy(self) -> list[str]:
        assert self._sign is not None
        found = ["--sign", self._sign]
        if self._age:
            found += ["--days", str(self._age / (24 * 3600 * 1_000_000_000))]
        if self._most_bytes:
            found += ["--most", str(max(self._most_bytes >> 20, 1))]
        return found

    def _work(self) -> bool:
        """Whether a file is complete and has no rows yet."""
        disk = Folders(self._directory)
        return any(next(complete(disk, probe, False), None) for probe in reading.probes(disk))

    def _start(self, verb: str, *more: str) -> None:
        command = [
            *_NICE,
            sys.executable,
            "-m",
            "sealwire.cli",
            "--json",
            "store",
            verb,
            str(self._directory),
            *more,
        ]
        self._verb = verb
        self._child = subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _done(self, now: float) -> None:
        child, self._child = self._child, None
        assert child is not None
        assert child.stdout is not None
        with child.stdout as out:
            said = _objects(out.read())
        facts = said[-1] if said else {}
        if child.returncode:
            self.state.failures += 1
            self.state.trouble = str(facts.get("message", f"{self._verb} ended with {child.returncode}"))
            self._look_at = self._retain_at = now + _PATIENCE_SECONDS
        elif self._verb == "retain":
            self.state.retentions += 1
            self.state.removed_events += int(facts.get("events", 0))
        else:
            self.state.compactions += 1
            self.state.rows += int(facts.get("rows", 0))
            # There may be more by now.
            self._look_at = now

    def close(self) -> None:
        """End the child, if there is one: what it has not finished is done next time."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._child = None


def _objects(data: bytes) -> list[dict[str, Any]]:
    found = []
    for line in data.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
