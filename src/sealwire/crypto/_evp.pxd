# What the compiled record layer and the probe may call.  Sizes are bytes; functions answer 1 for yes, 0 for no.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

# The functions of libcrypto, as found at run time.  Contexts and ciphers are opaque.
ctypedef struct Api:
    unsigned long (*version_number)() noexcept nogil
    const char* (*version_text)(int) noexcept nogil
    void (*clear_errors)() noexcept nogil
    void (*cleanse)(void* start, size_t n) noexcept nogil
    void* (*fetch)(void* library, const char* name, const char* properties) noexcept nogil
    void* (*new_context)() noexcept nogil
    void (*free_context)(void* context) noexcept nogil
    int (*control)(void* context, int command, int n, void* data) noexcept nogil
    int (*set_parameters)(void* context, const void* params) noexcept nogil
    int (*get_parameters)(void* context, void* params) noexcept nogil
    int (*set_padding)(void* context, int padding) noexcept nogil
    int (*encrypt_init)(void* context, void* cipher, const uint8_t* key, const uint8_t* iv, const void* params) noexcept nogil
    int (*encrypt_update)(void* context, uint8_t* out, int* written, const uint8_t* data, int n) noexcept nogil
    int (*encrypt_final)(void* context, uint8_t* out, int* written) noexcept nogil
    int (*decrypt_init)(void* context, void* cipher, const uint8_t* key, const uint8_t* iv, const void* params) noexcept nogil
    int (*decrypt_update)(void* context, uint8_t* out, int* written, const uint8_t* data, int n) noexcept nogil
    int (*decrypt_final)(void* context, uint8_t* out, int* written) noexcept nogil
    void* (*fetch_digest)(void* library, const char* name, const char* properties) noexcept nogil
    int (*digest)(const void* data, size_t n, uint8_t* out, unsigned int* size, const void* kind, void* engine) noexcept nogil
    uint8_t* (*hmac)(const void* kind, const void* key, int key_n, const uint8_t* data, size_t n, uint8_t* out, unsigned int* size) noexcept nogil
    void* (*mac_fetch)(void* library, const char* name, const char* properties) noexcept nogil
    void* (*mac_new)(void* mac) noexcept nogil
    void (*mac_free)(void* context) noexcept nogil
    int (*mac_init)(void* context, const uint8_t* key, size_t n, const void* params) noexcept nogil
    int (*mac_update)(void* context, const uint8_t* data, size_t n) noexcept nogil
    int (*mac_final)(void* context, uint8_t* out, size_t* written, size_t room) noexcept nogil
    void* (*digest_new)() noexcept nogil
    void (*digest_free)(void* context) noexcept nogil
    int (*digest_init)(void* context, const void* digest, const void* params) noexcept nogil
    int (*digest_update)(void* context, const void* data, size_t n) noexcept nogil
    int (*digest_final)(void* context, uint8_t* out, unsigned int* written) noexcept nogil

# core.h: OSSL_PARAM, and the kinds of its data.
cdef struct Param:
    const char* key
    unsigned int kind
    void* data
    size_t size
    size_t written

cdef enum:
    CHARACTERS = 4
    BYTES = 5

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

# Another function of the same library, for modules with a table of their own; raises Unavailable.
cdef void* function(const char* name) except NULL

# A context that keeps `key`; raises Unavailable or MemoryError.  Free it with release().
cdef void* new_aead(Algorithm algorithm, const uint8_t* key, bint sealing) except NULL
cdef void* new_mask(Algorithm algorithm, const uint8_t* key) except NULL
cdef void release(void* context) noexcept
# Other keys for both contexts of a direction; raises Unavailable, and then neither can be used.
cdef int rekey(void* aead, void* mask, const uint8_t* key, const uint8_t* sn_key, bint sealing) except -1
cdef void cleanse(void* start, size_t n) noexcept

# Seals n > 0 bytes of `data` into n + tag_bytes() of `out`, which may be where `data` is.
cdef int seal(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil
# As seal() of `data`, which is elsewhere, and of `tail_n` > 0 bytes that lie behind its place in `out` already.
cdef int seal_with_tail(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, int tail_n, uint8_t* out
) noexcept nogil
# Opens n >= tag_bytes() bytes of `data` into that much less of `out`, whose content means nothing on 0.
cdef int open(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil
# RFC 9147 section 4.2.3: `count` samples to as many masks, SAMPLE_BYTES apart, 2 bytes used of each.
cdef int mask(void* context, Algorithm algorithm, const uint8_t* samples, int count, uint8_t* out) noexcept nogil
