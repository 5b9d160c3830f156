"""Two connections without a network between them, and records that one of them never would send.

Time stands still unless a test moves it: what a test says about when is what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from sealwire import dtls
from sealwire.context import Config
from sealwire.crypto.hkdf import TrafficKeys
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.suites import SuiteSpec
from sealwire.dtls import epochs
from sealwire.dtls.header import (
    ContentType,
    PlaintextRecord,
    RecordNumber,
    decode_ack,
    decode_plaintext,
    encode_plaintext,
    fragment_header,
    is_ciphertext,
)
from sealwire.errors import Alert, Discard, PeerAlert, ProtocolError
from sealwire.limits import Ledger, Limits
from sealwire.record import reference
from sealwire.record.protect import CiphertextHeader, Opener, Sealer, parse_ciphertext_header
from tests import configs


@dataclass
class Rig:
    """A client and a server, and what each gave out."""

    client: dtls.Connection
    server: dtls.Connection
    ledger: Ledger
    now: float = 0.0
    client_events: list[dtls.Event] = field(default_factory=list)
    server_events: list[dtls.Event] = field(default_factory=list)

    def take(self, sender: dtls.Connection) -> list[bytes]:
        """What `sender` sends now; it goes nowhere unless the test hands it on."""
        datagrams = sender.transmit(self.now)
        (self.client_events if sender is self.client else self.server_events).extend(sender.events())
        return datagrams

    def other(self, one: dtls.Connection) -> dtls.Connection:
        return self.server if one is self.client else self.client

    def deliver(self, sender: dtls.Connection, drop: Callable[[int], bool] | None = None) -> list[bytes]:
        """Hand all `sender` sends now to the other, but those whose index `drop` says yes to."""
        datagrams = self.take(sender)
        kept = [one for n, one in enumerate(datagrams) if drop is None or not drop(n)]
        if kept:
            self.other(sender).receive_run(kept, self.now)
        return datagrams

    def run(self) -> None:
        """Deliver until nobody has more to say at this moment."""
        for _ in range(200):
            if not self.deliver(self.client) + self.deliver(self.server):
                return
        raise AssertionError("the two never come to an end")

    def wake(self) -> None:
        """Go to the next deadline of either."""
        due = [one.deadline() for one in (self.client, self.server)]
        self.now = min(at for at in due if at is not None)
        for one, at in zip((self.client, self.server), due, strict=True):
            if at is not None and at <= self.now:
                one.wake(self.now)

    def run_until(self, done: Callable[[], bool], until: float = 1000.0) -> None:
        """Deliver and wake until `done()`."""
        self.run()
        while not done():
            self.wake()
            assert self.now <= until, "time is up"
            self.run()

    def skip(self, seconds: float) -> None:
        """Let time pass, with everything delivered that is sent meanwhile."""
        end = self.now + seconds
        self.run()
        while any(at is not None and at <= end for at in (self.client.deadline(), self.server.deadline())):
            self.wake()
            self.run()
        self.now = end

    # --- misbehaviour ------------------------------------------------------------------------

    def record(
        self, sender: dtls.Connection, content_type: int, content: bytes, epoch: int | None = None
    ) -> bytes:
        """A record under `sender`'s keys (its newest, unless another epoch is given)."""
        sealing = sender._sealing
        return sealing.record(sealing.epoch if epoch is None else epoch, content_type, content)[1]

    def inject(
        self, sender: dtls.Connection, content_type: int, content: bytes, epoch: int | None = None
    ) -> None:
        """Let the other have such a record."""
        self.other(sender).receive(self.record(sender, content_type, content, epoch), self.now)

    def message(self, sender: dtls.Connection, kind: int, body: bytes, *, ahead: int = 0) -> bytes:
        """The content of a record with the next handshake message of `sender` (or one `ahead` of it)."""
        seq = self.other(sender)._layer.reassembly.next_seq + ahead
        return fragment_header(kind, len(body), seq, 0, len(body)) + body

    def refuses(self, victim: dtls.Connection, alert: Alert) -> None:
        """`victim` failed with `alert`, and its peer hears so under keys it can open."""
        assert isinstance(victim.error, ProtocolError), victim.error
        assert victim.error.alert is alert
        assert victim.state is dtls.State.CLOSED
        heard = self.deliver(victim)
        assert len(heard) == 1
        other = self.other(victim)
        assert isinstance(other.error, PeerAlert), other.error
        assert other.error.alert is alert
        # An alert is sent once, and nothing after it.
        assert self.take(victim) == []
        assert victim.deadline() is None

    def unimpressed(self, victim: dtls.Connection, reason: Discard, n: int = 1) -> None:
        """`victim` dropped something for `reason`, says nothing, and still works."""
        assert victim.counters.discards.get(reason, 0) == n, victim.counters.discards
        assert self.take(victim) == []
        assert victim.state is dtls.State.CONNECTED
        self.echo()

    def echo(self) -> None:
        """One message each way."""
        assert self.client.state is self.server.state is dtls.State.CONNECTED
        for sender in (self.client, self.server):
            sender.send(b"echo")
            self.run()
            assert self.other(sender).messages()[-1:] == [b"echo"]


def joined(
    *,
    client: Config | None = None,
    server: Config | None = None,
    limits: Limits | None = None,
    mtu: int = 1200,
    handshake: bool = True,
    address_proved: bool = True,
    initial_timeout: float = 1.0,
) -> Rig:
    """A client and a server without a cookie between them."""
    limits = limits or Limits()
    ledger = Ledger(limits)
    rig = Rig(
        dtls.Connection.client(
            client or configs.client_context().config(),
            now=0.0,
            server_name="localhost",
            limits=limits,
            mtu=mtu,
            ledger=ledger,
            initial_timeout=initial_timeout,
        ),
        dtls.Connection.server(
            server or configs.server_context().config(),
            now=0.0,
            limits=limits,
            mtu=mtu,
            ledger=ledger,
            initial_timeout=initial_timeout,
            address_proved=address_proved,
        ),
        ledger,
    )
    if handshake:
        rig.run()
        assert rig.client.state is rig.server.state is dtls.State.CONNECTED
    return rig


def plain(content_type: int, content: bytes, sequence: int = 1000) -> bytes:
    """A plaintext record, which anybody can make."""
    return encode_plaintext(content_type, sequence, content)


@dataclass(frozen=True, slots=True)
class Seen:
    """One record on the wire, as its receiver reads it."""

    epoch: int
    sequence: int
    content_type: int
    content: bytes

    @property
    def number(self) -> RecordNumber:
        return RecordNumber(self.epoch, self.sequence)


@dataclass
class Tap:
    """Reads what passes, with the sending keys of everybody, and decides what those keys stand.

    `seal_limit`, `forgery_limit` and `sequence` apply to keys made after they are set.
    """

    made: list[tuple[CryptoProvider, SuiteSpec, TrafficKeys, int]] = field(default_factory=list)
    seal_limit: int | None = None
    forgery_limit: int | None = None
    sequence: int = 0
    newest: dict[bytes, Sealer] = field(default_factory=dict)

    def sealer(
        self,
        provider: CryptoProvider,
        spec: SuiteSpec,
        keys: TrafficKeys,
        epoch: int,
        cid: bytes,
        *,
        sequence: int,
    ) -> Sealer:
        before = self.newest.get(keys.key)
        if before is None:
            self.made.append((provider, spec, keys, epoch))
        else:
            # A connection that slept goes on where it stopped.
            assert before.sequence <= sequence, "sending keys were installed twice"
        if self.seal_limit is not None:
            spec = replace(spec, seal_limit=self.seal_limit)
        sealer = Sealer(provider, spec, keys, epoch, cid, sequence=sequence or self.sequence)
        self.newest[bytes(keys.key)] = sealer
        return sealer

    def opener(
        self,
        provider: CryptoProvider,
        spec: SuiteSpec,
        keys: TrafficKeys,
        epoch: int,
        cid: bytes,
        window: int,
        *,
        highest: int,
    ) -> Opener:
        if self.forgery_limit is not None:
            spec = replace(spec, forgery_limit=self.forgery_limit)
        return Opener(provider, spec, keys, epoch, cid, window, highest=max(highest, self.sequence - 1))

    def read(self, datagrams: Iterable[bytes]) -> list[Seen]:
        """All records of `datagrams`; each must be one."""
        return [seen for datagram in datagrams for seen in self._records(datagram)]

    def _records(self, datagram: bytes) -> Iterator[Seen]:
        offset = 0
        while offset < len(datagram):
            if not is_ciphertext(datagram[offset]):
                record = decode_plaintext(datagram, offset)
                assert isinstance(record, PlaintextRecord), record
                yield Seen(0, record.sequence, record.content_type, record.content)
                offset = record.end
                continue
            header = parse_ciphertext_header(datagram, offset, 0)
            assert isinstance(header, CiphertextHeader), header
            yield self._open(datagram[offset : header.end])
            offset = header.end

    def _open(self, record: bytes) -> Seen:
        for provider, spec, keys, epoch in reversed(self.made):
            if epoch & 3 == record[0] & 3:
                opener = reference.Opener(provider, spec, keys, epoch, highest=self.sequence - 1)
                [(content_type, sequence, content)], _, _ = opener.open_run([record], 0, 0)
                if content_type > 0:
                    return Seen(epoch, sequence, content_type, content)
        raise AssertionError("a record that nobody can open")

    def acks(self, datagrams: Iterable[bytes]) -> list[tuple[int, list[tuple[int, int]]]]:
        """Epoch and names of the ACKs among them."""
        seen = self.read(datagrams)
        return [(one.epoch, decode_ack(one.content)) for one in seen if one.content_type == ContentType.ACK]


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Tap:
    """A tap on every connection made while the test runs."""
    one = Tap()
    monkeypatch.setattr(epochs, "Sealer", one.sealer)
    monkeypatch.setattr(epochs, "Opener", one.opener)
    return one


__all__ = ["ContentType", "Rig", "Seen", "Tap", "joined", "plain", "tap"]
