# QUIC, compiled: the answers of `quic`, whose words explain it.  Keys and opening are libcrypto's.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from sealwire.crypto._digests cimport Opening, hmac_with, open_with, sample_with
from sealwire.probe.dissect._case cimport (
    CERTAIN, DONE, F_CLIENT_ID, F_QUIC_VERSION, F_RETRY, F_SERVER_ID, LONGEST_ID, MALFORMED, MORE, NO, QUIC,
    UNSURE, Budget, Case, Way, Work, add, be24, be32, claim, put, put_number,
)
from sealwire.probe.dissect._hello cimport (
    Hello, Scratch, client_hello, learn_client, learn_server, server_hello,
)

cdef enum:
    VERSION_1 = 0x00000001
    VERSION_2 = 0x6B3343CF
    INITIAL = 0
    HANDSHAKE = 2
    RETRY = 3
    SAMPLE = 16
    TAG = 16

cdef extern from *:
    """
    static const unsigned char sealwire_salts[3][20] = {
        {0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
         0xcc, 0xbb, 0x7f, 0x0a},
        {0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
         0xf9, 0xbd, 0x2e, 0xd9},
        {0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0,
         0x43, 0x90, 0xa8, 0x99}};
    """
    const uint8_t* SALT_1 "sealwire_salts[0]"
    const uint8_t* SALT_2 "sealwire_salts[1]"
    const uint8_t* SALT_DRAFT "sealwire_salts[2]"


cdef struct Keys:
    uint8_t key[16]
    uint8_t hp[16]
    uint8_t iv[12]


cdef inline const uint8_t* salt_of(uint32_t version) noexcept nogil:
    if version == VERSION_1:
        return SALT_1
    if version == VERSION_2:
        return SALT_2
    return SALT_DRAFT if 0xFF00001DU <= version <= 0xFF000020U else NULL


cdef inline int quic_looks_so(const uint8_t* p, uint32_t n) noexcept nogil:
    cdef uint32_t version, to, rest
    if n < 7 or not p[0] & 0x80:
        return NO
    version, to = be32(p + 1), p[5]
    if to > LONGEST_ID or n < 7 + to or p[6 + to] > LONGEST_ID:
        return NO
    if version == 0:
        if n < 7 + to + p[6 + to] + 4:
            return NO
        rest = n - 7 - to - p[6 + to]
        return UNSURE if rest % 4 == 0 else NO
    if salt_of(version) == NULL or not p[0] & 0x40:
        return NO
    return UNSURE if n >= 7 + to + p[6 + to] else NO


cdef inline int64_t varint(const uint8_t* p, int64_t n, int64_t* at) noexcept nogil:
    cdef int size, i
    cdef uint64_t value
    if at[0] >= n:
        return -1
    size = 1 << (p[at[0]] >> 6)
    if at[0] + size > n:
        return -1
    value = p[at[0]] & 0x3F
    for i in range(1, size):
        value = value << 8 | p[at[0] + i]
    at[0] += size
    return <int64_t>value


cdef inline void expand(Opening* opening, const uint8_t* secret, const char* label, int label_n, uint8_t* out, int n) noexcept nogil:
    # HKDF-Expand-Label without context, up to 32 bytes (RFC 8446 section 7.1, RFC 5869 section 2.3).
    cdef uint8_t info[40]
    cdef uint8_t block[32]
    info[0] = 0
    info[1] = <uint8_t>n
    info[2] = <uint8_t>(6 + label_n)
    memcpy(info + 3, b"tls13 ", 6)
    memcpy(info + 9, label, label_n)
    info[9 + label_n] = 0
    info[10 + label_n] = 1
    hmac_with(opening, secret, 32, info, 11 + label_n, block)
    memcpy(out, block, n)


cdef inline void initial_keys(Opening* opening, uint32_t version, const uint8_t* id, int id_n, bint server, Keys* keys) noexcept nogil:
    cdef uint8_t initial[32]
    cdef uint8_t secret[32]
    hmac_with(opening, salt_of(version), 20, id, id_n, initial)
    expand(opening, initial, b"server in" if server else b"client in", 9, secret, 32)
    if version == VERSION_2:
        expand(opening, secret, b"quicv2 key", 10, keys.key, 16)
        expand(opening, secret, b"quicv2 iv", 9, keys.iv, 12)
        expand(opening, secret, b"quicv2 hp", 9, keys.hp, 16)
    else:
        expand(opening, secret, b"quic key", 8, keys.key, 16)
        expand(opening, secret, b"quic iv", 7, keys.iv, 12)
        expand(opening, secret, b"quic hp", 7, keys.hp, 16)


cdef inline int64_t open_initial(Opening* opening, uint32_t version, const uint8_t* id, int id_n, bint server, const uint8_t* p, int64_t n, int64_t at, uint8_t* out) noexcept nogil:
    # Bytes of frames written to `out`, or -1.
    cdef Keys keys
    cdef uint8_t cover[16]
    cdef uint8_t nonce[12]
    cdef int size, i
    if n < at + 4 + SAMPLE or n > 65535:
        return -1
    initial_keys(opening, version, id, id_n, server, &keys)
    if not sample_with(opening, keys.hp, p + at + 4, cover):
        return -1
    size = ((p[0] ^ cover[0]) & 3) + 1
    if n < at + size + TAG:
        return -1
    memcpy(nonce, keys.iv, 12)
    # The header goes in front of the room for the frames: it is authenticated as it was before protection.
    memcpy(out, p, at + size)
    out[0] ^= cover[0] & 0x0F
    for i in range(size):
        out[at + i] ^= cover[1 + i]
        nonce[12 - size + i] ^= out[at + i]
    if not open_with(opening, keys.key, nonce, out, <int>(at + size), p + at + size, <int>(n - at - size), out + at + size):
        return -1
    return n - at - size - TAG


cdef inline bint skip_ack(const uint8_t* p, int64_t n, int64_t* at, int kind) noexcept nogil:
    cdef int64_t i, value, ranges = 0
    for i in range(4):
        value = varint(p, n, at)
        if value < 0:
            return False
        if i == 2:
            ranges = value
    if ranges > n:
        return False
    for i in range(2 * ranges + (3 if kind == 3 else 0)):
        if varint(p, n, at) < 0:
            return False
    return True


cdef inline void quic_hello(Case* c, Budget* b, Way* way, bint client, Scratch* s) noexcept nogil:
    cdef const uint8_t* p = way.head.kept
    cdef uint32_t at = 0, number = 0, length
    cdef Hello hello
    while at + 4 <= way.head.n and not way.done:
        length = be24(p + at + 1)
        if p[at] != (1 if client else 2):
            c.flags |= MALFORMED
            way.done = 1
            return
        if at + 4 + length > way.head.n:
            return
        if number >= way.messages:
            way.messages = number + 1
            if not (client_hello(&hello, p + at + 4, length, False) if client else server_hello(&hello, p + at + 4, length)):
                c.flags |= MALFORMED
                way.done = 1
            elif client:
                learn_client(c, b, &hello, 113, s)
                way.done = 1
            else:
                way.done = learn_server(c, b, &hello, False, s)
        number += 1
        at += 4 + length


cdef inline void quic_frames(Case* c, Budget* b, Way* way, const uint8_t* p, int64_t n, bint client, Scratch* s) noexcept nogil:
    cdef int64_t at = 0, offset, length
    cdef int kind
    cdef bint good = True
    while at < n:
        kind = p[at]
        at += 1
        if kind <= 1:
            continue
        if kind <= 3:
            good = skip_ack(p, n, &at, kind)
        elif kind == 6:
            offset = varint(p, n, &at)
            length = varint(p, n, &at)
            good = offset >= 0 and 0 <= length <= n - at
            if good:
                if length:
                    add(b, &way.head, offset, p + at, length)
                at += length
        elif kind == 0x1C:
            break
        else:
            good = False
        if not good:
            c.flags |= MALFORMED
            break
    quic_hello(c, b, way, client, s)


cdef inline void quic_initial(Case* c, Budget* b, Work* work, int backward, uint32_t version, const uint8_t* p, int64_t n, int64_t at, Opening* opening, uint8_t* room, Scratch* s) noexcept nogil:
    cdef const uint8_t* to = p + 6
    cdef int to_n = p[5]
    cdef const uint8_t* source = p + 7 + to_n
    cdef int source_n = p[6 + to_n]
    cdef int64_t size = -1
    cdef Way* way = &work.ways[backward]
    cdef int64_t header
    if work.client < 0 or work.client == backward:
        if work.has_id:
            size = open_initial(opening, version, work.first_id, work.id_bytes, False, p, n, at, room)
        if size < 0 and not (work.has_id and work.id_bytes == to_n and memcmp(work.first_id, to, to_n) == 0):
            size = open_initial(opening, version, to, to_n, False, p, n, at, room)
            if size >= 0:
                work.has_id = 1
                work.id_bytes = <uint8_t>to_n
                memcpy(work.first_id, to, to_n)
        if size < 0:
            return
        work.client = <signed char>backward
        claim(c, QUIC, CERTAIN)
        put_number(c, b, F_QUIC_VERSION, version, 4)
        put(c, b, F_CLIENT_ID, source, source_n)
    else:
        size = open_initial(opening, version, work.first_id, work.id_bytes, True, p, n, at, room)
        if size < 0:
            return
    if not way.done:
        header = n - size - TAG
        quic_frames(c, b, way, room + header, size, work.client == backward, s)


cdef inline int64_t quic_packet(Case* c, Budget* b, Work* work, int backward, const uint8_t* p, int64_t n, Opening* opening, uint8_t* room, Scratch* s) noexcept nogil:
    cdef uint32_t version
    cdef int64_t at, length, token
    cdef int kind
    if quic_looks_so(p, <uint32_t>n) == NO:
        return 0
    version = be32(p + 1)
    if version == 0:
        return 0
    at = 7 + p[5]
    at += p[6 + p[5]]
    kind = p[0] >> 4 & 3
    if version == VERSION_2:
        kind = (kind + 3) % 4
    if kind == RETRY:
        if c.certainty == CERTAIN and work.client == 1 - backward:
            put_number(c, b, F_RETRY, 1, 1)
        return 0
    if (kind == INITIAL or kind == HANDSHAKE) and work.client == 1 - backward:
        put(c, b, F_SERVER_ID, p + 7 + p[5], p[6 + p[5]])
    if kind == INITIAL:
        token = varint(p, n, &at)
        if token < 0 or token > n - at:
            return 0
        at += token
    length = varint(p, n, &at)
    if length < 0 or length > n - at:
        return 0
    if kind == INITIAL:
        quic_initial(c, b, work, backward, version, p, at + length, at, opening, room, s)
    return at + length


cdef inline int read_quic(Case* c, Budget* b, Work* work, int backward, const uint8_t* p, int64_t n, Opening* opening, uint8_t* room, Scratch* s) noexcept nogil:
    # `room` has 65,536 bytes.
    cdef int64_t at = 0, length
    while at < n:
        length = quic_packet(c, b, work, backward, p + at, n - at, opening, room, s)
        if length <= 0:
            break
        at += length
    return DONE if work.ways[0].done and work.ways[1].done else MORE
