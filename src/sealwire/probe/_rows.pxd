# Finished flows that wait to be taken: their rows, and behind each other their facts blocks, both in the
# order in which the flows ended up here; they leave in the order of (ended, first_packet).

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy

from sealwire.probe._features cimport Row
from sealwire.probe.dissect._hot cimport Desk, desk_block_bytes, desk_write_block


cdef enum:
    LARGE_BYTES = 16777216


cdef struct Rows:
    uint8_t* data
    size_t size  # bytes of one
    size_t count
    size_t room
    uint8_t* blocks
    size_t block_bytes
    size_t block_room


cdef inline void keep_large_blocks() noexcept nogil:
    # The rows of a batch and their copies are megabytes that come and go.  glibc gives such blocks back to
    # the system, which clears them anew each time, until it has seen a larger one freed (mallopt(3)).
    PyMem_RawFree(PyMem_RawMalloc(LARGE_BYTES))


cdef inline Row* new_row(Rows* rows) noexcept nogil:
    # One more, or NULL when there is no memory.
    cdef size_t room
    cdef uint8_t* data
    if rows.count == rows.room:
        room = rows.room * 2 if rows.room else <size_t>256
        data = <uint8_t*>realloc(rows.data, room * rows.size)
        if data == NULL:
            return NULL
        rows.data, rows.room = data, room
    rows.count += 1
    return <Row*>(rows.data + (rows.count - 1) * rows.size)


cdef inline int64_t last_end(const Rows* rows) noexcept nogil:
    return (<Row*>(rows.data + (rows.count - 1) * rows.size)).ended


cdef inline uint32_t add_block(Rows* rows, Desk* desk, uint32_t number, bint* no_memory) noexcept nogil:
    # The size of the block of a case, which is put behind those before.
    cdef uint32_t n = desk_block_bytes(desk, number)
    cdef size_t room
    cdef uint8_t* blocks
    if rows.block_bytes + n > rows.block_room:
        room = max(2 * rows.block_room, rows.block_bytes + n)
        blocks = <uint8_t*>realloc(rows.blocks, room)
        if blocks == NULL:
            no_memory[0] = True
            return 0
        rows.blocks, rows.block_room = blocks, room
    desk_write_block(desk, number, rows.blocks + rows.block_bytes)
    rows.block_bytes += n
    return n


cdef inline int by_order(const void* left, const void* right) noexcept nogil:
    cdef const Row* a = (<const Row**>left)[0]
    cdef const Row* b = (<const Row**>right)[0]
    if a.ended != b.ended:
        return -1 if a.ended < b.ended else 1
    return -1 if a.first_packet < b.first_packet else 1 if a.first_packet > b.first_packet else 0


cdef inline tuple take_rows(Rows* rows, int64_t clock, bint all):
    # Rows that ended before the clock, or all, and their blocks.
    cdef size_t n = rows.count, ready = n, i, at = 0, facts = 0
    cdef Row** order = <Row**>malloc((n + 1) * sizeof(Row*))
    cdef size_t* starts = <size_t*>malloc((n + 1) * sizeof(size_t))
    cdef uint8_t* kept = NULL
    cdef uint8_t* kept_blocks = NULL
    cdef uint8_t* to
    cdef uint8_t* to_block
    cdef bytes taken, blocks
    cdef bint sorted = True
    try:
        if order == NULL or starts == NULL:
            raise MemoryError
        for i in range(n):
            order[i] = <Row*>(rows.data + i * rows.size)
            starts[i] = at
            at += order[i].facts_bytes
            if i and by_order(&order[i - 1], &order[i]) > 0:
                sorted = False
        if not sorted:
            qsort(order, n, sizeof(Row*), by_order)
        if not all:
            while ready and order[ready - 1].ended >= clock:
                ready -= 1
        for i in range(ready):
            facts += order[i].facts_bytes
        taken = PyBytes_FromStringAndSize(NULL, ready * rows.size)
        blocks = PyBytes_FromStringAndSize(NULL, facts)
        if ready < n:
            kept = <uint8_t*>malloc((n - ready) * rows.size)
            kept_blocks = <uint8_t*>malloc(rows.block_bytes - facts + 1)
            if kept == NULL or kept_blocks == NULL:
                raise MemoryError
        to, to_block = <uint8_t*>PyBytes_AS_STRING(taken), <uint8_t*>PyBytes_AS_STRING(blocks)
        for i in range(n):
            if i == ready:
                to, to_block = kept, kept_blocks
            memcpy(to, order[i], rows.size)
            to += rows.size
            if order[i].facts_bytes:
                at = starts[<size_t>(<uint8_t*>order[i] - rows.data) // rows.size]
                memcpy(to_block, rows.blocks + at, order[i].facts_bytes)
                to_block += order[i].facts_bytes
        # The room is kept: it is needed again at once.
        if ready < n:
            memcpy(rows.data, kept, (n - ready) * rows.size)
            if rows.block_bytes > facts:
                memcpy(rows.blocks, kept_blocks, rows.block_bytes - facts)
        rows.count = n - ready
        rows.block_bytes -= facts
    finally:
        free(kept)
        free(kept_blocks)
        free(order)
        free(starts)
    return taken, blocks
