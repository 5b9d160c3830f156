"""KeyUpdate and the other messages after the handshake, both protocols (RFC 8446 section 4.6)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sealwire.crypto.hkdf import next_traffic_secret
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13.contract import Direction, InstallKeys, SendMessage, TicketReceived
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import HandshakeType, KeyUpdate, NewSessionTicket, frame
from tests.unit.tls13.engines import Delivery, Pair, assert_failed, each_flavor, refused

_KT = HandshakeType
NOT_ASKING, ASKING = KeyUpdate(False).encode(), KeyUpdate(True).encode()


def connected(flavor: Flavor) -> Pair:
    pair = Pair(flavor, run=True)
    for outputs in pair.outputs.values():
        outputs.clear()
    pair.delivered.clear()
    return pair


def handle(pair: Pair, engine: Handshake) -> int:
    """The handle of the engine's last message."""
    return [output.handle for output in pair.outputs[engine] if isinstance(output, SendMessage)][-1]


def outputs(pair: Pair, engine: Handshake) -> list[str]:
    pair.collect()
    names = []
    for output in pair.outputs[engine]:
        if isinstance(output, SendMessage):
            asking = {NOT_ASKING: "update", ASKING: "update, asking"}[output.message]
            names.append(f"{asking}@{output.epoch}")
        elif isinstance(output, InstallKeys):
            names.append(f"{output.direction.value} {output.epoch}")
    return names


@pytest.mark.requirement("8446-POST-1")
@pytest.mark.parametrize("side", ["client", "server"])
def test_over_a_stream_new_keys_are_used_at_once(side: str) -> None:
    pair = connected(TLS)
    ours, theirs = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    for n in range(1, 8):
        ours.update_keys()
        assert not ours.updating_keys
        assert outputs(pair, ours)[-2:] == [f"update@{n + 2}", f"send {n + 3}"]
        pair.run()
        assert outputs(pair, theirs) == [f"receive {epoch}" for epoch in range(4, n + 4)]
        assert theirs.receive_epoch == n + 3
    pair.assert_same_keys()
    assert ours.receive_epoch == 3


@pytest.mark.requirement("8446-POST-1")
def test_over_a_stream_a_request_is_answered() -> None:
    pair = connected(TLS)
    pair.client.update_keys(request_peer=True)
    pair.collect()
    pair.run()
    assert outputs(pair, pair.client) == ["update, asking@3", "send 4", "receive 4"]
    assert outputs(pair, pair.server) == ["receive 4", "update@3", "send 4"]
    pair.assert_same_keys()


@pytest.mark.requirement("8446-POST-1")
def test_over_a_stream_both_may_ask_at_the_same_time() -> None:
    pair = connected(TLS)
    pair.client.update_keys(request_peer=True)
    pair.server.update_keys(request_peer=True)
    pair.collect()
    pair.run()
    # Each answers the other's request, and no answer asks again.
    for engine in (pair.client, pair.server):
        assert outputs(pair, engine) == [
            "update, asking@3",
            "send 4",
            "receive 4",
            "update@4",
            "send 5",
            "receive 5",
        ]
    pair.assert_same_keys()


@pytest.mark.requirement("8446-POST-2")
def test_what_was_asked_for_is_not_asked_for_again_before_it_came() -> None:
    pair = connected(TLS)
    for _ in range(3):
        pair.client.update_keys(request_peer=True)
    pair.collect()
    asked = [name for name in outputs(pair, pair.client) if name.startswith("update")]
    assert asked == ["update, asking@3", "update@4", "update@5"]
    pair.run()
    pair.client.update_keys(request_peer=True)
    pair.collect()
    assert outputs(pair, pair.client)[-2:] == ["update, asking@6", "send 7"]
    pair.run()
    pair.assert_same_keys()


@pytest.mark.requirement("8446-KS-2")
@each_flavor
def test_each_secret_follows_from_the_one_before(flavor: Flavor) -> None:
    pair = Pair(flavor, run=True)
    for _ in range(3):
        pair.client.update_keys()
        pair.run()
        pair.collect()
        pair.client.acknowledged(handle(pair, pair.client))
        pair.collect()
        pair.run()
    spec = pair.client.session.suite
    installed = pair.installed(pair.client, Direction.SEND)
    assert [keys.epoch for keys in installed] == [2, 3, 4, 5, 6]
    for before, after in pairwise(installed[1:]):
        expected = next_traffic_secret(
            pair.client_settings.provider, spec, before.secret, flavor.label_prefix
        )
        assert bytes(after.secret) == bytes(expected)
    pair.assert_same_keys()


@pytest.mark.requirement("9147-8-2", "9147-8-8", "9147-5.8.4-3")
@pytest.mark.parametrize("side", ["client", "server"])
def test_over_datagrams_new_keys_wait_for_the_acknowledgement(side: str) -> None:
    pair = connected(DTLS)
    ours, theirs = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    ours.update_keys()
    pair.collect()
    pair.run()
    assert ours.updating_keys
    assert outputs(pair, ours) == ["update@3"]
    assert outputs(pair, theirs) == ["receive 4"]
    mine = handle(pair, ours)
    for other in (0, mine - 1, mine + 1):
        ours.acknowledged(other)
        assert ours.updating_keys
    for _ in range(2):
        ours.acknowledged(mine)
    assert outputs(pair, ours) == ["update@3", "send 4"]
    pair.assert_same_keys()


@pytest.mark.requirement("9147-8-2", "9147-5.8.4-3")
def test_over_datagrams_only_one_update_is_under_way() -> None:
    pair = connected(DTLS)
    for _ in range(5):
        pair.client.update_keys()
    assert outputs(pair, pair.client) == ["update@3"]
    pair.client.acknowledged(handle(pair, pair.client))
    # The four that had to wait are one.
    assert outputs(pair, pair.client) == ["update@3", "send 4", "update@4"]
    pair.client.acknowledged(handle(pair, pair.client))
    assert outputs(pair, pair.client) == ["update@3", "send 4", "update@4", "send 5"]
    assert not pair.client.updating_keys


@pytest.mark.requirement("9147-8-2", "8446-POST-1")
@pytest.mark.parametrize("waiting", [[True], [False, True], [True, False]])
def test_over_datagrams_a_request_that_waits_is_not_forgotten(waiting: list[bool]) -> None:
    pair = connected(DTLS)
    pair.client.update_keys()
    for request_peer in waiting:
        pair.client.update_keys(request_peer=request_peer)
    pair.collect()
    pair.client.acknowledged(handle(pair, pair.client))
    assert outputs(pair, pair.client) == ["update@3", "send 4", "update, asking@4"]
    pair.run()
    assert outputs(pair, pair.server) == ["receive 4", "receive 5", "update@3"]
    # Asked once, not again with every update after it.
    pair.client.acknowledged(handle(pair, pair.client))
    pair.client.update_keys()
    assert outputs(pair, pair.client)[-1] == "update@5"


@pytest.mark.requirement("9147-8-2", "8446-POST-1")
def test_over_datagrams_both_may_ask_at_the_same_time() -> None:
    pair = connected(DTLS)
    pair.client.update_keys(request_peer=True)
    pair.server.update_keys(request_peer=True)
    pair.collect()
    pair.run()
    for engine in (pair.client, pair.server):
        assert outputs(pair, engine) == ["update, asking@3", "receive 4"]
    for engine in (pair.client, pair.server):
        engine.acknowledged(handle(pair, engine))
        assert outputs(pair, engine)[2:] == ["send 4", "update@4"]
    pair.run()
    for engine in (pair.client, pair.server):
        engine.acknowledged(handle(pair, engine))
        assert outputs(pair, engine)[4:] == ["receive 5", "send 5"]
        assert not engine.updating_keys
    pair.assert_same_keys()


@pytest.mark.requirement("8446-POST-1")
def test_over_datagrams_requests_that_come_while_the_answer_waits_have_one_answer() -> None:
    pair = connected(DTLS)
    for n in range(4):
        pair.client.update_keys(request_peer=True)
        pair.collect()
        pair.run()
        pair.client.acknowledged(handle(pair, pair.client))
        assert pair.client.receive_epoch == 4
        assert pair.server.receive_epoch == 4 + n
    assert outputs(pair, pair.server).count("update@3") == 1
    pair.server.acknowledged(handle(pair, pair.server))
    # The three later ones have one answer as well.
    assert [name for name in outputs(pair, pair.server) if name.startswith("update")] == [
        "update@3",
        "update@4",
    ]


@pytest.mark.requirement("8446-POST-1")
@each_flavor
@pytest.mark.parametrize("to_server", [False, True], ids=["client", "server"])
@pytest.mark.parametrize(
    ("body", "alert"),
    [
        (b"\x02", Alert.ILLEGAL_PARAMETER),
        (b"\xff", Alert.ILLEGAL_PARAMETER),
        (b"", Alert.DECODE_ERROR),
        (b"\0\0", Alert.DECODE_ERROR),
    ],
)
def test_key_updates_that_are_none(flavor: Flavor, to_server: bool, body: bytes, alert: Alert) -> None:
    pair = connected(flavor)
    pair.waiting.append(Delivery(to_server, 3, frame(_KT.KEY_UPDATE, body)))
    refused(pair, alert, victim="server" if to_server else "client")


@pytest.mark.requirement("9147-8-3")
@each_flavor
@pytest.mark.parametrize("to_server", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("epoch", [0, 1, 2, 3, 5])
def test_key_updates_in_another_epoch(flavor: Flavor, to_server: bool, epoch: int) -> None:
    pair = connected(flavor)
    pair.deliver(Delivery(to_server, 3, NOT_ASKING))
    pair.waiting.append(Delivery(to_server, epoch, NOT_ASKING))
    refused(pair, Alert.UNEXPECTED_MESSAGE, victim="server" if to_server else "client")


TICKET = NewSessionTicket(
    lifetime=7200,
    age_add=0x01020304,
    nonce=b"\0\1",
    ticket=b"ticket",
    extensions=Extensions(Where.NEW_SESSION_TICKET),
)


@each_flavor
def test_tickets_come_to_the_client(flavor: Flavor) -> None:
    pair = connected(flavor)
    for _ in range(3):
        pair.deliver(Delivery(False, 3, TICKET.encode()))
    received = pair.outputs[pair.client]
    assert [one.message for one in received if isinstance(one, TicketReceived)] == [TICKET] * 3
    assert len(received) == 3
    assert pair.client.complete
    refused(
        pair,
        Alert.UNEXPECTED_MESSAGE,
        victim="server",
        act=lambda: pair.deliver(Delivery(True, 3, TICKET.encode())),
    )


@each_flavor
@pytest.mark.parametrize(
    "body",
    [
        "",
        "00000e10 00000000 00 0000 0000",  # an empty ticket
        "00000e10 00000000 00 0001 aa 0001 00",
        "00000e10 00000000 00 0001 aa 0000 00",
        "00000e10 00000000 00 0001 aa 0007 002a 0003 000000",
    ],
)
@pytest.mark.requirement("8446-NEG-10")
def test_malformed_tickets(flavor: Flavor, body: str) -> None:
    pair = connected(flavor)
    pair.waiting.append(Delivery(False, 3, frame(_KT.NEW_SESSION_TICKET, bytes.fromhex(body))))
    refused(pair, Alert.DECODE_ERROR, victim="client")


@pytest.mark.requirement("8446-POST-4", "8446-POST-5", "8446-AUTH-4")
@each_flavor
@pytest.mark.parametrize("to_server", [False, True], ids=["client", "server"])
def test_every_other_message_after_the_handshake(flavor: Flavor, to_server: bool) -> None:
    allowed = {_KT.KEY_UPDATE} if to_server else {_KT.KEY_UPDATE, _KT.NEW_SESSION_TICKET}
    for code in (*range(32), 67, 203, 254, 255):
        if code in allowed:
            continue
        pair = connected(flavor)
        pair.waiting.append(Delivery(to_server, 3, frame(_KT(code), bytes(32))))
        refused(pair, Alert.UNEXPECTED_MESSAGE, victim="server" if to_server else "client")


@each_flavor
def test_what_the_transport_saw_ends_the_engine_too(flavor: Flavor) -> None:
    pair = connected(flavor)
    error = pair.client.fail(Alert.BAD_RECORD_MAC, "a record failed")
    assert error.alert is Alert.BAD_RECORD_MAC
    assert not isinstance(error, HandshakeError)
    assert_failed(pair.client, error)
    early = Pair(flavor)
    error = early.server.fail(Alert.BAD_RECORD_MAC, "a record failed")
    assert isinstance(error, HandshakeError)
    assert_failed(early.server, error)
