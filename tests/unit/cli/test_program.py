"""The program as a whole: --version, --help, the demo, a reader that goes away."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import cryptography
import pytest

import sealwire
from sealwire.cli import evidence, main, transfer
from sealwire.record import protect
from tests.unit.cli import running


def test_version_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    words = capsys.readouterr().out
    assert words.startswith(f"sealwire {sealwire.__version__}\n")
    assert protect.describe() in words
    assert ssl.OPENSSL_VERSION in words
    assert f"cryptography {cryptography.__version__}" in words
    assert main(["--version", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == sealwire.__version__
    assert facts["compiled"] is protect.COMPILED


def test_version_says_so_when_the_twin_runs() -> None:
    environment = {**os.environ, "SEALWIRE_PURE": "1", "SEALWIRE_REQUIRE_COMPILED": ""}
    done = subprocess.run(
        running.command(["--version", "--json"]), env=environment, capture_output=True, check=True, timeout=60
    )
    facts = json.loads(done.stdout)
    assert facts["compiled"] is False
    assert "SEALWIRE_PURE=1" in facts["record_protection"]


def test_help_names_every_verb_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    words = capsys.readouterr().out
    for word in ("cert", "serve", "connect", "demo", "0 done", "1 the answer is no", "2 ", "3 "):
        assert word in words


def test_a_reader_that_goes_away_ends_it_quietly(pki: Path) -> None:
    identity = ("--cert", pki / "server.pem", "--key", pki / "server.key")
    with running.serving("--listen", "127.0.0.1:0", *identity, "--echo", "--stream") as server:
        where = f"127.0.0.1:{server.port}"
        with subprocess.Popen(
            running.command(["connect", where, "--cafile", pki / "ca.pem", "--stream"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            process.stdin.write(b"what nobody will read")
            process.stdin.flush()
            words = process.stderr.read().decode()
            assert process.wait(timeout=60) == 3
    assert words.startswith("TLSv1.3, ")
    assert words.count("\n") == 1


def test_a_package_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    """Compiled modules are demanded, and something in their place does not load."""
    broken = tmp_path / "sealwire"
    shutil.copytree(
        Path(sealwire.__file__).parent, broken, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SEALWIRE_REQUIRE_COMPILED": "1"}
    environment.pop("SEALWIRE_PURE", None)
    done = subprocess.run(
        running.command(["--version"]),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("sealwire: sealwire cannot be loaded: SEALWIRE_REQUIRE_COMPILED=1, but ")


def test_the_demo_moves_a_file_whole_four_ways(tmp_path: Path) -> None:
    """Also that nothing is left behind: neither processes nor the temporary directory."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_001))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        running.command(["demo", "--json", "--file", file]),
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    ways = {o["name"]: o for o in objects if o["event"] == "way"}
    assert list(ways) == ["DTLS 1.3", "plain UDP", "STCP (TLS 1.3)", "plain TCP"]
    assert all(way["intact"] and way["bytes_per_second"] > 0 for way in ways.values())
    assert ways["DTLS 1.3"]["version"] == "DTLSv1.3"
    assert ways["DTLS 1.3"]["retried"]  # the cookie's round trip
    assert ways["STCP (TLS 1.3)"]["version"] == "TLSv1.3"
    assert {way.get("group") for way in ways.values()} == {"X25519MLKEM768", None}
    (lossy,) = (o for o in objects if o["event"] == "lossy link")
    assert lossy["connected"]
    assert lossy["intact"]
    assert lossy["lost"] > 0
    assert lossy["reordered"] > 0
    assert objects[-1] == {"event": "verdict", "whole": True}
    assert list(temporary.iterdir()) == []
    if not evidence.missing():
        (seen,) = (o for o in objects if o["event"] == "evidence")
        _judge(seen)


def _judge(seen: dict[str, Any]) -> None:
    """What the demo's probe saw was sealed, collected, asked for and verified, all of it."""
    assert seen["whole"]
    assert seen["verified"]
    assert seen["queried_flows"] >= 1
    assert seen["queried_packets"] == seen["packets"] > 10
    assert seen["collected_events"] == seen["sealed_events"] > seen["flows"]


@pytest.mark.skipif(bool(evidence.missing()), reason="needs the extra query")
def test_the_demo_shows_its_evidence_where_nothing_may_be_captured(tmp_path: Path) -> None:
    """Then what passes a relay is written into a capture file."""
    program = shutil.which("setpriv")
    if program is None or os.geteuid() != 0:
        pytest.skip("cannot give up a right here")
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    command = [program, "--bounding-set=-net_raw,-net_admin"]
    command += running.command(["demo", "--json", "--file", tmp_path / "file"])
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    (seen,) = (o for o in objects if o["event"] == "evidence")
    assert "relay" in seen["how"]
    _judge(seen)


def test_the_demo_is_not_content_with_a_changed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sender that changes a byte on the way is the negative answer, exit code 1."""
    transmit = transfer.Sender.transmit

    def changed(self: transfer.Sender, now: float) -> list[bytes]:
        messages = transmit(self, now)
        return [m[:-1] + b"!" if m[0] == transfer.DATA else m for m in messages]

    monkeypatch.setattr(transfer.Sender, "transmit", changed)
    file = tmp_path / "file"
    file.write_bytes(bytes(1_000))
    assert main(["demo", "--file", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "DIFFERENT" in printed
    assert printed.endswith("NOT everything arrived whole.\n")


def test_the_demo_says_which_file_it_cannot_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--file", "/nonexistent"]) == 3
    assert "cannot read /nonexistent, no such file or directory" in capsys.readouterr().err


def test_the_receiving_process_ends_with_the_demo(pki: Path) -> None:
    """Its stdin ends when the demo does, however that happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sealwire.cli.receive", "streams", str(pki)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert set(json.loads(process.stdout.readline())) == {"secured", "plain"}
        assert process.poll() is None
        out, err = process.communicate(timeout=60)  # closes stdin
        assert (process.returncode, out, err) == (0, b"", b"")
    finally:
        process.kill()
        process.communicate()
