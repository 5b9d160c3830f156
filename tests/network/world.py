"""A small world for network tests: an endpoint behind two seeded links, and clients that come to it.

The clock is virtual and the links are seeded, so a test that fails fails again.  What a test says
about the network it says with the names of `Link`: World(seed, loss=0.2, mtu=576).
"""

from __future__ import annotations

from typing import Any

from sealwire import dtls
from sealwire.context import Config
from sealwire.limits import Ledger, Limits
from sealwire.sim import EndpointPair, Link, Pair
from tests import configs

Address = tuple[str, int]

#: Long enough for every timer of a closed association (twice the 2 min MSL) to run out.
AFTERWARDS_SECONDS = 600.0


def address(number: int) -> Address:
    """The address of the n-th client."""
    return (f"192.0.2.{number // 50_000 + 1}", 10_000 + number % 50_000)


class World:
    """An endpoint with a stateless cookie, its clients, and the links between.

    `mtu` is what both engines are told; `link_mtu` what the links pass (the same, unless given).
    Everything else is a condition of both links.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        server: Config | None = None,
        client: Config | None = None,
        mtu: int = 1200,
        link_mtu: int | None = None,
        limits: Limits | None = None,
        require_cookie: bool = True,
        upkeep: dtls.Upkeep | None = None,
        record: bool = False,
        **conditions: Any,
    ) -> None:
        self.server_config = server or configs.server_context().config()
        self.client_config = client or configs.client_context().config()
        self.mtu = mtu
        self.limits = limits or Limits()
        self.endpoint = dtls.Endpoint(
            lambda: self.server_config,
            limits=self.limits,
            mtu=mtu,
            require_cookie=require_cookie,
            upkeep=upkeep or dtls.Upkeep(),
        )
        passes = mtu if link_mtu is None else link_mtu
        self.forward = Link(f"{seed} forward", mtu=passes, name="to server", record=record, **conditions)
        self.backward = Link(f"{seed} backward", mtu=passes, name="to client", record=record, **conditions)
        self.pair = EndpointPair(self.endpoint, self.forward, self.backward)
        self.client_ledger = Ledger(self.limits)
        self.ledger_at_rest = self.endpoint.ledger.held
        self.started: dict[Address, float] = {}

    @property
    def now(self) -> float:
        return self.pair.now

    def connect(
        self, at: Address | None = None, *, config: Config | None = None, **options: Any
    ) -> dtls.Connection:
        """A new client, now; its first hello leaves with the next step."""
        at = at or address(len(self.started))
        if at in self.pair.clients:
            self.vanish(at)
        connection = dtls.Connection.client(
            config or self.client_config,
            now=self.now,
            server_name="localhost",
            limits=self.limits,
            mtu=self.mtu,
            ledger=self.client_ledger,
            **options,
        )
        self.started[at] = self.now
        self.pair.add(connection, at)
        return connection

    def vanish(self, at: Address | None = None) -> None:
        """The client at `at` is gone from one moment to the next, with all it held."""
        self.client(at).abort()
        self.pair.remove(at or address(0))

    def served(self, at: Address | None = None) -> dtls.Connection:
        """The endpoint's side of the client at `at` (the first client, if not given)."""
        connection = self.pair.served[at or address(0)]
        assert isinstance(connection, dtls.Connection)
        return connection

    def client(self, at: Address | None = None) -> dtls.Connection:
        connection = self.pair.clients[at or address(0)]
        assert isinstance(connection, dtls.Connection)
        return connection

    def is_connected(self, at: Address | None = None) -> bool:
        """Both sides hold a finished handshake."""
        at = at or address(0)
        return (
            self.client(at).state == "connected"
            and at in self.pair.served
            and self.pair.served[at].state == "connected"
        )

    def handshake(self, within: float = 60.0, at: Address | None = None) -> float:
        """Run until both sides of the client at `at` are connected; returns the seconds it took."""
        begin = self.now
        assert self.pair.run_until(lambda: self.is_connected(at), begin + within), self.describe(at)
        return self.now - begin

    def exchange(self, at: Address | None = None, within: float = 60.0) -> None:
        """One message each way (asked again while the link loses them), and equal exporters."""
        at = at or address(0)
        client, server = self.client(at), self.served(at)
        assert client.export(b"EXPORTER-test", b"", 32) == server.export(b"EXPORTER-test", b"", 32)
        heard: list[bytes] = []
        end = self.now + within
        before = len(self.pair.client_messages[at])
        while b"ping" not in heard or b"pong" not in self.pair.client_messages[at][before:]:
            assert self.now < end, "no message got through"
            client.send(b"ping")
            server.send(b"pong")
            self.pair.touch(at)
            self.pair.run_for(0.5)
            heard += server.messages()

    def close(self) -> None:
        """Close every client and the endpoint, let all timers run out, and check that nothing is held."""
        for at in self.pair.clients:
            self.client(at).close(self.now)
            self.pair.touch(at)
        self.pair.run_for(1.0)
        self.endpoint.close(self.now)
        self.pair.run_for(AFTERWARDS_SECONDS)
        assert self.endpoint.connections == 0
        for server in self.pair.served.values():
            # What came and was not read stays charged until its owner takes it.
            server.messages()
        assert self.endpoint.ledger.held == self.ledger_at_rest, "the endpoint's ledger"
        assert self.client_ledger.held == 0, "the clients' ledger"

    def describe(self, at: Address | None = None) -> str:
        """What a failing handshake looked like, for the assertion's message."""
        at = at or address(0)
        server = self.pair.served.get(at)
        return (
            f"at {self.now:.2f} s: client {self.client(at).state} {self.client(at).error}, "
            f"server {server.state if server else 'absent'} {server.error if server else ''}; "
            f"{self.forward}, {self.backward}, {self.endpoint.counters.snapshot()}"
        )


def joined(
    seed: int | str,
    *,
    server: Config | None = None,
    client: Config | None = None,
    mtu: int = 1200,
    limits: Limits | None = None,
    ledger: Ledger | None = None,
    record: bool = False,
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
    **conditions: Any,
) -> Pair:
    """Two connections without an endpoint, so without a cookie: the smallest world."""
    limits = limits or Limits()
    links = [
        Link(f"{seed} {name}", **{"mtu": mtu, "name": name, "record": record, **conditions})
        for name in ("to server", "to client")
    ]
    return Pair(
        dtls.Connection.client(
            client or configs.client_context().config(),
            now=0.0,
            server_name="localhost",
            limits=limits,
            mtu=mtu,
            ledger=ledger,
            **(client_options or {}),
        ),
        dtls.Connection.server(
            server or configs.server_context().config(),
            now=0.0,
            limits=limits,
            mtu=mtu,
            ledger=ledger,
            **(server_options or {}),
        ),
        *links,
    )


def both_connected(pair: Pair) -> bool:
    return (
        isinstance(pair.client, dtls.Connection)
        and isinstance(pair.server, dtls.Connection)
        and pair.client.state == "connected"
        and pair.server.state == "connected"
    )
