"""Connection ids: what is negotiated, what stands in records, and the messages that change them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire import dtls
from sealwire.dtls.cid import CidPool
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack, is_ciphertext
from sealwire.dtls.peers import address_of
from sealwire.errors import Alert, ConnectionClosed, Discard, Error, PeerAlert, ProtocolError
from sealwire.limits import Ledger, Limits
from sealwire.record.protect import CiphertextHeader, parse_ciphertext_header
from sealwire.tls13.contract import ConnectionIds
from sealwire.tls13.messages import HandshakeType
from sealwire.wire import Reader
from tests import configs
from tests.unit.dtls.hellos import HERE, THERE
from tests.unit.dtls.host import Site
from tests.unit.dtls.rig import Rig

NEW = HandshakeType.NEW_CONNECTION_ID
REQUEST = HandshakeType.REQUEST_CONNECTION_ID


def rig(
    client: bytes = b"client", server: bytes | None = b"srv", *, handshake: bool = True, spare_cids: int = 0
) -> Rig:
    """A client that wants `client` in records to it, and a server that wants `server` (None: no ids).

    Each asks for `spare_cids` by itself.
    """
    upkeep = dtls.Upkeep(spare_cids=spare_cids)
    limits = Limits()
    ledger = Ledger(limits)
    made = Rig(
        dtls.Connection.client(
            configs.client_context().config(),
            now=0.0,
            server_name="localhost",
            ledger=ledger,
            connection_id=client,
            upkeep=upkeep,
        ),
        dtls.Connection.server(
            configs.server_context().config(), now=0.0, ledger=ledger, connection_id=server, upkeep=upkeep
        ),
        ledger,
    )
    if handshake:
        made.run()
        assert made.client.state is made.server.state is dtls.State.CONNECTED
    return made


def ids_of(datagrams: list[bytes], cid_bytes: int) -> list[bytes]:
    """The connection id of every protected record."""
    found = []
    for datagram in datagrams:
        offset = 0
        while offset < len(datagram):
            if not is_ciphertext(datagram[offset]):
                offset += 13 + int.from_bytes(datagram[offset + 11 : offset + 13], "big")
                continue
            header = parse_ciphertext_header(datagram, offset, cid_bytes)
            assert isinstance(header, CiphertextHeader), header
            found.append(header.cid)
            offset = header.end
    return found


# --- negotiation -----------------------------------------------------------------------------


@pytest.mark.requirement("9146-1", "9147-4-7")
@pytest.mark.parametrize("client", [b"", b"c", b"client-id", b"x" * 255])
@pytest.mark.parametrize("server", [None, b"", b"s", b"8 bytes.", b"y" * 20])
def test_each_side_gets_the_id_it_wants(client: bytes, server: bytes | None) -> None:
    one = rig(client, server)
    negotiated = server is not None and bool(client or server)
    assert one.client.connection_ids.negotiated is one.server.connection_ids.negotiated is negotiated
    to_server, to_client = (server or b"", client) if negotiated else (b"", b"")
    assert (one.client.connection_ids.theirs, one.client.connection_ids.ours) == (to_server, to_client)
    assert (one.server.connection_ids.ours, one.server.connection_ids.theirs) == (to_server, to_client)
    assert one.client.connection_ids.return_routability is negotiated
    one.echo()
    one.client.send(b"up")
    assert ids_of(one.deliver(one.client), len(to_server)) == [to_server]
    one.server.send(b"down")
    assert ids_of(one.deliver(one.server), len(to_client)) == [to_client]


@pytest.mark.requirement("9146-1")
@pytest.mark.parametrize("cid_bytes", [None, 0, 4, 8, 20])
@pytest.mark.parametrize("client_id", [b"", b"own"])
@pytest.mark.requirement("9146-2")
def test_an_endpoint_gives_ids_of_its_length(cid_bytes: int | None, client_id: bytes) -> None:
    site = Site(cid_bytes=cid_bytes)
    site.clients[HERE] = dtls.Connection.client(
        site.client_config, now=0.0, server_name="localhost", connection_id=client_id
    )
    site.run()
    ids = site.served().connection_ids
    negotiated = cid_bytes is not None and bool(cid_bytes or client_id)
    assert ids.negotiated is negotiated
    assert len(ids.ours) == (cid_bytes or 0)
    assert ids.theirs == (client_id if negotiated else b"")


@pytest.mark.parametrize("cid_bytes", [1, 3, 21, 255])
def test_ids_too_short_or_too_long_to_route_by_are_refused(cid_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"not {cid_bytes}"):
        Site(cid_bytes=cid_bytes)


@pytest.mark.requirement("9147-4-7")
def test_every_protected_record_carries_the_id() -> None:
    """Handshake flights with their repeats, ACKs, data, new keys, path messages and alerts."""
    one = rig(handshake=False)
    up: list[bytes] = []
    down: list[bytes] = []
    one.deliver(one.client)
    # Everything of the server's first transmission is lost, and so is the client's Finished.
    down += one.deliver(one.server, drop=lambda n: True)
    one.wake()
    down += one.deliver(one.server)
    up += one.deliver(one.client, drop=lambda n: True)
    one.wake()
    up += one.deliver(one.client)
    down += one.deliver(one.server)
    one.client.send(b"data")
    one.client.update_keys(one.now, request_peer=True)
    one.server.offer_connection_ids(1)
    for _ in range(6):
        up += one.deliver(one.client)
        # Without the new id: the client goes on with the first until told otherwise.
        down += one.deliver(one.server)
    one.inject(one.server, ContentType.RETURN_ROUTABILITY, bytes(9))
    up += one.deliver(one.client)
    unheard_of = one.record(one.client, 99, b"")
    one.client.close(one.now)
    up += one.deliver(one.client)
    one.server.receive(unheard_of, one.now)
    down += one.deliver(one.server)
    assert isinstance(one.server.error, ProtocolError)
    assert len(ids_of(up, 3)) >= 6
    assert set(ids_of(up, 3)) == {b"srv"}
    assert len(ids_of(down, 6)) >= 6
    assert set(ids_of(down, 6)) == {b"client"}


# --- records that are refused -----------------------------------------------------------------


@pytest.mark.requirement("9147-9.1-1")
def test_an_id_nobody_negotiated_is_refused() -> None:
    one = rig(b"", None)
    one.client.send(b"x")
    [datagram] = one.take(one.client)
    with_id = bytes((datagram[0] | 0x10,)) + b"srv" + datagram[1:]
    one.server.receive(with_id, one.now)
    one.unimpressed(one.server, Discard.UNKNOWN_CID)


@pytest.mark.requirement("9147-4-7")
def test_a_record_without_the_id_or_with_another_is_refused() -> None:
    one = rig()
    one.client.send(b"x")
    [datagram] = one.take(one.client)
    one.server.receive(bytes((datagram[0] & ~0x10,)) + datagram[4:], one.now)
    one.server.receive(datagram[:1] + b"srx" + datagram[4:], one.now)
    one.unimpressed(one.server, Discard.UNKNOWN_CID, 2)


@pytest.mark.requirement("9147-9.1-1")
def test_an_endpoint_drops_ids_it_never_gave() -> None:
    site = Site()
    client, server = site.connect()
    client.send(b"x")
    [datagram] = client.transmit(site.now)
    unknown = datagram[:1] + bytes(8) + datagram[9:]
    site.endpoint.receive([(unknown, HERE), (unknown, THERE)], site.now)
    assert site.inside(Discard.UNKNOWN_CID) == 2
    assert site.endpoint.transmit(site.now) == []
    assert server.messages() == []


@pytest.mark.requirement("9147-4-9")
def test_a_datagram_holds_records_of_one_association() -> None:
    site = Site()
    one, served_one = site.connect()
    two, served_two = site.connect(THERE)
    records = []
    for client, content in ((one, b"first"), (two, b"other"), (one, b"second")):
        client.send(content)
        records += client.transmit(site.now)
    site.endpoint.receive([(b"".join(records), HERE)], site.now)
    assert served_one.messages() == [b"first"]
    assert served_two.messages() == []
    assert served_one.counters.discards[Discard.UNKNOWN_CID] == 1


@pytest.mark.requirement("9147-4-8")
def test_no_datagram_goes_out_with_two_ids() -> None:
    """Two clients behind one address, as far as the server can tell by their datagrams."""
    site = Site()
    clients = {}
    for at, own in ((HERE, b"one!"), (THERE, b"two!")):
        clients[own] = site.clients[at] = dtls.Connection.client(
            site.client_config, now=0.0, server_name="localhost", connection_id=own
        )
    site.run()
    for at in (HERE, THERE):
        site.served(at).send_many([b"a", b"b"])
        site.served(at).update_keys(site.now)
    for datagram, to in site.endpoint.transmit(site.now):
        assert set(ids_of([datagram], 4)) == {b"one!" if to == HERE else b"two!"}


# --- new ids -----------------------------------------------------------------------------------


@pytest.mark.requirement("9147-9-1", "9147-5.7-1", "9147-7.1-3")
def test_an_immediate_id_is_used_from_the_next_record_on() -> None:
    one = rig()
    one.server.offer_connection_ids(2, immediate=True)
    offered = list(one.server.cids.ours[1:])
    one.deliver(one.server)
    # The very ACK carries it.
    assert ids_of(one.deliver(one.client), 3) == [offered[0]]
    assert one.client.cids.current == offered[0]
    assert one.client.cids.spare == 1
    one.echo()


@pytest.mark.requirement("9147-9-2", "9147-9-3", "9147-9-9")
def test_spare_ids_are_used_in_their_order_on_new_paths() -> None:
    one = rig()
    one.server.offer_connection_ids(3)
    offered = list(one.server.cids.ours)
    one.run()
    assert one.client.cids.spare == 3
    for cid in offered:
        assert one.client.cids.current == cid
        one.echo()
        one.client.path_changed()
    # No spare is left, so the last one stays.
    assert one.client.cids.current == offered[-1]
    one.echo()


def test_an_immediate_offer_replaces_spare_ids() -> None:
    one = rig()
    one.server.offer_connection_ids(3)
    one.run()
    one.server.offer_connection_ids(1, immediate=True)
    one.run()
    assert one.client.cids.spare == 0
    one.echo()


def test_records_under_the_old_id_still_open_while_they_are_on_their_way() -> None:
    one = rig()
    one.client.send(b"early")
    early = one.take(one.client)
    one.server.offer_connection_ids(1, immediate=True)
    one.run()
    one.server.receive_run(early, one.now)
    assert one.server.messages() == [b"early"]
    # The next offer retires what the first one replaced.
    one.client.send(b"late")
    late = [early[0][:1] + b"srv" + datagram[4:] for datagram in one.take(one.client)]
    one.server.offer_connection_ids(1, immediate=True)
    assert b"srv" not in one.server.cids.ours
    one.server.receive_run(late, one.now)
    assert one.server.messages() == []


@pytest.mark.requirement("9147-9-10")
def test_a_request_is_answered_with_spare_ids() -> None:
    one = rig()
    one.client.request_connection_ids(3)
    one.run()
    assert one.client.cids.spare == 3
    assert len(one.server.cids.ours) == 4
    one.server.request_connection_ids(2)
    one.run()
    assert one.server.cids.spare == 2


@pytest.mark.requirement("9147-9-12", "9147-9-4")
def test_a_large_request_gets_what_there_is_room_for_and_another_one_none() -> None:
    one = rig()
    one.client.request_connection_ids(255)
    one.run()
    assert one.client.cids.spare == len(one.server.cids.ours) - 1 == 6
    one.client.request_connection_ids(255)
    one.run()
    assert one.client.cids.spare == 6
    # It is answered all the same, or no further one could be sent.
    one.client.request_connection_ids(1)
    one.run()
    with pytest.raises(Error, match="7 connection ids are in use"):
        one.server.offer_connection_ids(1)
    # Immediate ones can always be given, and make room again.
    for _ in range(20):
        one.server.offer_connection_ids(1, immediate=True)
        one.run()
        one.echo()
    one.client.request_connection_ids(5)
    one.run()
    assert one.client.cids.spare == 5
    assert len(one.server.cids.ours) <= 8


@pytest.mark.requirement("9147-9-13")
def test_a_flood_of_requests_ends_the_connection() -> None:
    one = rig()
    for _ in range(16):
        one.client.request_connection_ids(1)
        one.run()
        assert one.server.state is dtls.State.CONNECTED
    one.client.request_connection_ids(1)
    one.deliver(one.client)
    one.refuses(one.server, Alert.TOO_MANY_CIDS_REQUESTED)


@pytest.mark.requirement("9147-9-13")
def test_requests_with_data_between_them_are_no_flood() -> None:
    one = rig()
    for _ in range(40):
        one.client.request_connection_ids(1)
        one.run()
        one.echo()


# --- refusals ----------------------------------------------------------------------------------


def new_ids(cids: list[bytes], usage: int) -> bytes:
    content = b"".join(bytes((len(cid),)) + cid for cid in cids)
    return len(content).to_bytes(2, "big") + content + bytes((usage,))


@pytest.mark.requirement("9147-9-8", "9147-9-14")
@pytest.mark.parametrize(
    ("client", "server", "kind", "body"),
    [
        (b"", None, NEW, new_ids([b"new"], 1)),
        (b"", None, REQUEST, b"\x01"),
        # The server sends an empty id, so it takes none to come: it may not ask, nor be given any.
        (b"c", b"", NEW, new_ids([b"new"], 1)),
    ],
)
def test_messages_without_ids_are_unexpected(
    client: bytes, server: bytes | None, kind: int, body: bytes
) -> None:
    one = rig(client, server)
    one.inject(one.server, ContentType.HANDSHAKE, one.message(one.server, kind, body))
    one.refuses(one.client, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.requirement("9147-9-8")
def test_a_request_to_a_side_that_receives_no_ids_is_unexpected() -> None:
    one = rig(b"", b"srv")
    one.inject(one.server, ContentType.HANDSHAKE, one.message(one.server, REQUEST, b"\x01"))
    one.refuses(one.client, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.parametrize(
    ("kind", "body", "alert"),
    [
        (NEW, new_ids([b"new"], 2), Alert.ILLEGAL_PARAMETER),
        (NEW, new_ids([b""], 1), Alert.ILLEGAL_PARAMETER),
        (NEW, new_ids([b"new", b""], 0), Alert.ILLEGAL_PARAMETER),
        (NEW, new_ids([], 0), Alert.ILLEGAL_PARAMETER),
        (NEW, new_ids([b"new"], 1)[:-1], Alert.DECODE_ERROR),
        (NEW, new_ids([b"new"], 1) + b"\0", Alert.DECODE_ERROR),
        (NEW, b"\x00\x02\x05a\x01", Alert.DECODE_ERROR),
        (NEW, b"", Alert.DECODE_ERROR),
        (REQUEST, b"", Alert.DECODE_ERROR),
        (REQUEST, b"\x01\x01", Alert.DECODE_ERROR),
    ],
)
def test_malformed_messages_have_their_alert(kind: int, body: bytes, alert: Alert) -> None:
    one = rig()
    one.inject(one.server, ContentType.HANDSHAKE, one.message(one.server, kind, body))
    one.refuses(one.client, alert)


@pytest.mark.requirement("9147-9-6", "9147-9-7", "9147-9-14")
def test_the_interface_refuses_what_was_not_negotiated() -> None:
    for one in (rig(b"", None), rig(b"", None, handshake=False)):
        for side in (one.client, one.server):
            with pytest.raises(Error, match="this side receives no connection ids"):
                side.offer_connection_ids(1)
            with pytest.raises(Error, match="the peer receives no connection ids"):
                side.request_connection_ids(1)
    one = rig(b"", b"srv")
    with pytest.raises(Error, match="this side receives"):
        one.client.offer_connection_ids(1)
    with pytest.raises(Error, match="the peer receives"):
        one.server.request_connection_ids(1)
    one.echo()


@pytest.mark.parametrize("count", [0, -1, 256])
def test_the_interface_refuses_counts_that_cannot_be(count: int) -> None:
    one = rig()
    with pytest.raises(ValueError, match=str(count)):
        one.client.request_connection_ids(count)
    if count < 1:
        with pytest.raises(ValueError, match=str(count)):
            one.client.offer_connection_ids(count)
    one.echo()


def test_a_closed_connection_gives_out_nothing() -> None:
    one = rig()
    one.client.close(one.now)
    one.deliver(one.client)
    with pytest.raises(ConnectionClosed):
        one.client.offer_connection_ids(1)
    with pytest.raises(ConnectionClosed):
        one.client.request_connection_ids(1)
    assert one.take(one.client) == []


# --- reliability -------------------------------------------------------------------------------


@pytest.mark.requirement("9147-9-5", "9147-9-11", "9147-5.8.4-3")
def test_one_of_a_kind_is_on_its_way() -> None:
    one = rig()
    one.server.offer_connection_ids(1)
    one.take(one.server)
    with pytest.raises(Error, match="not acknowledged"):
        one.server.offer_connection_ids(1)
    one.server.request_connection_ids(1)
    one.take(one.server)
    with pytest.raises(Error, match="not answered"):
        one.server.request_connection_ids(1)
    one.run_until(lambda: one.server.cids.spare == 1 and one.client.cids.spare == 1)
    one.server.offer_connection_ids(1)
    one.server.request_connection_ids(1)
    one.run()
    assert one.client.cids.spare == 2


@pytest.mark.requirement("9147-9-10")
def test_the_answer_to_a_request_waits_until_an_offer_is_acknowledged() -> None:
    one = rig()
    one.server.offer_connection_ids(1)
    offer = one.take(one.server)
    one.client.request_connection_ids(2)
    one.deliver(one.client)
    one.deliver(one.server)
    assert one.client.cids.spare == 0
    one.client.receive_run(offer, one.now)
    one.run()
    assert one.client.cids.spare == 3


@pytest.mark.requirement("9147-8-8")
def test_ids_wait_behind_new_keys() -> None:
    one = rig()
    one.server.update_keys(one.now)
    update = one.take(one.server)
    one.server.offer_connection_ids(1)
    one.server.request_connection_ids(1)
    assert one.take(one.server) == []
    one.client.receive_run(update, one.now)
    one.deliver(one.client)
    [datagram] = one.deliver(one.server)
    # In the new epoch, whose low bits are 00.
    assert datagram[0] & 3 == 0
    one.run()
    assert (one.client.cids.spare, one.server.cids.spare) == (1, 1)


@pytest.mark.requirement("9147-8-8")
def test_a_message_in_the_epoch_before_the_update_is_refused() -> None:
    one = rig()
    one.server.update_keys(one.now)
    one.run()
    body = new_ids([b"new"], 1)
    one.server.send(b"under the new keys")
    one.run()
    sealing = one.server._sealing
    assert 3 not in sealing
    old = one.client.cids.current
    with pytest.raises(ProtocolError):
        one.client._layer._receive_cid_message(3, bytes((NEW,)) + len(body).to_bytes(3, "big") + body)
    assert one.client.cids.current == old


@pytest.mark.requirement("9147-8-2")
def test_new_keys_wait_for_the_ids_before_them() -> None:
    one = rig()
    one.server.offer_connection_ids(1)
    one.take(one.server)
    one.server.update_keys(one.now)
    one.deliver(one.server)
    one.deliver(one.client)
    # The update is acknowledged, the ids are not.
    assert one.server._sealing.epoch == 3
    one.run_until(lambda: one.server._sealing.epoch == 4)
    assert one.client.cids.spare == 1
    one.echo()


@pytest.mark.requirement("9147-5.7-1", "9147-7-5")
@pytest.mark.parametrize("immediate", [False, True])
def test_a_lost_ack_brings_the_message_and_the_ack_again(immediate: bool) -> None:
    one = rig()
    one.server.offer_connection_ids(1, immediate=immediate)
    for _ in range(3):
        one.deliver(one.server)
        assert one.take(one.client)
        one.wake()
    one.run()
    assert one.client.cids.spare == (not immediate)
    assert one.server._layer._flight.deadline is None
    one.server.offer_connection_ids(1)
    one.run()
    one.echo()


@pytest.mark.requirement("9147-9-11")
def test_a_lost_request_is_sent_again() -> None:
    one = rig()
    one.client.request_connection_ids(2)
    for _ in range(3):
        assert one.take(one.client)
        one.wake()
    one.run()
    assert one.client.cids.spare == 2


def test_ids_and_new_keys_together_for_a_long_time() -> None:
    one = rig()
    for n in range(12):
        side, other = (one.server, one.client) if n % 2 else (one.client, one.server)
        side.update_keys(one.now, request_peer=n % 3 == 0)
        side.offer_connection_ids(1, immediate=n % 4 < 2)
        one.run()
        other.path_changed()
        one.echo()
        one.skip(30.0)
    assert len(one.server.cids.ours) <= 8


# --- an endpoint's routes ----------------------------------------------------------------------


def test_ids_given_out_are_routes_and_are_forgotten_with_the_connection() -> None:
    site = Site()
    client, server = site.connect()
    server.offer_connection_ids(3)
    site.run()
    assert set(site.endpoint._peers.by_cid) == set(server.cids.ours)
    assert len(server.cids.ours) == 4
    client.path_changed()
    client.send(b"by a spare id")
    site.run()
    assert server.messages() == [b"by a spare id"]
    for _ in range(20):
        server.offer_connection_ids(1, immediate=True)
        site.run()
        client.send(b"by a new id")
        site.run()
        assert server.messages() == [b"by a new id"]
        assert set(site.endpoint._peers.by_cid) == set(server.cids.accepted)
        # Those given up last may still be on the way in some record; their number is bounded.
        assert set(server.cids.ours) <= set(server.cids.accepted)
        assert len(server.cids.accepted) <= len(server.cids.ours) + 8
    assert not server.cids.retired
    client.close(site.now)
    site.run()
    server.close(site.now)
    site.skip(300.0)
    assert site.endpoint.connections == 0
    assert site.endpoint._peers.by_cid == {}


def test_a_record_overtaken_by_a_change_of_ids_still_opens() -> None:
    site = Site()
    client, server = site.connect()
    client.send(b"before")
    (late,) = client.transmit(site.now)
    for n in range(5):
        server.offer_connection_ids(1, immediate=True)
        site.run()
        client.send(b"after %d" % n)
        site.run()
    assert len(server.messages()) == 5
    assert late[1:9] not in server.cids.ours
    site.endpoint.receive([(late, address_of(server))], site.now)
    assert server.messages() == [b"before"]
    for _ in range(10):
        server.offer_connection_ids(1, immediate=True)
        site.run()
    assert late[1:9] not in server.cids.accepted
    assert late[1:9] not in site.endpoint._peers.by_cid


def test_failed_handshakes_leave_no_routes() -> None:
    site = Site()
    for n in range(5):
        site.add(("192.0.2.1", n + 1))
    site.up()
    site.down()
    site.up()
    assert site.endpoint.connections == 5
    assert len(site.endpoint._peers.by_cid) == 5
    site.clients.clear()
    site.skip(300.0)
    assert site.endpoint.connections == 0
    assert site.endpoint._peers.by_cid == {}


# --- spare ones, kept by themselves ----------------------------------------------------------


@pytest.mark.requirement("9147-9-9", "9147-11-9", "9147-9-10")
@pytest.mark.parametrize("spare", [1, 2, 4])
def test_spare_ids_are_asked_for_before_they_are_needed(spare: int) -> None:
    one = rig(spare_cids=spare)
    assert one.client.cids.spare == one.server.cids.spare == 0
    # A connection that ends soon costs nothing for this.
    one.skip(0.9)
    assert one.client.cids.spare == one.server.cids.spare == 0
    one.skip(0.3)
    assert one.client.cids.spare == one.server.cids.spare == spare
    for _ in range(40):
        for side in (one.client, one.server):
            before = side.cids.current
            assert side.rotate_connection_id()
            assert side.cids.current != before
        one.skip(0.1)
        # Each one that is used is replaced, though nobody ever gives an id back.
        assert one.client.cids.spare == one.server.cids.spare == spare
        one.echo()
    assert len(one.client.cids.ours) <= 8


def test_spare_ids_wait_for_data_where_paths_change_again_and_again() -> None:
    """More requests than a peer answers without data between them would end the connection."""
    one = rig(spare_cids=1)
    one.skip(2.0)
    rotated = []
    for _ in range(40):
        rotated.append(one.client.rotate_connection_id())
        one.run()
    assert 4 <= sum(rotated) <= 10
    one.echo()
    one.client.rotate_connection_id()
    one.run()
    assert one.client.error is one.server.error is None


@pytest.mark.requirement("9147-9-7", "9147-9-14")
@pytest.mark.parametrize(("client", "server"), [(b"", b"srv"), (b"client", b""), (b"", None)])
def test_no_ids_are_asked_of_a_side_that_receives_none(client: bytes, server: bytes | None) -> None:
    one = rig(client, server, spare_cids=2)
    one.skip(2.0)
    assert one.client.cids.spare == (2 if server else 0)
    assert one.server.cids.spare == (2 if client else 0)
    one.echo()


def test_a_peer_that_could_not_follow_a_move_is_not_asked() -> None:
    agreed = ConnectionIds(True, b"ours", b"theirs", return_routability=False)
    assert CidPool(agreed, bytes, wanted=3).top_up() == []
    assert len(CidPool(replace(agreed, return_routability=True), bytes, wanted=3).top_up()) == 1


@pytest.mark.requirement("9147-9-11", "9147-9-12", "9147-9-9")
@pytest.mark.parametrize("answer", [None, b"\0\0\x01"])
def test_a_pool_that_the_peer_never_refills(answer: bytes | None) -> None:
    """It acknowledges the request and says nothing, or says that it has none."""
    one = rig(server=b"srv")
    one.client.request_connection_ids(1)
    [asked] = one.take(one.client)
    assert one.client.cids.spare == 0
    one.client.receive(one.record(one.server, ContentType.ACK, encode_ack([RecordNumber(3, 0)])), one.now)
    if answer is not None:
        one.inject(one.server, ContentType.HANDSHAKE, one.message(one.server, NEW, answer))
        one.take(one.client)
    # The id stays: a connection that can be followed is better than none.
    assert not one.client.rotate_connection_id()
    one.client.path_changed()
    assert one.client.cids.current == b"srv"
    if answer is None:
        with pytest.raises(Error, match="not answered"):
            one.client.request_connection_ids(1)
    else:
        one.client.request_connection_ids(1)
    assert asked


@pytest.mark.requirement("9147-9-12")
def test_a_peer_without_ids_to_give_is_asked_once() -> None:
    pool = CidPool(ConnectionIds(True, b"ours", b"theirs", return_routability=True), bytes, wanted=2)
    assert len(pool.top_up()) == 1
    pool.receive(NEW, Reader(b"\0\0\x01"))
    assert pool.top_up() == []


@pytest.mark.requirement("9147-9-13")
def test_too_many_requests_are_told_and_the_teller_believed() -> None:
    one = rig()
    for _ in range(40):
        if one.client.error is None:
            one.client.request_connection_ids(1)
            one.run()
    assert isinstance(one.server.error, ProtocolError)
    assert one.server.error.alert is Alert.TOO_MANY_CIDS_REQUESTED
    assert isinstance(one.client.error, PeerAlert)
    assert one.client.error.alert is Alert.TOO_MANY_CIDS_REQUESTED


@pytest.mark.parametrize("value", [-1, 5])
def test_upkeep_refuses_what_cannot_be(value: int) -> None:
    with pytest.raises(ValueError, match=str(value)):
        dtls.Upkeep(spare_cids=value)


# --- ids that make records longer -----------------------------------------------------------


def test_a_message_queued_before_a_longer_id_came_never_passes_the_mtu() -> None:
    one = rig(client=b"c")
    longest = one.server.max_message_bytes
    one.server.send_many([bytes(longest), b"short", bytes(longest - 30), bytes(longest - 29)])
    one.server._layer.cids.current = b"thirty bytes longer than the old one"[:31]
    one.server._sealing.use_cid(one.server._layer.cids.current)
    sent = one.server.transmit(one.now)
    assert [len(datagram) for datagram in sent] == [1200 - longest + 30 + 5, 1200]
    assert one.server.counters.messages_too_long == 2
    assert one.server.max_message_bytes == longest - 30


@pytest.mark.parametrize("size", [1, 20, 255])
def test_a_message_queued_before_the_peers_id_is_known_never_passes_the_mtu(size: int) -> None:
    one = rig(client=b"c" * size, handshake=False)
    one.server.send(bytes(1200 - 22))
    one.server.send(b"short")
    one.run()
    assert one.client.messages() == [b"short"]
    assert one.server.counters.messages_too_long == 1
