"""Presets change how much waits and when it leaves, and nothing of what is checked."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import sealwire
from sealwire import presets
from sealwire.drive.aio import Batcher
from sealwire.errors import CertificateError, ConnectionClosed, Error
from sealwire.limits import Limits, check_limits
from sealwire.presets import PRESETS, DatagramOptions, Flush, Preset, StreamOptions
from tests import certificates
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_datagrams, echo_stream, port_of, run

ROOT = Path(__file__).resolve().parents[2]
EACH = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)

# What a preset may set.  Everything else of Limits protects keys, or somebody who is not proved yet.
_MAY_CHANGE = {
    "total_bytes",
    "connection_bytes",
    "connections",
    "handshakes",
    "send_queue_bytes",
    "receive_queue_bytes",
    "handshake_seconds",
    "rekey_seconds",
    # Tighter only, below.
    "prefix_bytes",
    "site_bytes",
    "handshake_message_bytes",
    "certificate_chain_bytes",
    "reassembly_ranges",
    "hello_slots",
}
_TIGHTER_ONLY = {"handshake_message_bytes", "certificate_chain_bytes", "reassembly_ranges", "hello_slots"}


def test_the_five_are_there_by_name() -> None:
    assert set(PRESETS) == {"low latency", "high throughput", "interactive", "streaming", "IoT sensor"}
    assert sealwire.presets.PRESETS is PRESETS
    assert presets.LOW_LATENCY.limits.send_queue_bytes < Limits().send_queue_bytes


@EACH
def test_no_preset_touches_a_check(preset: Preset) -> None:
    default = Limits()
    changed = {
        field.name
        for field in fields(Limits)
        if getattr(preset.limits, field.name) != getattr(default, field.name)
    }
    assert changed <= _MAY_CHANGE
    for name in changed & _TIGHTER_ONLY:
        assert getattr(preset.limits, name) < getattr(default, name)
    # A day at most under one key, and the AEAD's own limits hold beside it.
    assert preset.limits.rekey_seconds <= 86_400


@EACH
def test_its_limits_agree_with_each_other(preset: Preset) -> None:
    assert check_limits(preset.limits) == []


def test_a_preset_has_nothing_that_could_be_a_check() -> None:
    """Who the peer is, and what is checked, is the Context's; a preset has no place for one."""
    assert {field.name for field in fields(Preset)} == {
        "name",
        "meant_for",
        "limits",
        "upkeep",
        "flush",
        "latency_seconds",
    }
    for options, takers in (
        (DatagramOptions, (sealwire.open_datagram_channel, sealwire.start_datagram_server)),
        (StreamOptions, (sealwire.open_connection, sealwire.start_server)),
    ):
        for taker in takers:
            assert set(options.__annotations__) <= set(inspect.signature(taker).parameters)
        assert set(options.__annotations__) <= {"limits", "mtu", "upkeep"}


@EACH
def test_both_transports_work_and_refuse_a_stranger(preset: Preset) -> None:
    stranger = client_context(certificates.server(certificates.Kind.RSA_2048).cafile)

    async def main() -> None:
        serve: Any = sealwire.start_datagram_server
        async with await serve(
            echo_datagrams, "127.0.0.1", 0, context=server_context(), **preset.datagrams()
        ) as server:
            where = ("127.0.0.1", port_of(server))
            async with sealwire.open_datagram_channel(
                *where, context=client_context(), **preset.datagrams()
            ) as channel:
                await channel.send(b"hello")
                assert await channel.recv() == b"hello"
            with pytest.raises(CertificateError):
                await sealwire.open_datagram_channel(*where, context=stranger, **preset.datagrams())
        async with await sealwire.start_server(
            echo_stream, "127.0.0.1", 0, context=server_context(), **preset.streams()
        ) as streams:
            where = ("127.0.0.1", port_of(streams))
            reader, writer = await sealwire.open_connection(
                *where, context=client_context(), **preset.streams()
            )
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
            with pytest.raises(CertificateError):
                await sealwire.open_connection(*where, context=stranger, **preset.streams())

    run(main(), seconds=60)


@pytest.mark.parametrize("wrong", [{"seconds": -1}, {"most_bytes": 0}, {"most_messages": 0}])
def test_flushes_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"least|negative"):
        Flush(**wrong)


# --- collecting small sends ------------------------------------------------------------------------


def talk(use: Any) -> None:
    """Run ``use(channel, received)`` with a channel whose server writes down what comes, in order."""

    async def main() -> None:
        received: list[bytes] = []

        async def note(channel: sealwire.drive.DatagramChannel) -> None:
            async for data in channel:
                received.append(data)  # noqa: PERF401 - others look at it meanwhile

        async with (
            await sealwire.start_datagram_server(note, "127.0.0.1", 0, context=server_context()) as server,
            sealwire.open_datagram_channel("127.0.0.1", port_of(server), context=client_context()) as channel,
        ):
            await use(channel, received)

    run(main())


async def until(received: list[bytes], n: int) -> None:
    async with asyncio.timeout(10):
        while len(received) < n:
            await asyncio.sleep(0.002)


def test_messages_wait_for_each_other_and_keep_their_boundaries() -> None:
    async def use(channel: sealwire.drive.DatagramChannel, received: list[bytes]) -> None:
        sent = channel.statistics()["datagrams_sent"]
        async with Batcher(channel, seconds=30, most_messages=4) as batcher:
            for n in range(3):
                await batcher.send(b"%d" % n)
            await asyncio.sleep(0.05)
            assert channel.statistics()["datagrams_sent"] == sent
            await batcher.send(bytearray(b"3"))
            await until(received, 4)
            assert received == [b"0", b"1", b"2", b"3"]
            await batcher.send(b"4")
        await until(received, 5)

    talk(use)


def test_the_oldest_waits_no_longer_than_it_may() -> None:
    async def use(channel: sealwire.drive.DatagramChannel, received: list[bytes]) -> None:
        batcher = Batcher(channel, seconds=0.01)
        for round_ in range(3):
            await batcher.send(b"x")
            await until(received, round_ + 1)
        await batcher.aclose()

    talk(use)


def test_bytes_count_as_well_and_zero_seconds_send_at_once() -> None:
    async def use(channel: sealwire.drive.DatagramChannel, received: list[bytes]) -> None:
        batcher = Batcher(channel, seconds=30, most_bytes=100)
        await batcher.send(bytes(99))
        await batcher.send(b"x")
        await until(received, 2)
        at_once = Batcher(channel, seconds=0)
        await at_once.send(b"now")
        await until(received, 3)

    talk(use)


def test_what_became_of_a_send_that_waited_is_told_by_the_next_call() -> None:
    async def use(channel: sealwire.drive.DatagramChannel, received: list[bytes]) -> None:
        batcher = Batcher(channel, seconds=0.01)
        await batcher.send(b"too late")
        await channel.aclose()
        await asyncio.sleep(0.05)
        with pytest.raises((ConnectionClosed, Error)):
            await batcher.send(b"x")
        with pytest.raises(KeyError):  # noqa: PT012
            async with Batcher(channel, seconds=30) as another:
                await another.send(b"never sent")
                raise KeyError

    talk(use)


def test_small_writes_of_a_stream_share_records() -> None:
    async def main() -> None:
        async with await sealwire.start_server(
            echo_stream, "127.0.0.1", 0, context=server_context()
        ) as server:
            reader, writer = await sealwire.open_connection(
                "127.0.0.1", port_of(server), context=client_context()
            )
            before = writer.statistics()["records_sealed"]
            async with Batcher(writer, seconds=30, most_messages=50) as batcher:
                for n in range(100):
                    await batcher.send(b"%02d" % n)
            assert writer.statistics()["records_sealed"] - before == 2
            expected = b"".join(b"%02d" % n for n in range(100))
            assert await reader.readexactly(200) == expected
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("wrong", [{"seconds": -1.0}, {"seconds": 1.0, "most_bytes": 0}])
def test_batchers_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="least"):
        Batcher(None, **wrong)  # type: ignore[arg-type]


def test_the_manual_says_what_each_preset_sets() -> None:
    manual = (ROOT / "docs" / "presets.md").read_text("utf-8")
    default = Limits()
    for preset in PRESETS.values():
        for field in fields(Limits):
            value = getattr(preset.limits, field.name)
            if value != getattr(default, field.name):
                assert f"`{field.name}={value}`" in manual, preset.name
