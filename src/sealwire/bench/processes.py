"""Contenders in processes of their own: started, pinned, asked, and ended when they hang.

A contender that crashes, hangs or says nonsense raises Lost with one sentence; the others do not
notice.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

from sealwire.bench.measurement import Check, Contender, Measurement, Reading, Role, Scale

# Of glibc; nobody else looks at them.
_ALLOCATION: Final = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_NEVER_MAPPED_BYTES: Final = 16 << 20


class Lost(Exception):
    """A contender is out; the text says why."""


class Worker:
    """One process that gets its orders as JSON lines, of :mod:`sealwire.bench.worker` or another module."""

    def __init__(
        self,
        order: Mapping[str, Any],
        environment: Mapping[str, str],
        patience: float,
        module: str = "sealwire.bench.worker",
    ) -> None:
        self._patience = patience
        # Read from the end by whoever wants to know why it died; a pipe could fill and block it.
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        self._process = subprocess.Popen(  # noqa: S603 - a module of our own
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, **environment},
            # A group of its own, so that programs it started end with it.
            start_new_session=True,
        )
        self._pending = b""
        self.send(order)

    def send(self, message: Mapping[str, Any]) -> None:
        """Say something to it; that it is gone shows when it is listened to."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass

    def listen(self) -> dict[str, Any]:
        """Its next message.

        Raises:
            Lost: it reported an error, ended, or said nothing for too long.
        """
        message = self._read()
        if "error" in message:
            raise Lost(str(message["error"]))
        return message

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._patience
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise Lost(f"hung: it said nothing for {self._patience:g} seconds")
                data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    raise Lost(self._last_words())
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            raise Lost("it answered with something that is no JSON") from None
        if not isinstance(message, dict):
            raise Lost("it answered with something unexpected")
        return message

    def _last_words(self) -> str:
        code = self._process.wait(self._patience)
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return f"it ended {how}" + (f": {lines[-1].strip()}" if lines else "")

    def end(self) -> None:
        """End it, at once if it does not go by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._process.wait()
        self._process.stdout.close()
        self._complaints.close()


class Running:
    """A contender's process, and its peer's: gives readings."""

    def __init__(
        self,
        location: str,
        measurement: Measurement,
        contender: Contender,
        *,
        directory: Path,
        scale: Scale,
        slow_down: float,
        cpus: tuple[int | None, int | None],
    ) -> None:
        """Start and set up.  Raises Lost."""
        self._peer: Worker | None = None
        self._body: Worker | None = None
        order: dict[str, Any] = {
            "registry": location,
            "measurement": measurement.name,
            "contender": contender.name,
            "directory": str(directory),
            "scale": asdict(scale),
            "crypto": contender.role is not Role.WITHOUT_CRYPTO,
            "slow_down": slow_down,
            "peer": {},
        }
        environment = contender.environment()
        patience = max(scale.patience_seconds, contender.patience_seconds)
        try:
            if contender.peer is not None:
                self._peer = Worker({**order, "side": "peer", "cpu": cpus[1]}, environment, patience)
                order["peer"] = self._peer.listen()["ready"]
            self._body = Worker({**order, "side": "body", "cpu": cpus[0]}, environment, patience)
            self._body.listen()
        except BaseException:
            self.end()
            raise

    def run(self, seconds: float) -> Reading:
        """One turn.  Raises Lost."""
        assert self._body is not None
        self._body.send({"run": seconds})
        while "reading" not in (message := self._body.listen()):
            if self._peer is None:
                raise Lost("it asked for a peer it does not have")
            self._peer.send({"answer": message["ask"]})
            self._body.send(self._peer.listen())
        fields = message["reading"]
        fields["checks"] = tuple(Check(**check) for check in fields["checks"])
        return Reading(**fields)

    def end(self) -> None:
        for worker in (self._body, self._peer):
            if worker is not None:
                worker.end()
        self._body = self._peer = None


def even_allocation() -> dict[str, str]:
    """The environment in which blocks of 256 KiB cost every contender the same.

    glibc maps such a block, and unmaps it, each time, until the process happens to have freed a larger one:
    asyncio reads into one, so that plain TCP and ssl take twice as long in one process as in another, and
    a run of records is sealed into one, which makes 0.8 or 1.2 us of a message of 1,200 B.
    """
    return {name: os.environ.get(name, str(_NEVER_MAPPED_BYTES)) for name in _ALLOCATION}


def choose_cpus() -> tuple[int | None, int | None]:
    """Two CPUs to pin to, on different cores where there are; (None, None) where there is one."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return None, None
    first = available[0]
    others = [cpu for cpu in available[1:] if cpu not in _siblings(first)] or available[1:]
    return first, others[0]


def _siblings(cpu: int) -> set[int]:
    """The CPUs that share a core with `cpu`."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    found: set[int] = set()
    try:
        for part in path.read_text("ascii").strip().split(","):
            low, _, high = part.partition("-")
            found.update(range(int(low), int(high or low) + 1))
    except (OSError, ValueError):
        return {cpu}
    return found
