# A packet that was found and decoded and whose turn to be counted has not come: what counting it will
# touch is brought into the cache meanwhile.  Nothing here changes a table.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from sealwire.probe._decode cimport FILTERED, Packet, decode
from sealwire.probe._features cimport Extension, Record
from sealwire.probe._records cimport Found
from sealwire.probe._table cimport Pool, hash_of, not_above, piece

cdef extern from *:
    """
    #define sealwire_prefetch(address) __builtin_prefetch((const void *)(address))
    """
    void prefetch "sealwire_prefetch"(const void* address) noexcept nogil

cdef enum:
    # How many packets are looked at before their turn; a power of two.
    AHEAD = 8

ctypedef uint32_t (*Filter)(const void*, const uint8_t*, uint32_t, uint32_t) noexcept nogil


cdef struct Ahead:
    Found record
    Packet packet
    int status  # 0, or why it is in no flow
    bint placed  # `hash` and `upward` are known
    bint upward
    uint64_t hash


cdef inline void look(Ahead* one, const uint8_t* data, Filter filter, bint tunnels) noexcept nogil:
    # Filter and decode the packet of one.record.
    cdef const uint8_t* body = data + one.record.body
    one.placed = False
    if one.record.face.program != NULL and filter(one.record.face.program, body, one.record.wire, one.record.captured) == 0:
        one.status = FILTERED
        return
    one.status = decode(body, one.record.captured, one.record.face.link, one.record.wire, tunnels, &one.packet)


cdef inline void place(Ahead* one, const uint64_t* key) noexcept nogil:
    # Its place in the index.  A later fragment has one only once it was given its ports.
    one.upward = one.packet.one_way or not_above(&one.packet)
    one.hash = hash_of(key, &one.packet, one.upward)
    one.placed = True


cdef inline void fetch_record(const Ahead* one, const uint32_t* buckets, uint32_t mask, const Pool* records) noexcept nogil:
    cdef uint32_t number
    cdef const uint8_t* record
    if one.status == 0 and one.placed:
        number = buckets[<uint32_t>one.hash & mask]
        if number:
            record = <const uint8_t*>piece(records, number)
            prefetch(record)
            prefetch(record + 64)


cdef inline void fetch_extension(const Ahead* one, const uint32_t* buckets, uint32_t mask, const Pool* records, const Pool* extensions) noexcept nogil:
    cdef uint32_t number
    cdef const uint8_t* extension
    cdef int i
    if one.status == 0 and one.placed:
        number = buckets[<uint32_t>one.hash & mask]
        if number:
            number = (<Record*>piece(records, number)).extension
            if number:
                extension = <const uint8_t*>piece(extensions, number)
                for i in range(0, <int>sizeof(Extension), 64):
                    prefetch(extension + i)
