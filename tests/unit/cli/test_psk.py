"""`--psk` and `--psk-identity`: keys from files and from the command line, never printed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sealwire.cli import main
from sealwire.cli.say import Exit
from sealwire.context import Context
from tests.unit.cli.running import sealwire, serving

BOTH = pytest.mark.parametrize("transport", [(), ("--stream",)], ids=["dtls", "stream"])
KEY = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY[:32]}\n{KEY[32:].upper()}\n")
    return path


@BOTH
def test_a_key_in_place_of_certificates(keyfile: Path, transport: tuple[str, ...]) -> None:
    key = ("--psk", f"@{keyfile}", "--psk-identity", "thing 7", *transport)
    with serving("--listen", "127.0.0.1:0", "--echo", *key) as server:
        ended = sealwire("connect", f"127.0.0.1:{server.port}", *key, given=b"hello")
        assert (ended.code, ended.out) == (0, b"hello")
        version = "TLSv1.3" if transport else "DTLSv1.3"
        facts = f"{version}, TLS_AES_128_GCM_SHA256, X25519MLKEM768, pre-shared key 'thing 7'\n"
        assert ended.err == facts
        connected = server.next_object()
        assert (connected["psk_identity"], connected["peer"]) == ("thing 7", None)
        # The same key, typed.
        typed = ("--psk", KEY, "--psk-identity", "thing 7", *transport)
        ended = sealwire("--json", "connect", f"127.0.0.1:{server.port}", *typed)
        assert ended.code == 0
        assert ended.objects[0]["psk_identity"] == "thing 7"
        stopped = server.stop()
    for words in (ended.out.decode(), ended.err, stopped.out.decode(), stopped.err):
        assert KEY[:16] not in words.lower()


@BOTH
def test_the_default_identity_is_that_of_openssl(keyfile: Path, transport: tuple[str, ...]) -> None:
    key = ("--psk", f"@{keyfile}", *transport)
    with serving("--listen", "127.0.0.1:0", *key) as server:
        ended = sealwire("connect", f"127.0.0.1:{server.port}", *key)
    assert ended.code == 0
    assert "pre-shared key 'Client_identity'" in ended.err


@BOTH
def test_other_keys_are_refused_in_words(keyfile: Path, transport: tuple[str, ...]) -> None:
    with serving("--listen", "127.0.0.1:0", "--psk", f"@{keyfile}", *transport) as server:
        where = f"127.0.0.1:{server.port}"
        other = sealwire("connect", where, "--psk", "ff" * 32, *transport)
        assert (other.code, other.out) == (Exit.NO, b"")
        assert "decrypt_error" in other.err
        assert "compare --psk" in other.err
        assert "ffff" not in other.err
        unknown = sealwire("connect", where, "--psk", f"@{keyfile}", "--psk-identity", "x", *transport)
        assert (unknown.code, unknown.out) == (Exit.NO, b"")
        assert "unknown_psk_identity" in unknown.err
        assert "--psk-identity" in unknown.err


@BOTH
def test_a_key_and_a_certificate_beside_it(pki: Path, keyfile: Path, transport: tuple[str, ...]) -> None:
    """Whose key is not known gets the certificate, and takes it only where --cafile says whose."""
    own = ("--cert", pki / "server.pem", "--key", pki / "server.key")
    with serving("--listen", "127.0.0.1:0", *own, "--psk", f"@{keyfile}", *transport) as server:
        where = f"127.0.0.1:{server.port}"
        stranger = ("connect", where, "--psk", f"@{keyfile}", "--psk-identity", "x", *transport)
        refused = sealwire(*stranger)
        assert refused.code == Exit.NO
        assert "--cafile" in refused.err
        trusting = sealwire(*stranger, "--cafile", pki / "ca.pem")
        assert trusting.code == Exit.OK
        assert "peer localhost" in trusting.err
        known = sealwire("connect", where, "--psk", f"@{keyfile}", *transport)
        assert known.code == Exit.OK
        assert "pre-shared key" in known.err


@pytest.mark.parametrize("verb", [("serve", "--listen", "127.0.0.1:0"), ("connect", "localhost:1")])
def test_what_is_no_key(verb: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("my password\n")
    (tmp_path / "bytes").write_bytes(b"\xff\x00" * 20)
    cases = (
        (("--psk", "my password"), Exit.USAGE, "no key in hex"),
        (("--psk", "0x" + KEY), Exit.USAGE, "no key in hex"),
        (("--psk", "abc"), Exit.USAGE, "no key in hex"),
        (("--psk", "abcdef"), Exit.USAGE, "at least 16"),
        (("--psk", ""), Exit.USAGE, "at least 16"),
        (("--psk", KEY, "--psk-identity", ""), Exit.USAGE, "identity"),
        (("--psk-identity", "x"), Exit.USAGE, "without --psk"),
        (("--psk", f"@{tmp_path}/missing"), Exit.ENVIRONMENT, "no such file"),
        (("--psk", f"@{tmp_path}/text"), Exit.USAGE, "must hold hex digits"),
        (("--psk", f"@{tmp_path}/bytes"), Exit.USAGE, "must hold hex digits"),
    )
    for options, code, expected in cases:
        assert main([*verb, *options]) == code, options
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert expected in line
        for secret in ("my password", KEY, "abcdef"):
            assert secret not in line


def test_a_server_needs_one_or_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--listen", "127.0.0.1:0"]) == Exit.USAGE
    assert "--cert or --psk" in capsys.readouterr().err
    assert main(["serve", "--listen", "127.0.0.1:0", "--key", "x", "--psk", KEY]) == Exit.USAGE
    assert "--key is given without --cert" in capsys.readouterr().err


def test_with_a_key_the_systems_authorities_are_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has a certificate for that name is not who was meant."""
    loaded: list[object] = []
    monkeypatch.setattr(Context, "load_default_certs", lambda context: loaded.append(context))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        for options, times in ((("--psk", KEY), 0), ((), 1)):
            assert main(["connect", where, "--stream", *options]) == Exit.ENVIRONMENT
            assert "nothing listens" in capsys.readouterr().err
            assert len(loaded) == times
