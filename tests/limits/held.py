"""A process that holds peers and nothing else, and says what that took: for test_ledger_against_rss.py.

    python -m tests.limits.held IDLE HALF_OPEN QUEUES

Clients are made, shake hands with one endpoint and are dropped; what is left is the server's.  One JSON
object: for each kind of holding how many there are, how the resident set grew and what the ledger says.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable

from sealwire import dtls
from sealwire.limits import Limits
from tests import configs

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
QUEUED = 100
MESSAGE_BYTES = 1_000
MANY = 1 << 20


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_BYTES


class Holder:
    """One endpoint, and peers of it that are gone."""

    def __init__(self) -> None:
        server = configs.server_context().config()
        limits = Limits(
            total_bytes=1 << 40,
            receive_queues_bytes=1 << 40,
            flights_bytes=1 << 40,
            connections=MANY,
            handshakes=MANY,
            handshake_seconds=1e9,
        )
        self.endpoint = dtls.Endpoint(lambda: server, limits=limits)
        self.config = configs.client_context().config()
        self.made = 0
        self.now = 0.0

    def idle(self) -> None:
        self.connect()

    def connect(self) -> tuple[dtls.Connection, tuple[str, int]]:
        self.made += 1
        # Hellos that come all at once are not all answered.
        self.now += 0.01
        at = (f"10.{self.made >> 16}.{self.made >> 8 & 255}.{self.made & 255}", 4433)
        client = dtls.Connection.client(self.config, now=self.now, server_name="localhost")
        for _ in range(6):
            self.endpoint.receive([(one, at) for one in client.transmit(self.now)], self.now)
            for datagram, _ in self.endpoint.transmit(self.now):
                client.receive(datagram, self.now)
        assert client.was_connected
        self.endpoint.events()
        return client, at

    def stop_half_way(self) -> None:
        self.made += 1
        # Hellos that come all at once are not all answered.
        self.now += 0.01
        at = (f"10.{self.made >> 16}.{self.made >> 8 & 255}.{self.made & 255}", 4433)
        client = dtls.Connection.client(self.config, now=self.now, server_name="localhost")
        self.endpoint.receive([(one, at) for one in client.transmit(self.now)], self.now)
        for datagram, _ in self.endpoint.transmit(self.now):
            client.receive(datagram, self.now)
        self.endpoint.receive([(one, at) for one in client.transmit(self.now)], self.now)
        assert self.endpoint.transmit(self.now)

    def unread(self) -> None:
        """A peer whose data nobody takes."""
        client, at = self.connect()
        for _ in range(QUEUED):
            client.send(os.urandom(MESSAGE_BYTES))
        self.endpoint.receive([(one, at) for one in client.transmit(self.now)], self.now)


def grow(holder: Holder, n: int, one_more: Callable[[], None]) -> dict[str, int]:
    ledger = holder.endpoint.ledger
    rss, held = resident(), ledger.held
    for _ in range(n):
        one_more()
    return {"count": n, "rss": resident() - rss, "ledger": ledger.held - held}


def main() -> None:
    idle, half_open, queues = map(int, sys.argv[1:])
    holder = Holder()
    # What all share is made with the first ones.
    for one_more in (holder.idle, holder.stop_half_way, holder.unread):
        for _ in range(30):
            one_more()
    result = {
        "idle": grow(holder, idle, holder.idle),
        "half-open": grow(holder, half_open, holder.stop_half_way),
        "unread": grow(holder, queues, holder.unread),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
