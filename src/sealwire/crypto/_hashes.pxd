# Hashes of hellos and the MAC of cookies, for the compiled gate; see _hashes.pyx.
# Functions answer 1 for yes, 0 for no.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

cdef enum:
    MAC_BYTES = 32

# Finds and tests what is below; raises Unavailable.
cdef int need_hashes() except -1
# A context for sha(); raises Unavailable or MemoryError.  Free it with release_hash().
cdef void* new_hash() except NULL
cdef void release_hash(void* context) noexcept
# SHA-256 or SHA-384 (`size` is 32 or 48) of `lead` and then `data`, into `out`.
cdef int sha(
    void* context, int size, const uint8_t* lead, size_t lead_n, const uint8_t* data, size_t n, uint8_t* out
) noexcept nogil
# A context that keeps `key` for mac(); raises Unavailable or MemoryError.  Free it with release_mac().
cdef void* new_mac(const uint8_t* key, size_t n) except NULL
cdef void release_mac(void* context) noexcept
# HMAC-SHA-256 of `n` bytes of `data`, MAC_BYTES into `out`.
cdef int mac(void* context, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil
# Whether `n` bytes are the same, in a time that does not tell where they differ.
cdef int same(const uint8_t* one, const uint8_t* other, size_t n) noexcept nogil
