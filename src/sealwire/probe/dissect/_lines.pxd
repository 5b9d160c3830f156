# Lines of text protocols: where they end.

from libc.stdint cimport uint8_t
from libc.string cimport memchr


cdef inline int line_end(const uint8_t* p, int at, int n) noexcept nogil:
    # Where the line feed is, or -1.
    cdef const uint8_t* found = <const uint8_t*>memchr(p + at, 10, n - at) if n > at else NULL
    return -1 if found == NULL else <int>(found - p)


cdef inline int without_return(const uint8_t* p, int at, int end) noexcept nogil:
    while end > at and p[end - 1] == 13:
        end -= 1
    return end
