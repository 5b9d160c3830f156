# DNS, STUN and SSH, compiled: the answers of `dns`, `stun` and `ssh`, whose words explain them.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from sealwire.crypto._digests cimport MD5, digest
from sealwire.probe.dissect._case cimport (
    CERTAIN, DONE, F_CLIENT_SOFTWARE, F_CONTENT_TYPE, F_DNS_ANSWER, F_HASSH, F_HASSH_SERVER, F_MAPPED,
    F_METHOD, F_NAME, F_SERVER, F_SERVER_SOFTWARE, F_STATUS, F_STUN_METHOD, F_TARGET, F_USER_AGENT,
    HEAD_BYTES, HTTP, MALFORMED, MORE, NO, NOT_MINE, SSH, STUN, TRUNCATED, UNSURE, Budget, Case, add_fact,
    be16, be32, claim, put, put_number,
)
from sealwire.probe.dissect._lines cimport line_end, without_return

cdef enum:
    MAX_ANSWERS = 16
    NAME_BYTES = 255
    # A name whose bytes are all escaped, and a little.
    SHOWN_BYTES = 1100
    LONGEST_VALUE = 255


# --- DNS -----------------------------------------------------------------------------------------

cdef struct Answer:
    uint32_t ttl
    uint16_t kind
    uint16_t n
    uint8_t value[LONGEST_VALUE + 1]


cdef struct Message:
    uint16_t id
    uint16_t flags
    uint16_t kind
    uint16_t name_n
    uint32_t answers
    bint whole
    uint8_t name[SHOWN_BYTES]
    Answer answer[MAX_ANSWERS]


cdef inline int dns_name(const uint8_t* p, int n, int* place, uint8_t* out) noexcept nogil:
    # Characters written, or -1; `place` moves behind the name.
    cdef int at = place[0], behind = -1, total = 0, before = place[0], used = 0, length, target, i
    cdef uint8_t b
    while True:
        if at >= n:
            return -1
        length = p[at]
        if length >= 0xC0:
            if at + 2 > n:
                return -1
            target = (length & 0x3F) << 8 | p[at + 1]
            if behind < 0:
                behind = at + 2
            if target >= before:
                return -1
            at = before = target
            continue
        if length >= 0x40 or at + 1 + length > n:
            return -1
        total += 1 + length
        if total > NAME_BYTES:
            return -1
        at += 1
        if length == 0:
            place[0] = at if behind < 0 else behind
            return used
        if used:
            out[used] = 46
            used += 1
        for i in range(at, at + length):
            b = p[i]
            if 0x20 < b < 0x7F and b != 46 and b != 92:
                out[used] = b
                used += 1
            else:
                out[used] = 92
                out[used + 1] = 48 + b // 100
                out[used + 2] = 48 + b // 10 % 10
                out[used + 3] = 48 + b % 10
                used += 4
        at += length


cdef inline bint dns_record(const uint8_t* p, int n, int* place, Message* into) noexcept nogil:
    cdef uint8_t shown[SHOWN_BYTES]
    cdef int at = place[0], length, kind, size, behind
    cdef Answer* answer
    if dns_name(p, n, &at, shown) < 0 or at + 10 > n:
        return False
    kind, length = <int>be16(p + at), <int>be16(p + at + 8)
    at += 10
    if at + length > n:
        return False
    if into != NULL and into.answers < MAX_ANSWERS:
        answer = &into.answer[into.answers]
        answer.n = 0
        if (kind == 1 and length == 4) or (kind == 28 and length == 16):
            memcpy(answer.value, p + at, length)
            answer.n = <uint16_t>length
        elif kind == 2 or kind == 5 or kind == 12:
            behind = at
            size = dns_name(p, n, &behind, shown)
            if size < 0 or behind != at + length:
                return False
            size = min(size, <int>LONGEST_VALUE)
            memcpy(answer.value, shown, size)
            answer.n = <uint16_t>size
        elif kind == 16 and length and 1 + p[at] <= length:
            memcpy(answer.value, p + at + 1, p[at])
            answer.n = p[at]
        answer.kind, answer.ttl = <uint16_t>kind, be32(p + at - 6)
        into.answers += 1
    place[0] = at + length
    return True


cdef inline bint read_dns(Message* m, const uint8_t* p, int n) noexcept nogil:
    cdef int questions, answers, others, number, at = 12, size
    cdef uint8_t shown[SHOWN_BYTES]
    if n < 12:
        return False
    m.id, m.flags = <uint16_t>be16(p), <uint16_t>be16(p + 2)
    questions, answers = <int>be16(p + 4), <int>be16(p + 6)
    others = <int>be16(p + 8) + <int>be16(p + 10)
    if m.flags & 0x0040 or (m.flags >> 11 & 0xF) > 6 or questions > 64 or questions + answers + others == 0:
        return False
    m.kind = m.name_n = 0
    m.answers = 0
    m.whole = False
    for number in range(questions):
        size = dns_name(p, n, &at, &m.name[0] if number == 0 else &shown[0])
        if size < 0 or at + 4 > n:
            return number > 0
        if number == 0:
            m.name_n, m.kind = <uint16_t>size, <uint16_t>be16(p + at)
        at += 4
    for number in range(answers + others):
        if not dns_record(p, n, &at, m if number < answers else NULL):
            return questions > 0
    m.whole = at == n
    return True


cdef inline bint dns_plausible(const uint8_t* p, int n) noexcept nogil:
    cdef uint32_t flags
    if n < 12:
        return False
    flags = be16(p + 2)
    return not flags & 0x0040 and (flags >> 11 & 0xF) <= 6 and be16(p + 4) == 1


cdef inline bint dns_stream_looks_so(const uint8_t* p) noexcept nogil:
    # Ten bytes: see transactions.looks_like_dns.
    return be16(p) >= 12 and p[6] == 0 and p[7] == 1 and not p[5] & 0x40 and (p[4] >> 3 & 0xF) <= 6


# --- STUN ----------------------------------------------------------------------------------------

cdef inline bint is_cookie(const uint8_t* p) noexcept nogil:
    return p[0] == 0x21 and p[1] == 0x12 and p[2] == 0xA4 and p[3] == 0x42


cdef inline int unframed(const uint8_t* p, int n) noexcept nogil:
    # Bytes of RFC 4571's length in front of the message.
    return 2 if n >= 22 and is_cookie(p + 6) and be16(p) == 20 + be16(p + 4) else 0


cdef inline int stun_looks_so(const uint8_t* p, int n, bint stream) noexcept nogil:
    cdef int length, at = 20
    if n < 20 or p[0] & 0xC0 or not is_cookie(p + 4):
        return NO
    length = <int>be16(p + 2)
    if length % 4 or (20 + length > n if stream else 20 + length != n):
        return NO
    while at < 20 + length:
        if at + 4 > 20 + length:
            return NO
        at += 4 + ((<int>be16(p + at + 2) + 3) & ~3)
    return CERTAIN if at == 20 + length else NO


cdef inline void learn_stun(Case* c, Budget* b, const uint8_t* p, int backward) noexcept nogil:
    cdef int kind = <int>be16(p), at = 20, end = 20 + <int>be16(p + 2), attribute, n, i
    cdef bint covered
    cdef uint8_t mapped[18]
    claim(c, STUN, CERTAIN)
    put_number(c, b, F_STUN_METHOD, kind & 0xF | (kind & 0xE0) >> 1 | (kind & 0x3E00) >> 2, 2)
    while at < end:
        attribute, n = <int>be16(p + at), <int>be16(p + at + 2)
        at += 4
        if attribute == 0x0014 and 0 < n <= 255:
            put(c, b, F_NAME, p + at, n)
        elif attribute == 0x8022 and 0 < n <= 255:
            put(c, b, F_SERVER_SOFTWARE if backward else F_CLIENT_SOFTWARE, p + at, n)
        elif (attribute == 0x0020 or attribute == 0x0001) and (n == 8 or n == 20) and kind & 0x0110 == 0x0100:
            covered = attribute == 0x0020
            mapped[0] = p[at + 3] ^ (0x12 if covered else 0)
            mapped[1] = p[at + 2] ^ (0x21 if covered else 0)
            for i in range(n - 4):
                mapped[2 + i] = p[at + 4 + i] ^ (p[4 + i] if covered else 0)
            put(c, b, F_MAPPED, mapped, n - 2)
        at += (n + 3) & ~3


# --- SSH -----------------------------------------------------------------------------------------

cdef inline int ssh_looks_so(const uint8_t* p) noexcept nogil:
    if memcmp(p, b"SSH-", 4) != 0 or (p[4] != 49 and p[4] != 50) or p[5] != 46:
        return NO
    return UNSURE


cdef inline int read_ssh(Case* c, Budget* b, const uint8_t* p, int n, int backward, char* text) noexcept nogil:
    # `text` has HEAD_BYTES of room.
    cdef int end = line_end(p, 0, min(n, 256)), at, stop, number, used = 0
    cdef uint32_t length, size
    cdef uint8_t hash[16]
    if end < 0:
        return NOT_MINE if n > 255 else MORE
    claim(c, SSH, CERTAIN)
    put(c, b, F_SERVER_SOFTWARE if backward else F_CLIENT_SOFTWARE, p, without_return(p, 0, end))
    at = end + 1
    if at + 6 > n:
        return MORE
    length = be32(p + at)
    if length < 22 or length > 35000 or p[at + 5] != 20:
        c.flags |= MALFORMED
        return DONE
    stop = at + 4 + <int>length
    if stop > n:
        return MORE
    at += 6 + 16
    if at > stop:
        c.flags |= MALFORMED
        return DONE
    for number in range(8):
        if stop - at < 4:
            c.flags |= MALFORMED
            return DONE
        size = be32(p + at)
        at += 4
        if size > <uint32_t>(stop - at):
            c.flags |= MALFORMED
            return DONE
        if number == 0 or number == (3 if backward else 2) or number == (5 if backward else 4) or number == (7 if backward else 6):
            if number:
                text[used] = 59
                used += 1
            memcpy(text + used, p + at, size)
            used += <int>size
        at += <int>size
    if not c.known >> (F_HASSH_SERVER if backward else F_HASSH) & 1:
        digest(MD5, <const uint8_t*>text, used, hash)
        put(c, b, F_HASSH_SERVER if backward else F_HASSH, hash, 16)
    return DONE
