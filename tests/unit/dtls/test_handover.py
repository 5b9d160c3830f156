"""An association goes on in another process: moved while it works, or restored after a crash."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sealwire import dtls
from sealwire.dtls.epochs import LINGER_SECONDS
from sealwire.dtls.handover import MAX_RESERVE, label
from sealwire.dtls.journal import MARGIN
from sealwire.errors import ConfigurationError, Error, LimitReached
from sealwire.limits import Limits
from tests import configs
from tests.unit.dtls.rig import Rig, joined
from tests.unit.dtls.test_nonces import WatchedProvider

KEY = bytes(range(32))


class Claims:
    """What processes share: the highest generation claimed or stored, and whether it is claimed."""

    def __init__(self) -> None:
        self.claimed: dict[bytes, int] = {}
        self.asked = 0

    def __call__(self, name: bytes, generation: int) -> bool:
        self.asked += 1
        if generation <= self.claimed.get(name, -1):
            return False
        self.claimed[name] = generation | 0xFFFFFFFF
        return True


def again(rig: Rig, one: dtls.Connection, state: bytes, claims: Claims | None = None) -> dtls.Connection:
    """`one` as another process has it; it takes its place in the rig."""
    other = dtls.Connection.from_state(
        state, KEY, one.config, claim=claims or Claims(), now=rig.now, limits=one.limits, ledger=rig.ledger
    )
    if one is rig.client:
        rig.client = other
    else:
        rig.server = other
    return other


def move(rig: Rig, one: dtls.Connection) -> dtls.Connection:
    return again(rig, one, one.export_state(KEY, rig.now))


def established(side: str, **options: object) -> tuple[Rig, dtls.Connection]:
    rig = joined(**options)  # type: ignore[arg-type]
    rig.run()
    return rig, getattr(rig, side)


def settled(one: dtls.Connection) -> bool:
    """Whether a checkpoint can be made now."""
    return one._layer.flight.epochs <= {one.sending_epoch} and one._layer.reassembly.empty


SIDES = pytest.mark.parametrize("side", ["client", "server"])


@SIDES
def test_the_peer_notices_nothing(side: str) -> None:
    rig, one = established(side)
    rig.echo()
    before = len(rig.client_events + rig.server_events)
    peer = rig.other(one)
    rig.server_events.clear()
    rig.client_events.clear()
    other = move(rig, one)
    assert one.state is dtls.State.CLOSED
    assert one.transmit(rig.now) == []
    peer.send(b"meanwhile")
    rig.run()
    assert other.messages() == [b"meanwhile"]
    rig.echo()
    assert before
    theirs = rig.server_events if peer is rig.server else rig.client_events
    assert theirs == []
    assert peer.counters.discards == {}
    # The keys of both processes end: each side went one epoch further.
    assert (other.sending_epoch, peer.sending_epoch) == (4, 4)
    rig.client.close(rig.now)
    rig.run()
    assert rig.server.error is None


@SIDES
def test_facts_exporters_and_ids_go_along(side: str) -> None:
    rig, one = established(side)
    facts, exported = one.session, one.export(b"EXPORTER-test", b"", 32)
    ids = one.cids.current, one.cids.ours
    other = move(rig, one)
    assert replace(other.session, agreed=facts.agreed) == facts
    assert other.export(b"EXPORTER-test", b"", 32) == exported
    assert (other.cids.current, other.cids.ours) == ids


@SIDES
def test_many_moves_one_after_another(side: str) -> None:
    rig, _ = established(side)
    claims = Claims()
    for n in range(12):
        one = getattr(rig, side)
        again(rig, one, one.export_state(KEY, rig.now), claims)
        rig.echo()
        if n % 3 == 1:
            rig.other(getattr(rig, side)).update_keys(rig.now, request_peer=True)
            rig.run()
    assert claims.asked == 12
    assert getattr(rig, side).sending_epoch >= 15


@SIDES
def test_what_waits_goes_along(side: str) -> None:
    rig, one = established(side)
    rig.other(one).send_many([b"one", b"two"])
    rig.deliver(rig.other(one))
    one.send_many([b"three", b"four"])
    held = rig.ledger.held
    other = move(rig, one)
    assert rig.ledger.held >= held
    assert other.messages() == [b"one", b"two"]
    rig.run()
    assert rig.other(other).messages() == [b"three", b"four"]


@SIDES
@pytest.mark.parametrize("answered", [False, True])
def test_a_key_update_on_its_way_goes_along(side: str, answered: bool) -> None:
    rig, one = established(side)
    one.update_keys(rig.now)
    if answered:
        rig.deliver(one)
    other = move(rig, one)
    rig.run_until(lambda: other.sending_epoch == 5)
    rig.echo()


def test_a_new_process_answers_a_repeated_last_flight() -> None:
    """The server's ACK is lost, and with it goes the process that sent it."""
    rig = joined(handshake=False)
    for _ in range(20):
        rig.deliver(rig.client)
        lost = rig.server.was_connected
        rig.deliver(rig.server, drop=(lambda n: True) if lost else None)
        if lost:
            break
    assert rig.client.was_connected
    assert rig.client._layer.outstanding
    server = move(rig, rig.server)
    rig.run_until(lambda: not rig.client._layer.outstanding)
    rig.echo()
    assert server.deadline() is not None
    assert server.deadline() or rig.now + LINGER_SECONDS >= 0


def test_only_what_is_established_can_be_moved() -> None:
    rig = joined(handshake=False)
    with pytest.raises(Error, match="handshaking"):
        rig.client.export_state(KEY, 0.0)
    rig.run()
    rig.client.close_write(rig.now)
    with pytest.raises(Error):
        rig.client.export_state(KEY, rig.now)
    rig.run()
    with pytest.raises(Error):
        rig.server.checkpoint(KEY, rig.now)
    with pytest.raises(ValueError, match="32 bytes"):
        rig.server.export_state(b"short", rig.now)


# --- states ------------------------------------------------------------------------------------


def test_a_state_is_imported_once() -> None:
    rig, one = established("server")
    state, claims = one.export_state(KEY, rig.now), Claims()
    again(rig, one, state, claims)
    with pytest.raises(Error, match="imported before"):
        dtls.Connection.from_state(state, KEY, one.config, claim=claims, now=rig.now)


def test_a_changed_state_is_refused_and_not_used_up() -> None:
    rig, one = established("server")
    state, claims = one.export_state(KEY, rig.now), Claims()
    for n in [*range(0, len(state), 7), len(state) - 1]:
        damaged = bytearray(state)
        damaged[n] ^= 0x40
        with pytest.raises(ConfigurationError):
            dtls.Connection.from_state(bytes(damaged), KEY, one.config, claim=claims, now=rig.now)
    for n in range(0, len(state), 11):
        with pytest.raises(ConfigurationError):
            dtls.Connection.from_state(state[:n], KEY, one.config, claim=claims, now=rig.now)
    with pytest.raises(ConfigurationError, match="key is another"):
        dtls.Connection.from_state(state, bytes(32), one.config, claim=claims, now=rig.now)
    assert claims.asked == 0
    again(rig, one, state, claims)
    rig.echo()


def test_a_state_shows_no_secret() -> None:
    rig, one = established("client")
    remains = one._layer.engine.remains()
    state = one.export_state(KEY, rig.now)
    for secret in (remains.send[1], remains.receive[1], remains.exporter_secret, remains.resumption_secret):
        assert bytes(secret) not in state
        assert secret.hex() not in repr(remains)


def test_no_memory_no_import() -> None:
    rig, one = established("server")
    state, claims = one.export_state(KEY, rig.now), Claims()
    with pytest.raises(LimitReached):
        dtls.Connection.from_state(
            state,
            KEY,
            one.config,
            claim=claims,
            now=rig.now,
            limits=Limits(total_bytes=1000, connection_bytes=1000),
        )
    assert claims.asked == 0, "the state is as good as before"
    held = rig.ledger.held
    with pytest.raises(ConfigurationError):
        again(rig, one, state[:-1], claims)
    assert rig.ledger.held == held
    again(rig, one, state, claims)
    rig.echo()


# --- checkpoints -------------------------------------------------------------------------------


def test_a_reserve_is_not_gone_beyond() -> None:
    rig, one = established("client")
    one.checkpoint(KEY, rig.now, reserve=1024)
    began = one._sealing.sequence
    for _ in range(60):
        one.send_many([b"data"] * 50)
        rig.run()
        rig.server.messages()
        if one.held_back:
            break
    assert one._sealing.sequence <= began + 1024 - MARGIN
    assert any(isinstance(event, dtls.CheckpointDue) for event in rig.client_events)
    assert one.send_queue_bytes > 0
    sent = one._sealing.sequence
    one.transmit(rig.now)
    rig.server.update_keys(rig.now, request_peer=True)
    rig.run()
    assert one._sealing.sequence == sent
    rig.client_events.clear()
    one.checkpoint(KEY, rig.now)
    rig.run()
    assert one.send_queue_bytes == 0
    assert rig.client_events == [dtls.CheckpointDue()], "the peer's KeyUpdate wants another one"
    one.checkpoint(KEY, rig.now)
    rig.run()
    rig.server.messages()
    rig.echo()


def test_nothing_rests_on_what_no_checkpoint_has() -> None:
    """The peer's KeyUpdate is not acknowledged before it would survive a crash; nor is an alert sent."""
    rig, one = established("server")
    one.checkpoint(KEY, rig.now)
    rig.client.update_keys(rig.now)
    rig.deliver(rig.client)
    assert one.held_back
    assert one.transmit(rig.now) == []
    assert one.deadline() is not None
    one.send(b"waits")
    assert one.transmit(rig.now) == []
    rig.inject(rig.client, 99, b"no such type")
    assert one.state is dtls.State.CLOSED
    assert one.transmit(rig.now) == []


@pytest.mark.parametrize("reserve", [0, 1023, MAX_RESERVE + 1])
def test_reserves_have_bounds(reserve: int) -> None:
    rig, one = established("client")
    with pytest.raises(ValueError, match="numbers"):
        one.checkpoint(KEY, rig.now, reserve=reserve)


def test_generations_rise() -> None:
    rig, one = established("client")
    labels = [label(one.checkpoint(KEY, rig.now)) for _ in range(3)]
    assert len({name for name, _ in labels}) == 1
    assert [generation for _, generation in labels] == [1, 2, 3]
    other = again(rig, one, one.export_state(KEY, rig.now))
    assert label(other.checkpoint(KEY, rig.now)) == (labels[0][0], (1 << 32) + 1)


@SIDES
@pytest.mark.parametrize("seed", range(20))
def test_no_number_is_used_twice_whenever_the_process_dies(side: str, seed: int) -> None:
    chance = random.Random(seed)
    watched = WatchedProvider()
    client = replace(configs.client_context().config(), provider=watched)
    server = replace(configs.server_context().config(), provider=watched)
    rig, one = established(side, client=client, server=server)
    claims = Claims()
    saved = one.checkpoint(KEY, rig.now, reserve=1024)
    for _ in range(6):
        for _ in range(chance.randrange(1, 40)):
            peer = rig.other(one)
            action = chance.randrange(10)
            if action < 4:
                one.send_many([b"x"] * chance.randrange(1, 60)) if one.send_queue_bytes < 1 << 16 else None
            elif action < 7:
                peer.send_many([b"y"] * chance.randrange(1, 200))
            elif action == 7:
                chance.choice((one, peer)).update_keys(rig.now, request_peer=chance.random() < 0.5)
            elif action == 8:
                rig.skip(chance.uniform(0.1, 3.0))
            rig.deliver(one, drop=lambda n: chance.random() < 0.1)
            rig.deliver(peer, drop=lambda n: chance.random() < 0.1)
            for side_ in (one, peer):
                side_.messages()
            if one.held_back and settled(one) and chance.random() < 0.8:
                saved = one.checkpoint(KEY, rig.now, reserve=1024)
        # The process is gone; what it had sent and received since then is what it was.
        one.abort()
        one = again(rig, one, saved, claims)
        saved = one.checkpoint(KEY, rig.now, reserve=1024)
    assert max(watched.used.values()) == 1
    for sender in (rig.client, rig.server):
        sender.send(b"after all that")
    heard: set[str] = set()
    for _ in range(100):
        rig.run()
        if one.held_back and settled(one):
            one.checkpoint(KEY, rig.now)
        rig.skip(1.0)
        heard |= {
            str(n) for n, end in enumerate((rig.client, rig.server)) if b"after all that" in end.messages()
        }
    assert heard == {"0", "1"}
    assert max(watched.used.values()) == 1


@pytest.mark.parametrize("records", [10, 40_000, 200_000])
def test_a_peer_that_went_on_is_found_again(records: int) -> None:
    rig, one = established("server")
    state = one.checkpoint(KEY, rig.now)
    sealer = rig.client._sealing.sealer(rig.client.sending_epoch)
    for _ in range(records // 1000):
        sealer.seal_run(23, [b"lost in the crash"] * 1000)
    one.abort()
    other = again(rig, one, state)
    rig.client.send(b"here I am")
    rig.run_until(lambda: bool(other.counters.messages_received))
    assert other.messages() == [b"here I am"]
    rig.echo()


def test_the_search_is_bounded() -> None:
    rig, one = established("server")
    state = one.checkpoint(KEY, rig.now)
    other = again(rig, one, state)
    forged = bytes((0x2F,)) + bytes(8) + bytes(40)
    epoch = other._opening.epoch & 3
    forged = bytes((0x2C | epoch,)) + forged[1:]
    for _ in range(100):
        other.receive(forged, rig.now)
    assert other._awake.sought is None
    rig.echo()


def test_an_endpoint_finds_what_it_adopted_by_its_id_at_once() -> None:
    here, there = (
        dtls.Endpoint(configs.server_context().config),
        dtls.Endpoint(configs.server_context().config),
    )
    address = ("192.0.2.9", 4444)
    client = dtls.Connection.client(configs.client_context().config(), now=0.0, server_name="localhost")
    for _ in range(8):
        here.receive([(one, address) for one in client.transmit(0.0)], 0.0)
        client.receive_run([one for one, _ in here.transmit(0.0)], 0.0)
        here.events()
    assert client.cids.current
    [old] = here
    new = there.adopt(old.export_state(KEY, 0.0), KEY, address, claim=Claims(), now=0.0)
    client.send(b"at once")
    there.receive([(one, address) for one in client.transmit(0.0)], 0.0)
    assert new.messages() == [b"at once"]
    here.transmit(0.0)
    assert (here.connections, there.connections) == (0, 1)
    assert [type(event) for _, event in there.events()] == [dtls.Connected]
    new.abort()
    there.transmit(0.0)
    assert there.connections == 0


def test_an_endpoint_refuses_ids_it_could_not_find() -> None:
    here = dtls.Endpoint(configs.server_context().config, cid_bytes=8)
    there = dtls.Endpoint(configs.server_context().config, cid_bytes=6)
    address = ("192.0.2.9", 4444)
    client = dtls.Connection.client(configs.client_context().config(), now=0.0, server_name="localhost")
    for _ in range(8):
        here.receive([(one, address) for one in client.transmit(0.0)], 0.0)
        client.receive_run([one for one, _ in here.transmit(0.0)], 0.0)
        here.events()
    [old] = here
    before = there.ledger.held
    with pytest.raises(ConfigurationError, match="have not 6 bytes"):
        there.adopt(old.export_state(KEY, 0.0), KEY, address, claim=Claims(), now=0.0)
    assert (there.connections, there.ledger.held) == (0, before)
