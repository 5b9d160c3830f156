"""The parent's side of an exporter's process: it is started, started again, and asked to finish.

A thread waits for its end, so that capture does not look after it.  The exporter knows by its
standard input that its parent is there; what it has to say is in the spool's export.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sealwire.errors import ConfigurationError

FACTS: Final = "export.json"
_AGAIN_SECONDS: Final = 0.5
#: What the exporter says with its exit code: its configuration cannot be used.
UNUSABLE: Final = 2


class Export:
    """An exporter for the spool in `spool`, to `host` and `port`.

    `cafile` (or `server_keys`, raw public keys) says which collectors to trust; `cert` and `tls_key` are
    ours (`tls_key` alone for a raw key); `collector` is the key of its receipts, where the one that the
    collector names over the connection is not to be taken.
    """

    def __init__(
        self,
        spool: str | os.PathLike[str],
        host: str,
        port: int,
        *,
        cafile: str | None = None,
        server_keys: str | None = None,
        cert: str | None = None,
        tls_key: str | None = None,
        server_hostname: str | None = None,
        collector: str | None = None,
    ) -> None:
        self._spool = Path(spool)
        config = {
            "spool": os.fspath(spool),
            "host": host,
            "port": port,
            "cafile": cafile,
            "server_keys": server_keys,
            "cert": cert,
            "tls_key": tls_key,
            "server_hostname": server_hostname,
            "collector": collector,
        }
        self._command = [sys.executable, "-m", "sealwire.probe.export.exporter", json.dumps(config)]
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._again: list[bytes] = []
        self._drained = False
        self.restarts = 0
        self._start()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603

    @property
    def pid(self) -> int:
        """The exporter's process."""
        return self._process.pid

    def facts(self) -> dict[str, Any]:
        """What the exporter counted, at most a second old; empty before it wrote any."""
        try:
            found: dict[str, Any] = json.loads((self._spool / FACTS).read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def _watch(self) -> None:
        while True:
            code = self._process.wait()
            with self._lock:
                if self._ending.is_set() and code in (0, 1):
                    self._drained = code == 0
                    return
                if code == UNUSABLE:
                    return
            if self._ending.wait(_AGAIN_SECONDS) and not self._again:
                return
            with self._lock:
                self.restarts += 1
                self._start()
                for line in self._again:
                    self._say(line)

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            pass  # it is gone; the thread starts another one, which is told as well

    def drain(self, seconds: float) -> bool:
        """Wait, for at most so long, until everything sealed is delivered; whether it is."""
        with self._lock:
            self._again = [b"drain %f\n" % seconds]
            self._ending.set()
            self._say(self._again[0])
        self._watching.join(seconds + 5.0)
        return self._drained

    def close(self) -> None:
        """End the exporter.  What is not delivered stays in the spool."""
        with self._lock:
            self._again = []
            self._ending.set()
            if self._process.stdin is not None:
                try:
                    self._process.stdin.close()
                except OSError:
                    pass
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._watching.join(1.0)

    def check(self) -> None:
        """Raise ConfigurationError if the exporter could not use what it was given."""
        if self._process.poll() == UNUSABLE:
            raise ConfigurationError("the exporter cannot use what it was given; it has said why")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
