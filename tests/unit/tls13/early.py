"""Engines that speak early data: a server that takes some, a client with a ticket that allows it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import default_provider
from sealwire.crypto.strikes import StrikeRegister
from sealwire.tls13.contract import (
    Direction,
    EarlyData,
    EarlyDataAnswered,
    EarlyPhase,
    InstallKeys,
    SendMessage,
    TicketReceived,
)
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.tickets import SessionTicket
from tests.unit.tls13.test_tickets import NAME, World

SIZE = 1_000


def register(**changes: Any) -> StrikeRegister:
    return StrikeRegister(default_provider(), **changes)


def world(*, size: int = SIZE, strikes: StrikeRegister | None = None, mutual: bool = False) -> World:
    made = World.make(mutual=mutual)
    server = replace(made.server, max_early_data_size=size, strikes=strikes or register())
    return replace(made, server=server)


@dataclass
class Run:
    """What became of one handshake."""

    client: Handshake
    server: Handshake
    tickets: list[SessionTicket] = field(default_factory=list)
    #: Messages of both in order: whether the client sent it, epoch, bytes.
    sent: list[tuple[bool, int, bytes]] = field(default_factory=list)
    answers: dict[str, list[bool]] = field(default_factory=lambda: {"client": [], "server": []})
    early_keys: dict[str, list[Secret]] = field(default_factory=lambda: {"client": [], "server": []})

    @property
    def outcome(self) -> EarlyData:
        """What both sides say became of early data; they must agree."""
        assert self.client.session.early_data is self.server.session.early_data
        return self.client.session.early_data

    def take(self, side: str) -> list[tuple[bool, int, bytes]]:
        engine = self.client if side == "client" else self.server
        messages = []
        for output in engine.outputs():
            match output:
                case SendMessage(epoch, message, _):
                    messages.append((side == "client", epoch, message))
                case InstallKeys(direction, 1, _, secret):
                    assert direction is (Direction.SEND if side == "client" else Direction.RECEIVE)
                    self.early_keys[side].append(secret)
                case EarlyDataAnswered(accepted):
                    self.answers[side].append(accepted)
                case TicketReceived(_, ticket):
                    self.tickets.append(ticket)
                case _:
                    pass
        self.sent += messages
        return messages

    def go(self) -> Run:
        moved = True
        while moved:
            moved = False
            for side, other in (("client", self.server), ("server", self.client)):
                for _, epoch, message in self.take(side):
                    other.receive(epoch, message)
                    moved = True
        return self


def start(
    made: World,
    flavor: Flavor,
    ticket: SessionTicket | None = None,
    *,
    wanted: bool = True,
    phase: EarlyPhase | None = None,
    name: str = NAME,
) -> Run:
    client = Handshake.client(made.client, flavor, server_name=name, ticket=ticket, early_data=wanted)
    return Run(client, Handshake.server(made.server, flavor, early=phase or EarlyPhase(wanted=True)))


def run(made: World, flavor: Flavor, ticket: SessionTicket | None = None, **how: Any) -> Run:
    return start(made, flavor, ticket, **how).go()


def early_ticket(made: World, flavor: Flavor) -> SessionTicket:
    """A ticket that allows early data."""
    return run(made, flavor).tickets[0]
