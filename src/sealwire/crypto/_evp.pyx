# cython: language_level=3, boundscheck=False, wraparound=False
"""libcrypto's EVP functions, found at run time: the only module that knows them.

No header and no library is needed to build this.  At first use the functions are looked up behind
the interpreter's own `_ssl`, so that one process has one libcrypto; then in a libcrypto that is
loaded already; then in the system's.  Only functions that every OpenSSL since 3.0 has are used.
Ciphers are fetched once.  Before anything relies on them, each must give the published answers,
through the same functions that protect records; a library that does not is refused.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

import sys

from sealwire.crypto.answers import KNOWN_ANSWERS

cdef extern from "<dlfcn.h>" nogil:
    ctypedef struct Dl_info:
        const char* dli_fname
    int RTLD_NOW, RTLD_LOCAL, RTLD_NOLOAD
    void* dlopen(const char* path, int flags)
    void* dlsym(void* handle, const char* name)
    int dlclose(void* handle)
    int dladdr(const void* address, Dl_info* info)


class Unavailable(Exception):
    """No libcrypto here can be used; the text says why."""


# EVP_CTRL_AEAD_SET_IVLEN, EVP_CTRL_AEAD_GET_TAG and EVP_CTRL_AEAD_SET_TAG.
cdef enum:
    SET_IVLEN = 0x09
    GET_TAG = 0x10
    SET_TAG = 0x11

cdef Api _api
# Stays open for the life of the process, and the functions with it.
cdef void* _library = NULL
cdef void* _aead_ciphers[ALGORITHMS]
cdef void* _mask_ciphers[ALGORITHMS]
cdef void* _digests[3]
cdef bint _digests_ready = False
cdef void* _sha256 = NULL
cdef bint _ready = False
_description = ""
_reason = ""

# What a system's loader calls an OpenSSL that this module knows how to use.
_LIBRARY_NAMES = ("libcrypto.3.dylib",) if sys.platform == "darwin" else ("libcrypto.so.3", "libcrypto.so.4")


def describe() -> str:
    """Version and path of the libcrypto in use, in one line.

    Raises:
        Unavailable: there is none.
    """
    api()
    return _description


cdef const Api* api() except NULL:
    if not _ready:
        _load()
    return &_api


cdef void* function(const char* name) except NULL:
    api()
    cdef void* found = dlsym(_library, name)
    if found == NULL:
        raise Unavailable(f"libcrypto lacks {name.decode()}")
    return found


cdef int _load() except -1:
    """Try the places in order; the first library that is usable and passes the self-test stays."""
    global _ready, _description, _reason, _library
    cdef void* handle
    if _reason:  # asked before; libraries do not appear while a process runs
        raise Unavailable(_reason)
    refusals = []
    for path, flags in _places():
        handle = dlopen(path, flags)
        if handle == NULL:
            continue
        refusal = _take(handle)
        if not refusal:
            _library = handle
            _ready = True
            return 0
        if refusal not in refusals:
            refusals.append(refusal)
        dlclose(handle)
    _reason = "; ".join(refusals) or "no libcrypto of OpenSSL 3.0 or newer was found"
    raise Unavailable(_reason)


def _places():
    """Paths for dlopen, with its flags, in order of preference."""
    try:
        import _ssl
    except ImportError:
        path = None
    else:
        path = getattr(_ssl, "__file__", None)  # built into some interpreters
    if path:
        # A look-up in this handle also searches the libraries `_ssl` was linked with.
        yield path.encode(sys.getfilesystemencoding()), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD
    for name in _LIBRARY_NAMES:
        yield name.encode(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD
    for name in _LIBRARY_NAMES:
        yield name.encode(), RTLD_NOW | RTLD_LOCAL


cdef str _take(void* handle):
    """Fill the tables from `handle`; "" if it can be used, else why not."""
    global _description
    cdef Dl_info info
    _api.version_number = <unsigned long (*)() noexcept nogil>dlsym(handle, b"OpenSSL_version_num")
    if _api.version_number == NULL:
        return "the interpreter's _ssl shows no libcrypto"
    _api.version_text = <const char* (*)(int) noexcept nogil>dlsym(handle, b"OpenSSL_version")
    _api.clear_errors = <void (*)() noexcept nogil>dlsym(handle, b"ERR_clear_error")
    _api.cleanse = <void (*)(void*, size_t) noexcept nogil>dlsym(handle, b"OPENSSL_cleanse")
    _api.fetch = <void* (*)(void*, const char*, const char*) noexcept nogil>dlsym(handle, b"EVP_CIPHER_fetch")
    _api.new_context = <void* (*)() noexcept nogil>dlsym(handle, b"EVP_CIPHER_CTX_new")
    _api.free_context = <void (*)(void*) noexcept nogil>dlsym(handle, b"EVP_CIPHER_CTX_free")
    _api.control = <int (*)(void*, int, int, void*) noexcept nogil>dlsym(handle, b"EVP_CIPHER_CTX_ctrl")
    _api.set_padding = <int (*)(void*, int) noexcept nogil>dlsym(handle, b"EVP_CIPHER_CTX_set_padding")
    _api.encrypt_init = <int (*)(
        void*, void*, const uint8_t*, const uint8_t*, const void*
    ) noexcept nogil>dlsym(handle, b"EVP_EncryptInit_ex2")
    _api.encrypt_update = <int (*)(
        void*, uint8_t*, int*, const uint8_t*, int
    ) noexcept nogil>dlsym(handle, b"EVP_EncryptUpdate")
    _api.encrypt_final = <int (*)(void*, uint8_t*, int*) noexcept nogil>dlsym(handle, b"EVP_EncryptFinal_ex")
    _api.decrypt_init = <int (*)(
        void*, void*, const uint8_t*, const uint8_t*, const void*
    ) noexcept nogil>dlsym(handle, b"EVP_DecryptInit_ex2")
    _api.decrypt_update = <int (*)(
        void*, uint8_t*, int*, const uint8_t*, int
    ) noexcept nogil>dlsym(handle, b"EVP_DecryptUpdate")
    _api.decrypt_final = <int (*)(void*, uint8_t*, int*) noexcept nogil>dlsym(handle, b"EVP_DecryptFinal_ex")

    # Only the probe uses these; need_digests() says if they are missing.
    _api.digest_new = <void* (*)() noexcept nogil>dlsym(handle, b"EVP_MD_CTX_new")
    _api.digest_free = <void (*)(void*) noexcept nogil>dlsym(handle, b"EVP_MD_CTX_free")
    _api.digest_init = <int (*)(void*, const void*, const void*) noexcept nogil>dlsym(handle, b"EVP_DigestInit_ex2")
    _api.digest_update = <int (*)(void*, const void*, size_t) noexcept nogil>dlsym(handle, b"EVP_DigestUpdate")
    _api.digest_final = <int (*)(
        void*, uint8_t*, unsigned int*
    ) noexcept nogil>dlsym(handle, b"EVP_DigestFinal_ex")
    _api.fetch_digest = <void* (*)(void*, const char*, const char*) noexcept nogil>dlsym(handle, b"EVP_MD_fetch")
    _api.digest = <int (*)(
        const void*, size_t, uint8_t*, unsigned int*, const void*, void*
    ) noexcept nogil>dlsym(handle, b"EVP_Digest")
    _api.mac_fetch = <void* (*)(void*, const char*, const char*) noexcept nogil>dlsym(handle, b"EVP_MAC_fetch")
    _api.mac_new = <void* (*)(void*) noexcept nogil>dlsym(handle, b"EVP_MAC_CTX_new")
    _api.mac_free = <void (*)(void*) noexcept nogil>dlsym(handle, b"EVP_MAC_CTX_free")
    _api.mac_init = <int (*)(void*, const uint8_t*, size_t, const void*) noexcept nogil>dlsym(handle, b"EVP_MAC_init")
    _api.mac_update = <int (*)(void*, const uint8_t*, size_t) noexcept nogil>dlsym(handle, b"EVP_MAC_update")
    _api.mac_final = <int (*)(void*, uint8_t*, size_t*, size_t) noexcept nogil>dlsym(handle, b"EVP_MAC_final")
    _api.hmac = <uint8_t* (*)(
        const void*, const void*, int, const uint8_t*, size_t, uint8_t*, unsigned int*
    ) noexcept nogil>dlsym(handle, b"HMAC")

    text = "libcrypto"
    if _api.version_text != NULL:
        text = _api.version_text(0).decode("ascii", "replace")
    # OpenSSL 3.0.0 calls itself 0x30000000; its relatives claim to be something older.
    if _api.version_number() < 0x30000000 or (
        _api.version_text == NULL
        or _api.clear_errors == NULL or _api.cleanse == NULL or _api.fetch == NULL
        or _api.new_context == NULL or _api.free_context == NULL
        or _api.control == NULL or _api.set_padding == NULL
        or _api.encrypt_init == NULL or _api.encrypt_update == NULL or _api.encrypt_final == NULL
        or _api.decrypt_init == NULL or _api.decrypt_update == NULL or _api.decrypt_final == NULL
    ):
        return f"{text} is not OpenSSL 3.0 or newer"

    names = (
        (b"AES-128-GCM", b"AES-128-ECB"),
        (b"AES-256-GCM", b"AES-256-ECB"),
        (b"ChaCha20-Poly1305", b"ChaCha20"),
        (b"AES-128-CCM", b"AES-128-ECB"),
        (b"AES-128-CCM", b"AES-128-ECB"),
    )
    for n, (aead, mask_name) in enumerate(names):
        _aead_ciphers[n] = _api.fetch(NULL, aead, NULL)
        _mask_ciphers[n] = _api.fetch(NULL, mask_name, NULL)
        if _aead_ciphers[n] == NULL or _mask_ciphers[n] == NULL:
            _api.clear_errors()
            return f"{text} has no {aead.decode()}"
    failed = failed_answers()
    if failed:
        return f"{text} gives wrong answers for {', '.join(failed)}"
    path = "unknown path"
    if dladdr(<const void*>_api.fetch, &info) and info.dli_fname != NULL:
        path = (<bytes>info.dli_fname).decode(sys.getfilesystemencoding(), "replace")
    _description = f"{text}, {path}"
    return ""


cdef void* _new(void* cipher, const uint8_t* key, bint sealing) except NULL:
    cdef void* context = _api.new_context()
    if context == NULL:
        raise MemoryError
    if (_api.encrypt_init if sealing else _api.decrypt_init)(context, cipher, key, NULL, NULL) <= 0:
        _api.free_context(context)
        _api.clear_errors()
        raise Unavailable("libcrypto refused a key")
    return context


cdef inline bint _is_ccm(Algorithm algorithm) noexcept nogil:
    return algorithm == AES_128_CCM or algorithm == AES_128_CCM_8


cdef void* _new_aead(Algorithm algorithm, const uint8_t* key, bint sealing) except NULL:
    # Nonces of 12 bytes and tags of 16 are the defaults of these ciphers, except of CCM, which
    # wants to know both before it has a key.
    cdef void* context
    if not _is_ccm(algorithm):
        return _new(_aead_ciphers[<int>algorithm], key, sealing)
    context = _new(_aead_ciphers[<int>algorithm], NULL, sealing)
    if (
        _api.control(context, SET_IVLEN, NONCE_BYTES, NULL) <= 0
        or _api.control(context, SET_TAG, tag_bytes(algorithm), NULL) <= 0
        or (_api.encrypt_init if sealing else _api.decrypt_init)(context, NULL, key, NULL, NULL) <= 0
    ):
        _api.free_context(context)
        _api.clear_errors()
        raise Unavailable("libcrypto refused a key")
    return context


cdef void* new_aead(Algorithm algorithm, const uint8_t* key, bint sealing) except NULL:
    api()
    return _new_aead(algorithm, key, sealing)


cdef void* new_mask(Algorithm algorithm, const uint8_t* key) except NULL:
    api()
    cdef void* context = _new(_mask_ciphers[<int>algorithm], key, True)
    if algorithm != CHACHA20_POLY1305:
        _api.set_padding(context, 0)
    return context


cdef void release(void* context) noexcept:
    # NULL is allowed; the key is wiped.
    if context != NULL:
        _api.free_context(context)


cdef int rekey(void* aead, void* mask, const uint8_t* key, const uint8_t* sn_key, bint sealing) except -1:
    if (
        (_api.encrypt_init if sealing else _api.decrypt_init)(aead, NULL, key, NULL, NULL) > 0
        and _api.encrypt_init(mask, NULL, sn_key, NULL, NULL) > 0
    ):
        return 0
    _api.clear_errors()
    raise Unavailable("libcrypto refused a key")


cdef void cleanse(void* start, size_t n) noexcept:
    # A compiler may leave out a memset of what nobody reads any more, and never this.
    if _api.cleanse != NULL:
        _api.cleanse(start, n)


def erase(secret):
    """Overwrite bytes about to go that the caller alone refers to; b"" and one byte are the interpreter's."""
    if isinstance(secret, bytes) and PyBytes_GET_SIZE(secret) > 1:
        cleanse(PyBytes_AS_STRING(secret), PyBytes_GET_SIZE(secret))


cdef int seal(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil:
    cdef int written = 0
    if (
        _api.encrypt_init(context, NULL, NULL, nonce, NULL) > 0
        # RFC 3610 section 2.2: CCM begins with the length of the message.
        and (not _is_ccm(algorithm) or _api.encrypt_update(context, NULL, &written, NULL, n) > 0)
        and _api.encrypt_update(context, NULL, &written, aad, aad_n) > 0
        and _api.encrypt_update(context, out, &written, data, n) > 0
        and _api.encrypt_final(context, out + n, &written) > 0
        and _api.control(context, GET_TAG, tag_bytes(algorithm), out + n) > 0
    ):
        return 1
    _api.clear_errors()
    return 0


cdef int open(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil:
    cdef int written = 0
    n -= tag_bytes(algorithm)
    if _is_ccm(algorithm):
        # The tag is checked with the text, in one call; there is nothing final to ask for.
        if (
            _api.decrypt_init(context, NULL, NULL, nonce, NULL) > 0
            and _api.control(context, SET_TAG, tag_bytes(algorithm), <void*>(data + n)) > 0
            and _api.decrypt_update(context, NULL, &written, NULL, n) > 0
            and _api.decrypt_update(context, NULL, &written, aad, aad_n) > 0
            and _api.decrypt_update(context, out, &written, data, n) > 0
        ):
            return 1
        _api.clear_errors()
        return 0
    if (
        _api.decrypt_init(context, NULL, NULL, nonce, NULL) > 0
        and _api.control(context, SET_TAG, tag_bytes(algorithm), <void*>(data + n)) > 0
        and _api.decrypt_update(context, NULL, &written, aad, aad_n) > 0
        and (n == 0 or _api.decrypt_update(context, out, &written, data, n) > 0)
        and _api.decrypt_final(context, out + n, &written) > 0
    ):
        return 1
    # The interpreter's ssl module looks at the same error queue; a forgery must not appear there.
    _api.clear_errors()
    return 0


cdef int mask(void* context, Algorithm algorithm, const uint8_t* samples, int count, uint8_t* out) noexcept nogil:
    cdef int written = 0
    cdef int n
    if algorithm != CHACHA20_POLY1305:
        # Blocks are independent, so a run costs one call.
        return _api.encrypt_update(context, out, &written, samples, count * SAMPLE_BYTES) > 0
    cdef uint8_t zeros[2]
    memset(zeros, 0, 2)
    for n in range(count):
        # A sample is laid out as libcrypto wants its IV: block counter (little-endian), then nonce.
        if (
            _api.encrypt_init(context, NULL, NULL, samples + n * SAMPLE_BYTES, NULL) <= 0
            or _api.encrypt_update(context, out + n * SAMPLE_BYTES, &written, zeros, 2) <= 0
        ):
            return 0
    return 1


def failed_answers() -> list[str]:
    """Names of the algorithms that do not give their known answers, through this module's functions."""
    return [
        name
        for n, (name, sealed, masked) in enumerate(KNOWN_ANSWERS)
        if not (_sealed_right(n, sealed) and _masked_right(n, masked))
    ]


cdef int _sealed_right(int algorithm, tuple answer) except -1:
    cdef bytes key, nonce, aad, text, sealed
    key, nonce, aad, text, sealed = answer
    cdef void* sealing = NULL
    cdef void* opening = NULL
    cdef int n = len(text)
    cdef Algorithm kind = <Algorithm>algorithm
    cdef int whole = n + tag_bytes(kind)
    cdef bytearray out = bytearray(whole)
    cdef bytearray back = bytearray(n)
    cdef bytearray forged = bytearray(sealed)
    forged[n - 1] ^= 1
    try:
        sealing = _new_aead(kind, key, True)
        opening = _new_aead(kind, key, False)
        # Each twice and with a forgery in between: a context must not remember what it did before.
        for _ in range(2):
            if not seal(sealing, kind, nonce, aad, <int>len(aad), text, n, out) or out != sealed:
                return False
            if open(opening, kind, nonce, aad, <int>len(aad), forged, whole, back):
                return False
            if not open(opening, kind, nonce, aad, <int>len(aad), sealed, whole, back) or back != text:
                return False
        return True
    finally:
        release(sealing)
        release(opening)


cdef int _masked_right(int algorithm, tuple answer) except -1:
    cdef bytes key, sample, expected
    key, sample, expected = answer
    cdef bytearray out = bytearray(2 * SAMPLE_BYTES)
    cdef bytes samples = sample + sample
    cdef void* context = _new(_mask_ciphers[algorithm], key, True)
    try:
        if not mask(context, <Algorithm>algorithm, samples, 2, out):
            return False
        return out[:2] == expected and out[SAMPLE_BYTES : SAMPLE_BYTES + 2] == expected
    finally:
        release(context)


# --- for the probe -------------------------------------------------------------------------------

# SHA-256, MD5 and SHA-1 of "abc": FIPS 180-4 example, RFC 1321 appendix A.5; HMAC: RFC 4231 section 4.3.
_ABC = (
    (SHA256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (MD5, "900150983cd24fb0d6963f7d28e17f72"),
    (SHA1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
)
_JEFE = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


cdef int need_digests() except -1:
    global _digests_ready
    cdef uint8_t out[32]
    cdef bytes text = b"what do ya want for nothing?"
    if _digests_ready:
        return 0
    api()
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


# crypto.h: OSSL_PARAM, and what says that its data are characters.
cdef struct Param:
    const char* key
    unsigned int kind
    void* data
    size_t size
    size_t written

cdef enum:
    CHARACTERS = 4


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
    global _sha256
    cdef void* context
    cdef uint8_t found[DIGEST_BYTES]
    api()
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
