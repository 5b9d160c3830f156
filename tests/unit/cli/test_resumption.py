"""`connect --sess-out/--sess-in` and `serve --num-tickets/--ticket-keys`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import certificates
from tests.unit.cli.running import sealwire, serving

BOTH = pytest.mark.parametrize("transport", [(), ("--stream",)], ids=["dtls", "stream"])


def identity() -> tuple[str, ...]:
    own = certificates.server()
    return ("--cert", str(own.certfile), "--key", str(own.keyfile))


@BOTH
def test_tickets_in_files(tmp_path: Path, transport: tuple[str, ...]) -> None:
    sessions = tmp_path / "sessions"
    trust = ("--cafile", str(certificates.server().cafile), "--servername", "localhost", *transport)
    keys = tmp_path / "keys"
    keys.write_text("00" * 32 + "\n" + "11" * 32 + "\n")
    with serving(
        "--listen", "127.0.0.1:0", "--echo", *identity(), "--ticket-keys", str(keys), *transport
    ) as server:
        peer = f"127.0.0.1:{server.port}"
        full = sealwire("connect", peer, *trust, "--sess-out", sessions, given=b"a")
        assert (full.code, full.out) == (0, b"a")
        assert "resumed" not in full.err
        assert sessions.stat().st_mode & 0o777 == 0o600
        assert len(json.loads(sessions.read_text())["tickets"]) == 1
        # The ticket is used once, and the new one kept in its place.
        for _ in range(2):
            before = sessions.read_bytes()
            again = sealwire("--json", "connect", peer, *trust, "--sess-in", sessions, given=b"b")
            assert again.code == 0
            assert again.objects[0]["resumed"] is True
            assert sessions.read_bytes() != before
        # Another server's: not offered there.
        sessions.chmod(0o640)
        refused = sealwire("connect", peer, *trust, "--sess-in", sessions)
        assert refused.code == 3
        assert "others may read" in refused.err
    # A server that has the key, though it seals under another.
    sessions.chmod(0o600)
    keys.write_text("22" * 32 + "\n" + "00" * 32 + "\n")
    listen = ("--listen", f"127.0.0.1:{server.port}", "--num-tickets", "0", "--ticket-keys", str(keys))
    with serving(*listen, *identity(), *transport) as server:
        ended = sealwire("connect", peer, *trust, "--sess-in", sessions, "--sess-out", tmp_path / "other")
        assert ended.code == 0
        # Who gives no tickets takes none.
        assert "resumed" not in ended.err
        assert json.loads(sessions.read_text())["tickets"] == []
        assert json.loads((tmp_path / "other").read_text())["tickets"] == []


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    ended = sealwire("connect", "localhost:1", "--sess-in", absent)
    assert (ended.code, str(absent) in ended.err) == (3, True)
    for content, words in (("zz", "no key in hex"), ("00", "too short"), ("", "no ticket key")):
        keys = tmp_path / "keys"
        keys.write_text(content)
        ended = sealwire("serve", *identity(), "--ticket-keys", keys)
        assert ended.code == 2, ended.err
        assert words in ended.err
    keys.write_bytes(b"\xff")
    assert "no key in hex" in sealwire("serve", *identity(), "--ticket-keys", keys).err
    assert sealwire("serve", *identity(), "--ticket-keys", absent).code == 3
    assert sealwire("serve", *identity(), "--num-tickets", "9").code == 2


@BOTH
def test_early_data(tmp_path: Path, transport: tuple[str, ...]) -> None:
    sessions, question = tmp_path / "sessions", tmp_path / "question"
    question.write_bytes(b"what is the time?")
    trust = ("--cafile", str(certificates.server().cafile), "--servername", "localhost", *transport)
    early = ("--early-data", question)
    listen = ("--listen", "127.0.0.1:0", "--echo", "--max-early-data", "100")
    with serving(*listen, *identity(), *transport) as server:
        peer = f"127.0.0.1:{server.port}"
        first = sealwire("--json", "connect", peer, *trust, "--sess-out", sessions, *early)
        assert first.objects[0]["early_data"] == "not offered"
        for said, out in (("accepted", b"what is the time?"), ("accepted", b"what is the time?")):
            again = sealwire("connect", peer, *trust, "--sess-in", sessions, *early)
            assert (again.code, again.out) == (0, out)
            assert f"resumed, early data {said}" in again.err
    absent = tmp_path / "absent"
    ended = sealwire("connect", peer, *trust, "--early-data", absent)
    assert (ended.code, str(absent) in ended.err) == (3, True)
    assert sealwire("serve", *identity(), "--max-early-data", "70000").code == 2
