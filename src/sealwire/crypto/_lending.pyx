# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cipher contexts, lent for the length of a run of records.

libcrypto's contexts for one direction weigh 1.8 KiB, giving one another key takes 0.3 us.  So what a
connection keeps is its keys, and contexts are few: a ring of them for each algorithm and direction.
Who comes again finds those it had, with its keys in them, unless others came in between; else the
next ones that nobody uses get its keys.  A thread that runs without the GIL keeps what it was lent;
if all of a ring are lent, contexts are made for this one run.

Rings are looked at with the GIL only.  Keys leave the contexts as soon as their owner goes.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from sealwire.crypto._evp cimport ALGORITHMS, NONCE_BYTES, Algorithm, cleanse, new_aead, new_mask, rekey, release

cdef enum:
    # Above the peers that are served in one turn of a loop; all rings of one algorithm are 230 KiB.
    PLACES = 64
    RINGS = 10  # two for each algorithm

assert RINGS == 2 * ALGORITHMS

cdef struct Place:
    Contexts contexts
    uint64_t owner
    bint lent

cdef Place _rings[RINGS][PLACES]
# Whose turn it is next in each ring.
cdef int _hands[RINGS]
cdef uint64_t _owners = 0


cdef void keep(
    Keys* keys, Algorithm algorithm, bint sealing, const uint8_t* key, int key_n, const uint8_t* sn_key, const uint8_t* iv
) noexcept:
    global _owners
    _owners += 1
    keys.owner = _owners
    memcpy(keys.key, key, key_n)
    memcpy(keys.sn_key, sn_key, key_n)
    memcpy(keys.iv, iv, NONCE_BYTES)
    keys.algorithm = algorithm
    keys.sealing = sealing
    keys.place = 0


cdef inline Place* _ring(Keys* keys) noexcept:
    return _rings[2 * <int>keys.algorithm + keys.sealing]


cdef int borrow(Keys* keys, Contexts* lent) except -1:
    cdef Place* place = &_ring(keys)[keys.place if keys.place >= 0 else 0]
    if place.owner != keys.owner or place.lent:
        place = _next(keys)
        if place == NULL:
            keys.place = -1
            _make(keys, lent)
            return 0
        # Whatever fails below, the keys that were here are gone.
        place.owner = 0
        if place.contexts.aead == NULL:
            _make(keys, &place.contexts)
        else:
            try:
                rekey(place.contexts.aead, place.contexts.mask, keys.key, keys.sn_key, keys.sealing)
            except BaseException:
                _free(&place.contexts)
                raise
        place.owner = keys.owner
    place.lent = True
    lent[0] = place.contexts
    return 0


cdef Place* _next(Keys* keys) noexcept:
    cdef int ring = 2 * <int>keys.algorithm + keys.sealing
    cdef int n
    cdef int at = _hands[ring]
    for n in range(PLACES):
        at = (at + 1) % PLACES
        if not _rings[ring][at].lent:
            _hands[ring] = keys.place = at
            return &_rings[ring][at]
    return NULL


cdef int _make(Keys* keys, Contexts* contexts) except -1:
    contexts.aead = contexts.mask = NULL
    try:
        contexts.aead = new_aead(keys.algorithm, keys.key, keys.sealing)
        contexts.mask = new_mask(keys.algorithm, keys.sn_key)
    except BaseException:
        _free(contexts)
        raise
    return 0


cdef void _free(Contexts* contexts) noexcept:
    # libcrypto wipes what it frees.
    release(contexts.aead)
    release(contexts.mask)
    contexts.aead = contexts.mask = NULL


cdef void give_back(Keys* keys, Contexts* lent) noexcept:
    if lent.aead == NULL:
        return
    if keys.place < 0:
        _free(lent)
        keys.place = 0
    else:
        _ring(keys)[keys.place].lent = False
        lent.aead = lent.mask = NULL


cdef void discard(Keys* keys) noexcept:
    cdef Place* place = &_ring(keys)[keys.place if keys.place >= 0 else 0]
    if keys.owner and place.owner == keys.owner:
        place.owner = 0
        _free(&place.contexts)
    cleanse(keys, sizeof(Keys))
    memset(keys, 0, sizeof(Keys))


def held():
    """How many pairs of contexts there are, how many of them hold somebody's keys, and how many are lent."""
    cdef int ring, n
    made = keyed = lent = 0
    for ring in range(RINGS):
        for n in range(PLACES):
            made += _rings[ring][n].contexts.aead != NULL
            keyed += _rings[ring][n].owner != 0
            lent += _rings[ring][n].lent
    return made, keyed, lent
