"""`sealwire serve` and `sealwire connect` with each other: data, facts, ends."""

from __future__ import annotations

import base64
import random
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit.cli.running import command, sealwire, serving

BOTH = pytest.mark.parametrize("transport", [(), ("--stream",)], ids=["dtls", "stream"])


def identity(pki: Path, role: str = "server") -> tuple[str | Path, ...]:
    return "--cert", pki / f"{role}.pem", "--key", pki / f"{role}.key"


@BOTH
def test_an_echo_is_exact_and_stdout_holds_nothing_else(pki: Path, transport: tuple[str, ...]) -> None:
    data = bytes(range(256)) * 4 + b"\r\n\x00"
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--echo", *transport) as server:
        ended = sealwire(
            "connect", f"127.0.0.1:{server.port}", "--cafile", pki / "ca.pem", *transport, given=data
        )
        assert (ended.code, ended.out) == (0, data)
        version = "TLSv1.3" if transport else "DTLSv1.3"
        assert ended.err == f"{version}, TLS_AES_128_GCM_SHA256, X25519MLKEM768, peer localhost\n"
        connected = server.next_object()
        assert connected["event"] == "connected"
        assert connected["version"] == version
        assert server.next_object()["event"] == "disconnected"
        stopped = server.stop()
    assert stopped.code == 0
    assert stopped.err == ""
    assert stopped.objects == [{"event": "stopped", "connections": 1, "handshakes_failed": 0}]


def test_a_megabyte_through_a_stream_and_back(pki: Path) -> None:
    data = random.Random(1).randbytes(1_000_000)
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--echo", "--stream") as server:
        ended = sealwire(
            "connect", f"127.0.0.1:{server.port}", "--cafile", pki / "ca.pem", "--stream", given=data
        )
    assert ended.code == 0
    assert ended.out == data


def test_without_echo_data_goes_to_stdout_of_the_server(pki: Path) -> None:
    with serving("--listen", "127.0.0.1:0", *identity(pki)) as server:
        where = f"127.0.0.1:{server.port}"
        ended = sealwire("connect", where, "--cafile", pki / "ca.pem", "--wait", "0.1", given=b"datagram")
        assert (ended.code, ended.out) == (0, b"")
        assert server.next_object()["event"] == "connected"
        arrived = server.next_object()
    assert arrived["event"] == "data"
    assert base64.b64decode(arrived["base64"]) == b"datagram"


def test_input_longer_than_a_datagram_is_cut(pki: Path) -> None:
    data = random.Random(2).randbytes(10_000)
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--echo") as server:
        arguments = ("--json", "connect", f"127.0.0.1:{server.port}", "--cafile", pki / "ca.pem")
        ended = sealwire(*arguments, given=data)
    assert ended.code == 0
    pieces = [base64.b64decode(o["base64"]) for o in ended.objects if o["event"] == "data"]
    assert b"".join(pieces) == data
    assert len(pieces) == 9  # 1,200 bytes of UDP payload less a header and a tag


@BOTH
def test_what_is_asked_for_is_negotiated(pki: Path, transport: tuple[str, ...]) -> None:
    with serving(
        "--listen", "127.0.0.1:0", *identity(pki), "--alpn", "chat/2,chat/1", "--echo", *transport
    ) as server:
        ended = sealwire(
            *("--json", "connect", f"localhost:{server.port}", "--cafile", pki / "ca.pem"),
            *("--ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"),
            *("--groups", "P-384:x25519", "--alpn", "chat/1", *transport),
        )
    assert ended.code == 0
    (facts,) = ended.objects
    assert facts["suite"] in ("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_256_GCM_SHA384")
    assert facts["group"] in ("SECP384R1", "X25519")
    assert facts["alpn"] == "chat/1"


@BOTH
def test_client_certificates(pki: Path, other_pki: Path, transport: tuple[str, ...]) -> None:
    """Demanded and shown; demanded and not shown; shown by someone nobody vouches for."""
    with serving(
        *("--listen", "127.0.0.1:0", *identity(pki), "--client-ca", pki / "ca.pem", "--echo", *transport)
    ) as server:
        connect: list[str | Path] = ["connect", f"127.0.0.1:{server.port}", "--cafile", pki / "ca.pem"]
        connect += transport
        welcome = sealwire(*connect, *identity(pki, "client"), given=b"x")
        assert (welcome.code, welcome.out) == (0, b"x")
        assert server.next_object()["peer"] == "client"
        without = sealwire(*connect, given=b"x")
        assert (without.code, without.out) == (1, b"")
        assert "certificate_required" in without.err
        assert "--cert" in without.err
        foreign = sealwire(*connect, *identity(other_pki, "client"), given=b"x")
        assert (foreign.code, foreign.out) == (1, b"")
        assert "unknown_ca" in foreign.err


@BOTH
def test_the_key_log_is_written_and_never_printed(
    pki: Path, tmp_path: Path, transport: tuple[str, ...]
) -> None:
    log = tmp_path / "keys"
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--echo", *transport) as server:
        where = f"127.0.0.1:{server.port}"
        ended = sealwire("connect", where, "--cafile", pki / "ca.pem", "--keylogfile", log, *transport)
        stopped = server.stop()
    lines = [line.split() for line in log.read_text().splitlines() if not line.startswith("#")]
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= {line[0] for line in lines}
    for _label, _random, secret in lines:
        assert secret not in ended.err + stopped.err + ended.out.decode() + stopped.out.decode()
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@BOTH
def test_a_signal_closes_connections_in_order(
    pki: Path, transport: tuple[str, ...], number: signal.Signals
) -> None:
    """The client is told, and ends by itself with its input still open."""
    with serving("--listen", "127.0.0.1:0", *identity(pki), *transport) as server:
        connect: list[str | Path] = ["connect", f"127.0.0.1:{server.port}", "--cafile", pki / "ca.pem"]
        connect += transport
        client = subprocess.Popen(
            command(connect), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert server.next_object()["event"] == "connected"
            assert server.stop(number).code == 0
            assert client.wait(timeout=30) == 0
        finally:
            client.kill()
            client.communicate()


def test_rubbish_on_the_port_harms_nobody(pki: Path) -> None:
    random_bytes = random.Random(3)
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--echo") as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
            for first in range(256):
                rubbish = bytes([first]) + random_bytes.randbytes(random_bytes.randrange(100))
                noisy.sendto(rubbish, ("127.0.0.1", server.port))
        where = f"127.0.0.1:{server.port}"
        ended = sealwire("connect", where, "--cafile", pki / "ca.pem", given=b"still there?")
        assert ended.out == b"still there?"
        stopped = server.stop()
    assert (stopped.code, stopped.err) == (0, "")


def test_rubbish_on_a_stream_harms_nobody(pki: Path) -> None:
    with serving("--listen", "127.0.0.1:0", *identity(pki), "--echo", "--stream") as server:
        for rubbish in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff", b""):
            with socket.create_connection(("127.0.0.1", server.port)) as noisy:
                noisy.sendall(rubbish)
        where = f"127.0.0.1:{server.port}"
        connect = ("connect", where, "--cafile", pki / "ca.pem", "--stream")
        assert sealwire(*connect, given=b"still there?").out == b"still there?"
        stopped = server.stop()
    assert (stopped.code, stopped.err) == (0, "")
    assert stopped.objects[-1]["handshakes_failed"] == 4
