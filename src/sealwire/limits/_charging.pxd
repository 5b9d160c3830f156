# The sums of ledgers and accounts, for compiled code that charges.

from libc.stdint cimport int64_t

cdef enum:
    PURPOSES = 9
    # As they stand in Purpose.
    REASSEMBLY = 2
    RECEIVE_QUEUE = 3
    SEND_QUEUE = 4


cdef class PrefixSums:
    cdef public int64_t limit
    cdef public int64_t held
    cdef public int64_t connections
    cdef public int64_t handshakes


cdef class LedgerSums:
    cdef public int64_t limit
    cdef public int64_t held
    cdef public int64_t peak
    cdef public int64_t _rises_at
    cdef public int64_t _falls_at
    cdef int64_t _sums[PURPOSES]
    cdef int64_t _caps[PURPOSES]


cdef class AccountSums:
    cdef public LedgerSums _ledger
    cdef public tuple _prefixes
    cdef public int64_t _connections
    cdef public int64_t _handshakes
    cdef public int64_t limit
    cdef public int64_t held
    cdef int64_t _sums[PURPOSES]

    cdef bint add(self, int purpose, int64_t n) except -1
    # As `add`, but a refusal is told to nobody: the caller does without.
    cdef bint add_quietly(self, int purpose, int64_t n) except -1
    cdef bint has_room(self, int purpose, int64_t n) except -1
    cdef bint _count(self, int purpose, int64_t n, int64_t total) except -1
    cdef int take(self, int purpose, int64_t n) except -1
