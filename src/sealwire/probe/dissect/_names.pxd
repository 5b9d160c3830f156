# Names by client and the address it was told, compiled: `relate.Names`, whose words explain it.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from sealwire.probe._siphash cimport siphash
from sealwire.probe._table cimport Pool, free_pool, give_piece, piece, take_piece

cdef enum:
    BUCKETS = 65536
    ENDS_BYTES = 32  # client, then the address


cdef struct Name:
    uint32_t next  # in its chain; the pool's while it is free
    uint32_t older
    uint32_t newer
    uint32_t n
    uint8_t ends[ENDS_BYTES]
    int64_t time
    uint8_t* text


cdef struct Names:
    Pool pool
    uint32_t* buckets
    uint32_t oldest
    uint32_t newest
    uint32_t count
    uint32_t most
    uint64_t key[2]


cdef inline Name* name_of(const Names* names, uint32_t number) noexcept nogil:
    return <Name*>piece(&names.pool, number)


cdef inline int start_names(Names* names, const uint8_t* key, uint32_t most) except -1:
    memset(names, 0, sizeof(Names))
    names.pool.piece = sizeof(Name)
    names.most = most
    memcpy(names.key, key, 16)
    names.buckets = <uint32_t*>calloc(BUCKETS, sizeof(uint32_t))
    if names.buckets == NULL:
        raise MemoryError
    return 0


cdef inline void end_names(Names* names) noexcept nogil:
    cdef uint32_t number = names.oldest
    while number:
        free(name_of(names, number).text)
        number = name_of(names, number).newer
    free_pool(&names.pool)
    free(names.buckets)


cdef inline uint32_t* chain_of(const Names* names, const uint8_t* ends) noexcept nogil:
    cdef uint64_t words[4]
    memcpy(words, ends, ENDS_BYTES)
    return &names.buckets[siphash(names.key, words, ENDS_BYTES // 8) & (BUCKETS - 1)]


cdef inline Name* find_name(const Names* names, const uint8_t* ends) noexcept nogil:
    cdef uint32_t number
    if not names.count:
        return NULL
    number = chain_of(names, ends)[0]
    while number:
        if memcmp(name_of(names, number).ends, ends, ENDS_BYTES) == 0:
            return name_of(names, number)
        number = name_of(names, number).next
    return NULL


cdef inline void put_out(Names* names, Name* one) noexcept nogil:
    if one.older:
        name_of(names, one.older).newer = one.newer
    else:
        names.oldest = one.newer
    if one.newer:
        name_of(names, one.newer).older = one.older
    else:
        names.newest = one.older


cdef inline void put_last(Names* names, uint32_t number, Name* one) noexcept nogil:
    one.older, one.newer = names.newest, 0
    if names.newest:
        name_of(names, names.newest).newer = number
    else:
        names.oldest = number
    names.newest = number


cdef inline void forget_oldest(Names* names) noexcept nogil:
    cdef uint32_t number = names.oldest
    cdef Name* one = name_of(names, number)
    cdef uint32_t* link = chain_of(names, one.ends)
    while link[0] != number:
        link = &name_of(names, link[0]).next
    link[0] = one.next
    put_out(names, one)
    free(one.text)
    give_piece(&names.pool, number)
    names.count -= 1


cdef inline bint learn_name(Names* names, int64_t time, const uint8_t* ends, const uint8_t* text, uint32_t n) noexcept nogil:
    # False when there is no memory.
    cdef uint32_t* link = chain_of(names, ends)
    cdef uint32_t number = link[0]
    cdef Name* one = NULL
    cdef uint8_t* kept
    while number:
        one = name_of(names, number)
        if memcmp(one.ends, ends, ENDS_BYTES) == 0:
            break
        number = one.next
    if number and one.n == n and memcmp(one.text, text, n) == 0:
        one.time = time
        put_out(names, one)
        put_last(names, number, one)
        return True
    kept = <uint8_t*>malloc(n)
    if kept == NULL:
        return False
    memcpy(kept, text, n)
    if number:
        free(one.text)
        put_out(names, one)
    else:
        number = take_piece(&names.pool)
        if not number:
            free(kept)
            return False
        one = name_of(names, number)
        memcpy(one.ends, ends, ENDS_BYTES)
        one.next = link[0]
        link[0] = number
        names.count += 1
    one.text, one.n, one.time = kept, n, time
    put_last(names, number, one)
    if names.count > names.most:
        forget_oldest(names)
    return True
