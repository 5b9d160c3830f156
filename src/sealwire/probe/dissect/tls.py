"""TLS over TCP: records of a stream's head, the hellos and the certificate in them (RFC 8446, RFC 5246)."""

from __future__ import annotations

from typing import Final

from sealwire.probe.dissect.bounded import Budget
from sealwire.probe.dissect.case import Case, Verdict, Way
from sealwire.probe.dissect.facts import Certainty, Fact, Flag, Protocol
from sealwire.probe.dissect.hello import client_hello, learn_client, learn_server, server_hello

CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
CERTIFICATE: Final = 11
SERVER_HELLO_DONE: Final = 14
#: RFC 5246 section 6.2.3: 2^14 + 2048.
MAX_RECORD_BYTES: Final = 18_432
#: Certificates longer than this are not handed on.
MAX_CERTIFICATE_BYTES: Final = 8_192


def looks_so(view: memoryview) -> Certainty:
    """Whether a stream that begins so is TLS; `view` has at least eight bytes."""
    if view[1] != 3 or view[2] > 4 or not 0 < (view[3] << 8 | view[4]) <= MAX_RECORD_BYTES:
        return Certainty.NOT_MINE
    if view[0] == HANDSHAKE and view[5] in (CLIENT_HELLO, SERVER_HELLO) and view[6] == 0:
        return Certainty.UNSURE
    # Begun before the capture was, or refused at once.
    if view[0] == 23 or (view[0] == ALERT and view[3] << 8 | view[4] == 2 and view[5] in (1, 2)):
        return Certainty.UNSURE
    return Certainty.NOT_MINE


def read(case: Case, budget: Budget, way: Way, view: memoryview) -> Verdict:
    """Learn from a direction's bytes; they are given again, longer, after MORE."""
    messages = bytearray()
    at, n = 0, len(view)
    ended = False
    while at + 5 <= n:
        kind, length = view[at], view[at + 3] << 8 | view[at + 4]
        if view[at + 1] != 3 or view[at + 2] > 4 or length > MAX_RECORD_BYTES:
            ended = True
            if not at:
                return Verdict.NOT_MINE
            case.flags |= Flag.MALFORMED
            break
        body = view[at + 5 : at + 5 + length]
        if kind == HANDSHAKE:
            messages += body
        elif kind == CHANGE_CIPHER_SPEC and case.known >> Fact.RETRY & 1:
            pass  # RFC 8446 appendix D.4: it means nothing, and the real hello is behind it
        elif kind == ALERT and length == 2:
            if len(body) == 2:
                case.number(budget, Fact.ALERT, body[1], 1)
                # RFC 5246 section 7.2.2: a warning ends nothing.
                ended = body[0] != 1 or body[1] == 0
            if ended:
                break
        else:
            ended = True
            break
        if at + 5 + length > n:
            break
        at += 5 + length
    return _messages(case, budget, way, messages, ended)


def _messages(case: Case, budget: Budget, way: Way, messages: bytearray, ended: bool) -> Verdict:
    at, number = 0, 0
    while at + 4 <= len(messages):
        kind = messages[at]
        length = messages[at + 1] << 16 | messages[at + 2] << 8 | messages[at + 3]
        if at + 4 + length > len(messages):
            break
        if number >= way.messages:
            way.messages = number + 1
            if message(case, budget, kind, bytes(messages[at + 4 : at + 4 + length])):
                return Verdict.DONE
        number += 1
        at += 4 + length
    return Verdict.DONE if ended else Verdict.MORE


def message(case: Case, budget: Budget, kind: int, body: bytes) -> bool:
    """Learn from a handshake message of a stream; whether nothing is to be learnt behind it."""
    if kind == CLIENT_HELLO:
        hello = client_hello(body, False)
        if hello is None:
            case.flags |= Flag.MALFORMED
            return True
        case.claim(Protocol.TLS, Certainty.CERTAIN)
        learn_client(case, budget, hello, "t")
        return True
    if kind == SERVER_HELLO:
        hello = server_hello(body)
        if hello is None:
            case.flags |= Flag.MALFORMED
            return True
        case.claim(Protocol.TLS, Certainty.CERTAIN)
        # From version 1.3 on the certificate is not in the clear.
        return learn_server(case, budget, hello, False) and (case.known >> Fact.GROUP & 1 == 1)
    if kind == CERTIFICATE:
        learn_certificate(case, budget, body)
        return True
    return kind == SERVER_HELLO_DONE


def learn_certificate(case: Case, budget: Budget, body: bytes) -> None:
    """The first certificate of RFC 5246 section 7.4.2's list."""
    if len(body) < 6:
        return
    n = body[3] << 16 | body[4] << 8 | body[5]
    if n and 6 + n <= len(body) and n <= MAX_CERTIFICATE_BYTES:
        case.put(budget, Fact.CERTIFICATE, body[6 : 6 + n])
