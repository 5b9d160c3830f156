# Hellos and their fingerprints, compiled: the answers of `hello`, whose words explain it.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy

from sealwire.crypto._digests cimport MD5, SHA256, Opening, digest_with
from sealwire.probe.dissect._case cimport (
    F_ALPN, F_ALPN_CHOSEN, F_CIPHER, F_CLIENT_ID, F_ECH, F_GROUP, F_JA3, F_JA3S, F_JA4, F_NAME, F_OFFERED,
    F_RETRY, F_SERVER_ID, F_VERSION, Budget, Case, be16, put, put_number,
)

cdef enum:
    LONGEST_NAME = 255
    LONGEST_ALPN = 512

    # Text for hashing: five digits and a sign for each two bytes of the longest message, and more.
    TEXT_BYTES = 262144
    CODES = 40000

cdef extern from *:
    """
    /* RFC 8446 section 4.1.3 */
    static const unsigned char sealwire_retry_random[32] = {
        0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
        0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C};
    static const char sealwire_hexadecimal[] = "0123456789abcdef";
    """
    const uint8_t* RETRY_RANDOM "sealwire_retry_random"
    const char* HEXADECIMAL "sealwire_hexadecimal"


cdef struct Scratch:
    char text[TEXT_BYTES]
    uint16_t codes[CODES]
    Opening* opening


cdef struct Part:
    const uint8_t* p
    int n  # -1: it is not there


cdef struct Hello:
    uint32_t version
    uint32_t suite
    const uint8_t* random
    Part suites
    Part extensions
    Part name
    Part groups
    Part points
    Part schemes
    Part alpn
    Part versions
    Part share
    Part id
    Part ech


cdef inline bint is_grease(uint32_t code) noexcept nogil:
    return code & 0x0F0F == 0x0A0A and code >> 8 == code & 0xFF


cdef inline Part* part_of(Hello* h, uint32_t code) noexcept nogil:
    # Where an extension of a type is kept, NULL for those that are not read.
    if code == 0:
        return &h.name
    if code == 10:
        return &h.groups
    if code == 11:
        return &h.points
    if code == 13:
        return &h.schemes
    if code == 16:
        return &h.alpn
    if code == 43:
        return &h.versions
    if code == 51:
        return &h.share
    if code == 54:
        return &h.id
    return &h.ech if code == 0xFE0D else NULL


cdef inline bint read_extensions(Hello* h, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef uint32_t at = 2, code, length
    cdef Part* part
    h.extensions.p, h.extensions.n = p, 0
    h.name.n = h.groups.n = h.points.n = h.schemes.n = h.alpn.n = -1
    h.versions.n = h.share.n = h.id.n = h.ech.n = -1
    if n == 0:
        return True
    if n < 2 or be16(p) != n - 2:
        return False
    h.extensions.p, h.extensions.n = p + 2, <int>(n - 2)
    while at < n:
        if n - at < 4:
            return False
        code, length = be16(p + at), be16(p + at + 2)
        at += 4
        if length > n - at:
            return False
        part = part_of(h, code)
        # The first of a kind stays.
        if part != NULL and part.n < 0:
            part.p, part.n = p + at, <int>length
        at += length
    return True


cdef inline bint client_hello(Hello* h, const uint8_t* p, uint32_t n, bint datagrams) noexcept nogil:
    cdef uint32_t at = 34, length
    if n < 35:
        return False
    h.version, h.random = be16(p), p + 2
    if p[at] > 32 or p[at] + 1 > n - at:
        return False
    at += 1 + p[at]
    if datagrams:
        if at >= n or p[at] + 1 > n - at:
            return False
        at += 1 + p[at]
    if n - at < 2:
        return False
    length = be16(p + at)
    at += 2
    if length == 0 or length % 2 or length > n - at:
        return False
    h.suites.p, h.suites.n = p + at, <int>length
    at += length
    if at >= n or p[at] == 0 or p[at] + 1 > n - at:
        return False
    at += 1 + p[at]
    return read_extensions(h, p + at, n - at)


cdef inline bint server_hello(Hello* h, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef uint32_t at = 34
    if n < 35:
        return False
    h.version, h.random = be16(p), p + 2
    if p[at] > 32 or p[at] + 1 > n - at:
        return False
    at += 1 + p[at]
    if n - at < 3:
        return False
    h.suite = be16(p + at)
    h.suites.p, h.suites.n = p + at, 2
    return read_extensions(h, p + at + 3, n - at - 3)


cdef inline Part protocols(const Hello* h) noexcept nogil:
    cdef Part found
    cdef int at = 2
    found.p, found.n = h.alpn.p, 0
    if h.alpn.n < 4 or <int>be16(h.alpn.p) != h.alpn.n - 2:
        return found
    while at < h.alpn.n:
        if h.alpn.p[at] == 0:
            return found
        at += 1 + h.alpn.p[at]
    if at == h.alpn.n:
        found.p, found.n = h.alpn.p + 2, h.alpn.n - 2
    return found


cdef inline uint32_t offered_version(const Hello* h) noexcept nogil:
    cdef const uint8_t* p = h.versions.p
    cdef int at, n = h.versions.n
    cdef uint32_t version, lowest = 0x10000, highest = 0
    cdef bint any = False
    if n < 3 or p[0] != n - 1 or p[0] % 2:
        return h.version
    for at in range(1, n, 2):
        version = be16(p + at)
        if not is_grease(version):
            any = True
            highest = max(highest, version)
            if version >> 8 == 0xFE:
                lowest = min(lowest, version)
    if not any:
        return h.version
    return highest if lowest == 0x10000 else lowest


cdef inline uint32_t chosen_version(const Hello* h) noexcept nogil:
    return be16(h.versions.p) if h.versions.n == 2 else h.version


cdef inline void learn_id(Case* c, Budget* b, const Hello* h, int tag) noexcept nogil:
    if h.id.n > 0 and h.id.p[0] == h.id.n - 1:
        put(c, b, tag, h.id.p + 1, h.id.n - 1)


# --- text for the hashes -------------------------------------------------------------------------

cdef inline int decimal(char* out, uint32_t value) noexcept nogil:
    cdef char digits[10]
    cdef int n = 0, i
    while True:
        digits[n] = <char>(48 + value % 10)
        n += 1
        value //= 10
        if value == 0:
            break
    for i in range(n):
        out[i] = digits[n - 1 - i]
    return n


cdef inline int decimals(char* out, int at, const uint8_t* p, int n, bint grease) noexcept nogil:
    # Codes of two bytes each, joined by "-"; GREASE left out unless it counts.
    cdef int i, begin = at
    cdef uint32_t code
    for i in range(0, n - 1, 2):
        code = be16(p + i)
        if is_grease(code) and not grease:
            continue
        if at > begin:
            out[at] = 45
            at += 1
        at += decimal(out + at, code)
    return at


cdef inline int extension_decimals(char* out, int at, const Hello* h, bint grease) noexcept nogil:
    cdef int i = 0, begin = at
    cdef uint32_t code
    while i < h.extensions.n:
        code = be16(h.extensions.p + i)
        i += 4 + <int>be16(h.extensions.p + i + 2)
        if is_grease(code) and not grease:
            continue
        if at > begin:
            out[at] = 45
            at += 1
        at += decimal(out + at, code)
    return at


cdef inline bint is_list16(const Part* part) noexcept nogil:
    return part.n >= 2 and part.n % 2 == 0 and <int>be16(part.p) == part.n - 2


cdef inline int ja3_text(char* out, const Hello* h) noexcept nogil:
    cdef int at = decimal(out, h.version), i
    out[at] = 44
    at = decimals(out, at + 1, h.suites.p, h.suites.n, False)
    out[at] = 44
    at = extension_decimals(out, at + 1, h, False)
    out[at] = 44
    at += 1
    if is_list16(&h.groups):
        at = decimals(out, at, h.groups.p + 2, h.groups.n - 2, False)
    out[at] = 44
    at += 1
    if h.points.n > 0 and h.points.p[0] == h.points.n - 1:
        for i in range(1, h.points.n):
            if i > 1:
                out[at] = 45
                at += 1
            at += decimal(out + at, h.points.p[i])
    return at


cdef inline int ja3s_text(char* out, const Hello* h) noexcept nogil:
    cdef int at = decimal(out, h.version)
    out[at] = 44
    at += 1
    at += decimal(out + at, h.suite)
    out[at] = 44
    return extension_decimals(out, at + 1, h, True)


cdef inline int by_code(const void* left, const void* right) noexcept nogil:
    return <int>(<const uint16_t*>left)[0] - <int>(<const uint16_t*>right)[0]


cdef inline void sort_codes(uint16_t* codes, int n) noexcept nogil:
    cdef int i, j
    cdef uint16_t code
    if n > 64:
        qsort(codes, n, sizeof(uint16_t), by_code)
        return
    for i in range(1, n):
        code = codes[i]
        j = i
        while j and codes[j - 1] > code:
            codes[j] = codes[j - 1]
            j -= 1
        codes[j] = code


cdef inline int hexadecimals(char* out, int at, const uint16_t* codes, int n) noexcept nogil:
    cdef int i, shift
    for i in range(n):
        if i:
            out[at] = 44
            at += 1
        for shift in range(12, -4, -4):
            out[at] = HEXADECIMAL[codes[i] >> shift & 0xF]
            at += 1
    return at


cdef inline void short_hash(char* out, const Scratch* s, int n) noexcept nogil:
    cdef uint8_t hash[32]
    cdef int i
    digest_with(s.opening, SHA256, <const uint8_t*>s.text, n, hash)
    for i in range(6):
        out[2 * i] = HEXADECIMAL[hash[i] >> 4]
        out[2 * i + 1] = HEXADECIMAL[hash[i] & 0xF]


cdef inline void two_digits(char* out, int value) noexcept nogil:
    value = min(value, 99)
    out[0] = <char>(48 + value // 10)
    out[1] = <char>(48 + value % 10)


cdef inline bint alphanumeric(uint8_t b) noexcept nogil:
    return 48 <= b <= 57 or 65 <= b <= 90 or 97 <= b <= 122


cdef inline void ja4(char* out, const Hello* h, char transport, Scratch* s) noexcept nogil:
    # 36 characters.
    cdef uint32_t version = offered_version(h), code
    cdef const char* shown = "00"
    cdef int suites = 0, extensions = 0, listed = 0, i, at
    cdef bint named = False
    cdef Part alpn = protocols(h)
    cdef const uint8_t* name
    if version == 0x0304:
        shown = "13"
    elif version == 0x0303:
        shown = "12"
    elif version == 0x0302:
        shown = "11"
    elif version == 0x0301:
        shown = "10"
    elif version == 0x0300:
        shown = "s3"
    elif version == 0x0002:
        shown = "s2"
    elif version == 0xFEFF:
        shown = "d1"
    elif version == 0xFEFD:
        shown = "d2"
    elif version == 0xFEFC:
        shown = "d3"
    out[0], out[1], out[2] = transport, shown[0], shown[1]
    for i in range(0, h.suites.n - 1, 2):
        code = be16(h.suites.p + i)
        if not is_grease(code):
            s.codes[suites] = <uint16_t>code
            suites += 1
    sort_codes(s.codes, suites)
    at = hexadecimals(s.text, 0, s.codes, suites)
    if suites:
        short_hash(out + 11, s, at)
    else:
        memcpy(out + 11, b"000000000000", 12)
    i = 0
    while i < h.extensions.n:
        code = be16(h.extensions.p + i)
        i += 4 + <int>be16(h.extensions.p + i + 2)
        if is_grease(code):
            continue
        extensions += 1
        if code == 0:
            named = True
        elif code != 16:
            s.codes[listed] = <uint16_t>code
            listed += 1
    sort_codes(s.codes, listed)
    at = hexadecimals(s.text, 0, s.codes, listed)
    if is_list16(&h.schemes):
        listed = 0
        for i in range(2, h.schemes.n, 2):
            code = be16(h.schemes.p + i)
            if not is_grease(code):
                s.codes[listed] = <uint16_t>code
                listed += 1
        if listed:
            s.text[at] = 95
            at = hexadecimals(s.text, at + 1, s.codes, listed)
    if extensions:
        short_hash(out + 24, s, at)
    else:
        memcpy(out + 24, b"000000000000", 12)
    out[3] = 100 if named else 105
    two_digits(out + 4, suites)
    two_digits(out + 6, extensions)
    out[8] = out[9] = 48
    if alpn.n:
        name, i = alpn.p + 1, alpn.p[0]
        if alphanumeric(name[0]) and alphanumeric(name[i - 1]):
            out[8], out[9] = <char>name[0], <char>name[i - 1]
        else:
            out[8], out[9] = HEXADECIMAL[name[0] >> 4], HEXADECIMAL[name[i - 1] & 0xF]
    out[10] = out[23] = 95


# --- what is learnt ------------------------------------------------------------------------------

cdef inline void learn_client(Case* c, Budget* b, const Hello* h, char transport, Scratch* s) noexcept nogil:
    cdef uint8_t hash[32]
    cdef char fingerprint[36]
    cdef Part alpn = protocols(h)
    cdef int at = 0, n
    cdef const uint8_t* p = h.name.p
    put_number(c, b, F_OFFERED, offered_version(h), 2)
    if h.name.n >= 5 and p[2] == 0 and <int>be16(p) == h.name.n - 2:
        n = <int>be16(p + 3)
        if 0 < n <= min(h.name.n - 5, <int>LONGEST_NAME):
            put(c, b, F_NAME, p + 5, n)
    if alpn.n:
        while at < alpn.n and at + 1 + alpn.p[at] <= LONGEST_ALPN:
            at += 1 + alpn.p[at]
        put(c, b, F_ALPN, alpn.p, at)
    if h.ech.n >= 0:
        put_number(c, b, F_ECH, 1, 1)
    if transport == 100:
        learn_id(c, b, h, F_CLIENT_ID)
    if not c.known >> F_JA3 & 1:
        digest_with(s.opening, MD5, <const uint8_t*>s.text, ja3_text(s.text, h), hash)
        put(c, b, F_JA3, hash, 16)
    if not c.known >> F_JA4 & 1:
        ja4(fingerprint, h, transport, s)
        put(c, b, F_JA4, <const uint8_t*>fingerprint, 36)


cdef inline bint learn_server(Case* c, Budget* b, const Hello* h, bint datagrams, Scratch* s) noexcept nogil:
    cdef uint8_t hash[32]
    cdef Part alpn
    if memcmp(h.random, RETRY_RANDOM, 32) == 0:
        put_number(c, b, F_RETRY, 1, 1)
        return False
    put_number(c, b, F_VERSION, chosen_version(h), 2)
    put_number(c, b, F_CIPHER, h.suite, 2)
    if h.share.n >= 2:
        put_number(c, b, F_GROUP, be16(h.share.p), 2)
    alpn = protocols(h)
    if alpn.n:
        put(c, b, F_ALPN_CHOSEN, alpn.p + 1, alpn.p[0])
    if datagrams:
        learn_id(c, b, h, F_SERVER_ID)
    if not c.known >> F_JA3S & 1:
        digest_with(s.opening, MD5, <const uint8_t*>s.text, ja3s_text(s.text, h), hash)
        put(c, b, F_JA3S, hash, 16)
    return True
