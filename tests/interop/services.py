"""Debian's services and proxies: found on the system or where install_services unpacked them.

Each runs in a directory of its own and is ended with its block.  PostgreSQL does not run as root, so
there it runs as nobody, in a directory of nobody's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.interop.programs import absent, peers_directory
from tests.interop.sockets import PATIENCE_SECONDS, GaveUp


def find(name: str) -> tuple[Path, dict[str, str]]:
    """A program and its environment, or a skip."""
    root = peers_directory() / "services"
    if (root / "complete").is_file():
        for directory in (
            root / "usr/sbin",
            root / "usr/bin",
            *sorted(root.glob("usr/lib/postgresql/*/bin")),
        ):
            if (directory / name).exists():
                paths = (root / "libraries").read_text().strip().split(":")
                return directory / name, {"LD_LIBRARY_PATH": ":".join(str(root / path) for path in paths)}
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        everywhere = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        found = str(everywhere[-1]) if everywhere else None
    if found is None:
        absent(f"{name} (tests/interop/install_services fetches it)")
    assert found is not None
    return Path(found), {}


def ask(name: str, *arguments: str | Path, given: bytes = b"", check: bool = True) -> bytes:
    """Run a client to its end; what it printed."""
    path, environment = find(name)
    done = subprocess.run(
        [str(path), *map(str, arguments)],
        input=given,
        capture_output=True,
        timeout=PATIENCE_SECONDS * 2,
        env={**os.environ, **environment},
        check=False,
    )
    if check:
        assert done.returncode == 0, (done.stdout[-500:], done.stderr[-1000:])
    return done.stdout


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answers(port: int) -> Callable[[], bool]:
    """Whether somebody listens there."""

    def look() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            return False
        return True

    return look


@contextmanager
def run(
    command: Sequence[str | Path],
    directory: Path,
    ready: Callable[[], bool],
    *,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A service, from when it is ready to the end of the block."""
    said = directory / f"{Path(command[0]).name}.said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(environment or {})},
            user=user,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + PATIENCE_SECONDS * 2
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                raise GaveUp(f"{command[0]} is not ready; it said: {said.read_bytes()[-2_000:]!r}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_SECONDS)


@contextmanager
def http_server(directory: Path) -> Iterator[int]:
    """Python's own, a plain one, which serves `directory`; its port."""
    port = free_port()
    served: list[str | Path] = ["--bind", "127.0.0.1", "--directory", directory]
    command = [sys.executable, "-m", "http.server", str(port), *served]
    with run(command, directory, answers(port)):
        yield port


@contextmanager
def redis(directory: Path, *options: str) -> Iterator[int]:
    """A Redis without a disk; its plain port."""
    path, environment = find("redis-server")
    port = free_port()
    fixed: list[str | Path] = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
    command = [path, "--port", str(port), "--daemonize", "no", *fixed, *options]
    with run(command, directory, answers(port), environment=environment):
        yield port


@contextmanager
def postgres() -> Iterator[int]:
    """A PostgreSQL without TLS that lets in user ``tester`` from loopback; its port."""
    initdb, environment = find("initdb")
    server, _ = find("postgres")
    port = free_port()
    user = "nobody" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="sealwire-postgres-"))
    try:
        if user is not None:
            _readable_to_others(server)
            os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
        made = subprocess.run(
            [str(initdb), "-D", str(directory / "data"), "-U", "tester", "-A", "trust", "--no-sync",
             "-E", "UTF8", "--locale", "C"],
            cwd=directory, env={**os.environ, **environment}, user=user, capture_output=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr[-2_000:]
        settings = ("-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB")
        places: list[str | Path] = ["-D", directory / "data", "-k", directory]
        command = [server, "-p", str(port), *places, *settings]

        def ready() -> bool:
            words = ("-h", "127.0.0.1", "-p", str(port), "-U", "tester", "-d", "postgres", "-qc", "select 1")
            return b"1 row" in ask("psql", *words, check=False)

        with run(command, directory, ready, environment=environment, user=user):
            yield port
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _readable_to_others(path: Path) -> None:
    for parent in path.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            absent(f"PostgreSQL for another user than root: {parent} is closed to others")


@contextmanager
def stunnel(directory: Path, *lines: str) -> Iterator[int]:
    """A stunnel with one service of these lines; the port it accepts at."""
    path, environment = find("stunnel4")
    port = free_port()
    configuration = directory / "stunnel.conf"
    head = [
        "foreground = yes",
        "pid =",
        "syslog = no",
        "debug = 5",
        "[service]",
        f"accept = 127.0.0.1:{port}",
    ]
    configuration.write_text("\n".join([*head, *lines]) + "\n")
    with run([path, configuration], directory, answers(port), environment=environment):
        yield port


@contextmanager
def haproxy(directory: Path, configuration: str, port: int) -> Iterator[None]:
    """An HAProxy that listens at `port`."""
    path, environment = find("haproxy")
    file = directory / "haproxy.cfg"
    defaults = "defaults\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n"
    file.write_text(f"global\n  maxconn 100\n{defaults}{configuration}")
    with run([path, "-db", "-f", file], directory, answers(port), environment=environment):
        yield
