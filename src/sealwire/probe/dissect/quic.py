"""QUIC: long headers, and the hellos inside Initial packets, whose keys anybody can derive.

RFC 9000 (version 1), RFC 9001 section 5 (Initial secrets and header protection), RFC 9369 (version 2).
Opening an Initial proves that it is one: certain.  A header alone proves little.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sealwire.crypto.hkdf import TLS13_PREFIX, expand_label
from sealwire.crypto.providers import Aead, Mask, default_provider
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.probe.dissect.bounded import Budget
from sealwire.probe.dissect.case import Case, Verdict, Way, Work
from sealwire.probe.dissect.facts import Certainty, Fact, Flag, Protocol
from sealwire.probe.dissect.hello import client_hello, learn_client, learn_server, server_hello

VERSION_1: Final = 0x00000001
VERSION_2: Final = 0x6B3343CF
LONGEST_ID: Final = 20

#: RFC 9001 section 5.2, RFC 9369 section 3.3.1 and draft-ietf-quic-tls-29 section 5.2.
_SALTS: Final = {
    VERSION_1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    VERSION_2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
    0xFF00001D: bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"),
}
_DRAFTS: Final = range(0xFF00001D, 0xFF000021)
_INITIAL, _HANDSHAKE, _RETRY = 0, 2, 3
_SAMPLE: Final = 16
_TAG: Final = 16


def _salted(version: int) -> int:
    """The version whose salt another one uses: drafts 29 to 32 have the same."""
    return 0xFF00001D if version in _DRAFTS else version


def _kind(version: int, first: int) -> int:
    """Type of a long header as version 1 numbers it; RFC 9369 section 3.2 numbers them on by one."""
    kind = first >> 4 & 3
    return (kind + 3) % 4 if version == VERSION_2 else kind


def looks_so(view: memoryview) -> Certainty:
    """Whether a datagram begins with a long header of a known version, or is version negotiation."""
    n = len(view)
    if n < 7 or not view[0] & 0x80:
        return Certainty.NOT_MINE
    version = int.from_bytes(view[1:5], "big")
    to = view[5]
    if to > LONGEST_ID or n < 7 + to or view[6 + to] > LONGEST_ID:
        return Certainty.NOT_MINE
    if version == 0:
        # RFC 9000 section 17.2.1: nothing but versions behind the ids.
        rest = n - 7 - to - view[6 + to]
        return Certainty.UNSURE if rest >= 4 and rest % 4 == 0 else Certainty.NOT_MINE
    if _salted(version) not in _SALTS or not view[0] & 0x40:
        return Certainty.NOT_MINE
    return Certainty.UNSURE if n >= 7 + to + view[6 + to] else Certainty.NOT_MINE


def read(case: Case, budget: Budget, work: Work, backward: int, view: memoryview) -> Verdict:
    """Learn from one datagram, which may hold several packets (RFC 9000 section 12.2)."""
    at = 0
    while at < len(view):
        behind = _packet(case, budget, work, backward, view[at:])
        if behind <= 0:
            break
        at += behind
    return Verdict.DONE if work.ways[0].done and work.ways[1].done else Verdict.MORE


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """RFC 9000 section 16: a number and the place behind it; -1 if it is cut."""
    if at >= len(view):
        return -1, at
    n = 1 << (view[at] >> 6)
    if at + n > len(view):
        return -1, at
    return int.from_bytes(view[at : at + n], "big") & ((1 << 8 * n - 2) - 1), at + n


def _packet(case: Case, budget: Budget, work: Work, backward: int, view: memoryview) -> int:
    """Learn from one packet; its length, 0 if nothing behind it can be read."""
    if looks_so(view) is Certainty.NOT_MINE:
        return 0
    version = int.from_bytes(view[1:5], "big")
    to = view[5]
    source_at = 7 + to
    source_id = bytes(view[source_at : source_at + view[6 + to]])
    if version == 0:
        return 0
    at = source_at + len(source_id)
    kind = _kind(version, view[0])
    if kind == _RETRY:
        if case.certainty is Certainty.CERTAIN and work.client == 1 - backward:
            case.number(budget, Fact.RETRY, 1, 1)
        return 0
    if kind in (_INITIAL, _HANDSHAKE) and work.client == 1 - backward:
        case.put(budget, Fact.SERVER_ID, source_id)
    if kind == _INITIAL:
        token, at = _varint(view, at)
        if token < 0 or token > len(view) - at:
            return 0
        at += token
    length, at = _varint(view, at)
    if length < 0 or length > len(view) - at:
        return 0
    if kind == _INITIAL:
        whole = view[: at + length]
        _initial(case, budget, work, backward, version, bytes(view[6 : 6 + to]), source_id, whole, at)
    return at + length


def _initial(
    case: Case,
    budget: Budget,
    work: Work,
    backward: int,
    version: int,
    to: bytes,
    source_id: bytes,
    whole: memoryview,
    at: int,
) -> None:
    if work.client < 0 or work.client == backward:
        # RFC 9001 section 5.2: keys follow from the id the client chose, which a Retry changes.
        opened = None
        if work.first_id is not None:
            opened = _open(version, work.first_id, False, whole, at)
        if opened is None and to != work.first_id:
            opened = _open(version, to, False, whole, at)
            if opened is not None:
                work.first_id = to
        if opened is None:
            return
        work.client = backward
        case.claim(Protocol.QUIC, Certainty.CERTAIN)
        case.number(budget, Fact.QUIC_VERSION, version, 4)
        case.put(budget, Fact.CLIENT_ID, source_id)
    else:
        assert work.first_id is not None
        opened = _open(version, work.first_id, True, whole, at)
        if opened is None:
            return
    way = work.ways[backward]
    if not way.done:
        _frames(case, budget, way, opened, work.client == backward)


@lru_cache(64)
def _keys(version: int, first_id: bytes, server: bool) -> tuple[Aead, bytes, Mask]:
    provider = default_provider()
    spec = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]
    label = b"server in" if server else b"client in"
    initial = provider.hkdf_extract("sha256", _SALTS[_salted(version)], first_id)
    secret = expand_label(provider, "sha256", initial, TLS13_PREFIX, label, b"", 32)
    prefix = b"quicv2 " if version == VERSION_2 else b"quic "
    key, iv, hp = (
        expand_label(provider, "sha256", secret, TLS13_PREFIX, prefix + name, b"", n)
        for name, n in ((b"key", 16), (b"iv", 12), (b"hp", 16))
    )
    return provider.aead(spec, key), iv, provider.mask(spec, hp)


def _open(version: int, first_id: bytes, server: bool, whole: memoryview, at: int) -> bytes | None:
    """The frames of an Initial whose packet number is at `at`, or None."""
    if len(whole) < at + 4 + _SAMPLE:
        return None
    aead, iv, mask = _keys(version, first_id, server)
    # RFC 9001 section 5.4.
    cover = mask(bytes(whole[at + 4 : at + 4 + _SAMPLE]))
    header = bytearray(whole[: at + 4])
    header[0] ^= cover[0] & 0x0F
    n = (header[0] & 3) + 1
    del header[at + n :]
    for i in range(n):
        header[at + i] ^= cover[1 + i]
    if len(whole) < at + n + _TAG:
        return None
    number = int.from_bytes(header[at:], "big")
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    return aead.open(nonce, bytes(whole[at + n :]), bytes(header))


def _frames(case: Case, budget: Budget, way: Way, opened: bytes, client: bool) -> None:
    """RFC 9000 section 12.4: PADDING, PING, ACK, CRYPTO and CONNECTION_CLOSE are all an Initial may hold."""
    frames = memoryview(opened)
    at = 0
    while at < len(frames):
        kind = frames[at]
        at += 1
        if kind in (0, 1):
            continue
        if kind in (2, 3):
            at = _skip_ack(frames, at, kind)
        elif kind == 6:
            offset, at = _varint(frames, at)
            length, at = _varint(frames, at)
            if offset < 0 or length < 0 or length > len(frames) - at:
                at = -1
            else:
                if length:
                    way.head.add(budget, offset, frames[at : at + length])
                at += length
        elif kind == 0x1C:
            break
        else:
            at = -1
        if at < 0:
            case.flags |= Flag.MALFORMED
            break
    _hello(case, budget, way, client)


def _skip_ack(frames: memoryview, at: int, kind: int) -> int:
    """RFC 9000 section 19.3; -1 if it is cut."""
    ranges = 0
    for i in range(4):
        value, at = _varint(frames, at)
        if value < 0:
            return -1
        if i == 2:
            ranges = value
    if ranges > len(frames):
        return -1
    for _ in range(2 * ranges + (3 if kind == 3 else 0)):
        value, at = _varint(frames, at)
        if value < 0:
            return -1
    return at


def _hello(case: Case, budget: Budget, way: Way, client: bool) -> None:
    kept = way.head.kept
    at, number = 0, 0
    while at + 4 <= len(kept) and not way.done:
        length = kept[at + 1] << 16 | kept[at + 2] << 8 | kept[at + 3]
        if kept[at] != (1 if client else 2):
            case.flags |= Flag.MALFORMED
            way.done = True
            return
        if at + 4 + length > len(kept):
            return
        if number >= way.messages:
            way.messages = number + 1
            body = bytes(kept[at + 4 : at + 4 + length])
            hello = client_hello(body, False) if client else server_hello(body)
            if hello is None:
                case.flags |= Flag.MALFORMED
                way.done = True
            elif client:
                learn_client(case, budget, hello, "q")
                way.done = True
            else:
                way.done = learn_server(case, budget, hello, False)
        number += 1
        at += 4 + length
