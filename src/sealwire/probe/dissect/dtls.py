"""DTLS over UDP: the plaintext records of a flow's first datagrams (RFC 9147, RFC 6347)."""

from __future__ import annotations

from typing import Final

from sealwire.probe.dissect.bounded import HEAD_BYTES, Budget
from sealwire.probe.dissect.case import Case, Verdict, Way, Work
from sealwire.probe.dissect.facts import Certainty, Fact, Flag, Protocol
from sealwire.probe.dissect.hello import client_hello, learn_client, learn_server, server_hello
from sealwire.probe.dissect.tls import (
    ALERT,
    CERTIFICATE,
    CLIENT_HELLO,
    HANDSHAKE,
    MAX_RECORD_BYTES,
    SERVER_HELLO,
    SERVER_HELLO_DONE,
    learn_certificate,
)

HELLO_VERIFY_REQUEST: Final = 3
RECORD_HEADER: Final = 13
FRAGMENT_HEADER: Final = 12


def looks_so(view: memoryview) -> Certainty:
    """Whether a datagram is DTLS: one plaintext record header that fits it."""
    if len(view) < RECORD_HEADER or not 20 <= view[0] <= 26 or view[1] != 0xFE:
        return Certainty.NOT_MINE
    if view[2] not in (0xFF, 0xFD, 0xFC):
        return Certainty.NOT_MINE
    # A record with a connection id (type 25) has its length behind the id, whose length is not known.
    if view[0] != 25 and RECORD_HEADER + (view[11] << 8 | view[12]) > len(view):
        return Certainty.NOT_MINE
    return Certainty.UNSURE


def read(case: Case, budget: Budget, work: Work, backward: int, view: memoryview) -> Verdict:
    """Learn from one datagram."""
    way = work.ways[backward]
    at, n = 0, len(view)
    while at + RECORD_HEADER <= n:
        if view[at + 1] != 0xFE or not 20 <= view[at] <= 23:
            break
        epoch, length = view[at + 3] << 8 | view[at + 4], view[at + 11] << 8 | view[at + 12]
        if length > MAX_RECORD_BYTES or at + RECORD_HEADER + length > n:
            break
        record = view[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length
        if epoch:
            way.done = True  # protected from here on
            continue
        if view[at - RECORD_HEADER - length] == ALERT and length == 2:
            case.number(budget, Fact.ALERT, record[1], 1)
        elif view[at - RECORD_HEADER - length] == HANDSHAKE:
            _fragments(case, budget, work, way, backward, record)
    return Verdict.DONE if work.ways[0].done and work.ways[1].done else Verdict.MORE


def _fragments(case: Case, budget: Budget, work: Work, way: Way, backward: int, record: memoryview) -> None:
    at = 0
    while at + FRAGMENT_HEADER <= len(record) and not way.done:
        kind = record[at]
        length = record[at + 1] << 16 | record[at + 2] << 8 | record[at + 3]
        number = record[at + 4] << 8 | record[at + 5]
        offset = record[at + 6] << 16 | record[at + 7] << 8 | record[at + 8]
        n = record[at + 9] << 16 | record[at + 10] << 8 | record[at + 11]
        at += FRAGMENT_HEADER
        if offset + n > length or at + n > len(record):
            case.flags |= Flag.MALFORMED
            return
        body = record[at : at + n]
        at += n
        if kind == SERVER_HELLO_DONE:
            way.done = True
        elif kind in (CLIENT_HELLO, SERVER_HELLO, HELLO_VERIFY_REQUEST, CERTIFICATE):
            if n == length:
                _message(case, budget, work, way, backward, kind, bytes(body))
            else:
                _fragment(case, budget, work, way, backward, (kind, number, length), offset, body)


def _fragment(
    case: Case,
    budget: Budget,
    work: Work,
    way: Way,
    backward: int,
    message: tuple[int, int, int],
    offset: int,
    body: memoryview,
) -> None:
    if message[2] > HEAD_BYTES:
        case.flags |= Flag.TRUNCATED
        return
    if way.message is None:
        way.message = message
    if way.message != message:
        return  # one message is put together at a time
    if way.head.add(budget, offset, body) and len(way.head.kept) >= message[2]:
        whole = bytes(way.head.kept[: message[2]])
        way.head.free(budget)
        way.message = None
        _message(case, budget, work, way, backward, message[0], whole)


def _message(case: Case, budget: Budget, work: Work, way: Way, backward: int, kind: int, body: bytes) -> None:
    if kind == CLIENT_HELLO:
        hello = client_hello(body, True)
        if hello is None:
            case.flags |= Flag.MALFORMED
            return
        case.claim(Protocol.DTLS, Certainty.CERTAIN)
        work.client = backward
        learn_client(case, budget, hello, "d")
    elif kind == HELLO_VERIFY_REQUEST:
        case.number(budget, Fact.RETRY, 1, 1)
    elif kind == SERVER_HELLO:
        hello = server_hello(body)
        if hello is None:
            case.flags |= Flag.MALFORMED
            return
        case.claim(Protocol.DTLS, Certainty.CERTAIN)
        if learn_server(case, budget, hello, True):
            work.ways[1 - backward].done = True  # the client's hello was answered
            way.done = case.known >> Fact.GROUP & 1 == 1  # the certificate of version 1.3 is protected
    else:
        learn_certificate(case, budget, body)
        way.done = True
