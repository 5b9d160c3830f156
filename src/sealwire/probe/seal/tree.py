"""The tree over a segment's leaves (RFC 9162 section 2.1): leaf hashes, root, paths.

`_tree` has hashes and root compiled; `engine` chooses.  Leaves come framed, each in a byte string,
so that hashing needs no decoding.
"""

from __future__ import annotations

import hashlib

from sealwire.probe.seal import cbor


class NotInTree(ValueError):
    """A path that leads to no root from where it is said to begin."""


def frame(leaf: bytes) -> bytes:
    """A leaf as the byte string a segment holds."""
    return cbor.head(2, len(leaf)) + leaf


def split(framed: bytes) -> list[bytes]:
    """The leaves of `framed`.  Raises ValueError where it is no run of byte strings."""
    found, at = [], 0
    while at < len(framed):
        major, length, at = cbor.read_head(framed, at)
        if major != 2 or length > len(framed) - at:
            raise ValueError("a leaf is no byte string")
        found.append(framed[at : at + length])
        at += length
    return found


def leaf_hashes(framed: bytes) -> bytes:
    """RFC 9162 section 2.1.1: 32 bytes for each leaf.  Raises ValueError for what is not framed."""
    return b"".join([hashlib.sha256(b"\0" + leaf).digest() for leaf in split(framed)])


def _nodes(hashes: bytes) -> list[bytes]:
    if len(hashes) % 32:
        raise ValueError("hashes have 32 bytes each")
    return [hashes[at : at + 32] for at in range(0, len(hashes), 32)]


def _above(level: list[bytes]) -> list[bytes]:
    """The next level: splitting at the largest power of two is the same tree as pairing neighbours."""
    pairs = zip(level[::2], level[1::2], strict=False)
    return [hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs] + level[len(level) & ~1 :]


def root(hashes: bytes) -> bytes:
    """RFC 9162 section 2.1.1: the Merkle Tree Hash over leaf hashes."""
    level = _nodes(hashes)
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(hashes: bytes, index: int) -> list[bytes]:
    """RFC 9162 section 2.1.3.1: the inclusion path of the leaf `index` of the tree over `hashes`."""
    level, found = _nodes(hashes), []
    while len(level) > 1:
        if index ^ 1 < len(level):
            found.append(level[index ^ 1])
        level = _above(level)
        index >>= 1
    return found


def root_of_path(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2: the root that `proof` leads to from a leaf.  Raises NotInTree."""
    if not 0 <= index < size:
        raise NotInTree("a proof of a leaf outside its tree")
    found = hashlib.sha256(b"\0" + leaf).digest()
    at, last = index, size - 1
    for sibling in proof:
        if last == 0:
            raise NotInTree("a proof that is too long")
        if at & 1 or at == last:
            found = hashlib.sha256(b"\1" + sibling + found).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\1" + found + sibling).digest()
        at, last = at >> 1, last >> 1
    if last:
        raise NotInTree("a proof that is too short")
    return found
