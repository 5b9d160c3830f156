# Heads of deterministic CBOR (RFC 8949 section 4.2.1), written and read; shared by the compiled writers of leaves.

from libc.stdint cimport uint8_t, uint64_t


cdef inline uint8_t* put(uint8_t* out, uint8_t major, uint64_t n) noexcept nogil:
    """The shortest head."""
    cdef int width, i
    major <<= 5
    if n < 24:
        out[0] = major | <uint8_t>n
        return out + 1
    if n < 0x100:
        out[0], width = major | 24, 1
    elif n < 0x10000:
        out[0], width = major | 25, 2
    elif n >> 32 == 0:
        out[0], width = major | 26, 4
    else:
        out[0], width = major | 27, 8
    for i in range(width):
        out[1 + i] = <uint8_t>(n >> (8 * (width - 1 - i)))
    return out + 1 + width


cdef inline const uint8_t* head(const uint8_t* at, const uint8_t* end, int* major, uint64_t* n) noexcept nogil:
    """Behind the head at `at`; NULL if it is cut, not the shortest or of a kind events do not have."""
    cdef int more, width, i
    if at == NULL or at >= end:
        return NULL
    major[0], more = at[0] >> 5, at[0] & 31
    at += 1
    if more < 24:
        n[0] = more
        return at
    if more > 27 or major[0] == 7:
        return NULL
    width = 1 << (more - 24)
    if end - at < width:
        return NULL
    n[0] = 0
    for i in range(width):
        n[0] = n[0] << 8 | at[i]
    if n[0] < 24 or (width > 1 and n[0] >> (4 * width) == 0):
        return NULL
    return at + width


cdef inline const uint8_t* number(const uint8_t* at, const uint8_t* end, uint64_t most, uint64_t* n) noexcept nogil:
    """Behind the unsigned number at `at`; NULL if there is none of at most `most`."""
    cdef int major = 0
    at = head(at, end, &major, n)
    if at == NULL or major != 0 or n[0] > most:
        return NULL
    return at


cdef inline const uint8_t* string(const uint8_t* at, const uint8_t* end, int kind, uint64_t* n) noexcept nogil:
    """Where the string of that major type at `at` begins, and its length; NULL if none is all there."""
    cdef int major = 0
    at = head(at, end, &major, n)
    if at == NULL or major != kind or n[0] > <uint64_t>(end - at):
        return NULL
    return at
