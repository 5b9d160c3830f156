"""Verify sealed events without sealwire: only `cryptography` and the standard library.

    zstd -dc events/*.seal.zst | python verify.py probe.key.pub
    zstd -dc events/*.seal.zst | python verify.py probe.key.pub --head HASH --as-of 1750000000 --revoked KEYID

Says "good" (exit 0) or "BROKEN" with the first segment that is not as it was sealed (exit 1).  The
format is in probe/sealing.md and probe/events.cddl; no line here comes from the package.
"""

import argparse
import hashlib
import pathlib
import sys
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa, utils

GAP, KEY, CLOCK, START, STOP = 5, 6, 7, 2, 3
ELEMENTS = {1: 21, 2: 5, 3: 3, 4: 3, 5: 12, 6: 4, 7: 4}
SHA256 = hashes.SHA256()


class Broken(Exception):
    """What is wrong, said of the segment that is being read."""


def need(right, words):
    if not right:
        raise Broken(words)


def item(data, at):
    """One CBOR item of the kinds events have, in its shortest form, and where it ends."""
    need(at < len(data), "cut short")
    major, n, at = data[at] >> 5, data[at] & 31, at + 1
    if n > 23:
        need(n < 28 and major != 7, "CBOR of a kind that events do not have")
        width = 1 << n - 24
        n, at = int.from_bytes(data[at : at + width], "big"), at + width
        need(at <= len(data) and n >= 24 and (width == 1 or n >> 4 * width), "CBOR that is not the shortest")
    if major < 2:
        return (n if major == 0 else -1 - n), at
    if major < 4:
        need(n <= len(data) - at, "cut short")
        return (data[at : at + n] if major == 2 else data[at : at + n].decode()), at + n
    if major == 4 or major == 5:
        need(n <= len(data) - at, "cut short")
        parts = []
        for _ in range(n * (major - 3)):
            part, at = item(data, at)
            parts.append(part)
        return (parts if major == 4 else dict(zip(parts[::2], parts[1::2], strict=True))), at
    if major == 6:
        need(n == 18, "another tag than that of COSE_Sign1")
        return item(data, at)
    need(n in (20, 21, 22), "CBOR of a kind that events do not have")
    return {20: False, 21: True, 22: None}[n], at


def head(major, n):
    width = next(w for w in (0, 1, 2, 4, 8) if n < (24 if w == 0 else 1 << 8 * w))
    return bytes([major << 5 | (n if width == 0 else 23 + width.bit_length())]) + n.to_bytes(width, "big") * (
        width > 0
    )


def tree(nodes):
    """RFC 9162 section 2.1.1, over leaf hashes."""
    if len(nodes) == 1:
        return nodes[0]
    split = 1 << (len(nodes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree(nodes[:split]) + tree(nodes[split:])).digest()


def check(key, algorithm, signature, data):
    """RFC 9052 section 4.4; EdDSA -8, ES256 -7, PS256 -37, ML-DSA-65 -49."""
    kinds = {-8: ed25519.Ed25519PublicKey, -7: ec.EllipticCurvePublicKey, -37: rsa.RSAPublicKey}
    kinds[-49] = mldsa.MLDSA65PublicKey
    need(isinstance(key, kinds.get(algorithm, ())), "an algorithm that is not the key's")
    try:
        if algorithm == -7:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(SHA256))
        elif algorithm == -37:
            key.verify(signature, data, padding.PSS(padding.MGF1(SHA256), 32), SHA256)
        else:
            key.verify(signature, data)
    except (InvalidSignature, ValueError):
        raise Broken("the signature does not belong to these bytes") from None


def identify(key):
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(*form)).digest()


def covered(first, last, ranges):
    for begin, end in sorted(r for r in ranges if None not in r):
        first = end + 1 if begin <= first <= end else first
    return first > last


class Chain:
    def __init__(self, keys, revoked):
        self.keys, self.revoked = {identify(key): key for key in keys}, revoked
        self.last, self.hash, self.key, self.stopped, self.events = None, None, None, False, 0
        self.jumps, self.gaps, self.seen = [], [], set()

    def segment(self, data, at):
        """Judge the segment at `at`; where it ends."""
        need(data[at : at + 3] == b"\x82\xd2\x84", "no segment begins here")
        (protected, unprotected, root, signature), end = item(data, at + 1)
        signed = data[at + 1 : end]
        leaves, behind = item(data, end)
        outer, whole = item(protected, 0)
        need(set(outer) == {1, 4, 395, "sealwire"} and whole == len(protected), "a header of another kind")
        info, keyid = outer["sealwire"], outer[4]
        need(unprotected == {} and outer[395] == 1 and info[1] == 1, "a segment of another version")
        need(keyid in self.keys, "signed with a key that is not trusted here")
        tbs = (
            b"\x84\x6aSignature1" + head(2, len(protected)) + protected + b"\x40" + head(2, len(root)) + root
        )
        check(self.keys[keyid], outer[1], signature, tbs)
        need(self.key in (None, keyid), "signed with another key than the chain has reached")
        need(keyid.hex() not in self.revoked, "signed with a revoked key")
        _, probe, boot, number, first, final, previous, times, (wall, up), _, beat, counters = info.values()
        need(len(leaves) == final - first + 1, "more or fewer events than were signed")
        need(
            tree([hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]) == root,
            "the events are not those signed",
        )
        events = []
        for index, leaf in enumerate(leaves):
            event, stop = item(leaf, 0)
            right = stop == len(leaf) and event[1] == first + index
            right &= ELEMENTS.get(event[0], len(event)) == len(event)
            need(right, f"event {first + index} is not what it should be")
            events.append(event)
        ended = [event[2] for event in events if event[0] == 1]
        need(times == ([min(ended), max(ended)] if ended else None), "other times than those of the events")
        kinds, last = {event[0] for event in events}, self.last
        need(number not in self.seen, "a segment of this number was there before")
        if last is None:
            self.begin = number, previous
        else:
            need(probe == last["probe"], "another probe's segment")
            need(number > last["number"] and first > last["final"], "it comes before what precedes it")
            linked = previous == self.hash
            if (number, first) == (last["number"] + 1, last["final"] + 1):
                need(linked, "it does not continue the segment before")
            else:
                self.jumps.append(
                    (number, last["number"] + 1, last["final"] + 1, first - 1, linked, previous)
                )
            if boot != last["boot"]:
                unclean = any(event[0] == GAP and event[3] == 1 for event in events)
                need(
                    START in kinds and (self.stopped or unclean),
                    "another boot, and nothing says how the last ended",
                )
            else:
                need(not self.stopped or kinds <= {GAP, STOP}, "events behind a stop")
                step = abs(wall - last["wall"] - (up - last["up"]))
                need(
                    up >= last["up"] and (step <= 500_000_000 or CLOCK in kinds),
                    "the clock was set in silence",
                )
                need(all(counters.get(k, 0) >= v for k, v in last["counters"].items()), "counters went back")
        self.gaps += [event for event in events if event[0] == GAP]
        for event in events:
            if event[0] == KEY:
                key = serialization.load_der_public_key(event[3])
                self.keys[identify(key)], self.key = key, identify(key)
        self.key = self.key or keyid
        self.stopped, self.events = events[-1][0] == STOP, self.events + len(events)
        self.seen.add(number)
        self.hash = hashlib.sha256(signed).digest()
        self.last = {"probe": probe, "boot": boot, "number": number, "final": final}
        self.last |= {"wall": wall, "up": up, "beat": beat, "counters": counters}
        return behind

    def finish(self, now):
        """What only the end can tell.  A gap: schema, sequence, time, reason, since, until, events,
        first and last event, first and last segment, hash."""
        links = {(gap[10], gap[11]) for gap in self.gaps}
        need(self.last is not None, "nothing to verify")
        need(self.begin[0] == 0 or (self.begin[0] - 1, self.begin[1]) in links, "the beginning is missing")
        for number, segment, first, final, linked, previous in self.jumps:
            need(
                (linked or (number - 1, previous) in links)
                and covered(segment, number - 1, [(gap[9], gap[10]) for gap in self.gaps])
                and covered(first, final, [(gap[7], gap[8]) for gap in self.gaps]),
                f"events {first} to {final} are missing before segment {number}, and nothing signed says why",
            )
        late = now - self.last["wall"] > (2 * self.last["beat"] + 5) * 1_000_000_000
        need(self.stopped or not late, "the end is missing")


def verify(data, keys, now, head=None, revoked=()):
    """Judge what zstd -dc gives; the sentence that says it is good.  Raises Broken."""
    chain, at, count, hashes_seen = Chain(keys, revoked), 0, 0, set()
    try:
        while at < len(data):
            at = chain.segment(data, at)
            count += 1
            hashes_seen.add(chain.hash.hex())
        at = len(data)
        chain.finish(now)
        need(head is None or head in hashes_seen, "the segment that must be there is not")
    except (Broken, ValueError, TypeError, KeyError, IndexError, RecursionError, AttributeError) as error:
        where = f"segment {count} of the input, at byte {at}" if at < len(data) else "the whole"
        raise Broken(f"{where}: {error}") from None
    return f"{count} segments, {chain.events} events, {len(chain.gaps)} gaps"


def main():
    parser = argparse.ArgumentParser(description="Verify sealed events on standard input, unpacked.")
    parser.add_argument("key", nargs="+", help="trusted public key, PEM")
    parser.add_argument("--head", help="hash of a segment that must be there")
    parser.add_argument(
        "--as-of", type=float, default=time.time(), help="judge an open end as of then, seconds"
    )
    parser.add_argument(
        "--revoked", nargs="*", default=[], help="ids of keys that are not to be believed any more"
    )
    args = parser.parse_args()
    keys = [serialization.load_pem_public_key(pathlib.Path(name).read_bytes()) for name in args.key]
    try:
        print("good:", verify(sys.stdin.buffer.read(), keys, int(args.as_of * 1e9), args.head, args.revoked))
    except Broken as error:
        print("BROKEN:", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
