"""`sealwire proxy` as a user runs it, and the sentences for what goes wrong."""

from __future__ import annotations

import datetime
import json
import resource
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from sealwire.cli import main
from sealwire.cli.proxy import Troubles, _listen_step
from sealwire.cli.say import Exit, Say
from sealwire.drive.aio.passage import Report, Trouble, Unreachable
from sealwire.errors import Alert, ProtocolError
from tests.unit.cli.running import Server, one_sentence, sealwire, started


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    """A plain HTTP server on loopback; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def identity(pki: Path) -> tuple[str | Path, ...]:
    return "--cert", pki / "server.pem", "--key", pki / "server.key"


@contextmanager
def proxying(*arguments: str | Path, listen: str = "127.0.0.1:0") -> Iterator[Server]:
    with started("proxy", "--listen", listen, *arguments) as server:
        yield server


def get(port: int, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        body: bytes = answer.read()
        return body


def test_a_pair_carries_http(pki: Path, service: int, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    watched = ("--metrics", "127.0.0.1:0", "--control", tmp_path / "control")
    with (
        proxying("--connect", f"localhost:{service}", *identity(pki), *watched) as inner,
        proxying("--connect-secure", f"localhost:{inner.port}", "--cafile", pki / "ca.pem") as outer,
    ):
        metrics = inner.next_object()
        assert inner.next_object()["event"] == "control"
        assert (inner.listening["secure"], outer.listening["secure"]) == ("in", "out")
        assert get(outer.port) == b"hello"
        scraped = get(metrics["port"], "/metrics").decode()
        assert 'sealwire_endpoint_handshakes_completed_total{server="tls"} 1.0' in scraped
        assert 'sealwire_proxy_to_secure_bytes_total{server="tls"}' in scraped
        assert get(metrics["port"], "/readyz") == b"ready\n"
        page = sealwire("status", "--control", tmp_path / "control").out.decode()
        assert "proxy (tls)" in page
        assert "bytes to secure" in page
        assert outer.stop().objects[-1]["event"] == "stopped"
        ended = inner.stop(signal.SIGINT)
        assert ended.code == Exit.OK
        (stopped,) = ended.objects
        assert (stopped["event"], stopped["connections"], stopped["cut"]) == ("stopped", 1, 0)


def test_client_certificates_keys_and_unix_sockets(pki: Path, service: int, tmp_path: Path) -> None:
    psk = tmp_path / "psk"
    psk.write_text("ab" * 32)
    path = tmp_path / "in"
    mutual = ("--client-ca", pki / "ca.pem")
    shown = ("--cert", pki / "client.pem", "--key", pki / "client.key", "--cafile", pki / "ca.pem")
    for serving, reaching in (
        ((*identity(pki), *mutual), shown),
        (("--psk", f"@{psk}"), ("--psk", f"@{psk}")),
    ):
        with (
            proxying("--connect", f"127.0.0.1:{service}", *serving) as inner,
            proxying("--connect-secure", f"localhost:{inner.port}", *reaching, listen=f"unix:{path}"),
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as answer:
                assert answer.read().endswith(b"hello")


def test_reload_and_drain(pki: Path, other_pki: Path, service: int, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_bytes((pki / "server.pem").read_bytes())
    key.write_bytes((pki / "server.key").read_bytes())
    with proxying(
        "--connect", f"localhost:{service}", "--cert", cert, "--key", key, "--drain", "30"
    ) as proxy:
        where = f"localhost:{proxy.port}"

        def ask(ca: Path) -> int:
            # The answer ends the connection, as HTTP/1.0 has it.
            given = b"GET / HTTP/1.0\r\n\r\n"
            return sealwire("connect", where, "--stream", "--cafile", ca, "--wait", "9", given=given).code

        assert ask(pki / "ca.pem") == Exit.OK
        cert.write_text("nonsense")
        proxy.process.send_signal(signal.SIGHUP)
        failed = proxy.next_object()
        assert (failed["event"], "--cert" in failed["message"]) == ("reload failed", True)
        assert ask(pki / "ca.pem") == Exit.OK
        cert.write_bytes((other_pki / "server.pem").read_bytes())
        key.write_bytes((other_pki / "server.key").read_bytes())
        proxy.process.send_signal(signal.SIGHUP)
        assert proxy.next_object()["event"] == "reloaded"
        assert ask(other_pki / "ca.pem") == Exit.OK
        assert ask(pki / "ca.pem") == Exit.NO
        trouble = proxy.next_object()
        assert (trouble["event"], trouble["kind"]) == ("trouble", "handshake")
        with socket.create_connection(("127.0.0.1", proxy.port)):
            time.sleep(0.3)
            proxy.process.send_signal(signal.SIGTERM)
            draining = proxy.next_object()
            assert (draining["event"], draining["connections"]) == ("draining", 1)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", proxy.port)).close()
            began = time.monotonic()
            ended = proxy.stop()  # the second signal
            assert (ended.code, ended.objects[-1]["cut"]) == (Exit.OK, 1)
            assert time.monotonic() - began < 20


def test_what_a_backend_that_is_down_looks_like(pki: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        with proxying("--connect", where, *identity(pki)) as proxy:
            ended = sealwire(
                "connect", f"localhost:{proxy.port}", "--stream", "--cafile", pki / "ca.pem", given=b"x"
            )
            assert ended.code == Exit.NO
            assert "internal_error" in ended.err
            trouble = proxy.next_object()
            assert trouble["kind"] == "unreachable"
            assert f"nothing listens at {where}" in trouble["message"]
            proxy.stop()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), Exit.USAGE, "nowhere to connect to is given; say --connect WHERE"),
        (("--connect", "localhost:1"), Exit.USAGE, "a server needs --cert or --psk"),
        (("--connect", "localhost:1", "--connect-secure", "localhost:2"), Exit.USAGE, "both --connect and"),
        (("--connect", "192.0.2.1:80"), Exit.USAGE, "--unsafe-plain"),
        (("--connect", "example.org:80"), Exit.USAGE, "others can read it"),
        (("--route", "a=example.org:80"), Exit.USAGE, "--unsafe-plain"),
        (
            ("--connect-secure", "h:1", "--client-ca", "ca.pem"),
            Exit.USAGE,
            "--client-ca goes with --connect;",
        ),
        (("--connect-secure", "h:1", "--route", "a=localhost:1"), Exit.USAGE, "both --connect and"),
        (("--connect", "localhost:1", "--cafile", "x"), Exit.USAGE, "--cafile goes with --connect-secure"),
        (("--connect", "localhost:1", "--allow-name", "x"), Exit.USAGE, "--client-ca"),
        (("--connect-secure", "unix:/x"), Exit.USAGE, "--servername"),
        (("--connect", "localhost:1", "--cert", "missing.pem"), Exit.ENVIRONMENT, "missing.pem"),
        (("--connect-secure", "localhost:1", "--cafile", "missing.pem"), Exit.ENVIRONMENT, "missing.pem"),
        (
            ("--connect-secure", "localhost:1", "--cert", "PKI/client.pem"),
            Exit.USAGE,
            "name the key's file with --key",
        ),
        (
            ("--connect", "localhost:1", "--cert", "PKI/server.pem"),
            Exit.USAGE,
            "name the key's file with --key",
        ),
        (("--connect-secure", "h:1", "--max-connections", "999999"), Exit.ENVIRONMENT, "ulimit -n"),
    ],
)
def test_one_sentence_for_each_mistake(
    arguments: tuple[str, ...],
    code: Exit,
    words: str,
    pki: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = tuple(part.replace("PKI", str(pki)) for part in arguments)
    listen = "127.0.0.1:0" if "--max-connections" not in arguments else f"unix:{tmp_path}/in"
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert main(["proxy", "--listen", listen, *arguments]) == code
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)  # the program takes what it may have
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--connect", "localhost:0"),
        ("--connect", "localhost"),
        ("--connect", "unix:"),
        ("--connect", "unix:" + "x" * 108),
        ("--route", "nothing"),
        ("--route", "=localhost:1"),
        ("--route", "alpn:=localhost:1"),
        ("--route", "*=localhost:1"),
        ("--accept-proxy", "10.0.0.1/8"),
        ("--accept-proxy", "nonsense"),
        ("--max-connections", "0"),
        ("--drain", "-1"),
    ],
)
def test_values_that_cannot_be(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proxy", "--listen", ":0", option, value]) == Exit.USAGE
    said = capsys.readouterr().err
    assert said.startswith(f"sealwire: {option}: ")
    assert said.count("\n") == 1


def test_a_plain_side_that_anybody_reaches_is_refused_and_a_port_in_use_named(pki: Path) -> None:
    for listen in (":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0"):
        ended = sealwire("proxy", "--listen", listen, "--connect-secure", "localhost:1")
        assert ended.code == Exit.USAGE
        assert "--unsafe-plain" in one_sentence(ended)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = sealwire("proxy", "--listen", where, "--connect", "localhost:1", *identity(pki))
    assert ended.code == Exit.ENVIRONMENT
    assert f"cannot listen on {where}, address already in use" in one_sentence(ended)
    routed = ("--route", "alpn:h2=localhost:1", "--alpn", "http/1.1", "--groups", "nonsense")
    assert sealwire("proxy", "--listen", "127.0.0.1:0", *identity(pki), *routed).code == Exit.USAGE


def test_where_nobody_can_listen(pki: Path, tmp_path: Path) -> None:
    for where, step in (
        (f"unix:{tmp_path}/missing/in", "make its directory first"),
        ("192.0.2.77:0", "choose an address of this machine"),
    ):
        ended = sealwire("proxy", "--listen", where, "--connect", "localhost:1", *identity(pki))
        assert ended.code == Exit.ENVIRONMENT
        assert step in one_sentence(ended)
    assert "rights" in _listen_step(PermissionError(13, "Permission denied"))


def test_plain_http_to_the_secure_port_and_a_certificate_that_expired(pki: Path, tmp_path: Path) -> None:
    key = load_pem_private_key((pki / "server.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(9)).not_valid_after(now - datetime.timedelta(1))
    old = tmp_path / "old.pem"
    old.write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    with proxying("--connect", "localhost:1", "--cert", old, "--key", pki / "server.key") as proxy:
        told = proxy.next_object()
        assert (told["event"], told["expired"]) == ("certificate", True)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.recv(100)
        trouble = proxy.next_object()
        assert trouble["kind"] == "handshake"
        proxy.stop()


def test_trouble_is_told_so_often_as_somebody_can_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    troubles = Troubles(Say(json=True, text=None), secure_in=True, clock=lambda: now)  # type: ignore[arg-type]

    def told(trouble: Trouble, error: OSError) -> list[dict[str, Any]]:
        troubles.told(Report(trouble, "192.0.2.1:5", "localhost:80", error))
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    refused = Unreachable(ConnectionRefusedError(111, "Connection refused"))
    (first,) = told(Trouble.UNREACHABLE, refused)
    assert first["message"] == "192.0.2.1:5 was let down, nothing listens at localhost:80"
    assert told(Trouble.UNREACHABLE, refused) == []
    assert told(Trouble.BROKEN, OSError("x")) == []
    assert len(told(Trouble.HEADER, OSError("x"))) == 1  # another kind
    now = 6.0
    (later,) = told(Trouble.UNREACHABLE, refused)
    assert later["untold"] == 1
    (plain,) = told(
        Trouble.HANDSHAKE, ProtocolError(Alert.UNEXPECTED_MESSAGE, "a record cannot have type 71")
    )
    assert plain["message"].endswith("a record cannot have type 71")
    now = 12.0
    for why in (TimeoutError("no connection"), PermissionError(13, "Permission denied"), OSError("odd")):
        now += 6.0
        assert len(told(Trouble.UNREACHABLE, Unreachable(why))) == 1
