# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Columns that follow from rows and facts blocks: ids, states, means and variances, what dissection says.

The answers of `features` and `dissect.table`, to the bit.  A mean or variance is one division of exact
integers, rounded once; those whose integers leave 127 bits are left to Python.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport ldexp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from sealwire.crypto._digests cimport SHA1, SHA256, digest, need_digests
from sealwire.probe._decode cimport icmp_answer
from sealwire.probe._features cimport HISTORY_BYTES, Row, Way
from sealwire.probe.dissect._case cimport BLOCK_HEAD, FACT_HEAD

from sealwire.crypto._evp import Unavailable

cdef extern from *:
    """
    typedef unsigned __int128 sealwire_wide;
    static int sealwire_bits(sealwire_wide v) {
        unsigned long long high = (unsigned long long)(v >> 64), low = (unsigned long long)v;
        return high ? 128 - __builtin_clzll(high) : low ? 64 - __builtin_clzll(low) : 0;
    }
    /* a / b rounded once, for b below 2^64; *ok = 0 where a has more than 127 bits. */
    static double sealwire_ratio(sealwire_wide a, sealwire_wide b, int *ok) {
        int bits = sealwire_bits(a), shift = bits < 126 ? 126 - bits : 0;
        *ok = bits <= 127;
        if (!*ok || a == 0)
            return 0.0;
        sealwire_wide q = (a << shift) / b, r = (a << shift) % b;
        return ldexp((double)(q | (r != 0)), -shift);
    }
    static double sealwire_mean(unsigned long long n, unsigned long long total, int *ok) {
        *ok = 1;
        return n ? sealwire_ratio(total, n, ok) : 0.0;
    }
    static double sealwire_variance(unsigned long long n, unsigned long long total, unsigned long long high,
                                    unsigned long long low, int *ok) {
        sealwire_wide squares = (sealwire_wide)high << 64 | low, product;
        sealwire_wide square = (sealwire_wide)total * total;
        *ok = 1;
        if (n < 1)
            return 0.0;
        if (n >> 32 || __builtin_mul_overflow(squares, (sealwire_wide)n, &product)) {
            *ok = 0;
            return 0.0;
        }
        return product > square ? sealwire_ratio(product - square, (sealwire_wide)n * n, ok) : 0.0;
    }
    static const char sealwire_base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    """
    double mean "sealwire_mean"(uint64_t n, uint64_t total, int* ok) noexcept nogil
    double variance "sealwire_variance"(uint64_t n, uint64_t total, uint64_t high, uint64_t low, int* ok) noexcept nogil
    const char* BASE64 "sealwire_base64"

cdef enum:
    KEY_BYTES = 38  # addresses, ports, version and protocol, as a row begins
    ID_BYTES = 30  # "1:" and 28 characters
    STATE_BYTES = 6


cdef int check(bytes rows, Py_ssize_t stride) except -1:
    if stride < <Py_ssize_t>sizeof(Row) or len(rows) % stride:
        raise ValueError("no such rows")
    return 0


def ready():
    """Whether there is a libcrypto that hashes as ids and fingerprints need it."""
    try:
        need_digests()
    except Unavailable:
        return False
    return True


def flow_ids(bytes rows, Py_ssize_t stride):
    """The column flow_id."""
    check(rows, stride)
    need_digests()
    cdef Py_ssize_t n = len(rows) // stride, i
    cdef bytes column = PyBytes_FromStringAndSize(NULL, 8 * n)
    cdef uint64_t* out = <uint64_t*>PyBytes_AS_STRING(column)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(rows)
    cdef const Row* row
    cdef uint8_t key[KEY_BYTES + 20]
    cdef uint8_t hash[32]
    with nogil:
        for i in range(n):
            row = <const Row*>(data + i * stride)
            memcpy(key, row, KEY_BYTES)
            memcpy(key + KEY_BYTES, &row.part, 4)
            memcpy(key + KEY_BYTES + 4, &row.ways[0].first, 8)
            memcpy(key + KEY_BYTES + 12, &row.first_packet, 8)
            digest(SHA256, key, KEY_BYTES + 20, hash)
            memcpy(out + i, hash, 8)
            out[i] &= (<uint64_t>1 << 53) - 1
    return column


cdef inline void community_id(const Row* row, char* out) noexcept nogil:
    cdef uint8_t data[2 + 32 + 2 + 4]
    cdef uint8_t hash[32]
    cdef int width = 4 if row.version == 4 else 16, at = 2, i, order
    cdef uint32_t first = row.source_port, second = row.destination_port, group
    cdef const uint8_t* low = row.source
    cdef const uint8_t* high = row.destination
    cdef bint one_way = False
    if row.protocol == 1 or row.protocol == 58:
        i = icmp_answer(row.protocol, first)
        one_way = i < 0
        if i >= 0:
            second = <uint32_t>i
    order = memcmp(low, high, width)
    if not one_way and (order > 0 or (order == 0 and second < first)):
        low, high = high, low
        first, second = second, first
    data[0] = data[1] = 0
    memcpy(data + at, low, width)
    memcpy(data + at + width, high, width)
    at += 2 * width
    data[at], data[at + 1] = row.protocol, 0
    at += 2
    if row.protocol == 1 or row.protocol == 6 or row.protocol == 17 or row.protocol == 58 or row.protocol == 132:
        data[at], data[at + 1] = <uint8_t>(first >> 8), <uint8_t>(first & 0xFF)
        data[at + 2], data[at + 3] = <uint8_t>(second >> 8), <uint8_t>(second & 0xFF)
        at += 4
    digest(SHA1, data, at, hash)
    hash[20] = 0
    out[0], out[1] = 49, 58
    for i in range(7):
        group = <uint32_t>hash[3 * i] << 16 | <uint32_t>hash[3 * i + 1] << 8 | hash[3 * i + 2]
        out[2 + 4 * i] = BASE64[group >> 18]
        out[3 + 4 * i] = BASE64[group >> 12 & 63]
        out[4 + 4 * i] = BASE64[group >> 6 & 63]
        out[5 + 4 * i] = BASE64[group & 63]
    out[ID_BYTES - 1] = 61


def community_ids(bytes rows, Py_ssize_t stride):
    """The column community_id: offsets and characters."""
    check(rows, stride)
    need_digests()
    cdef Py_ssize_t n = len(rows) // stride, i
    cdef bytes offsets = PyBytes_FromStringAndSize(NULL, 4 * (n + 1))
    cdef bytes column = PyBytes_FromStringAndSize(NULL, ID_BYTES * n)
    cdef int32_t* ends = <int32_t*>PyBytes_AS_STRING(offsets)
    cdef char* out = PyBytes_AS_STRING(column)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(rows)
    with nogil:
        ends[0] = 0
        for i in range(n):
            community_id(<const Row*>(data + i * stride), out + i * ID_BYTES)
            ends[i + 1] = <int32_t>((i + 1) * ID_BYTES)
    return offsets, column


cdef inline int place(const uint8_t* history, int letter) noexcept nogil:
    cdef int i
    for i in range(HISTORY_BYTES):
        if history[i] == letter:
            return i
        if history[i] == 0:
            break
    return HISTORY_BYTES


cdef inline const char* conn_state(const Row* row) noexcept nogil:
    # See features.conn_state.
    cdef const uint8_t* h = row.history
    cdef int mine, theirs
    cdef bint f, b
    if row.protocol == 17:
        return "SF" if row.ways[1].packets else "S0"
    if row.protocol != 6:
        return "OTH"
    mine, theirs = place(h, 82), place(h, 114)
    f, b = place(h, 70) < HISTORY_BYTES, place(h, 102) < HISTORY_BYTES
    if place(h, 83) < HISTORY_BYTES:
        if place(h, 104) == HISTORY_BYTES:
            if mine < HISTORY_BYTES or theirs < HISTORY_BYTES:
                return "REJ" if theirs < mine else "RSTOS0"
            return "SH" if f else "S0"
        if mine < HISTORY_BYTES or theirs < HISTORY_BYTES:
            return "RSTO" if mine < theirs else "RSTR"
        if f and b:
            return "SF"
        if f:
            return "S2"
        return "S3" if b else "S1"
    if h[0] == 72:
        if mine < HISTORY_BYTES:
            return "RSTRH"
        if f:
            return "SHR"
    return "OTH"


def states(bytes rows, Py_ssize_t stride):
    """The columns conn_state and history: offsets and characters of each."""
    check(rows, stride)
    cdef Py_ssize_t n = len(rows) // stride, i
    cdef bytes state_ends = PyBytes_FromStringAndSize(NULL, 4 * (n + 1)), state_room = PyBytes_FromStringAndSize(NULL, STATE_BYTES * n + 1)
    cdef bytes history_ends = PyBytes_FromStringAndSize(NULL, 4 * (n + 1)), history_room = PyBytes_FromStringAndSize(NULL, HISTORY_BYTES * n + 1)
    cdef int32_t* first = <int32_t*>PyBytes_AS_STRING(state_ends)
    cdef int32_t* second = <int32_t*>PyBytes_AS_STRING(history_ends)
    cdef char* state = PyBytes_AS_STRING(state_room)
    cdef char* history = PyBytes_AS_STRING(history_room)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(rows)
    cdef const Row* row
    cdef const char* shown
    cdef int32_t a = 0, b = 0
    cdef int j
    with nogil:
        first[0] = second[0] = 0
        for i in range(n):
            row = <const Row*>(data + i * stride)
            shown = conn_state(row)
            while shown[0]:
                state[a] = shown[0]
                a += 1
                shown += 1
            for j in range(HISTORY_BYTES):
                if row.history[j] == 0:
                    break
                history[b] = <char>row.history[j]
                b += 1
            first[i + 1], second[i + 1] = a, b
    return (state_ends, state_room[:a]), (history_ends, history_room[:b])


def moments(bytes rows, Py_ssize_t stride, int backward):
    """Means and variances of sizes and gaps of a direction, four columns; and the rows left to Python."""
    check(rows, stride)
    cdef Py_ssize_t n = len(rows) // stride, i
    cdef bytes columns = PyBytes_FromStringAndSize(NULL, 4 * 8 * n)
    cdef double* out = <double*>PyBytes_AS_STRING(columns)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(rows)
    cdef const Way* way
    cdef uint64_t gaps
    cdef int ok[4]
    cdef list left = []
    for i in range(n):
        way = &(<const Row*>(data + i * stride)).ways[1 if backward else 0]
        gaps = way.packets - 1 if way.packets else 0
        out[i] = mean(way.packets, way.bytes, &ok[0])
        out[n + i] = variance(way.packets, way.bytes, 0, way.size_square_sum, &ok[1])
        out[2 * n + i] = mean(gaps, way.gap_sum, &ok[2])
        out[3 * n + i] = variance(gaps, way.gap_sum, way.gap_square_high, way.gap_square_low, &ok[3])
        if not (ok[0] and ok[1] and ok[2] and ok[3]):
            left.append(i)
    return [columns[8 * n * k : 8 * n * (k + 1)] for k in range(4)], left


# --- what dissection says ------------------------------------------------------------------------

cdef inline const uint8_t* fact(const uint8_t* block, uint32_t n, int tag, uint32_t* size) noexcept nogil:
    cdef uint32_t at = BLOCK_HEAD, length
    while at + FACT_HEAD <= n:
        length = block[at + 1] | <uint32_t>block[at + 2] << 8
        if at + FACT_HEAD + length > n:
            break
        if block[at] == tag:
            size[0] = length
            return block + at + FACT_HEAD
        at += FACT_HEAD + length
    return NULL


cdef int check_blocks(bytes sizes, bytes facts) except -1:
    cdef const uint32_t* each = <const uint32_t*>PyBytes_AS_STRING(sizes)
    cdef Py_ssize_t n = len(sizes) // 4, i
    cdef uint64_t total = 0
    for i in range(n):
        total += each[i]
    if total != <uint64_t>len(facts):
        raise ValueError("the blocks are not those of the rows")
    return 0


def texts(bytes sizes, bytes facts, int tag, bint hexadecimal):
    """A column of text or of hexadecimal digits: offsets and characters."""
    check_blocks(sizes, facts)
    cdef const uint32_t* each = <const uint32_t*>PyBytes_AS_STRING(sizes)
    cdef const uint8_t* block = <const uint8_t*>PyBytes_AS_STRING(facts)
    cdef Py_ssize_t n = len(sizes) // 4, i
    cdef bytes offsets = PyBytes_FromStringAndSize(NULL, 4 * (n + 1))
    cdef int32_t* ends = <int32_t*>PyBytes_AS_STRING(offsets)
    cdef const uint8_t* value
    cdef const char* digits = "0123456789abcdef"
    cdef uint32_t size = 0, j
    cdef Py_ssize_t room = 0
    cdef bytes column
    cdef char* out
    cdef int32_t used = 0
    ends[0] = 0
    for i in range(n):
        value = fact(block, each[i], tag, &size)
        room += 4 * <Py_ssize_t>size if value != NULL else 0
        block += each[i]
    if room > 0x7FFFFFFF:
        raise ValueError("too much text for one batch")
    column = PyBytes_FromStringAndSize(NULL, room + 1)
    out = PyBytes_AS_STRING(column)
    block = <const uint8_t*>PyBytes_AS_STRING(facts)
    with nogil:
        for i in range(n):
            value = fact(block, each[i], tag, &size)
            if value != NULL:
                for j in range(size):
                    if not hexadecimal and 0x20 <= value[j] < 0x7F:
                        out[used] = <char>value[j]
                        used += 1
                        continue
                    if not hexadecimal:
                        out[used], out[used + 1] = 92, 120
                        used += 2
                    out[used], out[used + 1] = digits[value[j] >> 4], digits[value[j] & 15]
                    used += 2
            ends[i + 1] = used
            block += each[i]
    return [offsets, column[:used]]


def numbers(bytes sizes, bytes facts, int tag, int other, int width):
    """A column of numbers of `width` bytes: of `tag`, else of `other`, else 0."""
    check_blocks(sizes, facts)
    cdef const uint32_t* each = <const uint32_t*>PyBytes_AS_STRING(sizes)
    cdef const uint8_t* block = <const uint8_t*>PyBytes_AS_STRING(facts)
    cdef Py_ssize_t n = len(sizes) // 4, i
    cdef bytes column = PyBytes_FromStringAndSize(NULL, width * n)
    cdef char* out = PyBytes_AS_STRING(column)
    cdef const uint8_t* value
    cdef uint32_t size = 0
    memset(out, 0, width * n)
    with nogil:
        for i in range(n):
            value = fact(block, each[i], tag, &size)
            if value == NULL and other:
                value = fact(block, each[i], other, &size)
            if value != NULL:
                memcpy(out + i * width, value, min(size, <uint32_t>width))
            block += each[i]
    return [column]


def heads(bytes sizes, bytes facts):
    """Protocol and certainty of each block, two bytes and one; 0 for none."""
    check_blocks(sizes, facts)
    cdef const uint32_t* each = <const uint32_t*>PyBytes_AS_STRING(sizes)
    cdef const uint8_t* block = <const uint8_t*>PyBytes_AS_STRING(facts)
    cdef Py_ssize_t n = len(sizes) // 4, i
    cdef list found = []
    for i in range(n):
        if each[i] >= BLOCK_HEAD:
            found.append((block[0] | block[1] << 8, block[2]))
        else:
            found.append((0, 0))
        block += each[i]
    return found
