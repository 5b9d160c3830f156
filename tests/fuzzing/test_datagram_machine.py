"""Clients and an endpoint that live through anything: hypothesis says what happens, laws what must hold.

A state machine sends, closes, updates keys, changes ids and addresses, resumes with early data, vanishes
and comes back, while the network loses, doubles, damages and reorders, and somebody repeats and forges
datagrams.  At every step: no nonce is used twice with one key, nothing arrives that was not sent, nothing
twice, no deadline lies in the past.  At the end the network heals: whoever lives can talk, whoever
died has an error that is ours, and nobody holds a byte.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sealwire import dtls
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.dtls.upkeep import Upkeep
from sealwire.errors import Error, LimitReached
from sealwire.limits import Limits
from sealwire.tls13.contract import EarlyData
from sealwire.tls13.tickets import SessionTicket
from tests import configs
from tests.network.world import Address, World, address
from tests.unit.dtls.test_nonces import WatchedProvider
from tests.unit.tls13.early import SIZE, register

CHANCES = st.sampled_from([0.0, 0.0, 0.1, 0.3])
WHO = st.integers(0, 2)


@dataclass
class Side:
    """What one end said and heard; messages are numbered over the whole run, so each is one of its kind."""

    said: set[bytes] = field(default_factory=set)
    heard: Counter[bytes] = field(default_factory=Counter)


class DatagramMachine(RuleBasedStateMachine):
    """Up to three clients before one endpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = WatchedProvider()
        server = configs.server_context().config()
        client = configs.client_context().config()
        self.wall = 1_800_000_000.0
        self.server_config = replace(
            server,
            provider=self.provider,
            num_tickets=2,
            ticket_keys=TicketKeys(),
            clock=lambda: self.wall + self.world.now,
            max_early_data_size=SIZE,
            strikes=register(),
        )
        self.client_config = replace(
            client, provider=self.provider, num_tickets=2, clock=lambda: self.wall + self.world.now
        )
        self.up, self.down = Side(), Side()
        self.early = Side()
        self.tickets: list[SessionTicket] = []
        self.here: list[Address] = []
        self.places = 0
        self.numbered = 0
        self.seen_events = 0
        self.seen_client_events: Counter[Address] = Counter()
        self.seen_client_messages: Counter[Address] = Counter()

    # --- the world -------------------------------------------------------------------------

    @initialize(
        seed=st.integers(0, 1 << 20),
        ids=st.booleans(),
        cookie=st.booleans(),
        settle=st.booleans(),
        upkeep=st.sampled_from([Upkeep(), Upkeep(spare_cids=3, keepalive=7.0, max_mtu=1452)]),
    )
    def begin(self, seed: int, ids: bool, cookie: bool, settle: bool, upkeep: Upkeep) -> None:
        self.chance = random.Random(seed)
        self.ids = ids
        self.upkeep = upkeep
        self.world = World(
            seed,
            server=self.server_config,
            client=self.client_config,
            limits=Limits(handshake_seconds=30.0, connections=6, handshakes=4, rekey_seconds=40.0),
            require_cookie=cookie,
            record=True,
        )
        for _ in range(2):
            self.connect(None)
        if settle:
            self.world.pair.run_for(2.0)

    def place(self) -> Address:
        self.places += 1
        return address(self.places)

    def connect(self, at: Address | None, ticket: SessionTicket | None = None) -> dtls.Connection:
        at = at or self.place()
        client = self.world.connect(
            at,
            connection_id=b"client" if self.ids else b"",
            ticket=ticket,
            early_data=ticket is not None,
            upkeep=self.upkeep,
        )
        self.here = [*[one for one in self.here if one != at][-2:], at]
        return client

    def client(self, who: int) -> tuple[Address, dtls.Connection]:
        at = self.here[who % len(self.here)]
        return at, self.world.client(at)

    def fresh(self) -> bytes:
        self.numbered += 1
        return b"message %d" % self.numbered

    def say(self, connection: dtls.Connection, side: Side) -> None:
        message = self.fresh()
        try:
            connection.send(message)
        except (Error, LimitReached, TimeoutError):
            # It is closed, for whatever reason there was.
            assert connection.state in ("closing", "closed") or connection.write_closed
        else:
            side.said.add(message)

    def servers(self) -> list[dtls.Connection]:
        return list(self.world.endpoint)

    # --- what the applications do ----------------------------------------------------------

    @rule(who=WHO, count=st.integers(1, 4))
    def client_sends(self, who: int, count: int) -> None:
        at, client = self.client(who)
        for _ in range(count):
            self.say(client, self.up)
        self.world.pair.touch(at)

    @rule(count=st.integers(1, 4))
    def server_sends(self, count: int) -> None:
        for server in self.servers():
            for _ in range(count):
                self.say(server, self.down)

    @rule(who=WHO, at_server=st.booleans(), how=st.sampled_from(["abort", "close", "half", "half"]))
    def somebody_closes(self, who: int, at_server: bool, how: str) -> None:
        at, client = self.client(who)
        servers = self.servers()
        one = servers[who % len(servers)] if at_server and servers else client
        if how == "abort":
            one.abort()
        elif how == "half":
            one.close_write(self.world.now)
        else:
            one.close(self.world.now)
        self.world.pair.touch(at)

    @rule(who=WHO, count=st.integers(1, 4))
    def both_talk(self, who: int, count: int) -> None:
        """And there is time for an answer."""
        self.client_sends(who, count)
        self.server_sends(count)
        self.world.pair.run_for(0.2)

    @rule(who=WHO, request=st.booleans(), at_server=st.booleans())
    def keys_are_updated(self, who: int, request: bool, at_server: bool) -> None:
        at, client = self.client(who)
        for one in self.servers() if at_server else [client]:
            if one.state == "connected" and not one.write_closed:
                one.update_keys(self.world.now, request_peer=request)
        self.world.pair.touch(at)

    @rule(who=WHO, count=st.integers(1, 3), what=st.sampled_from(["rotate", "offer", "replace", "request"]))
    def ids_change(self, who: int, count: int, what: str) -> None:
        at, client = self.client(who)
        for one in (client, *self.servers()):
            if one.state != "connected":
                continue
            try:
                if what == "rotate":
                    one.rotate_connection_id()
                elif what == "request":
                    one.request_connection_ids(count)
                else:
                    one.offer_connection_ids(count, immediate=what == "replace")
            except Error:
                # None were agreed on, one such message is on its way, or this side is closed.
                assert one.state == "connected"
        self.world.pair.touch(at)

    @precondition(lambda self: self.tickets)
    @rule(count=st.integers(0, 2))
    def somebody_comes_back(self, count: int) -> None:
        """With a ticket and early data, from where it was or from elsewhere."""
        at = self.here[0] if self.chance.random() < 0.5 else None
        client = self.connect(at, self.tickets.pop(self.chance.randrange(len(self.tickets))))
        for _ in range(count):
            message = self.fresh()
            if len(message) <= client.max_replayable_bytes:
                client.send_replayable(message)
                self.early.said.add(message)
        self.world.pair.touch(self.here[-1])

    @rule(who=WHO)
    def somebody_restarts(self, who: int) -> None:
        at, _ = self.client(who)
        self.connect(at)

    # --- what the network does -------------------------------------------------------------

    @rule(loss=CHANCES, duplicate=CHANCES, reorder=CHANCES, corrupt=CHANCES)
    def the_weather_changes(self, loss: float, duplicate: float, reorder: float, corrupt: float) -> None:
        for link in (self.world.forward, self.world.backward):
            link.loss, link.duplicate, link.reorder, link.corrupt = loss, duplicate, reorder, corrupt

    @rule(mtu=st.sampled_from([600, 1_000, 1_300, 1_500]), told=st.booleans())
    def the_path_changes(self, mtu: int, told: bool) -> None:
        """It carries more or less from here on; who sends what is too long may be told, or not."""
        for link in (self.world.forward, self.world.backward):
            link.mtu = mtu
        if told:
            for at in self.here:
                self.world.client(at).path_carries(mtu, self.world.now)
                self.world.pair.touch(at)
            for server in self.servers():
                server.path_carries(mtu, self.world.now)

    @rule(who=WHO)
    def somebody_moves(self, who: int) -> None:
        at, _ = self.client(who)
        to = self.place()
        self.world.pair.rebind(at, to)
        self.here[self.here.index(at)] = to

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 1.0, 5.0, 45.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pair.run_for(seconds)

    @rule(back=st.integers(1, 40), elsewhere=st.booleans(), damage=st.booleans())
    def somebody_repeats(self, back: int, elsewhere: bool, damage: bool) -> None:
        """A datagram of before again: as it was or damaged, from its own address or another."""
        for link in (self.world.forward, self.world.backward):
            if len(link.capture) < back:
                continue
            crossing = link.capture[-back]
            data = bytearray(crossing.data)
            if damage:
                data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
            path = crossing.path
            if elsewhere:
                path = self.place() if link is self.world.forward else self.here[0]
            link.send(bytes(data), self.world.now, path)

    @rule(noise=st.binary(min_size=1, max_size=80), who=WHO)
    def noise(self, noise: bytes, who: int) -> None:
        at, _ = self.client(who)
        self.world.forward.send(noise, self.world.now, at)
        self.world.backward.send(noise, self.world.now, at)

    # --- what must hold --------------------------------------------------------------------

    @invariant()
    def the_laws_hold(self) -> None:
        if not hasattr(self, "world"):
            return
        pair = self.world.pair
        pair.flush()
        self.listen()
        assert not self.provider.used or self.provider.used.most_common(1)[0][1] == 1, "a nonce twice"
        for side, name in ((self.up, "up"), (self.down, "down"), (self.early, "early")):
            assert not side.heard or side.heard.most_common(1)[0][1] == 1, f"{name}: delivered twice"
            assert side.heard.keys() <= side.said, f"{name}: delivered and never sent"
        for ledger in (self.world.endpoint.ledger, self.world.client_ledger):
            assert 0 <= ledger.held <= ledger.limit
        assert self.world.endpoint.connections <= 2 * self.world.limits.connections

    def listen(self) -> None:
        """Take all that was delivered so far."""
        pair = self.world.pair
        for at, messages in pair.client_messages.items():
            self.down.heard.update(messages[self.seen_client_messages[at] :])
            self.seen_client_messages[at] = len(messages)
        for at, events in pair.client_events.items():
            for event in events[self.seen_client_events[at] :]:
                if isinstance(event, dtls.TicketReceived):
                    self.tickets.append(event.ticket)
            self.seen_client_events[at] = len(events)
        closed = [connection for connection, _ in pair.server_events[self.seen_events :]]
        self.seen_events = len(pair.server_events)
        for server in dict.fromkeys([*closed, *self.servers()]):
            self.up.heard.update(server.messages())
            early = server.early_messages()
            self.early.heard.update(early)
            assert not early or server.early_data is EarlyData.ACCEPTED

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.the_weather_changes(0.0, 0.0, 0.0, 0.0)
        self.the_path_changes(1_500, told=False)
        self.world.pair.run_for(60.0)
        self.the_laws_hold()
        for at in self.here:
            client = self.world.client(at)
            if client.state == "closed":
                assert client.error is None or isinstance(client.error, (Error, TimeoutError)), client.error
            else:
                # Thirty seconds were enough to finish, and there was nothing in the way.
                assert client.state == "connected", (at, client.state)
        self.world.close()
        self.listen()
        self.the_laws_hold()


TestDatagramMachine = DatagramMachine.TestCase
TestDatagramMachine.settings = settings(
    max_examples=max(settings().max_examples // 3, 1), stateful_step_count=30
)
