# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The passes of `scan`, compiled.  The bytes are the table's own; what is wrong in them ends a pass."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from sealwire.probe.dissect._case cimport (
    BLOCK_HEAD, CERTAIN, DNS, DTLS, F_DNS_ANSWER, F_NAME, F_SERVER_ID, FACT_HEAD, MDNS, QUIC,
)

cdef enum:
    UNCERTAIN = 1
    WITH_IDS = 2
    NAMELESS = 4
    EVENT_HEAD = 74
    MAX_ADDRESSES = 16


cdef inline const uint8_t* fact(const uint8_t* block, uint32_t n, int tag, uint32_t* at, uint32_t* size) noexcept nogil:
    # The next fact of a tag from `at` on; NULL if there is none.
    cdef uint32_t here = at[0], length
    while here + FACT_HEAD <= n:
        length = block[here + 1] | <uint32_t>block[here + 2] << 8
        if here + FACT_HEAD + length > n:
            break
        at[0] = here + FACT_HEAD + length
        if block[here] == tag:
            size[0] = length
            return block + here + FACT_HEAD
        here = at[0]
    return NULL


cdef inline const uint8_t* first(const uint8_t* block, uint32_t n, int tag, uint32_t* size) noexcept nogil:
    cdef uint32_t at = BLOCK_HEAD
    return fact(block, n, tag, &at, size)


cdef inline int why(const uint8_t* block, uint32_t n) noexcept nogil:
    cdef uint32_t size = 0
    cdef int found = 0
    if n < BLOCK_HEAD:
        return NAMELESS
    if block[2] != CERTAIN:
        found = UNCERTAIN
    elif (block[0] == DTLS or block[0] == QUIC) and block[1] == 0:
        if first(block, n, F_SERVER_ID, &size) != NULL and size:
            found = WITH_IDS
    if block[0] != DNS and block[0] != MDNS and first(block, n, F_NAME, &size) == NULL:
        found |= NAMELESS
    return found


def rows(bytes data, Py_ssize_t stride, Py_ssize_t facts_at, bytes facts, named, set fresh):
    """See :func:`sealwire.probe.dissect.scan.rows`."""
    cdef const uint8_t* row = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef const uint8_t* blocks = <const uint8_t*>PyBytes_AS_STRING(facts)
    cdef Py_ssize_t n, i, at = 0, end = len(facts)
    cdef uint32_t size
    cdef int reason
    cdef list found = []
    if stride <= 0 or facts_at < 0 or facts_at + 4 > stride:
        raise ValueError("no such rows")
    n = len(data) // stride
    for i in range(n):
        memcpy(&size, row + i * stride + facts_at, 4)
        if <Py_ssize_t>size > end - at:
            raise ValueError("the blocks are not those of the rows")
        reason = why(blocks + at, size)
        if reason == NAMELESS:
            ends = PyBytes_FromStringAndSize(<const char*>(row + i * stride), 32)
            if ends not in named and ends not in fresh:
                reason = 0
        if reason:
            found.append((i, at, <Py_ssize_t>size, reason))
        at += size
    return found


def news(bytes events):
    """See :func:`sealwire.probe.dissect.scan.news`."""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(events)
    cdef Py_ssize_t at = 0, end = len(events)
    cdef uint32_t length, size = 0, place, block_bytes
    cdef int64_t time
    cdef uint16_t port
    cdef const uint8_t* block
    cdef const uint8_t* name
    cdef const uint8_t* value
    cdef uint8_t address[16]
    cdef list found = []
    cdef list listed
    while end - at >= EVENT_HEAD:
        memcpy(&length, data + at, 4)
        memcpy(&time, data + at + 4, 8)
        memcpy(&port, data + at + 44, 2)
        if length < EVENT_HEAD or <Py_ssize_t>length > end - at:
            break
        block, block_bytes = data + at + EVENT_HEAD, length - EVENT_HEAD
        if block_bytes >= BLOCK_HEAD and block[2] == CERTAIN and block[1] == 0:
            if block[0] == DTLS or block[0] == QUIC:
                if first(block, block_bytes, F_SERVER_ID, &size) != NULL and size:
                    found.append((time, b"", b"", (), at, <Py_ssize_t>length))
            elif block[0] == DNS:
                name = first(block, block_bytes, F_NAME, &size)
                if name != NULL and size:
                    listed = []
                    shown = PyBytes_FromStringAndSize(<const char*>name, size)
                    place = BLOCK_HEAD
                    while True:
                        value = fact(block, block_bytes, F_DNS_ANSWER, &place, &size)
                        if value == NULL:
                            break
                        if size >= 6 and value[1] == 0 and (value[0] == 1 or value[0] == 28) and (size == 10 or size == 22):
                            memset(address, 0, 16)
                            memcpy(address, value + 6, size - 6)
                            listed.append(PyBytes_FromStringAndSize(<const char*>address, 16))
                    if listed:
                        client = PyBytes_FromStringAndSize(<const char*>(data + at + (28 if port == 53 else 12)), 16)
                        found.append((time, client, shown, tuple(listed), at, <Py_ssize_t>length))
        at += length
    return found
