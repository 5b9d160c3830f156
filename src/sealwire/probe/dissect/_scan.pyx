# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The passes of `scan`, compiled.  The bytes are the table's own; what is wrong in them ends a pass."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcpy, memset

from sealwire.crypto._digests cimport SHA256, digest, need_digests
from sealwire.probe._features cimport Row
from sealwire.probe.dissect._case cimport (
    BLOCK_HEAD, CERTAIN, DNS, DTLS, F_CLIENT_ID, F_DNS_ANSWER, F_HEAD, F_NAME, F_SERVER_ID, FACT_HEAD, MDNS, QUIC, SNIPPET_HEAD, SNIPPETS,
)
from sealwire.probe.dissect._names cimport ENDS_BYTES, Name, Names, end_names, find_name, learn_name, start_names

from sealwire.probe.dissect.relate import Handshake

cdef enum:
    EVENT_HEAD = 74
    EVENT_KEY = 58
    F_LEARNED_NAME = 61
    F_ASSOCIATION = 62
    KEY_BYTES = 38
    LONGEST_NAME = 255
    LONGEST_SIGN = 16

cdef uint64_t LINK = <uint64_t>1 << 63
cdef uint64_t CITES = <uint64_t>1 << 62


cdef struct Sign:
    uint64_t bit
    uint16_t at
    uint16_t port
    uint8_t transport
    uint8_t n
    uint8_t least
    bint every
    uint8_t value[LONGEST_SIGN]
    uint8_t mask[LONGEST_SIGN]


cdef struct Snippet:
    const uint8_t* p
    uint32_t n


# An answer, for the order of time.
cdef struct News:
    int64_t time
    size_t at


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


cdef inline bint has_id(const uint8_t* block, uint32_t n) noexcept nogil:
    cdef uint32_t size = 0
    if n < BLOCK_HEAD or (block[0] != DTLS and block[0] != QUIC) or block[1] or block[2] != CERTAIN:
        return False
    return first(block, n, F_SERVER_ID, &size) != NULL and size


cdef inline bint nameless(const uint8_t* block, uint32_t n) noexcept nogil:
    cdef uint32_t size = 0
    if n == 0:
        return True
    if (block[0] == DNS or block[0] == MDNS) and block[1] == 0:
        return False
    return first(block, n, F_NAME, &size) == NULL


cdef inline bytes value_of(const uint8_t* block, uint32_t n, int tag):
    cdef uint32_t size = 0
    cdef const uint8_t* value = first(block, n, tag, &size)
    return b"" if value == NULL else PyBytes_FromStringAndSize(<const char*>value, size)


def handshakes(bytes events):
    """See :func:`sealwire.probe.dissect.scan.handshakes`."""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(events)
    cdef const uint8_t* block
    cdef Py_ssize_t at = 0, end = len(events)
    cdef uint32_t length, n
    cdef int64_t time
    cdef list found = []
    while end - at >= EVENT_HEAD:
        memcpy(&length, data + at, 4)
        if length < EVENT_HEAD or <Py_ssize_t>length > end - at:
            break
        block, n = data + at + EVENT_HEAD, length - EVENT_HEAD
        if has_id(block, n):
            memcpy(&time, data + at + 4, 8)
            key = PyBytes_FromStringAndSize(<const char*>(data + at + 12), EVENT_KEY)
            ids = (value_of(block, n, F_SERVER_ID), value_of(block, n, F_CLIENT_ID), value_of(block, n, F_NAME))
            found.append(Handshake(time, key, block[0], *ids))
        at += length
    return found


cdef inline bint has_port(const Sign* sign, const Row* row) noexcept nogil:
    return sign.port == 0 or sign.port == row.source_port or sign.port == row.destination_port


cdef inline bint shown_by(const Sign* sign, const Snippet* one) noexcept nogil:
    cdef int i
    if one.n < <uint32_t>sign.at + sign.n:
        return False
    for i in range(sign.n):
        if one.p[sign.at + i] & sign.mask[i] != sign.value[i]:
            return False
    return True


cdef inline bint shows(const Sign* sign, const Row* row, const Snippet* packets, int count) noexcept nogil:
    cdef int i
    if count < sign.least or not has_port(sign, row):
        return False
    for i in range(count):
        if shown_by(sign, packets + i) != sign.every:
            return not sign.every
    return sign.every


cdef inline int64_t time_of(const void* one) noexcept nogil:
    return (<const News*>one).time


cdef inline int by_time(const void* left, const void* right) noexcept nogil:
    cdef int64_t a = time_of(left), b = time_of(right)
    if a == b:
        return -1 if (<const News*>left).at < (<const News*>right).at else 1
    return -1 if a < b else 1


cdef inline uint8_t* write_fact(uint8_t* to, int tag, const uint8_t* value, uint32_t n) noexcept nogil:
    to[0] = <uint8_t>tag
    to[1] = <uint8_t>(n & 0xFF)
    to[2] = <uint8_t>(n >> 8)
    memcpy(to + FACT_HEAD, value, n)
    return to + FACT_HEAD + n


cdef inline uint32_t write_without_head(uint8_t* to, const uint8_t* block, uint32_t n) noexcept nogil:
    # The block without first packets; the bytes written.
    cdef uint32_t at = BLOCK_HEAD, length, used = BLOCK_HEAD
    memcpy(to, block, BLOCK_HEAD)
    while at + FACT_HEAD <= n:
        length = FACT_HEAD + (block[at + 1] | <uint32_t>block[at + 2] << 8)
        if at + length > n:
            break
        if block[at] != F_HEAD:
            memcpy(to + used, block + at, length)
            used += length
        at += length
    return 0 if used == BLOCK_HEAD and block[0] == 0 and block[1] == 0 else used


cdef inline uint64_t flow_id(const Row* row) noexcept nogil:
    cdef uint8_t key[KEY_BYTES + 20]
    cdef uint8_t hash[32]
    cdef uint64_t found
    memcpy(key, row, KEY_BYTES)
    memcpy(key + KEY_BYTES, &row.part, 4)
    memcpy(key + KEY_BYTES + 4, &row.ways[0].first, 8)
    memcpy(key + KEY_BYTES + 12, &row.first_packet, 8)
    digest(SHA256, key, KEY_BYTES + 20, hash)
    memcpy(&found, hash, 8)
    return found & ((<uint64_t>1 << 53) - 1)


@cython.final
cdef class Scanner:
    """See :class:`sealwire.probe.dissect.scan.Scanner`."""

    cdef Sign* _signs
    cdef int _count
    cdef Names _names

    def __cinit__(self, wanted, bytes key, uint32_t most_names):
        cdef Sign* sign
        need_digests()
        if len(key) != 16:
            raise ValueError(f"key must have 16 bytes, not {len(key)}")
        start_names(&self._names, <const uint8_t*>PyBytes_AS_STRING(key), most_names)
        self._signs = <Sign*>calloc(len(wanted) + 1, sizeof(Sign))
        if self._signs == NULL:
            raise MemoryError
        for bit, transport, said in wanted:
            sign = self._signs + self._count
            value, mask = bytes(said.value), bytes(said.mask) or b"\xff" * len(said.value)
            if len(value) > LONGEST_SIGN or len(mask) != len(value):
                raise ValueError("no such sign")
            sign.bit, sign.transport, sign.at, sign.port = bit, transport, said.at, said.port
            sign.n, sign.least, sign.every = <uint8_t>len(value), said.least, said.every
            memcpy(sign.value, PyBytes_AS_STRING(value), sign.n)
            memcpy(sign.mask, PyBytes_AS_STRING(mask), sign.n)
            self._count += 1

    def __dealloc__(self):
        end_names(&self._names)
        free(self._signs)

    def left(self, bytes rows, Py_ssize_t stride, bytes facts, servers):
        """See :meth:`sealwire.probe.dissect.scan.Scanner.left`."""
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(rows)
        cdef const uint8_t* blocks = <const uint8_t*>PyBytes_AS_STRING(facts)
        cdef const Row* row
        cdef const uint8_t* head
        cdef Py_ssize_t i, at = 0, end = len(facts)
        cdef uint32_t size, n = 0
        cdef uint64_t why
        cdef bint serving = len(servers) > 0
        cdef list found = []
        check(rows, stride)
        for i in range(len(rows) // stride):
            row = <const Row*>(data + i * stride)
            size = row.facts_bytes
            if <Py_ssize_t>size > end - at:
                raise ValueError("the blocks are not those of the rows")
            if size >= BLOCK_HEAD and blocks[at + 2] != CERTAIN:
                head = first(blocks + at, size, F_HEAD, &n)
                if head != NULL:
                    why = 0
                    if row.protocol == 1 or row.protocol == 58:
                        why = CITES
                    else:
                        if serving and row.protocol == 17:
                            if (
                                PyBytes_FromStringAndSize(<const char*>row.source, 16) + PyBytes_FromStringAndSize(<const char*>&row.source_port, 2) in servers
                                or PyBytes_FromStringAndSize(<const char*>row.destination, 16) + PyBytes_FromStringAndSize(<const char*>&row.destination_port, 2) in servers
                            ):
                                why = LINK
                        if blocks[at] == 0 and blocks[at + 1] == 0:
                            why |= self._sift(row, head, n)
                    if why:
                        found.append((i, at, <Py_ssize_t>size, why))
            at += size
        return found

    cdef uint64_t _sift(self, const Row* row, const uint8_t* head, uint32_t n) noexcept nogil:
        cdef Snippet packets[SNIPPETS]
        cdef const Sign* sign
        cdef int count = 0, i
        cdef uint32_t at = 0
        cdef uint64_t why = 0
        while count < SNIPPETS and at + SNIPPET_HEAD <= n:
            packets[count].p = head + at + SNIPPET_HEAD
            packets[count].n = head[at + 3] | <uint32_t>head[at + 4] << 8
            at += SNIPPET_HEAD + packets[count].n
            if at > n:
                break
            count += 1
        for i in range(self._count):
            sign = self._signs + i
            if sign.transport == row.protocol and not why & sign.bit and shows(sign, row, packets, count):
                why |= sign.bit
        return why

    cdef bint _learn(self, const uint8_t* event) noexcept nogil:
        # What an answer says; False when there is no memory.
        cdef uint32_t length, n, place = BLOCK_HEAD, size = 0, shown = 0
        cdef int64_t time
        cdef uint16_t port
        cdef const uint8_t* block = event + EVENT_HEAD
        cdef const uint8_t* name
        cdef const uint8_t* value
        cdef uint8_t ends[ENDS_BYTES]
        memcpy(&length, event, 4)
        memcpy(&time, event + 4, 8)
        memcpy(&port, event + 44, 2)
        n = length - EVENT_HEAD
        name = first(block, n, F_NAME, &shown)
        memcpy(ends, event + (28 if port == 53 else 12), 16)
        while True:
            value = fact(block, n, F_DNS_ANSWER, &place, &size)
            if value == NULL:
                return True
            if (size == 10 or size == 22) and value[1] == 0 and (value[0] == 1 or value[0] == 28):
                memset(ends + 16, 0, 16)
                memcpy(ends + 16, value + 6, size - 6)
                if not learn_name(&self._names, time, ends, name, min(shown, <uint32_t>LONGEST_NAME)):
                    return False

    def finish(self, bytes rows, Py_ssize_t stride, bytes facts, bytes events, list replaced):
        """See :meth:`sealwire.probe.dissect.scan.Scanner.finish`."""
        cdef Py_ssize_t count, bound = len(facts), used
        cdef News* news = NULL
        cdef size_t told
        cdef bytes changed, made
        check(rows, stride)
        count = len(rows) // stride
        for index, block in replaced:
            if not 0 <= index < count:
                raise ValueError("no such row")
            bound += len(block)
        # A name and an id at most behind each block.
        bound += count * (BLOCK_HEAD + 2 * FACT_HEAD + LONGEST_NAME + 8)
        changed = PyBytes_FromStringAndSize(PyBytes_AS_STRING(rows), len(rows))
        made = PyBytes_FromStringAndSize(NULL, bound)
        try:
            told = self._order(events, &news)
            used = self._write(changed, stride, facts, <const uint8_t*>PyBytes_AS_STRING(events), news, told, replaced, <uint8_t*>PyBytes_AS_STRING(made))
        finally:
            free(news)
        return changed, made[:used]

    cdef size_t _order(self, bytes events, News** news) except? 0:
        # The answers with a name, by time.
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(events)
        cdef Py_ssize_t at = 0, end = len(events)
        cdef uint32_t length, size = 0
        cdef const uint8_t* block
        cdef size_t count = 0
        cdef bint sorted = True
        news[0] = <News*>malloc((end // EVENT_HEAD + 1) * sizeof(News))
        if news[0] == NULL:
            raise MemoryError
        while end - at >= EVENT_HEAD:
            memcpy(&length, data + at, 4)
            if length < EVENT_HEAD or <Py_ssize_t>length > end - at:
                break
            block = data + at + EVENT_HEAD
            if length >= EVENT_HEAD + BLOCK_HEAD and block[0] == DNS and block[1] == 0 and block[2] == CERTAIN:
                if first(block, length - EVENT_HEAD, F_NAME, &size) != NULL and size:
                    memcpy(&news[0][count].time, data + at + 4, 8)
                    news[0][count].at = at
                    sorted = sorted and (count == 0 or news[0][count - 1].time <= news[0][count].time)
                    count += 1
            at += length
        if not sorted:
            qsort(news[0], count, sizeof(News), by_time)
        return count

    cdef Py_ssize_t _write(self, bytes rows, Py_ssize_t stride, bytes facts, const uint8_t* events, const News* news, size_t told, list replaced, uint8_t* out) except -1:
        cdef uint8_t* data = <uint8_t*>PyBytes_AS_STRING(rows)
        cdef const uint8_t* blocks = <const uint8_t*>PyBytes_AS_STRING(facts)
        cdef Py_ssize_t count = len(rows) // stride, i, next_new = -1, end = len(facts), waiting = 0
        cdef Row* row
        cdef Name* name
        cdef uint8_t* begin = out
        cdef uint64_t association
        cdef uint32_t size, n
        cdef size_t asked = 0
        cdef bytes new = b""
        if replaced:
            next_new, new = replaced[0]
        for i in range(count):
            row = <Row*>(data + i * stride)
            while asked < told and news[asked].time <= row.ended:
                if not self._learn(events + news[asked].at):
                    raise MemoryError
                asked += 1
            size = row.facts_bytes
            if <Py_ssize_t>size > end:
                raise ValueError("the blocks are not those of the rows")
            if i == next_new:
                n = <uint32_t>len(new)
                memcpy(out, PyBytes_AS_STRING(new), n)
                waiting += 1
                next_new = -1
                if waiting < len(replaced):
                    next_new, new = replaced[waiting]
            elif size >= BLOCK_HEAD and blocks[2] != CERTAIN:
                n = write_without_head(out, blocks, size)
            else:
                n = size
                memcpy(out, blocks, n)
                if has_id(blocks, size):
                    association = flow_id(row)
                    n = <uint32_t>(write_fact(out + n, F_ASSOCIATION, <const uint8_t*>&association, 8) - out)
            if self._names.count and nameless(out, n):
                name = find_name(&self._names, &row.source[0])
                if name != NULL and name.time <= row.ways[0].first:
                    if n == 0:
                        memset(out, 0, BLOCK_HEAD)
                        n = BLOCK_HEAD
                    n = <uint32_t>(write_fact(out + n, F_LEARNED_NAME, name.text, name.n) - out)
            row.facts_bytes = n
            out += n
            blocks += size
            end -= size
        while asked < told:
            if not self._learn(events + news[asked].at):
                raise MemoryError
            asked += 1
        return out - begin


cdef int check(bytes rows, Py_ssize_t stride) except -1:
    if stride < <Py_ssize_t>sizeof(Row) or len(rows) % stride:
        raise ValueError("no such rows")
    return 0
