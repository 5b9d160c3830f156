"""A server under attack, on virtual time, beside one honest peer, held to five yardsticks.

Of ATTACKS: the honest peer's goodput stays at 95 % at least; memory returns to where it was; no more than
three times the bytes of an unproved address go to it; no exception leaves the endpoint (any would end the
test).  The fifth, instructions a hostile datagram, is counted by
tests/limits/test_instructions.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from sealwire import dtls
from sealwire.attack.puppet import Puppet
from sealwire.context import CERT_OPTIONAL, Config
from sealwire.limits import Limits
from tests import certificates, configs
from tests.network.world import Address, World, address

#: Hostile datagrams, with the addresses they seem to come from, at a time.
Attack = Callable[[float], Iterable[tuple[bytes, Address]]]

STEP_SECONDS = 0.05
MESSAGES_A_STEP = 4
MESSAGE_BYTES = 400
#: All that may be left of the honest peer's messages.
GOODPUT = 0.95
AMPLIFICATION = 3
#: Where the honest peer is.
REGULAR = address(0)


class Siege:
    """One endpoint, one honest peer who is connected, and whoever attacks.

    Attributes:
        sent, delivered: the honest peer's messages during attacks, both directions together.
    """

    def __init__(
        self,
        seed: str,
        *,
        limits: Limits | None = None,
        server: Config | None = None,
        **options: Any,
    ) -> None:
        self.limits = limits or Limits()
        self.world = World(seed, limits=self.limits, server=server, record=True, **options)
        self.choose = random.Random(seed)
        self.endpoint = self.world.endpoint
        self.world.connect(REGULAR)
        self.world.handshake(at=REGULAR)
        self.world.exchange(at=REGULAR)
        self.world.pair.run_for(5.0)
        self.client = self.world.client(REGULAR)
        self.server = self.world.served(REGULAR)
        self.held = self.endpoint.ledger.held
        self.sent = self.delivered = 0
        self.bots: list[tuple[Puppet, Address]] = []
        self._number = 0

    @property
    def now(self) -> float:
        return self.world.now

    def stranger(self) -> Address:
        """Somebody nobody knows."""
        return f"198.18.{self.choose.randrange(256)}.{self.choose.randrange(256)}", self.choose.randrange(
            1, 65_536
        )

    def bot(self, kind: type[Puppet], config: Config | None = None, **options: Any) -> Puppet:
        """An attacker with a real address and our own engine, which does something wrong."""
        self._number += 1
        at = (f"203.0.113.{self._number % 250 + 1}", 20_000 + self._number)
        puppet = kind.client(
            config or self.world.client_config, now=self.now, server_name="localhost", **options
        )
        assert isinstance(puppet, kind)
        self.world.pair.add(puppet, at)
        self.bots.append((puppet, at))
        return puppet

    def served(self, bot: Puppet) -> dtls.Connection:
        """The endpoint's side of a bot."""
        (at,) = [at for one, at in self.bots if one is bot]
        return self.world.served(at)

    def run(self, seconds: float, attack: Attack = lambda now: ()) -> None:
        """Let the attack go on for so long, while the honest peer talks both ways."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            for datagram, source in attack(self.now):
                self.world.forward.send(datagram, self.now, source)
            for _ in range(MESSAGES_A_STEP):
                self.client.send(bytes(MESSAGE_BYTES))
                self.server.send(bytes(MESSAGE_BYTES))
            self.sent += 2 * MESSAGES_A_STEP
            self.world.pair.touch(REGULAR)
            self.world.pair.run_for(STEP_SECONDS)
            self._count()
        self.world.pair.run_for(1.0)
        self._count()

    def _count(self) -> None:
        self.delivered += len(self.server.messages())
        mine = self.world.pair.client_messages[REGULAR]
        self.delivered += len(mine)
        mine.clear()

    def end(self, settle: float = 90.0) -> None:
        """The attackers go, time passes, and all yardsticks are held to what happened."""
        for _, at in self.bots:
            if at in self.world.pair.clients:
                self.world.pair.remove(at)
        # What an application does with peers it has no use for; half-open ones go by themselves.
        for connection in list(self.endpoint):
            if connection is not self.server and connection.was_connected:
                connection.close(self.now)
        self.world.pair.run_for(settle)
        # What came and was not read stays the application's.
        for connection, _ in self.world.pair.server_events:
            if connection is not self.server:
                connection.messages()
        assert self.delivered >= GOODPUT * self.sent, f"{self.delivered} of {self.sent} messages arrived"
        assert list(self.endpoint) == [self.server], "somebody stayed"
        self.server.rise()  # idle for so long, it sleeps
        assert self.endpoint.ledger.held == self.held, "memory did not return"
        assert not self.endpoint.load.on
        self.check_amplification()
        self.world.exchange(at=REGULAR)

    def check_amplification(self) -> None:
        """Nobody but the peers that proved their addresses got more than three times what they sent."""
        proved = {REGULAR, *(at for _, at in self.bots)}
        earned: dict[Any, int] = {}
        moments = [
            *((one.arrivals[0], 0, one) for one in self.world.forward.capture if one.arrivals),
            *((one.sent, 1, one) for one in self.world.backward.capture),
        ]
        for _, answer, one in sorted(moments, key=lambda moment: moment[:2]):
            if one.path in proved:
                continue
            earned[one.path] = earned.get(one.path, 0) + (
                -len(one.data) if answer else AMPLIFICATION * len(one.data)
            )
            assert earned[one.path] >= 0, f"{one.path} got more than three times what it sent"

    def errors(self) -> list[BaseException | None]:
        """Why connections ended."""
        events = self.world.pair.server_events
        return [event.error for _, event in events if isinstance(event, dtls.Closed)]

    def answers(self) -> list[bytes]:
        """What went to anybody but the honest peer and the bots."""
        proved = {REGULAR, *(at for _, at in self.bots)}
        return [one.data for one in self.world.backward.capture if one.path not in proved]


def certified(**changes: Any) -> Config:
    """A server that asks clients for certificates, and takes those that have none."""
    context = configs.server_context(client_roots=certificates.server().cafile, **changes)
    context.verify_mode = CERT_OPTIONAL
    return context.config()
