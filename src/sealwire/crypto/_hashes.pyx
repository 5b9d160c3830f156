# cython: language_level=3, boundscheck=False, wraparound=False
"""Hashes and a MAC whose key stays, through libcrypto: what the gate pays for each hostile hello.

`_mac.pyx` gives its context another key each time; a cookie's key lives for an hour, and keeping it in a
context of its own halves the cost.  A hash is over two pieces, because a hello's four bytes of header
do not stand before it in a datagram.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memset

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport Api

from sealwire.crypto._evp import Unavailable

# OSSL_PARAM and its type for text (openssl/core.h); the layout is part of OpenSSL 3's ABI.
cdef struct Parameter:
    const char* key
    unsigned int kind
    const void* data
    size_t size
    size_t used

cdef enum:
    TEXT = 4

ctypedef void* (*Fetch)(void* library, const char* name, const char* properties) noexcept nogil
ctypedef void* (*New)(void* kind) noexcept nogil
ctypedef void (*Free)(void* context) noexcept nogil
ctypedef int (*Init)(void* context, const uint8_t* key, size_t key_n, const Parameter* parameters) noexcept nogil
ctypedef int (*Update)(void* context, const uint8_t* data, size_t n) noexcept nogil
ctypedef int (*Final)(void* context, uint8_t* out, size_t* written, size_t n) noexcept nogil
ctypedef int (*Compare)(const void* one, const void* other, size_t n) noexcept nogil

cdef const Api* _api = NULL
cdef void* _kinds[2]
cdef void* _hmac = NULL
cdef New _new = NULL
cdef Free _free = NULL
cdef Init _init = NULL
cdef Update _update = NULL
cdef Final _final = NULL
cdef Compare _compare = NULL
cdef bint _ready = False

# FIPS 180-4, the examples of its appendix; RFC 4231 section 4.3.
_ABC = (
    (32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        48,
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
        "8086072ba1e7cc2358baeca134c825a7",
    ),
)
_JEFE = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


cdef int need_hashes() except -1:
    global _api, _hmac, _new, _free, _init, _update, _final, _compare, _ready
    cdef uint8_t found[48]
    cdef bytes text = b"what do ya want for nothing?"
    cdef void* context
    if _ready:
        return 0
    _api = _evp.api()
    if _api.fetch_digest == NULL or _api.digest_new == NULL or _api.digest_init == NULL:
        raise Unavailable("libcrypto has no digests")
    _kinds[0] = _api.fetch_digest(NULL, b"SHA256", NULL)
    _kinds[1] = _api.fetch_digest(NULL, b"SHA384", NULL)
    _hmac = (<Fetch>_evp.function(b"EVP_MAC_fetch"))(NULL, b"HMAC", NULL)
    if _kinds[0] == NULL or _kinds[1] == NULL or _hmac == NULL:
        _api.clear_errors()
        raise Unavailable("libcrypto has no SHA-256, SHA-384 or HMAC")
    _new = <New>_evp.function(b"EVP_MAC_CTX_new")
    _free = <Free>_evp.function(b"EVP_MAC_CTX_free")
    _init = <Init>_evp.function(b"EVP_MAC_init")
    _update = <Update>_evp.function(b"EVP_MAC_update")
    _final = <Final>_evp.function(b"EVP_MAC_final")
    _compare = <Compare>_evp.function(b"CRYPTO_memcmp")
    # Each twice: a context must not remember what it did before.
    context = _new_hash()
    try:
        for size, answer in _ABC * 2:
            if not sha(context, size, b"a", 1, b"bc", 2, found) or found[:size] != bytes.fromhex(answer):
                raise Unavailable("libcrypto gives wrong answers for a hash")
    finally:
        release_hash(context)
    context = _new_mac(b"Jefe", 4)
    try:
        for _ in range(2):
            if not mac(context, text, len(text), found) or found[:MAC_BYTES] != bytes.fromhex(_JEFE):
                raise Unavailable("libcrypto gives wrong answers for HMAC")
    finally:
        release_mac(context)
    if not same(b"equal", b"equal", 5) or same(b"equal", b"equbl", 5):
        raise Unavailable("libcrypto's CRYPTO_memcmp is wrong")
    _ready = True
    return 0


cdef void* _new_hash() except NULL:
    cdef void* context = _api.digest_new()
    if context == NULL:
        raise MemoryError
    return context


cdef void* new_hash() except NULL:
    need_hashes()
    return _new_hash()


cdef void release_hash(void* context) noexcept:
    # NULL is allowed.
    if context != NULL:
        _api.digest_free(context)


cdef int sha(
    void* context, int size, const uint8_t* lead, size_t lead_n, const uint8_t* data, size_t n, uint8_t* out
) noexcept nogil:
    return (
        _api.digest_init(context, _kinds[size == 48], NULL) > 0
        and _api.digest_update(context, lead, lead_n) > 0
        and _api.digest_update(context, data, n) > 0
        and _api.digest_final(context, out, NULL) > 0
    )


cdef void* _new_mac(const uint8_t* key, size_t n) except NULL:
    cdef Parameter parameters[2]
    cdef void* context = _new(_hmac)
    if context == NULL:
        raise MemoryError
    memset(parameters, 0, sizeof(parameters))
    parameters[0].key = b"digest"
    parameters[0].kind = TEXT
    parameters[0].data = <const char*>b"SHA256"
    parameters[0].size = 6
    if _init(context, key, n, parameters) <= 0:
        _free(context)
        _api.clear_errors()
        raise Unavailable("libcrypto refused a key")
    return context


cdef void* new_mac(const uint8_t* key, size_t n) except NULL:
    need_hashes()
    return _new_mac(key, n)


cdef void release_mac(void* context) noexcept:
    # NULL is allowed; the key is wiped.
    if context != NULL:
        _free(context)


cdef int mac(void* context, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil:
    cdef size_t written = 0
    # Without a key the one it has stays.
    return (
        _init(context, NULL, 0, NULL) > 0
        and _update(context, data, n) > 0
        and _final(context, out, &written, MAC_BYTES) > 0
    )


cdef int same(const uint8_t* one, const uint8_t* other, size_t n) noexcept nogil:
    return _compare(one, other, n) == 0
