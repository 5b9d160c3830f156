"""Rivals that are programs, played by shell scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealwire.bench.clocks import Stopwatch
from sealwire.bench.crypto_switch import Crypto
from sealwire.bench.measurement import QUICK, Absent, Bench, Contender, Present, Reading
from sealwire.bench.rivals import programs
from sealwire.cli import authority


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    authority.write(path, authority.make(("localhost",), (), days=1, key_type="ec"))
    return path


def play(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path, contender: Contender, script: str
) -> Reading:
    """One turn of `contender`, with every driver played by `script`."""
    for name in [*(driver.program for driver in programs.DRIVERS), "sealwire-rival-wolfssl-python"]:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv(programs.DIRECTORY_VARIABLE, str(tmp_path))
    assert isinstance(contender.presence(), Present)
    bench = Bench(directory, QUICK, Crypto(), Stopwatch(), {}, lambda question: {})
    body = contender.open(bench)
    try:
        reading = body.run(0.01)
        body.verify()
        return reading
    finally:
        body.close()


def test_absent_unless_in_the_directory_or_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(programs.DIRECTORY_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    contender = programs.record_contenders(64, sealing=True)[0]
    absent = contender.presence()
    assert isinstance(absent, Absent)
    assert "sealwire-rival-wolfssl" in absent.reason
    found = tmp_path / "sealwire-rival-wolfssl"
    found.write_text("#!/bin/sh\n")
    assert isinstance(contender.presence(), Absent), "it is not executable"
    found.chmod(0o755)
    assert isinstance(contender.presence(), Present)


def test_lines_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path) -> None:
    bulk = "echo 'lib bulk-mem 64 B: send 0.171 us/rec (5848 krec/s), recv 0.242 us/rec (9 krec/s)'"
    for sealing, value in ((True, 0.171), (False, 0.242)):
        contender = programs.record_contenders(64, sealing)[0]
        assert play(monkeypatch, tmp_path, directory, contender, bulk).values == {"": value}
    handshakes = "echo 'lib hs-mem resume=0: client 180.5 us CPU, server 86.1 us CPU, both {TLS}'"
    contender = programs.memory_handshake_contenders(cookie=False)[0]
    reading = play(monkeypatch, tmp_path, directory, contender, handshakes)
    assert reading.values == pytest.approx({"": 266.6, "client": 180.5, "server": 86.1})
    udp = "echo 'lib hs-udp: 3116 hs/s sequential (321 us wall), client 241 us CPU, server 157 us CPU (user)'"
    contender = programs.udp_handshake_contenders()[0]
    reading = play(monkeypatch, tmp_path, directory, contender, udp)
    assert reading.values == {"rate": 3116, "client": 241, "server": 157, "cpu": 398}
    memory = "echo 'lib mem: heap in use 9488 B/conn (uordblks+hblkhd), RSS growth 10240 B/conn'"
    contender = programs.memory_contenders(500)[0]
    assert play(monkeypatch, tmp_path, directory, contender, memory).values == {"": 10240}
    package = "echo 'server CPU us/hs 472.0'; echo 'client 984 hs/s, CPU us/hs 650.0'"
    contender = programs.wolfssl_package_handshakes()
    reading = play(monkeypatch, tmp_path, directory, contender, package)
    assert reading.values == {"rate": 984, "client": 650, "server": 472, "cpu": 1122}


def test_it_finds_certificates_under_the_names_it_expects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path
) -> None:
    script = (
        "grep -q 'BEGIN EC PRIVATE KEY' certs/server-key.pem"
        " && grep -q 'BEGIN PRIVATE KEY' certs/server-key.p8.pem"
        " && test -s certs/ca.pem && test -s certs/server.pem && echo 'RSS growth 1 B/conn'"
    )
    contender = programs.memory_contenders(5)[0]
    assert play(monkeypatch, tmp_path, directory, contender, script).values == {"": 1}


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo hello", "sealwire-rival-wolfssl printed nothing that fits"),
        ("echo 'RSS growth a lot B/conn'", "printed nothing that fits"),
        ("echo cannot allocate >&2; exit 4", "ended with code 4: cannot allocate"),
        ("exit 1", "ended with code 1: it said nothing"),
        ("kill -SEGV $$", "ended with code -11"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path, script: str, sentence: str
) -> None:
    with pytest.raises(OSError, match=sentence):
        play(monkeypatch, tmp_path, directory, programs.memory_contenders(5)[0], script)


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path) -> None:
    monkeypatch.setattr(programs, "_PATIENCE_SECONDS", 0.2)
    with pytest.raises(OSError, match=f"hung: {tmp_path}"):
        play(monkeypatch, tmp_path, directory, programs.memory_contenders(5)[0], f"exec {_sleep()} 60")


def _sleep() -> str:
    return next(f"{path}/sleep" for path in os.environ["PATH"].split(":") if Path(path, "sleep").exists())
