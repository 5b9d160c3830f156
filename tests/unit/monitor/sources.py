"""A source whose numbers a test chooses, and a pair of HTTP and socket clients."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sealwire.errors import Discard
from sealwire.limits import Ledger, Limits, Purpose
from sealwire.telemetry import ConnectionCounters, EndpointCounters, PeerReport


class Fixed:
    """A server that stands still."""

    def __init__(self, transport: str = "dtls", limits: Limits | None = None) -> None:
        self.transport = transport
        self.limits = limits or Limits()
        self.ledger = Ledger(self.limits.total_bytes)
        self.connections = 3
        self.handshaking = 1
        self.serving = True
        self.endpoint = EndpointCounters(datagrams_received=7, handshakes_completed=2)
        self.totals = ConnectionCounters(bytes_received=1_000, records_opened=5)
        self.peers: list[PeerReport] = []
        self.ledger.charge(Purpose.RECEIVE_QUEUE, 500)
        self.endpoint.discard(Discard.NOT_DTLS)
        self.totals.discard(Discard.REPLAY)
        for seconds in (0.003, 0.2):
            self.endpoint.handshake_seconds.observe(seconds)

    @property
    def ledgers(self) -> Sequence[Ledger]:
        return (self.ledger,)

    def is_serving(self) -> bool:
        return self.serving

    def endpoint_counters(self) -> EndpointCounters:
        return self.endpoint

    def connection_counters(self) -> ConnectionCounters:
        return self.totals

    def top_peers(self, n: int = 10, by: str = "held_bytes") -> list[PeerReport]:
        return sorted(self.peers, key=lambda peer: -int(getattr(peer, by)))[:n]


def peer(number: int, held: int) -> PeerReport:
    return PeerReport(f"192.0.2.{number}:1000", number, "connected", 1.0, held, 10 * held, held, 4, 5, 0)


async def http(host: str, port: int, request: bytes) -> bytes:
    """Send bytes, close, and return all that comes back."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def get(host: str, port: int, path: str, accept: str = "") -> tuple[int, bytes]:
    """Status and body."""
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
    answer = await http(host, port, head.encode())
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), body
