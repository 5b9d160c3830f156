"""`sealwire status`, `limits` and `top` of a server, and what a new user meets without one."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from sealwire.cli import main, watching
from sealwire.cli.limits import check
from sealwire.cli.say import Exit, Say
from sealwire.limits import Limits, Machine
from tests.unit.cli.running import sealwire, serving

BOTH = pytest.mark.parametrize("transport", [(), ("--stream",)], ids=["dtls", "stream"])


def identity(pki: Path) -> tuple[str | Path, ...]:
    return "--cert", pki / "server.pem", "--key", pki / "server.key"


@BOTH
def test_watching_a_server(pki: Path, tmp_path: Path, transport: tuple[str, ...]) -> None:
    pytest.importorskip("prometheus_client")
    path = tmp_path / "control"
    options = ("--metrics", "127.0.0.1:0", "--control", path)
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--echo", *options, *transport) as server:
        metrics, control = server.next_object(), server.next_object()
        assert (metrics["event"], control["event"], control["path"]) == ("metrics", "control", str(path))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics['port']}/readyz") as answer:
            assert answer.read() == b"ready\n"
        ended = sealwire(
            "connect", f"127.0.0.1:{server.port}", "--cafile", pki / "ca.pem", *transport, given=b"hello"
        )
        assert ended.out == b"hello"
        name = "tls" if transport else "dtls"

        status = sealwire("status", "--control", path)
        assert status.code == Exit.OK
        lines = status.out.decode().splitlines()
        assert lines[0].startswith("ready; up for ")
        assert f"{name} ({name})" in lines
        assert any("1 opened, 0 failed, 0 turned away" in line for line in lines)
        (whole,) = sealwire("--json", "status", "--control", path).objects
        assert whole["servers"][name]["endpoint"]["handshakes_completed"] == 1

        limits = sealwire("limits", "--control", path).out.decode().splitlines()
        assert limits[0] == f"{name} ({name})"
        assert any(line.split()[:3] == ["connections", "endpoint", "10000"] for line in limits)
        assert "no limit was reached" in sealwire("limits", "--reached", "--control", path).out.decode()
        rows = sealwire("--json", "limits", "--control", path).objects
        assert {row["event"] for row in rows} == {"limit"}
        assert [row["value"] for row in rows if row["name"] == "connections"] == [10_000]

        top = sealwire("top", "--once", "--control", path)
        assert top.code == Exit.OK
        assert "nobody is connected" in top.out.decode() or "127.0.0.1:" in top.out.decode()
        assert server.stop().code == Exit.OK
    assert not path.exists()


def test_top_shows_who_is_there(pki: Path, tmp_path: Path) -> None:
    path = tmp_path / "control"
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--stream", "--control", path) as server:
        server.next_object()
        # A stranger who connects and says nothing costs a connection in its handshake.
        with socket.create_connection(("127.0.0.1", server.port)):
            (peer,) = sealwire("--json", "top", "--once", "--control", path).objects
            assert peer["state"] == "handshaking"
            assert peer["peer"].startswith("127.0.0.1:")
            assert peer["held_bytes"] > 0
            assert peer["received_per_second"] is None
            words = sealwire("top", "--once", "--by", "discards", "-n", "3", "--control", path)
            assert "handshaking" in words.out.decode()
        server.stop()


def test_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "control"
    for verb in ("status", "limits", "top"):
        ended = sealwire(verb, "--control", path)
        assert ended.code == Exit.ENVIRONMENT
        assert ended.err == (
            f"sealwire: there is no control socket at {path}; "
            f"start a server with --control {path}, or give its path with --control\n"
        )
    path.write_text("")
    assert "is not a control socket" in sealwire("status", "--control", path).err
    refused = sealwire("top", "--number", "0")
    assert refused.code == Exit.USAGE


def test_addresses_and_paths_that_cannot_be_had(pki: Path, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    serve = ("serve", "--listen", "127.0.0.1:0", *identity(pki))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = sealwire(*serve, "--metrics", f"127.0.0.1:{port}")
    assert ended.code == Exit.ENVIRONMENT
    assert f"--metrics cannot listen on 127.0.0.1:{port}" in ended.err
    assert "choose another port" in ended.err
    ended = sealwire(*serve, "--control", tmp_path / "missing" / "control")
    assert ended.code == Exit.ENVIRONMENT
    assert "--control cannot listen at" in ended.err
    ended = sealwire(*serve, "--control", pki / "ca.pem")
    assert ended.code == Exit.ENVIRONMENT
    assert "is not a socket nobody answers at" in ended.err
    assert (pki / "ca.pem").read_text().startswith("-----BEGIN")


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (150 * 1024, "150 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes_for_people(n: int, words: str) -> None:
    assert watching.size(n) == words


def test_columns_stand_below_each_other() -> None:
    lines = watching.columns([["a", "b"], ["long", "1"], ["x", "100"]], right=frozenset((1,)))
    assert lines == ["a       b", "long    1", "x     100"]


def test_limits_are_checked_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    def told(machine: Machine, chosen: Limits | None = None) -> tuple[Exit, list[dict[str, Any]]]:
        code = check(machine, chosen, Say(json=True, text=sys.stdout))
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    code, (_, agreed) = told(Machine())
    assert (code, agreed["event"]) == (Exit.OK, "agreed")
    # A small machine: what a server starts with is lowered, and fits.
    small = Machine(memory_bytes=256 << 20, memory_source="cgroup memory.max", descriptors=8_000)
    code, (machine, *changed, agreed) = told(small)
    assert machine["memory_source"] == "cgroup memory.max"
    assert "total_bytes" in {one["name"] for one in changed}
    assert (code, agreed["event"]) == (Exit.OK, "agreed")
    # The same limits by somebody's choice do not.
    code, (*_, memory, descriptors) = told(small, Limits(connections=9_000))
    assert code == Exit.NO
    assert (memory["first"], memory["second"]) == ("total_bytes", "cgroup memory.max")
    assert (descriptors["first"], descriptors["second"]) == ("connections", "RLIMIT_NOFILE")


def test_limits_that_are_checked_are_named_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limits", "--check", "--set", "handshake_seconds=2.5"]) == Exit.OK
    assert "handshake_seconds is 2.5, by default 60" in capsys.readouterr().out
    for wrong, words in (
        (["--check", "--set", "nonsense=1"], "is no limit"),
        (["--check", "--set", "connections=many"], "is no number"),
        (["--check", "--set", "connections=0"], "must be positive"),
        (["--set", "connections=5"], "say --check"),
    ):
        assert main(["limits", *wrong]) == Exit.USAGE
        assert words in capsys.readouterr().err
