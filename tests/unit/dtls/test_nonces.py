"""No nonce is used twice with one key, and no record number twice on the wire, whatever the network does."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from sealwire import dtls
from sealwire.crypto.providers import Aead
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.crypto.suites import SuiteSpec
from sealwire.dtls.header import ContentType, Fragment, decode_fragments
from sealwire.errors import ProtocolError
from sealwire.limits import Limits
from sealwire.wire import Buffer
from tests import certificates, configs
from tests.unit.dtls.rig import Rig, Tap, joined


@dataclass
class WatchedAead:
    """An AEAD that notes every nonce it seals with."""

    inner: Aead
    key: bytes
    used: Counter[tuple[bytes, bytes]]

    def seal(self, nonce: bytes, data: Buffer, aad: Buffer) -> bytes:
        self.used[self.key, nonce] += 1
        return self.inner.seal(nonce, data, aad)

    def open(self, nonce: bytes, data: Buffer, aad: Buffer) -> bytes | None:
        return self.inner.open(nonce, data, aad)


class WatchedProvider(OpenSslProvider):
    """With an AEAD of its own, so that the record layer asks it for every record."""

    def __init__(self) -> None:
        self.used: Counter[tuple[bytes, bytes]] = Counter()

    def aead(self, spec: SuiteSpec, key: bytes) -> Aead:
        return WatchedAead(super().aead(spec, key), key, self.used)


def stormy(rig: Rig, seed: int, loss: float) -> list[tuple[dtls.Connection, bytes]]:
    """A handshake, data, key updates, errors and a close under loss, repetition and disorder."""
    chance = random.Random(seed)
    sent: list[tuple[dtls.Connection, bytes]] = []

    def pass_on(sender: dtls.Connection) -> bool:
        datagrams = rig.take(sender)
        sent.extend((sender, datagram) for datagram in datagrams)
        there = [
            one for one in datagrams for _ in range(chance.choice((1, 1, 1, 2))) if chance.random() > loss
        ]
        chance.shuffle(there)
        for datagram in there:
            rig.other(sender).receive(datagram, rig.now)
        return bool(datagrams)

    both = (rig.client, rig.server)
    for turn in range(400):
        while any(pass_on(one) for one in both):
            pass
        connected = all(one.state is dtls.State.CONNECTED for one in both)
        if connected and turn > 40:
            break
        for one in both:
            if one.state is dtls.State.CONNECTED and chance.random() < 0.6:
                one.send_many([b"data"] * chance.randrange(4))
                if chance.random() < 0.3:
                    one.update_keys(rig.now, request_peer=chance.random() < 0.5)
        if rig.client.deadline() is rig.server.deadline() is None:
            rig.now += 1
        else:
            rig.wake()
    assert all(one.state is dtls.State.CONNECTED for one in both), [one.error for one in both]
    if seed % 2:
        rig.inject(rig.client, 99, b"nonsense")
        assert isinstance(rig.server.error, ProtocolError)
    for one in both:
        one.close(rig.now)
    while any(pass_on(one) for one in both):
        pass
    return sent


def rig_of(seed: int, provider: OpenSslProvider | None = None) -> Rig:
    identity = certificates.large_server(3_000) if seed % 3 else certificates.server()
    server = configs.server_context(identity).config()
    client = configs.client_context(
        identity.cafile, suites=["TLS_CHACHA20_POLY1305_SHA256"] if seed % 2 else ()
    ).config()
    if provider is not None:
        server, client = replace(server, provider=provider), replace(client, provider=provider)
    patient = Limits(retransmissions=100, handshake_seconds=10_000.0, key_updates_in_a_row=1_000)
    return joined(client=client, server=server, mtu=400, handshake=False, limits=patient)


@pytest.mark.requirement("9147-4-10", "9147-4.2.1-5", "9147-5.2-2")
@pytest.mark.parametrize("seed", range(12))
def test_no_nonce_is_used_twice(seed: int) -> None:
    provider = WatchedProvider()
    rig = rig_of(seed, provider)
    sent = stormy(rig, seed, 0.3)
    assert len(sent) > 40
    assert len(provider.used) > 40
    assert len({key for key, _ in provider.used}) > 4
    assert provider.used.most_common(1)[0][1] == 1


@pytest.mark.requirement("9147-4-10", "9147-4.2.1-5", "9147-5.2-2", "9147-4.5.1-2")
@pytest.mark.parametrize("seed", range(12))
def test_no_record_number_is_used_twice_and_numbers_begin_with_zero(tap: Tap, seed: int) -> None:
    rig = rig_of(seed)
    for one, datagrams in _by_sender(stormy(rig, seed, 0.3)).items():
        numbers = [seen.number for seen in tap.read(datagrams)]
        assert len(set(numbers)) == len(numbers), one
        for epoch in {number.epoch for number in numbers}:
            seen_numbers = [number.sequence for number in numbers if number.epoch == epoch]
            assert seen_numbers == sorted(seen_numbers)
            # `inject` took one more, perhaps the first of its epoch.
            assert min(seen_numbers) <= seed % 2
            assert max(seen_numbers) <= len(seen_numbers)


def _by_sender(sent: list[tuple[dtls.Connection, bytes]]) -> dict[str, list[bytes]]:
    senders = list(dict.fromkeys(one for one, _ in sent))
    return {
        f"side {n}": [datagram for one, datagram in sent if one is side] for n, side in enumerate(senders)
    }


@pytest.mark.requirement("9147-4.2.1-5", "9147-5.5-6", "9147-5.5-1", "9147-5.2-2", "9147-5.5-3", "9147-5-2")
@pytest.mark.parametrize("seed", range(12))
def test_what_is_repeated_is_the_same_in_the_same_epoch(tap: Tap, seed: int) -> None:
    rig = rig_of(seed)
    for datagrams in _by_sender(stormy(rig, seed, 0.3)).values():
        assert all(len(datagram) <= 400 for datagram in datagrams)
        messages: dict[int, tuple[int, int, int]] = {}
        bodies: dict[int, bytearray] = {}
        known: dict[int, set[int]] = {}
        for seen in tap.read(datagrams):
            assert seen.content_type in set(ContentType)
            if seen.content_type != ContentType.HANDSHAKE:
                continue
            transmission: dict[int, list[Fragment]] = {}
            for one in decode_fragments(seen.content):
                fixed = (one.kind, one.length, seen.epoch)
                assert messages.setdefault(one.message_seq, fixed) == fixed
                stored = bodies.setdefault(one.message_seq, bytearray(one.length))
                have = known.setdefault(one.message_seq, set())
                for at, byte in enumerate(one.data, start=one.offset):
                    assert at not in have or stored[at] == byte
                    stored[at] = byte
                    have.add(at)
                for earlier in transmission.setdefault(one.message_seq, []):
                    assert one.offset >= earlier.end or one.end <= earlier.offset
                transmission[one.message_seq].append(one)
        # Numbers of messages have no holes.
        assert sorted(messages) == list(range(len(messages)))
