# A ClientHello read in place, for the compiled gate; see _hello.pyx.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

# What parse() found.  Pointers go into the bytes it was given.
cdef struct Hello:
    const uint8_t* random
    const uint8_t* suites
    size_t suites_n  # numbers, not bytes; so are those below
    bint compression_null
    bint has_legacy_cookie
    bint offers_version  # supported_versions has the version asked for
    bint has_schemes
    bint has_shares
    bint has_psks
    bint has_early_data
    const uint8_t* identity  # the first key's
    size_t identity_n
    bint binders32  # a binder of so many bytes is there
    bint binders48
    const uint8_t* groups
    size_t groups_n
    const uint8_t* shares
    size_t shares_bytes
    const uint8_t* modes
    size_t modes_n
    const uint8_t* cookie
    size_t cookie_n

cdef enum:
    MALFORMED = 0
    READ = 1
    # It holds an extension this module does not know and the table of extensions does.
    FOREIGN = 2

# Reads the body of a ClientHello as ClientHello.decode does.
cdef int parse(const uint8_t* body, size_t n, int version, Hello* hello) noexcept nogil
# The cookie of a hello of which only the beginning may be there; 0 if it is not in there.
cdef int visible_cookie(const uint8_t* body, size_t n, const uint8_t** cookie, size_t* cookie_n) noexcept nogil
# Whether key shares repeat a group, or name one that is not among those supported.
cdef bint shares_unfit(const Hello* hello) noexcept nogil
# Whether `code` is among `n` numbers of 16 bits.
cdef bint contains(const uint8_t* numbers, size_t n, int code) noexcept nogil
# Whether there is a share for `group`.
cdef bint has_share(const Hello* hello, int group) noexcept nogil
