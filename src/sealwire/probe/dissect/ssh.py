"""SSH: both sides' first lines and key exchange proposals, and HASSH (RFC 4253 sections 4.2 and 7.1).

HASSH: https://github.com/salesforce/hassh
"""

from __future__ import annotations

from typing import Final

from sealwire.errors import ProtocolError
from sealwire.probe.dissect.bounded import Budget
from sealwire.probe.dissect.case import Case, Verdict
from sealwire.probe.dissect.facts import Certainty, Fact, Flag, Protocol
from sealwire.probe.dissect.hello import md5
from sealwire.wire import Reader

_BEGINS: Final = b"SSH-"
_LONGEST_LINE: Final = 255
_LONGEST_PACKET: Final = 35_000
_KEXINIT: Final = 20


def looks_so(view: memoryview) -> Certainty:
    """Whether a stream that begins so is SSH; `view` has at least eight bytes."""
    begins = bytes(view[:8])
    versioned = begins[4:6] in (b"2.", b"1.")
    return Certainty.UNSURE if begins.startswith(_BEGINS) and versioned else Certainty.NOT_MINE


def read(case: Case, budget: Budget, view: memoryview, backward: int) -> Verdict:
    """Learn from a direction's bytes; they are given again, longer, after MORE."""
    line_end = bytes(view[: _LONGEST_LINE + 1]).find(b"\n")
    if line_end < 0:
        return Verdict.NOT_MINE if len(view) > _LONGEST_LINE else Verdict.MORE
    line = bytes(view[:line_end]).rstrip(b"\r")
    case.claim(Protocol.SSH, Certainty.CERTAIN)
    case.put(budget, Fact.SERVER_SOFTWARE if backward else Fact.CLIENT_SOFTWARE, line)
    at = line_end + 1
    if at + 6 > len(view):
        return Verdict.MORE
    length = int.from_bytes(view[at : at + 4], "big")
    if not 22 <= length <= _LONGEST_PACKET or view[at + 5] != _KEXINIT:
        case.flags |= Flag.MALFORMED
        return Verdict.DONE
    if at + 4 + length > len(view):
        return Verdict.MORE
    _proposal(case, budget, bytes(view[at + 6 : at + 4 + length]), backward)
    return Verdict.DONE


def _proposal(case: Case, budget: Budget, body: bytes, backward: int) -> None:
    reader = Reader(body)
    lists = []
    try:
        reader.take(16)
        for _ in range(8):
            lists.append(reader.take(reader.u32()))  # noqa: PERF401 - what was read before an error counts
    except ProtocolError:
        case.flags |= Flag.MALFORMED
        return
    # kex algorithms, then encryption, MAC and compression of the sender's own direction.
    chosen = (
        (lists[0], lists[3], lists[5], lists[7]) if backward else (lists[0], lists[2], lists[4], lists[6])
    )
    shown = b";".join(chosen).decode("latin-1")
    case.put(budget, Fact.HASSH_SERVER if backward else Fact.HASSH, md5(shown))
