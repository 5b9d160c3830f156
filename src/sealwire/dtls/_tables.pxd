# The gate's fixed tables, used from C; see _tables.pyx.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from sealwire.dtls._places cimport Place

cdef enum:
    RANGES = 8

cdef class Slab:
    cdef uint8_t[::1] data
    cdef uint64_t[::1] tag
    cdef double[::1] stamp
    cdef uint16_t[::1] length
    cdef unsigned long[::1] received
    cdef uint64_t[::1] record
    cdef uint16_t[::1] ranges
    cdef bytes key
    cdef object provider
    cdef size_t size
    cdef uint64_t buckets
    cdef double seconds

    cdef uint64_t tag_of(self, int seq, const Place* place) noexcept
    cdef int64_t occupied(self, uint64_t tag) noexcept
    cdef int64_t find(self, uint64_t tag, double now) except -2
    cdef void take(self, size_t slot, uint64_t tag, size_t length, double now) noexcept
    cdef bint mark(self, size_t slot, size_t offset, const uint8_t* data, size_t n) noexcept
    # 0: no room, or it contradicts; 1: kept; 2: the hello is whole, in the slot `where`.
    cdef int put(
        self, uint64_t tag, size_t length, size_t offset, const uint8_t* data, size_t n,
        uint64_t record, size_t datagram_bytes, double now, int64_t* where
    ) except -1
    # Moves the pieces of a hello to the slab of proved addresses.
    cdef int move(self, Slab to, int seq, size_t length, uint64_t record, const Place* place, double now) except -1

cdef class Strangers:
    cdef double[::1] times
    cdef uint64_t[::1] counts
    cdef unsigned int[::1] rows
    cdef uint8_t[::1] bits
    cdef bytes salt
    cdef uint64_t replies_limit, repeats_limit, bytes_limit, prefix_limit

    cdef bint loaded(self, double now) noexcept
    cdef void answered(self, uint64_t n) noexcept
    cdef bint may_alert(self, double now) noexcept
    cdef bint admits(self, const Place* place, double now) noexcept
    cdef void turn(self, double now) noexcept
    cdef bint asked_before(self, const uint64_t* marks, double now) noexcept
    cdef bint has(self, const uint64_t* marks, int which) noexcept
    cdef void set(self, const uint64_t* marks, int which) noexcept
