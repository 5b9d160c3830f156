# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""libFuzzer's bytes as packets of one flow, given to the compiled desk; `layout.py` says how they are read."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uintptr_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcpy, memset

from sealwire.probe._decode cimport Packet
from sealwire.probe._features cimport SYN, TCP_FIELDS, Record
from sealwire.probe.dissect._hot cimport (
    Desk, desk_block_bytes, desk_close, desk_forget, desk_packet, desk_write_block, start_desk,
)

from tests.fuzzing.libfuzzer.layout import ENDS, FIRST_BACK, FIRST_FORTH, SHIFTS, SMALL_LIMIT

cdef enum:
    KINDS = 8
    LIMIT = 67108864

cdef Desk _desk
cdef uint8_t _protocol[KINDS]
cdef uint16_t _port[KINDS]
cdef int _shift[4]
cdef uint32_t _first[2]
cdef uint32_t _small


cdef int one(const uint8_t* data, size_t n) noexcept nogil:
    cdef Record r
    cdef Packet p
    cdef uint32_t number = 0, size, at[2]
    cdef uint8_t* payload
    cdef uint8_t* block
    cdef size_t place = 1
    cdef int backward, kind
    cdef bint done = False
    if n < 1:
        return 0
    kind = data[0] % KINDS
    _desk.budget.limit = _small if data[0] & 0x40 else LIMIT
    memset(&r, 0, sizeof(Record))
    r.version, r.protocol, r.source_port, r.destination_port = 4, _protocol[kind], 40000, _port[kind]
    r.state, r.flags, r.sequence = TCP_FIELDS, SYN, _first[0] - 1
    at[0], at[1] = _first[0], _first[1]
    while place + 3 <= n and not done:
        backward = data[place] & 1
        size = data[place + 1] | <uint32_t>data[place + 2] << 8
        size = <uint32_t>min(<size_t>size, n - place - 3)
        memset(&p, 0, sizeof(Packet))
        p.version, p.protocol, p.tcp = 4, r.protocol, r.protocol == 6
        p.source_port, p.destination_port = (r.destination_port, r.source_port) if backward else (r.source_port, r.destination_port)
        p.sequence = at[backward] + <uint32_t>_shift[data[place] >> 1 & 3]
        p.captured = p.payload_bytes = size
        at[backward] += size
        # Behind its last byte nothing may be read.
        payload = <uint8_t*>malloc(size) if size else NULL
        if size:
            memcpy(payload, data + place + 3, size)
            done = desk_packet(&_desk, &number, &r, NULL, &p, payload, backward, 1)
        free(payload)
        place += 3 + size
    if number:
        desk_close(&_desk, number, &r, NULL, 2)
        size = desk_block_bytes(&_desk, number)
        block = <uint8_t*>malloc(size + 1)
        desk_write_block(&_desk, number, block)
        if size > 12288 or (size and block[2] > 2):
            abort()
        free(block)
        desk_forget(&_desk, number)
    if _desk.budget.held or _desk.budget.no_memory:
        abort()
    check_events()
    return 0


cdef inline void check_events() noexcept nogil:
    # Their lengths lead to the end.
    cdef size_t at = 0
    cdef uint32_t n
    while at < _desk.event_bytes:
        memcpy(&n, _desk.events + at, 4)
        if n < 74:
            abort()
        at += n
    if at != _desk.event_bytes:
        abort()
    _desk.event_bytes = 0


def target():
    """Where the function is that takes the bytes."""
    global _small
    start_desk(&_desk, LIMIT)
    for index, (protocol, port) in enumerate(ENDS):
        _protocol[<int>index], _port[<int>index] = protocol, port
    for index, shift in enumerate(SHIFTS):
        _shift[<int>index] = shift
    _first[0], _first[1], _small = FIRST_FORTH, FIRST_BACK, SMALL_LIMIT
    return <uintptr_t>&one
