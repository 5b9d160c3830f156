# What datagram and stream records have in common.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport NONCE_BYTES
from sealwire.crypto._lending cimport Contexts, Keys

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


cdef class Sealer:
    cdef object __weakref__
    cdef Keys _keys
    # Somebody's while a run lasts, and nobody's between runs.
    cdef Contexts _lent
    cdef bytes _cid
    cdef const char* _cid_start
    cdef int _cid_bytes
    cdef uint8_t _first
    cdef int _tag_bytes
    cdef int _least
    cdef bint _busy
    cdef readonly uint64_t epoch
    cdef readonly int64_t sequence
    cdef public uint64_t sealed
    cdef readonly int overhead
    cdef readonly uint64_t seal_limit

    # The first of `n` numbers, which nobody else gets.
    cdef int64_t _reserve(self, int64_t n) except -1
    cdef int _seal_portion(
        self, int64_t sequence, uint8_t content_type, list messages, Py_ssize_t start, int count, list records,
        int block, int longest
    ) except -1
    # A record of each view, at `outs`, which are `overhead` and padding longer; false if libcrypto refused.
    cdef bint _seal_views(
        self, int64_t sequence, uint8_t content_type, Py_buffer* views, uint8_t** outs, int* paddings, int count
    ) noexcept nogil
    cdef bint _protect(
        self, int64_t sequence, uint8_t content_type, const uint8_t* content, int n, int padding,
        bint short_sequence, bint with_length, uint8_t* out
    ) noexcept nogil


cdef struct Found:
    # A record of a portion, where its header says it is.  dropped > 0 stands for a Discard found
    # before any cryptography; after it, for the record's fate.
    const uint8_t* start
    int header  # bytes
    int number_bytes
    int body  # bytes
    int dropped
    uint8_t* inner  # where to open it
    int content  # bytes
    uint8_t content_type
    int64_t sequence
    Py_ssize_t at  # index of its datagram
    Py_ssize_t end  # offset behind it


cdef class Opener:
    cdef object __weakref__
    cdef Keys _keys
    # Somebody's while a run lasts, and nobody's between runs.
    cdef Contexts _lent
    cdef bytes _cid
    cdef const char* _cid_start
    cdef int _cid_bytes
    cdef uint8_t _first
    cdef int _tag_bytes
    cdef bint _busy
    # Bit (number % window) says whether the number was seen, for the last `window` numbers.
    cdef uint64_t* _seen
    cdef int64_t _window
    cdef readonly uint64_t epoch
    cdef readonly int64_t highest
    cdef public uint64_t opened
    cdef public uint64_t forged
    cdef readonly uint64_t forgery_limit
    cdef readonly uint64_t overlong
    cdef public int inner_limit
    cdef public int64_t ahead
    # Portions that are opened by way of a scratch buffer, because a forgery came.
    cdef int wary

    cdef bint _open_portion(self, object datagrams, Py_ssize_t* index, Py_ssize_t* offset, list entries) except -1
    # Fill `record` from the header at `start` of a datagram that ends at `n`; the offset behind the record.
    cdef Py_ssize_t _parse(self, const uint8_t* data, Py_ssize_t start, Py_ssize_t n, Found* record) noexcept nogil
    # Open in order until one is not application data; how many were dealt with.
    cdef int _open_found(self, Found* found, int count) noexcept nogil
    cdef void _open_one(self, Found* record, const uint8_t* mask) noexcept nogil
    # Decrypt a record once its number is read: whether it is authentic.
    cdef bint _authentic(self, Found* record, const uint8_t* mask) noexcept nogil
    # 0 for a number that was never seen before, else the number of its Discard.
    cdef int _seen_before(self, int64_t sequence) noexcept nogil
    cdef int _test_and_set(self, int64_t sequence) noexcept nogil
