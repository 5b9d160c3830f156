# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Leaf hashes and the root of their tree, compiled; `tree` is the same in plain Python and has the words."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from sealwire.crypto._digests cimport DIGEST_BYTES, new_digest, release_digest, sha256
from sealwire.probe.seal._cbor cimport head, string

from sealwire.probe.seal import tree as twin

cdef enum:
    PREFIXED = 1 << 16


def leaf_hashes(bytes framed):
    """As tree.leaf_hashes."""
    cdef const uint8_t* begin = <const uint8_t*>PyBytes_AS_STRING(framed)
    cdef const uint8_t* end = begin + len(framed)
    cdef const uint8_t* at = begin
    cdef Py_ssize_t count = 0
    cdef uint64_t n = 0
    cdef int major = 0
    with nogil:
        while at < end:
            at = string(at, end, 2, &n)
            if at == NULL:
                break
            at += n
            count += 1
    if at == NULL:
        raise ValueError("a leaf is no byte string")
    cdef bytes hashes = PyBytes_FromStringAndSize(NULL, count * DIGEST_BYTES)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(hashes)
    cdef uint8_t prefixed[PREFIXED]
    cdef bytes whole
    cdef bint right = True
    cdef void* context = new_digest()
    try:
        at = begin
        # RFC 9162 section 2.1.1: 0x00 stands before a leaf.
        prefixed[0] = 0
        while at < end and right:
            with nogil:
                while at < end and right:
                    at = head(at, end, &major, &n)
                    if n >= PREFIXED:
                        break
                    memcpy(prefixed + 1, at, n)
                    right = sha256(context, prefixed, n + 1, out)
                    at += n
                    out += DIGEST_BYTES
                    n = 0
            if n:
                whole = b"\0" + (<const char*>at)[:n]
                right = sha256(context, <const uint8_t*>PyBytes_AS_STRING(whole), n + 1, out)
                at += n
                out += DIGEST_BYTES
    finally:
        release_digest(context)
    if not right:
        raise MemoryError
    return hashes


def root(bytes hashes):
    """As tree.root."""
    cdef Py_ssize_t n = len(hashes) // DIGEST_BYTES, i
    if len(hashes) % DIGEST_BYTES:
        raise ValueError("hashes have 32 bytes each")
    if n == 0:
        return twin.root(b"")
    cdef bytes level = PyBytes_FromStringAndSize(PyBytes_AS_STRING(hashes), len(hashes))
    cdef uint8_t* nodes = <uint8_t*>PyBytes_AS_STRING(level)
    cdef uint8_t pair[1 + 2 * DIGEST_BYTES]
    cdef bint right = True
    cdef void* context = new_digest()
    with nogil:
        # RFC 9162 section 2.1.1: 0x01 stands before two nodes.
        pair[0] = 1
        while n > 1 and right:
            for i in range(n // 2):
                memcpy(pair + 1, nodes + 2 * i * DIGEST_BYTES, 2 * DIGEST_BYTES)
                right = sha256(context, pair, 1 + 2 * DIGEST_BYTES, nodes + i * DIGEST_BYTES) and right
            if n & 1:
                memcpy(nodes + (n // 2) * DIGEST_BYTES, nodes + (n - 1) * DIGEST_BYTES, DIGEST_BYTES)
            n = (n + 1) // 2
    release_digest(context)
    if not right:
        raise MemoryError
    return level[:DIGEST_BYTES]
