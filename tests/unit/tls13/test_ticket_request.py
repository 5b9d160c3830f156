"""ticket_request (RFC 9149): a client says how many tickets it wants, a server keeps within its bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

import sealwire
from sealwire.errors import Alert, ProtocolError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import SendMessage
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import ClientHello, EncryptedExtensions, HandshakeType, open_message
from sealwire.wire import Reader, Writer
from tests.unit.tls13.engines import each_flavor
from tests.unit.tls13.test_tickets import NAME, World, first_ticket, run


def asking(wanted: tuple[int, int] | None, given: int) -> World:
    world = World.make(tickets=given)
    return replace(world, client=replace(world.client, num_tickets=2, ticket_request=wanted))


def expected(world: World, flavor: Flavor) -> int | None:
    """What the server's EncryptedExtensions says."""
    client = Handshake.client(world.client, flavor, server_name=NAME)
    server = Handshake.server(world.server, flavor)
    for output in client.outputs():
        if isinstance(output, SendMessage):
            server.receive(output.epoch, output.message)
    for output in server.outputs():
        if isinstance(output, SendMessage):
            kind, body = open_message(output.message)
            if kind is HandshakeType.ENCRYPTED_EXTENSIONS:
                return EncryptedExtensions.decode(body).extensions.get(ext.TICKETS_EXPECTED)
    raise AssertionError("no EncryptedExtensions")


@pytest.mark.requirement("9149-1")
@each_flavor
@pytest.mark.parametrize(
    ("wanted", "given", "got"),
    [((0, 0), 2, 0), ((1, 9), 2, 1), ((2, 0), 2, 2), ((255, 0), 4, 4), ((3, 0), 0, 0), (None, 4, 2)],
)
def test_a_full_handshake_brings_what_was_asked_for_within_bounds(
    flavor: Flavor, wanted: tuple[int, int] | None, given: int, got: int
) -> None:
    world = asking(wanted, given)
    _, _, tickets = run(world, flavor)
    assert len(tickets) == got
    assert expected(world, flavor) == got


@pytest.mark.requirement("9149-1")
@each_flavor
@pytest.mark.parametrize(("wanted", "got"), [((2, 0), 0), ((2, 1), 1), ((2, 7), 4), (None, 1)])
def test_a_resumed_handshake_brings_its_own_number(
    flavor: Flavor, wanted: tuple[int, int] | None, got: int
) -> None:
    world = asking(wanted, 4)
    client, _, fresh = run(world, flavor, first_ticket(world, flavor))
    assert client.session.resumed
    assert len(fresh) == got


@pytest.mark.requirement("9149-1")
@each_flavor
def test_it_is_sent_by_who_wants_tickets_and_only_answered_where_asked(flavor: Flavor) -> None:
    world = asking((1, 1), 2)
    quiet = replace(world, client=replace(world.client, num_tickets=0))
    assert expected(quiet, flavor) is None
    hello = Handshake.client(quiet.client, flavor, server_name=NAME).outputs()[0]
    assert isinstance(hello, SendMessage)
    _, body = open_message(hello.message)
    assert ext.TICKET_REQUEST.code not in ClientHello.decode(body, flavor).extensions


@pytest.mark.requirement("9149-1")
@pytest.mark.parametrize("where", [Where.CLIENT_HELLO, Where.ENCRYPTED_EXTENSIONS])
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_its_length(where: Where, size: int) -> None:
    writer = Writer()
    with writer.length16():
        writer.u16(58)
        writer.vector16(bytes(size))
    right = 2 if where is Where.CLIENT_HELLO else 1
    reader = Reader(writer.finish(), "block")
    if size == right:
        assert 58 in Extensions.decode(reader, where)
        return
    with pytest.raises(ProtocolError) as refused:
        Extensions.decode(reader, where)
    assert refused.value.alert is Alert.DECODE_ERROR


@pytest.mark.requirement("9149-1")
def test_the_setting() -> None:
    context = sealwire.Context(sealwire.PROTOCOL_CLIENT)
    assert context.ticket_request is None
    context.ticket_request = (3, 1)
    assert context.config().ticket_request == (3, 1)
    for bad in ((-1, 0), (0, 256)):
        with pytest.raises(ValueError, match="0 to 255"):
            context.ticket_request = bad
    assert context.ticket_request == (3, 1)
