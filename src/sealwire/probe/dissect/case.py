"""What dissection keeps of one flow while it is in the table.

A `Case` is what is known (a facts block that grows) and, until it is settled, the `Work` in
progress.  Everything it holds is charged.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from sealwire.probe.dissect.bounded import Budget, Head
from sealwire.probe.dissect.facts import (
    BLOCK_HEAD,
    FACT_HEAD,
    MAX_BLOCK_BYTES,
    Certainty,
    Fact,
    Flag,
    Protocol,
)

#: What an open case is charged beside the bytes it keeps.
CASE_BYTES: Final = 48
WORK_BYTES: Final = 320
#: Requests of a flow that may wait for their responses.
MAX_ASKED: Final = 16
#: Payload packets looked at in each direction.
MAX_PACKETS: Final = 12
#: First packets of which a piece is kept for dissectors in Python, and how much of each.
SNIPPETS: Final = 6
SNIPPET_BYTES: Final = 256


class Verdict(enum.IntEnum):
    """What a reader says of the bytes it was given."""

    MORE = 0  #: more bytes are needed
    DONE = 1  #: everything there is to learn this way was learnt
    NOT_MINE = 2  #: these bytes are something else


class Role(enum.IntEnum):
    """Who sends one way, where messages say it."""

    UNKNOWN = 0
    CLIENT = 1
    SERVER = 2


class Body(enum.IntEnum):
    """What comes next inside a message's body, if it is in chunks."""

    NONE = 0
    CHUNK = 1  #: a chunk's size
    CHUNK_END = 2  #: the end of the line behind a chunk's bytes
    TRAILERS = 3


@dataclass(slots=True)
class Way:
    """One direction of a flow being read."""

    packets: int = 0
    begun: bool = False
    #: TCP sequence number of the first byte.
    base: int = 0
    head: Head = field(default_factory=Head)
    done: bool = False
    #: No dissector here knows how its stream or first datagrams begin.
    foreign: bool = False
    #: Handshake messages already learnt from.
    messages: int = 0
    #: DTLS: the message whose fragments are being put together, as type, message_seq and length.
    message: tuple[int, int, int] | None = None
    #: HTTP, DNS over TCP: how far the stream was read.
    at: int = 0
    role: Role = Role.UNKNOWN
    body: Body = Body.NONE


@dataclass(slots=True)
class Work:
    """What is only needed until a case is settled."""

    ways: tuple[Way, Way] = field(default_factory=lambda: (Way(), Way()))
    snippets: bytearray = field(default_factory=bytearray)
    snippet_count: int = 0
    #: Which direction is the client's, -1 while unknown.
    client: int = -1
    #: QUIC: the id the client chose for its first Initial packets.
    first_id: bytes | None = None
    #: HTTP: where in their stream the requests begin that wait for a response.
    asked: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Case:
    """A flow being dissected."""

    protocol: Protocol = Protocol.UNKNOWN
    certainty: Certainty = Certainty.NOT_MINE
    flags: int = 0
    facts: bytearray = field(default_factory=bytearray)
    #: Which tags are there, as bits.
    known: int = 0
    work: Work | None = None
    #: An event with these facts has left.
    told: bool = False

    def claim(self, protocol: Protocol, certainty: Certainty) -> None:
        """Somebody recognises the flow; a claim never weakens one that is certain."""
        if certainty > self.certainty:
            self.protocol, self.certainty = protocol, certainty

    def put(
        self, budget: Budget, tag: int, value: bytes | bytearray | memoryview, *, again: bool = False
    ) -> None:
        """Add a fact unless it is there (`again` allows several); left out where it does not fit."""
        if self.known >> tag & 1 and not again:
            return
        n = FACT_HEAD.size + len(value)
        if len(self.facts) + n > MAX_BLOCK_BYTES - BLOCK_HEAD.size or not budget.charge(n):
            self.flags |= Flag.TRUNCATED
            return
        self.known |= 1 << tag
        self.facts += FACT_HEAD.pack(tag, len(value))
        self.facts += value

    def number(self, budget: Budget, tag: int, value: int, size: int = 2) -> None:
        """Add a number of `size` bytes."""
        self.put(budget, tag, value.to_bytes(size, "little"))

    def block(self) -> bytes:
        """The facts block; empty where nothing is known."""
        if self.protocol == Protocol.UNKNOWN and not self.facts:
            return b""
        return BLOCK_HEAD.pack(self.protocol, self.certainty, self.flags) + self.facts

    def settle(self, budget: Budget) -> None:
        """Let go of the work; first packets become a fact, for dissectors in Python, if nobody is certain."""
        work = self.work
        if work is None:
            return
        self.work = None
        for way in work.ways:
            if way.head.cut:
                self.flags |= Flag.TRUNCATED
            way.head.free(budget)
        budget.release(WORK_BYTES + len(work.snippets))
        if self.certainty < Certainty.CERTAIN and work.snippets:
            self.put(budget, Fact.HEAD, work.snippets)

    def free(self, budget: Budget) -> None:
        """Let go of everything."""
        self.settle(budget)
        budget.release(CASE_BYTES + len(self.facts))
