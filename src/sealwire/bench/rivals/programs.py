"""Rivals that are programs: C stacks and others, run as they are and read from what they print.

They are looked for in the directory SEALWIRE_RIVALS_DIR and on PATH; docs/bench.md says how to
build them.  A driver runs in turns with everybody else.  Each measures itself and its own CPU time;
what it prints is read by a pattern, and a line that does not fit is a failure, never a guess.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from sealwire.bench.clocks import Usage
from sealwire.bench.measurement import Absent, Bench, Body, Contender, Present, Reading, Role

DIRECTORY_VARIABLE: Final = "SEALWIRE_RIVALS_DIR"
_PATIENCE_SECONDS: Final = 60.0
# The ports of drivers that take them as arguments.
_PORT: Final = 20_310
_BULK_PORT: Final = 20_320

_NUMBER: Final = r"([0-9.]+)"


@dataclass(frozen=True, slots=True)
class Driver:
    """A program with the command line of rivals' bench driver, and what it is."""

    program: str
    title: str
    options: tuple[str, ...] = ()


#: Each is a build of one driver against another library.
DRIVERS: Final = (
    Driver("sealwire-rival-wolfssl", "wolfSSL, DTLS 1.3"),
    Driver("sealwire-rival-boringssl", "BoringSSL, DTLS 1.3"),
    Driver("sealwire-rival-openssl", "OpenSSL in C, DTLS 1.2", ("-12",)),
)


@dataclass(frozen=True, slots=True)
class Reader:
    """How to run a driver once, and the pattern of its line: one group per figure, in this order."""

    arguments: tuple[str, ...]
    pattern: str
    figures: tuple[str, ...]
    units: int
    #: The figure that is the sum of "client" and "server"; None if there is none.
    total: str | None = None


def find(program: str) -> Path | None:
    """The program in the rivals' directory, else on PATH."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if directory and os.access(Path(directory) / program, os.X_OK):
        return Path(directory) / program
    found = shutil.which(program)
    return Path(found) if found else None


def _presence(program: str) -> Present | Absent:
    path = find(program)
    if path is None:
        return Absent(f"no program {program} in ${DIRECTORY_VARIABLE} or on PATH")
    return Present(f"{program}, a program of its own")


class Program:
    """A Body: each turn runs the program once."""

    def __init__(self, bench: Bench, command: Sequence[str], reader: Reader) -> None:
        self._command = command
        self._reader = reader
        self._temporary = tempfile.TemporaryDirectory(prefix="sealwire-bench-")
        _certificates(bench.directory, Path(self._temporary.name) / "certs")

    def run(self, seconds: float) -> Reading:
        reader = self._reader
        before, start = Usage.of_children(), time.perf_counter()
        try:
            done = subprocess.run(  # noqa: S603 - the user named it
                self._command,
                cwd=self._temporary.name,
                capture_output=True,
                text=True,
                timeout=_PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"hung: {self._command[0]} ran for {_PATIENCE_SECONDS:g} seconds") from None
        wall = time.perf_counter() - start
        after = Usage.of_children()
        if done.returncode:
            words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise OSError(f"{Path(self._command[0]).name} ended with code {done.returncode}: {words}")
        found = re.search(reader.pattern, done.stdout)
        if found is None:
            raise OSError(f"{Path(self._command[0]).name} printed nothing that fits")
        numbers = [float(group) for group in found.groups()]
        values = dict(zip(reader.figures, numbers, strict=True))
        if reader.total is not None:
            values[reader.total] = values["client"] + values["server"]
        user = after.user_seconds - before.user_seconds
        system = after.system_seconds - before.system_seconds
        return Reading(
            values=values,
            units=reader.units,
            wall_seconds=wall,
            cpu_seconds=user + system,
            user_seconds=user,
            system_seconds=system,
        )

    def verify(self) -> None:
        pass  # drivers check what they receive and fail

    def close(self) -> None:
        self._temporary.cleanup()


def _certificates(source: Path, target: Path) -> None:
    """The bench's certificates under the names drivers want, the key in both encodings."""
    target.mkdir()
    for name in ("ca.pem", "server.pem"):
        shutil.copy(source / name, target / name)
    key = serialization.load_pem_private_key((source / "server.key").read_bytes(), None)
    for name, encoding in (
        ("server-key.p8.pem", serialization.PrivateFormat.PKCS8),
        ("server-key.pem", serialization.PrivateFormat.TraditionalOpenSSL),
    ):
        pem = key.private_bytes(serialization.Encoding.PEM, encoding, serialization.NoEncryption())
        (target / name).write_bytes(pem)


def _contender(driver: Driver, reader: Reader) -> Contender:
    def open_(bench: Bench) -> Body:
        path = find(driver.program)
        assert path is not None
        return Program(bench, [str(path), *reader.arguments, *driver.options], reader)

    return Contender(driver.title, Role.RIVAL, open_, presence=partial(_presence, driver.program))


def record_contenders(size: int, sealing: bool) -> tuple[Contender, ...]:
    """One call per record in memory; figure "" in microseconds of CPU."""
    count = max(256, min(20_000, (16 << 20) // size))
    verb = "send" if sealing else "recv"
    reader = Reader(("bulk-mem", str(size), str(count)), rf"{verb} {_NUMBER} us/rec", ("",), count)
    return tuple(_contender(driver, reader) for driver in DRIVERS)


def bulk_contenders(size: int) -> tuple[Contender, ...]:
    """Bulk over loopback UDP for a second, flat out: what arrived a second, and CPU of each side."""
    pattern = rf"{_NUMBER} us CPU/rec; receiver {_NUMBER} rec/s .* {_NUMBER} us CPU/rec"
    reader = Reader(("bulk-udp", str(size), "1", str(_BULK_PORT)), pattern, ("sender", "", "receiver"), 1)
    return tuple(_contender(driver, reader) for driver in DRIVERS)


def memory_handshake_contenders(cookie: bool) -> tuple[Contender, ...]:
    """Handshakes in memory; figures "", "client", "server" in microseconds of CPU."""
    arguments = ("hs-mem", "40", *(("-cookie",) if cookie else ()))
    pattern = rf"client {_NUMBER} us CPU, server {_NUMBER} us CPU"
    reader = Reader(arguments, pattern, ("client", "server"), 40, "")
    return tuple(_contender(driver, reader) for driver in DRIVERS)


def udp_handshake_contenders() -> tuple[Contender, ...]:
    """Handshakes over loopback UDP, one after another; rate and CPU of both sides."""
    pattern = rf"{_NUMBER} hs/s .*client {_NUMBER} us CPU, server {_NUMBER} us CPU"
    figures = ("rate", "client", "server")
    reader = Reader(("hs-udp", "200", str(_PORT)), pattern, figures, 200, "cpu")
    return tuple(_contender(driver, reader) for driver in DRIVERS)


def memory_contenders(count: int) -> tuple[Contender, ...]:
    """Bytes of an idle connection of a server, by growth of the resident set."""
    reader = Reader(("mem", str(count)), rf"RSS growth {_NUMBER} B/conn", ("",), count)
    return tuple(_contender(driver, reader) for driver in DRIVERS)


def wolfssl_package_handshakes() -> Contender:
    """The Python package wolfssl over loopback UDP, by its driver; see docs/bench.md."""
    program = "sealwire-rival-wolfssl-python"
    pattern = (
        rf"(?s)(?=.*client {_NUMBER} hs/s)(?=.*client .*us/hs {_NUMBER})(?=.*server CPU us/hs {_NUMBER})"
    )
    reader = Reader(("hs", "200"), pattern, ("rate", "client", "server"), 200, "cpu")
    return _contender(Driver(program, "Python wolfssl, DTLS 1.3"), reader)
