# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Addresses as the gate's hashes and MACs see them, written in C: `cookie.address_text` and `place.place_of`.

Two forms come in: the tuples of Python's socket module, and the kernel's structures as recvmmsg fills
them.  One peer has the same text either way, or its cookie would be good in one of them only.
"""

from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

cdef extern from "Python.h":
    ctypedef struct PyHash_FuncDef:
        Py_hash_t (*const hash)(const void*, Py_ssize_t) noexcept
    PyHash_FuncDef* PyHash_GetFuncDef()
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from "<sys/socket.h>" nogil:
    int AF_INET, AF_INET6
    ctypedef unsigned int socklen_t

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)

cdef uint64_t hash_of(const uint8_t* data, size_t n) noexcept:
    cdef Py_hash_t found = PyHash_GetFuncDef().hash(data, n)
    return <uint64_t>(-2 if found == -1 else found)


cdef bint _prefix_of(Place* place, const char* host) noexcept nogil:
    """The prefix of the address `host` names, as place.place_of gives it; 0 for one Python must judge."""
    cdef uint8_t packed[16]
    if inet_pton(AF_INET, host, place.prefix) == 1:
        place.prefix_n = 4
        return True
    if inet_pton(AF_INET6, host, packed) != 1:
        return False
    prefix_of_6(place, packed)
    return True


cdef void prefix_of_6(Place* place, const uint8_t* packed) noexcept nogil:
    cdef int i
    cdef bint mapped = packed[10] == 0xFF and packed[11] == 0xFF
    for i in range(10):
        mapped = mapped and packed[i] == 0
    if mapped:
        memcpy(place.prefix, packed + 12, 4)
        place.prefix_n = 4
    elif packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:
        # Link-local; the text of a scope, which socket addresses do not have, is Python's.
        memcpy(place.prefix, packed, 16)
        place.prefix_n = 16
    else:
        memcpy(place.prefix, packed, 8)
        place.prefix_n = 8


cdef bint place_of_tuple(Place* place, tuple address) except -1:
    cdef object part
    cdef Py_ssize_t size
    cdef const char* text
    cdef long long value
    cdef int overflow, written
    cdef int n = 0
    cdef bint first = True
    for part in address:
        if not first:
            place.text[n] = 0
            n += 1
        if type(part) is str:
            text = PyUnicode_AsUTF8AndSize(part, &size)
            if size > 64 or n + size + 32 > TEXT_BYTES:
                return False
            memcpy(place.text + n, text, size)
            if first:
                place.text[n + size] = 0
                if <int>size == 0 or memchr_zero(place.text, size) or not _prefix_of(place, place.text):
                    return False
            n += <int>size
        elif type(part) is int and not first:
            value = PyLong_AsLongLongAndOverflow(part, &overflow)
            if overflow or n + 32 > TEXT_BYTES:
                return False
            written = snprintf(place.text + n, 24, "%lld", value)
            n += written
        else:
            return False
        first = False
    place.text_n = n
    return not first


cdef inline bint memchr_zero(const char* text, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if text[i] == 0:
            return True
    return False


cdef inline int decimal(char* at, uint64_t value) noexcept nogil:
    """Write a number; how many digits it has."""
    cdef char digits[20]
    cdef int n = 0, i
    while True:
        digits[n] = <char>(c'0' + value % 10)
        n += 1
        value //= 10
        if value == 0:
            break
    for i in range(n):
        at[i] = digits[n - 1 - i]
    return n


cdef bint place_of_sockaddr(Place* place, const uint8_t* address) noexcept nogil:
    cdef unsigned short family
    cdef const uint8_t* host
    cdef const uint8_t* port = address + 2
    cdef uint32_t scope = 0
    cdef int n = 0, i
    memcpy(&family, address, sizeof(family))
    if family == AF_INET:
        host = address + 4
        for i in range(4):
            if i:
                place.text[n] = c'.'
                n += 1
            n += decimal(place.text + n, host[i])
        memcpy(place.prefix, host, 4)
        place.prefix_n = 4
    elif family == AF_INET6:
        # After family and port: flow, address, scope; the last in the host's order.
        host = address + 8
        memcpy(&scope, address + 24, sizeof(scope))
        if inet_ntop(AF_INET6, host, place.text, TEXT_BYTES) == NULL:
            return False
        while place.text[n] != 0:
            n += 1
        prefix_of_6(place, host)
    else:
        return False
    place.text[n] = 0
    n += 1 + decimal(place.text + n + 1, <uint64_t>port[0] << 8 | port[1])
    if family == AF_INET6:
        place.text[n] = 0
        n += 1 + decimal(place.text + n + 1, number(address + 4, 4))
        place.text[n] = 0
        n += 1 + decimal(place.text + n + 1, scope)
    place.text_n = n
    return True
