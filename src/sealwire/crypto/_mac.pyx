# cython: language_level=3, boundscheck=False, wraparound=False
"""HMAC and HKDF through libcrypto's EVP_MAC, for the key schedule: some sixty HMACs make a handshake.

`hmac.digest` of the standard library looks the algorithm up by name each time, which costs three
times what the hashing does.  Here one context per hash is fetched once and given a key at a time;
the GIL guards it, and afterwards it holds a key of zeros.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from sealwire.crypto cimport _evp
# Cython rebuilds this module with that one only because of this line.
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
    MAX_BYTES = 48
    MOST_EXPANSIONS = 8

ctypedef void* (*Fetch)(void* library, const char* name, const char* properties) noexcept nogil
ctypedef void* (*New)(void* mac) noexcept nogil
ctypedef int (*Init)(void* context, const uint8_t* key, size_t key_n, const Parameter* parameters) noexcept nogil
ctypedef int (*Update)(void* context, const uint8_t* data, size_t n) noexcept nogil
ctypedef int (*Final)(void* context, uint8_t* out, size_t* written, size_t n) noexcept nogil

cdef Init _init = NULL
cdef Update _update = NULL
cdef Final _final = NULL
cdef void* _sha256 = NULL
cdef void* _sha384 = NULL
cdef uint8_t[MAX_BYTES] _zeros


cdef void* _context(const char* digest, size_t n) except NULL:
    cdef const Api* api = _evp.api()
    cdef Parameter[2] parameters
    cdef void* mac = (<Fetch>_evp.function(b"EVP_MAC_fetch"))(NULL, b"HMAC", NULL)
    if mac == NULL:
        api.clear_errors()
        raise Unavailable("libcrypto has no HMAC")
    cdef void* context = (<New>_evp.function(b"EVP_MAC_CTX_new"))(mac)
    if context == NULL:
        raise MemoryError
    parameters[0] = Parameter(b"digest", TEXT, digest, n, 0)
    parameters[1] = Parameter(NULL, 0, NULL, 0, 0)
    if _init(context, _zeros, MAX_BYTES, parameters) <= 0:
        api.clear_errors()
        raise Unavailable("libcrypto has no HMAC with this hash")
    return context


def load() -> None:
    """Find what is needed and see that it gives the published answers.

    Raises:
        Unavailable: it cannot be found, or does not.
    """
    global _init, _update, _final, _sha256, _sha384
    if _sha384 != NULL:
        return
    _init = <Init>_evp.function(b"EVP_MAC_init")
    _update = <Update>_evp.function(b"EVP_MAC_update")
    _final = <Final>_evp.function(b"EVP_MAC_final")
    _sha256 = _context(b"SHA256", 6)
    cdef void* context = _context(b"SHA384", 6)
    # Set last: it says that all is ready.
    _sha384 = context
    for name, answer in KNOWN_ANSWERS.items():
        if digest(name, b"Jefe", b"what do ya want for nothing?").hex() != answer:
            _sha384 = NULL
            raise Unavailable("libcrypto gives wrong answers for HMAC")


# RFC 4231 section 4.3.
KNOWN_ANSWERS = {
    "sha256": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    "sha384": "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
}


def digest(str hash_name, key, data) -> bytes:
    """HMAC of bytes with ``"sha256"`` or ``"sha384"``, after :func:`load`; KeyError for another hash."""
    cdef void* context
    cdef uint8_t[MAX_BYTES] out
    cdef size_t n = 0
    if not PyBytes_Check(key) or not PyBytes_Check(data):
        raise TypeError("an HMAC is made of bytes")
    cdef size_t key_n = PyBytes_GET_SIZE(key)
    if hash_name == "sha256":
        context = _sha256
    elif hash_name == "sha384":
        context = _sha384
    else:
        raise KeyError(hash_name)
    if _sha384 == NULL:
        raise Unavailable("load() comes first")
    cdef bint done = (
        # A key of no bytes would mean the one before.
        _init(context, <const uint8_t*>PyBytes_AS_STRING(key) if key_n else _zeros, key_n or 1, NULL) > 0
        and _update(context, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) > 0
        and _final(context, out, &n, MAX_BYTES) > 0
    )
    # The secret goes from the context whatever happened.
    done = _init(context, _zeros, MAX_BYTES, NULL) > 0 and done
    if not done:
        _evp.api().clear_errors()
        raise Unavailable("libcrypto refused an HMAC")
    return out[:n]


def expand(str hash_name, key, tuple infos, kind) -> list:
    """HKDF-Expand (RFC 5869 section 2.3) of one secret, up to eight times, each at most one hash long.

    Args:
        infos: pairs of info and the number of bytes wanted, two at least.
        kind: what to make of the bytes, :class:`sealwire.crypto.hkdf.Secret`.
    """
    cdef void* context
    cdef uint8_t[MOST_EXPANSIONS * MAX_BYTES] out
    cdef Py_ssize_t[MOST_EXPANSIONS] sizes
    cdef size_t n = 0
    cdef Py_ssize_t most, wanted, i = 0
    cdef const Api* api = _evp.api()
    cdef const uint8_t* counter = b"\x01"
    cdef bytes derived
    if not PyBytes_Check(key):
        raise TypeError("an HMAC is made of bytes")
    cdef size_t key_n = PyBytes_GET_SIZE(key)
    if hash_name == "sha256":
        context, most = _sha256, 32
    elif hash_name == "sha384":
        context, most = _sha384, 48
    else:
        raise KeyError(hash_name)
    if _sha384 == NULL:
        raise Unavailable("load() comes first")
    for info, size in infos:
        wanted = size
        if not PyBytes_Check(info) or not 2 <= wanted <= most or i == MOST_EXPANSIONS:
            raise TypeError("an expansion is of bytes and at most one hash long, and there are eight at most")
        sizes[i] = wanted
        i += 1
    # A key of no bytes would mean the one before.
    cdef bint done = _init(
        context, <const uint8_t*>PyBytes_AS_STRING(key) if key_n else _zeros, key_n or 1, NULL
    ) > 0
    # Nothing of Python's runs from here until the context is free again: another thread would use it.
    for i in range(PyTuple_GET_SIZE(infos)):
        info = (<tuple>infos[i])[0]
        # The key stays: what it was made into is taken again.
        done = done and (
            (i == 0 or _init(context, NULL, 0, NULL) > 0)
            and _update(context, <const uint8_t*>PyBytes_AS_STRING(info), PyBytes_GET_SIZE(info)) > 0
            and _update(context, counter, 1) > 0
            and _final(context, out + i * MAX_BYTES, &n, MAX_BYTES) > 0
        )
    # The secret goes from the context whatever happened.
    done = _init(context, _zeros, MAX_BYTES, NULL) > 0 and done
    answers = []
    if done:
        for i in range(PyTuple_GET_SIZE(infos)):
            derived = out[i * MAX_BYTES : i * MAX_BYTES + sizes[i]]
            answers.append(kind(derived))
            api.cleanse(PyBytes_AS_STRING(derived), sizes[i])
    api.cleanse(out, MOST_EXPANSIONS * MAX_BYTES)
    if not done:
        api.clear_errors()
        raise Unavailable("libcrypto refused an HMAC")
    return answers
