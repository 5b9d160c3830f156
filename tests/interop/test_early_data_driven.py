"""Coming back to NSS and wolfSSL over datagrams, and they to us: tickets, and early data (0-RTT)."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from sealwire import dtls
from sealwire.context import Context
from sealwire.dtls import EarlyData, SessionTicket
from tests import certificates, configs
from tests.interop import features
from tests.interop.driven import exchange
from tests.interop.programs import Nss
from tests.interop.sockets import DatagramClient, DatagramServer
from tests.interop.test_nss_driven import driven, served
from tests.interop.wolfssl import Wolfssl

shows = functools.partial(features.shows, peer="NSS")
wolf_shows = functools.partial(features.shows, peer="wolfSSL")
EARLY = b"early data"


def server_context(*, size: int = 1_000) -> Context:
    context = configs.server_context()
    context.num_tickets = 2
    context.max_early_data_size = size
    return context


def client_context(**options: object) -> Context:
    context = configs.client_context(**options)  # type: ignore[arg-type]
    context.num_tickets = 1
    return context


def ticket_of(client: DatagramClient) -> SessionTicket:
    def tickets() -> list[SessionTicket]:
        return [event.ticket for event in client.events if isinstance(event, dtls.TicketReceived)]

    client.run_until(lambda: bool(tickets()), "a ticket")
    return tickets()[0]


@shows("resumption by ticket", they="client")
@pytest.mark.requirement("8446-PSK-5")
def test_nss_comes_back(nss: Nss) -> None:
    server = DatagramServer(server_context().config())
    database = nss.database(trust=certificates.server())
    with driven(nss, "client", database, port=server.port, tickets=1) as peer:
        for resumed in (False, True):
            if resumed:
                peer.tell("again", resume=True)
            connection = server.accept()
            said = peer.wait_for("connected", server, int(resumed))
            assert connection.session.resumed is said["resumed"] is resumed
            exchange(server, connection, peer)


@shows("early data (0-RTT)", they="client")
@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-5")
@pytest.mark.parametrize("accepted", [True, False])
def test_early_data_of_nss(nss: Nss, accepted: bool) -> None:
    """No cookie the second time.  Refused, it is lost, and the handshake goes on."""
    context = server_context()
    server = DatagramServer(context.config())
    database = nss.database(trust=certificates.server())
    options = {"port": server.port, "tickets": 1, "early_data": 1, "early": EARLY.hex()}
    with driven(nss, "client", database, **options) as peer:
        exchange(server, server.accept(), peer)
        if not accepted:
            context.set_early_data_window(10)
            fresh = context.config()
            server.endpoint._configure = lambda: fresh
        peer.tell("again", resume=True)
        # Without a turn of ours: NSS, answered at once, would be done before it has written any.
        peer.wait_for("early data sent")
        connection = server.accept()
        said = peer.wait_for("connected", server, 1)
        assert said["resumed"]
        assert said["early_data_accepted"] is accepted
        assert connection.session.resumed
        assert connection.early_messages() == ([EARLY] if accepted else [])
        assert connection.session.retried is not accepted
        exchange(server, connection, peer)


@shows("resumption by ticket", they="server")
@pytest.mark.requirement("8446-PSK-5")
def test_we_come_back_to_nss(nss: Nss) -> None:
    context = client_context()
    with served(nss, nss.database(own=certificates.server()), tickets=1) as (peer, port):
        client = DatagramClient(context.config(), port)
        client.handshake()
        ticket = ticket_of(client)
        # Its socket stays open, since a port that is closed would be an error to NSS.
        before = client
        peer.tell("again")
        peer.wait_for("again")
        client = DatagramClient(context.config(), port, ticket=ticket)
        client.handshake()
        assert client.connection.session.resumed
        assert peer.wait_for("connected", client, 1)["resumed"]
        exchange(client, client.connection, peer)
        for one in (before, client):
            one.close()


@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-4", "8446-0RTT-5", "9147-5.6-1")
def test_early_data_to_nss(nss: Nss) -> None:
    """NSS takes it; of a hello that does not come when it should it does not, and the handshake goes on.

    Having taken it NSS waits for EndOfEarlyData, which RFC 9147 section 5.6 forbids, so its own side of that
    connection never ends; ours is complete.
    """
    context = client_context()
    options = {"tickets": 1, "early_data": 1}
    with served(nss, nss.database(own=certificates.server()), **options) as (peer, port):
        # Their sockets stay open: a port that is closed would end NSS's side of it.
        clients = [DatagramClient(context.config(), port)]
        clients[0].handshake()
        ticket = ticket_of(clients[0])
        assert ticket.max_early_data > 0
        for turn in range(2):
            peer.tell("again")
            peer.wait_for("again", number=turn)
            late = replace(ticket, received_at=ticket.received_at - 60 * turn)
            client = DatagramClient(context.config(), port, ticket=late, early_data=True)
            clients.append(client)
            client.connection.send_replayable(EARLY)
            client.handshake()
            assert client.connection.session.resumed
            if turn == 0:
                assert client.connection.session.early_data is EarlyData.ACCEPTED
                data = peer.wait_for("data", client)
                assert data["early"]
                assert bytes.fromhex(data["hex"]) == EARLY
            else:
                assert client.connection.session.early_data is EarlyData.REJECTED
                said = peer.wait_for("connected", client, 1)
                assert not said["early_data_accepted"]
                exchange(client, client.connection, peer)
        for client in clients:
            client.close()


@wolf_shows("resumption by ticket", they="client")
@pytest.mark.requirement("8446-PSK-5")
def test_wolfssl_comes_back(wolfssl: Wolfssl) -> None:
    server = DatagramServer(server_context().config())
    with wolfssl.client(server.port, certificates.server()) as peer:
        for turn in range(3):
            if turn:
                peer.tell("again", resume=True)
            connection = server.accept()
            said = peer.wait_for("connected", server, turn)
            assert connection.session.resumed is said["resumed"] is (turn > 0)
            exchange(server, connection, peer)


@wolf_shows("resumption by ticket", they="server")
@pytest.mark.requirement("8446-PSK-5")
def test_we_come_back_to_wolfssl(wolfssl: Wolfssl) -> None:
    context = client_context(groups=["X25519"])
    with wolfssl.server(certificates.server(), tickets=1) as (peer, port):
        ticket = None
        for turn in range(3):
            client = DatagramClient(context.config(), port, ticket=ticket)
            client.handshake()
            assert client.connection.session.resumed is (turn > 0)
            assert peer.wait_for("connected", client, turn)["resumed"] is (turn > 0)
            exchange(client, client.connection, peer)
            ticket = ticket_of(client)
            assert ticket.max_early_data == 0
            client.close()
            peer.tell("again")
            peer.wait_for("again", number=turn)
