# Leaves of flows and transactions, byte by byte: put_* writes what a row or event holds as deterministic CBOR, take_*
# reads it back, NULL for what is none.  No Python in here; `_leaves` gives the layout.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sealwire.probe.seal._cbor cimport head, number, put, string

cdef enum:
    U8 = 0
    U16 = 1
    U32 = 2
    U64 = 3
    S64 = 4
    ADDRESS = 5
    HISTORY = 6
    MOST_COLUMNS = 64
    HISTORY_ROOM = 20
    FIRST_BYTES = 8
    # Schema, sequence and every number at its longest; beside it, each first packet takes 11 bytes.
    LEAF_ROOM = 1024
    FIRST_ROOM = 11
    # The head of a leaf of the longest.
    FRAME_ROOM = 5
    SCHEMA_FLOW = 1
    SCHEMA_DISSECTED = 8
    SCHEMA_TRANSACTION = 9
    # A facts block: protocol, certainty, flags; then a tag and a length before each value.
    BLOCK_HEAD = 4
    FACT_HEAD = 3
    MOST_BLOCK = 65_535
    # No leaf of a flow or transaction is shorter, and none of its first packets.
    LEAST_FLOW = 40
    LEAST_FIRST = 3
    LEAST_TRANSACTION = 20

cdef struct Column:
    int offset
    int kind

cdef struct Plan:
    Column columns[MOST_COLUMNS]
    int n
    int version_at

# Where everything stands: of a row its columns, those of each direction and what a direction without packets has;
# of an event its columns.
cdef struct Layout:
    Plan flow
    Plan transaction
    Column forward[MOST_COLUMNS]
    Column backward[MOST_COLUMNS]
    int64_t nothing[MOST_COLUMNS]
    int n_way
    int row_bytes

# Earliest and latest packet time of what was encoded or decoded.
cdef struct Times:
    int64_t earliest
    int64_t latest

cdef struct int32_pair:
    int size
    uint32_t gap


cdef inline void note(Times* times, int64_t time) noexcept nogil:
    if time < times.earliest:
        times.earliest = time
    if time > times.latest:
        times.latest = time


cdef inline uint64_t value_of(const uint8_t* record, Column column) noexcept nogil:
    cdef uint16_t u16
    cdef uint32_t u32
    cdef uint64_t u64
    if column.kind == U8:
        return record[column.offset]
    if column.kind == U16:
        memcpy(&u16, record + column.offset, 2)
        return u16
    if column.kind == U32:
        memcpy(&u32, record + column.offset, 4)
        return u32
    memcpy(&u64, record + column.offset, 8)
    return u64


cdef inline uint8_t* put_number(uint8_t* out, const uint8_t* record, Column column) noexcept nogil:
    cdef uint64_t value = value_of(record, column)
    if column.kind == S64 and <int64_t>value < 0:
        return put(out, 1, ~value)
    return put(out, 0, value)


cdef inline uint8_t* put_columns(uint8_t* out, const uint8_t* record, const Plan* plan) noexcept nogil:
    """The columns of a row or event; NULL for one that is none."""
    cdef int i, n
    cdef const uint8_t* field
    cdef uint8_t version = record[plan.version_at]
    if version != 4 and version != 6:
        return NULL
    for i in range(plan.n):
        field = record + plan.columns[i].offset
        if plan.columns[i].kind == ADDRESS:
            n = 4 if version == 4 else 16
            if version == 4 and (field[4] | field[5] | field[6] | field[7] | field[8] | field[9] | field[10]
                                 | field[11] | field[12] | field[13] | field[14] | field[15]):
                return NULL
            out = put(out, 2, n)
            memcpy(out, field, n)
            out += n
        elif plan.columns[i].kind == HISTORY:
            n = HISTORY_ROOM
            while n and field[n - 1] == 0:
                n -= 1
            out = put(out, 3, n)
            while n:
                if field[0] <= 0x20 or field[0] >= 0x7F:
                    return NULL
                out[0] = field[0]
                out += 1
                field += 1
                n -= 1
        else:
            out = put_number(out, record, plan.columns[i])
    return out


cdef inline uint8_t* put_facts(uint8_t* out, const uint8_t* block, uint32_t size) noexcept nogil:
    """A facts block, value by value, in less than twice its bytes; NULL for one that is none."""
    cdef uint32_t at = BLOCK_HEAD, facts = 0
    cdef uint16_t n
    if size < BLOCK_HEAD or size > MOST_BLOCK:
        return NULL
    while at < size:
        if size - at < FACT_HEAD:
            return NULL
        memcpy(&n, block + at + 1, 2)
        at += FACT_HEAD + n
        facts += 1
    if at != size:
        return NULL
    out = put(out, 4, 3 + 2 * <uint64_t>facts)
    memcpy(&n, block, 2)
    out = put(out, 0, n)
    out = put(out, 0, block[2])
    out = put(out, 0, block[3])
    at = BLOCK_HEAD
    while at < size:
        memcpy(&n, block + at + 1, 2)
        out = put(out, 0, block[at])
        out = put(out, 2, n)
        at += FACT_HEAD
        memcpy(out, block + at, n)
        out += n
        at += n
    return out


cdef inline uint8_t* put_flow(
    const Layout* layout, uint8_t* out, const uint8_t* row, const uint8_t* block, uint32_t size, uint64_t sequence, int firsts
) noexcept nogil:
    """The leaf of one row with a facts block of `size` bytes; NULL for a row that is none."""
    cdef int i
    cdef bint empty = True
    cdef int32_pair pair
    out = put(out, 4, 2 + layout.flow.n + (4 if size else 3))
    out = put(out, 0, SCHEMA_DISSECTED if size else SCHEMA_FLOW)
    out = put(out, 0, sequence)
    out = put_columns(out, row, &layout.flow)
    if out == NULL:
        return NULL
    out = put(out, 4, layout.n_way)
    for i in range(layout.n_way):
        out = put_number(out, row, layout.forward[i])
    for i in range(layout.n_way):
        if value_of(row, layout.backward[i]) != <uint64_t>layout.nothing[i]:
            empty = False
            break
    if empty:
        out[0] = 0xF6
        out += 1
    else:
        out = put(out, 4, layout.n_way)
        for i in range(layout.n_way):
            out = put_number(out, row, layout.backward[i])
    out = put(out, 4, firsts)
    for i in range(firsts):
        memcpy(&pair, row + layout.row_bytes + i * FIRST_BYTES, FIRST_BYTES)
        out = put(out, 4, 2)
        out = put(out, 1, ~<uint64_t><int64_t>pair.size) if pair.size < 0 else put(out, 0, pair.size)
        out = put(out, 0, pair.gap)
    return put_facts(out, block, size) if size else out


cdef inline uint8_t* put_framed(uint8_t* at, const uint8_t* leaf, Py_ssize_t n) noexcept nogil:
    at = put(at, 2, n)
    memcpy(at, leaf, n)
    return at + n



cdef inline const uint8_t* take_number(
    const uint8_t* at, const uint8_t* end, uint8_t* record, Column column
) noexcept nogil:
    """One number of a leaf into its place; NULL if it is none or out of range."""
    cdef int major = 0
    cdef uint64_t n = 0
    cdef uint16_t u16
    cdef uint32_t u32
    at = head(at, end, &major, &n)
    if at == NULL:
        return NULL
    if column.kind == S64:
        if major > 1 or n >> 63:
            return NULL
        if major == 1:
            n = ~n
        memcpy(record + column.offset, &n, 8)
        return at
    if major != 0:
        return NULL
    if column.kind == U8:
        if n > 0xFF:
            return NULL
        record[column.offset] = <uint8_t>n
    elif column.kind == U16:
        if n > 0xFFFF:
            return NULL
        u16 = <uint16_t>n
        memcpy(record + column.offset, &u16, 2)
    elif column.kind == U32:
        if n >> 32:
            return NULL
        u32 = <uint32_t>n
        memcpy(record + column.offset, &u32, 4)
    else:
        memcpy(record + column.offset, &n, 8)
    return at


cdef inline const uint8_t* take_columns(
    const uint8_t* at, const uint8_t* end, uint8_t* record, const Plan* plan
) noexcept nogil:
    """The columns of a leaf into a zeroed row or event; NULL if they are none."""
    cdef int i
    cdef uint64_t n = 0
    cdef uint8_t version = 0
    for i in range(plan.n):
        if plan.columns[i].kind == ADDRESS:
            at = string(at, end, 2, &n)
            if at == NULL or (n != 4 and n != 16) or (version != 0 and version != (4 if n == 4 else 6)):
                return NULL
            version = 4 if n == 4 else 6
            memcpy(record + plan.columns[i].offset, at, n)
            at += n
        elif plan.columns[i].kind == HISTORY:
            at = string(at, end, 3, &n)
            if at == NULL or n > HISTORY_ROOM:
                return NULL
            memcpy(record + plan.columns[i].offset, at, n)
            while n:
                if at[0] <= 0x20 or at[0] >= 0x7F:
                    return NULL
                at += 1
                n -= 1
        else:
            at = take_number(at, end, record, plan.columns[i])
            if at == NULL:
                return NULL
    record[plan.version_at] = version
    return at


cdef inline const uint8_t* take_facts(const uint8_t* at, const uint8_t* end, uint8_t* block, uint32_t* size) noexcept nogil:
    """Facts into a block, which takes less than twice their bytes; NULL if they are none."""
    cdef int major = 0
    cdef uint64_t elements = 0, n = 0
    cdef uint16_t u16
    size[0] = 0
    at = head(at, end, &major, &elements)
    if at == NULL or major != 4 or elements < 3 or elements % 2 == 0:
        return NULL
    at = number(at, end, 0xFFFF, &n)
    u16 = <uint16_t>n
    memcpy(block, &u16, 2)
    at = number(at, end, 0xFF, &n)
    block[2] = <uint8_t>n
    at = number(at, end, 0xFF, &n)
    block[3] = <uint8_t>n
    size[0] = BLOCK_HEAD
    elements -= 3
    while elements and at != NULL:
        at = number(at, end, 0xFF, &n)
        if at == NULL:
            return NULL
        block[size[0]] = <uint8_t>n
        at = string(at, end, 2, &n)
        if at == NULL or size[0] + FACT_HEAD + n > MOST_BLOCK:
            return NULL
        u16 = <uint16_t>n
        memcpy(block + size[0] + 1, &u16, 2)
        memcpy(block + size[0] + FACT_HEAD, at, n)
        at += n
        size[0] += FACT_HEAD + <uint32_t>n
        elements -= 2
    return at


cdef inline const uint8_t* take_flow(
    const Layout* layout, const uint8_t* at, const uint8_t* end, uint8_t* row, int firsts, int* found
) noexcept nogil:
    """The elements from the columns to the first packets into a zeroed row; NULL if they are not a flow's.

    `firsts` entries of first packets have room in the row; `found` is how many the leaf has.
    """
    cdef int i, major = 0
    cdef uint64_t n = 0
    cdef int64_t value
    cdef bint empty = True
    cdef int32_pair pair
    at = take_columns(at, end, row, &layout.flow)
    at = head(at, end, &major, &n)
    if at == NULL or major != 4 or n != <uint64_t>layout.n_way:
        return NULL
    for i in range(layout.n_way):
        at = take_number(at, end, row, layout.forward[i])
        if at == NULL:
            return NULL
    if at < end and at[0] == 0xF6:
        at += 1
        for i in range(layout.n_way):
            value = layout.nothing[i]
            if value:  # the row is zeroed, and only signed columns have something else for nothing
                memcpy(row + layout.backward[i].offset, &value, 8)
    else:
        at = head(at, end, &major, &n)
        if at == NULL or major != 4 or n != <uint64_t>layout.n_way:
            return NULL
        for i in range(layout.n_way):
            at = take_number(at, end, row, layout.backward[i])
            if at == NULL:
                return NULL
            if value_of(row, layout.backward[i]) != <uint64_t>layout.nothing[i]:
                empty = False
        if empty:
            return NULL
    at = head(at, end, &major, &n)
    if at == NULL or major != 4 or n > <uint64_t>(end - at):
        return NULL
    found[0] = <int>n
    for i in range(found[0]):
        at = head(at, end, &major, &n)
        if at == NULL or major != 4 or n != 2:
            return NULL
        at = head(at, end, &major, &n)
        if at == NULL or major > 1 or n >> 31:
            return NULL
        pair.size = <int>(~n if major else n)
        at = number(at, end, 0xFFFFFFFF, &n)
        if at == NULL:
            return NULL
        pair.gap = <uint32_t>n
        if i < firsts:
            memcpy(row + layout.row_bytes + i * FIRST_BYTES, &pair, FIRST_BYTES)
    return at
