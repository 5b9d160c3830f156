# SipHash-1-3 (Aumasson and Bernstein) over whole words: the hash of the flow table.  It decides only
# in which chain a flow is kept; its key is random for each table, so nobody outside can choose
# flows that share a chain.

from libc.stdint cimport uint64_t


cdef inline uint64_t _turn(uint64_t x, int n) noexcept nogil:
    return (x << n) | (x >> (64 - n))


cdef inline uint64_t siphash(const uint64_t* key, const uint64_t* words, int n) noexcept nogil:
    cdef uint64_t a = key[0] ^ 0x736f6d6570736575ULL
    cdef uint64_t b = key[1] ^ 0x646f72616e646f6dULL
    cdef uint64_t c = key[0] ^ 0x6c7967656e657261ULL
    cdef uint64_t d = key[1] ^ 0x7465646279746573ULL
    cdef uint64_t word
    cdef int i
    for i in range(n + 4):
        if i < n:
            word = words[i]
        elif i == n:
            word = <uint64_t>(8 * n) << 56
        else:
            if i == n + 1:
                c ^= 0xFF
            word = 0
        d ^= word
        a += b
        b = _turn(b, 13) ^ a
        a = _turn(a, 32)
        c += d
        d = _turn(d, 16) ^ c
        a += d
        d = _turn(d, 21) ^ a
        c += b
        b = _turn(b, 17) ^ c
        c = _turn(c, 32)
        a ^= word
    return a ^ b ^ c ^ d
