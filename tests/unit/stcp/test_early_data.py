"""Early data over a stream: sent, taken apart from the rest, skipped where it was refused; and its end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealwire import stcp
from sealwire.context import Config
from sealwire.crypto.groups import Group
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.errors import Alert, Error, LimitReached, ProtocolError
from sealwire.limits import Ledger, Limits
from sealwire.stcp.deframe import APPLICATION_DATA, HANDSHAKE
from sealwire.tls13.contract import EarlyData
from sealwire.tls13.messages import HandshakeType, frame
from sealwire.tls13.tickets import SessionTicket
from tests.unit.stcp.pair import deliver, inject, plain
from tests.unit.tls13.early import SIZE, register, world
from tests.unit.tls13.test_tickets import World


class Ends:
    """Both ends of a connection, early data wanted."""

    def __init__(
        self,
        made: World,
        ticket: SessionTicket | None,
        *,
        server: Config | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.ledger = Ledger(Limits())
        self.client = stcp.Connection.client(
            made.client, now=0.0, server_name="localhost", ticket=ticket, early_data=True
        )
        self.server = stcp.Connection.server(
            server or made.server, now=0.0, limits=limits, ledger=self.ledger
        )

    def run(self, step: int = 1 << 20) -> Ends:
        while deliver(self.client, self.server, step) or deliver(self.server, self.client, step):
            pass
        return self

    def refused(self) -> Alert:
        assert isinstance(self.server.error, ProtocolError), self.server.error
        return self.server.error.alert


def ticket_of(made: World) -> SessionTicket:
    client = Ends(made, None).run().client
    return next(one.ticket for one in client.events() if isinstance(one, stcp.TicketReceived))


@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-5")
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_accepted(step: int) -> None:
    made = world()
    ends = Ends(made, ticket_of(made))
    client, server = ends.client, ends.server
    assert client.max_replayable_bytes == SIZE
    client.send_replayable(b"early ")
    client.send_replayable(b"data")
    client.send(b"later")
    deliver(client, server, step)
    assert server.state == "handshaking"
    assert server.early_buffered == 10
    assert server.read_early(4) == b"earl"
    assert server.read() == b""
    ends.run(step)
    assert client.session.early_data is server.session.early_data is EarlyData.ACCEPTED
    assert server.read_early() == b"y data"
    assert server.read() == b"later"
    server.send(b"answer")
    ends.run(step)
    assert client.read() == b"answer"
    assert client.max_replayable_bytes == 0
    with pytest.raises(Error, match="early data cannot be sent"):
        client.send_replayable(b"x")


def test_more_after_the_servers_answer_is_on_its_way() -> None:
    """Until the server's Finished comes, a client may go on."""
    made = world()
    ends = Ends(made, ticket_of(made))
    deliver(ends.client, ends.server)
    answer = ends.server.data_to_send()
    ends.client.send_replayable(b"more")
    ends.client.receive_data(answer)
    deliver(ends.client, ends.server)
    assert ends.server.read_early() == b"more"
    assert ends.server.state == "connected"


WAYS = {
    "another process": lambda config: replace(config, strikes=register()),
    "other ticket keys": lambda config: replace(config, ticket_keys=TicketKeys()),
    "a retry": lambda config: replace(config, groups=(Group.SECP384R1,)),
    "no early data here": lambda config: replace(config, max_early_data_size=0, strikes=None),
    "no tickets here": lambda config: replace(config, num_tickets=0),
}


@pytest.mark.requirement("8446-0RTT-3", "8446-0RTT-4")
@pytest.mark.parametrize("step", [11, 1 << 20])
@pytest.mark.parametrize("way", WAYS)
def test_rejected_and_skipped(way: str, step: int) -> None:
    """The handshake goes on past records nobody here can read, and nothing is sent again."""
    made = world()
    ends = Ends(made, ticket_of(made), server=WAYS[way](made.server))
    client, server = ends.client, ends.server
    for _ in range(10):
        client.send_replayable(bytes(SIZE // 10))
    client.send(b"later")
    ends.run(step)
    assert client.session.early_data is EarlyData.REJECTED
    assert client.session.retried is (way == "a retry")
    assert server.read_early() == b""
    assert server.read() == b"later"
    server.send(b"answer")
    ends.run(step)
    assert client.read() == b"answer"


@pytest.mark.requirement("8446-0RTT-3")
@pytest.mark.parametrize("way", ["another process", "a retry"])
@pytest.mark.parametrize("size", [0, 1, 1_000, 16_000])
def test_skipping_comes_to_an_end(way: str, size: int) -> None:
    """Records of any size, for ever: unexpected_message after as much as anybody may send."""
    made = world()
    ends = Ends(made, ticket_of(made), server=WAYS[way](made.server))
    deliver(ends.client, ends.server)
    n = 0
    while ends.server.error is None:
        inject(ends.client, APPLICATION_DATA, bytes(size))
        deliver(ends.client, ends.server)
        n += max(size, 1)
        assert n <= 16_384 + 16_000
    assert ends.refused() is Alert.UNEXPECTED_MESSAGE
    assert n > 16_000


@pytest.mark.requirement("8446-0RTT-3", "8446-ALERT-6")
def test_after_the_first_good_record_nothing_is_skipped() -> None:
    made = world()
    ends = Ends(made, ticket_of(made), server=WAYS["another process"](made.server)).run()
    assert ends.server.state == "connected"
    ends.server.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert ends.refused() is Alert.BAD_RECORD_MAC


def test_without_an_offer_nothing_is_skipped() -> None:
    made = world()
    ends = Ends(made, None)
    deliver(ends.client, ends.server)
    ends.server.receive_data(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert ends.refused() is Alert.BAD_RECORD_MAC


@pytest.mark.requirement("8446-0RTT-1")
def test_the_limit_of_both_sides() -> None:
    made = world(size=100)
    ends = Ends(made, ticket_of(made))
    with pytest.raises(ValueError, match="more than the 100 that are left"):
        ends.client.send_replayable(bytes(101))
    ends.client.send_replayable(bytes(60))
    assert ends.client.max_replayable_bytes == 40
    deliver(ends.client, ends.server)
    inject(ends.client, APPLICATION_DATA, bytes(40))
    deliver(ends.client, ends.server)
    assert ends.server.error is None
    inject(ends.client, APPLICATION_DATA, b"x")
    deliver(ends.client, ends.server)
    assert ends.refused() is Alert.UNEXPECTED_MESSAGE


@pytest.mark.requirement("8446-0RTT-5", "8446-ALERT-3")
def test_its_end() -> None:
    """Wrong messages in its epoch, bytes behind the end, and data between the parts of it."""
    end = frame(HandshakeType.END_OF_EARLY_DATA, b"")
    for content, alert in (
        (frame(HandshakeType.FINISHED, bytes(32)), Alert.UNEXPECTED_MESSAGE),
        (end + b"\x14", Alert.UNEXPECTED_MESSAGE),
        (end + end, Alert.UNEXPECTED_MESSAGE),
        (end[:3] + b"\x01\0", Alert.DECODE_ERROR),
        (b"", Alert.UNEXPECTED_MESSAGE),
    ):
        made = world()
        ends = Ends(made, ticket_of(made))
        deliver(ends.client, ends.server)
        inject(ends.client, HANDSHAKE, content)
        deliver(ends.client, ends.server)
        assert ends.refused() is alert
    made = world()
    ends = Ends(made, ticket_of(made))
    deliver(ends.client, ends.server)
    inject(ends.client, HANDSHAKE, end[:2])
    inject(ends.client, APPLICATION_DATA, b"x")
    deliver(ends.client, ends.server)
    assert ends.refused() is Alert.UNEXPECTED_MESSAGE
    ends = Ends(made, ticket_of(made))
    deliver(ends.client, ends.server)
    ends.server.receive_data(plain(HANDSHAKE, end))
    assert ends.refused() is Alert.UNEXPECTED_MESSAGE


def test_before_finished() -> None:
    made = world()
    ends = Ends(made, ticket_of(made))
    client, server = ends.client, ends.server
    with pytest.raises(Error, match="no hello yet"):
        server.send_before_finished(b"x")
    with pytest.raises(Error, match="no hello yet"):
        client.send_before_finished(b"x")
    client.send_replayable(b"question")
    deliver(client, server)
    server.send(b" and after")
    server.send_before_finished(b"answer")
    deliver(server, client)
    assert client.read() == b"answer"
    ends.run()
    assert client.read() == b" and after"
    server.send_before_finished(b"as any other")
    ends.run()
    assert client.read() == b"as any other"


def test_before_finished_is_bounded() -> None:
    made = world()
    ends = Ends(made, None, limits=Limits(send_queue_bytes=5_000))
    deliver(ends.client, ends.server)
    while ends.server.queued < 5_000:
        ends.server.send_before_finished(bytes(1_000))
    with pytest.raises(LimitReached):
        ends.server.send_before_finished(b"x")


def test_memory_is_given_back() -> None:
    made = world()
    ends = Ends(made, ticket_of(made))
    ends.client.send_replayable(bytes(SIZE))
    deliver(ends.client, ends.server)
    held = ends.ledger.held
    ends.server.read_early()
    assert ends.ledger.held == held - SIZE
    ends.run()
    ends.server.release()
    assert ends.ledger.held == 0
    # What nobody read goes with the connection.
    ends = Ends(made, ticket_of(made))
    ends.client.send_replayable(bytes(SIZE))
    ends.run()
    ends.server.release()
    assert ends.ledger.held == 0


@pytest.mark.requirement("8446-0RTT-2")
def test_the_same_bytes_again() -> None:
    made = world()
    ends = Ends(made, ticket_of(made))
    ends.client.send_replayable(b"once")
    flight = ends.client.data_to_send()
    heard = []
    for _ in range(3):
        server = stcp.Connection.server(made.server, now=0.0)
        server.receive_data(flight)
        heard.append(server.read_early())
        assert server.error is None
    assert heard == [b"once", b"", b""]
