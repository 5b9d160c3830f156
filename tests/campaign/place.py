"""A probe, its signer and exporter, a collector, two small disks and a network, all of them real.

Everything is started by its command line, as a service manager would, and started again when it
was killed.  The network is a program of this process that can be told to cut connections.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

_HEAD: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)  # raw IP
_TICK_SECONDS: Final = 0.02
_START_SECONDS: Final = 30.0
_CUT_BYTES: Final = 200_000


def sealwire(*words: object) -> list[str]:
    return [sys.executable, "-m", "sealwire.cli", *map(str, words)]


def run(*words: object) -> str:
    return subprocess.run(sealwire(*words), check=True, capture_output=True, text=True).stdout


def children(pid: int, word: str) -> list[int]:
    """Children of a process whose command line has this word."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Disk:
    """A file system of a few MiB, if we may mount one, else a directory that cannot be filled."""

    def __init__(self, path: Path, mib: int) -> None:
        self.path = path
        path.mkdir()
        mount = shutil.which("mount")
        command = [mount or "mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path)]
        self.small = (
            mount is not None and not subprocess.run(command, capture_output=True, check=False).returncode
        )
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no byte free."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 14, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.small:
            subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)


class Network:
    """Carries TCP connections to a port, and cuts them when told to, in the middle of whatever passes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        #: Connections made from now on end behind so many bytes; 0 for none.
        self._cut_after = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self, after: int) -> None:
        """Cut what is there, and what comes within the next second behind `after` bytes."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self._cut_after = after
        for pair in pairs:
            _close(*pair)

    def mend(self) -> None:
        with self._lock:
            self._cut_after = 0

    def close(self) -> None:
        self._listening.close()
        self.cut(0)

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._pairs.append((near, far))
                budget = [self._cut_after] if self._cut_after else []
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other, budget), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, budget: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if budget:
                    data, budget[0] = data[: max(budget[0], 0)], budget[0] - len(data)
                other.sendall(data)
                if budget and budget[0] <= 0:
                    break
        _close(one, other)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


class Load:
    """Packets of `rate` new flows a second, as a capture that goes on, into whatever probe there is."""

    def __init__(self, rate: int) -> None:
        self._numbers = itertools.count()
        self._per_tick = max(round(rate * _TICK_SECONDS), 1)
        self._pipe: IO[bytes] | None = None
        self._ended = threading.Event()
        self.flows = 0
        threading.Thread(target=self._feed, daemon=True).start()

    def into(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError):
            pipe.write(_HEAD)
        self._pipe = pipe

    def end(self) -> None:
        self._ended.set()
        time.sleep(2 * _TICK_SECONDS)

    def leave(self) -> None:
        """Nothing more into this probe."""
        self._pipe = None

    def _feed(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            pipe = self._pipe
            if pipe is None:
                continue
            now = time.time_ns()
            data = b"".join(_packet(next(self._numbers), now + n) for n in range(self._per_tick))
            try:
                pipe.write(data)
                self.flows += self._per_tick
            except (OSError, ValueError):
                self._pipe = None  # the probe was killed


def _packet(number: int, now: int) -> bytes:
    """A UDP packet of a flow of its own."""
    payload = b"campaign %d" % number
    source, port = 0x0A000000 | number // 60_000 % (1 << 24), 1024 + number % 60_000
    udp = struct.pack("!HHHH", port, 9, 8 + len(payload), 0) + payload
    total = 20 + len(udp)
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, total, 7, 0, 64, 17, 0, source, 0x0A800001) + udp
    seconds, nanoseconds = divmod(now, 1_000_000_000)
    return struct.pack("<IIII", seconds, nanoseconds // 1000, len(ip), len(ip)) + ip


class Place:
    """Everything together, in a directory of its own."""

    def __init__(self, path: Path, rate: int) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.spool_disk = Disk(path / "probe", 24)
        self.store_disk = Disk(path / "collector", 512)
        self.spool, self.store = self.spool_disk.path / "spool", self.store_disk.path / "store"
        run("cert", "--dir", path)
        run("keygen", path / "probe.key")
        run("keygen", path / "collector.key")
        enrol = ("--key", path / "probe.key.pub", "--identity", path / "client.pem")
        run("enroll", "--enrolled", path / "enrolled", *enrol)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.network = Network(self._port)
        self._log = (path / "log").open("wb")
        self.collector = self._start_collector()
        self.load = Load(rate)
        self.probe = self._start_probe()
        self.restarts = 0

    def _start_collector(self) -> subprocess.Popen[bytes]:
        words = (
            *("collect", "--listen", f"127.0.0.1:{self._port}", "--client-ca", self.path / "ca.pem"),
            *("--cert", self.path / "server.pem", "--key", self.path / "server.key"),
            *("--sign", self.path / "collector.key", "--enrolled", self.path / "enrolled"),
            *("--out", self.store),
        )
        return subprocess.Popen(sealwire(*words), stdout=self._log, stderr=self._log)

    def _start_probe(self) -> subprocess.Popen[bytes]:
        words = (
            *("probe", "-r", "-", "--timeouts", "idle=0.2", "--sign", self.path / "probe.key"),
            *("--spool", self.spool, "--spool-max", "16", "--when-full", "drop", "--heartbeat", "1"),
            *("--to", f"127.0.0.1:{self.network.port}", "--server-name", "localhost"),
            *("--cafile", self.path / "ca.pem", "--cert", self.path / "client.pem"),
            *("--tls-key", self.path / "client.key", "--drain", "60"),
        )
        environment = {**os.environ, "MAX_BUFFER_SIZE_MB": "8"}
        probe = subprocess.Popen(
            sealwire(*words),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=environment,
        )
        assert probe.stdin is not None, "it is a pipe"
        self.load.into(probe.stdin)
        return probe

    def keep_up(self) -> None:
        """Start again what is gone, as a service manager does."""
        if self.collector.poll() is not None:
            self.restarts += 1
            self.collector = self._start_collector()
        if self.probe.poll() is not None:
            self.restarts += 1
            self._close_input()
            self.probe = self._start_probe()

    def _close_input(self) -> None:
        assert self.probe.stdin is not None, "it is a pipe"
        self.load.leave()
        with contextlib.suppress(OSError):
            self.probe.stdin.close()

    def pid(self, who: str) -> int | None:
        """The process of this name now."""
        if who == "collector":
            return self.collector.pid if self.collector.poll() is None else None
        if self.probe.poll() is not None:
            return None
        if who == "probe":
            return self.probe.pid
        word = {"signer": "seal.signer", "exporter": "export.exporter"}[who]
        return next(iter(children(self.probe.pid, word)), None)

    def finish(self, seconds: float = 90.0) -> None:
        """No more load: the probe ends in order and waits for its receipts; then the collector."""
        self.load.end()
        self.keep_up()
        self._close_input()
        self.probe.wait(seconds)
        self.collector.terminate()
        self.collector.wait(30)

    def close(self) -> None:
        """End whatever is left."""
        self.load.end()
        every = [pid for who in ("signer", "exporter", "probe", "collector") if (pid := self.pid(who))]
        for pid in every:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for process in (self.probe, self.collector):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        self._close_input()
        self.network.close()
        self._log.close()
        self.spool_disk.remove()
        self.store_disk.remove()


@contextlib.contextmanager
def placed(path: Path, rate: int) -> Iterator[Place]:
    place = Place(path, rate)
    try:
        yield place
    finally:
        place.close()


def cut_bytes(chance: random.Random) -> int:
    """Where a connection breaks: in its handshake, or somewhere in what is delivered."""
    return chance.choice((chance.randrange(1, 4000), chance.randrange(4000, _CUT_BYTES)))
