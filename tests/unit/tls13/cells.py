"""Cells of the tables of misbehaviour: one change to one message, and the one alert it deserves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sealwire.context import Config
from sealwire.errors import Alert
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import HandshakeType
from tests.unit.tls13.engines import FLAVORS, Delivery, Pair, default, refused

Change = Callable[[bytes, Pair], bytes]
Settings = Callable[[], tuple[Config, Config]]


@dataclass(frozen=True, slots=True)
class Cell:
    """`change` is made to a message; its receiver answers with `alert`.

    Attributes:
        ids: the requirements this proves.
        match: part of the reason.
        settings: makes the configurations of client and server.
    """

    ids: tuple[str, ...]
    change: Change
    alert: Alert
    match: str = ""
    settings: Settings = default
    flavors: tuple[Flavor, ...] = FLAVORS


def cells(*tables: tuple[str, dict[str, Cell]]) -> pytest.MarkDecorator:
    """Parametrization over every cell and its protocols."""
    return pytest.mark.parametrize(
        ("flavor", "cell"),
        [
            pytest.param(
                flavor, cell, id=f"{table}: {name} ({flavor.name})", marks=pytest.mark.requirement(*cell.ids)
            )
            for table, entries in tables
            for name, cell in entries.items()
            for flavor in cell.flavors
        ],
    )


def replaced(
    flavor: Flavor, kind: HandshakeType, cell: Cell, *, to_server: bool, settings: Settings | None = None
) -> None:
    """Change the first message of `kind` that goes that way; this message is what is refused."""
    pair = Pair(flavor, (settings or cell.settings)())
    changes = 0

    def rogue(delivery: Delivery) -> list[Delivery]:
        nonlocal changes
        if delivery.to_server is not to_server or delivery.kind is not kind or changes:
            return [delivery]
        changes += 1
        message = cell.change(delivery.message, pair)
        assert message != delivery.message
        return [delivery.but(message)]

    pair.rogue = rogue
    refused(pair, cell.alert, cell.match, victim="server" if to_server else "client")
    assert changes == 1
    assert pair.delivered[-1].kind in (kind, HandshakeType.HELLO_VERIFY_REQUEST)


def flipped(message: bytes, pair: Pair) -> bytes:
    """The last byte is another one."""
    return message[:-1] + bytes((message[-1] ^ 1,))
