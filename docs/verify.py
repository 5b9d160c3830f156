"""Verify sealed events without sealwire: only `cryptography` and the standard library.

    zstd -dc events/*.seal.zst | python verify.py probe.key.pub
    zstd -dc events/*.seal.zst | python verify.py probe.key.pub --head HASH --as-of 1750000000 --revoked KEYID

Says "good" (exit 0) or "BROKEN" with the first segment that is not as it was sealed (exit 1).  The
format is in probe/sealing.md and probe/events.cddl; no line here comes from the package.
"""

import argparse
import base64
import hashlib
import pathlib
import sys
import time
from types import SimpleNamespace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

FLOW, START, STOP, GAP, KEY, CLOCK, DISSECTED, TRANSACTION, POLICY = 1, 2, 3, 5, 6, 7, 8, 9, 10
ELEMENTS = {FLOW: 21, START: 5, STOP: 3, 4: 3, GAP: 12, KEY: 4, CLOCK: 4, DISSECTED: 22, TRANSACTION: 14}
ELEMENTS |= {POLICY: 6, 11: 9}  # 11: how the probe is
FIELDS = ["version", "probe", "boot", "number", "first", "last", "previous", "times", "sealed", "clock"]
FIELDS += ["beat", "counters"]
SHA256 = hashes.SHA256()
ALGORITHMS = {  # of COSE: the kind of key, and what its verify() is told beside signature and data
    -8: (ed25519.Ed25519PublicKey,),
    -7: (ec.EllipticCurvePublicKey, ec.ECDSA(SHA256)),
    -37: (rsa.RSAPublicKey, padding.PSS(padding.MGF1(SHA256), 32), SHA256),
    -49: (mldsa.MLDSA65PublicKey,),
}


class Broken(Exception):
    """What is wrong, said of the segment that is being read."""


def need(right, words):
    if not right:
        raise Broken(words)


def sha256(data):
    return hashlib.sha256(data).digest()


def item(data, at=0):
    """One CBOR item (RFC 8949) of the kinds events have, and where it ends."""
    major, n, at = data[at] >> 5, data[at] & 31, at + 1
    if n > 23:
        n, at = int.from_bytes(data[at : at + (1 << n - 24)], "big"), at + (1 << n - 24)
    end = at + n if major in (2, 3) else at
    need(end <= len(data), "it is cut short")
    if major < 2:
        return (n, -1 - n)[major], at
    if major < 4:
        return data[at:end] if major == 2 else data[at:end].decode(), end
    if major > 5:
        return item(data, at) if (major, n) == (6, 18) else ({20: False, 21: True, 22: None}[n], at)
    parts = []
    for _ in range(n * (major - 3)):
        part, at = item(data, at)
        parts.append(part)
    return parts if major == 4 else dict(zip(parts[::2], parts[1::2], strict=True)), at


def root(leaves):
    """RFC 9162 section 2.1.1."""
    level = [sha256(b"\0" + leaf) for leaf in leaves]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [sha256(b"\1" + b"".join(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0]


def check(key, algorithm, signature, protected, payload):
    """RFC 9052 section 4.4."""
    kind, *more = ALGORITHMS[algorithm]
    need(isinstance(key, kind), "an algorithm that is not the key's")
    if algorithm == -7:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        signature = utils.encode_dss_signature(r, s)
    n = len(protected)
    head = bytes([0x40 + n] if n < 24 else [0x58, n] if n < 256 else [0x59, n >> 8, n & 255])
    key.verify(signature, b"\x84\x6aSignature1" + head + protected + b"\x40\x58\x20" + payload, *more)


def read(data, at, keys, revoked):
    """The segment at `at`, judged alone: signature, root, events, times."""
    need(data[at : at + 3] == b"\x82\xd2\x84", "no segment begins here")
    (protected, unprotected, payload, signature), end = item(data, at + 1)
    (outer, whole), (leaves, behind) = item(protected), item(data, end)
    one = SimpleNamespace(**dict(zip(FIELDS, outer["sealwire"].values(), strict=True)))
    one.key, one.hash, one.behind, one.events = outer[4], sha256(data[at + 1 : end]), behind, []
    right = set(outer) == {1, 4, 395, "sealwire"} and whole == len(protected) and unprotected == {}
    need(right and outer[395] == one.version == 1 and len(payload) == 32, "a segment of another version")
    need(one.key in keys, "signed with a key that is not trusted here")
    need(one.key.hex() not in revoked, "signed with a revoked key")
    check(keys[one.key], outer[1], signature, protected, payload)
    need(len(leaves) == one.last - one.first + 1, "more or fewer events than were signed")
    need(root(leaves) == payload, "the events are not those signed")
    for sequence, leaf in enumerate(leaves, one.first):
        event, stop = item(leaf)
        right = stop == len(leaf) and event[1] == sequence
        right &= ELEMENTS.get(event[0], len(event)) == len(event)
        need(right, f"event {sequence} is not what it should be")
        one.events.append(event)
    times = [event[2] for event in one.events if event[0] in (FLOW, DISSECTED, TRANSACTION)]
    need(one.times == ([min(times), max(times)] if times else None), "other times than those of the events")
    return one


def follow(last, one):
    """Judge the step from one segment to the next; the numbers that are left out, or None."""
    kinds, stopped = {event[0] for event in one.events}, last.events[-1][0] == STOP
    need(one.probe == last.probe, "another probe's segment")
    need(one.number > last.number and one.first > last.last, "it comes before what precedes it")
    if one.boot != last.boot:
        unclean = any(event[0] == GAP and event[3] == 1 for event in one.events)
        need(START in kinds and (stopped or unclean), "another boot, and nothing says how the last ended")
    else:
        need(not stopped or kinds <= {GAP, STOP}, "events behind a stop")
        wall, up = (now - then for now, then in zip(one.sealed, last.sealed, strict=True))
        need(up >= 0 and (abs(wall - up) <= 500_000_000 or CLOCK in kinds), "the clock was set in silence")
        need(all(one.counters.get(k, 0) >= v for k, v in last.counters.items()), "counters went back")
    if (one.number, one.first) != (last.number + 1, last.last + 1):
        return last, one
    need(one.previous == last.hash, "it does not continue the segment before")
    return None


def covered(first, last, ranges):
    for begin, end in sorted(r for r in ranges if None not in r):
        first = end + 1 if begin <= first <= end else first
    return first > last


def finish(first, last, jumps, gaps, now, after):
    """What only the end can tell.  A gap: schema, sequence, time, reason, since, until, events,
    first and last event, first and last segment, hash."""
    links = {(gap[10], gap[11]) for gap in gaps}
    known = first.number == 0 or (first.number - 1, first.previous) in links
    need(known or (after and first.previous.hex() == after), "the beginning is missing")
    for before, one in jumps:
        linked = one.previous == before.hash or (one.number - 1, one.previous) in links
        segments = covered(before.number + 1, one.number - 1, [(gap[9], gap[10]) for gap in gaps])
        events = covered(before.last + 1, one.first - 1, [(gap[7], gap[8]) for gap in gaps])
        need(linked and segments and events, f"what is missing before segment {one.number} is not declared")
    late = now - last.sealed[0] > (2 * last.beat + 5) * 1_000_000_000
    need(last.events[-1][0] == STOP or not late, "the end is missing")


def verify(data, keys, now, head=None, revoked=(), after=None):
    """Judge what zstd -dc gives, by trusted keys (DER); the sentence that says it is good.  Raises Broken."""
    trusted = {sha256(key): load_der_public_key(key) for key in keys}
    at, count, key, first, last, jumps, gaps, seen = 0, 0, None, None, None, [], [], set()
    try:
        while at < len(data):
            one = read(data, at, trusted, revoked)
            need(key in (None, one.key), "signed with another key than the chain has reached")
            jumps += [jump] if last and (jump := follow(last, one)) else []
            first, last, key, at = first or one, one, one.key, one.behind
            gaps += [event for event in one.events if event[0] == GAP]
            for new in [event[3] for event in one.events if event[0] == KEY]:
                key, trusted[sha256(new)] = sha256(new), load_der_public_key(new)
            seen.add(one.hash.hex())
            count += len(one.events)
        need(last is not None, "nothing to verify")
        finish(first, last, jumps, gaps, now, after)
        need(head is None or head in seen, "the segment that must be there is not")
    except (Broken, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        where = f"segment {len(seen)} of the input, at byte {at}" if at < len(data) else "the whole"
        raise Broken(f"{where}: {error}") from None
    except InvalidSignature:
        raise Broken(f"segment {len(seen)} of the input, at byte {at}: not signed by its key") from None
    return f"{len(seen)} segments, {count} events, {len(gaps)} gaps"


def main():
    parser = argparse.ArgumentParser(description="Verify sealed events on standard input, unpacked.")
    parser.add_argument("key", nargs="+", type=pathlib.Path, help="trusted public key, PEM")
    parser.add_argument("--head", help="hash of a segment that must be there")
    parser.add_argument("--after", help="hash of the last segment that a collector removed")
    parser.add_argument(
        "--as-of", type=float, default=time.time(), help="judge an open end as of then, seconds"
    )
    parser.add_argument("--revoked", nargs="*", default=[], help="ids of keys not to be believed any more")
    args = parser.parse_args()
    keys = [base64.b64decode("".join(name.read_text().splitlines()[1:-1])) for name in args.key]
    try:
        how = int(args.as_of * 1e9), args.head, args.revoked, args.after
        print("good:", verify(sys.stdin.buffer.read(), keys, *how))
    except Broken as error:
        sys.exit(print("BROKEN:", error) or 1)


if __name__ == "__main__":
    main()
