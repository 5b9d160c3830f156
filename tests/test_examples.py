"""Every program in examples/ runs and does what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import certificates
from tests.certificates import Kind
from tests.unit.probe import packets

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
# Each name is used below: an example nobody runs is not one.
RUN_HERE = {
    "batches.py",
    "blocking_echo.py",
    "certificate_compression.py",
    "certificate_timestamps.py",
    "changing_address.py",
    "collecting.py",
    "datagram_echo_client.py",
    "datagram_echo_server.py",
    "flooded.py",
    "hand_over.py",
    "hand_over_programs.py",
    "keepalive.py",
    "message_echo.py",
    "monitoring.py",
    "no_leaks.py",
    "key_updates.py",
    "early_data.py",
    "ocsp_stapling.py",
    "own_dissector.py",
    "padding.py",
    "presets.py",
    "proxy.py",
    "reservation.py",
    "path_mtu.py",
    "psk_echo.py",
    "raw_public_keys.py",
    "resumption.py",
    "sans_io_loop.py",
    "srtp_keys.py",
    "sealed_events.py",
    "sleeping.py",
    "store_and_query.py",
    "stream_echo.py",
    "threaded_messages.py",
    "under_load.py",
    "workers.py",
}


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def run(name: str, *arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(name, *arguments),
        input=given,
        capture_output=True,
        env=ENVIRONMENT,
        timeout=60,
        check=False,
    )


@contextmanager
def serving(name: str, *arguments: object) -> Iterator[int]:
    """A server, from the line that says its port until it ends in order on an interrupt."""
    process = subprocess.Popen(
        command(name, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            assert line.startswith("listening on port "), line
            yield int(line.split()[-1])
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert errors == b""
            assert process.returncode == 0
        finally:
            process.kill()


def credentials() -> list[object]:
    identity = certificates.server()
    return ["--cert", identity.certfile, "--key", identity.keyfile]


def trust() -> list[object]:
    return ["--cafile", certificates.server().cafile]


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == RUN_HERE


def test_datagram_echo() -> None:
    with serving("datagram_echo_server.py", "--port", 0, *credentials()) as port:
        done = run("datagram_echo_client.py", "--port", port, *trust(), "hello", "world")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\nworld\n", b"")
        done = run("datagram_echo_client.py", "--port", port, "--cafile", certificates.client().cafile, "x")
        if certificates.client().cafile != certificates.server().cafile:
            assert done.returncode == 1
            assert done.stderr.startswith(b"CertificateError: ")


def test_stream_echo() -> None:
    with serving("stream_echo.py", "serve", "--port", 0, *credentials()) as port:
        done = run("stream_echo.py", "connect", "--port", port, *trust(), given=b"hello\nworld\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\nworld\n", b"")


def test_blocking_echo() -> None:
    done = run("blocking_echo.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [b"DTLSv1.3", b"TLSv1.3"]
    assert all(line.endswith(b" hello") for line in done.stdout.splitlines())


def test_psk_echo() -> None:
    done = run("psk_echo.py")
    assert (done.returncode, done.stderr) == (0, b"")
    protocols = ("DTLSv1.3", "TLSv1.3")
    expected = [f"{protocol} sensor-{n} said 21.5 C" for n in range(3) for protocol in protocols]
    assert done.stdout.decode().splitlines() == [
        *expected,
        "sensor-9: the peer sent a fatal alert: unknown_psk_identity",
    ]


def test_early_data() -> None:
    done = run("early_data.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "not offered: asked again, answer of 42",
        "accepted: answer of 42, before the handshake was over",
        "rejected: asked again, answer of 42",
        "accepted over TLSv1.3: answer of 42, before the handshake was over",
    ]


def test_message_echo() -> None:
    done = run("message_echo.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "speaking in messages, for echo",
        "5 bytes came back",
        "0 bytes came back",
        "1000 bytes came back",
        "cut off: 0",
    ]


def test_threaded_messages() -> None:
    done = run("threaded_messages.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"ONE TWO\ncut off: 0\n"


def test_proxy() -> None:
    done = run("proxy.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"hello to you, who asked for localhost over TLSv1.3\n"


def test_presets() -> None:
    done = run("presets.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "IoT sensor: a report of 8 bytes came",
        "streaming: 1000 small writes in 16 records",
    ]


def test_monitoring() -> None:
    done = run("monitoring.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    *lines, costliest = done.stdout.decode().splitlines()
    assert lines == [
        "alert: somebody came",
        'sealwire_connections{server="echo"} 1.0',
        "ready: ready",
        "messages: 1",
    ]
    assert costliest in ("costs most: 127.0.0.1", "costs most: [::1]")


def test_reservation() -> None:
    done = run("reservation.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "certificate_chain_bytes <-> handshake_message_bytes",
        "pressure: MEDIUM",
        "kept 810000 bytes, then: prefix_bytes",
        "pressure: NONE",
    ]


def test_no_leaks() -> None:
    done = run("no_leaks.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    clean, leaking = done.stdout.decode().splitlines()
    assert clean == "closed: nothing is left"
    assert re.fullmatch(
        r"forgotten: left behind: 2 connections, \d+ keys, \d+ timers, 1 sockets, 1 tasks", leaking
    )


def test_resumption() -> None:
    done = run("resumption.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "DTLSv1.3 full handshake, 1 ticket kept",
        "DTLSv1.3 resumed, 1 ticket kept",
        "TLSv1.3 full handshake, 2 tickets kept",
        "TLSv1.3 resumed, 2 tickets kept",
        "DTLSv1.3 resumed, 2 tickets kept, from a file",
    ]


def test_raw_public_keys() -> None:
    done = run("raw_public_keys.py")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "the device showed a key of 44 bytes, certificate: None",
        "device: 21.5 C",
        "stranger: the peer sent a fatal alert: certificate_unknown",
    ]


def test_ocsp_stapling() -> None:
    done = run("ocsp_stapling.py")
    assert (done.returncode, done.stderr) == (0, b"")
    absent, good, revoked = done.stdout.decode().splitlines()
    assert "bad_certificate_status_response" in absent
    assert re.fullmatch(r"good: hello, with a response of \d+ bytes", good)
    assert revoked == "revoked: the peer's certificate was revoked by its issuer (certificate_revoked)"


def test_certificate_timestamps() -> None:
    done = run("certificate_timestamps.py")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"log 4c4c4c4c... promised on 2026-11-20 to publish the certificate\n"


def test_certificate_compression() -> None:
    identity = certificates.server(intermediates=2)
    done = run(
        "certificate_compression.py",
        *("--cert", identity.certfile, "--key", identity.keyfile, "--cafile", identity.cafile),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    plain, packed = (int(line.split()[-5]) for line in done.stdout.decode().splitlines())
    assert packed < plain - 200


@pytest.mark.parametrize("seed", range(4))
def test_sans_io_loop(seed: int) -> None:
    done = run("sans_io_loop.py", *credentials(), *trust(), "--seed", seed)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"client: Connected" in done.stdout
    assert done.stdout.rstrip().endswith(b"server received 'hello over a bad link'")


def test_keepalive() -> None:
    done = run("keepalive.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "answer after closing one way: 3 messages",
        "after a second of silence: connected",
        "the server is gone: the peer did not answer 2 checks whether it is there",
    ]


def test_flooded() -> None:
    done = run("flooded.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    if sys.platform == "linux":
        assert lines[0] == "sockets: handshakes have a socket of their own beside the data's"
    assert lines[1:3] == ["connected: still here", "new: came in a flood"]
    assert lines[3].endswith("with silence: True")
    assert lines[4:] == ["kept out: 127.0.0.0/8"]


def test_sleeping() -> None:
    done = run("sleeping.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    evening, asleep, morning, woken = done.stdout.decode().splitlines()
    assert (evening, morning) == ("the server says good evening", "the server says good morning")
    assert asleep.startswith("asleep: 1, bytes charged: ")
    assert woken.startswith("woken: ")


def test_hand_over() -> None:
    done = run("hand_over.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "[b'you said one']",
        "[b'you said two'] from another process, under keys of epoch 4",
        "once more: this association was imported before: only one process may go on with it",
    ]


def test_path_mtu() -> None:
    done = run("path_mtu.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    first, found, echoed = (line.split() for line in done.stdout.decode().splitlines())
    assert int(first[-2]) < 1200 < int(found[-2]) == int(echoed[1])


def test_padding() -> None:
    done = run("padding.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "as they are: 25 24 53",
        "padded:      85 85 85",
        "the server sends at most 599 bytes of data in a record",
    ]


def test_batches() -> None:
    done = run("batches.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"10000 messages, answered ")


def test_srtp_keys() -> None:
    done = run("srtp_keys.py", *credentials())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "server: STUN from the client",
        "client: STUN answered, so DTLS begins",
        "client: agreed on SRTP_AEAD_AES_128_GCM",
        "server: media b'frame'",
        "client: media b'frame back'",
    ]


def test_key_updates() -> None:
    done = run("key_updates.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    asked, age, use = done.stdout.decode().splitlines()
    assert asked == "asked for: epoch 4"
    assert age == "by age: epoch 5"
    assert use.startswith("by use: epoch ")
    assert use.endswith(" of 100 records")
    assert int(use.split()[3].rstrip(",")) >= 6


def test_hand_over_programs() -> None:
    done = run("hand_over_programs.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"one connection, two programs\n"


def test_workers() -> None:
    done = run("workers.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "met both workers",
        "met the one that took the place of the killed one",
    ]


def test_changing_address() -> None:
    done = run("changing_address.py", *credentials(), *trust())
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [line[:4] for line in lines] == [
        ["server", "hears", word, "from"] for word in ("'one'", "'two'", "'three'")
    ]
    assert lines[0][-1] != lines[2][-1]


def test_a_dissector_of_ones_own_is_asked(tmp_path: Path) -> None:
    steps = [
        (0.0, "|>", packets.udp(5000, 514, b"<34>Oct 11 22:14:15 host su: no")),
        (0.1, "|>", packets.udp(5001, 53, b"\0\7\1\0\0\1\0\0\0\0\0\0\3www\7example\3org\0\0\1\0\1")),
    ]
    capture = tmp_path / "capture.pcap"
    capture.write_bytes(packets.pcap(packets.conversation(*steps)))
    done = run("own_dissector.py", capture)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "10.0.0.1 > 10.0.0.2: dns with www.example.org",
        "1 flows of dns",
        "1 flows of syslog",
    ]


def test_sealed_events(tmp_path: Path) -> None:
    capture = tmp_path / "capture.pcap"
    capture.write_bytes(packets.pcap(packets.conversation((0.0, "|>", packets.udp(1, 53, b"x")))))
    done = run("sealed_events.py", capture)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith(("$", "sealed"))]
    assert lines == [
        *("$ sealwire keygen -> exit 0", "sealed, and durable up to event 2"),
        *("$ sealwire verify -> exit 0", "$ sealwire verify -> exit 1"),
    ]


def test_collecting(tmp_path: Path) -> None:
    capture = tmp_path / "capture.pcap"
    capture.write_bytes(packets.pcap(packets.conversation((0.0, "|>", packets.udp(1, 53, b"x")))))
    done = run("collecting.py", capture)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    words = ("cert", "keygen", "keygen", "enroll", "probe")
    assert lines[:5] == [f"$ sealwire {word} -> exit 0" for word in words]
    assert lines[5:] == ["2 segments stored, 3 events", "$ sealwire verify -> exit 0"]


def test_store_and_query(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    capture = tmp_path / "capture.pcap"
    capture.write_bytes(packets.pcap(packets.conversation((0.0, "|>", packets.udp(1, 514, b"x")))))
    done = run("store_and_query.py", capture)
    assert (done.returncode, done.stderr) == (0, b"")
    first, proved = done.stdout.decode().splitlines()
    assert first.startswith("udp unknown 1 1 ")
    assert proved == "row 1, 10.0.0.1 to 10.0.0.2: proved, segment 1"


def test_under_load() -> None:
    done = run("under_load.py")
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode()
    assert said.startswith("under load: True ['packet flood']")
    assert "ended packet flood" in said
    assert said.endswith("under load: False\n")


@pytest.mark.parametrize(
    "name", ["blocking_echo.py", "message_echo.py", "proxy.py", "stream_echo.py", "threaded_messages.py"]
)
def test_a_mistake_is_a_line_and_no_traceback(name: str) -> None:
    """What who tries them first gets wrong: a file that is not there, and the CA of somebody else."""
    first = ["serve"] if name == "stream_echo.py" else []
    cafile = [] if first else trust()
    done = run(name, *first, "--cert", "missing.pem", "--key", "missing.key", *cafile)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"ConfigurationError: cannot read certificate file 'missing.pem'")
    assert done.stderr.count(b"\n") == 1
    if not first:
        done = run(name, *credentials(), "--cafile", certificates.server(Kind.RSA_2048).cafile)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"no trusted issuer was found" in done.stderr
        assert b"Traceback" not in done.stderr
