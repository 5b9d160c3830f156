"""Exporter and collector over real sockets: what arrives, who is refused, and what no fault may lose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

import sealwire
from sealwire.drive.aio import StreamReader, StreamWriter
from sealwire.errors import Error
from sealwire.probe import delivery, sending
from sealwire.probe.collect import Collector, certificate_identity
from sealwire.probe.delivery import Reason
from sealwire.probe.enrolled import Enrolled, Probe
from sealwire.probe.export import exporter as export
from sealwire.probe.export.exporter import LIMITS, Exporter
from sealwire.probe.features import row_struct
from sealwire.probe.receiving import CollectLimits
from sealwire.probe.seal import frames
from sealwire.probe.seal.delivered import Delivered
from sealwire.probe.seal.intake import Flows
from sealwire.probe.seal.outlet import Outlet
from sealwire.probe.seal.recorder import Recorder
from sealwire.probe.seal.segment import Segment
from sealwire.probe.seal.wire import Kind
from sealwire.probe.sending import Denied
from sealwire.probe.spool import SUFFIX, Directory, Spool
from sealwire.probe.store import Store, StoreFull
from tests import certificates
from tests.campaign.place import Network
from tests.unit.probe import sealing as s

COLLECTOR = 7
SECONDS = 40.0


def within(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await work

    asyncio.run(bounded())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def identity_of(one: certificates.Identity) -> bytes:
    from sealwire.crypto.peers import PeerCertificate

    return certificate_identity(PeerCertificate(one.chain))


@dataclass
class Spooled:
    """A probe's sealed segments in a directory, and the signer's word of how far they may be read."""

    path: Path
    number: int = 0
    receipts: list[bytes] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._disk = Directory(self.path)
        self._spool = Spool(self._disk, 1 << 24, 1 << 14, Delivered(self._disk))
        self._probe = Recorder(
            *(self._spool, s.key(self.number), s.moment(0.0)), boot=bytes(16), software="test"
        )
        self._second = 0.0
        self._outlet = Outlet(self.path, self._take)

    def _take(self, item: tuple[Kind, bytes]) -> None:
        kind, body = item
        if kind is Kind.RECEIPT:
            assert self._spool.delivered is not None
            assert self._spool.delivered.take(body, s.key(self.number).id, s.key(COLLECTOR).public)
            self.receipts.append(body)
        else:
            self.states.append(body)
            self.tell()

    def tell(self) -> None:
        assert self._spool.delivered is not None
        self._outlet.tell(
            probe=s.key(self.number).id.hex(),
            files=self._spool.readable(),
            delivered=self._spool.delivered.numbers.ranges,
            undelivered=self._spool.undelivered,
        )

    def seal(self, segments: int, events: int = 20, step: float = 0.0) -> None:
        """Some more segments; the clock may be set by `step` seconds before."""
        for _ in range(segments):
            self._second += 1.0
            now = s.moment(self._second, step)
            rows = s.rows(events, round(self._second))
            self._probe.take(Flows(rows, row_struct().size), now)
            self._probe.flush(now)
        self.tell()

    def segments(self) -> list[Segment]:
        return [one.segment for one in self.found()]

    def found(self) -> list[frames.Found]:
        paths = sorted(path for path in self.path.iterdir() if path.name.endswith(SUFFIX))
        return [one for path in paths for one in frames.unpack(path.read_bytes())]

    def frames(self) -> list[bytes]:
        return [frames.pack(segment) for segment in self.segments()]

    @property
    def delivered(self) -> int:
        """How many segments receipts name."""
        assert self._spool.delivered is not None
        return self._spool.delivered.numbers.within(0, 1 << 60)

    def close(self) -> None:
        self._disk.close()


class Place:
    """A collector with an enrolled probe, and its spool."""

    def __init__(self, path: Path, **limits: int) -> None:
        self.path = path
        self.server = certificates.server()
        self.client = certificates.client()
        self.enrolled = Enrolled(path / "enrolled")
        self.enrol(0, self.client)
        self.spool = Spooled(path / "spool")
        self.limits = CollectLimits(**limits)
        self.store = Store(path / "store", self.enrolled.key_of)
        self.collector = self.made()
        self.port = 0

    def made(self) -> Collector:
        context = sealwire.Context(sealwire.PROTOCOL_SERVER)
        context.load_cert_chain(self.server.certfile, self.server.keyfile)
        context.load_verify_locations(cafile=self.client.cafile)
        context.verify_mode = sealwire.CERT_REQUIRED
        return Collector(
            *(self.store, self.enrolled, s.key(COLLECTOR), context),
            limits=self.limits,
            facts=self.path / "collect.json",
        )

    def enrol(self, number: int, client: certificates.Identity) -> Probe:
        probe = Probe(f"probe {number}", s.key(number).public, identity_of(client), 1)
        self.enrolled.add(probe)
        return probe

    async def start(self) -> None:
        server = await self.collector.start("127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]

    def context(
        self, client: certificates.Identity | None = None, cafile: Path | None = None
    ) -> sealwire.Context:
        found = sealwire.Context(sealwire.PROTOCOL_CLIENT)
        found.load_verify_locations(cafile=cafile or self.server.cafile)
        one = client or self.client
        found.load_cert_chain(one.certfile, one.keyfile)
        return found

    @contextlib.asynccontextmanager
    async def exporting(
        self, spool: Spooled | None = None, *, port: int = 0, **more: Any
    ) -> AsyncIterator[Exporter]:
        one = Exporter(
            *((spool or self.spool).path, "127.0.0.1", port or self.port, self.context(**more)),
            server_hostname="localhost",
        )
        running = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def stored(self, number: int = 0) -> list[Segment]:
        paths = sorted((self.path / "store" / s.key(number).id.hex()).glob("*" + SUFFIX))
        return [one.segment for path in paths for one in frames.unpack(path.read_bytes())]

    def check(self, spool: Spooled | None = None) -> None:
        """What is stored is what was sealed, once, in order."""
        one = spool or self.spool
        assert [x.hash for x in self.stored(one.number)] == [x.hash for x in one.segments()]


@contextlib.asynccontextmanager
async def placed(path: Path, **limits: int) -> AsyncIterator[Place]:
    place = Place(path, **limits)
    await place.start()
    try:
        yield place
    finally:
        await place.collector.stop(1.0)
        place.store.close()
        place.spool.close()


Act = Callable[[Place], Awaitable[None]]


def at(path: Path, act: Act, **limits: int) -> None:
    async def work() -> None:
        async with placed(path, **limits) as place:
            await act(place)

    within(work())


def test_what_is_sealed_arrives_and_receipts_come_back(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(20)
        async with place.exporting() as one:
            await until(lambda: place.spool.delivered >= 21)
            place.spool.seal(5)
            await until(lambda: place.spool.delivered == 26)
            assert await one.drain(5.0)
            assert one.trouble == ""
            counters = one.counters
            assert (counters.segments_sent, counters.segments_acknowledged) == (26, 26)
            assert counters.events_acknowledged == 25 * 20 + 1
            assert counters.receipt_seconds.count == counters.send_seconds.count == 26
            assert export.pinned(place.spool.path) == s.key(COLLECTOR).public
        place.check()
        counted = place.collector.counters
        assert (counted.segments, counted.events, counted.duplicates) == (26, 501, 0)
        # The signer sees that the exporter is gone, and knows nothing of it any more.
        await until(lambda: place.spool.states[-1] == b"{}")

    at(tmp_path, act)


def test_clocks_that_are_set_do_not_matter_to_delivery(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        async with place.exporting() as one:
            for step in (0.0, 86_400.0, -86_400.0, 0.0):
                place.spool.seal(3, step=step)
                await asyncio.sleep(0.05)
            assert await one.drain(10.0)
        place.check()
        assert s.faults(place.stored(), 12.0) == []

    at(tmp_path, act)


def test_a_collector_with_another_certificate_gets_nothing(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(3)
        other = certificates.server(certificates.Kind.RSA_2048).cafile
        async with place.exporting(cafile=other) as one:
            await until(lambda: one.counters.failures >= 2)
            assert "certificate" in one.trouble
            assert one.counters.segments_sent == 0
            assert place.collector.counters.connections == 0
        async with place.exporting() as one:
            assert await one.drain(10.0)
        place.check()

    at(tmp_path, act)


def test_a_collector_whose_receipts_another_key_signs_frees_nothing(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(3)
        export.pin(place.spool.path, s.key(8).public)
        one = Exporter(
            *(place.spool.path, "127.0.0.1", place.port, place.context()),
            server_hostname="localhost",
            collector=export.pinned(place.spool.path),
        )
        running = asyncio.create_task(one.run())
        await until(lambda: one.counters.failures >= 1)
        assert "signs its receipts with key" in one.trouble
        assert place.spool.receipts == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    at(tmp_path, act)


def test_an_unknown_probe_is_heard_once_it_is_enrolled(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        stranger = Spooled(tmp_path / "stranger", 3)
        stranger.seal(4)
        other = certificates.client(name="other.example")
        async with place.exporting(stranger, client=other) as one:
            await until(lambda: one.counters.refusals >= 2)
            assert "unknown probe" in one.trouble
            Enrolled(tmp_path / "enrolled").add(Probe("three", s.key(3).public, identity_of(other), 1))
            assert await one.drain(20.0)
        place.check(stranger)
        stranger.close()

    at(tmp_path, act)


def test_a_certificate_of_somebody_else_does_not_open_the_door(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(2)
        async with place.exporting(client=certificates.client(name="other.example")) as one:
            await until(lambda: one.counters.refusals >= 1)
            assert "other identity" in one.trouble
        unknown = certificates.client(certificates.Kind.RSA_2048)
        async with place.exporting(client=unknown) as one:
            await until(lambda: one.counters.failures >= 1)
        assert place.stored() == []

    at(tmp_path, act)


def test_a_revoked_probe_is_cut_off_and_its_later_segments_are_refused(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(3)
        async with place.exporting() as one:
            await until(lambda: place.spool.delivered == 4)
            Enrolled(tmp_path / "enrolled").revoke(s.key(0).id, time.time_ns())
            await until(lambda: not one.counters.connected)
            place.spool.seal(3)
            await until(lambda: one.counters.refusals >= 2)
            assert "revoked" in one.trouble
        assert len(place.stored()) == 4
        assert place.spool.delivered == 4

    at(tmp_path, act)


async def raw(place: Place, **more: Any) -> tuple[StreamReader, StreamWriter]:
    """A connection whose other end says what a test makes it say."""
    return await sealwire.open_connection(
        *("127.0.0.1", place.port),
        context=place.context(**more),
        server_hostname="localhost",
        limits=LIMITS,
        messages=delivery.APPLICATION,
    )


async def refused(place: Place, said: list[delivery.Message]) -> delivery.Refused:
    """What the collector says to a probe that says this behind its Hello."""
    reader, writer = await raw(place)
    try:
        writer.write_message(delivery.encode(delivery.Hello(1, s.key(0).id, "test")))
        for message in said:
            await writer.drain()
            writer.write_message(delivery.encode(message))
        while True:
            answer = delivery.decode(await reader.read_message())
            if isinstance(answer, delivery.Refused):
                return answer
    finally:
        writer.close()


def altered(frame: bytes, how: str) -> bytes:
    segment = next(frames.unpack(frame)).segment
    data = bytearray(segment.encode())
    at = {"leaf": len(data) - 5, "header": 200, "signature": len(segment.signed) - 3}[how]
    data[at] ^= 1
    return bytes(frames._compress(bytes(data)))


@pytest.mark.parametrize("how", ["leaf", "header", "signature", "bytes", "foreign", "empty", "bomb"])
def test_forged_and_foreign_segments_are_refused_and_nothing_behind_them_is_stored(
    tmp_path: Path, how: str
) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(3)
        good = place.spool.frames()
        if how == "foreign":
            place.enrol(2, certificates.client(name="second.example"))
            other = Spooled(tmp_path / "other", 2)
            bad = other.frames()[0]
            other.close()
        elif how in ("bytes", "empty", "bomb"):
            compress = frames._zstandard.ZstdCompressor().compress
            bad = {"bytes": b"no frame", "empty": compress(b""), "bomb": compress(bytes(1 << 24))}[how]
        else:
            bad = altered(good[1], how)
        said: list[delivery.Message] = [delivery.Segment(one) for one in (good[0], bad, *good[1:])]
        answer = await refused(place, said)
        assert answer.reason in (Reason.BAD_SEGMENT, Reason.FORK)
        await until(lambda: len(place.stored()) == 1)
        assert sum(place.collector.counters.rejected.values()) >= 1
        async with place.exporting() as one:  # the collector is as it was for who is honest
            assert await one.drain(10.0)
        place.check()

    at(tmp_path, act)


def test_another_history_under_the_same_key_is_a_fork(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(3)
        async with place.exporting() as one:
            assert await one.drain(10.0)
        other = Spooled(tmp_path / "again", 0)
        other.seal(3, events=21)
        answer = await refused(place, [delivery.Segment(frame) for frame in other.frames()[1:]])
        assert answer.reason is Reason.FORK
        other.close()
        place.check()

    at(tmp_path, act)


def test_a_probe_that_floods_is_held_by_its_credit(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(1)
        frame = place.spool.frames()[0]
        release = asyncio.Event()
        loop, append = asyncio.get_running_loop(), place.store.append_many

        def slow(*given: Any) -> Any:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
            return append(*given)

        place.store.append_many = slow  # type: ignore[method-assign, assignment]
        flooding = asyncio.create_task(refused(place, [delivery.Segment(frame)] * 50))
        answer = await flooding
        assert answer.reason is Reason.FLOOD
        release.set()
        await until(lambda: len(place.stored()) == 1)
        async with place.exporting() as one:
            assert await one.drain(10.0)
        await until(lambda: place.collector._budget.lent == 0)

    at(tmp_path, act, window_segments=8)


def test_what_the_store_cannot_take_is_not_acknowledged(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        append, failing = place.store.append_many, [StoreFull("no room"), OSError(5, "made up")]

        def fail(*given: Any) -> Any:
            if failing:
                raise failing.pop()
            return append(*given)

        place.store.append_many = fail  # type: ignore[method-assign, assignment]
        place.spool.seal(5)
        async with place.exporting() as one:
            await until(lambda: place.collector.counters.store_failures == 1)
            assert place.spool.receipts == []
            assert "takes nothing" in place.collector.trouble
            assert await one.drain(20.0)
        assert (place.collector.counters.store_failures, place.collector.trouble) == (2, "")
        place.check()

    at(tmp_path, act)


@pytest.mark.parametrize("seed", range(2))
def test_a_network_that_cuts_in_the_middle_of_segments_loses_nothing(tmp_path: Path, seed: int) -> None:
    async def act(place: Place) -> None:
        network = Network(place.port)
        async with place.exporting(port=network.port) as one:
            for after in (3000 + seed, 7000, 12_000 * (seed + 1)):
                network.cut(after)
                place.spool.seal(8, events=60)
                failures = one.counters.failures
                await until(lambda before=failures: one.counters.failures > before)  # type: ignore[misc]
            network.mend()
            assert await one.drain(30.0)
            assert one.counters.segments_sent > 25
        place.check()

    at(tmp_path, act)


def test_a_collector_that_stops_reading_is_left_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes made short: it is silent for many times as long as a probe waits."""
    monkeypatch.setattr(sending, "SILENCE_SECONDS", 0.3)

    async def act(place: Place) -> None:
        place.spool.seal(10)
        deaf = asyncio.Event()
        loop, append = asyncio.get_running_loop(), place.store.append_many

        def stuck(*given: Any) -> Any:
            asyncio.run_coroutine_threadsafe(deaf.wait(), loop).result()
            return append(*given)

        place.store.append_many = stuck  # type: ignore[method-assign, assignment]
        async with place.exporting() as one:
            await until(lambda: one.counters.failures >= 3)
            assert "said nothing" in one.trouble
            assert place.spool.receipts == []
            deaf.set()
            assert await one.drain(20.0)
        assert place.collector.counters.duplicates > 0
        place.check()

    at(tmp_path, act)


def test_a_collector_that_is_started_again_goes_on_where_it_was(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(10)
        async with place.exporting() as one:
            await until(lambda: place.spool.delivered == 11)
            await place.collector.stop(5.0)
            assert one.counters.refusals + one.counters.failures >= 1 or not one.counters.connected
            place.spool.seal(10)
            place.store.close()
            place.store = Store(tmp_path / "store", place.enrolled.key_of)
            place.collector = place.made()
            await place.start()
            assert await one.drain(20.0)
        assert place.collector.counters.duplicates == 0
        place.check()

    at(tmp_path, act)


def test_many_probes_at_once(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        async with contextlib.AsyncExitStack() as stack:
            spools, exporters = [], []
            for number in range(10, 22):
                client = certificates.client(name=f"probe-{number}.example")
                place.enrol(number, client)
                spools.append(Spooled(tmp_path / f"spool-{number}", number))
                spools[-1].seal(8)
                exporters.append(await stack.enter_async_context(place.exporting(spools[-1], client=client)))
            assert all(await asyncio.gather(*(one.drain(30.0) for one in exporters)))
        for spool in spools:
            place.check(spool)
            spool.close()

    at(tmp_path, act)


def test_the_same_probe_twice_is_heard_once(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        place.spool.seal(4)
        reader, writer = await raw(place)
        writer.write_message(delivery.encode(delivery.Hello(1, s.key(0).id, "test")))
        await reader.read_message()
        async with place.exporting() as one:
            assert await one.drain(10.0)
        answer = delivery.decode(await reader.read_message())
        assert isinstance(answer, delivery.Refused)
        assert answer.reason is Reason.REPLACED
        writer.close()

    at(tmp_path, act)


def test_a_probe_enrols_by_a_token_once(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        client = certificates.client(name="new.example")
        token = bytes(range(16))
        Enrolled(tmp_path / "enrolled").offer(token, "the new one", time.time_ns() + 10**12)
        config = {
            "cafile": str(place.server.cafile),
            "cert": str(client.certfile),
            "tls_key": str(client.keyfile),
            "server_hostname": "localhost",
        }
        where = ("127.0.0.1", place.port, config)
        with pytest.raises(Denied, match="bad token"):
            await export.enrol(*where, bytes(16), s.key(5), "mine")
        key = await export.enrol(*where, token, s.key(5), "mine")
        assert key == s.key(COLLECTOR).public
        with pytest.raises(Denied, match="bad token"):
            await export.enrol(*where, token, s.key(6), "mine")
        place.enrolled.refresh()
        probe = place.enrolled.probe(s.key(5).id)
        assert probe is not None
        assert (probe.name, probe.identity) == ("the new one", identity_of(client))
        spool = Spooled(tmp_path / "new", 5)
        spool.seal(3)
        async with place.exporting(spool, client=client) as one:
            assert await one.drain(10.0)
        place.check(spool)
        spool.close()

    at(tmp_path, act)


def test_a_signature_of_another_connection_enrols_nobody(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        token = bytes(range(16))
        place.enrolled.offer(token, "x", time.time_ns() + 10**12)
        key = s.key(5)
        for exported in (bytes(32), b""):
            reader, writer = await raw(place)
            signature = key.sign(delivery.to_enrol(exported, token))
            asked = delivery.Enrol(1, token, key.public.spki, signature, "x")
            writer.write_message(delivery.encode(asked))
            answer = delivery.decode(await reader.read_message())
            assert isinstance(answer, delivery.Refused)
            assert "signature" in answer.words
            writer.close()
        assert place.enrolled.probe(key.id) is None
        assert place.enrolled.redeem(token, time.time_ns()) == "x"  # it was not used up

    at(tmp_path, act)


def test_a_raw_key_that_was_enrolled_connects(tmp_path: Path) -> None:
    async def act(place: Place) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        keyfile = tmp_path / "raw.key"
        keyfile.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        config = {
            "cafile": str(place.server.cafile),
            "tls_key": str(keyfile),
            "server_hostname": "localhost",
        }
        spool = Spooled(tmp_path / "raw", 4)
        spool.seal(3)
        one = Exporter(
            *(spool.path, "127.0.0.1", place.port, export.client_context(config)), server_hostname="localhost"
        )
        running = asyncio.create_task(one.run())
        await until(lambda: one.counters.failures >= 1)  # the handshake knows no such key
        import hashlib

        place.enrolled.add(Probe("raw", s.key(4).public, hashlib.sha256(spki).digest(), 1, spki))
        place.collector._take_raw_keys()
        assert await one.drain(20.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        place.check(spool)
        spool.close()

    at(tmp_path, act)


def test_strangers_cannot_make_it_fail(tmp_path: Path) -> None:
    """Bytes that are no TLS, half a handshake, messages that are none: it stays as it is for others."""

    async def act(place: Place) -> None:
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(5000), b"\x16\x03\x01\x02\x00\x01"):
            with socket.create_connection(("127.0.0.1", place.port)) as plain:
                plain.sendall(data)
        reader, writer = await raw(place)
        writer.write_message(b"\xff\xff")
        answer = delivery.decode(await reader.read_message())
        assert isinstance(answer, delivery.Refused)
        with pytest.raises(Error):
            await reader.read_message()
        writer.close()
        place.spool.seal(2)
        async with place.exporting() as one:
            assert await one.drain(10.0)
        place.check()

    at(tmp_path, act)


def test_keys_are_written_as_files_have_them() -> None:
    key = s.key(1).public
    again = load_pem_public_key(key.pem())
    assert again.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == key.spki
