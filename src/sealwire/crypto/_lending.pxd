# Keys that stay, and cipher contexts that are lent to them for the length of a run.

from libc.stdint cimport uint8_t, uint64_t

from sealwire.crypto._evp cimport NONCE_BYTES, Algorithm

cdef enum:
    KEY_BYTES = 32  # the longest

# The keys of one epoch and direction.  Fill it with keep(), end it with discard().
cdef struct Keys:
    uint64_t owner  # a number no other keys ever have, 0 for none
    uint8_t key[KEY_BYTES]
    uint8_t sn_key[KEY_BYTES]
    uint8_t iv[NONCE_BYTES]
    Algorithm algorithm
    bint sealing
    int place  # where in its ring their contexts were last; -1 while they have some of their own

# What is lent: a context for records, and one for the masks of their numbers.
cdef struct Contexts:
    void* aead
    void* mask

# Copies key, number key and IV (bytes of checked lengths).
cdef void keep(
    Keys* keys, Algorithm algorithm, bint sealing, const uint8_t* key, int key_n, const uint8_t* sn_key, const uint8_t* iv
) noexcept
# Contexts with these keys in them, for nobody else until give_back(), which must follow; where nothing
# is lent that does nothing.  With the GIL.  Raises Unavailable or MemoryError, and then nothing is lent.
cdef int borrow(Keys* keys, Contexts* lent) except -1
cdef void give_back(Keys* keys, Contexts* lent) noexcept
# Wipes the keys, here and in the contexts that have them still.
cdef void discard(Keys* keys) noexcept
