# cython: language_level=3, boundscheck=False, wraparound=False
"""libcrypto's EVP functions, found at run time: the only module that knows them.

No header and no library is needed to build this.  At first use the functions are looked up behind
the interpreter's own `_ssl`, so that one process has one libcrypto; then in a libcrypto that is
loaded already; then in the system's.  Only functions that every OpenSSL since 3.0 has are used.
Ciphers are fetched once.  Before anything relies on them, each must give the published answers,
through the same functions that protect records; a library that does not is refused.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset
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
    # Below this a copy costs less than another call.
    COPIED_BYTES = 128

cdef Api _api
# GCM takes nonces and tags as parameters, which costs it half of what setting it up anew does.
cdef bint _by_parameters = False
# Stays open for the life of the process, and the functions with it.
cdef void* _library = NULL
cdef void* _aead_ciphers[ALGORITHMS]
cdef void* _mask_ciphers[ALGORITHMS]
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


cdef inline void _find(void* handle, const char* name, void* function) noexcept:
    (<void**>function)[0] = dlsym(handle, name)


cdef str _take(void* handle):
    """Fill the tables from `handle`; "" if it can be used, else why not."""
    global _description, _by_parameters
    cdef Dl_info info
    _find(handle, b"OpenSSL_version_num", &_api.version_number)
    if _api.version_number == NULL:
        return "the interpreter's _ssl shows no libcrypto"
    _find(handle, b"OpenSSL_version", &_api.version_text)
    _find(handle, b"ERR_clear_error", &_api.clear_errors)
    _find(handle, b"OPENSSL_cleanse", &_api.cleanse)
    _find(handle, b"EVP_CIPHER_fetch", &_api.fetch)
    _find(handle, b"EVP_CIPHER_CTX_new", &_api.new_context)
    _find(handle, b"EVP_CIPHER_CTX_free", &_api.free_context)
    _find(handle, b"EVP_CIPHER_CTX_ctrl", &_api.control)
    _find(handle, b"EVP_CIPHER_CTX_set_params", &_api.set_parameters)
    _find(handle, b"EVP_CIPHER_CTX_get_params", &_api.get_parameters)
    _find(handle, b"EVP_CIPHER_CTX_set_padding", &_api.set_padding)
    _find(handle, b"EVP_EncryptInit_ex2", &_api.encrypt_init)
    _find(handle, b"EVP_EncryptUpdate", &_api.encrypt_update)
    _find(handle, b"EVP_EncryptFinal_ex", &_api.encrypt_final)
    _find(handle, b"EVP_DecryptInit_ex2", &_api.decrypt_init)
    _find(handle, b"EVP_DecryptUpdate", &_api.decrypt_update)
    _find(handle, b"EVP_DecryptFinal_ex", &_api.decrypt_final)
    # Only the probe uses these; need_digests() says if they are missing.
    _find(handle, b"EVP_MD_CTX_new", &_api.digest_new)
    _find(handle, b"EVP_MD_CTX_free", &_api.digest_free)
    _find(handle, b"EVP_DigestInit_ex2", &_api.digest_init)
    _find(handle, b"EVP_DigestUpdate", &_api.digest_update)
    _find(handle, b"EVP_DigestFinal_ex", &_api.digest_final)
    _find(handle, b"EVP_MD_fetch", &_api.fetch_digest)
    _find(handle, b"EVP_Digest", &_api.digest)
    _find(handle, b"EVP_MAC_fetch", &_api.mac_fetch)
    _find(handle, b"EVP_MAC_CTX_new", &_api.mac_new)
    _find(handle, b"EVP_MAC_CTX_free", &_api.mac_free)
    _find(handle, b"EVP_MAC_init", &_api.mac_init)
    _find(handle, b"EVP_MAC_update", &_api.mac_update)
    _find(handle, b"EVP_MAC_final", &_api.mac_final)
    _find(handle, b"HMAC", &_api.hmac)

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
    _by_parameters = False
    failed = failed_answers()
    if not failed:
        _by_parameters = _parameters_understood()
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


def erase(secret, Py_ssize_t start=0, end=None):
    """Overwrite bytes about to go that the caller alone refers to; b"" and one byte are the interpreter's.

    With `start` and `end` only what is between them.
    """
    cdef Py_ssize_t n
    if isinstance(secret, bytes) and PyBytes_GET_SIZE(secret) > 1:
        n = PyBytes_GET_SIZE(secret)
        if end is not None and end < n:
            n = end
        if 0 <= start < n:
            cleanse(PyBytes_AS_STRING(secret) + start, n - start)


cdef inline Param _bytes(const char* key, const void* data, size_t n) noexcept nogil:
    return Param(key, BYTES, <void*>data, n, 0)


cdef inline Param _nonce(const uint8_t* nonce) noexcept nogil:
    # EVP_EncryptInit(3), "tlsivfixed": so long that it can only be the whole nonce, and is taken for it.
    return _bytes(b"tlsivfixed", nonce, <size_t>-1)


cdef int _seal_gcm(
    void* context, const uint8_t* nonce, const uint8_t* aad, int aad_n, const uint8_t* data, int n, int tail_n,
    uint8_t* out
) noexcept nogil:
    cdef Param asked[2]
    cdef int written = 0
    cdef uint8_t* tail = out + n
    asked[0] = _nonce(nonce)
    asked[1].key = NULL
    if (
        _api.set_parameters(context, asked) > 0
        and _api.encrypt_update(context, NULL, &written, aad, aad_n) > 0
        and _api.encrypt_update(context, out, &written, data, n) > 0
        and (tail_n == 0 or _api.encrypt_update(context, tail, &written, tail, tail_n) > 0)
        and _api.encrypt_final(context, tail + tail_n, &written) > 0
    ):
        asked[0] = _bytes(b"tag", tail + tail_n, tag_bytes(AES_128_GCM))
        if _api.get_parameters(context, asked) > 0:
            return 1
    _api.clear_errors()
    return 0


cdef int _open_gcm(
    void* context, const uint8_t* nonce, const uint8_t* aad, int aad_n, const uint8_t* data, int n, uint8_t* out
) noexcept nogil:
    cdef Param told[3]
    cdef int written = 0
    told[0] = _bytes(b"tag", data + n, tag_bytes(AES_128_GCM))
    told[1] = _nonce(nonce)
    told[2].key = NULL
    if (
        _api.set_parameters(context, told) > 0
        and _api.decrypt_update(context, NULL, &written, aad, aad_n) > 0
        and (n == 0 or _api.decrypt_update(context, out, &written, data, n) > 0)
        and _api.decrypt_final(context, out + n, &written) > 0
    ):
        return 1
    _api.clear_errors()
    return 0


cdef int seal(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil:
    cdef int written = 0
    if _by_parameters and algorithm <= AES_256_GCM:
        return _seal_gcm(context, nonce, aad, aad_n, data, n, 0, out)
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


cdef int seal_with_tail(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, int tail_n, uint8_t* out
) noexcept nogil:
    if _by_parameters and algorithm <= AES_256_GCM and n >= COPIED_BYTES:
        return _seal_gcm(context, nonce, aad, aad_n, data, n, tail_n, out)
    memcpy(out, data, n)
    return seal(context, algorithm, nonce, aad, aad_n, out, n + tail_n, out)


cdef int open(
    void* context, Algorithm algorithm, const uint8_t* nonce, const uint8_t* aad, int aad_n,
    const uint8_t* data, int n, uint8_t* out
) noexcept nogil:
    cdef int written = 0
    n -= tag_bytes(algorithm)
    if _by_parameters and algorithm <= AES_256_GCM:
        return _open_gcm(context, nonce, aad, aad_n, data, n, out)
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


def nonces_by_parameters() -> bool:
    """Whether GCM of the library in use takes nonces by parameters, the cheaper way."""
    api()
    return _by_parameters


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


cdef bint _parameters_understood() except -1:
    """Whether GCM seals and opens the same, under each of several nonces, when it is told them by parameters.

    A parameter that is not known is passed over without a word, and a nonce used twice is the end of
    GCM, so every one is compared with what the usual way gives.
    """
    global _by_parameters
    cdef uint8_t key[32]
    cdef uint8_t nonce[NONCE_BYTES]
    cdef uint8_t usual[2 + 16]
    cdef uint8_t sealed[2 + 16]
    cdef uint8_t back[2]
    cdef void* sealing
    cdef void* opening
    cdef int algorithm, n
    cdef bint same = _api.set_parameters != NULL and _api.get_parameters != NULL
    memset(key, 1, sizeof(key))
    memset(nonce, 2, sizeof(nonce))
    for algorithm in range(AES_256_GCM + 1):
        sealing = _new_aead(<Algorithm>algorithm, key, True)
        opening = _new_aead(<Algorithm>algorithm, key, False)
        for n in range(4 * NONCE_BYTES):
            nonce[n % NONCE_BYTES] += 1
            same = (
                same
                and seal(sealing, <Algorithm>algorithm, nonce, b"aad", 3, b"ab", 2, usual)
                and _seal_gcm(sealing, nonce, b"aad", 3, b"ab", 2, 0, sealed)
                and memcmp(usual, sealed, sizeof(sealed)) == 0
                and _open_gcm(opening, nonce, b"aad", 3, sealed, 2, back)
                and memcmp(back, b"ab", 2) == 0
            )
            nonce[(n + 1) % NONCE_BYTES] += 1
            same = same and not _open_gcm(opening, nonce, b"aad", 3, sealed, 2, back)
        release(sealing)
        release(opening)
    return same


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
