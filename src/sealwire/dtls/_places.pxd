# Addresses and numbers for the compiled gate; see _places.pyx.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    TEXT_BYTES = 128

# Where somebody is: the text of the address, and its prefix.
cdef struct Place:
    char text[TEXT_BYTES]
    int text_n
    uint8_t prefix[16]
    int prefix_n

# As hash() of these bytes.
cdef uint64_t hash_of(const uint8_t* data, size_t n) noexcept
# As cookie.address_text and place.place_of; 0 for an address Python must judge.
cdef bint place_of_tuple(Place* place, tuple address) except -1
# The same for a struct sockaddr_in or sockaddr_in6.
cdef bint place_of_sockaddr(Place* place, const uint8_t* address) noexcept nogil

# A big-endian number of `n` bytes.
cdef inline uint64_t number(const uint8_t* at, int n) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(n):
        value = value << 8 | at[i]
    return value

# Writes one; where it ends.
cdef inline uint8_t* put_number(uint8_t* at, uint64_t value, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        at[i] = <uint8_t>(value >> 8 * (n - 1 - i))
    return at + n
