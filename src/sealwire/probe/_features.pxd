# What is kept of a flow, compiled: the record every flow has, the extension its second packet adds,
# the row it becomes, and how a packet changes them.  The answers are those of `flows`.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from sealwire.probe._decode cimport Packet

cdef extern from *:
    """
    #define SEALWIRE_MAX_SQUARED_GAP (((uint64_t)1 << 48) - 1)
    static const char sealwire_letters[] = "SHIADTWGFR";
    /* Sums of squared gaps need 128 bits; compilers that have none of them use the twin. */
    static inline void sealwire_add_square(uint64_t *low, uint64_t *high, uint64_t gap) {
        unsigned __int128 square = (unsigned __int128)gap * gap;
        unsigned __int128 sum = (((unsigned __int128)*high << 64) | *low) + square;
        *low = (uint64_t)sum;
        *high = (uint64_t)(sum >> 64);
    }
    /* See files.Interface.time. */
    static inline int64_t sealwire_time(uint64_t stamp, uint64_t multiplier, uint64_t divisor, int shift,
                                        int64_t offset, int *cut) {
        unsigned __int128 scaled = ((unsigned __int128)stamp * multiplier) >> shift;
        if (divisor != 1)
            scaled /= divisor;
        __int128 value = (__int128)scaled + offset;
        const int64_t most = ((int64_t)1 << 62) - 1;
        *cut = value < 0 || value > most;
        return value < 0 ? 0 : value > most ? most : (int64_t)value;
    }
    """
    const uint64_t MAX_SQUARED_GAP "SEALWIRE_MAX_SQUARED_GAP"
    const char* LETTERS "sealwire_letters"
    void add_square "sealwire_add_square"(uint64_t* low, uint64_t* high, uint64_t gap) noexcept nogil
    int64_t stamp_time "sealwire_time"(uint64_t stamp, uint64_t multiplier, uint64_t divisor, int shift, int64_t offset, int* cut) noexcept nogil

cdef enum:
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    ACK = 0x10

    MARK_MIDSTREAM = 1
    MARK_FRAGMENTS = 2
    MARK_CONTINUED = 4

    # Bits of Record.state
    UPWARD = 1
    ONE_WAY = 2
    ENDING = 4
    TCP_FIELDS = 8
    FRAGMENT_SHIFT = 4  # two bits
    DISSECTED = 64

    # Bits of Extension.letters[0] above those of the ten letters
    FOLLOWS = 0x1000  # and 0x2000, backward
    SYN_SEEN = 0x4000
    SYN_ACK_SEEN = 0x8000

    HISTORY_BYTES = 20

    NOTHING = -1


cdef struct Way:
    uint64_t packets
    uint64_t bytes
    uint64_t payload_bytes
    uint64_t wire_bytes
    int64_t first
    int64_t last
    uint64_t size_square_sum
    uint32_t size_min
    uint32_t size_max
    int64_t gap_min
    int64_t gap_max
    uint64_t gap_sum
    uint64_t gap_square_low
    uint64_t gap_square_high
    uint32_t retransmissions
    uint32_t out_of_order
    uint32_t holes
    uint32_t zero_windows
    uint16_t window_min
    uint16_t window_max
    uint8_t flags
    uint8_t ttl_min
    uint8_t ttl_max
    uint8_t tos


cdef struct Row:
    uint8_t source[16]
    uint8_t destination[16]
    uint16_t source_port
    uint16_t destination_port
    uint8_t version
    uint8_t protocol
    uint8_t reason
    uint8_t marks
    uint16_t vlan
    uint16_t vlan_inner
    uint32_t part
    uint64_t first_packet
    int64_t ended
    int64_t handshake_server
    int64_t handshake_client
    int64_t response
    uint8_t history[HISTORY_BYTES]
    uint32_t facts_bytes
    Way ways[2]


cdef struct Stream:
    uint32_t next_sequence
    uint32_t hole_start[2]
    uint32_t hole_end[2]


cdef struct Extension:
    Way ways[2]
    int64_t handshake_server
    int64_t handshake_client
    int64_t response
    uint8_t history[HISTORY_BYTES]
    uint16_t letters[2]
    int64_t syn_time
    int64_t syn_ack_time
    int64_t request
    uint32_t syn_answer
    uint32_t syn_ack_answer
    Stream streams[2]


cdef struct Sequence:
    # Behind the extension where first sizes and gaps are kept; entries follow.
    int64_t latest
    uint32_t count
    uint32_t padding


cdef struct Entry:
    int size
    uint32_t gap


cdef struct Record:
    uint8_t source[16]
    uint8_t destination[16]
    uint16_t source_port
    uint16_t destination_port
    uint8_t version
    uint8_t protocol
    uint8_t marks
    uint8_t state
    uint16_t vlan
    uint16_t vlan_inner
    uint32_t part
    uint64_t first_packet
    int64_t started
    int64_t due  # when it was touched; while ENDING, when its linger is over
    uint32_t hash
    uint32_t next
    uint32_t older
    uint32_t newer
    uint32_t extension
    uint32_t ip_bytes
    # The first packet, until a second one comes.
    int64_t time
    uint32_t payload_bytes
    uint32_t wire_bytes
    uint32_t sequence
    uint16_t window
    uint8_t ttl
    uint8_t tos
    uint8_t flags
    uint32_t case  # what dissection knows, 0 for nothing


cdef inline void start_extension(Extension* e) noexcept nogil:
    memset(e, 0, sizeof(Extension))
    e.handshake_server = e.handshake_client = e.response = e.request = NOTHING
    e.ways[0].gap_min = e.ways[0].gap_max = e.ways[1].gap_min = e.ways[1].gap_max = NOTHING
    e.ways[0].window_min = e.ways[1].window_min = 0xFFFF


cdef inline void letter(Extension* e, int index, int backward) noexcept nogil:
    cdef uint16_t bit = <uint16_t>(1 << index)
    cdef int at = 0
    if e.letters[backward] & bit:
        return
    e.letters[backward] |= bit
    # Ten letters in two directions are HISTORY_BYTES, so one is free.
    while e.history[at]:
        at += 1
    e.history[at] = <uint8_t>LETTERS[index] | (0x20 if backward else 0)


cdef inline int ahead_of(uint32_t a, uint32_t b) noexcept nogil:
    return <int>(a - b)


cdef inline void follow(Extension* e, const Packet* p, int backward) noexcept nogil:
    cdef Stream* s = &e.streams[backward]
    cdef Way* way = &e.ways[backward]
    cdef uint32_t length = p.payload_bytes + (1 if p.flags & SYN else 0) + (1 if p.flags & FIN else 0)
    cdef uint32_t start = p.sequence, end = p.sequence + length
    cdef int ahead, i
    if not e.letters[0] & (FOLLOWS << backward):
        e.letters[0] |= <uint16_t>(FOLLOWS << backward)
        s.next_sequence = end
        return
    if length == 0:
        return
    ahead = ahead_of(start, s.next_sequence)
    if ahead >= 0:
        if ahead > 0:
            way.holes += 1
            letter(e, 7, backward)
            s.hole_start[0] = s.hole_start[1]
            s.hole_end[0] = s.hole_end[1]
            s.hole_start[1] = s.next_sequence
            s.hole_end[1] = start
        s.next_sequence = end
        return
    if ahead == -1 and length <= 1 and not p.flags & (SYN | FIN):
        return
    for i in range(2):
        if s.hole_start[i] != s.hole_end[i]:
            if ahead_of(start, s.hole_start[i]) >= 0 and ahead_of(s.hole_end[i], end) >= 0:
                way.out_of_order += 1
                if start == s.hole_start[i]:
                    s.hole_start[i] = end
                else:
                    s.hole_end[i] = start
                return
    way.retransmissions += 1
    letter(e, 5, backward)
    if ahead_of(end, s.next_sequence) > 0:
        s.next_sequence = end


cdef inline void handshake(Extension* e, const Packet* p, int64_t time, int backward) noexcept nogil:
    cdef int flags = p.flags & (SYN | ACK | RST | FIN)
    if backward == 0 and flags == SYN:
        if e.handshake_server == NOTHING:
            e.letters[0] |= SYN_SEEN
            e.syn_answer = p.sequence + 1
            e.syn_time = time
    elif backward and flags == SYN | ACK:
        if e.letters[0] & SYN_SEEN and p.acknowledgment == e.syn_answer and e.handshake_client == NOTHING:
            if e.handshake_server == NOTHING:
                e.handshake_server = max(time - e.syn_time, 0)
            e.letters[0] |= SYN_ACK_SEEN
            e.syn_ack_answer = p.sequence + 1
            e.syn_ack_time = time
    elif backward == 0 and p.flags & ACK and not p.flags & (SYN | RST):
        if e.letters[0] & SYN_ACK_SEEN and e.handshake_client == NOTHING and p.acknowledgment == e.syn_ack_answer:
            e.handshake_client = max(time - e.syn_ack_time, 0)


cdef inline void tcp(Extension* e, const Packet* p, int64_t time, int backward) noexcept nogil:
    cdef Way* way = &e.ways[backward]
    cdef int syn = p.flags & SYN, ack = p.flags & ACK, fin = p.flags & FIN, rst = p.flags & RST
    if syn:
        letter(e, 1 if ack else 0, backward)
    if (syn != 0) + (fin != 0) + (rst != 0) > 1:
        letter(e, 2, backward)
    if ack and not (syn or fin or rst or p.payload_bytes):
        letter(e, 3, backward)
    if p.payload_bytes:
        letter(e, 4, backward)
    handshake(e, p, time, backward)
    if not rst:
        if p.window < way.window_min:
            way.window_min = p.window
        if p.window > way.window_max:
            way.window_max = p.window
        if p.window == 0 and not (syn or fin):
            way.zero_windows += 1
            letter(e, 6, backward)
        if p.fragment == 0:
            follow(e, p, backward)
    if fin:
        letter(e, 8, backward)
    if rst:
        letter(e, 9, backward)


cdef inline void update(Extension* e, uint8_t* marks, const Packet* p, int64_t time, uint32_t wire_bytes, int backward, int first_packets) noexcept nogil:
    cdef Way* way = &e.ways[backward]
    cdef uint32_t size = p.ip_bytes
    cdef int64_t gap
    cdef Sequence* sequence
    cdef Entry* entry
    if first_packets:
        sequence = <Sequence*>(e + 1)
        if sequence.count < <uint32_t>first_packets:
            entry = <Entry*>(sequence + 1) + sequence.count
            gap = (time - sequence.latest) // 1000 if sequence.count and time > sequence.latest else 0
            entry.gap = <uint32_t>(gap if gap >> 32 == 0 else 0xFFFFFFFF)
            entry.size = -<int>size if backward else <int>size
            sequence.count += 1
        sequence.latest = time
    if way.packets:
        gap = time - way.last if time > way.last else 0
        if way.packets == 1 or gap < way.gap_min:
            way.gap_min = gap
        if gap > way.gap_max:
            way.gap_max = gap
        way.gap_sum += <uint64_t>gap
        add_square(&way.gap_square_low, &way.gap_square_high, min(<uint64_t>gap, MAX_SQUARED_GAP))
        if time > way.last:
            way.last = time
        if size < way.size_min:
            way.size_min = size
        if size > way.size_max:
            way.size_max = size
        if p.ttl < way.ttl_min:
            way.ttl_min = p.ttl
        if p.ttl > way.ttl_max:
            way.ttl_max = p.ttl
    else:
        way.first = way.last = time
        way.size_min = way.size_max = size
        way.ttl_min = way.ttl_max = p.ttl
        way.tos = p.tos
    way.packets += 1
    way.bytes += size
    way.payload_bytes += p.payload_bytes
    way.wire_bytes += wire_bytes
    way.size_square_sum += <uint64_t>size * size
    way.flags |= p.flags
    if p.fragment:
        marks[0] |= MARK_FRAGMENTS
        if p.fragment == 2:
            return
    if p.payload_bytes:
        if backward == 0:
            if e.request == NOTHING:
                e.request = time
        elif e.request != NOTHING and e.response == NOTHING:
            e.response = max(time - e.request, 0)
    if p.tcp:
        tcp(e, p, time, backward)
    elif p.protocol == 17 and p.payload_bytes:
        letter(e, 4, backward)


cdef inline void replay(const Record* r, uint8_t* marks, Extension* e, int first_packets) noexcept nogil:
    # The first packet of a flow, counted into a fresh extension.
    cdef Packet p
    memset(&p, 0, sizeof(p))
    p.protocol = r.protocol
    p.tcp = 1 if r.state & TCP_FIELDS else 0
    p.fragment = <uint8_t>(r.state >> FRAGMENT_SHIFT) & 3
    p.flags = r.flags
    p.ttl = r.ttl
    p.tos = r.tos
    p.ip_bytes = r.ip_bytes
    p.payload_bytes = r.payload_bytes
    p.sequence = r.sequence
    p.window = r.window
    start_extension(e)
    if first_packets:
        memset(e + 1, 0, sizeof(Sequence) + first_packets * sizeof(Entry))
    update(e, marks, &p, r.time, r.wire_bytes, 0, first_packets)


cdef inline void start_record(Record* r, const Packet* p, bint upward, uint32_t part, int64_t time, uint32_t wire_bytes) noexcept nogil:
    # What a flow's first packet says; `part` counts the parts of the flow exported before.
    memset(r, 0, sizeof(Record))
    memcpy(r.source, p.source, 16)
    memcpy(r.destination, p.destination, 16)
    r.source_port, r.destination_port = p.source_port, p.destination_port
    r.version, r.protocol = p.version, p.protocol
    r.marks = MARK_CONTINUED if part else 0
    if p.tcp and not part and p.flags & (SYN | ACK) != SYN:
        r.marks |= MARK_MIDSTREAM
    r.state = (UPWARD if upward else 0) | (ONE_WAY if p.one_way else 0) | (TCP_FIELDS if p.tcp else 0)
    r.state |= <uint8_t>(p.fragment << FRAGMENT_SHIFT)
    r.vlan, r.vlan_inner = p.vlan, p.vlan_inner
    r.part = part
    r.time = time
    r.ip_bytes, r.payload_bytes, r.wire_bytes = p.ip_bytes, p.payload_bytes, wire_bytes
    r.sequence, r.window, r.ttl, r.tos, r.flags = p.sequence, p.window, p.ttl, p.tos, p.flags


cdef inline void fill_row(Row* row, const Record* r, const Extension* e, uint8_t reason, int64_t ended) noexcept nogil:
    cdef int i
    memcpy(row.source, r.source, 16)
    memcpy(row.destination, r.destination, 16)
    row.source_port, row.destination_port = r.source_port, r.destination_port
    row.version, row.protocol = r.version, r.protocol
    row.reason, row.marks = reason, r.marks
    row.vlan, row.vlan_inner = r.vlan, r.vlan_inner
    row.part, row.first_packet, row.ended = r.part, r.first_packet, ended
    row.handshake_server, row.handshake_client = e.handshake_server, e.handshake_client
    row.response = e.response
    memcpy(row.history, e.history, HISTORY_BYTES)
    row.facts_bytes = 0
    memcpy(row.ways, e.ways, sizeof(e.ways))
    for i in range(2):
        if row.ways[i].window_min > row.ways[i].window_max:
            row.ways[i].window_min = 0
