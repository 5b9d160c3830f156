"""`--cid` of `sealwire serve` and `sealwire connect`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.running import sealwire, serving


@pytest.mark.parametrize(
    ("serve", "connect", "received", "sent"),
    [
        ((), (), 8, 0),
        (("--cid", "4"), ("--cid", "255"), 4, 255),
        (("--cid", "0"), ("--cid", "3"), 0, 3),
        (("--cid", "off"), ("--cid", "3"), 0, 0),
    ],
)
def test_each_end_says_which_ids_are_in_its_records(
    pki: Path, serve: tuple[str, ...], connect: tuple[str, ...], received: int, sent: int
) -> None:
    identity = "--cert", pki / "server.pem", "--key", pki / "server.key"
    with serving("--listen", "127.0.0.1:0", *identity, "--echo", *serve) as server:
        where = f"127.0.0.1:{server.port}"
        ended = sealwire(
            "--json", "connect", where, "--cafile", pki / "ca.pem", "--wait", "0.2", *connect, given=b"hello"
        )
        assert ended.code == 0
        connected = ended.objects[0]
        assert (connected["cid_received"], connected["cid_sent"]) == (sent, received)
        connected = server.next_object()
        assert (connected["cid_received"], connected["cid_sent"]) == (received, sent)
        assert [one["event"] for one in ended.objects[1:]] == ["data"]


@pytest.mark.parametrize("value", ["3", "21", "-1", "on", ""])
def test_a_server_refuses_lengths_it_could_not_route_by(pki: Path, value: str) -> None:
    ended = sealwire("serve", "--cert", pki / "server.pem", f"--cid={value}")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert "neither 0, nor 4 to 20 bytes, nor off" in ended.err


@pytest.mark.parametrize("value", ["256", "-1", "off"])
def test_a_client_refuses_lengths_no_id_has(value: str) -> None:
    ended = sealwire("connect", "127.0.0.1:9", f"--cid={value}")
    assert ended.code == 2
    assert "is not a number of bytes from 0 to 255" in ended.err
