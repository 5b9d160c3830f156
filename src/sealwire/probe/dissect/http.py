"""HTTP/1: the heads of requests and responses, and how far their bodies go (RFC 9112)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealwire.probe.dissect.bounded import HEAD_BYTES, Budget
from sealwire.probe.dissect.case import Body, Case, Verdict, Way
from sealwire.probe.dissect.facts import Certainty, Fact

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

#: What Message.body says beside a number of bytes: none is told, in chunks, the rest, it contradicts itself.
UNTOLD: Final = -1
CHUNKED: Final = -2
REST: Final = -3
CONTRADICTORY: Final = -4
_LONGEST_LENGTH: Final = 10
_LONGEST_CHUNK_SIZE: Final = 7


def looks_so(view: memoryview) -> Certainty:
    """Whether a stream that begins so is HTTP/1; `view` has at least eight bytes."""
    begins = bytes(view[:10])
    if begins.startswith(METHODS) or begins.startswith(_RESPONSE):
        return Certainty.UNSURE
    return Certainty.NOT_MINE


@dataclass(slots=True)
class Message:
    """A head."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    #: Where the body begins.
    behind: int
    #: Its last line was there.
    whole: bool

    @property
    def response(self) -> bool:
        return self.line.startswith(_RESPONSE)

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.line[9:12])

    @property
    def body(self) -> int:
        """Bytes of the body, or why they are not known (RFC 9112 section 6.3)."""
        length, coded = UNTOLD, UNTOLD
        for name, value in self.headers:
            if name == b"transfer-encoding":
                coded = CHUNKED if value[-7:].lower() == b"chunked" else REST
            elif name == b"content-length":
                told = CONTRADICTORY
                if 0 < len(value) <= _LONGEST_LENGTH and all(0x30 <= byte <= 0x39 for byte in value):
                    told = int(value)
                length = told if length in (UNTOLD, told) else CONTRADICTORY
        return length if coded == UNTOLD else coded


def head_at(data: bytes | bytearray, at: int) -> Message | Verdict:
    """The head at a place; MORE where it has no end yet, NOT_MINE for something else."""
    end = data.find(b"\n", at)
    if end < 0:
        return Verdict.MORE if at or len(data) < HEAD_BYTES else Verdict.NOT_MINE
    line = bytes(data[at:end]).rstrip(b"\r")
    if not (_is_status(line) if line.startswith(_RESPONSE) else _is_request(line)):
        return Verdict.NOT_MINE
    message = Message(line, [], end + 1, False)
    while (end := data.find(b"\n", message.behind)) >= 0:
        header = bytes(data[message.behind : end]).rstrip(b"\r")
        message.behind = end + 1
        if not header:
            message.whole = True
            return message
        name, colon, value = header.partition(b":")
        if colon:
            message.headers.append((name.lower(), value.strip(b" \t")))
    return message if len(data) >= HEAD_BYTES else Verdict.MORE


def learn(case: Case, budget: Budget, message: Message) -> None:
    """Facts of a head."""
    line = message.line
    if message.response:
        case.number(budget, Fact.STATUS, message.status)
        wanted = _RESPONSE_HEADERS
    else:
        method, _, rest = line.partition(b" ")
        case.put(budget, Fact.METHOD, method)
        case.put(budget, Fact.TARGET, rest[:-9][: _LONGEST[Fact.TARGET]])
        wanted = _REQUEST_HEADERS
    for name, value in message.headers:
        tag = wanted.get(name)
        if tag is not None:
            case.put(budget, tag, value[: _LONGEST.get(tag, _LONGEST_VALUE)])


def body_of_response(message: Message, method: bytes) -> int:
    """Bytes, CHUNKED or REST; `method` is that of the request, "" if it was not seen."""
    status = message.status
    if status == 101 or (method == b"CONNECT" and 200 <= status < 300):
        return REST  # another protocol
    if method == b"HEAD" or 100 <= status < 200 or status in (204, 304):
        return 0
    return REST if message.body == UNTOLD else message.body


def skip_chunks(way: Way, data: bytes | bytearray) -> Verdict:
    """Go on in a chunked body (RFC 9112 section 7.1); DONE at its end, NOT_MINE where it is none."""
    while way.at < HEAD_BYTES:
        end = data.find(b"\n", way.at)
        if end < 0:
            return Verdict.MORE
        line = bytes(data[way.at : end]).rstrip(b"\r")
        if way.body is Body.TRAILERS:
            way.at = end + 1
            if not line:
                way.body = Body.NONE
                return Verdict.DONE
        elif way.body is Body.CHUNK_END:
            if line:
                return Verdict.NOT_MINE
            way.at, way.body = end + 1, Body.CHUNK
        else:
            digits = line.partition(b";")[0].rstrip(b" \t")
            if not 0 < len(digits) <= _LONGEST_CHUNK_SIZE or not all(byte in _DIGITS for byte in digits):
                return Verdict.NOT_MINE
            size = int(digits, 16)
            way.at, way.body = end + 1 + size, Body.CHUNK_END if size else Body.TRAILERS
    return Verdict.MORE


_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF")


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
