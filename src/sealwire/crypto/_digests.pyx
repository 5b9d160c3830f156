# cython: language_level=3, boundscheck=False, wraparound=False
"""Hashes, HMAC, and AES-128-GCM under keys that change with every packet, on the libcrypto of `_evp`.

For the probe, whose digests identify and whose keys are public, and for sealed events.  What is fetched
is kept for good, and tested before anything relies on it.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from sealwire.crypto._evp cimport AES_128_GCM, CHARACTERS, Api, Param, api, mask, new_aead, new_mask, open, release
from sealwire.crypto._evp import Unavailable

cdef const Api* _api = NULL
cdef void* _digests[3]
cdef bint _digests_ready = False
cdef void* _sha256 = NULL

# SHA-256, MD5 and SHA-1 of "abc": FIPS 180-4 example, RFC 1321 appendix A.5; HMAC: RFC 4231 section 4.3.
_ABC = (
    (SHA256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (MD5, "900150983cd24fb0d6963f7d28e17f72"),
    (SHA1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
)
_JEFE = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


cdef int need_digests() except -1:
    global _api, _digests_ready
    cdef uint8_t out[32]
    cdef bytes text = b"what do ya want for nothing?"
    if _digests_ready:
        return 0
    _api = api()
    if _api.fetch_digest == NULL or _api.digest == NULL or _api.hmac == NULL:
        raise Unavailable("libcrypto lacks EVP_MD_fetch, EVP_Digest or HMAC")
    for kind, name in ((SHA256, b"SHA256"), (MD5, b"MD5"), (SHA1, b"SHA1")):
        _digests[<int>kind] = _api.fetch_digest(NULL, name, NULL)
        if _digests[<int>kind] == NULL:
            _api.clear_errors()
            raise Unavailable(f"libcrypto has no {name.decode()}")
    for kind, answer in _ABC:
        digest(kind, b"abc", 3, out)
        if out[: len(answer) // 2] != bytes.fromhex(answer):
            raise Unavailable("libcrypto gives wrong answers for a digest")
    hmac_sha256(b"Jefe", 4, text, len(text), out)
    if out[:32] != bytes.fromhex(_JEFE):
        raise Unavailable("libcrypto gives wrong answers for HMAC")
    _digests_ready = True
    return 0


cdef void digest(Digest kind, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil:
    cdef unsigned int size = 0
    if _api.digest(data, n, out, &size, _digests[<int>kind], NULL) <= 0:
        memset(out, 0, 16 if kind == MD5 else 20 if kind == SHA1 else 32)
        _api.clear_errors()


cdef void hmac_sha256(const uint8_t* key, int key_n, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil:
    cdef unsigned int size = 0
    if _api.hmac(_digests[<int>SHA256], key, key_n, data, n, out, &size) == NULL:
        memset(out, 0, 32)
        _api.clear_errors()


cdef int start_opening(Opening* opening) except -1:
    cdef uint8_t key[16]
    memset(key, 0, 16)
    memset(opening, 0, sizeof(Opening))
    opening.aead = new_aead(AES_128_GCM, key, False)
    opening.block = new_mask(AES_128_GCM, key)
    need_digests()
    if _api.digest_new != NULL and _api.digest_free != NULL and _api.digest_final != NULL:
        if _api.digest_init != NULL and _api.digest_update != NULL:
            for kind in range(3):
                opening.digests[<int>kind] = _api.digest_new()
    opening.mac = _new_mac()
    return 0


cdef void* _new_mac() noexcept:
    # A context of HMAC with SHA-256; NULL where one call for each has to do.
    cdef Param params[2]
    cdef uint8_t key[32]
    cdef void* kind
    cdef void* context
    if _api.mac_fetch == NULL or _api.mac_new == NULL or _api.mac_free == NULL or _api.mac_init == NULL:
        return NULL
    if _api.mac_update == NULL or _api.mac_final == NULL:
        return NULL
    kind = _api.mac_fetch(NULL, b"HMAC", NULL)
    if kind == NULL:
        _api.clear_errors()
        return NULL
    # The algorithm is fetched once and kept for good, as the digests are.
    context = _api.mac_new(kind)
    memset(params, 0, sizeof(params))
    memset(key, 0, sizeof(key))
    params[0].key, params[0].kind = b"digest", CHARACTERS
    params[0].data, params[0].size = <void*><char*>b"SHA256", 6
    if context != NULL and _api.mac_init(context, key, sizeof(key), params) <= 0:
        _api.mac_free(context)
        _api.clear_errors()
        return NULL
    return context


cdef void end_opening(Opening* opening) noexcept:
    release(opening.aead)
    release(opening.block)
    if opening.mac != NULL:
        _api.mac_free(opening.mac)
    for kind in range(3):
        if opening.digests[<int>kind] != NULL:
            _api.digest_free(opening.digests[<int>kind])
    memset(opening, 0, sizeof(Opening))


cdef void digest_with(Opening* opening, Digest kind, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil:
    cdef void* context = opening.digests[<int>kind]
    if context == NULL or _api.digest_init(context, _digests[<int>kind], NULL) <= 0 or (
        _api.digest_update(context, data, n) <= 0 or _api.digest_final(context, out, NULL) <= 0
    ):
        digest(kind, data, n, out)


cdef void hmac_with(Opening* opening, const uint8_t* key, int key_n, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil:
    cdef size_t written = 0
    if opening.mac == NULL or _api.mac_init(opening.mac, key, key_n, NULL) <= 0 or (
        _api.mac_update(opening.mac, data, n) <= 0 or _api.mac_final(opening.mac, out, &written, 32) <= 0
    ):
        hmac_sha256(key, key_n, data, n, out)


cdef int open_with(
    Opening* opening, const uint8_t* key, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil:
    if _api.decrypt_init(opening.aead, NULL, key, NULL, NULL) <= 0:
        _api.clear_errors()
        return 0
    return open(opening.aead, AES_128_GCM, nonce, aad, aad_n, data, n, out)


cdef int sample_with(Opening* opening, const uint8_t* key, const uint8_t* sample, uint8_t* out) noexcept nogil:
    if _api.encrypt_init(opening.block, NULL, key, NULL, NULL) <= 0:
        _api.clear_errors()
        return 0
    return mask(opening.block, AES_128_GCM, sample, 1, out)


# --- for sealed events: a context that hashes one thing after another ------------------------------

cdef void* new_digest() except NULL:
    global _api, _sha256
    cdef void* context
    cdef uint8_t found[DIGEST_BYTES]
    _api = api()
    if _sha256 == NULL:
        if (
            _api.fetch_digest == NULL
            or _api.digest_new == NULL
            or _api.digest_free == NULL
            or _api.digest_init == NULL
            or _api.digest_update == NULL
            or _api.digest_final == NULL
        ):
            raise Unavailable("libcrypto has no digests")
        _sha256 = _api.fetch_digest(NULL, b"SHA256", NULL)
        if _sha256 == NULL:
            _api.clear_errors()
            raise Unavailable("libcrypto has no SHA-256")
    context = _api.digest_new()
    if context == NULL:
        raise MemoryError
    if not sha256(context, b"abc", 3, found) or found[:DIGEST_BYTES] != _SHA256_OF_ABC:
        _api.digest_free(context)
        raise Unavailable("libcrypto gives wrong answers for SHA-256")
    return context


cdef void release_digest(void* context) noexcept:
    if context != NULL:
        _api.digest_free(context)


cdef int sha256(void* context, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil:
    return (
        _api.digest_init(context, _sha256, NULL) > 0
        and _api.digest_update(context, data, n) > 0
        and _api.digest_final(context, out, NULL) > 0
    )


# FIPS 180-4, the example of its appendix.
_SHA256_OF_ABC = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
