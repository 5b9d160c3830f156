"""The demo's last part: a DTLS connection over a simulated link that loses and reorders.

Client and server are the same engines the sockets drive, here on virtual time: a wait of a minute
takes no time at all, and the same seed gives the same run.  Through the connection goes a file,
with the demo's own retransmission above it, because DTLS protects datagrams and does not repeat
them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import sealwire
from sealwire import dtls
from sealwire.cli import transfer
from sealwire.sim.link import EndpointPair, Link

LOSS = 0.10
REORDER = 0.10
FILE_BYTES = 200_000

_ADDRESS = ("client", 1)
# Far beyond what the timers of handshake and transfer can need.
_LONGEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Survival:
    """What came through, and what it took; seconds are virtual."""

    connected: bool
    handshake_seconds: float
    intact: bool
    seconds: float
    datagrams: int
    lost: int
    reordered: int
    handshake_retransmissions: int
    chunks_resent: int


def survive(directory: Path, seed: int) -> Survival:
    """A handshake and a file through the link; the certificates are in `directory`."""
    server_context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server_context.load_cert_chain(directory / "server.pem", directory / "server.key")
    client_context = sealwire.create_default_context(cafile=directory / "ca.pem")
    forward = Link(f"{seed} forward", loss=LOSS, reorder=REORDER)
    backward = Link(f"{seed} backward", loss=LOSS, reorder=REORDER)
    pair = EndpointPair(dtls.Endpoint(server_context.config), forward, backward)
    client = dtls.Connection.client(client_context.config(), now=pair.now, server_name="localhost")
    pair.add(client, _ADDRESS)

    def both_connected() -> bool:
        server = pair.served.get(_ADDRESS)
        return client.state is dtls.State.CONNECTED and server is not None and server.was_connected

    connected = pair.run_until(both_connected, _LONGEST_SECONDS)
    handshake_seconds = pair.now
    handshake_retransmissions = client.counters.retransmissions
    intact, chunks_resent = False, 0
    if connected:
        server: dtls.Connection = pair.served[_ADDRESS]
        handshake_retransmissions += server.counters.retransmissions
        intact, chunks_resent = _carry_file(pair, client, server, random.Random(seed).randbytes(FILE_BYTES))  # noqa: S311
    return Survival(
        connected=connected,
        handshake_seconds=handshake_seconds,
        intact=intact,
        seconds=pair.now,
        datagrams=forward.counters.sent + backward.counters.sent,
        lost=forward.counters.lost + backward.counters.lost,
        reordered=forward.counters.reordered + backward.counters.reordered,
        handshake_retransmissions=handshake_retransmissions,
        chunks_resent=chunks_resent,
    )


def _carry_file(
    pair: EndpointPair, client: dtls.Connection, server: dtls.Connection, data: bytes
) -> tuple[bool, int]:
    """Whether `data` arrived whole, and how many chunks were sent again."""
    sender = transfer.Sender(data, client.max_message_bytes - transfer.DATA_HEADER_BYTES)
    receiver = transfer.Receiver()
    while not sender.verdict and pair.now < _LONGEST_SECONDS:
        client.send_many(sender.transmit(pair.now))
        pair.touch(_ADDRESS)
        pair.flush()
        moment = pair.next_moment()
        if moment is not None and moment <= sender.deadline():
            pair.step()
        else:
            pair.run_for(max(0.0, sender.deadline() - pair.now))
        for message in server.messages():
            server.send_many(receiver.receive(message))
        answers, pair.client_messages[_ADDRESS] = pair.client_messages[_ADDRESS], []
        for answer in answers:
            sender.receive(answer, pair.now)
    return receiver.intact, sender.retransmissions
