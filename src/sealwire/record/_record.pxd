# What datagram and stream records have in common.

from libc.stdint cimport int64_t, uint8_t, uint64_t
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
    # Records of one portion: enough to make the mask call and the GIL's release disappear, few enough
    # that its tables fit on the stack.
    PORTION = 64
    PORTION_BYTES = 98304  # a portion also ends behind this many bytes: its scratch buffer stays small

cdef _evp.Algorithm algorithm_of(object spec) except *
# Where `key`, a bytes object, has its `n` bytes; ValueError unless there are so many.
cdef const uint8_t* checked(object key, object n, str what) except NULL
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


cdef inline int block_padding(int n, int block, int longest) noexcept nogil:
    # As in `reference`.
    cdef int inner = n + 1
    cdef int filled
    if block < 2:
        return 0
    filled = (inner + block - 1) // block * block
    if filled > longest:
        filled = longest
    return filled - inner if filled > inner else 0


cdef inline int enter(bint busy) except -1:
    if busy:
        raise RuntimeError("records of one epoch and direction are in work in another thread")
    return 0


cdef inline void _apply_mask(uint8_t* number, const uint8_t* mask, int n) noexcept nogil:
    # RFC 9147 section 4.2.3 [9147-4.2.3-1]: the first bytes of the mask over the number.
    number[0] ^= mask[0]
    if n == 2:
        number[1] ^= mask[1]


cdef inline int64_t max_sequence() noexcept nogil:
    return (<int64_t>1 << 48) - 1


cdef inline int64_t _reconstruct(int64_t low, int bits, int64_t highest) noexcept nogil:
    # RFC 9147 section 4.2.2 [9147-4.2.2-2]: closest to one plus the highest number opened, never
    # negative, never above MAX_SEQUENCE.
    cdef int64_t expected = highest + 1
    cdef int64_t span = <int64_t>1 << bits
    cdef int64_t number = (expected & ~(span - 1)) | low
    if number + span // 2 < expected and number + span <= max_sequence():
        return number + span
    if number > max_sequence() or (number > expected + span // 2 and number >= span):
        return number - span
    return number
