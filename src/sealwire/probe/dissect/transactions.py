"""Transactions of streams: HTTP/1's requests with their responses, and DNS over TCP.

A request waits for its response, up to MAX_ASKED of them; a response takes the oldest that waits.
Each pair is an event, and the flow's own facts are those of the first.  The bytes of both directions
are kept for that as long as the flow is looked at, which is HEAD_BYTES and MAX_PACKETS each way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sealwire.probe.dissect import dns, http
from sealwire.probe.dissect.bounded import HEAD_BYTES, Budget
from sealwire.probe.dissect.case import MAX_ASKED, Body, Case, Role, Verdict, Way, Work
from sealwire.probe.dissect.facts import Certainty, Flag, Protocol

#: Takes what is told: an event's facts.
Tell = Callable[[Case], None]

_LENGTH_BYTES: Final = 2
_LEAST_MESSAGE: Final = 12


def read_http(case: Case, budget: Budget, work: Work, backward: int, tell: Tell) -> Verdict:
    """Go on in one direction, whose head has grown."""
    way = work.ways[backward]
    data = way.head.kept
    while True:
        if way.body is not Body.NONE:
            verdict = http.skip_chunks(way, data)
            if verdict is Verdict.NOT_MINE:
                case.flags |= Flag.MALFORMED
            if verdict is not Verdict.DONE:
                return Verdict.DONE if verdict is Verdict.NOT_MINE or way.at >= HEAD_BYTES else Verdict.MORE
        if way.messages:
            # RFC 9112 section 2.2: empty lines in front of a message are passed over.
            while way.at < len(data) and data[way.at] in b"\r\n":
                way.at += 1
        if way.at >= HEAD_BYTES:
            return Verdict.DONE
        message = http.head_at(data, way.at)
        if message is Verdict.MORE:
            return Verdict.MORE
        role = Role.UNKNOWN
        if isinstance(message, http.Message):
            role = Role.SERVER if message.response else Role.CLIENT
        if not isinstance(message, http.Message) or way.role not in (Role.UNKNOWN, role):
            if way.messages:
                case.flags |= Flag.MALFORMED
                return Verdict.DONE
            return Verdict.NOT_MINE
        case.claim(Protocol.HTTP, Certainty.CERTAIN)
        way.role = role
        way.messages += 1
        if not message.whole:
            case.flags |= Flag.TRUNCATED
        if role is Role.CLIENT:
            body = _asked(case, budget, work, way, message)
        else:
            body = _answered(case, budget, work, work.ways[1 - backward], message, tell)
        if body == http.CONTRADICTORY:
            case.flags |= Flag.MALFORMED
        if body in (http.CONTRADICTORY, http.REST) or not message.whole:
            return Verdict.DONE
        way.at = message.behind
        if body == http.CHUNKED:
            way.body = Body.CHUNK
        else:
            way.at = min(way.at + body, HEAD_BYTES)


def _asked(case: Case, budget: Budget, work: Work, way: Way, message: http.Message) -> int:
    if way.messages == 1:
        http.learn(case, budget, message)
    if len(work.asked) >= MAX_ASKED:
        case.flags |= Flag.TRUNCATED
        return http.REST
    work.asked.append(way.at)
    return 0 if message.body == http.UNTOLD else message.body


def _answered(case: Case, budget: Budget, work: Work, asking: Way, message: http.Message, tell: Tell) -> int:
    method = b""
    request = http.head_at(asking.head.kept, work.asked[0]) if work.asked else None
    if isinstance(request, http.Message):
        method = request.line.partition(b" ")[0]
    if 100 <= message.status < 200 and message.status != 101:
        return 0  # the response is still to come
    if not case.told:
        http.learn(case, budget, message)
    if work.asked:
        del work.asked[0]
    _told(case, budget, request if isinstance(request, http.Message) else None, message, tell)
    return http.body_of_response(message, method)


def _told(
    case: Case, budget: Budget, request: http.Message | None, response: http.Message | None, tell: Tell
) -> None:
    event = Case(Protocol.HTTP, Certainty.CERTAIN)
    for message in (request, response):
        if message is not None:
            http.learn(event, budget, message)
    budget.release(len(event.facts))
    tell(event)
    case.told = True


def unanswered(case: Case, budget: Budget, work: Work, tell: Tell) -> None:
    """The flow is over: the requests that wait are told as they are."""
    for way in work.ways:
        if way.role is Role.CLIENT:
            for at in work.asked:
                request = http.head_at(way.head.kept, at)
                if isinstance(request, http.Message):
                    _told(case, budget, request, None, tell)
    work.asked.clear()


def looks_like_dns(view: memoryview, ports: tuple[int, int]) -> Certainty:
    """Whether a stream that begins so is DNS over TCP; `view` has at least ten bytes."""
    if 53 not in ports or (view[0] << 8 | view[1]) < _LEAST_MESSAGE:
        return Certainty.NOT_MINE
    flags = view[4] << 8 | view[5]
    one = view[6] == 0 and view[7] == 1
    return Certainty.UNSURE if one and not flags & 0x0040 and flags >> 11 & 0xF <= 6 else Certainty.NOT_MINE


def read_dns(case: Case, way: Way, take: Callable[[dns.Message], None]) -> Verdict:
    """Messages behind their lengths (RFC 1035 section 4.2.2); `take` has each that can be read."""
    data = memoryview(bytes(way.head.kept))
    while len(data) - way.at >= _LENGTH_BYTES:
        begin = way.at + _LENGTH_BYTES
        end = begin + (data[way.at] << 8 | data[way.at + 1])
        if end > HEAD_BYTES:
            case.flags |= Flag.TRUNCATED
            return Verdict.DONE
        if end > len(data):
            return Verdict.MORE
        message = dns.read(data[begin:end])
        if message is None:
            case.flags |= Flag.MALFORMED
            return Verdict.DONE
        take(message)
        way.at = end
    return Verdict.MORE
