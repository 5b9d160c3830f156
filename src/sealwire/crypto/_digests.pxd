# Hashes that identify, and packets whose keys are public, for the probe; hashes of sealed events.

from libc.stdint cimport uint8_t

cdef enum:
    DIGEST_BYTES = 32

cdef enum Digest:
    SHA256 = 0
    MD5 = 1
    SHA1 = 2

# Fetches and tests what is below; raises Unavailable (MD5 is missing where only FIPS 140 is provided).
cdef int need_digests() except -1
# 32, 16 or 20 bytes to `out`.
cdef void digest(Digest kind, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil
# 32 bytes to `out`.
cdef void hmac_sha256(const uint8_t* key, int key_n, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil

# AES-128-GCM and AES-128 for many keys, one after the other; and contexts for hashes, where there are any.
cdef struct Opening:
    void* aead
    void* block
    void* mac
    void* digests[3]

cdef int start_opening(Opening* opening) except -1
cdef void end_opening(Opening* opening) noexcept
# As open() with AES_128_GCM and this key.
cdef int open_with(
    Opening* opening, const uint8_t* key, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil
# As digest() and hmac_sha256(), without a new context for each.
cdef void digest_with(Opening* opening, Digest kind, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil
cdef void hmac_with(Opening* opening, const uint8_t* key, int key_n, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil
# One block of 16 bytes.
cdef int sample_with(Opening* opening, const uint8_t* key, const uint8_t* sample, uint8_t* out) noexcept nogil

# --- for sealed events: a context that hashes one thing after another ------------------------------

# A context for sha256(); raises Unavailable or MemoryError.  Free it with release_digest().
cdef void* new_digest() except NULL
cdef void release_digest(void* context) noexcept
# SHA-256 of `n` bytes of `data`, DIGEST_BYTES into `out`.
cdef int sha256(void* context, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil
