# What datagram and stream records have in common.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport NONCE_BYTES

cdef enum:
    APPLICATION_DATA = 23
    MAX_CONTENT_BYTES = 16384
    MAX_INNER_BYTES = 16385  # content and type
    STREAM_HEADER_BYTES = 5
    # Below this many bytes (some 5 us of work) giving the GIL away costs more than it allows.
    RELEASE_BYTES = 8192

cdef _evp.Algorithm algorithm_of(object spec) except *
# `key` as bytes; ValueError unless there are `n` of them.
cdef bytes checked(object key, object n, str what)
# ValueError unless a record can hold this.
cdef int check(long content_type, Py_ssize_t n, Py_ssize_t padding) except -1


cdef inline void make_nonce(const uint8_t* iv, uint64_t sequence, uint8_t* nonce) noexcept nogil:
    # RFC 8446 section 5.3: the number, padded on the left, over the IV; no epoch in it.
    cdef int n
    memcpy(nonce, iv, NONCE_BYTES)
    for n in range(8):
        nonce[NONCE_BYTES - 1 - n] ^= <uint8_t>(sequence >> (8 * n))


cdef inline int content_bytes(const uint8_t* inner, int n) noexcept nogil:
    # Offset of the type behind content of that length, -1 if there are only zeros.
    n -= 1
    while n >= 0 and inner[n] == 0:
        n -= 1
    return n


cdef inline int enter(bint busy) except -1:
    if busy:
        raise RuntimeError("records of one epoch and direction are in work in another thread")
    return 0
