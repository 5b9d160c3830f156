# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Openers as few bytes, compiled: what `folding_reference` describes, of the compiled openers."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport NONCE_BYTES
from sealwire.crypto._lending cimport keep
from sealwire.record._record cimport Opener

from sealwire.crypto.hkdf import Secret, TrafficKeys

cdef enum:
    # Epoch, highest number plus one, opened, forged, forgery_limit, overlong, inner_limit.
    HEAD_BYTES = 44

# An opener is made with keys; these everybody knows, and they are replaced at once.
cdef object _no_iv = Secret(bytes(NONCE_BYTES))
cdef dict _no_keys = {n: TrafficKeys(Secret(bytes(n)), _no_iv, Secret(bytes(n))) for n in (16, 32)}


cdef inline uint64_t _number(const uint8_t* at, int n) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(n):
        number = number << 8 | at[i]
    return number


cdef inline void _put(uint8_t* at, uint64_t number, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        at[i] = <uint8_t>(number >> (8 * (n - 1 - i)))


cdef inline int _key_bytes(_evp.Algorithm algorithm) noexcept nogil:
    return 32 if algorithm == _evp.AES_256_GCM or algorithm == _evp.CHACHA20_POLY1305 else 16


cdef inline bint _has(Opener opener, int64_t number) noexcept:
    cdef int64_t n = number % opener._window
    return opener._seen[n >> 6] >> (n & 63) & 1


def fold(Opener opener not None):
    """See :func:`sealwire.record.folding_reference.fold`."""
    cdef int key_n = _key_bytes(opener._keys.algorithm)
    cdef Py_ssize_t end = HEAD_BYTES + 2 * key_n + NONCE_BYTES
    cdef Py_ssize_t gaps = 0
    cdef int64_t n, above = opener.highest + 1, known = min(above, opener._window)
    cdef bytes folded
    cdef uint8_t* at
    for n in range(known):
        if not _has(opener, opener.highest - n):
            gaps = n // 8 + 1
    folded = PyBytes_FromStringAndSize(NULL, end + gaps)
    at = <uint8_t*>PyBytes_AS_STRING(folded)
    _put(at, opener.epoch, 2)
    _put(at + 2, <uint64_t>above, 8)
    _put(at + 10, opener.opened, 8)
    _put(at + 18, opener.forged, 8)
    _put(at + 26, opener.forgery_limit, 8)
    _put(at + 34, opener.overlong, 8)
    _put(at + 42, <uint64_t>opener.inner_limit, 2)
    memcpy(at + HEAD_BYTES, opener._keys.key, key_n)
    memcpy(at + HEAD_BYTES + key_n, opener._keys.sn_key, key_n)
    memcpy(at + HEAD_BYTES + 2 * key_n, opener._keys.iv, NONCE_BYTES)
    memset(at + end, 0, gaps)
    for n in range(8 * gaps if 8 * gaps < known else known):
        if not _has(opener, opener.highest - n):
            at[end + n // 8] |= <uint8_t>(1 << (n % 8))
    return folded


def unfold(provider, spec, folded, cid, int64_t window):
    """See :func:`sealwire.record.folding_reference.unfold`."""
    cdef Py_buffer view
    cdef const uint8_t* at
    cdef int64_t n, number, above
    cdef int key_n = spec.key_bytes
    cdef Py_ssize_t end = HEAD_BYTES + 2 * key_n + NONCE_BYTES
    cdef Opener opener
    PyObject_GetBuffer(folded, &view, PyBUF_SIMPLE)
    try:
        if not end <= view.len <= end + window // 8:
            raise ValueError(f"{view.len} bytes are no folded opener of {spec.name}")
        at = <const uint8_t*>view.buf
        opener = Opener(provider, spec, _no_keys[key_n], _number(at, 2), cid, window)
        keep(
            &opener._keys, opener._keys.algorithm, False, at + HEAD_BYTES, key_n, at + HEAD_BYTES + key_n,
            at + HEAD_BYTES + 2 * key_n
        )
        above = <int64_t>_number(at + 2, 8)
        opener.highest = above - 1
        opener.opened = _number(at + 10, 8)
        opener.forged = _number(at + 18, 8)
        opener.forgery_limit = _number(at + 26, 8)
        opener.overlong = _number(at + 34, 8)
        opener.inner_limit = <int>_number(at + 42, 2)
        for n in range(min(above, window)):
            if end + n // 8 >= view.len or not at[end + n // 8] >> (n % 8) & 1:
                number = (opener.highest - n) % window
                opener._seen[number >> 6] |= <uint64_t>1 << (number & 63)
    finally:
        PyBuffer_Release(&view)
    return opener
