"""The open cases of one flow table, in plain Python: oracle for the compiled desk (`_hot`) and fallback.

A flow's first payload packets come here until the case is settled: MAX_PACKETS in each direction at
most, HEAD_BYTES of a stream, one Budget for all.  TCP is put in order first; a stream's head is given
to its protocol's reader whole, again and again as it grows.  A datagram is read once.  DNS is never
settled: each of its messages is an event.  Flows nobody here knows keep pieces of their first
packets for the dissectors in Python (`rare`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from sealwire.probe.counters import ProbeCounters
from sealwire.probe.decode import Packet
from sealwire.probe.dissect import dns, dtls, http, quic, ssh, stun, tls, transactions
from sealwire.probe.dissect.bounded import HEAD_BYTES, Budget
from sealwire.probe.dissect.case import (
    CASE_BYTES,
    MAX_PACKETS,
    SNIPPET_BYTES,
    SNIPPETS,
    WORK_BYTES,
    Case,
    Role,
    Verdict,
    Way,
    Work,
)
from sealwire.probe.dissect.facts import EVENT_HEAD, Certainty, Fact, Flag, Protocol
from sealwire.probe.features import ICMP, ICMP6, TCP, UDP

#: A stream's first bytes say what it is once there are so many of them.
LEAST_BYTES: Final = 10
#: Bytes of events that wait before they must be taken.
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
#: Direction and size of a packet, and how much of it follows.
SNIPPET: Final = struct.Struct("<BHH")
_SYN: Final = 0x02
_ANSWER: Final = struct.Struct("<HI")


@dataclass(slots=True)
class Ends:
    """What an event says of its flow."""

    head: Packet
    part: int
    start: int
    first_packet: int
    #: TCP: sequence number of the first byte of each direction, -1 if its SYN was not seen.
    bases: tuple[int, int]


class Desk:
    """Dissection for one table; `limit` bytes for all of it."""

    def __init__(self, limit: int) -> None:
        self.budget = Budget(limit)
        #: Flows that could not be dissected because the limit was reached.
        self.refused = 0
        #: Flows dissection looked at.
        self.opened = 0
        self._events: list[bytes] = []
        self._event_bytes = 0
        self._told = 0

    @property
    def full(self) -> bool:
        """Whether events must be taken before more packets."""
        return self._event_bytes >= MAX_EVENT_BYTES

    def packet(
        self, case: Case | None, ends: Ends, packet: Packet, backward: int, clock: int
    ) -> tuple[Case | None, bool]:
        """Look at a payload packet of a flow: its case, and whether no more packets are wanted."""
        if case is None:
            if not self.budget.charge(CASE_BYTES + WORK_BYTES):
                self.refused += 1
                return None, True
            self.opened += 1
            case = Case(work=Work())
        work = case.work
        assert work is not None
        way = work.ways[backward]
        protocol = packet.protocol
        maybe_dns = protocol == UDP and case.protocol in _MAYBE_DNS
        if maybe_dns and self._dns(case, ends, packet, clock):
            return case, False
        if way.packets < 255:
            way.packets += 1
        if way.packets > MAX_PACKETS:
            if work.ways[1 - backward].packets >= MAX_PACKETS or way.packets == 255:
                return self._settled(case, ends, clock)
            return case, False
        unknown = case.protocol == Protocol.UNKNOWN
        if protocol == TCP:
            self._stream(case, work, ends, packet, backward, clock)
        elif protocol == UDP:
            self._datagram(case, work, packet, backward)
        else:
            way.foreign = way.done = True
        if unknown and case.certainty is not Certainty.CERTAIN:
            self._keep(work, packet, backward)
        if self._over(case, work, protocol):
            return self._settled(case, ends, clock)
        return case, False

    def _over(self, case: Case, work: Work, protocol: int) -> bool:
        """Whether nothing more can be learnt."""
        first, second = work.ways
        if first.packets >= MAX_PACKETS and second.packets >= MAX_PACKETS:
            return True
        if protocol in (ICMP, ICMP6):
            return True
        if case.protocol == Protocol.UNKNOWN:
            looked = (not first.packets or first.foreign) and (not second.packets or second.foreign)
            return looked and work.snippet_count == SNIPPETS
        return first.done and second.done

    def _keep(self, work: Work, packet: Packet, backward: int) -> None:
        piece = packet.payload[:SNIPPET_BYTES]
        if work.snippet_count < SNIPPETS and self.budget.charge(SNIPPET.size + len(piece)):
            work.snippet_count += 1
            work.snippets += SNIPPET.pack(backward, min(packet.payload_bytes, 0xFFFF), len(piece))
            work.snippets += piece

    def _drop_snippets(self, work: Work) -> None:
        self.budget.release(len(work.snippets))
        work.snippets.clear()
        work.snippet_count = SNIPPETS

    # --- streams -------------------------------------------------------------------------------

    def _stream(self, case: Case, work: Work, ends: Ends, packet: Packet, backward: int, clock: int) -> None:
        way = work.ways[backward]
        if way.done or not packet.tcp:
            return
        start = packet.sequence + bool(packet.flags & _SYN) & 0xFFFFFFFF
        if not way.begun:
            way.begun = True
            base = ends.bases[backward]
            way.base = start if base < 0 else base
        offset = start - way.base & 0xFFFFFFFF
        data: memoryview = packet.payload
        if offset >> 31:  # from before the beginning
            data = data[(1 << 32) - offset :]
            offset = 0
        if not data or offset > 2 * HEAD_BYTES:
            return
        head = way.head
        ports = (packet.source_port, packet.destination_port)
        fresh = offset == 0 and head.fresh
        if fresh and case.protocol == Protocol.UNKNOWN:
            self._recognise(case, data[:HEAD_BYTES], ports)
        # Transactions go on, so what was before is kept.
        if fresh and case.protocol not in _TRANSACTIONS:
            verdict = self._read(case, work, data[:HEAD_BYTES], backward)
            if verdict is Verdict.MORE:
                head.add(self.budget, 0, data)
        else:
            if not head.add(self.budget, offset, data):
                return
            if case.protocol == Protocol.UNKNOWN:
                self._recognise(case, memoryview(bytes(head.kept)), ports)
            if case.protocol in _TRANSACTIONS:
                verdict = self._transactions(case, work, ends, ports, backward, clock)
            else:
                verdict = self._read(case, work, memoryview(bytes(head.kept)), backward)
        if len(data) < packet.payload_bytes:
            head.cut = True  # the capture has not all of it, so nothing can be joined to it
        if verdict is Verdict.MORE and (len(head.kept) >= HEAD_BYTES or head.cut):
            case.flags |= Flag.TRUNCATED
            verdict = Verdict.DONE
        if verdict is not Verdict.MORE:
            way.done = True
            other = work.ways[1 - backward]
            if case.protocol not in _TRANSACTIONS:
                head.free(self.budget)
            elif way.role is Role.SERVER or (way.role is Role.UNKNOWN and other.messages):
                # Requests without responses, or with something else instead of them, say little.
                other.done = True

    def _transactions(
        self, case: Case, work: Work, ends: Ends, ports: tuple[int, int], backward: int, clock: int
    ) -> Verdict:
        """A stream of requests or responses goes on."""
        way = work.ways[backward]
        if case.protocol == Protocol.HTTP:
            verdict = transactions.read_http(
                case, self.budget, work, backward, lambda event: self._tell(event, ends, clock)
            )
        else:
            verdict = transactions.read_dns(
                case, way, lambda message: self._learn_dns(case, ends, message, ports, clock)
            )
        if case.certainty is Certainty.CERTAIN:
            self._drop_snippets(work)
        return verdict

    def _read(self, case: Case, work: Work, view: memoryview, backward: int) -> Verdict:
        """A stream's head, to the reader of its protocol."""
        if case.protocol == Protocol.UNKNOWN:
            if len(view) < LEAST_BYTES:
                return Verdict.MORE
            work.ways[backward].foreign = True
            return Verdict.NOT_MINE
        way = work.ways[backward]
        verdict = Verdict.DONE
        match case.protocol:
            case Protocol.TLS:
                verdict = tls.read(case, self.budget, way, view)
            case Protocol.SSH:
                verdict = ssh.read(case, self.budget, view, backward)
            case Protocol.STUN:
                inner = stun.unframed(view)
                if stun.looks_so(inner, True):
                    stun.learn(case, self.budget, inner, backward)
        if case.certainty is Certainty.CERTAIN:
            self._drop_snippets(work)
        return verdict

    def _recognise(self, case: Case, view: memoryview, ports: tuple[int, int]) -> None:
        if len(view) < LEAST_BYTES:
            return
        for protocol, looks_so in _STREAMS:
            certainty = looks_so(view)
            if certainty is not Certainty.NOT_MINE:
                case.claim(protocol, certainty)
                return
        if stun.looks_so(stun.unframed(view), True):
            case.claim(Protocol.STUN, Certainty.CERTAIN)
            return
        certainty = transactions.looks_like_dns(view, ports)
        if certainty is not Certainty.NOT_MINE:
            case.claim(Protocol.DNS, certainty)

    # --- datagrams -----------------------------------------------------------------------------

    def _datagram(self, case: Case, work: Work, packet: Packet, backward: int) -> None:
        view = packet.payload
        way = work.ways[backward]
        verdict = Verdict.MORE
        # STUN may be in front of DTLS on the same addresses (RFC 7983).
        if case.protocol in (Protocol.UNKNOWN, Protocol.STUN):
            if stun.looks_so(view, False):
                stun.learn(case, self.budget, view, backward)
            elif dtls.looks_so(view):
                if case.protocol == Protocol.UNKNOWN:
                    case.claim(Protocol.DTLS, Certainty.UNSURE)
                else:
                    case.protocol, case.certainty = Protocol.DTLS, Certainty.UNSURE
            elif case.protocol == Protocol.UNKNOWN and quic.looks_so(view):
                case.claim(Protocol.QUIC, Certainty.UNSURE)
            else:
                way.foreign = True
        if case.protocol == Protocol.DTLS:
            verdict = dtls.read(case, self.budget, work, backward, view)
        elif case.protocol == Protocol.QUIC:
            verdict = quic.read(case, self.budget, work, backward, view)
        if verdict is Verdict.DONE:
            work.ways[0].done = work.ways[1].done = True
        if case.certainty is Certainty.CERTAIN:
            self._drop_snippets(work)

    def _dns(self, case: Case, ends: Ends, packet: Packet, clock: int) -> bool:
        """A datagram that is DNS: an event, and for the flow the first question and answer."""
        ports = (packet.source_port, packet.destination_port)
        if case.protocol == Protocol.UNKNOWN and not (ports[0] in dns.PORTS or ports[1] in dns.PORTS):
            return False
        message = dns.read(packet.payload)
        protocol = Protocol.MDNS if dns.MULTICAST_PORT in ports else Protocol.DNS
        if message is None:
            if case.protocol != Protocol.UNKNOWN or dns.plausible(packet.payload):
                case.claim(protocol, Certainty.UNSURE)
                case.flags |= Flag.MALFORMED
            return False
        self._learn_dns(case, ends, message, ports, clock)
        return True

    def _learn_dns(
        self, case: Case, ends: Ends, message: dns.Message, ports: tuple[int, int], clock: int
    ) -> None:
        """What a message says, for the flow and as an event."""
        protocol = Protocol.MDNS if dns.MULTICAST_PORT in ports else Protocol.DNS
        certainty = dns.certainty(message, ports)
        case.claim(protocol, certainty)
        if case.work is not None and certainty is Certainty.CERTAIN:
            self._drop_snippets(case.work)
        told = Case(protocol, certainty, 0 if message.whole else int(Flag.MALFORMED))
        for into in (told, case):
            if message.name:
                into.put(self.budget, Fact.NAME, message.name)
            if into is told or not message.flags & 0x8000:
                into.number(self.budget, Fact.DNS_TYPE, message.kind)
            if into is told or message.flags & 0x8000:
                into.number(self.budget, Fact.DNS_FLAGS, message.flags)
        told.number(self.budget, Fact.DNS_ID, message.id)
        for kind, ttl, value in message.answers:
            told.put(self.budget, Fact.DNS_ANSWER, _ANSWER.pack(kind, ttl) + value, again=True)
        self.budget.release(len(told.facts))
        self._tell(told, ends, clock)
        case.told = True

    # --- ways out ------------------------------------------------------------------------------

    def _settled(self, case: Case, ends: Ends, clock: int) -> tuple[Case, bool]:
        if case.work is not None and case.work.asked:
            transactions.unanswered(
                case, self.budget, case.work, lambda event: self._tell(event, ends, clock)
            )
        case.settle(self.budget)
        if case.certainty is Certainty.CERTAIN and not case.told:
            self._tell(case, ends, clock)
            case.told = True
        return case, True

    def close(self, case: Case, ends: Ends, ended: int) -> bytes:
        """The flow leaves the table: its facts block; what was not told is told."""
        self._settled(case, ends, ended)
        block = case.block()
        case.free(self.budget)
        return block

    def _tell(self, case: Case, ends: Ends, time: int) -> None:
        block = case.block()
        head = ends.head
        event = EVENT_HEAD.pack(
            *(EVENT_HEAD.size + len(block), time, head.source, head.destination),
            *(head.source_port, head.destination_port, head.version, head.protocol),
            *(ends.part, ends.start, ends.first_packet, head.vlan, head.vlan_inner),
        )
        self._events.append(event + block)
        self._event_bytes += len(event) + len(block)
        self._told += 1

    def count(self, into: ProbeCounters) -> None:
        """Put what was counted into the table's counters."""
        into.dissected, into.undissected, into.events = self.opened, self.refused, self._told
        into.dissection_bytes, into.dissection_peak = self.budget.held, self.budget.peak
        into.dissection_refusals = self.budget.refused

    def take(self, before: int | None) -> bytes:
        """The events older than `before` (None: all of them), in the order in which they happened."""
        ready = len(self._events)
        if before is not None and not self.full:
            while ready and _TIME.unpack_from(self._events[ready - 1], 4)[0] >= before:
                ready -= 1
        taken, self._events = self._events[:ready], self._events[ready:]
        data = b"".join(taken)
        self._event_bytes -= len(data)
        return data


_TRANSACTIONS: Final = (Protocol.HTTP, Protocol.DNS)
_MAYBE_DNS: Final = (Protocol.UNKNOWN, Protocol.DNS, Protocol.MDNS)
_TIME: Final = struct.Struct("<q")
_STREAMS: Final = (
    (Protocol.TLS, tls.looks_so),
    (Protocol.HTTP, http.looks_so),
    (Protocol.SSH, ssh.looks_so),
)

__all__ = ["Desk", "Ends", "Way"]
