# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The desk, compiled: the answers of `desk`, byte for byte, without the GIL.

`_case.pxd` is what is kept of a flow, `_hello.pxd`, `_tls.pxd`, `_quic.pxd` and `_texts.pxd` are the
readers; all of them work on a pointer and a length and read nothing behind it.  What is here
decides whose a flow's bytes are, and keeps the account.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from sealwire.crypto._digests cimport end_opening, need_digests, start_opening
from sealwire.probe._decode cimport Packet
from sealwire.probe._features cimport SYN, SYN_ACK_SEEN, TCP_FIELDS, Extension, Record
from sealwire.probe._table cimport Pool, free_pool, give_piece, piece, take_piece
from sealwire.probe.dissect._case cimport (
    CASE_BYTES, CERTAIN, CHUNK, CLIENT, DNS, DONE, DTLS, F_DNS_ANSWER, F_DNS_FLAGS, F_DNS_ID, F_DNS_TYPE, F_NAME,
    HEAD_BYTES, HTTP, MALFORMED, MAX_ASKED, MAX_PACKETS, MDNS, MORE, NO, NO_ROLE, NOT_MINE, QUIC, SERVER, SNIPPET_BYTES,
    SNIPPET_HEAD, SNIPPETS, SSH, STUN, TLS, TRUNCATED, UNKNOWN, UNSURE, WORK_BYTES, Case, Way, Work, add, add_fact,
    block_bytes, charge, claim, free_case, free_head, put, put_number, settle, write_block,
)
from sealwire.probe.dissect._hello cimport Scratch
from sealwire.probe.dissect._quic cimport quic_looks_so, read_quic
from sealwire.probe.dissect._http cimport (
    CHUNKED, CONTRADICTORY, REST, UNTOLD, HttpHead, body_of, body_of_response, http_head, http_looks_so, learn_http, skip_chunks, status_of,
)
from sealwire.probe.dissect._texts cimport (
    Message, dns_plausible, dns_stream_looks_so, learn_stun, read_dns, read_ssh, ssh_looks_so, stun_looks_so, unframed,
)
from sealwire.probe.dissect._tls cimport dtls_looks_so, read_dtls, read_tls, tls_looks_so

cdef enum:
    LEAST_BYTES = 10
    MAX_EVENT_BYTES = 8388608
    EVENT_HEAD = 74
    ROOM_BYTES = 65536


cdef int start_desk(Desk* desk, uint64_t limit) except -1:
    memset(desk, 0, sizeof(Desk))
    desk.budget.limit = limit
    desk.cases.piece, desk.works.piece = sizeof(Case), sizeof(Work)
    need_digests()
    start_opening(&desk.opening)
    desk.scratch = <Scratch*>malloc(sizeof(Scratch))
    desk.room = <uint8_t*>malloc(ROOM_BYTES)
    if desk.scratch == NULL or desk.room == NULL:
        raise MemoryError
    desk.scratch.opening = &desk.opening
    return 0


cdef inline Case* case_of(Desk* desk, uint32_t number) noexcept nogil:
    return <Case*>piece(&desk.cases, number)


cdef void end_desk(Desk* desk) noexcept:
    # Whatever is open is forgotten untold.
    cdef uint32_t number
    for number in range(1, desk.cases.used + 1):
        if case_of(desk, number).open:
            free_case(case_of(desk, number), &desk.budget, &desk.works)
    end_opening(&desk.opening)
    free_pool(&desk.cases)
    free_pool(&desk.works)
    free(desk.facts)
    free(desk.scratch)
    free(desk.room)
    free(desk.events)


cdef bint desk_full(const Desk* desk) noexcept nogil:
    return desk.event_bytes >= MAX_EVENT_BYTES


cdef bint desk_packet(Desk* desk, uint32_t* number, const Record* r, const Extension* e, const Packet* p, const uint8_t* data, int backward, int64_t clock) noexcept nogil:
    cdef Case* c
    cdef Work* work
    cdef Way* way
    cdef bint unknown
    cdef const uint8_t* payload = data + p.payload_at
    if not number[0]:
        if not open_case(desk, number):
            return True
    c = case_of(desk, number[0])
    work = c.work
    way = &work.ways[backward]
    if p.protocol == 17 and (c.protocol == UNKNOWN or c.protocol == DNS or c.protocol == MDNS):
        if look_for_dns(desk, c, r, e, p, payload, clock):
            return False
    if way.packets < 255:
        way.packets += 1
    if way.packets > MAX_PACKETS:
        if work.ways[1 - backward].packets >= MAX_PACKETS or way.packets == 255:
            finish_case(desk, c, r, e, clock)
            return True
        return False
    unknown = c.protocol == UNKNOWN
    if p.protocol == 6:
        stream(desk, c, r, e, p, payload, backward, clock)
    elif p.protocol == 17:
        datagram(desk, c, payload, p.captured, backward)
    else:
        way.foreign = way.done = 1
    if unknown and c.certainty != CERTAIN:
        keep(desk, work, p, payload, backward)
    if over(c, work, p.protocol):
        finish_case(desk, c, r, e, clock)
        return True
    return False


cdef inline bint open_case(Desk* desk, uint32_t* number) noexcept nogil:
    cdef Case* c
    cdef Work* work
    cdef uint32_t place
    if not charge(&desk.budget, CASE_BYTES + WORK_BYTES):
        desk.refused += 1
        return False
    place = take_piece(&desk.works)
    number[0] = take_piece(&desk.cases) if place else 0
    if not number[0]:
        if place:
            give_piece(&desk.works, place)
        desk.budget.no_memory = 1
        return False
    work = <Work*>piece(&desk.works, place)
    memset(work, 0, sizeof(Work))
    work.number = place
    c = case_of(desk, number[0])
    memset(c, 0, sizeof(Case))
    c.open = 1
    work.client = -1
    c.work = work
    desk.opened += 1
    return True


cdef inline bint over(const Case* c, const Work* work, int protocol) noexcept nogil:
    cdef const Way* first = &work.ways[0]
    cdef const Way* second = &work.ways[1]
    if first.packets >= MAX_PACKETS and second.packets >= MAX_PACKETS:
        return True
    if protocol == 1 or protocol == 58:
        return True
    if c.protocol == UNKNOWN:
        return (
            (not first.packets or first.foreign) and (not second.packets or second.foreign)
            and work.snippet_count == SNIPPETS
        )
    return first.done and second.done


cdef inline void keep(Desk* desk, Work* work, const Packet* p, const uint8_t* payload, int backward) noexcept nogil:
    cdef uint32_t n = min(p.captured, <uint32_t>SNIPPET_BYTES), size = min(p.payload_bytes, <uint32_t>0xFFFF)
    cdef uint8_t* more
    if work.snippet_count >= SNIPPETS or not charge(&desk.budget, SNIPPET_HEAD + n):
        return
    more = <uint8_t*>realloc(work.snippets, work.snippet_bytes + SNIPPET_HEAD + n)
    if more == NULL:
        desk.budget.no_memory = 1
        desk.budget.held -= SNIPPET_HEAD + n
        return
    work.snippets = more
    more += work.snippet_bytes
    more[0] = <uint8_t>backward
    more[1], more[2] = <uint8_t>(size & 0xFF), <uint8_t>(size >> 8)
    more[3], more[4] = <uint8_t>(n & 0xFF), <uint8_t>(n >> 8)
    memcpy(more + SNIPPET_HEAD, payload, n)
    work.snippet_bytes += SNIPPET_HEAD + n
    work.snippet_count += 1


cdef inline void drop_snippets(Desk* desk, Work* work) noexcept nogil:
    desk.budget.held -= work.snippet_bytes
    free(work.snippets)
    work.snippets = NULL
    work.snippet_bytes = 0
    work.snippet_count = SNIPPETS


# --- streams -------------------------------------------------------------------------------------

cdef inline uint32_t base_of(const Record* r, const Extension* e, uint32_t start, int backward) noexcept nogil:
    # The sequence number of a direction's first byte.
    if backward == 0:
        return r.sequence + 1 if r.state & TCP_FIELDS and r.flags & SYN else start
    return e.syn_ack_answer if e != NULL and e.letters[0] & SYN_ACK_SEEN else start


cdef inline void stream(Desk* desk, Case* c, const Record* r, const Extension* e, const Packet* p, const uint8_t* payload, int backward, int64_t clock) noexcept nogil:
    cdef Way* way = &c.work.ways[backward]
    cdef Way* other = &c.work.ways[1 - backward]
    cdef bint fresh
    cdef uint32_t start = p.sequence + (1 if p.flags & SYN else 0), offset, n = p.captured, skip
    cdef int verdict
    if way.done or not p.tcp:
        return
    if not way.begun:
        way.begun = 1
        way.base = base_of(r, e, start, backward)
    offset = start - way.base
    if offset >> 31:
        skip = 0 - offset
        if skip >= n:
            return
        payload += skip
        n -= skip
        offset = 0
    if n == 0 or offset > 2 * HEAD_BYTES:
        return
    fresh = offset == 0 and way.head.n == 0 and way.head.waiting == 0
    if fresh and c.protocol == UNKNOWN:
        recognise(c, p, payload, min(n, <uint32_t>HEAD_BYTES))
    # Transactions go on, so what was before is kept.
    if fresh and c.protocol != HTTP and c.protocol != DNS:
        verdict = read_stream(desk, c, payload, min(n, <uint32_t>HEAD_BYTES), backward)
        if verdict == MORE:
            add(&desk.budget, &way.head, 0, payload, n)
    else:
        if not add(&desk.budget, &way.head, offset, payload, n):
            return
        if c.protocol == UNKNOWN:
            recognise(c, p, way.head.kept, way.head.n)
        if c.protocol == HTTP or c.protocol == DNS:
            verdict = read_http(desk, c, r, e, backward, clock) if c.protocol == HTTP else read_dns_stream(desk, c, r, e, way, p, clock)
            if c.certainty == CERTAIN:
                drop_snippets(desk, c.work)
        else:
            verdict = read_stream(desk, c, way.head.kept, way.head.n, backward)
    if n < p.payload_bytes:
        way.head.cut = 1
    if verdict == MORE and (way.head.n >= HEAD_BYTES or way.head.cut):
        c.flags |= TRUNCATED
        verdict = DONE
    if verdict != MORE:
        way.done = 1
        if c.protocol != HTTP and c.protocol != DNS:
            free_head(&desk.budget, &way.head)
        elif way.role == SERVER or (way.role == NO_ROLE and other.messages):
            other.done = 1


cdef inline void recognise(Case* c, const Packet* packet, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef int certainty, skip
    if n < LEAST_BYTES:
        return
    certainty = tls_looks_so(p)
    if certainty:
        claim(c, TLS, certainty)
        return
    certainty = http_looks_so(p, n)
    if certainty:
        claim(c, HTTP, certainty)
        return
    certainty = ssh_looks_so(p)
    if certainty:
        claim(c, SSH, certainty)
        return
    skip = unframed(p, n)
    if stun_looks_so(p + skip, n - skip, True):
        claim(c, STUN, CERTAIN)
    elif (packet.source_port == 53 or packet.destination_port == 53) and dns_stream_looks_so(p):
        claim(c, DNS, UNSURE)


cdef inline int read_stream(Desk* desk, Case* c, const uint8_t* p, uint32_t n, int backward) noexcept nogil:
    cdef Way* way = &c.work.ways[backward]
    cdef int verdict = DONE, skip
    if c.protocol == UNKNOWN:
        if n < LEAST_BYTES:
            return MORE
        way.foreign = 1
        return NOT_MINE
    if c.protocol == TLS:
        verdict = read_tls(c, &desk.budget, way, p, n, desk.room, desk.scratch)
    elif c.protocol == SSH:
        verdict = read_ssh(c, &desk.budget, p, n, backward, <char*>desk.room)
    elif c.protocol == STUN:
        skip = unframed(p, n)
        if stun_looks_so(p + skip, n - skip, True):
            learn_stun(c, &desk.budget, p + skip, backward)
    if c.certainty == CERTAIN:
        drop_snippets(desk, c.work)
    return verdict


# --- events beside the flow's own ----------------------------------------------------------------

cdef inline void begin_event(Desk* desk, Case* event, int protocol, int certainty) noexcept nogil:
    memset(event, 0, sizeof(Case))
    event.protocol, event.certainty = <uint16_t>protocol, <uint8_t>certainty
    event.facts, event.room = desk.facts, desk.facts_room


cdef inline void end_event(Desk* desk, const Case* event, const Record* r, const Extension* e, int64_t clock) noexcept nogil:
    # What held its facts is there for the next.
    desk.facts, desk.facts_room = event.facts, event.room
    desk.budget.held -= event.n
    tell(desk, event, r, e, clock)


# --- transactions: see transactions.py -----------------------------------------------------------

cdef int read_http(Desk* desk, Case* c, const Record* r, const Extension* e, int backward, int64_t clock) noexcept nogil:
    cdef Work* work = c.work
    cdef Way* way = &work.ways[backward]
    cdef const uint8_t* p = way.head.kept
    cdef int n = <int>way.head.n, verdict, role
    cdef int64_t body
    cdef HttpHead head
    while True:
        if way.body:
            verdict = skip_chunks(way, p, n)
            if verdict == NOT_MINE:
                c.flags |= MALFORMED
            if verdict != DONE:
                return DONE if verdict == NOT_MINE or way.at >= HEAD_BYTES else MORE
        if way.messages:
            while <int>way.at < n and (p[way.at] == 13 or p[way.at] == 10):
                way.at += 1
        if way.at >= HEAD_BYTES:
            return DONE
        verdict = http_head(&head, p, n, <int>way.at)
        if verdict == MORE:
            return MORE
        role = SERVER if head.response else CLIENT
        if verdict == NOT_MINE or (way.role and way.role != role):
            if way.messages:
                c.flags |= MALFORMED
                return DONE
            return NOT_MINE
        claim(c, HTTP, CERTAIN)
        way.role = <uint8_t>role
        way.messages += 1
        if not head.whole:
            c.flags |= TRUNCATED
        if role == CLIENT:
            body = http_asked(desk, c, way, &head, p)
        else:
            body = http_answered(desk, c, r, e, &work.ways[1 - backward], &head, p, clock)
        if body == CONTRADICTORY:
            c.flags |= MALFORMED
        if body == CONTRADICTORY or body == REST or not head.whole:
            return DONE
        way.at = head.behind
        if body == CHUNKED:
            way.body = CHUNK
        else:
            way.at = <uint32_t>min(way.at + body, <int64_t>HEAD_BYTES)


cdef inline int64_t http_asked(Desk* desk, Case* c, const Way* way, const HttpHead* head, const uint8_t* p) noexcept nogil:
    cdef Work* work = c.work
    cdef int64_t body
    if way.messages == 1:
        learn_http(c, &desk.budget, head, p)
    if work.asked_count >= MAX_ASKED:
        c.flags |= TRUNCATED
        return REST
    work.asked[work.asked_count] = <uint16_t>way.at
    work.asked_count += 1
    body = body_of(head, p)
    return 0 if body == UNTOLD else body


cdef inline int64_t http_answered(Desk* desk, Case* c, const Record* r, const Extension* e, const Way* asking, const HttpHead* head, const uint8_t* p, int64_t clock) noexcept nogil:
    cdef Work* work = c.work
    cdef HttpHead asked
    cdef HttpHead* request = NULL
    cdef int status = status_of(head)
    if work.asked_count and http_head(&asked, asking.head.kept, <int>asking.head.n, work.asked[0]) == DONE:
        request = &asked
    if 100 <= status < 200 and status != 101:
        return 0
    if not c.told:
        learn_http(c, &desk.budget, head, p)
    if work.asked_count:
        work.asked_count -= 1
        memmove(work.asked, work.asked + 1, work.asked_count * sizeof(uint16_t))
    tell_http(desk, c, r, e, request, asking.head.kept, head, p, clock)
    return body_of_response(head, p, request)


cdef void tell_http(Desk* desk, Case* c, const Record* r, const Extension* e, const HttpHead* request, const uint8_t* asked, const HttpHead* response, const uint8_t* answered, int64_t clock) noexcept nogil:
    cdef Case event
    begin_event(desk, &event, HTTP, CERTAIN)
    if request != NULL:
        learn_http(&event, &desk.budget, request, asked)
    if response != NULL:
        learn_http(&event, &desk.budget, response, answered)
    end_event(desk, &event, r, e, clock)
    c.told = 1


cdef void tell_unanswered(Desk* desk, Case* c, const Record* r, const Extension* e, int64_t clock) noexcept nogil:
    cdef Work* work = c.work
    cdef Way* way
    cdef HttpHead request
    cdef int i, j
    for i in range(2):
        way = &work.ways[i]
        if way.role != CLIENT:
            continue
        for j in range(work.asked_count):
            if http_head(&request, way.head.kept, <int>way.head.n, work.asked[j]) == DONE:
                tell_http(desk, c, r, e, &request, way.head.kept, NULL, NULL, clock)
    work.asked_count = 0


cdef int read_dns_stream(Desk* desk, Case* c, const Record* r, const Extension* e, Way* way, const Packet* packet, int64_t clock) noexcept nogil:
    cdef Message m
    cdef const uint8_t* p = way.head.kept
    cdef uint32_t n = way.head.n, begin, end
    while way.at + 2 <= n:
        begin = way.at + 2
        end = begin + (<uint32_t>p[way.at] << 8 | p[way.at + 1])
        if end > HEAD_BYTES:
            c.flags |= TRUNCATED
            return DONE
        if end > n:
            return MORE
        if not read_dns(&m, p + begin, <int>(end - begin)):
            c.flags |= MALFORMED
            return DONE
        learn_dns(desk, c, r, e, &m, packet, clock)
        way.at = end
    return MORE


# --- datagrams -----------------------------------------------------------------------------------

cdef inline void datagram(Desk* desk, Case* c, const uint8_t* p, uint32_t n, int backward) noexcept nogil:
    cdef Work* work = c.work
    cdef int verdict = MORE
    if c.protocol == UNKNOWN or c.protocol == STUN:
        if stun_looks_so(p, n, False):
            learn_stun(c, &desk.budget, p, backward)
        elif dtls_looks_so(p, n):
            if c.protocol == UNKNOWN:
                claim(c, DTLS, UNSURE)
            else:
                c.protocol, c.certainty = DTLS, UNSURE
        elif c.protocol == UNKNOWN and quic_looks_so(p, n):
            claim(c, QUIC, UNSURE)
        else:
            work.ways[backward].foreign = 1
    if c.protocol == DTLS:
        verdict = read_dtls(c, &desk.budget, work, backward, p, n, desk.room, desk.scratch)
    elif c.protocol == QUIC:
        verdict = read_quic(c, &desk.budget, work, backward, p, n, &desk.opening, desk.room, desk.scratch)
    if verdict == DONE:
        work.ways[0].done = work.ways[1].done = 1
    if c.certainty == CERTAIN:
        drop_snippets(desk, work)


cdef inline bint dns_port(uint32_t port) noexcept nogil:
    return port == 53 or port == 5353 or port == 5355


cdef inline void learn_message(Desk* desk, Case* into, const Message* m, bint event) noexcept nogil:
    if m.name_n:
        put(into, &desk.budget, F_NAME, m.name, m.name_n)
    if event or not m.flags & 0x8000:
        put_number(into, &desk.budget, F_DNS_TYPE, m.kind, 2)
    if event or m.flags & 0x8000:
        put_number(into, &desk.budget, F_DNS_FLAGS, m.flags, 2)


cdef bint look_for_dns(Desk* desk, Case* c, const Record* r, const Extension* e, const Packet* p, const uint8_t* payload, int64_t clock) noexcept nogil:
    cdef Message m
    if c.protocol == UNKNOWN and not dns_port(p.source_port) and not dns_port(p.destination_port):
        return False
    if not read_dns(&m, payload, <int>p.captured):
        if c.protocol != UNKNOWN or dns_plausible(payload, <int>p.captured):
            claim(c, MDNS if p.source_port == 5353 or p.destination_port == 5353 else DNS, UNSURE)
            c.flags |= MALFORMED
        return False
    learn_dns(desk, c, r, e, &m, p, clock)
    return True


cdef void learn_dns(Desk* desk, Case* c, const Record* r, const Extension* e, const Message* m, const Packet* p, int64_t clock) noexcept nogil:
    cdef Case event
    cdef int certainty
    cdef uint32_t i
    cdef uint8_t* at
    if dns_port(p.source_port) or dns_port(p.destination_port):
        certainty = CERTAIN if m.whole else UNSURE
    else:
        certainty = UNSURE if m.whole and m.name_n else NO
    begin_event(desk, &event, MDNS if p.source_port == 5353 or p.destination_port == 5353 else DNS, certainty)
    event.flags = 0 if m.whole else MALFORMED
    claim(c, event.protocol, certainty)
    if c.work != NULL and certainty == CERTAIN:
        drop_snippets(desk, c.work)
    learn_message(desk, &event, m, True)
    learn_message(desk, c, m, False)
    put_number(&event, &desk.budget, F_DNS_ID, m.id, 2)
    for i in range(m.answers):
        at = add_fact(&event, &desk.budget, F_DNS_ANSWER, 6 + m.answer[i].n, True)
        if at != NULL:
            memcpy(at, &m.answer[i].kind, 2)
            memcpy(at + 2, &m.answer[i].ttl, 4)
            memcpy(at + 6, m.answer[i].value, m.answer[i].n)
    end_event(desk, &event, r, e, clock)
    c.told = 1


# --- ways out ------------------------------------------------------------------------------------

cdef inline void finish_case(Desk* desk, Case* c, const Record* r, const Extension* e, int64_t clock) noexcept nogil:
    if c.work != NULL and c.work.asked_count:
        tell_unanswered(desk, c, r, e, clock)
    settle(c, &desk.budget, &desk.works)
    if c.certainty == CERTAIN and not c.told:
        tell(desk, c, r, e, clock)
        c.told = 1


cdef uint32_t desk_close(Desk* desk, uint32_t number, const Record* r, const Extension* e, int64_t ended) noexcept nogil:
    cdef Case* c = case_of(desk, number)
    finish_case(desk, c, r, e, ended)
    return block_bytes(c)


cdef uint32_t desk_block_bytes(Desk* desk, uint32_t number) noexcept nogil:
    return block_bytes(case_of(desk, number))


cdef void desk_write_block(Desk* desk, uint32_t number, uint8_t* to) noexcept nogil:
    write_block(case_of(desk, number), to)


cdef void desk_forget(Desk* desk, uint32_t number) noexcept nogil:
    free_case(case_of(desk, number), &desk.budget, &desk.works)
    case_of(desk, number).open = 0
    give_piece(&desk.cases, number)


cdef inline void write(uint8_t** to, const void* value, size_t n) noexcept nogil:
    memcpy(to[0], value, n)
    to[0] += n


cdef void tell(Desk* desk, const Case* c, const Record* r, const Extension* e, int64_t time) noexcept nogil:
    cdef uint32_t n = EVENT_HEAD + block_bytes(c)
    cdef size_t room
    cdef uint8_t* at
    cdef int64_t start = e.ways[0].first if e != NULL else r.time
    if desk.event_bytes + n > desk.event_room:
        room = max(desk.event_bytes + n, 2 * desk.event_room)
        room = max(room, <size_t>65536)
        at = <uint8_t*>realloc(desk.events, room)
        if at == NULL:
            desk.budget.no_memory = 1
            return
        desk.events, desk.event_room = at, room
    at = desk.events + desk.event_bytes
    write(&at, &n, 4)
    write(&at, &time, 8)
    write(&at, r.source, 16)
    write(&at, r.destination, 16)
    write(&at, &r.source_port, 2)
    write(&at, &r.destination_port, 2)
    write(&at, &r.version, 1)
    write(&at, &r.protocol, 1)
    write(&at, &r.part, 4)
    write(&at, &start, 8)
    write(&at, &r.first_packet, 8)
    write(&at, &r.vlan, 2)
    write(&at, &r.vlan_inner, 2)
    write_block(c, at)
    desk.event_bytes += n
    desk.told += 1


cdef bytes desk_take(Desk* desk, int64_t before, bint all):
    cdef size_t at = 0
    cdef uint32_t n
    cdef int64_t time
    cdef bytes taken
    if all or desk_full(desk):
        at = desk.event_bytes
    while at < desk.event_bytes:
        memcpy(&n, desk.events + at, 4)
        memcpy(&time, desk.events + at + 4, 8)
        if time >= before:
            break
        at += n
    taken = PyBytes_FromStringAndSize(<char*>desk.events, at)
    if at:
        memmove(desk.events, desk.events + at, desk.event_bytes - at)
        desk.event_bytes -= at
    return taken
