# cython: language_level=3, boundscheck=False, wraparound=False
"""The record layer's ciphers out of action, for the sabotage test of the bench and nothing else.

`remove()` puts functions that only copy in place of libcrypto's, in this whole process, where the compiled
record layer looks them up.  Everything around them stays: headers, nonces, copies, calls.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memmove, memset

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport NONCE_BYTES

cdef enum:
    GET_TAG = 0x10  # EVP_CTRL_AEAD_GET_TAG


cdef int _init(
    void* context, void* cipher, const uint8_t* key, const uint8_t* iv, const void* params
) noexcept nogil:
    return 1


cdef int _update(void* context, uint8_t* out, int* written, const uint8_t* data, int n) noexcept nogil:
    if out != NULL and out != data:
        memmove(out, data, n)
    written[0] = n
    return 1


cdef int _final(void* context, uint8_t* out, int* written) noexcept nogil:
    written[0] = 0
    return 1


cdef int _control(void* context, int command, int n, void* data) noexcept nogil:
    if command == GET_TAG:
        memset(data, 0, n)
    return 1


cdef int _set_parameters(void* context, const void* params) noexcept nogil:
    return 1


cdef int _get_parameters(void* context, void* params) noexcept nogil:
    cdef _evp.Param* asked = <_evp.Param*>params
    while asked.key != NULL:
        memset(asked.data, 0, asked.size)
        asked += 1
    return 1


def remove():
    """From here on nothing in this process is encrypted or authenticated by the compiled record layer."""
    cdef _evp.Api* api = <_evp.Api*>_evp.api()
    api.encrypt_init = api.decrypt_init = _init
    api.encrypt_update = api.decrypt_update = _update
    api.encrypt_final = api.decrypt_final = _final
    api.control = _control
    api.set_parameters = _set_parameters
    api.get_parameters = _get_parameters
