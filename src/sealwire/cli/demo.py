"""`sealwire demo`: everything at once on this machine, with a summary a person can read."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sealwire
from sealwire.cli import authority, evidence, lossy, send
from sealwire.cli import options as common
from sealwire.cli.plain import HOST, PlainChannel
from sealwire.cli.say import Exit, Failure, Say

if TYPE_CHECKING:
    from sealwire.drive.aio import DatagramChannel

_SMALLEST_FILE_BYTES = 5_000_000
_LARGEST_FILE_BYTES = 1 << 30
# The first handshake of a process pays for loading libraries; the median of a few does not.
_HANDSHAKES = 5
_START_SECONDS = 30.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--file", type=Path, help="what to send (default: the Python interpreter's program file)"
    )
    parser.add_argument("--seed", type=int, default=2, metavar="N", help="of the simulated link (default: 2)")


def run(args: argparse.Namespace, say: Say) -> Exit:
    name, data = _file(args.file)
    say.fact("file", f"file: {name}, {len(data):,} bytes", file=name, bytes=len(data))
    with tempfile.TemporaryDirectory(prefix="sealwire-demo-") as temporary:
        directory = Path(temporary)
        made = authority.make(authority.LOCAL_NAMES, authority.LOCAL_ADDRESSES, days=1, key_type="ec")
        authority.write(directory, made)
        ways, seen = asyncio.run(_all_ways(directory, data, Progress(say)))
        _report(ways, seen, len(data), say)
        survival = lossy.survive(directory, args.seed)
    _report_survival(survival, args.seed, say)
    whole = all(way.measured.intact for way in ways) and survival.connected and survival.intact
    whole = whole and (seen is None or seen.whole)
    say.fact(
        "verdict",
        "Everything arrived whole." if whole else "NOT everything arrived whole.",
        whole=whole,
    )
    return Exit.OK if whole else Exit.NO


def _file(path: Path | None) -> tuple[str, bytes]:
    chosen = Path(sys.executable).resolve() if path is None else path
    try:
        with chosen.open("rb") as file:
            data = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(
            Exit.ENVIRONMENT, f"cannot read {chosen}, {reason}", "choose another file with --file"
        ) from error
    if len(data) > _LARGEST_FILE_BYTES:
        raise Failure(Exit.USAGE, f"{chosen} is larger than 1 GiB", "choose a smaller file with --file")
    if path is None and len(data) < _SMALLEST_FILE_BYTES:
        times = -(-_SMALLEST_FILE_BYTES // len(data))
        return f"{chosen}, {times} times over because it is small", data * times
    return str(chosen), data


@dataclass(frozen=True, slots=True)
class Way:
    """One way the file went.  `negotiated` is empty and the handshake 0 where there is none."""

    name: str
    negotiated: dict[str, object]
    handshake_seconds: float
    measured: send.Measured


class Progress:
    """A percentage on the terminal while something is on its way; nothing where there is no terminal."""

    def __init__(self, say: Say) -> None:
        self._shown = not say.json and sys.stderr.isatty()
        self._next = 0.0

    def of(self, name: str) -> send.Progress:
        def show(part: float) -> None:
            if self._shown and time.monotonic() >= self._next:
                self._next = time.monotonic() + 0.1
                sys.stderr.write(f"\r{name}: {part:4.0%} ")
                sys.stderr.flush()

        return show

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


async def _all_ways(
    directory: Path, data: bytes, progress: Progress
) -> tuple[list[Way], evidence.Evidence | None]:
    """How the file went, and what a probe saw of it; None where what that needs is not installed."""
    context = sealwire.create_default_context(cafile=directory / "ca.pem")
    ways: list[Way] = []
    watched = None if evidence.missing() else evidence.Watched(directory)
    async with contextlib.AsyncExitStack() as stack:
        secured, plain = await stack.enter_async_context(_receiving("datagrams", directory))
        live = False
        if watched is not None:
            stack.push_async_callback(watched.close)
            live = await watched.begin(secured)

        async def open_channel(port: int = secured) -> DatagramChannel:
            return await sealwire.open_datagram_channel(
                HOST, port, context=context, server_hostname="localhost"
            )

        times = []
        for n in range(_HANDSHAKES):
            start = time.perf_counter()
            async with await open_channel() as channel:
                times.append(time.perf_counter() - start)
                if n == _HANDSHAKES - 1:
                    size = channel.max_message_bytes
                    measured = await send.over_datagrams(channel, data, progress.of("DTLS 1.3"))
                    ways.append(Way("DTLS 1.3", common.facts(channel), statistics.median(times), measured))
        with PlainChannel(plain, size) as plain_channel:
            measured = await send.over_datagrams(plain_channel, data, progress.of("plain UDP"))
            ways.append(Way("plain UDP", {}, 0.0, measured))
        if watched is not None:
            if not live:
                capture = directory / "capture.pcap"
                async with evidence.relayed(capture, secured) as port, await open_channel(port) as channel:
                    await send.over_datagrams(channel, data[: evidence.RELAYED_BYTES], progress.of("relay"))
                await watched.read(capture)
            progress.clear()
            await watched.end()

    async with _receiving("streams", directory) as (secured, plain):
        times = []
        for n in range(_HANDSHAKES):
            start = time.perf_counter()
            reader, writer = await sealwire.open_connection(
                HOST, secured, context=context, server_hostname="localhost"
            )
            times.append(time.perf_counter() - start)
            if n == _HANDSHAKES - 1:
                measured = await send.over_stream(reader, writer, data, progress.of("STCP"))
                ways.append(Way("STCP (TLS 1.3)", common.facts(writer), statistics.median(times), measured))
            writer.close()
            await writer.wait_closed()
        plain_reader, plain_writer = await asyncio.open_connection(HOST, plain)
        measured = await send.over_stream(plain_reader, plain_writer, data, progress.of("plain TCP"))
        plain_writer.close()
        await plain_writer.wait_closed()
        ways.append(Way("plain TCP", {}, 0.0, measured))
    progress.clear()
    return ways, None if watched is None else watched.evidence


@asynccontextmanager
async def _receiving(kind: str, directory: Path) -> AsyncIterator[tuple[int, int]]:
    """The receiving process of `kind`; its secured and its plain port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sealwire.cli.receive",
        kind,
        directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise Failure(
                Exit.ENVIRONMENT,
                f"the receiving process for {kind} ended before it was ready",
                "read what it said above",
            )
        ports = json.loads(line)
        yield ports["secured"], ports["plain"]
    finally:
        process.stdin.close()
        await process.wait()


def _report(ways: Sequence[Way], seen: evidence.Evidence | None, size: int, say: Say) -> None:
    rows: list[tuple[str, ...]] = [("", *(way.name for way in ways))]
    rows += [
        (fact, *(str(way.negotiated.get(fact, "-")) for way in ways))
        for fact in ("version", "suite", "group", "peer")
    ]
    rows += [
        ("handshake", *(_milliseconds(way.handshake_seconds) for way in ways)),
        ("round trip", *(_milliseconds(way.measured.round_trip_seconds) for way in ways)),
        ("throughput", *(f"{size / way.measured.transfer_seconds / 1e6:.1f} MB/s" for way in ways)),
        ("chunks resent", *(str(way.measured.retransmissions) for way in ways)),
        ("SHA-256", *("equal" if way.measured.intact else "DIFFERENT" for way in ways)),
    ]
    if seen is not None:
        # The probe saw the first way only.
        rows += [(name, value, *("-" for _ in ways[1:])) for name, value in seen.rows()]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        say.words("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if seen is None:
        say.words(f"what a probe would have seen of it: pip install 'sealwire[query]' ({evidence.missing()})")
    else:
        say.words(f"the last five lines: what a probe saw of DTLS 1.3, {seen.how}")
        say.record("evidence", **seen.facts, whole=seen.whole)
    for way in ways:
        say.record(
            "way",
            name=way.name,
            **way.negotiated,
            handshake_seconds=way.handshake_seconds,
            round_trip_seconds=way.measured.round_trip_seconds,
            bytes_per_second=size / way.measured.transfer_seconds,
            retransmissions=way.measured.retransmissions,
            intact=way.measured.intact,
        )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds else "-"


def _report_survival(survival: lossy.Survival, seed: int, say: Say) -> None:
    say.words("")
    say.words(
        f"DTLS 1.3 over a simulated link: {lossy.LOSS:.0%} lost, {lossy.REORDER:.0%} reordered, seed {seed}"
    )
    if not survival.connected:
        say.words("  the handshake did NOT complete")
    else:
        say.words(
            f"  handshake complete after {survival.handshake_seconds:.2f} s of virtual time,"
            f" flights sent again: {survival.handshake_retransmissions}"
        )
        say.words(
            f"  {lossy.FILE_BYTES:,} bytes {'whole' if survival.intact else 'NOT whole'} after"
            f" {survival.seconds:.2f} s, chunks sent again: {survival.chunks_resent}"
        )
    say.words(f"  {survival.datagrams} datagrams, {survival.lost} lost, {survival.reordered} reordered")
    say.record("lossy link", seed=seed, **asdict(survival))
