"""A town of simulated peers around one endpoint: honest ones of every kind, and attackers.

Engines are real, links and time are not.  Everything that happens follows from one seed.  The server
echoes; what it reads, and how many it may hold, is what its Limits say.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from sealwire import dtls
from sealwire.attack.hellos import Payload
from sealwire.attack.puppet import Puppet
from sealwire.context import PROTOCOL_CLIENT, PROTOCOL_SERVER, Config, Context
from sealwire.crypto.psk import ExternalPsk
from sealwire.dtls.detectors import Attack, AttackEvent
from sealwire.errors import Error
from sealwire.limits import Limits
from sealwire.sim import EndpointPair, Link

Address = tuple[str, int]

#: A small server, so that small attacks are large ones.
LIMITS: Final = Limits(total_bytes=24 * 1024 * 1024, connections=2_000, handshakes=400)
#: How often the server's application reads.
_READ_SECONDS: Final = 0.5
#: How often floods put in what is due.
_FLOOD_SECONDS: Final = 0.1
#: How often an attacker sees whether it was thrown out.
_LOOK_SECONDS: Final = 1.0
_SECRET: Final = bytes(range(32))


class Honest(Puppet):
    """A client with a path of its own, which loses, and an application that speaks now and then."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.loss = 0.0
        self.path = random.Random(0)  # noqa: S311 -- to be repeated, not to be secret

    def says(self, datagrams: list[bytes]) -> list[bytes]:
        return [one for one in datagrams if self.path.random() >= self.loss]

    def receive(self, datagram: Any, now: float) -> None:
        if self.path.random() >= self.loss:
            super().receive(datagram, now)


def _configs(post_quantum: bool, key: bytes = _SECRET) -> Config:
    client = Context(PROTOCOL_CLIENT)
    client.set_psk_client_callback(lambda hint: ExternalPsk("peer", key))
    client.set_key_shares(["X25519MLKEM768" if post_quantum else "X25519"])
    return client.config()


def server_config() -> Config:
    """A server that knows its peers by one key, which is as cheap as a real handshake gets."""
    server = Context(PROTOCOL_SERVER)
    known = ExternalPsk("peer", _SECRET)
    server.set_psk_server_callback(lambda identity: known if identity == "peer" else None)
    return server.config()


@dataclass(frozen=True, slots=True)
class Kit:
    """What peers are made with, made once for many towns."""

    server: Config
    plain: Config
    post_quantum: Config
    mistaken: Config

    @classmethod
    def make(cls) -> Kit:
        return cls(server_config(), _configs(False), _configs(True), _configs(False, bytes(32)))


class Town:
    """One endpoint and everybody who talks to it.

    Attributes:
        choose: the town's dice; `now`: its time.
        reads: whether the server's application reads what comes.
    """

    def __init__(self, seed: int | str, kit: Kit, *, limits: Limits = LIMITS, **conditions: Any) -> None:
        self.kit = kit
        self.choose = random.Random(seed)  # noqa: S311
        self.endpoint = dtls.Endpoint(lambda: kit.server, limits=limits)
        self.forward = Link(f"{seed} up", delay=0.02, jitter=0.01, **conditions)
        self.backward = Link(f"{seed} down", delay=0.02, jitter=0.01, **conditions)
        self.pair = EndpointPair(self.endpoint, self.forward, self.backward)
        self.reads = True
        self.echoed = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._ports = count(10_000)
        self.at(_READ_SECONDS, self._read)

    @property
    def now(self) -> float:
        return self.pair.now

    @property
    def log(self) -> tuple[AttackEvent, ...]:
        return self.endpoint.load.log

    @property
    def seen(self) -> set[Attack]:
        """The attacks the endpoint has seen so far."""
        return {event.attack for event in self.log if event.began}

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Let `action` happen at a time to come."""
        heapq.heappush(self._agenda, (when, next(self._order), action))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._agenda and self._agenda[0][0] <= until:
            when, _, action = heapq.heappop(self._agenda)
            if when > self.now:
                self.pair.run_for(when - self.now)
            action()
        self.pair.run_for(until - self.now)

    def _read(self) -> None:
        for connection, event in self.pair.server_events:
            if isinstance(event, dtls.PeerClosed):
                connection.close(self.now)
        self.pair.server_events.clear()
        if self.reads:
            for connection in list(self.endpoint):
                for message in connection.messages():
                    self.echoed += 1
                    try:
                        connection.send(message[:100])
                    except Error:
                        break
        self.at(self.now + _READ_SECONDS, self._read)

    # --- honest peers ----------------------------------------------------------------------

    def address(self, host: str | None = None) -> Address:
        """A fresh address, of a host of its own unless one is given."""
        number = next(self._ports)
        host = host or f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return host, number % 60_000 + 1024

    def visit(
        self,
        when: float,
        *,
        host: str | None = None,
        every: float = 1.0,
        size: int = 100,
        stay: float = 1000.0,
        loss: float = 0.0,
        mtu: int = 1200,
        post_quantum: bool = False,
        says_goodbye: bool = True,
        moves: float | None = None,
        config: Config | None = None,
    ) -> None:
        """An honest client comes, says `size` bytes `every` so many seconds, and goes after `stay`."""
        address = self.address(host)
        config = config or (self.kit.post_quantum if post_quantum else self.kit.plain)
        dice = self.choose.random()

        def come() -> None:
            client = Honest.client(config, now=self.now, mtu=mtu, connection_id=b"c" * 4)
            assert isinstance(client, Honest)
            client.loss, client.path = loss, random.Random(dice)  # noqa: S311
            self.pair.add(client, address)
            self.at(self.now + 0.1, speak)
            self.at(self.now + stay, go)
            if moves is not None:
                self.at(self.now + moves, move)

        def speak() -> None:
            client = self.pair.clients.get(address)
            if not isinstance(client, Honest) or client.state in (dtls.State.CLOSED, dtls.State.CLOSING):
                return
            waits = client.state is dtls.State.HANDSHAKING
            if not waits:
                client.send(bytes(size))
                self.pair.touch(address)
            # Not in step with anybody else.
            self.at(self.now + (0.1 if waits else every * (0.5 + client.path.random())), speak)

        def go() -> None:
            client = self.pair.clients.get(address)
            if not isinstance(client, Honest):
                return
            if says_goodbye:
                client.close(self.now)
                self.pair.touch(address)
            else:
                self.pair.remove(address)

        def move() -> None:
            nonlocal address
            if address in self.pair.clients:
                old, address = address, self.address()
                self.pair.rebind(old, address)

        self.at(when, come)

    # --- attackers -------------------------------------------------------------------------

    def puppet(
        self,
        kind: type[Puppet],
        when: float,
        until: float,
        rate: float | None = None,
        *,
        stubborn: bool = True,
    ) -> None:
        """An attacker with an address of its own, who, if `stubborn`, comes back when thrown out."""

        def come() -> None:
            address = self.address()
            puppet = kind.client(self.kit.plain, now=self.now)
            assert isinstance(puppet, kind)
            if rate is not None:
                puppet.rate = rate
            self.pair.add(puppet, address)
            if stubborn:
                look(address)
            else:
                self.at(until, lambda: self.pair.remove(address))

        def look(address: Address) -> None:
            over = self.now >= until
            current = self.pair.clients[address]
            assert isinstance(current, Puppet)
            if over or current.state is dtls.State.CLOSED:
                self.pair.remove(address)
                if not over:
                    come()
            else:
                self.at(self.now + _LOOK_SECONDS, lambda: look(address))

        self.at(when, come)

    def flood(self, payload: Payload, rate: float, when: float, until: float) -> None:
        """Datagrams from addresses that are nobody's."""

        def put() -> None:
            if self.now >= until:
                return
            batch = []
            for _ in range(round(rate * _FLOOD_SECONDS)):
                number = self.choose.getrandbits(32)
                source = (
                    f"198.{18 + (number & 1)}.{number >> 8 & 255}.{number >> 16 & 255}",
                    number % 60_000 + 1024,
                )
                batch.append((payload(self.choose), source))
            self.endpoint.receive(batch, self.now)
            self.pair.flush()
            self.at(self.now + _FLOOD_SECONDS, put)

        self.at(when, put)

    def forge(self, rate: float, when: float, until: float) -> None:
        """Records that do not open, in the names of connected peers: with their addresses and their ids."""

        def put() -> None:
            if self.now >= until:
                return
            victims = [one for one in self.endpoint if one.state is dtls.State.CONNECTED]
            batch = []
            for _ in range(round(rate * _FLOOD_SECONDS) if victims else 0):
                victim = self.choose.choice(victims)
                cid = victim.connection_ids.ours
                # RFC 9147 section 4: the fixed bits, C, S, L, and the low bits of epoch 3.
                head = bytes((0x2F | (0x10 if cid else 0),)) + cid
                body = self.choose.randbytes(2) + (100).to_bytes(2) + self.choose.randbytes(100)
                assert isinstance(victim.address, tuple)
                batch.append((head + body, victim.address))
            if batch:
                self.endpoint.receive(batch, self.now)
            self.at(self.now + _FLOOD_SECONDS, put)

        self.at(when, put)
