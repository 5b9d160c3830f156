"""The exporter: sealed segments from a spool to a collector, over mutually authenticated STCP.

A process of its own, started by `sealwire probe --to`: it speaks with the network and has neither the
capture nor the sealing key.  From the signer (sealwire.probe.seal.outlet) it learns what is durable, and
hands it the receipts.  It connects, delivers in order within the collector's credit, and connects
again for as long as it takes.  When its parent's end of standard input closes, it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sealwire.context import PROTOCOL_CLIENT, Context
from sealwire.drive import open_connection
from sealwire.errors import ConfigurationError, ConnectionClosed, Error
from sealwire.limits import Limits
from sealwire.probe import delivery
from sealwire.probe.backlog import Backlog
from sealwire.probe.disk import replace_file
from sealwire.probe.export.parent import FACTS, UNUSABLE
from sealwire.probe.seal import outlet
from sealwire.probe.seal.keys import PublicKey, SigningKey, load_public_key, parse_public_key
from sealwire.probe.seal.signer import COLLECTOR
from sealwire.probe.seal.wire import Kind
from sealwire.probe.sending import Backoff, Delivered, Denied, Sender
from sealwire.telemetry import Histogram

_LOCK: Final = "exporter.lock"
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0, 600.0)
_CONNECT_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 0.05
_TELL_SECONDS: Final = 1.0
#: Delivery waits if nothing was acknowledged for so long.
_AWAY_SECONDS: Final = 1.0
LIMITS: Final = Limits(
    message_bytes=delivery.MESSAGE_MAXIMUM_BYTES,
    receive_queue_bytes=2 * delivery.MESSAGE_MAXIMUM_BYTES,
    send_queue_bytes=2 * delivery.MESSAGE_MAXIMUM_BYTES,
)


def _histogram() -> Histogram:
    return Histogram(_SECONDS)


@dataclass(slots=True)
class ExportCounters:
    """What an exporter counts."""

    segments_sent: int = 0
    events_sent: int = 0
    bytes_sent: int = 0
    segments_acknowledged: int = 0
    events_acknowledged: int = 0
    connections: int = 0
    failures: int = 0
    refusals: int = 0
    damaged_bytes: int = 0
    #: Gauges.
    connected: int = 0
    flying: int = 0
    credit_segments: int = 0
    credit_bytes: int = 0
    undelivered_bytes: int = 0
    #: From being sealed to being written to the connection, and to the receipt.
    send_seconds: Histogram = field(default_factory=_histogram)
    receipt_seconds: Histogram = field(default_factory=_histogram)
    #: From the earliest packet time in a segment to its receipt; says something of live capture only.
    packet_seconds: Histogram = field(default_factory=_histogram)

    def snapshot(self) -> dict[str, Any]:
        """Everything, histograms as bounds, counts and sum."""
        found: dict[str, Any] = {}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Histogram):
                value = {"bounds": value.bounds, "counts": value.counts, "sum": value.sum}
            found[one.name] = value
        return found


class Exporter:
    """Delivers one spool.  Runs until stopped, or, once told to drain, until nothing is left."""

    def __init__(
        self,
        spool: Path,
        host: str,
        port: int,
        context: Context,
        *,
        server_hostname: str | None = None,
        collector: PublicKey | None = None,
    ) -> None:
        self.counters = ExportCounters()
        #: What is wrong, in a sentence; empty while all is well.
        self.trouble = ""
        self._spool = spool
        self._host, self._port, self._context = host, port, context
        self._server_hostname = server_hostname
        self._collector = collector
        self._backlog = Backlog(spool)
        self._delivered: list[tuple[int, int]] = []
        self._probe = b""
        self._news = asyncio.Event()
        self._link: socket.socket | None = None
        self._flowed = 0.0
        self._waits = False
        self._draining = False
        self._drained = asyncio.Event()
        self._told = False

    async def run(self) -> None:
        """Deliver, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._tell())
            group.create_task(self._deliver())

    async def drain(self, seconds: float) -> bool:
        """Wait until everything sealed is delivered, or that time is over; whether it is."""
        self._draining = True
        self._told = False  # the list of files may be older than the last segments
        self._say_state()
        self._news.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._drained.wait()
        return self._drained.is_set()

    # The signer.

    async def _listen(self) -> None:
        """Hear from the signer what is durable; connect again when it is another one."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                link = outlet.connect(self._spool)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            link.setblocking(False)
            self._link = link
            self._say_state()
            try:
                while packet := await loop.sock_recv(link, outlet.PACKET_BYTES):
                    self._heard(json.loads(packet))
            except OSError:
                pass
            finally:
                self._link = None
                link.close()

    def _heard(self, facts: dict[str, Any]) -> None:
        self._probe = bytes.fromhex(facts["probe"])
        self._delivered = [(first, last) for first, last in facts["delivered"]]
        self._backlog.update([(name, size) for name, size in facts["files"]])
        self.counters.undelivered_bytes = facts["undelivered"]
        self._told = True
        self._news.set()

    def _send_to_signer(self, kind: Kind, body: bytes) -> None:
        if self._link is not None:
            with contextlib.suppress(OSError):  # what it misses is sent again after its next start
                self._link.send(bytes((kind,)) + body)

    def _say_state(self) -> None:
        self._send_to_signer(Kind.STATE, json.dumps({"away": self._away()}).encode())

    def _away(self) -> bool:
        """Whether delivery waits for the collector."""
        return not self.counters.connected or (
            self._waits and time.monotonic() - self._flowed > _AWAY_SECONDS
        )

    async def _tell(self) -> None:
        """Say how it goes, to the signer and into a file."""
        while True:
            self._say_state()
            self.write_facts()
            await asyncio.sleep(_TELL_SECONDS)

    def write_facts(self) -> None:
        facts = {"time": time.time_ns(), "trouble": self.trouble, **self.counters.snapshot()}
        fresh = self._spool / f"{FACTS}.new"
        with contextlib.suppress(OSError):  # a full disk
            fresh.write_text(json.dumps(facts))
            fresh.replace(self._spool / FACTS)

    # The collector.

    async def _deliver(self) -> None:
        backoff = Backoff(random.random)
        while not self._probe:
            await self._wait(1.0)
        while True:
            before = self.counters.segments_acknowledged
            try:
                await self._connection()
            except Denied as denied:
                self.counters.refusals += 1
                self.trouble = str(denied)
            except (Error, OSError, TimeoutError) as error:
                self.counters.failures += 1
                self.trouble = str(error) or type(error).__name__
            finally:
                self.counters.connected = self.counters.flying = 0
                self.counters.credit_segments = self.counters.credit_bytes = 0
            if self.counters.segments_acknowledged != before:
                backoff.reset()
            self._say_state()
            await asyncio.sleep(backoff.wait())

    async def _connection(self) -> None:
        """One connection, until it breaks."""
        reader, writer = await open_connection(
            *(self._host, self._port),
            context=self._context,
            server_hostname=self._server_hostname,
            limits=LIMITS,
            timeout=_CONNECT_SECONDS,
            messages=delivery.APPLICATION,
        )
        self.counters.connections += 1
        sender = Sender(self._probe, f"sealwire {_version()}", self._collector, time.monotonic())
        reading = asyncio.create_task(self._hear(reader, sender))
        try:
            await self._converse(sender, writer, reading)
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading
            writer.abort()

    async def _hear(self, reader: Any, sender: Sender) -> None:
        while True:
            sender.receive(await reader.read_message(), time.monotonic())
            for one in sender.delivered():
                self._acknowledged(one)
            self._news.set()

    async def _converse(self, sender: Sender, writer: Any, reading: asyncio.Task[None]) -> None:
        started = False
        while True:
            if sender.welcomed and not started:
                started = True
                self._begin(sender)
            now = time.monotonic()
            sender.wake(now)
            if started:
                self._feed(sender, now)
            for message in sender.transmit():
                await writer.drain()
                writer.write_message(message)
            self._measure(sender)
            if reading.done():
                reading.result()  # raises why
                raise ConnectionClosed("the collector closed the connection")
            # On this connection: what was read for the one before may not have arrived.
            waits = not started or sender.flying or not self._told
            if self._draining and not waits and self._backlog.peek() is None:
                self._drained.set()
            await self._wait(max(sender.deadline() - time.monotonic(), 0.0))

    async def _wait(self, seconds: float) -> None:
        """Until there is news, or for some time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def _begin(self, sender: Sender) -> None:
        """The collector takes us: from the first segment on that it does not have."""
        assert sender.collector is not None, "a Welcome names it"
        if self._collector is None:
            self._collector = sender.collector
            pin(self._spool, sender.collector)
        last = None if sender.last is None else sender.last[0]
        self._backlog.restart(self._delivered, last)
        self.counters.connected = 1
        self._flowed = time.monotonic()
        self.trouble = ""
        self._say_state()

    def _feed(self, sender: Sender, now: float) -> None:
        """Send as much as there is credit for."""
        while (segment := self._backlog.peek()) is not None and sender.may_send(len(segment.frame)):
            sender.send(segment, now)
            self._backlog.taken()
            counters = self.counters
            counters.segments_sent += 1
            counters.events_sent += segment.events
            counters.bytes_sent += len(segment.frame)
            counters.send_seconds.observe(_since(segment.sealed))
        self._waits = segment is not None or sender.flying > 0

    def _acknowledged(self, one: Delivered) -> None:
        self._send_to_signer(Kind.RECEIPT, one.receipt)
        counters = self.counters
        self._flowed = time.monotonic()
        for segment, _ in one.segments:
            self._backlog.took(segment.number)
            counters.segments_acknowledged += 1
            counters.events_acknowledged += segment.events
            counters.receipt_seconds.observe(_since(segment.sealed))
            if segment.earliest is not None:
                counters.packet_seconds.observe(_since(segment.earliest))

    def _measure(self, sender: Sender) -> None:
        counters = self.counters
        counters.flying = sender.flying
        counters.credit_segments, counters.credit_bytes = sender.credit
        counters.damaged_bytes = self._backlog.damaged


def _since(nanoseconds: int) -> float:
    """Seconds since then; none where the clock was set back."""
    return max(time.time_ns() - nanoseconds, 0) / 1e9


def pin(spool: Path, collector: PublicKey) -> None:
    """Remember whose receipts count.  Raises OSError."""
    replace_file(spool / COLLECTOR, collector.pem())


def pinned(spool: Path) -> PublicKey | None:
    """Whose receipts count, if that is known.  Raises ConfigurationError or OSError."""
    try:
        return load_public_key(spool / COLLECTOR)
    except FileNotFoundError:
        return None


def client_context(config: dict[str, Any]) -> Context:
    """A context for the connection to a collector.  Raises ConfigurationError or OSError.

    `cafile` or `server_keys` (raw public keys, PEM) say whom to trust; `cert` and `tls_key` who we are, or
    `tls_key` alone for a raw key.
    """
    context = Context(PROTOCOL_CLIENT)
    if config.get("server_keys"):
        context.set_raw_public_keys([config["server_keys"]])
    else:
        context.load_verify_locations(cafile=config["cafile"])
    if config.get("cert"):
        context.load_cert_chain(config["cert"], config.get("tls_key"))
    else:
        context.load_raw_public_key(config["tls_key"])
    return context


async def enrol(
    host: str, port: int, config: dict[str, Any], token: bytes, key: SigningKey, name: str
) -> PublicKey:
    """Enrol with a collector, by a token it gave out; the key it signs receipts with.

    `config` is as for `client_context`.  Raises Denied, or another Error or OSError.
    """
    reader, writer = await open_connection(
        *(host, port),
        context=client_context(config),
        server_hostname=config.get("server_hostname"),
        limits=LIMITS,
        timeout=_CONNECT_SECONDS,
        messages=delivery.APPLICATION,
    )
    try:
        exported = writer.export_keying_material(delivery.EXPORTER_LABEL, delivery.EXPORTER_BYTES)
        signature = key.sign(delivery.to_enrol(exported, token))
        asked = delivery.Enrol(delivery.VERSION, token, key.public.spki, signature, name)
        writer.write_message(delivery.encode(asked))
        async with asyncio.timeout(_CONNECT_SECONDS):
            answer = delivery.decode(await reader.read_message())
    finally:
        writer.close()
    if isinstance(answer, delivery.Refused):
        raise Denied(answer)
    if not isinstance(answer, delivery.Enrolled):
        raise delivery.BadMessage(f"a {type(answer).__name__} instead of an Enrolled")
    return parse_public_key(answer.key)


def _version() -> str:
    try:
        return importlib.metadata.version("sealwire")
    except importlib.metadata.PackageNotFoundError:
        return "of a source tree"


async def _locked(spool: Path) -> int:
    """Alone with this spool: an exporter whose parent was killed may still be ending."""
    lock = os.open(spool / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            await asyncio.sleep(_RETRY_SECONDS)


async def _serve(config: dict[str, Any]) -> int:
    """Deliver until standard input ends; `drain SECONDS` in it asks for an end in order."""
    spool = Path(config["spool"])
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    first = asyncio.create_task(lines.readline())
    locking = asyncio.create_task(_locked(spool))
    await asyncio.wait({first, locking}, return_when=asyncio.FIRST_COMPLETED)
    if not locking.done() and not first.result():
        return 1
    await locking
    if config.get("collector"):
        pin(spool, load_public_key(config["collector"]))
    exporter = Exporter(
        *(spool, config["host"], config["port"], client_context(config)),
        server_hostname=config.get("server_hostname"),
        collector=pinned(spool),
    )
    running = asyncio.create_task(exporter.run())
    await asyncio.wait({first, running}, return_when=asyncio.FIRST_COMPLETED)
    good = True
    if running.done():
        running.result()
    line = first.result().split()
    if line[:1] == [b"drain"]:
        good = await exporter.drain(float(line[1]))
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    exporter.write_facts()
    return 0 if good else 1


def main(arguments: list[str]) -> int:
    """Run with one argument, the configuration in JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is the parent's to say
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        return asyncio.run(_serve(json.loads(arguments[0])))
    except (ConfigurationError, OSError) as error:
        print(f"sealwire exporter: {error}", file=sys.stderr)
        return UNUSABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
