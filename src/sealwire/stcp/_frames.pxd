# The compiled reader of frames, for the short way that feeds it.

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    WORD_BYTES = 4
    # What a waiting message is charged beside its bytes.
    MESSAGE_OVERHEAD_BYTES = 48


cdef class FrameReader:
    # Whole messages; those before `_first` were taken.
    cdef list _queue
    cdef Py_ssize_t _first
    cdef readonly int64_t held
    cdef readonly int64_t ready
    cdef readonly int64_t limit
    cdef bytes _head
    cdef int64_t _missing
    cdef bint _is_control
    cdef list _parts
    cdef int64_t _parts_bytes

    cdef list take_in(self, const uint8_t* content, Py_ssize_t n)
    cdef bint _judge(self, uint32_t word) except -1
    cdef int _finish(self, bytes body, list controls) except -1
    cdef int _add(self, const uint8_t* part, Py_ssize_t n) except -1
    cdef int _drop_parts(self) except -1
    cdef bytes first(self)
