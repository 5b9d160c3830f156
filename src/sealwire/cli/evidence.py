"""The demo's own transfer as a probe saw it: captured, sealed, collected, asked for, verified.

Live on the loopback interface where this user may capture; where not, one more, smaller transfer goes
through a relay here that writes what passes into a capture file.  Either way the packets go through the
real programs: `sealwire probe` seals them and delivers to `sealwire collect`, whose store is asked in SQL
and verified.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

_START_SECONDS = 20.0
_END_SECONDS = 60.0
#: What goes through the relay where nothing may be captured.
RELAYED_BYTES = 500_000
_NEEDED = ("cbor2", "zstandard", "pyarrow", "duckdb")
_RAW_IP = 101


@dataclass(slots=True)
class Evidence:
    """What became of the packets; empty words for steps that were not reached."""

    how: str = ""
    flows: str = ""
    sealed: str = ""
    collected: str = ""
    queried: str = ""
    verified: str = ""
    #: Whether every step ended as it should.
    whole: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """Rows of the table."""
        return [
            *(("flows", self.flows), ("sealed", self.sealed), ("collected", self.collected)),
            *(("queried", self.queried), ("verified", self.verified)),
        ]


def missing() -> str:
    """What is not installed that this needs; "" where all is there."""
    return ", ".join(name for name in _NEEDED if importlib.util.find_spec(name) is None)


class Watched:
    """A collector, and a probe that delivers to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._collector: asyncio.subprocess.Process | None = None
        self._probe: asyncio.subprocess.Process | None = None
        self._port = 0
        self.evidence = Evidence()

    async def begin(self, port: int) -> bool:
        """Start the collector, and capture what goes to `port`; whether that may be."""
        for name in ("probe.key", "collector.key"):
            await self._done("keygen", self._directory / name)
        await self._done(
            *("enroll", "--enrolled", self._directory / "enrolled", "--name", "demo"),
            *("--key", self._directory / "probe.key.pub", "--identity", self._directory / "client.pem"),
        )
        self._collector, said = await self._started(
            *("collect", "--listen", "127.0.0.1:0", "--no-compaction"),
            *("--cert", self._directory / "server.pem", "--key", self._directory / "server.key"),
            *("--client-ca", self._directory / "ca.pem", "--sign", self._directory / "collector.key"),
            *("--enrolled", self._directory / "enrolled", "--out", self._directory / "store"),
        )
        self._port = said["port"]
        self._probe, said = await self._started(
            "probe", "-i", "lo", "-f", f"udp port {port}", *self._sealing()
        )
        if said.get("event") == "capturing":
            self.evidence.how = "captured live on lo"
            return True
        await self._probe.wait()
        self._probe = None
        return False

    def _sealing(self) -> list[object]:
        place = self._directory
        return [
            *("--sign", place / "probe.key", "--spool", place / "spool", "--to", f"127.0.0.1:{self._port}"),
            *(
                "--cafile",
                place / "ca.pem",
                "--cert",
                place / "client.pem",
                "--tls-key",
                place / "client.key",
            ),
            *("--server-name", "localhost", "--collector", place / "collector.key.pub"),
        ]

    async def read(self, capture: Path) -> None:
        """Have the probe read a capture file instead."""
        self.evidence.how = "through a relay that wrote a capture file"
        self._probe = await self._start("probe", "-r", capture, *self._sealing())

    async def end(self) -> None:
        """End the capture in order; ask and verify what the collector has."""
        try:
            await self._end()
        except (OSError, ValueError, LookupError, TimeoutError) as error:
            words = str(error) or type(error).__name__
            self.evidence.verified = f"NOT shown: {words}"
            self.evidence.facts = {"how": self.evidence.how, "trouble": words}

    async def _end(self) -> None:
        assert self._probe is not None
        assert self._collector is not None
        if self.evidence.how == "captured live on lo":
            self._probe.send_signal(signal.SIGTERM)
        said = await self._last_words(self._probe)
        self._probe = None
        evidence = self.evidence
        summary, sealed = said.get("summary", {}), said.get("sealed", {})
        delivered = said.get("delivered", {})
        evidence.flows = f"{summary.get('exported', 0)} flows, {summary.get('packets', 0):,} packets"
        evidence.sealed = f"{sealed.get('sequence', -1) + 1} events"
        evidence.collected = f"{delivered.get('events', 0)} events"
        self._collector.send_signal(signal.SIGTERM)
        await self._last_words(self._collector)
        self._collector = None
        complete = delivered.get("complete") is True
        asked, good = await asyncio.to_thread(self._judge)
        evidence.queried = f"{asked['flows']} of dtls, {asked['packets']:,} packets"
        evidence.verified = "good" if good else "BROKEN"
        evidence.whole = bool(
            good and complete and asked["flows"] and asked["events"] == sealed.get("sequence", -1) + 1
        )
        evidence.facts = {
            **{"how": evidence.how, "flows": summary.get("exported"), "packets": summary.get("packets")},
            **{"sealed_events": sealed.get("sequence", -1) + 1, "collected_events": delivered.get("events")},
            **{"queried_flows": asked["flows"], "queried_packets": asked["packets"], "verified": good},
        }

    def _judge(self) -> tuple[dict[str, int], bool]:
        """What a question says, and whether the store verifies."""
        from sealwire.cli import sealed
        from sealwire.probe.seal.keys import load_public_key
        from sealwire.probe.store.query import Questions
        from sealwire.probe.verify import Trust, Verifier

        store = self._directory / "store"
        with Questions(store) as questions:
            flows, packets = next(
                questions.ask(
                    "select count(*), coalesce(sum(forward_packets + backward_packets), 0) from flows "
                    "where application = 'dtls'"
                ).rows()
            )
            (events,) = next(
                questions.ask("select coalesce(sum(last_event - first_event + 1), 0) from segments").rows()
            )
        key = load_public_key(self._directory / "probe.key.pub")
        verifier = Verifier(Trust({key.id: key}), time.time_ns())
        for chain in sealed.chains(store):
            for file in sealed.files(chain):
                for _, segment in sealed.segments(file.read_bytes()):
                    verifier.segment(file.name, segment)
        verifier.finish()
        found = {"flows": int(flows), "packets": int(packets), "events": int(events)}
        return found, verifier.totals.faults == 0 and verifier.totals.segments > 0

    async def close(self) -> None:
        """End what still runs."""
        for process in (self._probe, self._collector):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()

    # -- programs

    async def _start(self, *arguments: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sealwire.cli", "--json", *map(str, arguments)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def _started(self, *arguments: object) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
        """A program, and the first thing it says."""
        process = await self._start(*arguments)
        assert process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = await process.stdout.readline()
        return process, json.loads(line or b"{}")

    async def _done(self, *arguments: object) -> None:
        process = await self._start(*arguments)
        await asyncio.wait_for(process.communicate(), _START_SECONDS)

    @staticmethod
    async def _last_words(process: asyncio.subprocess.Process) -> dict[str, dict[str, Any]]:
        """What a program says until it ends, by event."""
        out, _ = await asyncio.wait_for(process.communicate(), _END_SECONDS)
        said = [json.loads(line) for line in out.splitlines()]
        return {one["event"]: one for one in said if "event" in one}


class Relay(asyncio.DatagramProtocol):
    """Passes datagrams between one client and a server, and writes them into a capture file."""

    def __init__(self, file: Path, server: int) -> None:
        self._out = file.open("wb")
        # pcap with nanoseconds, raw IP packets.
        self._out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, _RAW_IP))
        self._server = ("127.0.0.1", server)
        self._client: tuple[str, int] | None = None
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        assert self._transport is not None
        if address == self._server:
            if self._client is None:
                return
            source, destination = self._server, self._client
        else:
            self._client = address
            source, destination = address, self._server
        self._write(data, source, destination)
        self._transport.sendto(data, destination)

    def _write(self, data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> None:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
        total = 28 + len(data)
        packet = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0x4000, 64, 17, 0) + addresses
        packet += struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0) + data
        self._out.write(struct.pack("<IIII", seconds, nanoseconds, total, total) + packet)

    def close(self) -> None:
        """End, with the file whole."""
        if self._transport is not None:
            self._transport.close()
        self._out.close()


@contextlib.asynccontextmanager
async def relayed(file: Path, server: int) -> AsyncIterator[int]:
    """A port that leads to `server`'s; what passes is in `file` afterwards."""
    relay = Relay(file, server)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: relay, local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        relay.close()
