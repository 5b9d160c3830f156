"""The collector: many probes in over STCP, segments to the store, receipts back.

One task a connection moves messages in and out of a Receiver; one task for all takes what came to the
store, which runs on a thread of its own: while one fsync is under way the next group gathers.  Only
what the store says is durable is acknowledged.  A full disk stops receipts and with them credit, so
probes wait; nothing is dropped here.  The list of enrolled probes is read again every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealwire.context import Context
from sealwire.crypto.peers import PeerCertificate
from sealwire.crypto.rawkeys import RawPublicKey
from sealwire.drive import start_server
from sealwire.drive.aio import StreamReader, StreamServer, StreamWriter
from sealwire.errors import ConfigurationError, Error
from sealwire.limits import Limits
from sealwire.probe import delivery
from sealwire.probe.delivery import Enrol, Reason, Refused
from sealwire.probe.enrolled import Enrolled, Probe
from sealwire.probe.receiving import Budget, CollectLimits, Receiver, Refusal, Settled
from sealwire.probe.seal import frames
from sealwire.probe.seal.keys import SigningKey, parse_public_key
from sealwire.probe.store import Rejected, Rejection, Store, Stored
from sealwire.telemetry import Histogram

#: Where the collector's counters are, once a second, in its directory.
FACTS: Final = "collect.json"
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0)
_EVERY_SECONDS: Final = 1.0
#: Most that goes to the store in one call: it is verified and made durable before the next one.
_GROUP_BYTES: Final = 16 << 20

_REASONS: Final = {
    Rejection.UNKNOWN_PROBE: Reason.UNKNOWN_PROBE,
    Rejection.REVOKED: Reason.REVOKED,
    Rejection.FORK: Reason.FORK,
    Rejection.BROKEN_CHAIN: Reason.FORK,
    Rejection.BEHIND: Reason.FORK,
}


@dataclass(slots=True)
class CollectCounters:
    """What a collector counts."""

    connections: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    segments: int = 0
    events: int = 0
    bytes: int = 0
    duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    enrolled: int = 0
    #: Times the store could not take a group: a full disk, or one that fails.
    store_failures: int = 0
    #: Gauges.
    probes: int = 0
    waiting_bytes: int = 0
    lent_bytes: int = 0
    #: From the arrival of a group's first segment to its being durable.
    stored_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))

    def snapshot(self) -> dict[str, Any]:
        """Everything, the histogram as bounds, counts and sum."""
        found: dict[str, Any] = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        stored = self.stored_seconds
        found["stored_seconds"] = {"bounds": stored.bounds, "counts": stored.counts, "sum": stored.sum}
        return found


class _Seat:
    """One connection."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.news = asyncio.Event()
        self.gone = False

    def leave(self) -> None:
        """The connection is gone; what was lent to it comes back when nothing of it waits for the store."""
        self.gone = True
        if not self.receiver.owing:
            self.receiver.close()


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A segment on its way to the store."""

    seat: _Seat
    probe: bytes
    frame: bytes
    at: float


class Collector:
    """Takes probes' segments into a store.

    `key` signs receipts; `context` is a server's, with the certificate and the authorities of the probes.
    """

    def __init__(
        self,
        store: Store,
        enrolled: Enrolled,
        key: SigningKey,
        context: Context,
        *,
        limits: CollectLimits | None = None,
        facts: Path | None = None,
    ) -> None:
        self.counters = CollectCounters()
        #: What is wrong with the store, in a sentence; empty while all is well.
        self.trouble = ""
        self._store, self._enrolled, self._key, self._context = store, enrolled, key, context
        self._limits = limits or CollectLimits()
        self._budget = Budget(self._limits)
        self._facts = facts
        self._seats: set[_Seat] = set()
        self._by_probe: dict[bytes, _Seat] = {}
        self._arrived: list[_Arrived] = []
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._executor = ThreadPoolExecutor(1, "store")
        self._tasks: list[asyncio.Task[None]] = []
        self._server: StreamServer | None = None

    async def start(self, host: str | None, port: int) -> StreamServer:
        """Listen.  Raises ConfigurationError, or OSError for an address that cannot be bound."""
        self._take_raw_keys()
        n = delivery.MESSAGE_MAXIMUM_BYTES
        limits = Limits(
            message_bytes=n,
            receive_queue_bytes=2 * n,
            send_queue_bytes=1 << 20,
            connection_bytes=4 * n,
            total_bytes=self._limits.total_bytes,
            connections=self._limits.probes * 2,
        )
        self._server = await start_server(
            self._handle, host, port, context=self._context, limits=limits, messages=delivery.APPLICATION
        )
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        return self._server

    async def stop(self, seconds: float = 10.0) -> None:
        """Accept nobody any more, store what came, send its receipts, and part."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        for seat in list(self._seats):
            seat.receiver.refuse(Reason.CLOSING, "the collector ends")
            seat.news.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self._seats:
                    await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._executor.shutdown()
        if self._server is not None:
            await self._server.wait_closed()

    # Connections.

    async def _handle(self, reader: StreamReader, writer: StreamWriter) -> None:
        identity, raw_key = _identity(reader)
        receiver = Receiver(
            identity,
            reader.export_keying_material(delivery.EXPORTER_LABEL, delivery.EXPORTER_BYTES),
            key=self._key,
            budget=self._budget,
            lookup=self._enrolled.probe,
            last=self._store.last,
            enrol=lambda message, exported, who: self._enrol(message, exported, who, raw_key),
            now=time.monotonic(),
        )
        seat = _Seat(receiver)
        self._seats.add(seat)
        self.counters.connections += 1
        reading = asyncio.create_task(self._hear(seat, reader))
        try:
            await self._answer(seat, writer, reading)
        except (Error, OSError):
            pass  # the connection broke; what was not acknowledged comes again
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._part(seat)
            writer.close()

    async def _hear(self, seat: _Seat, reader: StreamReader) -> None:
        receiver = seat.receiver
        while True:
            message = await reader.read_message()
            new = receiver.probe is None
            receiver.receive(message, time.monotonic())
            probe = receiver.probe
            if probe is not None:
                if new:
                    self._seat(seat, probe.id)
                arrived = [_Arrived(seat, probe.id, frame, time.monotonic()) for frame in receiver.frames()]
                if arrived:
                    self._arrived += arrived
                    self._settled.clear()
                    self._news.set()
            if receiver.refusal is not None or receiver.done or new:
                seat.news.set()
            elif not receiver.owing:
                seat.news.set()  # it asked

    def _seat(self, seat: _Seat, probe: bytes) -> None:
        before = self._by_probe.get(probe)
        if before is not None:
            before.receiver.refuse(Reason.REPLACED, "the same probe connected again")
            before.news.set()
        self._by_probe[probe] = seat

    async def _answer(self, seat: _Seat, writer: StreamWriter, reading: asyncio.Task[None]) -> None:
        receiver = seat.receiver
        reading.add_done_callback(lambda _: seat.news.set())
        while True:
            receiver.wake(time.monotonic())
            for message in receiver.transmit():
                await writer.drain()
                writer.write_message(message)
            if receiver.refusal is not None:
                self._count(self.counters.refused, receiver.refusal.reason.name)
                return
            if receiver.done or reading.done():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(receiver.deadline() - time.monotonic(), 0.0)):
                    await seat.news.wait()
            seat.news.clear()

    def _part(self, seat: _Seat) -> None:
        self._seats.discard(seat)
        probe = seat.receiver.probe
        if probe is not None and self._by_probe.get(probe.id) is seat:
            del self._by_probe[probe.id]
        seat.leave()

    def _enrol(self, message: Enrol, exported: bytes, identity: bytes, raw_key: bytes) -> None:
        try:
            key = parse_public_key(message.key)
        except ConfigurationError as error:
            raise Refusal(Reason.OTHER, str(error)) from None
        if not key.verify(message.signature, delivery.to_enrol(exported, message.token)):
            raise Refusal(Reason.OTHER, "the signature is not of that key on this connection")
        now = time.time_ns()
        name = self._enrolled.redeem(message.token, now)
        if name is None:
            raise Refusal(Reason.BAD_TOKEN, "the token is unknown, used or too old")
        try:
            self._enrolled.add(Probe(name or message.name, key, identity, now, raw_key))
        except (ConfigurationError, OSError) as error:
            raise Refusal(Reason.OTHER, str(error)) from None
        self.counters.enrolled += 1

    # The store.

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._arrived:
                group = self._group()
                received = time.time_ns()
                given = [(one.probe, one.frame) for one in group]
                try:
                    outcomes = await loop.run_in_executor(
                        self._executor, self._store.append_many, given, received
                    )
                except (Error, OSError) as error:
                    self.counters.store_failures += 1
                    self.trouble = f"the store takes nothing: {error}"
                    self._arrived = group + self._arrived
                    await asyncio.sleep(_EVERY_SECONDS)
                    self._forget_gone()
                    continue
                self.trouble = ""
                self._settle(group, outcomes, received)
            self._settled.set()

    def _group(self) -> list[_Arrived]:
        """What goes to the store next: what is there, up to a size."""
        total = 0
        for at, one in enumerate(self._arrived):
            total += len(one.frame)
            if total > _GROUP_BYTES and at:
                group, self._arrived = self._arrived[:at], self._arrived[at:]
                return group
        group, self._arrived = self._arrived, []
        return group

    def _forget_gone(self) -> None:
        """Connections that ended while the disk was full send theirs again."""
        for seat in {one.seat for one in self._arrived if one.seat.gone}:
            seat.receiver.close()
        self._arrived = [one for one in self._arrived if not one.seat.gone]

    def _settle(self, group: list[_Arrived], outcomes: Sequence[Stored | Rejected], received: int) -> None:
        now = time.monotonic()
        self.counters.stored_seconds.observe(now - group[0].at)
        answers: dict[_Seat, list[Settled]] = {}
        for one, outcome in zip(group, outcomes, strict=True):
            answers.setdefault(one.seat, []).append(self._settled_as(one, outcome))
        for seat, settled in answers.items():
            seat.receiver.settle(settled, received, now)
            seat.news.set()
            if seat.gone and not seat.receiver.owing:
                seat.receiver.close()

    def _settled_as(self, one: _Arrived, outcome: Stored | Rejected) -> Settled:
        counters = self.counters
        if isinstance(outcome, Stored):
            if outcome.new:
                counters.segments += 1
                counters.events += outcome.last_event - outcome.first_event + 1
                counters.bytes += len(one.frame)
            else:
                counters.duplicates += 1
            return Settled(outcome.segment, outcome.hash)
        if outcome.reason is Rejection.REMOVED:
            # It arrived once, and was removed since because of its age: that is no reason to send it again.
            counters.duplicates += 1
            segment = next(frames.unpack(one.frame)).segment
            return Settled(segment.header.segment, segment.hash)
        self._count(counters.rejected, outcome.reason.name)
        reason = _REASONS.get(outcome.reason, Reason.BAD_SEGMENT)
        return Settled(None, b"", Refused(reason, outcome.segment, outcome.words))

    @staticmethod
    def _count(of: dict[str, int], name: str) -> None:
        name = name.lower()
        of[name] = of.get(name, 0) + 1

    # What changes meanwhile.

    async def _watch(self) -> None:
        while True:
            self.refresh()
            self._tell()
            await asyncio.sleep(_EVERY_SECONDS)

    def refresh(self) -> None:
        """Take up changes of the list of probes at once."""
        try:
            changed = self._enrolled.refresh()
        except OSError as error:
            self.trouble = f"the list of probes cannot be read: {error}"
            return
        if changed:
            self._take_raw_keys()
        for seat in list(self._seats):
            seat.receiver.review()
            if seat.receiver.refusal is not None:
                seat.news.set()

    def _take_raw_keys(self) -> None:
        if keys := self._enrolled.raw_keys():
            self._context.set_raw_public_keys(keys)

    def _tell(self) -> None:
        counters = self.counters
        counters.probes = len(self._by_probe)
        counters.waiting_bytes = sum(len(one.frame) for one in self._arrived)
        counters.lent_bytes = self._budget.lent
        if self._facts is None:
            return
        facts = {"time": time.time_ns(), "trouble": self.trouble, **counters.snapshot()}
        fresh = self._facts.with_name(f"{self._facts.name}.new")
        with contextlib.suppress(OSError):  # a full disk
            fresh.write_text(json.dumps(facts))
            fresh.replace(self._facts)


def _identity(reader: StreamReader) -> tuple[bytes, bytes]:
    """The hash of the key that the peer proved to have, and the key itself where it is a raw one."""
    peer = reader.connection.session.peer
    if isinstance(peer, RawPublicKey):
        return peer.fingerprint, peer.spki
    assert isinstance(peer, PeerCertificate), "who shows nothing is not let in"
    return certificate_identity(peer), b""


def certificate_identity(peer: PeerCertificate) -> bytes:
    """The hash of the public key in a certificate: it stays when the certificate is renewed."""
    spki = peer.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()
