# What dissection keeps of a flow, compiled: `bounded` and `case`, whose words explain it.

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from sealwire.probe._table cimport Pool, give_piece

cdef enum:
    HEAD_BYTES = 16384
    MAX_PENDING = 32

    CASE_BYTES = 48
    WORK_BYTES = 320
    MAX_PACKETS = 12
    MAX_ASKED = 16
    SNIPPETS = 6
    SNIPPET_BYTES = 256
    SNIPPET_HEAD = 5
    LONGEST_ID = 20

    BLOCK_HEAD = 4
    FACT_HEAD = 3
    MAX_BLOCK_BYTES = 12288

    # Protocol
    UNKNOWN = 0
    TLS = 1
    DTLS = 2
    QUIC = 3
    DNS = 4
    MDNS = 5
    HTTP = 6
    STUN = 7
    SSH = 8

    # Certainty
    NO = 0
    UNSURE = 1
    CERTAIN = 2

    # Flag
    TRUNCATED = 1
    MALFORMED = 2

    # Role
    NO_ROLE = 0
    CLIENT = 1
    SERVER = 2

    # Body
    NO_BODY = 0
    CHUNK = 1
    CHUNK_END = 2
    TRAILERS = 3

    # Verdict
    MORE = 0
    DONE = 1
    NOT_MINE = 2

    # Fact
    F_VERSION = 1
    F_NAME = 2
    F_ALPN = 3
    F_ALPN_CHOSEN = 4
    F_CIPHER = 5
    F_GROUP = 6
    F_JA3 = 7
    F_JA3S = 8
    F_JA4 = 9
    F_CLIENT_ID = 10
    F_SERVER_ID = 11
    F_ECH = 12
    F_CERTIFICATE = 13
    F_RETRY = 14
    F_ALERT = 15
    F_OFFERED = 16
    F_QUIC_VERSION = 17
    F_DNS_ID = 20
    F_DNS_FLAGS = 21
    F_DNS_TYPE = 22
    F_DNS_ANSWER = 23
    F_METHOD = 30
    F_TARGET = 31
    F_USER_AGENT = 32
    F_STATUS = 33
    F_CONTENT_TYPE = 34
    F_SERVER = 35
    F_CLIENT_SOFTWARE = 40
    F_SERVER_SOFTWARE = 41
    F_HASSH = 42
    F_HASSH_SERVER = 43
    F_STUN_METHOD = 50
    F_MAPPED = 51
    F_HEAD = 60


cdef struct Budget:
    uint64_t limit
    uint64_t held
    uint64_t peak
    uint64_t refused
    # Not the limit: the machine has none left.
    int no_memory


cdef struct Piece:
    uint8_t* data
    uint32_t offset
    uint32_t n


cdef struct Head:
    uint8_t* kept
    Piece* pending
    uint32_t n
    uint32_t room
    uint32_t waiting
    int cut


cdef struct Way:
    Head head
    uint32_t base
    uint8_t packets
    uint8_t begun
    uint8_t done
    uint8_t foreign
    uint32_t messages
    # DTLS: the message whose fragments are being put together; kind 0 is none.
    uint32_t length
    uint16_t number
    uint8_t kind
    # HTTP, DNS over TCP.
    uint8_t role
    uint8_t body
    uint32_t at


cdef struct Work:
    uint32_t next_free  # the pool's, while it is not in use
    uint32_t number
    Way ways[2]
    uint8_t* snippets
    uint32_t snippet_bytes
    uint8_t snippet_count
    uint8_t has_id
    uint8_t id_bytes
    int8_t client
    uint8_t first_id[LONGEST_ID]
    uint8_t asked_count
    uint16_t asked[MAX_ASKED]


cdef struct Case:
    uint32_t next_free  # the pool's, while it is not open
    uint32_t open
    uint8_t* facts
    uint64_t known
    Work* work
    uint32_t n
    uint32_t room
    uint16_t protocol
    uint8_t certainty
    uint8_t flags
    uint8_t told


cdef inline uint32_t be16(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 8) | p[1]


cdef inline uint32_t be24(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 16) | (<uint32_t>p[1] << 8) | p[2]


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline bint charge(Budget* b, uint64_t n) noexcept nogil:
    if b.held + n > b.limit:
        b.refused += 1
        return False
    b.held += n
    if b.held > b.peak:
        b.peak = b.held
    return True


cdef inline bint extend(Budget* b, Head* h, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef uint32_t room = h.room
    cdef uint8_t* kept
    if h.n + n > room:
        room = max(h.n + n, 2 * room)
        kept = <uint8_t*>realloc(h.kept, room)
        if kept == NULL:
            b.no_memory = 1
            return False
        h.kept, h.room = kept, room
    memcpy(h.kept + h.n, data, n)
    h.n += n
    return True


cdef inline bint join_pending(Budget* b, Head* h) noexcept nogil:
    cdef uint32_t i
    cdef Piece piece
    cdef bint ok
    for i in range(h.waiting):
        piece = h.pending[i]
        if piece.offset <= h.n:
            memmove(h.pending + i, h.pending + i + 1, (h.waiting - i - 1) * sizeof(Piece))
            h.waiting -= 1
            ok = True
            if piece.offset + piece.n > h.n:
                b.held -= h.n - piece.offset
                ok = extend(b, h, piece.data + (h.n - piece.offset), piece.offset + piece.n - h.n)
            else:
                b.held -= piece.n
            free(piece.data)
            return ok
    return False


cdef inline bint add(Budget* b, Head* h, uint64_t offset, const uint8_t* data, uint64_t n) noexcept nogil:
    # See bounded.Head.add.
    cdef Piece* piece
    if offset + n > HEAD_BYTES:
        h.cut = 1
        if offset >= HEAD_BYTES:
            return False
        n = HEAD_BYTES - offset
    if offset > h.n:
        if h.waiting >= MAX_PENDING or not charge(b, n):
            h.cut = 1
            return False
        if h.pending == NULL:
            h.pending = <Piece*>malloc(MAX_PENDING * sizeof(Piece))
            if h.pending == NULL:
                b.no_memory = 1
                return False
        piece = h.pending + h.waiting
        piece.data = <uint8_t*>malloc(max(n, <uint64_t>1))
        if piece.data == NULL:
            b.no_memory = 1
            return False
        memcpy(piece.data, data, n)
        piece.offset, piece.n = <uint32_t>offset, <uint32_t>n
        h.waiting += 1
        return False
    if offset + n <= h.n:
        return False
    if not charge(b, offset + n - h.n):
        h.cut = 1
        return False
    if not extend(b, h, data + (h.n - offset), <uint32_t>(offset + n - h.n)):
        return False
    while join_pending(b, h):
        pass
    return True


cdef inline void free_head(Budget* b, Head* h) noexcept nogil:
    cdef uint32_t i
    b.held -= h.n
    for i in range(h.waiting):
        b.held -= h.pending[i].n
        free(h.pending[i].data)
    free(h.pending)
    free(h.kept)
    h.pending = NULL
    h.kept = NULL
    h.n = h.room = h.waiting = 0


cdef inline void claim(Case* c, int protocol, int certainty) noexcept nogil:
    if certainty > c.certainty:
        c.protocol, c.certainty = <uint16_t>protocol, <uint8_t>certainty


cdef inline bint has(const Case* c, int tag) noexcept nogil:
    return c.known >> tag & 1


cdef inline uint8_t* add_fact(Case* c, Budget* b, int tag, uint32_t size, bint again) noexcept nogil:
    # Room for a fact's value, or NULL where it is not wanted or does not fit.
    cdef uint32_t n = FACT_HEAD + size
    cdef uint32_t room
    cdef uint8_t* at
    if has(c, tag) and not again:
        return NULL
    if c.n + n > MAX_BLOCK_BYTES - BLOCK_HEAD or not charge(b, n):
        c.flags |= TRUNCATED
        return NULL
    if c.n + n > c.room:
        room = max(c.n + n, 2 * c.room)
        room = max(room, <uint32_t>192)
        at = <uint8_t*>realloc(c.facts, room)
        if at == NULL:
            b.no_memory = 1
            b.held -= n
            return NULL
        c.facts, c.room = at, room
    c.known |= <uint64_t>1 << tag
    at = c.facts + c.n
    at[0] = <uint8_t>tag
    at[1] = <uint8_t>(size & 0xFF)
    at[2] = <uint8_t>(size >> 8)
    c.n += n
    return at + FACT_HEAD


cdef inline void put(Case* c, Budget* b, int tag, const uint8_t* value, uint32_t size) noexcept nogil:
    cdef uint8_t* at = add_fact(c, b, tag, size, False)
    if at != NULL and size:
        memcpy(at, value, size)


cdef inline void put_number(Case* c, Budget* b, int tag, uint32_t value, int size) noexcept nogil:
    cdef uint8_t* at = add_fact(c, b, tag, size, False)
    cdef int i
    if at != NULL:
        for i in range(size):
            at[i] = <uint8_t>(value >> (8 * i) & 0xFF)


cdef inline uint32_t block_bytes(const Case* c) noexcept nogil:
    return 0 if c.protocol == UNKNOWN and c.n == 0 else BLOCK_HEAD + c.n


cdef inline void write_block(const Case* c, uint8_t* to) noexcept nogil:
    if c.protocol == UNKNOWN and c.n == 0:
        return
    to[0] = <uint8_t>(c.protocol & 0xFF)
    to[1] = <uint8_t>(c.protocol >> 8)
    to[2] = c.certainty
    to[3] = c.flags
    if c.n:
        memcpy(to + BLOCK_HEAD, c.facts, c.n)


cdef inline void settle(Case* c, Budget* b, Pool* works) noexcept nogil:
    cdef Work* work = c.work
    cdef int i
    if work == NULL:
        return
    c.work = NULL
    for i in range(2):
        if work.ways[i].head.cut:
            c.flags |= TRUNCATED
        free_head(b, &work.ways[i].head)
    b.held -= WORK_BYTES + work.snippet_bytes
    if c.certainty < CERTAIN and work.snippet_bytes:
        put(c, b, F_HEAD, work.snippets, work.snippet_bytes)
    free(work.snippets)
    give_piece(works, work.number)


cdef inline void free_case(Case* c, Budget* b, Pool* works) noexcept nogil:
    settle(c, b, works)
    b.held -= CASE_BYTES + c.n
    free(c.facts)
