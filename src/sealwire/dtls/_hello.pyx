# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""ClientHellos read in C, in place: what `tls13.messages` and `tls13.extensions` say is well formed.

Nothing is copied or allocated, and every loop goes once over the bytes, whatever they say.  Which codes
are known, and which of them belong into a ClientHello, is asked of the table of extensions; a code that
it knows and this module has no shape for sends the hello to Python, where it is read the slow way.
"""

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memset

from sealwire.tls13 import extensions as ext

# One cursor: where it is, its bound, and whether something was read past that.
cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end
    bint bad

cdef enum Shape:
    OPAQUE = 0
    MISPLACED
    UNKNOWN_SHAPE
    SERVER_NAME
    STATUS_REQUEST
    GROUPS
    SCHEMES
    NUMBERS
    SRTP
    PROTOCOLS
    SHORT_LIST
    COMPRESSIONS
    ONE_NUMBER
    PSKS
    EARLY_DATA
    EMPTY
    VERSIONS
    COOKIE
    MODES
    AUTHORITIES
    SHARES
    CONNECTION_ID
    TWO_BYTES

cdef uint8_t _shapes[0x10000]
# Marks for numbers of 16 bits; all clear between calls.
cdef uint8_t _marks[0x10000]


def _fill():
    known = {
        ext.SERVER_NAME: SERVER_NAME,
        ext.STATUS_REQUEST: STATUS_REQUEST,
        ext.SUPPORTED_GROUPS: GROUPS,
        ext.SIGNATURE_ALGORITHMS: SCHEMES,
        ext.USE_SRTP: SRTP,
        ext.ALPN: PROTOCOLS,
        ext.CLIENT_CERTIFICATE_TYPES: SHORT_LIST,
        ext.SERVER_CERTIFICATE_TYPES: SHORT_LIST,
        ext.COMPRESS_CERTIFICATE: COMPRESSIONS,
        ext.RECORD_SIZE_LIMIT: ONE_NUMBER,
        ext.PRE_SHARED_KEYS: PSKS,
        ext.EARLY_DATA: EARLY_DATA,
        ext.SUPPORTED_VERSIONS: VERSIONS,
        ext.COOKIE: COOKIE,
        ext.PSK_KEY_EXCHANGE_MODES: MODES,
        ext.CERTIFICATE_AUTHORITIES: AUTHORITIES,
        ext.POST_HANDSHAKE_AUTH: EMPTY,
        ext.SIGNATURE_ALGORITHMS_CERT: NUMBERS,
        ext.KEY_SHARES: SHARES,
        ext.CONNECTION_ID: CONNECTION_ID,
        ext.TICKET_REQUEST: TWO_BYTES,
        ext.RETURN_ROUTABILITY: EMPTY,
    }
    memset(_shapes, OPAQUE, sizeof(_shapes))
    memset(_marks, 0, sizeof(_marks))
    for key in ext.known_extensions():
        _shapes[<uint16_t>key.code] = MISPLACED
    for key in ext.known_extensions():
        if ext.Where.CLIENT_HELLO in key.where:
            _shapes[<uint16_t>key.code] = known.get(key, UNKNOWN_SHAPE)


_fill()


cdef inline int u8(Cursor* c) noexcept nogil:
    if c.end - c.at < 1:
        c.bad = True
        return 0
    c.at += 1
    return (c.at - 1)[0]


cdef inline int u16(Cursor* c) noexcept nogil:
    if c.end - c.at < 2:
        c.bad = True
        return 0
    c.at += 2
    return (c.at - 2)[0] << 8 | (c.at - 1)[0]


cdef inline const uint8_t* take(Cursor* c, size_t n) noexcept nogil:
    cdef const uint8_t* start = c.at
    if <size_t>(c.end - c.at) < n:
        c.bad = True
        return start
    c.at += n
    return start


cdef inline Cursor sub(Cursor* c, size_t n) noexcept nogil:
    cdef Cursor inner
    inner.at = take(c, n)
    inner.bad = c.bad
    inner.end = inner.at if c.bad else inner.at + n
    return inner


cdef inline size_t numbers16(Cursor* c, const uint8_t** start) noexcept nogil:
    """A list of 16-bit numbers that is not empty: where they are, and how many."""
    cdef int n = u16(c)
    if n == 0 or n % 2:
        c.bad = True
        return 0
    start[0] = take(c, n)
    return <size_t>n // 2


cdef bint _fits(int shape, Cursor* c, int version, Hello* hello) noexcept nogil:
    """Read one extension's body; whether it has its shape, to the last byte."""
    cdef Cursor inner
    cdef Cursor deeper
    cdef const uint8_t* ignored = NULL
    cdef int n
    if shape == GROUPS:
        hello.groups_n = numbers16(c, &hello.groups)
    elif shape == SCHEMES:
        hello.has_schemes = True
        numbers16(c, &ignored)
    elif shape == NUMBERS:
        numbers16(c, &ignored)
    elif shape == SHARES:
        hello.has_shares = True
        inner = sub(c, u16(c))
        hello.shares = inner.at
        hello.shares_bytes = inner.end - inner.at
        while inner.at < inner.end and not inner.bad:
            u16(&inner)
            n = u16(&inner)
            take(&inner, n)
            inner.bad = inner.bad or n == 0
        c.bad = c.bad or inner.bad
    elif shape == VERSIONS:
        inner = sub(c, u8(c))
        n = <int>(inner.end - inner.at)
        c.bad = c.bad or n == 0 or n % 2
        while inner.at < inner.end and not c.bad:
            if u16(&inner) == version:
                hello.offers_version = True
    elif shape == COOKIE:
        n = u16(c)
        hello.cookie = take(c, n)
        hello.cookie_n = n
        c.bad = c.bad or n == 0
    elif shape == MODES:
        n = u8(c)
        hello.modes = take(c, n)
        hello.modes_n = n
        c.bad = c.bad or n == 0
    elif shape == EARLY_DATA:
        hello.has_early_data = True
    elif shape == EMPTY:
        pass
    elif shape == CONNECTION_ID:
        take(c, u8(c))
    elif shape == ONE_NUMBER or shape == TWO_BYTES:
        u16(c)
    elif shape == SHORT_LIST:
        n = u8(c)
        take(c, n)
        c.bad = c.bad or n == 0
    elif shape == COMPRESSIONS:
        n = u8(c)
        take(c, n)
        c.bad = c.bad or n == 0 or n % 2
    elif shape == SRTP:
        numbers16(c, &ignored)
        take(c, u8(c))
    elif shape == PROTOCOLS:
        inner = sub(c, u16(c))
        inner.bad = inner.bad or inner.at == inner.end
        while inner.at < inner.end and not inner.bad:
            n = u8(&inner)
            take(&inner, n)
            inner.bad = inner.bad or n == 0
        c.bad = c.bad or inner.bad
    elif shape == AUTHORITIES:
        inner = sub(c, u16(c))
        inner.bad = inner.bad or inner.at == inner.end
        while inner.at < inner.end and not inner.bad:
            n = u16(&inner)
            take(&inner, n)
            inner.bad = inner.bad or n == 0
        c.bad = c.bad or inner.bad
    elif shape == SERVER_NAME:
        inner = sub(c, u16(c))
        inner.bad = inner.bad or u8(&inner) != 0
        n = u16(&inner)
        deeper = sub(&inner, n)
        c.bad = c.bad or inner.bad or n == 0 or inner.at != inner.end
        while deeper.at < deeper.end and not c.bad:
            c.bad = not 0x20 < deeper.at[0] < 0x7F
            deeper.at += 1
    elif shape == STATUS_REQUEST:
        if u8(c) == 1:
            inner = sub(c, u16(c))
            while inner.at < inner.end and not inner.bad:
                n = u16(&inner)
                take(&inner, n)
                inner.bad = inner.bad or n == 0
            c.bad = c.bad or inner.bad
            take(c, u16(c))
        else:
            c.at = c.end
    elif shape == PSKS:
        hello.has_psks = True
        inner = sub(c, u16(c))
        inner.bad = inner.bad or inner.at == inner.end
        hello.identity_n = u16(&inner)
        hello.identity = take(&inner, hello.identity_n + 4)
        inner.bad = inner.bad or hello.identity_n == 0
        while inner.at < inner.end and not inner.bad:
            n = u16(&inner)
            take(&inner, n + 4)
            inner.bad = inner.bad or n == 0
        c.bad = c.bad or inner.bad
        inner = sub(c, u16(c))
        inner.bad = inner.bad or inner.at == inner.end
        while inner.at < inner.end and not inner.bad:
            n = u8(&inner)
            take(&inner, n)
            inner.bad = inner.bad or n < 32
            if n == 32:
                hello.binders32 = True
            elif n == 48:
                hello.binders48 = True
        c.bad = c.bad or inner.bad
    return not c.bad and c.at == c.end


cdef int parse(const uint8_t* body, size_t n, int version, Hello* hello) noexcept nogil:
    cdef Cursor c
    cdef Cursor block
    cdef Cursor one
    cdef const uint8_t* start
    cdef const uint8_t* names
    cdef int code, shape, size, last = -1, outcome = READ
    memset(hello, 0, sizeof(Hello))
    c.at, c.end, c.bad = body, body + n, False
    u16(&c)
    hello.random = take(&c, 32)
    size = u8(&c)
    take(&c, size)
    if size > 32:
        return MALFORMED
    size = u8(&c)
    take(&c, size)
    hello.has_legacy_cookie = size != 0
    hello.suites_n = numbers16(&c, &hello.suites)
    size = u8(&c)
    names = take(&c, size)
    if c.bad or size == 0:
        return MALFORMED
    hello.compression_null = size == 1 and names[0] == 0
    if c.at == c.end:
        return READ
    block = sub(&c, u16(&c))
    if c.bad or c.at != c.end:
        return MALFORMED
    start = block.at
    while block.at < block.end:
        code = u16(&block)
        one = sub(&block, u16(&block))
        if block.bad or _marks[code]:
            outcome = MALFORMED
            break
        _marks[code] = 1
        last = code
        shape = _shapes[code]
        if shape == OPAQUE:
            continue
        if shape == MISPLACED:
            outcome = MALFORMED
            break
        if shape == UNKNOWN_SHAPE:
            outcome = FOREIGN
            continue
        if not _fits(shape, &one, version, hello):
            outcome = MALFORMED
            break
    # The marks of what was read come off again.
    one.at, one.end, one.bad = start, block.at, False
    while one.at < one.end:
        _marks[u16(&one)] = 0
        take(&one, u16(&one))
        if one.bad:
            break
    if outcome == READ and hello.has_psks and _shapes[last] != PSKS:
        return MALFORMED
    return outcome


cdef int visible_cookie(const uint8_t* body, size_t n, const uint8_t** cookie, size_t* cookie_n) noexcept nogil:
    cdef Cursor c
    cdef Cursor one
    cdef int code, size
    c.at, c.end, c.bad = body, body + n, False
    take(&c, 34)
    size = u8(&c)
    take(&c, size)
    if size > 32:
        return 0
    take(&c, u8(&c))
    take(&c, u16(&c))
    take(&c, u8(&c))
    u16(&c)
    while not c.bad:
        code = u16(&c)
        one = sub(&c, u16(&c))
        if c.bad:
            return 0
        if _shapes[code] == COOKIE:
            size = u16(&one)
            cookie[0] = take(&one, size)
            cookie_n[0] = size
            return not one.bad and size != 0
    return 0


cdef bint contains(const uint8_t* numbers, size_t n, int code) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if (numbers[2 * i] << 8 | numbers[2 * i + 1]) == code:
            return True
    return False


cdef bint has_share(const Hello* hello, int group) noexcept nogil:
    cdef const uint8_t* at = hello.shares
    cdef const uint8_t* end = at + hello.shares_bytes
    while at < end:
        if (at[0] << 8 | at[1]) == group:
            return True
        at += 4 + (at[2] << 8 | at[3])
    return False


cdef bint shares_unfit(const Hello* hello) noexcept nogil:
    cdef const uint8_t* at = hello.shares
    cdef const uint8_t* end = at + hello.shares_bytes
    cdef size_t i
    cdef bint unfit = False
    cdef int group
    # 1: supported; 2: with a share.
    for i in range(hello.groups_n):
        _marks[hello.groups[2 * i] << 8 | hello.groups[2 * i + 1]] = 1
    while at < end and not unfit:
        group = at[0] << 8 | at[1]
        unfit = _marks[group] != 1
        _marks[group] = 2 if _marks[group] else 0
        at += 4 + (at[2] << 8 | at[3])
    for i in range(hello.groups_n):
        _marks[hello.groups[2 * i] << 8 | hello.groups[2 * i + 1]] = 0
    return unfit
