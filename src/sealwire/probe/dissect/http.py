"""HTTP/1: the head of the first request and of the first response (RFC 9112)."""

from __future__ import annotations

from typing import Final

from sealwire.probe.dissect.bounded import HEAD_BYTES, Budget
from sealwire.probe.dissect.case import Case, Verdict
from sealwire.probe.dissect.facts import Certainty, Fact, Flag, Protocol

METHODS: Final = (
    *(b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PATCH ", b"TRACE "),
    # RFC 4918, RFC 3744, RFC 3253: WebDAV's.
    *(b"PROPFIND ", b"PROPPATCH ", b"MKCOL ", b"COPY ", b"MOVE ", b"LOCK ", b"UNLOCK ", b"REPORT "),
    *(b"SEARCH ", b"NOTIFY ", b"SUBSCRIBE ", b"M-SEARCH "),
)
_RESPONSE: Final = b"HTTP/1."
_LONGEST: Final = {Fact.TARGET: 1024, Fact.NAME: 255}
_LONGEST_VALUE: Final = 512

_REQUEST_HEADERS: Final = {b"host": Fact.NAME, b"user-agent": Fact.USER_AGENT}
_RESPONSE_HEADERS: Final = {b"server": Fact.SERVER, b"content-type": Fact.CONTENT_TYPE}


def looks_so(view: memoryview) -> Certainty:
    """Whether a stream that begins so is HTTP/1; `view` has at least eight bytes."""
    begins = bytes(view[:10])
    if begins.startswith(METHODS) or begins.startswith(_RESPONSE):
        return Certainty.UNSURE
    return Certainty.NOT_MINE


def read(case: Case, budget: Budget, view: memoryview) -> Verdict:
    """Learn from a direction's bytes; they are given again, longer, after MORE."""
    data = bytes(view[:HEAD_BYTES])
    end = data.find(b"\n")
    if end < 0:
        return Verdict.MORE if len(data) < HEAD_BYTES else Verdict.NOT_MINE
    line = data[:end].rstrip(b"\r")
    response = line.startswith(_RESPONSE)
    if not (_is_status(line) if response else _is_request(line)):
        return Verdict.NOT_MINE
    case.claim(Protocol.HTTP, Certainty.CERTAIN)
    headers: list[tuple[bytes, bytes]] = []
    at, whole = end + 1, False
    while (end := data.find(b"\n", at)) >= 0:
        header = data[at:end].rstrip(b"\r")
        at = end + 1
        if not header:
            whole = True
            break
        name, colon, value = header.partition(b":")
        if colon:
            headers.append((name.lower(), value.strip(b" \t")))
    if not whole and len(data) < HEAD_BYTES:
        return Verdict.MORE
    if not whole:
        case.flags |= Flag.TRUNCATED
    learn(case, budget, line, headers, response)
    return Verdict.DONE


def learn(
    case: Case, budget: Budget, line: bytes, headers: list[tuple[bytes, bytes]], response: bool
) -> None:
    """Facts of a first line and the headers behind it."""
    if response:
        case.number(budget, Fact.STATUS, int(line[9:12]))
        wanted = _RESPONSE_HEADERS
    else:
        method, _, rest = line.partition(b" ")
        case.put(budget, Fact.METHOD, method)
        case.put(budget, Fact.TARGET, rest[:-9][: _LONGEST[Fact.TARGET]])
        wanted = _REQUEST_HEADERS
    for name, value in headers:
        tag = wanted.get(name)
        if tag is not None:
            case.put(budget, tag, value[: _LONGEST.get(tag, _LONGEST_VALUE)])


def _is_status(line: bytes) -> bool:
    """HTTP/1.x, a blank, three digits, a blank or nothing (RFC 9112 section 4)."""
    return (
        len(line) >= 12
        and line[7] in b"01"
        and line[8] == 0x20
        and all(0x30 <= byte <= 0x39 for byte in line[9:12])
        and (len(line) == 12 or line[12] == 0x20)
    )


def _is_request(line: bytes) -> bool:
    """A method, a target without blanks, HTTP/1.x (RFC 9112 section 3)."""
    if not line.startswith(METHODS) or len(line) < 9 or line[-9:-1] != b" HTTP/1." or line[-1] not in b"01":
        return False
    target = line[line.find(b" ") + 1 : -9]
    return len(target) > 0 and b" " not in target
