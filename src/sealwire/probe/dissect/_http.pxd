# HTTP/1, compiled: the answers of `http`, whose words explain it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp

from sealwire.probe.dissect._case cimport (
    CHUNK, CHUNK_END, DONE, F_CONTENT_TYPE, F_METHOD, F_NAME, F_SERVER, F_STATUS, F_TARGET, F_USER_AGENT,
    HEAD_BYTES, MORE, NO, NO_BODY, NOT_MINE, TRAILERS, UNSURE, Budget, Case, Way, put, put_number,
)
from sealwire.probe.dissect._lines cimport line_end, without_return

cdef enum:
    UNTOLD = -1
    CHUNKED = -2
    REST = -3
    CONTRADICTORY = -4
    LONGEST_LENGTH = 10
    LONGEST_CHUNK_SIZE = 7


cdef extern from *:
    """
    static const char *const sealwire_methods[] = {
        "GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "CONNECT ", "PATCH ", "TRACE ",
        "PROPFIND ", "PROPPATCH ", "MKCOL ", "COPY ", "MOVE ", "LOCK ", "UNLOCK ", "REPORT ",
        "SEARCH ", "NOTIFY ", "SUBSCRIBE ", "M-SEARCH "};
    static inline int sealwire_method(const unsigned char *p, int n) {
        for (unsigned i = 0; i < sizeof sealwire_methods / sizeof *sealwire_methods; i++) {
            const char *m = sealwire_methods[i];
            int k = 0;
            while (m[k] && k < n && (unsigned char)m[k] == p[k]) k++;
            if (!m[k]) return k;
        }
        return 0;
    }
    """
    # Length of the method and its blank that `p` begins with, or 0.
    int method_at "sealwire_method"(const uint8_t* p, int n) noexcept nogil


cdef inline int http_looks_so(const uint8_t* p, int n) noexcept nogil:
    if memcmp(p, b"HTTP/1.", 7) == 0:
        return UNSURE
    return UNSURE if method_at(p, min(n, 10)) else NO


cdef inline bint is_status(const uint8_t* p, int n) noexcept nogil:
    return (
        n >= 12 and (p[7] == 48 or p[7] == 49) and p[8] == 32
        and 48 <= p[9] <= 57 and 48 <= p[10] <= 57 and 48 <= p[11] <= 57 and (n == 12 or p[12] == 32)
    )


cdef inline bint is_request(const uint8_t* p, int n) noexcept nogil:
    cdef int begin = method_at(p, n)
    if begin == 0 or n < 9 or memcmp(p + n - 9, b" HTTP/1.", 8) != 0 or (p[n - 1] != 48 and p[n - 1] != 49):
        return False
    return begin < n - 9 and memchr(p + begin, 32, n - 9 - begin) == NULL


cdef inline bint is_header(const uint8_t* p, int n, const char* name, int size) noexcept nogil:
    cdef int i
    cdef uint8_t b
    if n != size:
        return False
    for i in range(size):
        b = p[i]
        if 65 <= b <= 90:
            b += 32
        if b != <uint8_t>name[i]:
            return False
    return True


cdef inline int wanted_header(const uint8_t* p, int n, bint response) noexcept nogil:
    if response:
        if is_header(p, n, b"server", 6):
            return F_SERVER
        return F_CONTENT_TYPE if is_header(p, n, b"content-type", 12) else 0
    if is_header(p, n, b"host", 4):
        return F_NAME
    return F_USER_AGENT if is_header(p, n, b"user-agent", 10) else 0


cdef struct HttpHead:
    # The first line, where the headers begin, and the body.
    const uint8_t* line
    int line_n
    int headers
    int behind
    bint response
    bint whole


cdef inline int http_head(HttpHead* h, const uint8_t* p, int n, int at) noexcept nogil:
    # DONE, MORE or NOT_MINE: see http.head_at.
    cdef int end = line_end(p, at, n), stop
    if end < 0:
        return MORE if at or n < HEAD_BYTES else NOT_MINE
    h.line, h.line_n = p + at, without_return(p, at, end) - at
    h.response = h.line_n >= 7 and memcmp(h.line, b"HTTP/1.", 7) == 0
    if not (is_status(h.line, h.line_n) if h.response else is_request(h.line, h.line_n)):
        return NOT_MINE
    h.headers = h.behind = end + 1
    h.whole = False
    while True:
        end = line_end(p, h.behind, n)
        if end < 0:
            break
        stop = without_return(p, h.behind, end)
        if stop == h.behind:
            h.whole = True
            h.behind = end + 1
            return DONE
        h.behind = end + 1
    return DONE if n >= HEAD_BYTES else MORE


cdef struct Header:
    const uint8_t* name
    int name_n
    const uint8_t* value
    int value_n


cdef inline bint next_header(const uint8_t* p, int* at, int behind, Header* found) noexcept nogil:
    # The next line with a colon; False at the end.
    cdef int end, stop, colon, begin
    while at[0] < behind:
        end = line_end(p, at[0], behind)
        if end < 0:
            return False
        stop, colon = without_return(p, at[0], end), at[0]
        while colon < stop and p[colon] != 58:
            colon += 1
        found.name, found.name_n = p + at[0], colon - at[0]
        at[0] = end + 1
        if colon < stop:
            begin = colon + 1
            while begin < stop and (p[begin] == 32 or p[begin] == 9):
                begin += 1
            while stop > begin and (p[stop - 1] == 32 or p[stop - 1] == 9):
                stop -= 1
            found.value, found.value_n = p + begin, stop - begin
            return True
    return False


cdef inline int status_of(const HttpHead* h) noexcept nogil:
    return (h.line[9] - 48) * 100 + (h.line[10] - 48) * 10 + (h.line[11] - 48)


cdef inline int64_t content_length(const uint8_t* p, int n) noexcept nogil:
    cdef int64_t value = 0
    cdef int i
    if n == 0 or n > LONGEST_LENGTH:
        return CONTRADICTORY
    for i in range(n):
        if not 48 <= p[i] <= 57:
            return CONTRADICTORY
        value = 10 * value + p[i] - 48
    return value


cdef inline int64_t body_of(const HttpHead* h, const uint8_t* p) noexcept nogil:
    cdef int64_t length = UNTOLD, coded = UNTOLD, told
    cdef int at = h.headers
    cdef Header header
    while next_header(p, &at, h.behind, &header):
        if is_header(header.name, header.name_n, b"transfer-encoding", 17):
            coded = REST
            if header.value_n >= 7 and is_header(header.value + header.value_n - 7, 7, b"chunked", 7):
                coded = CHUNKED
        elif is_header(header.name, header.name_n, b"content-length", 14):
            told = content_length(header.value, header.value_n)
            length = told if length == UNTOLD or length == told else CONTRADICTORY
    return length if coded == UNTOLD else coded


cdef inline void learn_http(Case* c, Budget* b, const HttpHead* h, const uint8_t* p) noexcept nogil:
    cdef int at = h.headers, begin, tag
    cdef Header header
    if h.response:
        put_number(c, b, F_STATUS, status_of(h), 2)
    else:
        begin = method_at(h.line, h.line_n)
        put(c, b, F_METHOD, h.line, begin - 1)
        put(c, b, F_TARGET, h.line + begin, min(h.line_n - 9 - begin, 1024))
    while next_header(p, &at, h.behind, &header):
        tag = wanted_header(header.name, header.name_n, h.response)
        if tag:
            put(c, b, tag, header.value, min(header.value_n, 255 if tag == F_NAME else 512))


cdef inline bint is_method(const HttpHead* request, const char* method, int n) noexcept nogil:
    return request != NULL and memcmp(request.line, method, n) == 0


cdef inline int64_t body_of_response(const HttpHead* h, const uint8_t* p, const HttpHead* request) noexcept nogil:
    cdef int status = status_of(h)
    cdef int64_t body
    if status == 101 or (200 <= status < 300 and is_method(request, b"CONNECT ", 8)):
        return REST
    if is_method(request, b"HEAD ", 5) or 100 <= status < 200 or status == 204 or status == 304:
        return 0
    body = body_of(h, p)
    return REST if body == UNTOLD else body


cdef inline int hex_digit(uint8_t b) noexcept nogil:
    if 48 <= b <= 57:
        return b - 48
    b |= 32
    return b - 87 if 97 <= b <= 102 else -1


cdef inline int64_t chunk_size(const uint8_t* p, int n) noexcept nogil:
    # -1 for none.
    cdef int64_t size = 0
    cdef int end = 0, i
    while end < n and p[end] != 59:
        end += 1
    while end and (p[end - 1] == 32 or p[end - 1] == 9):
        end -= 1
    if end == 0 or end > LONGEST_CHUNK_SIZE:
        return -1
    for i in range(end):
        if hex_digit(p[i]) < 0:
            return -1
        size = size << 4 | hex_digit(p[i])
    return size


cdef inline int skip_chunks(Way* way, const uint8_t* p, int n) noexcept nogil:
    cdef int end, stop
    cdef int64_t size
    while way.at < HEAD_BYTES:
        end = line_end(p, way.at, n)
        if end < 0:
            return MORE
        stop = without_return(p, way.at, end)
        if way.body == TRAILERS:
            if stop == <int>way.at:
                way.at = end + 1
                way.body = NO_BODY
                return DONE
            way.at = end + 1
        elif way.body == CHUNK_END:
            if stop != <int>way.at:
                return NOT_MINE
            way.at, way.body = end + 1, CHUNK
        else:
            size = chunk_size(p + way.at, stop - <int>way.at)
            if size < 0:
                return NOT_MINE
            way.at = <uint32_t>(end + 1 + size)
            way.body = CHUNK_END if size else TRAILERS
    return MORE
