"""Configurations that belong together, for targets that need both ends."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final

from sealwire.context import Config
from sealwire.crypto.ticketkeys import TicketKeys
from tests import configs
from tests.fuzzing import test_identities
from tests.fuzzing.recordings import NAMES, Recording, recording
from tests.unit.tls13.early import register

WALL: Final = 1_800_000_000.0


@functools.cache
def all_recordings() -> tuple[Recording, ...]:
    plain = tuple(recording(name) for name in NAMES)
    identities = tuple(test_identities.recorded(name) for name in test_identities.MAKERS)
    first = recording("chacha")
    with_tickets = Recording(
        replace(first.client, num_tickets=2),
        replace(first.server, num_tickets=2, ticket_keys=TicketKeys()),
    )
    return (*plain, *identities, with_tickets)


@functools.cache
def early_config() -> tuple[Config, Config]:
    """A server with tickets and early data; and its client."""
    server = replace(
        configs.server_context().config(),
        num_tickets=1,
        ticket_keys=TicketKeys(),
        clock=lambda: WALL,
        max_early_data_size=1_000,
        strikes=register(),
    )
    return server, replace(configs.client_context().config(), num_tickets=1, clock=lambda: WALL)
