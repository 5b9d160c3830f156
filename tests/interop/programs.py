"""Other people's programs: started, watched and always ended.

Output goes to files, so that a program never waits for a test to read.  Programs that are not
there skip the test with a reason that begins with "absent:", unless SEALWIRE_REQUIRE_PEERS=1.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Identity
from tests.interop.sockets import PATIENCE_SECONDS, GaveUp

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """A running program with its output in files."""

    def __init__(
        self, arguments: Sequence[str | Path], directory: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.name = Path(arguments[0]).name
        #: Whether it was we who ended it.
        self.stopped = False
        # Input comes over a socket: tstclnt does not see the end of a pipe, only that it hung up, and
        # spins on that for ever.
        self._input, theirs = socket.socketpair()
        self._input.settimeout(PATIENCE_SECONDS)
        self._stdout, self._stderr = directory / f"{self.name}.out", directory / f"{self.name}.err"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err, theirs:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=theirs.fileno(),
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
            )

    @property
    def output(self) -> bytes:
        return self._stdout.read_bytes()

    @property
    def errors(self) -> str:
        return self._stderr.read_bytes().decode(errors="replace")

    @property
    def said(self) -> str:
        """Both of its outputs, as text."""
        return self.output.decode(errors="replace") + self.errors

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def write(self, data: bytes) -> None:
        self._input.sendall(data)

    def end_of_input(self) -> None:
        self._input.close()

    def wait_for(self, predicate: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not predicate():
            if time.monotonic() > end or (self.ended and not predicate()):
                raise GaveUp(f"{self.name}: {what}; it said: {self.said[-2_000:]}")
            time.sleep(0.01)

    def wait(self) -> int:
        """Its exit status, after its input has ended."""
        self.end_of_input()
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise GaveUp(f"{self.name} does not end; it said: {self.said[-2_000:]}") from None

    def stop(self) -> None:
        self.stopped = True
        self.end_of_input()
        if not self.ended:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)


@contextmanager
def running(
    arguments: Sequence[str | Path], directory: Path, environment: dict[str, str] | None = None
) -> Iterator[Program]:
    """The program for the time of a block, killed at its end if it still runs."""
    program = Program(arguments, directory, environment)
    try:
        yield program
    finally:
        program.stop()


def absent(reason: str) -> None:
    """Skip, or fail where peers are required."""
    if os.environ.get("SEALWIRE_REQUIRE_PEERS") == "1":
        pytest.fail(f"{reason}, and SEALWIRE_REQUIRE_PEERS=1")
    pytest.skip(f"absent: {reason}")


def peers_directory() -> Path:
    """Where install_peers puts what it fetches."""
    return Path(os.environ.get("SEALWIRE_PEERS") or ROOT / ".cache" / "peers")


def prometheus(name: str) -> str:
    """A program of Debian's package of Prometheus; skips where there is none."""
    ours = peers_directory() / "prometheus" / "usr" / "bin" / name
    found = str(ours) if ours.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: run tests/interop/install_prometheus")
    return found


class Openssl:
    """The openssl program's s_client and s_server."""

    def __init__(self, path: str | Path, directory: Path, launcher: Sequence[str | Path] = ()) -> None:
        #: What it is started with: the program, behind a loader of its own if it has one.
        self.command = (*launcher, path)
        self.path = path
        self.directory = directory

    @contextmanager
    def server(self, identity: Identity, *options: str | Path) -> Iterator[tuple[Program, int]]:
        """s_server for one client, and its port."""
        arguments: list[str | Path] = [
            *self.command, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-tls1_3",
            "-key", identity.keyfile, "-cert", identity.certfile, "-cert_chain", identity.certfile,
            *options,
        ]  # fmt: skip
        with running(arguments, self.directory) as program:
            program.wait_for(lambda: "ACCEPT 127.0.0.1:" in program.said, "no port")
            yield program, int(program.said.split("ACCEPT 127.0.0.1:")[1].split()[0])

    @contextmanager
    def client(self, port: int, cafile: Path, *options: str | Path, brief: bool = True) -> Iterator[Program]:
        """s_client, which insists on a certificate for localhost and says what was agreed.

        Args:
            brief: in a few lines, among which a staple has no place.
        """
        arguments: list[str | Path] = [
            *self.command, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-CAfile", cafile,
            "-verify_return_error", "-verify_hostname", "localhost", "-servername", "localhost",
            *(["-brief"] if brief else []), "-nocommands", *options,
        ]  # fmt: skip
        with running(arguments, self.directory) as program:
            yield program


class Nss:
    """tstclnt of an NSS that speaks the DTLS 1.3 of RFC 9147, unpacked by install_peers."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root = root
        self.directory = directory
        self.environment = {"LD_LIBRARY_PATH": str(root / "lib")}
        self._databases: dict[tuple[Identity | None, Identity | None], str] = {}

    @staticmethod
    def installed() -> Path | None:
        """Where install_peers put it, if it did."""
        root = peers_directory() / "nss"
        return root if (root / "complete").is_file() else None

    def _tool(self, name: str, *arguments: str | Path) -> None:
        subprocess.run(
            [str(self.root / "bin" / name), *map(str, arguments)],
            check=True,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
        )

    def database(self, *, trust: Identity | None = None, own: Identity | None = None) -> str:
        """A key database that trusts the root of `trust` and has the key of `own` under that name."""
        if (trust, own) not in self._databases:
            directory = self.directory / f"db-{len(self._databases)}"
            directory.mkdir()
            database = f"sql:{directory}"
            self._databases[trust, own] = database
            self._tool("certutil", "-N", "-d", database, "--empty-password")
            if trust is not None:
                self._tool("certutil", "-A", "-d", database, "-n", "root", "-t", "CT,,", "-i", trust.cafile)
            if own is None:
                return database
            bundle = directory / "own.p12"
            subprocess.run(
                ["openssl", "pkcs12", "-export", "-in", str(own.certfile), "-inkey",
                 str(own.keyfile), "-name", "own", "-passout", "pass:", "-out", str(bundle)],
                check=True, capture_output=True, timeout=PATIENCE_SECONDS,
            )  # fmt: skip
            self._tool("pk12util", "-i", bundle, "-d", database, "-W", "", "-K", "")
        return self._databases[trust, own]

    @contextmanager
    def client(self, port: int, database: str, *options: str) -> Iterator[Program]:
        """tstclnt as client: its input goes to the peer, what the peer says is its output."""
        with running(
            [self.root / "bin" / "tstclnt", "-h", "127.0.0.1", "-p", str(port), "-P", "client",
             "-V", "tls1.3:tls1.3", "-d", database, "-a", "localhost", *options],
            self.directory, self.environment,
        ) as program:  # fmt: skip
            yield program

    @contextmanager
    def server(self, port: int, database: str, *options: str) -> Iterator[Program]:
        """tstclnt as server for one client; it cannot ask for a certificate and does not echo."""
        with running(
            [self.root / "bin" / "tstclnt", "-h", "127.0.0.1", "-p", str(port), "-P", "server",
             "-n", "own", "-V", "tls1.3:tls1.3", "-d", database, *options],
            self.directory, self.environment,
        ) as program:  # fmt: skip
            program.wait_for(lambda: receive_queue(port) is not None, "no socket")
            yield program


def receive_queue(port: int) -> int | None:
    """Bytes (as the kernel accounts them) that wait in the UDP socket bound to `port`; None without one."""
    row = _udp_row(port)
    return None if row is None else int(row[4].split(":")[1], 16)


def dropped_datagrams(port: int) -> int:
    """Datagrams that the socket bound to `port` had no room for."""
    row = _udp_row(port)
    return 0 if row is None else int(row[12])


def _udp_row(port: int) -> list[str] | None:
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        row = line.split()
        if int(row[1].split(":")[1], 16) == port:
            return row
    return None


def find_openssl(directory: Path) -> Openssl:
    """The program, or a skip."""
    path = shutil.which("openssl")
    if path is None:
        absent("openssl")
    assert path is not None
    return Openssl(path, directory)


def find_newer_openssl(directory: Path) -> Openssl:
    """OpenSSL >= 3.5 as install_peers unpacks it, or a skip."""
    root = peers_directory() / "openssl"
    if not (root / "complete").is_file():
        absent("OpenSSL 3.5 (tests/interop/install_peers fetches it)")
    return Openssl(root / "bin" / "openssl", directory, (root / "loader", "--library-path", root / "lib"))


def find_nss(directory: Path) -> Nss:
    """The program, or a skip."""
    root = Nss.installed()
    if root is None:
        absent("NSS with DTLS 1.3 (tests/interop/install_peers fetches it)")
    assert root is not None
    if shutil.which("openssl") is None:
        absent("openssl, which packs keys for NSS")
    return Nss(root, directory)
