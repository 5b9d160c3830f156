# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Flows as leaves, compiled: deterministic CBOR out of rows and back, leaf hashes and the root.

`leaves` is the same in plain Python and has the words.  The order of columns is read from there
once; each becomes an offset and a kind.  Everything runs without the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from sealwire.crypto._evp cimport DIGEST_BYTES, new_digest, release_digest, sha256

from sealwire.probe.batch import OFFSETS
from sealwire.probe.features import ROW_BYTES
from sealwire.probe.seal import leaves as twin
from sealwire.probe.seal.leaves import BadLeaf

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
    SCHEMA_FLOW = 1
    PREFIXED = 1 << 16

cdef struct Column:
    int offset
    int kind

cdef Column _columns[MOST_COLUMNS]
cdef Column _forward[MOST_COLUMNS]
cdef Column _backward[MOST_COLUMNS]
cdef int64_t _nothing[MOST_COLUMNS]
cdef int _n_columns, _n_way, _row_bytes, _version_at

_KINDS = {"B": U8, "H": U16, "I": U32, "Q": U64, "q": S64, "16s": ADDRESS, "20s": HISTORY}


cdef int _plan(Column* plan, names) except -1:
    cdef int i
    for i, name in enumerate(names):
        plan[i].offset, code = OFFSETS[name]
        plan[i].kind = _KINDS[code]
    return len(names)


_n_columns = _plan(_columns, twin.COLUMNS)
_n_way = _plan(_forward, twin.FORWARD)
_plan(_backward, twin.BACKWARD)
for _i, _value in enumerate(twin.NO_PACKETS):
    _nothing[_i] = _value
_row_bytes = ROW_BYTES
_version_at = OFFSETS["ip_version"][0]


cdef inline uint8_t* put(uint8_t* out, uint8_t major, uint64_t n) noexcept nogil:
    """RFC 8949 section 4.2.1: the shortest head."""
    cdef int width, i
    major <<= 5
    if n < 24:
        out[0] = major | <uint8_t>n
        return out + 1
    if n < 0x100:
        out[0], width = major | 24, 1
    elif n < 0x10000:
        out[0], width = major | 25, 2
    elif n >> 32 == 0:
        out[0], width = major | 26, 4
    else:
        out[0], width = major | 27, 8
    for i in range(width):
        out[1 + i] = <uint8_t>(n >> (8 * (width - 1 - i)))
    return out + 1 + width


cdef inline uint64_t number(const uint8_t* row, Column column) noexcept nogil:
    cdef uint16_t u16
    cdef uint32_t u32
    cdef uint64_t u64
    if column.kind == U8:
        return row[column.offset]
    if column.kind == U16:
        memcpy(&u16, row + column.offset, 2)
        return u16
    if column.kind == U32:
        memcpy(&u32, row + column.offset, 4)
        return u32
    memcpy(&u64, row + column.offset, 8)
    return u64


cdef inline uint8_t* put_number(uint8_t* out, const uint8_t* row, Column column) noexcept nogil:
    cdef uint64_t value = number(row, column)
    if column.kind == S64 and <int64_t>value < 0:
        return put(out, 1, ~value)
    return put(out, 0, value)


cdef uint8_t* put_flow(uint8_t* out, const uint8_t* row, uint64_t sequence, int firsts) noexcept nogil:
    """The leaf of one row; NULL for a row that is none."""
    cdef int i, n, kind
    cdef const uint8_t* field
    cdef bint empty = True
    cdef uint8_t version = row[_version_at]
    cdef int32_pair pair
    if version != 4 and version != 6:
        return NULL
    out = put(out, 4, 2 + _n_columns + 3)
    out = put(out, 0, SCHEMA_FLOW)
    out = put(out, 0, sequence)
    for i in range(_n_columns):
        kind = _columns[i].kind
        field = row + _columns[i].offset
        if kind == ADDRESS:
            n = 4 if version == 4 else 16
            if version == 4 and (field[4] | field[5] | field[6] | field[7] | field[8] | field[9] | field[10]
                                 | field[11] | field[12] | field[13] | field[14] | field[15]):
                return NULL
            out = put(out, 2, n)
            memcpy(out, field, n)
            out += n
        elif kind == HISTORY:
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
            out = put_number(out, row, _columns[i])
    out = put(out, 4, _n_way)
    for i in range(_n_way):
        out = put_number(out, row, _forward[i])
    for i in range(_n_way):
        if number(row, _backward[i]) != <uint64_t>_nothing[i]:
            empty = False
            break
    if empty:
        out[0] = 0xF6
        out += 1
    else:
        out = put(out, 4, _n_way)
        for i in range(_n_way):
            out = put_number(out, row, _backward[i])
    out = put(out, 4, firsts)
    for i in range(firsts):
        memcpy(&pair, row + _row_bytes + i * FIRST_BYTES, FIRST_BYTES)
        out = put(out, 4, 2)
        out = put(out, 1, ~<uint64_t><int64_t>pair.size) if pair.size < 0 else put(out, 0, pair.size)
        out = put(out, 0, pair.gap)
    return out


cdef struct int32_pair:
    int size
    uint32_t gap


def encode(bytes rows, Py_ssize_t stride, Py_ssize_t first, uint64_t sequence, Py_ssize_t most, Py_ssize_t room):
    """As leaves.encode."""
    cdef Py_ssize_t total = len(rows), done = 0, leaf, n, capacity
    cdef int firsts
    if stride < _row_bytes or (stride - _row_bytes) % FIRST_BYTES or total % stride or first < 0:
        raise ValueError("these bytes are no rows")
    firsts = (stride - _row_bytes) // FIRST_BYTES
    leaf = LEAF_ROOM + FIRST_ROOM * firsts
    n = min(max(total // stride - first, 0), max(most, 0))
    capacity = min(n * leaf, max(room, 0) + leaf)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, capacity + leaf)
    cdef uint8_t* begin = <uint8_t*>PyBytes_AS_STRING(out)
    # The leaf is made where the longest head would let it begin, and moved to its head.
    cdef uint8_t* at = begin
    cdef uint8_t* end
    cdef uint8_t* scratch = begin + capacity
    cdef const uint8_t* row = <const uint8_t*>PyBytes_AS_STRING(rows) + first * stride
    with nogil:
        while done < n and at - begin < room:
            end = put_flow(scratch, row, sequence + done, firsts)
            if end == NULL:
                break
            at = put(at, 2, end - scratch)
            memcpy(at, scratch, end - scratch)
            at += end - scratch
            row += stride
            done += 1
    if done < n and at - begin < room:
        raise ValueError("a row is not a flow's")
    return out[: at - begin], done


cdef inline const uint8_t* head(const uint8_t* at, const uint8_t* end, int* major, uint64_t* n) noexcept nogil:
    """Behind the head at `at`; NULL if it is cut, not the shortest or of a kind events do not have."""
    cdef int more, width, i
    if at >= end:
        return NULL
    major[0], more = at[0] >> 5, at[0] & 31
    at += 1
    if more < 24:
        n[0] = more
        return at
    if more > 27 or major[0] == 7:
        return NULL
    width = 1 << (more - 24)
    if end - at < width:
        return NULL
    n[0] = 0
    for i in range(width):
        n[0] = n[0] << 8 | at[i]
    if n[0] < 24 or (width > 1 and n[0] >> (4 * width) == 0):
        return NULL
    return at + width


def leaf_hashes(bytes framed):
    """As leaves.leaf_hashes."""
    cdef const uint8_t* begin = <const uint8_t*>PyBytes_AS_STRING(framed)
    cdef const uint8_t* end = begin + len(framed)
    cdef const uint8_t* at = begin
    cdef Py_ssize_t count = 0
    cdef uint64_t n = 0
    cdef int major = 0
    with nogil:
        while at < end:
            at = head(at, end, &major, &n)
            if at == NULL or major != 2 or n > <uint64_t>(end - at):
                at = NULL
                break
            at += n
            count += 1
    if at == NULL:
        raise ValueError("a leaf is no byte string")
    cdef bytes hashes = PyBytes_FromStringAndSize(NULL, count * DIGEST_BYTES)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(hashes)
    cdef uint8_t prefixed[PREFIXED]
    cdef bytes whole
    cdef bint right = True
    cdef void* context = new_digest()
    try:
        at = begin
        # RFC 9162 section 2.1.1: 0x00 stands before a leaf.
        prefixed[0] = 0
        while at < end and right:
            with nogil:
                while at < end and right:
                    at = head(at, end, &major, &n)
                    if n >= PREFIXED:
                        break
                    memcpy(prefixed + 1, at, n)
                    right = sha256(context, prefixed, n + 1, out)
                    at += n
                    out += DIGEST_BYTES
                    n = 0
            if n:
                whole = b"\0" + (<const char*>at)[:n]
                right = sha256(context, <const uint8_t*>PyBytes_AS_STRING(whole), n + 1, out)
                at += n
                out += DIGEST_BYTES
    finally:
        release_digest(context)
    if not right:
        raise MemoryError
    return hashes


def root(bytes hashes):
    """As leaves.root."""
    cdef Py_ssize_t n = len(hashes) // DIGEST_BYTES, i
    if len(hashes) % DIGEST_BYTES:
        raise ValueError("hashes have 32 bytes each")
    if n == 0:
        return twin.root(b"")
    cdef bytes level = PyBytes_FromStringAndSize(PyBytes_AS_STRING(hashes), len(hashes))
    cdef uint8_t* nodes = <uint8_t*>PyBytes_AS_STRING(level)
    cdef uint8_t pair[1 + 2 * DIGEST_BYTES]
    cdef bint right = True
    cdef void* context = new_digest()
    with nogil:
        # RFC 9162 section 2.1.1: 0x01 stands before two nodes.
        pair[0] = 1
        while n > 1 and right:
            for i in range(n // 2):
                memcpy(pair + 1, nodes + 2 * i * DIGEST_BYTES, 2 * DIGEST_BYTES)
                right = sha256(context, pair, 1 + 2 * DIGEST_BYTES, nodes + i * DIGEST_BYTES) and right
            if n & 1:
                memcpy(nodes + (n // 2) * DIGEST_BYTES, nodes + (n - 1) * DIGEST_BYTES, DIGEST_BYTES)
            n = (n + 1) // 2
    release_digest(context)
    if not right:
        raise MemoryError
    return level[:DIGEST_BYTES]


cdef const uint8_t* take_number(const uint8_t* at, const uint8_t* end, uint8_t* row, Column column) noexcept nogil:
    """One number of a leaf into its place in the row; NULL if it is none or out of range."""
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
        memcpy(row + column.offset, &n, 8)
        return at
    if major != 0:
        return NULL
    if column.kind == U8:
        if n > 0xFF:
            return NULL
        row[column.offset] = <uint8_t>n
    elif column.kind == U16:
        if n > 0xFFFF:
            return NULL
        u16 = <uint16_t>n
        memcpy(row + column.offset, &u16, 2)
    elif column.kind == U32:
        if n >> 32:
            return NULL
        u32 = <uint32_t>n
        memcpy(row + column.offset, &u32, 4)
    else:
        memcpy(row + column.offset, &n, 8)
    return at


cdef const uint8_t* take_flow(
    const uint8_t* at, const uint8_t* end, uint8_t* row, int firsts, int* found
) noexcept nogil:
    """The elements behind schema and sequence, into a zeroed row; NULL if they are not a flow's.

    `firsts` entries of first packets have room in the row; `found` is how many the leaf has.
    """
    cdef int i, major = 0
    cdef uint64_t n = 0
    cdef int64_t value
    cdef uint8_t version = 0
    cdef bint empty = True
    cdef int32_pair pair
    for i in range(_n_columns):
        if _columns[i].kind == ADDRESS:
            at = head(at, end, &major, &n)
            if at == NULL or major != 2 or (n != 4 and n != 16) or n > <uint64_t>(end - at):
                return NULL
            if version != 0 and version != (4 if n == 4 else 6):
                return NULL
            version = 4 if n == 4 else 6
            memcpy(row + _columns[i].offset, at, n)
            at += n
        elif _columns[i].kind == HISTORY:
            at = head(at, end, &major, &n)
            if at == NULL or major != 3 or n > HISTORY_ROOM or n > <uint64_t>(end - at):
                return NULL
            memcpy(row + _columns[i].offset, at, n)
            while n:
                if at[0] <= 0x20 or at[0] >= 0x7F:
                    return NULL
                at += 1
                n -= 1
        else:
            at = take_number(at, end, row, _columns[i])
            if at == NULL:
                return NULL
    row[_version_at] = version
    at = head(at, end, &major, &n)
    if at == NULL or major != 4 or n != <uint64_t>_n_way:
        return NULL
    for i in range(_n_way):
        at = take_number(at, end, row, _forward[i])
        if at == NULL:
            return NULL
    if at < end and at[0] == 0xF6:
        at += 1
        for i in range(_n_way):
            value = _nothing[i]
            if value:  # the row is zeroed, and only signed columns have something else for nothing
                memcpy(row + _backward[i].offset, &value, 8)
    else:
        at = head(at, end, &major, &n)
        if at == NULL or major != 4 or n != <uint64_t>_n_way:
            return NULL
        for i in range(_n_way):
            at = take_number(at, end, row, _backward[i])
            if at == NULL:
                return NULL
            if number(row, _backward[i]) != <uint64_t>_nothing[i]:
                empty = False
        if empty:
            return NULL
    at = head(at, end, &major, &n)
    if at == NULL or major != 4 or n > <uint64_t>(end - at):
        return NULL
    found[0] = <int>n
    if firsts >= 0 and found[0] != firsts:
        return at
    for i in range(found[0]):
        at = head(at, end, &major, &n)
        if at == NULL or major != 4 or n != 2:
            return NULL
        at = head(at, end, &major, &n)
        if at == NULL or major > 1 or n >> 31:
            return NULL
        pair.size = <int>(~n if major else n)
        at = head(at, end, &major, &n)
        if at == NULL or major != 0 or n >> 32:
            return NULL
        pair.gap = <uint32_t>n
        if firsts >= 0:
            memcpy(row + _row_bytes + i * FIRST_BYTES, &pair, FIRST_BYTES)
    return at if at == end else NULL


def decode(bytes framed, uint64_t sequence):
    """As leaves.decode; the rare refusals get their words from the twin."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(framed)
    cdef const uint8_t* end = at + len(framed)
    cdef const uint8_t* leaf
    cdef const uint8_t* inside
    cdef uint64_t n = 0, schema = 0, found_sequence = 0, elements = 0
    cdef int major = 0, firsts = -1, found = 0
    cdef Py_ssize_t index = 0, stride = 0, leaves = 0, flows = 0
    cdef bytes rows = b""
    cdef uint8_t* out = NULL
    cdef uint8_t* probe_row = NULL
    cdef list others = []
    # A leaf of a flow takes more than 40 bytes, so rows take a bounded multiple of what was received.
    while at < end:
        at = head(at, end, &major, &n)
        if at == NULL or major != 2 or n > <uint64_t>(end - at):
            raise ValueError("a leaf is no byte string")
        at += n
        leaves += 1
    at = <const uint8_t*>PyBytes_AS_STRING(framed)
    cdef bytes room = bytes(_row_bytes)
    while at < end:
        at = head(at, end, &major, &n)
        leaf, at = at, at + n
        inside = head(leaf, at, &major, &elements)
        if inside == NULL or major != 4 or elements < 2:
            raise BadLeaf(index, "it is no array that begins with schema and sequence")
        inside = head(inside, at, &major, &schema)
        if inside != NULL and major == 0:
            inside = head(inside, at, &major, &found_sequence)
        if inside == NULL or major != 0:
            raise BadLeaf(index, "it is no array that begins with schema and sequence")
        if found_sequence != sequence + <uint64_t>index:
            raise BadLeaf(index, f"its sequence is {found_sequence}, not {sequence + <uint64_t>index}")
        if schema != SCHEMA_FLOW:
            others.append((index, (<const char*>leaf)[: at - leaf]))
            index += 1
            continue
        if elements != <uint64_t>(2 + _n_columns + 3):
            raise _refused(index, (<const char*>leaf)[: at - leaf])
        if firsts < 0:
            # The first flow says how many first packets there are: decoded once to see.
            probe_row = <uint8_t*>PyBytes_AS_STRING(room)
            memset(probe_row, 0, _row_bytes)
            if take_flow(inside, at, probe_row, -1, &found) == NULL:
                raise _refused(index, (<const char*>leaf)[: at - leaf])
            firsts = found
            stride = _row_bytes + FIRST_BYTES * firsts
            rows = PyBytes_FromStringAndSize(NULL, (leaves - index) * stride)
            out = <uint8_t*>PyBytes_AS_STRING(rows)
        memset(out, 0, stride)
        if take_flow(inside, at, out, firsts, &found) == NULL:
            raise _refused(index, (<const char*>leaf)[: at - leaf])
        if found != firsts:
            raise BadLeaf(index, "another number of first packets than in the leaf before")
        out += stride
        flows += 1
        index += 1
    return rows[: flows * stride], max(firsts, 0), others


def _refused(index, leaf):
    """Why the twin would refuse this leaf."""
    try:
        twin._row(twin.cbor.decode(leaf))
    except ValueError as error:
        return BadLeaf(index, str(error))
    return BadLeaf(index, "it is not a flow of this schema")
