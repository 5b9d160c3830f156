# The records of capture files, one at a time: what is next in a block of bytes.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from libc.string cimport memcpy

from sealwire.probe._features cimport stamp_time

cdef enum:
    # files.Stop, and what only the compiled walk answers.
    MORE = 0
    FULL = 1
    BUDGET = 2
    CONTROL = 3
    CORRUPT = 4
    NO_MEMORY = 5
    RECORD = 6
    STRANGER = 7  # a packet of an interface that was not described

    MAX_BLOCK_BYTES = 16777216


cdef struct Interface:
    uint64_t multiplier
    uint64_t divisor
    int64_t offset
    uint32_t link
    uint32_t snaplen
    int shift
    const void* program


cdef struct Input:
    const uint8_t* data
    int64_t n
    int64_t at
    const Interface* faces
    uint32_t face_count
    uint32_t record_header
    uint32_t record_limit
    uint64_t unit  # of a plain file: parts of a second
    bint big
    bint plain


cdef struct Found:
    int64_t body
    int64_t next
    int64_t time
    uint32_t captured
    uint32_t wire
    const Interface* face
    int cut
    bint timeless  # it has no time of its own


cdef inline uint32_t number(const uint8_t* p, bint big) noexcept nogil:
    if big:
        return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]
    return (<uint32_t>p[3] << 24) | (<uint32_t>p[2] << 16) | (<uint32_t>p[1] << 8) | p[0]


cdef inline int next_record(Input* f, Found* r) noexcept nogil:
    # RECORD or STRANGER with `r` filled, or why there is none; f.at moves over other blocks only.
    return next_pcap(f, r) if f.plain else next_pcapng(f, r)


cdef inline int next_pcap(const Input* f, Found* r) noexcept nogil:
    cdef const uint8_t* p = f.data + f.at
    if f.n - f.at < f.record_header:
        return MORE
    r.captured = number(p + 8, f.big)
    if r.captured > f.record_limit:
        return CORRUPT
    r.body = f.at + f.record_header
    r.next = r.body + r.captured
    if r.next > f.n:
        return MORE
    r.wire = number(p + 12, f.big)
    r.timeless = False
    r.face = f.faces
    r.time = face_time(r.face, number(p, f.big) * f.unit + number(p + 4, f.big), &r.cut)
    return RECORD


cdef inline int64_t face_time(const Interface* face, uint64_t stamp, int* cut) noexcept nogil:
    return stamp_time(stamp, face.multiplier, face.divisor, face.shift, face.offset, cut)


cdef inline int next_pcapng(Input* f, Found* r) noexcept nogil:
    cdef const uint8_t* p
    cdef uint32_t kind, length, which
    while f.n - f.at >= 12:
        p = f.data + f.at
        kind = number(p, f.big)
        length = number(p + 4, f.big)
        if kind == 0x0A0D0D0A or kind == 1:
            return CONTROL
        if length < 12 or length % 4 or length > MAX_BLOCK_BYTES:
            return CORRUPT
        if length > f.n - f.at:
            return MORE
        r.next = f.at + length
        if kind == 6 or kind == 2:
            if length < 32:
                return CORRUPT
            which = number(p + 8, f.big)
            if kind == 2:  # 16 bits of interface, then 16 bits of drops
                which = <uint32_t>p[8] << 8 | p[9] if f.big else <uint32_t>p[9] << 8 | p[8]
            r.captured = min(number(p + 20, f.big), length - 32)
            r.wire = number(p + 24, f.big)
            r.body = f.at + 28
        elif kind == 3:
            if length < 16:
                return CORRUPT
            which = 0
            r.wire = number(p + 8, f.big)
            r.captured = min(r.wire, length - 16)
            r.body = f.at + 12
        else:
            f.at = r.next
            continue
        r.timeless = kind == 3 or which >= f.face_count
        r.cut = 0
        if which >= f.face_count:
            return STRANGER
        r.face = f.faces + which
        if kind == 3:  # it has no time, and happened after what was before it
            if r.face.snaplen and r.captured > r.face.snaplen:
                r.captured = r.face.snaplen
        else:
            r.time = face_time(r.face, <uint64_t>number(p + 12, f.big) << 32 | number(p + 16, f.big), &r.cut)
        return RECORD
    return MORE


# --- a block of the kernel's ring (TPACKET_V3, Documentation/networking/packet_mmap.rst) ----------

cdef struct RingPacket:
    int64_t body
    int64_t time
    uint32_t captured
    uint32_t wire
    uint32_t next
    int vlan


cdef inline uint32_t native(const uint8_t* p) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, p, 4)
    return value


cdef inline bint first_in_block(const uint8_t* data, int64_t n, int64_t block, int64_t* at, uint32_t* left) noexcept nogil:
    if block < 0 or block + 48 > n:
        return False
    left[0] = native(data + block + 12)
    at[0] = block + native(data + block + 16)
    return True


cdef inline bint ring_packet(const uint8_t* data, int64_t n, int64_t at, RingPacket* p) noexcept nogil:
    # False for what the kernel would not write.
    cdef const uint8_t* h = data + at
    cdef uint32_t seconds, status
    cdef uint16_t mac
    if at < 0 or at + 48 > n:
        return False
    p.next = native(h)
    seconds = native(h + 4)
    p.time = <int64_t>seconds * 1000000000 + native(h + 8)
    p.captured = native(h + 12)
    p.wire = native(h + 16)
    status = native(h + 20)
    memcpy(&mac, h + 24, 2)
    p.body = at + mac
    # The kernel takes the outer tag out of the frame and keeps it beside it (TP_STATUS_VLAN_VALID).
    p.vlan = <int>(native(h + 32) & 0xFFF) if status & 0x10 else -1
    if p.vlan >= 0:
        p.wire += 4
    return p.body + p.captured <= n
