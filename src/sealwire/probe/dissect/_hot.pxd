# The desk as the flow table calls it.  Everything is without the GIL but its beginning and end.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sealwire.crypto._digests cimport Opening
from sealwire.probe._decode cimport Packet
from sealwire.probe._features cimport Extension, Record
from sealwire.probe._table cimport Pool
from sealwire.probe.dissect._case cimport Budget
from sealwire.probe.dissect._hello cimport Scratch


cdef struct Desk:
    Budget budget
    Pool cases
    Pool works
    # Facts of the event being told.
    uint8_t* facts
    uint32_t facts_room
    uint64_t opened
    uint64_t refused
    uint64_t told
    uint8_t* events
    size_t event_bytes
    size_t event_room
    Opening opening
    Scratch* scratch
    # 65,536 bytes: messages in several pieces, opened packets.
    uint8_t* room


# Raises MemoryError, or what crypto._evp raises where libcrypto cannot be used.
cdef int start_desk(Desk* desk, uint64_t limit) except -1
cdef void end_desk(Desk* desk) noexcept
cdef bint desk_full(const Desk* desk) noexcept nogil
# Look at a payload packet of a flow, whose case is `number` (0: none yet); whether no more are wanted.
# `e` is NULL as long as the flow has one packet.
cdef bint desk_packet(Desk* desk, uint32_t* number, const Record* r, const Extension* e, const Packet* p, const uint8_t* data, int backward, int64_t clock) noexcept nogil
# The flow leaves: what is open is told, and the bytes of its facts block are counted.
cdef uint32_t desk_close(Desk* desk, uint32_t number, const Record* r, const Extension* e, int64_t ended) noexcept nogil
# The size of the block as it is now, and the block.
cdef uint32_t desk_block_bytes(Desk* desk, uint32_t number) noexcept nogil
cdef void desk_write_block(Desk* desk, uint32_t number, uint8_t* to) noexcept nogil
cdef void desk_forget(Desk* desk, uint32_t number) noexcept nogil
# Events as bytes: those older than `before`, or all.
cdef bytes desk_take(Desk* desk, int64_t before, bint all)
