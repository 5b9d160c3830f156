"""`sealwire serve --workers N`: one port, several processes, one program to the user."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.cli.running import PATIENCE_SECONDS, sealwire, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads datagrams over sockets")


def test_workers_serve_are_replaced_and_end_together(pki: Path) -> None:
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    with serving("--listen", "127.0.0.1:0", "--workers", "2", *identity, "--echo") as server:
        where = f"127.0.0.1:{server.port}"
        assert server.listening["workers"] == 2
        pids = server.listening["pids"]
        assert len({*pids, server.process.pid}) == 3

        def visit() -> None:
            ended = sealwire(
                "--json", "connect", where, "--cafile", pki / "ca.pem", "--wait", "0.2", given=b"hello"
            )
            assert ended.code == 0, ended.err
            assert server.next_object()["event"] == "connected"
            assert server.next_object()["event"] == "disconnected"

        visit()
        # One is killed and replaced.
        os.kill(pids[0], signal.SIGKILL)
        failed, ready = server.next_object(), server.next_object()
        assert (failed["event"], failed["what"], failed["worker"], failed["pid"]) == (
            "worker",
            "failed",
            0,
            pids[0],
        )
        assert "SIGKILL" in failed["message"]
        assert (ready["what"], ready["worker"]) == ("ready", 0)
        visit()
        # All are replaced, one after the other.
        server.process.send_signal(signal.SIGHUP)
        told = [server.next_object() for _ in range(4)]
        assert [(one["what"], one["worker"]) for one in told] == [
            ("ended", 0),
            ("ready", 0),
            ("ended", 1),
            ("ready", 1),
        ]
        assert {told[0]["pid"], told[2]["pid"]} == {ready["pid"], pids[1]}
        visit()
        ended = server.stop()
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert Counter(one["event"] for one in ended.objects) == {"worker": 2, "stopped": 1}
    stopped = ended.objects[-1]
    # A worker that is killed takes what it counted in its last second with it.
    assert 2 <= stopped["connections"] <= 3
    assert stopped["handshakes_failed"] == 0


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for stays a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_workers_end_with_their_parent(pki: Path) -> None:
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    with serving("--listen", "127.0.0.1:0", "--workers", "2", *identity) as server:
        pids = server.listening["pids"]
        server.process.kill()
        server.process.wait(PATIENCE_SECONDS)
        end = time.monotonic() + PATIENCE_SECONDS
        while not all(gone(pid) for pid in pids):
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize("value", ["0", "65", "-1", "two", "1.5"])
def test_numbers_of_workers_that_cannot_be(pki: Path, value: str) -> None:
    ended = sealwire("serve", "--cert", pki / "server.pem", f"--workers={value}")
    assert ended.code == 2
    assert "is not a number of workers from 1 to 64" in ended.err


def test_workers_share_no_stream_port(pki: Path) -> None:
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    ended = sealwire("serve", *identity, "--workers", "2", "--stream")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert "share a UDP port" in ended.err


def test_a_port_that_is_in_use_is_said_once(pki: Path) -> None:
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    with serving("--listen", "127.0.0.1:0", *identity) as server:
        ended = sealwire("serve", *identity, "--listen", f"127.0.0.1:{server.port}", "--workers", "2")
    assert ended.code == 3
    assert ended.err.count("cannot listen on") == 1
