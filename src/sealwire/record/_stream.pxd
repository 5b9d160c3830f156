# Stream records for compiled code that has them sealed and opened where they lie.

from libc.stdint cimport uint8_t, uint64_t

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport NONCE_BYTES


cdef struct Run:
    # What became of a run of records: where it ended, what came out, and why it ended there.
    Py_ssize_t at  # behind the last record that was opened
    Py_ssize_t filled  # bytes of application data
    Py_ssize_t opened  # records
    Py_ssize_t messages  # records with content, of those
    uint8_t content_type  # of the last one, if that is not application data
    int content  # its bytes
    int failed  # an Alert, 0 for none
    const char* why


cdef class StreamSealer:
    cdef object __weakref__
    cdef void* _aead
    cdef _evp.Algorithm _algorithm
    cdef int _tag_bytes
    cdef uint8_t _iv[NONCE_BYTES]
    cdef bint _busy
    cdef readonly uint64_t epoch
    cdef readonly uint64_t sequence
    cdef readonly uint64_t sealed
    cdef readonly uint64_t seal_limit

    cdef bytes _seal(
        self, uint8_t content_type, const uint8_t* data, Py_ssize_t n, Py_ssize_t limit, Py_ssize_t count,
        int padding, int block, int longest
    )
    cdef bint _seal_records(
        self, uint64_t sequence, uint8_t content_type, const uint8_t* data, Py_ssize_t n, Py_ssize_t limit,
        Py_ssize_t count, int padding, int last_padding, uint8_t* out
    ) noexcept nogil
    cdef bint _seal_in_place(
        self, uint64_t sequence, Py_ssize_t n, Py_ssize_t limit, uint8_t* out
    ) noexcept nogil
    # Bytes of `n` bytes of content in records of `limit`, without padding.
    cdef Py_ssize_t sealed_bytes(self, Py_ssize_t n, Py_ssize_t limit) noexcept nogil
    # Records of application data out of the `n` bytes that `place` wrote where they belong in `out`.
    cdef int seal_placed(self, Py_ssize_t n, Py_ssize_t limit, uint8_t* out) except -1


# Copy `n` bytes to where they belong in records of `limit` from the `at`-th byte of content on.
cdef void place(
    const uint8_t* data, Py_ssize_t n, Py_ssize_t at, Py_ssize_t limit, int tag_bytes, uint8_t* out
) noexcept nogil


cdef class StreamOpener:
    cdef object __weakref__
    cdef void* _aead
    cdef _evp.Algorithm _algorithm
    cdef int _tag_bytes
    cdef uint8_t _iv[NONCE_BYTES]
    cdef bint _broken
    cdef bint _busy
    cdef readonly uint64_t epoch
    cdef readonly uint64_t sequence
    cdef readonly uint64_t opened
    cdef public int inner_limit

    # Room that `open_into` needs for the records in data[at:end]; 0 if there is none for it.
    cdef Py_ssize_t _inner_bytes(self, const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef Run _open_records(
        self, const uint8_t* data, Py_ssize_t at, Py_ssize_t end, uint8_t* out
    ) noexcept nogil
    # The same, with the GIL free if it is worth it; what failed is remembered, and to be raised by `failure`.
    cdef int open_into(
        self, const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Py_ssize_t most, uint8_t* out, Run* run
    ) except -1
    cdef object failure(self, Run* run)
    cdef tuple _open(self, const uint8_t* data, Py_ssize_t n)
