"""Tickets beside external keys: neither takes the place of the other by accident."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire.context import CERT_NONE
from sealwire.crypto.psk import ExternalPsk
from sealwire.tls13.flavor import Flavor
from tests import psks
from tests.psks import DEVICE, SECRET
from tests.unit.tls13.engines import each_flavor
from tests.unit.tls13.test_tickets import World, first_ticket, run


def keyed(*known: ExternalPsk, certified: bool = False) -> World:
    """A client that has a key, and a server that gives tickets and knows `known`."""
    world = World.make()
    return replace(
        world,
        client=replace(psks.client(DEVICE, trusting=True), num_tickets=2, clock=world.clock),
        server=replace(
            psks.server(*known, certified=certified),
            num_tickets=2,
            clock=world.clock,
            ticket_keys=world.server.ticket_keys,
        ),
    )


@pytest.mark.requirement("8446-PSK-5")
@each_flavor
def test_a_key_brings_no_tickets(flavor: Flavor) -> None:
    """They would save nothing, outlive the removal of the key, and forget whose it was."""
    client, server, tickets = run(keyed(DEVICE), flavor)
    assert client.session.psk_identity == server.session.psk_identity == b"device"
    assert tickets == []
    # The same server's certificate does bring some.
    _, server, tickets = run(keyed(ExternalPsk("other", SECRET), certified=True), flavor)
    assert server.session.psk_identity is None
    assert len(tickets) == 2


@pytest.mark.requirement("8446-PSK-5")
@each_flavor
def test_a_ticket_and_a_key_in_one_hello(flavor: Flavor) -> None:
    """The ticket stands first; where it is not known, the key behind it is found."""
    world = keyed(DEVICE, certified=True)
    ticket = first_ticket(keyed(certified=True), flavor)
    client, server, _ = run(world, flavor, ticket)
    assert not client.session.resumed
    assert client.session.psk_identity == server.session.psk_identity == b"device"

    strangers = keyed(certified=True)
    ticket = first_ticket(strangers, flavor)
    client, server, _ = run(strangers, flavor, ticket)
    assert client.session.resumed
    assert server.session.psk_identity is None


@pytest.mark.requirement("8446-PSK-5")
@each_flavor
def test_a_ticket_without_certificates_is_for_who_has_keys(flavor: Flavor) -> None:
    """Other servers give tickets after a key.  A client that now wants certificates leaves them out."""
    world = World.make()
    ticket = replace(first_ticket(world, flavor), peer=None)
    client, _, _ = run(world, flavor, ticket)
    assert not client.session.resumed
    assert client.session.peer is not None
    for lenient in (
        replace(world.client, psk_client=lambda hint: None),
        replace(world.client, verify_mode=int(CERT_NONE), check_hostname=False),
    ):
        client, _, _ = run(replace(world, client=lenient), flavor, ticket)
        assert client.session.resumed
