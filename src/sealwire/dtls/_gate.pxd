# The compiled gate, for what reads a handshake socket without objects (drive/_front.pyx); see _gate.pyx.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from sealwire.dtls._places cimport Place
from sealwire.dtls._hello cimport Hello
from sealwire.dtls._tables cimport Slab, Strangers

# What a datagram comes to; those above 0 are reasons to discard it.
cdef enum:
    LEFT = -1  # Python must look; what was found so far waits in take_left()
    STRANGE = -2  # Python must look at it from the start
    ANSWERED = 0
    UNKNOWN_PEER = 1
    NOT_DTLS
    TRUNCATED_HEADER
    TRUNCATED_RECORD
    OVERSIZED_RECORD
    UNKNOWN_EPOCH
    BAD_FRAGMENT
    OVER_BUDGET
    INCOMPLETE_HELLO
    MALFORMED_HELLO
    UNDER_LOAD
    OTHER_VERSION
    BAD_COOKIE
    EMPTY
    OTHER_PROTOCOL
    REASONS

cdef enum:
    # No answer is longer.
    REPLY_ROOM = 512
    SUITES_KNOWN = 16

# Whether a datagram begins with a plaintext record holding (part of) a ClientHello.
cdef bint may_be_hello(const uint8_t* data, Py_ssize_t n) noexcept nogil

cdef class Sieve:
    cdef object _gate, _jar, _config, _left
    cdef Slab _slab, _proved
    cdef Strangers _strangers
    # Cookies.
    cdef void* _macs[2]
    cdef int _names[2]
    cdef int64_t _generation
    cdef double _lifetime
    cdef void* _hash
    # What the Config says.
    cdef int _suites[SUITES_KNOWN]
    cdef int _hash_bytes[SUITES_KNOWN]
    cdef int _suites_n
    cdef int _groups[64]
    cdef int _groups_n
    cdef bint _takes_psks, _psk_alone, _asks_name, _early, _proof, _require_cookie
    cdef object _ticket_keys, _strikes
    # What one call counts.
    cdef uint64_t discards[REASONS]
    cdef uint64_t _received, _sent, _retries, _refused, _early_rejected

    # Before a batch: keys and settings as they are now.  After it: counters.
    cdef int prepare(self, object config, double now) except -1
    cdef int settle(self) except -1
    # Judges one datagram that may be a hello; an answer of `out_n` bytes is in `out`.
    cdef int judge_datagram(
        self, const uint8_t* data, size_t n, const Place* place, double now, object known, bint others,
        uint8_t* out, int* out_n
    ) except -3
    cdef int _adopt(self, object config) except -1
    cdef bint _may_count(self, const Hello* hello) except -1
    cdef int _judge_fragment(
        self, const uint8_t* at, size_t n, uint64_t record, size_t size, size_t end, const Place* place,
        double now, object known, bint others, uint8_t* out, int* out_n
    ) except -3
    cdef int _judge(
        self, const uint8_t* body, size_t n, size_t received, uint64_t record, int seq, size_t end,
        const Place* place, double now, object known, bint others, uint8_t* out, int* out_n
    ) except -3
    cdef int _leave(
        self, const uint8_t* body, size_t n, size_t received, uint64_t record, int seq, size_t end, bint admitted
    ) except -3
    cdef int _unfit(self, const Hello* hello) noexcept
    cdef int _suite_of(self, const Hello* hello) noexcept
    cdef int _retry(
        self, const Hello* hello, const uint8_t* body, size_t n, size_t received, uint64_t record,
        size_t end, const Place* place, double now, bint loaded, uint8_t* out, int* out_n
    ) except -3
    cdef int _write_retry(
        self, int suite, int group, const uint8_t* body, size_t n, size_t received, uint64_t record,
        const Place* place, double now, uint8_t* out, int* out_n
    ) except -3
    cdef bint _hash_hello(self, int hash_n, const uint8_t* body, size_t n, uint8_t* out) noexcept
    cdef bint _mac(self, void* context, const Place* place, const uint8_t* body, size_t n, uint8_t* out) noexcept
    cdef bint _good_cookie(self, const uint8_t* cookie, size_t n, const Place* place, double now) noexcept
    cdef int _maybe_alert(self, int alert, uint64_t record, double now, int otherwise, uint8_t* out, int* out_n) noexcept
    cdef int _alert(self, int alert, uint64_t record, uint8_t* out, int* out_n) noexcept
