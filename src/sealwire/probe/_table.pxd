# What the flow table is built of: pieces of memory by number, lists by age, the hash of a packet's
# ends, and the order of rows.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

from sealwire.probe._decode cimport STRAY_FRAGMENT, Packet, set_icmp
from sealwire.probe._features cimport ONE_WAY, UPWARD, Record
from sealwire.probe._siphash cimport siphash

cdef enum:
    SLAB = 4096
    FRAGMENTS = 256


cdef struct Fragment:
    uint8_t source[16]
    uint8_t destination[16]
    uint32_t number
    uint8_t version
    uint8_t protocol
    uint16_t source_port
    uint16_t destination_port


cdef struct Fragments:
    # The ports of the last first fragments, newest before `next`.
    Fragment entries[FRAGMENTS]
    uint32_t next
    uint32_t count


cdef inline int fragment(Fragments* f, Packet* packet) noexcept nogil:
    # Remember a first fragment's ports, or give a later one the ports its first had.
    cdef Fragment* known
    cdef uint32_t i
    if packet.fragment == 1:
        known = &f.entries[f.next]
        f.next = (f.next + 1) % FRAGMENTS
        if f.count < FRAGMENTS:
            f.count += 1
        memcpy(known.source, packet.source, 16)
        memcpy(known.destination, packet.destination, 16)
        known.number = packet.fragment_id
        known.version, known.protocol = packet.version, packet.protocol
        known.source_port, known.destination_port = packet.source_port, packet.destination_port
        return 0
    for i in range(f.count):
        known = &f.entries[(f.next + FRAGMENTS - 1 - i) % FRAGMENTS]
        if known.number != packet.fragment_id or known.version != packet.version:
            continue
        if known.protocol == packet.protocol and memcmp(known.source, packet.source, 16) == 0:
            if memcmp(known.destination, packet.destination, 16) == 0:
                packet.source_port = packet.key_source = known.source_port
                packet.destination_port = packet.key_destination = known.destination_port
                if packet.protocol == 1 or packet.protocol == 58:
                    set_icmp(packet, known.source_port, known.destination_port)
                return 0
    return STRAY_FRAGMENT


cdef struct Pool:
    # Equal pieces by number from 1, in slabs.
    uint8_t** slabs
    uint32_t slab_count
    uint32_t used
    uint32_t free
    size_t piece


cdef inline void* piece(const Pool* pool, uint32_t number) noexcept nogil:
    return pool.slabs[number // SLAB] + (number % SLAB) * pool.piece


cdef inline uint32_t take_piece(Pool* pool) noexcept nogil:
    # A piece, or 0 when there is no memory.
    cdef uint32_t number = pool.free
    cdef uint8_t** slabs
    if number:
        pool.free = (<uint32_t*>piece(pool, number))[0]
        return number
    number = pool.used + 1
    if number // SLAB >= pool.slab_count:
        slabs = <uint8_t**>realloc(pool.slabs, (pool.slab_count + 1) * sizeof(uint8_t*))
        if slabs == NULL:
            return 0
        pool.slabs = slabs
        slabs[pool.slab_count] = <uint8_t*>malloc(SLAB * pool.piece)
        if slabs[pool.slab_count] == NULL:
            return 0
        pool.slab_count += 1
    pool.used = number
    return number


cdef inline void give_piece(Pool* pool, uint32_t number) noexcept nogil:
    (<uint32_t*>piece(pool, number))[0] = pool.free
    pool.free = number


cdef inline void free_pool(Pool* pool) noexcept nogil:
    cdef uint32_t i
    for i in range(pool.slab_count):
        free(pool.slabs[i])
    free(pool.slabs)


cdef inline int by_first_packet(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const uint64_t*>left)[0], b = (<const uint64_t*>right)[0]
    return -1 if a < b else 1 if a > b else 0


cdef struct List:
    uint32_t oldest
    uint32_t newest


cdef inline void put_last(const Pool* records, List* to, uint32_t number, Record* r) noexcept nogil:
    r.older = to.newest
    r.newer = 0
    if to.newest:
        (<Record*>piece(records, to.newest)).newer = number
    else:
        to.oldest = number
    to.newest = number


cdef inline void put_out(const Pool* records, List* of, Record* r) noexcept nogil:
    if r.older:
        (<Record*>piece(records, r.older)).newer = r.newer
    else:
        of.oldest = r.newer
    if r.newer:
        (<Record*>piece(records, r.newer)).older = r.older
    else:
        of.newest = r.older


cdef inline void grow(const Pool* records, uint32_t** buckets, uint32_t* mask) noexcept nogil:
    # Twice the buckets; without memory the chains grow instead.
    cdef uint32_t more = mask[0] * 2 + 1
    cdef uint32_t i, number, next
    cdef uint32_t* grown = <uint32_t*>calloc(<size_t>more + 1, sizeof(uint32_t))
    cdef Record* r
    if grown == NULL:
        return
    for i in range(mask[0] + 1):
        number = buckets[0][i]
        while number:
            r = <Record*>piece(records, number)
            next = r.next
            r.next = grown[r.hash & more]
            grown[r.hash & more] = number
            number = next
    free(buckets[0])
    buckets[0] = grown
    mask[0] = more


cdef inline bint not_above(const Packet* p) noexcept nogil:
    # Whether a packet goes from the lower end (address, then port) to the higher one.
    cdef int order = memcmp(p.source, p.destination, 16)
    return order < 0 or (order == 0 and p.key_source <= p.key_destination)


cdef inline uint64_t hash_of(const uint64_t* key, const Packet* p, bint upward) noexcept nogil:
    cdef uint64_t words[5]
    cdef const uint8_t* low = &p.source[0]
    cdef const uint8_t* high = &p.destination[0]
    cdef uint32_t ports = (<uint32_t>p.key_source << 16 | p.key_destination) if upward else (<uint32_t>p.key_destination << 16 | p.key_source)
    if not upward:
        low, high = high, low
    words[0] = <uint64_t>ports << 32 | <uint64_t>p.protocol << 8 | p.version | (0x80 if p.one_way else 0)
    if p.version == 4:
        memcpy(&words[1], low, 4)
        memcpy(<uint8_t*>&words[1] + 4, high, 4)
        return siphash(key, words, 2)
    memcpy(&words[1], low, 16)
    memcpy(&words[3], high, 16)
    return siphash(key, words, 5)


cdef inline bint is_of(const Record* r, const Packet* p, bint upward) noexcept nogil:
    # Whether the packet belongs to the flow, in either direction.
    cdef Packet head
    if r.version != p.version or r.protocol != p.protocol or ((r.state & ONE_WAY) != 0) != p.one_way:
        return False
    head.key_source, head.key_destination = r.source_port, r.destination_port
    if r.protocol == 1 or r.protocol == 58:
        head.protocol = r.protocol
        set_icmp(&head, r.source_port, r.destination_port)
    if ((r.state & UPWARD) != 0) == upward:
        return (
            head.key_source == p.key_source and head.key_destination == p.key_destination
            and memcmp(r.source, p.source, 16) == 0 and memcmp(r.destination, p.destination, 16) == 0
        )
    return (
        head.key_source == p.key_destination and head.key_destination == p.key_source
        and memcmp(r.source, p.destination, 16) == 0 and memcmp(r.destination, p.source, 16) == 0
    )
