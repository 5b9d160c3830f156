"""`sealwire serve --hand-over`: connections outlive the program that serves them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

import sealwire
from sealwire.drive.blocking import DatagramSocket
from sealwire.drive.estate import Estate
from sealwire.errors import ConfigurationError, Discard
from tests.unit.cli.running import PATIENCE_SECONDS, one_sentence, serving
from tests.unit.cli.running import sealwire as run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads datagrams over sockets")

# What a handshake on a busy machine may bring twice.
REPEATED = {Discard.UNEXPECTED_PLAINTEXT, Discard.STALE_MESSAGE}


def connected(pki: Path, port: int) -> DatagramSocket:
    context = sealwire.create_default_context(cafile=str(pki / "ca.pem"))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port))
    secure = context.wrap_socket(sock, server_hostname="localhost")
    assert isinstance(secure, DatagramSocket)
    secure.settimeout(0.5)
    return secure


def answered(client: DatagramSocket, message: bytes) -> None:
    """What was sent while nobody served is lost, as on any network; so it is said again."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert time.monotonic() < end
        client.send(message)
        try:
            while client.recv() != message:
                pass
        except TimeoutError:
            continue
        return


def new_keys(client: DatagramSocket) -> None:
    """The first thing whoever took over did was a KeyUpdate that asks for ours; it is acknowledged soon."""
    end = time.monotonic() + PATIENCE_SECONDS
    while client.connection.sending_epoch == 3:
        assert time.monotonic() < end
        answered(client, b"again")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_the_next_program_goes_on_with_the_connections(
    pki: Path, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    estate = tmp_path / "estate"
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    options: tuple[str | Path, ...] = (*identity, "--echo", "--hand-over", estate, *workers)
    with serving("--listen", "127.0.0.1:0", *options) as first:
        port = first.port
        clients = [connected(pki, port) for _ in range(3)]
        for client in clients:
            answered(client, b"before")
        left = first.stop()
    assert left.code == 0, left.err
    assert len(list(estate.rglob("*.state"))) == 3
    if not workers:
        assert [one["connections"] for one in left.objects if one["event"] == "left"] == [3]
    with serving("--listen", f"127.0.0.1:{port}", *options) as second:
        for client in clients:
            answered(client, b"after")
            assert client.connection.error is None
            new_keys(client)
            assert set(client.connection.counters.discards) <= REPEATED
        assert not list(estate.rglob("*.state"))
        assert not list(estate.rglob("*.claims"))
        for client in clients:
            client.close()
        stopped = second.stop()
    assert stopped.code == 0, stopped.err
    assert not list(estate.rglob("*.state")), "who has closed is not handed over"


def test_a_parent_that_is_killed_loses_no_connection(pki: Path, tmp_path: Path) -> None:
    """Its workers see that it is gone, leave what they have, and end."""
    estate = tmp_path / "estate"
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    options = *identity, "--echo", "--hand-over", estate, "--workers", "2"
    with serving("--listen", "127.0.0.1:0", *options) as first:
        port = first.port
        client = connected(pki, port)
        answered(client, b"before")
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(PATIENCE_SECONDS)
        end = time.monotonic() + PATIENCE_SECONDS
        while not list(estate.rglob("*.state")):
            assert time.monotonic() < end
            time.sleep(0.05)
    end = time.monotonic() + PATIENCE_SECONDS
    while True:  # its workers hold the port until they have ended
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", port))
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
    with serving("--listen", f"127.0.0.1:{port}", *options):
        answered(client, b"after")
    client.close()


def test_workers_alone_hand_over_among_themselves_without_a_directory(pki: Path) -> None:
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    with serving("--listen", "127.0.0.1:0", *identity, "--echo", "--workers", "2", "--hand-over") as server:
        client = connected(pki, server.port)
        answered(client, b"before")
        server.process.send_signal(signal.SIGHUP)
        told: list[dict[str, object]] = []
        while len(told) < 4:
            one = server.next_object()
            told += [one] if one["event"] == "worker" else []
        answered(client, b"after")
        new_keys(client)
        client.close()
        ended = server.stop()
    stopped = ended.objects[-1]
    assert sum(one["associations_taken"] for one in stopped["workers"]) == 1
    assert sum(one["associations_left"] for one in stopped["workers"]) == 1


def test_what_cannot_be_asked_for_is_said_in_a_sentence(pki: Path, tmp_path: Path) -> None:
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    ended = run("serve", *identity, "--hand-over")
    assert ended.code == 2
    assert "needs a directory" in one_sentence(ended)
    ended = run("serve", *identity, "--stream", "--hand-over", tmp_path / "a")
    assert ended.code == 2
    assert "datagrams" in one_sentence(ended)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    for workers in ((), ("--workers", "2")):
        ended = run("serve", *identity, "--listen", "127.0.0.1:0", "--hand-over", open_to_all, *workers)
        assert ended.code == 3
        assert "chmod 700" in one_sentence(ended)


def test_one_program_at_a_time_has_an_estate(tmp_path: Path) -> None:
    with Estate(tmp_path / "estate", 1), pytest.raises(ConfigurationError, match="another program has"):
        Estate(tmp_path / "estate", 1)
    with Estate(tmp_path / "estate", 1):
        pass


def test_connections_of_two_workers_are_not_for_three(tmp_path: Path) -> None:
    with Estate(tmp_path / "estate", 2) as estate:
        place = estate.succession(1).directory / "0"
        place.mkdir(mode=0o700)
        (place / "ab.state").write_bytes(b"sealed")
    with pytest.raises(ConfigurationError, match="of 2 processes"):
        Estate(tmp_path / "estate", 3)
    (place / "ab.state").unlink()
    with Estate(tmp_path / "estate", 3):
        pass


def test_a_damaged_key_and_a_place_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with Estate(tmp_path / "estate", 1):
        pass
    (tmp_path / "estate" / "key").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="no key of 32 bytes"):
        Estate(tmp_path / "estate", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot leave connections"):
        Estate(tmp_path / "file", 1)
    with pytest.raises(ConfigurationError, match="cannot leave connections"):
        Estate(tmp_path / "not there" / "estate", 1)


def test_the_key_is_for_its_owner_alone_and_stays(tmp_path: Path) -> None:
    with Estate(tmp_path / "estate", 1) as estate:
        key = estate.succession(0).key
    assert (tmp_path / "estate" / "key").stat().st_mode & 0o077 == 0
    with Estate(tmp_path / "estate", 1) as estate:
        assert estate.succession(0).key == key
        assert repr(key) not in repr(estate.succession(0))
