"""Everything a user can get wrong ends with one sentence, the next step and the right exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sealwire.cli import main
from tests.unit.cli.running import PATIENCE_SECONDS, Server, one_sentence, sealwire, serving

BOTH = pytest.mark.parametrize("transport", [(), ("--stream",)], ids=["dtls", "stream"])
NO, USAGE, ENVIRONMENT = 1, 2, 3


@pytest.fixture(scope="module", params=[(), ("--stream",)], ids=["dtls", "stream"])
def server(request: pytest.FixtureRequest, pki: Path) -> Iterator[tuple[Server, tuple[str, ...]]]:
    with serving(
        *("--listen", "127.0.0.1:0", "--cert", pki / "server.pem", "--key", pki / "server.key"),
        *request.param,
    ) as running:
        yield running, request.param


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("cert", "key", "expected"),
    [
        ("missing.pem", "server.key", "cannot read certificate file"),
        ("server.pem", "missing.key", "cannot read key file"),
        ("junk", "server.key", "no PEM certificate in"),
        ("server.pem", "junk", "--cert, --key: "),
        ("server.key", "server.key", "no PEM certificate in"),
        ("server.pem", "client.key", "does not match"),
    ],
)
def test_certificates_that_cannot_be_used(
    pki: Path, capsys: pytest.CaptureFixture[str], cert: str, key: str, expected: str
) -> None:
    (pki / "junk").write_bytes(b"\x00junk\xff")
    assert main(["serve", "--cert", str(pki / cert), "--key", str(pki / key)]) == ENVIRONMENT
    line = complaint(capsys)
    assert expected in line
    assert line.startswith("sealwire: --cert, --key: ")


def test_a_ca_file_that_cannot_be_used(pki: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pki / "junk").write_bytes(b"\x00junk\xff")
    for name in ("missing", "junk"):
        assert main(["connect", "localhost:1", "--cafile", str(pki / name)]) == ENVIRONMENT
        assert complaint(capsys).startswith("sealwire: --cafile: ")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--ciphersuites", "TLS_RSA_WITH_RC4_128_MD5", "unknown cipher suite 'TLS_RSA_WITH_RC4_128_MD5'"),
        ("--groups", "x25519:sect163k1", "unknown group 'sect163k1'"),
        ("--alpn", "h2,,h3", "ALPN protocol ''"),
    ],
)
def test_unknown_names(capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str) -> None:
    assert main(["connect", "localhost:1", option, value]) == USAGE
    line = complaint(capsys)
    assert line.startswith(f"sealwire: {option}: ")
    assert expected in line


@pytest.mark.parametrize("peer", ["localhost", "localhost:", "localhost:70000", "::1:4433", "[::1]"])
def test_addresses_that_are_none(capsys: pytest.CaptureFixture[str], peer: str) -> None:
    assert main(["connect", peer]) == USAGE
    assert "is not HOST:PORT" in capsys.readouterr().err


def test_port_0_is_only_for_listening(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "localhost:0"]) == USAGE
    assert "nobody can be reached at port 0" in capsys.readouterr().err


def test_a_key_without_its_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "localhost:1", "--key", "client.key"]) == USAGE
    assert "--cert" in complaint(capsys)


def test_no_verb_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == USAGE
    assert "connect" in capsys.readouterr().out


@BOTH
def test_the_port_is_in_use(
    pki: Path, capsys: pytest.CaptureFixture[str], transport: tuple[str, ...]
) -> None:
    kind = socket.SOCK_STREAM if transport else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        if transport:
            taken.listen()
        ended = sealwire(
            *("serve", "--listen", where, "--cert", pki / "server.pem", "--key", pki / "server.key"),
            *transport,
        )
    assert ended.code == ENVIRONMENT
    sentence = one_sentence(ended)
    assert sentence.startswith(f"cannot listen on {where}, address already in use; ")
    assert "--listen" in sentence


@BOTH
def test_nobody_listens(pki: Path, transport: tuple[str, ...]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening; and no UDP socket has this number
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        ended = sealwire("connect", where, "--cafile", pki / "ca.pem", *transport)
    assert ended.code == ENVIRONMENT
    assert one_sentence(ended).startswith(f"nothing listens at {where}; ")


@BOTH
def test_nobody_answers(pki: Path, transport: tuple[str, ...]) -> None:
    kind = socket.SOCK_STREAM if transport else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as silent:
        silent.bind(("127.0.0.1", 0))
        if transport:
            silent.listen()
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        ended = sealwire("connect", where, "--cafile", pki / "ca.pem", "--timeout", "0.5", *transport)
    assert ended.code == ENVIRONMENT
    sentence = one_sentence(ended)
    assert where in sentence
    assert sentence.startswith("no answer from" if not transport else "no secure connection to")
    assert "firewall" in sentence


def test_a_name_nobody_has(pki: Path) -> None:
    ended = sealwire("connect", "no-such-host.invalid:4433", "--cafile", pki / "ca.pem")
    assert ended.code == ENVIRONMENT
    assert one_sentence(ended).startswith("no-such-host.invalid:4433 is not a known host")


def test_an_untrusted_authority(server: tuple[Server, tuple[str, ...]], other_pki: Path) -> None:
    running, transport = server
    where = f"127.0.0.1:{running.port}"
    ended = sealwire("connect", where, "--cafile", other_pki / "ca.pem", *transport)
    assert ended.code == NO
    sentence = one_sentence(ended)
    assert sentence.startswith(f"{where}: no trusted issuer was found")
    assert "--cafile" in sentence


def test_the_wrong_name(server: tuple[Server, tuple[str, ...]], pki: Path) -> None:
    running, transport = server
    where = f"127.0.0.1:{running.port}"
    connect: list[str | Path] = ["connect", where, "--cafile", pki / "ca.pem", *transport]
    connect += ["--servername", "other.example"]
    ended = sealwire(*connect)
    assert ended.code == NO
    sentence = one_sentence(ended)
    assert "other.example" in sentence
    assert "localhost, 127.0.0.1, ::1" in sentence
    assert "--servername" in sentence
    (error,) = sealwire("--json", *connect).objects
    assert (error["event"], error["exit"], error["failure"]) == ("error", NO, "wrong name")
    assert error["alert"] == "bad_certificate"


def test_insecure_accepts_what_nobody_vouches_for(server: tuple[Server, tuple[str, ...]]) -> None:
    running, transport = server
    ended = sealwire("connect", f"127.0.0.1:{running.port}", "--insecure", "--wait", "0.1", *transport)
    assert ended.code == 0


@BOTH
def test_no_common_suite(pki: Path, transport: tuple[str, ...]) -> None:
    with serving(
        *("--listen", "127.0.0.1:0", "--cert", pki / "server.pem", "--key", pki / "server.key"),
        *("--ciphersuites", "TLS_AES_256_GCM_SHA384", *transport),
    ) as strict:
        ended = sealwire(
            *("connect", f"127.0.0.1:{strict.port}", "--cafile", pki / "ca.pem"),
            *("--ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", *transport),
        )
    assert ended.code == NO
    sentence = one_sentence(ended)
    assert "handshake_failure" in sentence
    assert "--ciphersuites" in sentence


@contextmanager
def openssl_server(openssl: str, pki: Path, *arguments: str) -> Iterator[int]:
    """`openssl s_server` on a free port that is surely bound when this yields."""
    kind = socket.SOCK_DGRAM if "-dtls1_2" in arguments else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [
            *(openssl, "s_server", "-accept", f"127.0.0.1:{port}", *arguments),
            *("-cert", pki / "server.pem", "-key", pki / "server.key"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        end = time.monotonic() + PATIENCE_SECONDS
        while b"ACCEPT" not in process.stdout.readline():
            assert time.monotonic() < end, "openssl s_server does not accept"
        yield port
    finally:
        process.kill()
        process.communicate()


@pytest.mark.interop
@pytest.mark.parametrize(
    ("version", "expected"),
    [("-dtls1_2", "the server speaks only DTLS 1.2"), ("-tls1_2", "it speaks only older versions")],
)
def test_a_peer_of_an_older_version(
    program: Callable[[str], str], pki: Path, version: str, expected: str
) -> None:
    transport = ("--stream",) if version == "-tls1_2" else ()
    with openssl_server(program("openssl"), pki, version) as port:
        where = f"127.0.0.1:{port}"
        ended = sealwire("connect", where, "--cafile", pki / "ca.pem", "--timeout", "5", *transport)
    assert ended.code == NO
    sentence = one_sentence(ended)
    assert where in sentence
    assert expected in sentence


def test_a_traceback_is_shown_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--cert", "/nonexistent"]) == ENVIRONMENT
    assert "Traceback" not in capsys.readouterr().err
    assert main(["--debug", "serve", "--cert", "/nonexistent"]) == ENVIRONMENT
    assert "Traceback" in capsys.readouterr().err
    assert main(["serve", "--debug", "--cert", "/nonexistent"]) == ENVIRONMENT
    assert "Traceback" in capsys.readouterr().err


def test_errors_are_objects_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "serve", "--cert", "/nonexistent"]) == ENVIRONMENT
    printed = capsys.readouterr()
    error = json.loads(printed.out)
    assert (error["event"], error["exit"]) == ("error", ENVIRONMENT)
    assert printed.err == ""


@pytest.mark.parametrize("verb", ["serve", "connect", "cert"])
def test_an_option_the_verb_does_not_know(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The complaint is one sentence, and where to look is the verb's own help."""
    given = ["localhost:1"] if verb == "connect" else []
    assert main([verb, *given, "--no-such-option", "word"]) == USAGE
    line = complaint(capsys)
    assert line.startswith("sealwire: unknown option or word: --no-such-option word; ")
    assert f"`sealwire {verb} --help`" in line


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["prox"], "there is no verb 'prox'; is it proxy?"),
        (["zzz", "--listen", ":1"], "there is no verb 'zzz'; `sealwire --help` lists them"),
        (["proxy"], "the following arguments are required: --listen"),
        (["proxy", "--listen"], "--listen: expected one argument"),
        (["proxy", "--listen", "8443"], "'8443' is not HOST:PORT (a port alone is :8443)"),
        (["proxy", "--listen", ":1", "--connect", "localhost"], "(the port is missing)"),
        (["proxy", "--listen", ":1", "--connect", "localhost:http"], "(a port is a number up to 65535)"),
        (["proxy", "--listen", ":1", "--connect", "http://localhost:80"], "leave http:// away"),
        (["connect", "::1:80"], "(an IPv6 address goes in brackets)"),
        (["serve", "--num-tickets", "9"], "--num-tickets: invalid choice: 9"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == USAGE
    line = complaint(capsys)
    assert line.startswith("sealwire: ")
    assert words in line
    assert main(["--json", *given]) == USAGE
    printed = capsys.readouterr()
    assert printed.err == ""
    error = json.loads(printed.out)
    assert (error["event"], error["exit"]) == ("error", USAGE)
