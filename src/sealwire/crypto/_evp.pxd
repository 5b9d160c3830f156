# What the compiled record layer may call.  Sizes are bytes; functions answer 1 for yes, 0 for no.

from libc.stdint cimport uint8_t

# The functions of libcrypto, as found at run time.  Contexts and ciphers are opaque.
ctypedef struct Api:
    unsigned long (*version_number)() noexcept nogil
    const char* (*version_text)(int) noexcept nogil
    void (*clear_errors)() noexcept nogil
    void* (*fetch)(void* library, const char* name, const char* properties) noexcept nogil
    void* (*new_context)() noexcept nogil
    void (*free_context)(void* context) noexcept nogil
    int (*control)(void* context, int command, int n, void* data) noexcept nogil
    int (*set_padding)(void* context, int padding) noexcept nogil
    int (*encrypt_init)(void* context, void* cipher, const uint8_t* key, const uint8_t* iv, const void* params) noexcept nogil
    int (*encrypt_update)(void* context, uint8_t* out, int* written, const uint8_t* data, int n) noexcept nogil
    int (*encrypt_final)(void* context, uint8_t* out, int* written) noexcept nogil
    int (*decrypt_init)(void* context, void* cipher, const uint8_t* key, const uint8_t* iv, const void* params) noexcept nogil
    int (*decrypt_update)(void* context, uint8_t* out, int* written, const uint8_t* data, int n) noexcept nogil
    int (*decrypt_final)(void* context, uint8_t* out, int* written) noexcept nogil

# The suites' algorithms.  Each is an AEAD and the cipher that masks record numbers beside it.
cdef enum Algorithm:
    AES_128_GCM = 0
    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2
    AES_128_CCM = 3
    AES_128_CCM_8 = 4

cdef enum:
    ALGORITHMS = 5
    NONCE_BYTES = 12
    SAMPLE_BYTES = 16

# Bytes of the tag behind what `algorithm` seals.
cdef inline int tag_bytes(Algorithm algorithm) noexcept nogil:
    return 8 if algorithm == AES_128_CCM_8 else 16

# The loaded and tested functions; raises Unavailable.
cdef const Api* api() except NULL

# A context that keeps `key`; raises Unavailable or MemoryError.  Free it with release().
cdef void* new_aead(Algorithm algorithm, const uint8_t* key, bint sealing) except NULL
cdef void* new_mask(Algorithm algorithm, const uint8_t* key) except NULL
cdef void release(void* context) noexcept

# Seals n > 0 bytes of `data` into n + tag_bytes() of `out`, which may be where `data` is.
cdef int seal(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil
# Opens n >= tag_bytes() bytes of `data` into that much less of `out`, whose content means nothing on 0.
cdef int open(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil
# RFC 9147 section 4.2.3: `count` samples to as many masks, SAMPLE_BYTES apart, 2 bytes used of each.
cdef int mask(void* context, Algorithm algorithm, const uint8_t* samples, int count, uint8_t* out) noexcept nogil
