"""`sealwire bench dtls`: both ways, paced, in words and as JSON; orders nobody carries out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import sealwire
from sealwire.bench import throughput
from sealwire.bench.throughput import Order
from sealwire.cli import main
from sealwire.drive.pacing import Pacer
from tests import certificates


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server in a thread of its own."""
    identity = certificates.server()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: list[int] = []
    over = asyncio.Event()

    async def serve() -> None:
        context = throughput.server_context(str(identity.certfile), str(identity.keyfile))
        async with await sealwire.start_datagram_server(
            throughput.attend, "127.0.0.1", 0, context=context
        ) as server:
            found.append(server.sockets[0].getsockname()[1])
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(10)
    loop.close()


@pytest.mark.parametrize("ways", [(), ("-R",), ("--bidir",)])
def test_what_was_sent_and_came(port: int, ways: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        "dtls",
        "-c",
        "127.0.0.1",
        "-p",
        str(port),
        "-t",
        "0.3",
        "-l",
        "500",
        "-P",
        "2",
        "-b",
        "4M",
    ]
    assert main([*words, "-i", "0.1", "-J", *ways]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["start"]["test_start"]["num_streams"] == 2
    assert len(document["intervals"]) >= 2
    wanted = {(): {"up"}, ("-R",): {"down"}, ("--bidir",): {"up", "down"}}[ways]
    assert {"up", "down"} & set(document["end"]) == wanted
    for way in wanted:
        one = document["end"][way]
        assert one["packets"] > 0
        assert one["bytes"] == (one["packets"] - one["lost_packets"]) * 500
        assert one["bits_per_second"] < 2 * 4e6 * 2


def test_words(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bench", "dtls", "-c", "127.0.0.1", "-p", str(port), "-t", "0.1", "-l", "99", "-b", "1M"]) == 0
    )
    out = capsys.readouterr().out
    assert "sent to the server: " in out
    assert "CPU: here " in out


def test_an_order_that_is_refused(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dtls", "-c", "127.0.0.1", "-p", str(port), "-t", "0.1", "-l", "1300"]) == 1
    assert "does not carry out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["dtls"],
        ["dtls", "-s", "-c", "x"],
        ["dtls", "-c", "x", "-t", "0"],
        ["dtls", "-c", "x", "-l", "5000"],
        ["dtls", "-c", "x", "-P", "0"],
        ["dtls", "-c", "x", "-b", "fast"],
        ["udp", "-R"],
    ],
)
def test_words_that_make_no_sense(words: list[str]) -> None:
    assert main(["bench", *words]) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 0},
        {"seconds": 1e9},
        {"seconds": "x"},
        {"length": 0},
        {"length": 2000},
        {"rate": -1},
        {"seconds": None},
        {"seconds": float("nan")},
    ],
)
def test_orders_nobody_carries_out(change: dict[str, Any]) -> None:
    good = {"seconds": 1, "length": 10, "rate": 0, "up": True, "down": False}
    assert Order.read(good, 1000) == Order(1.0, 10, 0.0, True, False)
    with pytest.raises((ValueError, TypeError)):
        Order.read({**good, **change}, 1000)


def test_pacing() -> None:
    pacer = Pacer(1_000_000, 0.0)
    assert pacer.spend(10_000, 0.0) == 0  # the burst
    assert pacer.spend(1_000, 0.0) == pytest.approx(0.001)
    assert pacer.spend(0, 0.001) == 0
    assert pacer.spend(10_000, 10.0) == 0  # what was saved up is a burst and no more
    assert pacer.spend(5_000, 10.0) == pytest.approx(0.005)
    with pytest.raises(ValueError, match="not positive"):
        Pacer(0, 0.0)
