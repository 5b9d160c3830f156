# TLS streams and DTLS datagrams, compiled: the answers of `tls` and `dtls`, whose words explain them.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from sealwire.probe.dissect._case cimport (
    CERTAIN, DONE, DTLS, F_ALERT, F_CERTIFICATE, F_GROUP, F_RETRY, HEAD_BYTES, MALFORMED, MORE, NO, NOT_MINE,
    TLS, TRUNCATED, UNSURE, Budget, Case, Way, Work, add, be16, be24, claim, free_head, has, put, put_number,
)
from sealwire.probe.dissect._hello cimport (
    Hello, Scratch, client_hello, learn_client, learn_server, server_hello,
)

cdef enum:
    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    HELLO_VERIFY_REQUEST = 3
    CERTIFICATE = 11
    SERVER_HELLO_DONE = 14
    MAX_RECORD_BYTES = 18432
    MAX_CERTIFICATE_BYTES = 8192
    RECORD_HEADER = 13
    FRAGMENT_HEADER = 12


cdef inline int tls_looks_so(const uint8_t* p) noexcept nogil:
    cdef uint32_t length = be16(p + 3)
    if p[1] != 3 or p[2] > 4 or length == 0 or length > MAX_RECORD_BYTES:
        return NO
    if p[0] == HANDSHAKE and (p[5] == CLIENT_HELLO or p[5] == SERVER_HELLO) and p[6] == 0:
        return UNSURE
    if p[0] == 23 or (p[0] == ALERT and length == 2 and (p[5] == 1 or p[5] == 2)):
        return UNSURE
    return NO


cdef inline void learn_certificate(Case* c, Budget* b, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef uint32_t length
    if n < 6:
        return
    length = be24(p + 3)
    if length and length <= MAX_CERTIFICATE_BYTES and 6 + length <= n:
        put(c, b, F_CERTIFICATE, p + 6, length)


cdef inline bint stream_message(Case* c, Budget* b, int kind, const uint8_t* p, uint32_t n, Scratch* s) noexcept nogil:
    cdef Hello hello
    if kind == CLIENT_HELLO:
        if client_hello(&hello, p, n, False):
            claim(c, TLS, CERTAIN)
            learn_client(c, b, &hello, 116, s)
        else:
            c.flags |= MALFORMED
        return True
    if kind == SERVER_HELLO:
        if not server_hello(&hello, p, n):
            c.flags |= MALFORMED
            return True
        claim(c, TLS, CERTAIN)
        return learn_server(c, b, &hello, False, s) and has(c, F_GROUP)
    if kind == CERTIFICATE:
        learn_certificate(c, b, p, n)
        return True
    return kind == SERVER_HELLO_DONE


cdef inline int read_messages(Case* c, Budget* b, Way* way, const uint8_t* p, uint32_t n, bint ended, Scratch* s) noexcept nogil:
    cdef uint32_t at = 0, number = 0, length
    while at + 4 <= n:
        length = be24(p + at + 1)
        if at + 4 + length > n:
            break
        if number >= way.messages:
            way.messages = number + 1
            if stream_message(c, b, p[at], p + at + 4, length, s):
                return DONE
        number += 1
        at += 4 + length
    return DONE if ended else MORE


cdef inline int read_tls(Case* c, Budget* b, Way* way, const uint8_t* p, uint32_t n, uint8_t* joined, Scratch* s) noexcept nogil:
    # `joined` has HEAD_BYTES of room for messages that lie in several records.
    cdef uint32_t at = 0, length, there, used = 0
    cdef const uint8_t* messages = joined
    cdef int records = 0
    cdef bint ended = False
    while at + 5 <= n:
        length = be16(p + at + 3)
        if p[at + 1] != 3 or p[at + 2] > 4 or length > MAX_RECORD_BYTES:
            ended = True
            if at == 0:
                return NOT_MINE
            c.flags |= MALFORMED
            break
        there = min(length, n - at - 5)
        if p[at] == HANDSHAKE:
            records += 1
            if records == 1:
                messages = p + at + 5
            else:
                if records == 2:
                    memcpy(joined, messages, used)
                    messages = joined
                memcpy(joined + used, p + at + 5, there)
            used += there
        elif p[at] == CHANGE_CIPHER_SPEC and has(c, F_RETRY):
            pass
        elif p[at] == ALERT and length == 2:
            if there == 2:
                put_number(c, b, F_ALERT, p[at + 6], 1)
                ended = p[at + 5] != 1 or p[at + 6] == 0
            if ended:
                break
        else:
            ended = True
            break
        if length > n - at - 5:
            break
        at += 5 + length
    return read_messages(c, b, way, messages, used, ended, s)


# --- datagrams -----------------------------------------------------------------------------------

cdef inline int dtls_looks_so(const uint8_t* p, uint32_t n) noexcept nogil:
    if n < RECORD_HEADER or p[0] < 20 or p[0] > 26 or p[1] != 0xFE:
        return NO
    if p[2] != 0xFF and p[2] != 0xFD and p[2] != 0xFC:
        return NO
    if p[0] != 25 and RECORD_HEADER + be16(p + 11) > n:
        return NO
    return UNSURE


cdef inline void dtls_message(Case* c, Budget* b, Work* work, int backward, int kind, const uint8_t* p, uint32_t n, Scratch* s) noexcept nogil:
    cdef Hello hello
    cdef Way* way = &work.ways[backward]
    if kind == CLIENT_HELLO:
        if not client_hello(&hello, p, n, True):
            c.flags |= MALFORMED
            return
        claim(c, DTLS, CERTAIN)
        work.client = <signed char>backward
        learn_client(c, b, &hello, 100, s)
    elif kind == HELLO_VERIFY_REQUEST:
        put_number(c, b, F_RETRY, 1, 1)
    elif kind == SERVER_HELLO:
        if not server_hello(&hello, p, n):
            c.flags |= MALFORMED
            return
        claim(c, DTLS, CERTAIN)
        if learn_server(c, b, &hello, True, s):
            work.ways[1 - backward].done = 1
            way.done = has(c, F_GROUP)
    else:
        learn_certificate(c, b, p, n)
        way.done = 1


cdef inline void dtls_fragment(Case* c, Budget* b, Work* work, int backward, const uint8_t* header, const uint8_t* body, uint8_t* joined, Scratch* s) noexcept nogil:
    cdef Way* way = &work.ways[backward]
    cdef uint32_t length = be24(header + 1), number = be16(header + 4)
    cdef int kind = header[0]
    if length > HEAD_BYTES:
        c.flags |= TRUNCATED
        return
    if not way.kind:
        way.kind, way.number, way.length = header[0], <uint16_t>number, length
    if way.kind != kind or way.number != number or way.length != length:
        return
    if add(b, &way.head, be24(header + 6), body, be24(header + 9)) and way.head.n >= length:
        memcpy(joined, way.head.kept, length)
        free_head(b, &way.head)
        way.kind = 0
        dtls_message(c, b, work, backward, kind, joined, length, s)


cdef inline void dtls_fragments(Case* c, Budget* b, Work* work, int backward, const uint8_t* p, uint32_t size, uint8_t* joined, Scratch* s) noexcept nogil:
    cdef Way* way = &work.ways[backward]
    cdef uint32_t at = 0, length, offset, n
    cdef const uint8_t* header
    while at + FRAGMENT_HEADER <= size and not way.done:
        header = p + at
        length, offset, n = be24(header + 1), be24(header + 6), be24(header + 9)
        at += FRAGMENT_HEADER
        if offset + n > length or n > size - at:
            c.flags |= MALFORMED
            return
        at += n
        if header[0] == SERVER_HELLO_DONE:
            way.done = 1
        elif header[0] == CLIENT_HELLO or header[0] == SERVER_HELLO or header[0] == HELLO_VERIFY_REQUEST or header[0] == CERTIFICATE:
            if n == length:
                dtls_message(c, b, work, backward, header[0], header + FRAGMENT_HEADER, n, s)
            else:
                dtls_fragment(c, b, work, backward, header, header + FRAGMENT_HEADER, joined, s)


cdef inline int read_dtls(Case* c, Budget* b, Work* work, int backward, const uint8_t* p, uint32_t n, uint8_t* joined, Scratch* s) noexcept nogil:
    cdef uint32_t at = 0, length
    cdef const uint8_t* record
    while at + RECORD_HEADER <= n:
        record = p + at
        if record[1] != 0xFE or record[0] < 20 or record[0] > 23:
            break
        length = be16(record + 11)
        if length > MAX_RECORD_BYTES or length > n - at - RECORD_HEADER:
            break
        at += RECORD_HEADER + length
        if record[3] or record[4]:
            work.ways[backward].done = 1
            continue
        if record[0] == ALERT and length == 2:
            put_number(c, b, F_ALERT, record[RECORD_HEADER + 1], 1)
        elif record[0] == HANDSHAKE:
            dtls_fragments(c, b, work, backward, record + RECORD_HEADER, length, joined, s)
    return DONE if work.ways[0].done and work.ways[1].done else MORE
