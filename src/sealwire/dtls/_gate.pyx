# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The gate in C: a batch of strangers' hellos in a call, with the answers of `gate.Gate.receive`.

A hostile hello costs a look at its bytes, one hash of it and one MAC; there is no Python object for it
but, where batches are lists, the answer.  Tables and counts are those of the plain gate (`slab.py`,
`strangers.py`, `cookie.py`): this module points into their arrays and adds what it counted at the end of
a call.  What only Python can judge is left, with what was found out so far, to the plain gate: a good
cookie, a ticket that may stand for one, a name for the application's callback, the hello of a connection
that exists.  What a Config decides is read from it once, when it changes.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from sealwire.crypto cimport _hashes
from sealwire.crypto._hashes cimport MAC_BYTES
from sealwire.dtls cimport _hello
from sealwire.dtls._hello cimport Hello
from sealwire.dtls._places cimport TEXT_BYTES, Place, number, place_of_sockaddr, place_of_tuple, put_number
from sealwire.dtls._tables cimport Slab, Strangers

from sealwire.crypto.psk import PskMode
from sealwire.crypto.suites import SUITES
from sealwire.dtls import gate as plain
from sealwire.dtls import header
from sealwire.errors import Alert, Discard
from sealwire.tls13.flavor import DTLS
from sealwire.tls13.messages import HELLO_RETRY_RANDOM, HandshakeType

cdef list _reasons = [
    None,
    Discard.UNKNOWN_PEER,
    Discard.NOT_DTLS,
    Discard.TRUNCATED_HEADER,
    Discard.TRUNCATED_RECORD,
    Discard.OVERSIZED_RECORD,
    Discard.UNKNOWN_EPOCH,
    Discard.BAD_FRAGMENT,
    Discard.OVER_BUDGET,
    Discard.INCOMPLETE_HELLO,
    Discard.MALFORMED_HELLO,
    Discard.UNDER_LOAD,
    Discard.OTHER_VERSION,
    Discard.BAD_COOKIE,
    Discard.EMPTY,
    Discard.OTHER_PROTOCOL,
]
cdef enum:
    RECORD_HEADER = 13
    FRAGMENT_HEADER = 12
    COOKIE_MAC = 16
    # Generation, time, suite, group: what stands before the hash in a cookie.
    COOKIE_HEAD = 11

cdef uint64_t MAX_SEQUENCE = header.MAX_SEQUENCE
cdef int MAX_CONTENT = header.MAX_CONTENT_BYTES
cdef int HANDSHAKE = header.ContentType.HANDSHAKE
cdef int ALERT_TYPE = header.ContentType.ALERT
cdef int ACK_TYPE = header.ContentType.ACK
cdef int CLIENT_HELLO = HandshakeType.CLIENT_HELLO
cdef int SERVER_HELLO = HandshakeType.SERVER_HELLO
cdef int AMPLIFICATION = plain.AMPLIFICATION
cdef int FRAGMENTS_PER_DATAGRAM = plain.FRAGMENTS_PER_DATAGRAM
cdef int VERSION = DTLS.version
cdef int LEGACY_VERSION = DTLS.legacy_version
cdef int RECORD_VERSION = header.RECORD_VERSION
cdef bytes _retry_random = HELLO_RETRY_RANDOM

cdef int PROTOCOL_VERSION = Alert.PROTOCOL_VERSION
cdef int ILLEGAL_PARAMETER = Alert.ILLEGAL_PARAMETER
cdef int MISSING_EXTENSION = Alert.MISSING_EXTENSION
cdef int HANDSHAKE_FAILURE = Alert.HANDSHAKE_FAILURE


@cython.final
cdef class Sieve:
    """The compiled part of a :class:`sealwire.dtls.gate.Gate`."""

    def __init__(self, gate, provider):
        self._gate, self._jar = gate, gate.jar
        self._slab, self._proved = Slab(gate.slab), Slab(gate.proved)
        self._strangers = Strangers(gate.strangers)
        self._lifetime = gate.jar.lifetime
        self._require_cookie = gate.require_cookie
        self._generation = -1
        self._hash = _hashes.new_hash()
        memset(self.discards, 0, sizeof(self.discards))

    def __dealloc__(self):
        _hashes.release_hash(self._hash)
        _hashes.release_mac(self._macs[0])
        _hashes.release_mac(self._macs[1])

    # --- what changes seldom ---------------------------------------------------------------

    cdef int prepare(self, object config, double now) except -1:
        cdef int i
        cdef bytes key
        self._jar.rotate(now)
        if self._jar.generation != self._generation:
            for i in range(2):
                _hashes.release_mac(self._macs[i])
                self._macs[i] = NULL
            for i, (generation, key) in enumerate(self._jar.keys.items()):
                # The last is the one cookies are made with.
                self._macs[i] = _hashes.new_mac(key, len(key))
                self._names[i] = generation & 0xFF
            self._generation = self._jar.generation
        if config is not self._config:
            self._adopt(config)
        return 0

    cdef int _adopt(self, object config) except -1:
        """What tls13.selection asks of a Config, as numbers."""
        suites, groups = list(config.suites), list(config.groups)
        if len(suites) > SUITES_KNOWN or len(groups) > 64:
            raise ValueError("more suites or groups than exist")
        self._suites_n, self._groups_n = len(suites), len(groups)
        for i, suite in enumerate(suites):
            self._suites[<int>i] = suite
            self._hash_bytes[<int>i] = SUITES[suite].hash_bytes
        for i, group in enumerate(groups):
            self._groups[<int>i] = group
        self._takes_psks = config.psk_server is not None or bool(config.num_tickets)
        self._psk_alone = PskMode.PSK_KE in config.psk_modes
        self._asks_name = config.choose is not None
        self._strikes, self._ticket_keys = config.strikes, config.ticket_keys
        counting = config.strikes is not None and bool(config.num_tickets)
        self._early = counting and bool(config.max_early_data_size)
        self._proof = counting and config.tickets_as_proof
        self._config = config
        return 0

    cdef int settle(self) except -1:
        """Add what was counted to the endpoint's counters."""
        cdef object counters = self._gate.counters
        cdef int i
        for i in range(REASONS):
            if self.discards[i]:
                reason = _reasons[i]
                counters.discards[reason] = counters.discards.get(reason, 0) + self.discards[i]
                self.discards[i] = 0
        counters.unproved_bytes_received += self._received
        counters.unproved_bytes_sent += self._sent
        counters.hello_retry_requests += self._retries
        counters.cookies_refused += self._refused
        counters.early_data_rejected += self._early_rejected
        self._received = self._sent = self._retries = self._refused = self._early_rejected = 0
        return 0

    # --- batches ---------------------------------------------------------------------------

    def take_left(self):
        """What the last sift found of a datagram it left: body, bytes received, record number,
        message_seq, end of its record, whether it was admitted already; None if nothing."""
        left, self._left = self._left, None
        return left

    def sift(self, batch, Py_ssize_t index, config, double now, list replies, known, bint others):
        """See :meth:`sealwire.dtls.gate.Gate.sift`."""
        cdef Place place
        cdef uint8_t out[REPLY_ROOM]
        cdef int out_n, outcome
        cdef Py_ssize_t n = len(batch)
        cdef Py_buffer view
        cdef object datagram, address
        self.prepare(config, now)
        while index < n:
            datagram, address = batch[index]
            PyObject_GetBuffer(datagram, &view, PyBUF_SIMPLE)
            try:
                if not may_be_hello(<const uint8_t*>view.buf, view.len):
                    break
                if not isinstance(address, tuple) or not place_of_tuple(&place, <tuple>address):
                    break
                out_n = 0
                outcome = self.judge_datagram(
                    <const uint8_t*>view.buf, view.len, &place, now, known, others, out, &out_n
                )
                if out_n:
                    replies.append((PyBytes_FromStringAndSize(<char*>out, out_n), address))
            finally:
                PyBuffer_Release(&view)
            if outcome < 0:
                break
            self.discards[outcome] += outcome > 0
            index += 1
        self.settle()
        return index

    # --- one datagram ----------------------------------------------------------------------

    cdef int judge_datagram(
        self, const uint8_t* data, size_t n, const Place* place, double now, object known, bint others,
        uint8_t* out, int* out_n
    ) except -3:
        """Records and fragments, as Gate.receive goes through them."""
        cdef int answer = UNKNOWN_PEER
        cdef size_t offset = 0, size = n, end, at, length, piece, start
        cdef int fragments_left = FRAGMENTS_PER_DATAGRAM, taken
        cdef uint64_t record
        self._received += n
        while offset < n:
            start = offset + RECORD_HEADER
            if data[offset] != HANDSHAKE:
                if data[offset] != ALERT_TYPE and data[offset] != ACK_TYPE:
                    return answer if offset else NOT_DTLS
                # Whatever it is, it is no part of a hello.
                return answer
            if start > n:
                return answer if offset else TRUNCATED_HEADER
            record = number(data + offset + 3, 8)
            length = number(data + offset + 11, 2)
            if length > <size_t>MAX_CONTENT:
                return answer if offset else OVERSIZED_RECORD
            if start + length > n:
                return answer if offset else TRUNCATED_RECORD
            if record > MAX_SEQUENCE:
                return answer if offset else UNKNOWN_EPOCH
            end = start + length
            offset = end
            # The whole record must be fragments before one of them counts.
            at = start
            while True:
                if end - at < FRAGMENT_HEADER:
                    return BAD_FRAGMENT
                length, piece = number(data + at + 1, 3), number(data + at + 9, 3)
                if (
                    piece > end - at - FRAGMENT_HEADER
                    or number(data + at + 6, 3) + piece > length
                    or (length and not piece)
                ):
                    return BAD_FRAGMENT
                at += FRAGMENT_HEADER + piece
                if at == end:
                    break
            at, taken = start, 0
            while at < end and taken < fragments_left:
                piece = number(data + at + 9, 3)
                answer = self._judge_fragment(
                    data + at, piece, record, size, end, place, now, known, others, out, out_n
                )
                if answer != INCOMPLETE_HELLO:
                    return answer
                # The bytes of a datagram count once.
                size = 0
                taken += 1
                at += FRAGMENT_HEADER + piece
            fragments_left -= taken
        return answer

    cdef int _judge_fragment(
        self, const uint8_t* at, size_t n, uint64_t record, size_t size, size_t end, const Place* place,
        double now, object known, bint others, uint8_t* out, int* out_n
    ) except -3:
        cdef size_t length = number(at + 1, 3), offset = number(at + 6, 3)
        cdef int seq = <int>number(at + 4, 2)
        cdef const uint8_t* data = at + FRAGMENT_HEADER
        cdef const uint8_t* cookie = NULL
        cdef size_t cookie_n = 0
        cdef uint64_t tag
        cdef Slab slab = self._slab
        cdef int64_t slot = -1
        cdef int kept
        if at[0] != CLIENT_HELLO or seq > 1:
            return UNKNOWN_PEER
        if offset == 0 and n == length:
            return self._judge(data, n, size, record, seq, end, place, now, known, others, out, out_n)
        if (
            seq == 1
            and offset == 0
            and _hello.visible_cookie(data, n, &cookie, &cookie_n)
            and self._good_cookie(cookie, cookie_n, place, now)
        ):
            # This client is who it says it is, so its pieces move out of the reach of a flood.
            self._slab.move(self._proved, seq, length, record, place, now)
            slab = self._proved
        elif self._proved.occupied(self._proved.tag_of(seq, place)) >= 0:
            slab = self._proved
        tag = slab.tag_of(seq, place)
        kept = slab.put(tag, length, offset, data, n, record, size, now, &slot)
        if kept != 2:
            return INCOMPLETE_HELLO if kept else OVER_BUDGET
        return self._judge(
            &slab.data[slot * slab.size], length, slab.received[slot], slab.record[slot], seq, end, place, now,
            known, others, out, out_n
        )

    # --- one hello -------------------------------------------------------------------------

    cdef int _judge(
        self, const uint8_t* body, size_t n, size_t received, uint64_t record, int seq, size_t end,
        const Place* place, double now, object known, bint others, uint8_t* out, int* out_n
    ) except -3:
        """As Gate._judge."""
        cdef Hello hello
        cdef int read = _hello.parse(body, n, VERSION, &hello)
        cdef int alert
        cdef bint loaded
        if read == _hello.FOREIGN:
            return self._leave(body, n, received, record, seq, end, False)
        if read == _hello.MALFORMED:
            return MALFORMED_HELLO
        if not hello.offers_version:
            if others:
                return self._leave(body, n, received, record, seq, end, False)
            self.discards[OTHER_VERSION] += 1
            if not self._strangers.may_alert(now):
                return OTHER_VERSION
            return self._alert(PROTOCOL_VERSION, record, out, out_n)
        alert = self._unfit(&hello)
        if alert:
            return self._maybe_alert(alert, record, now, MALFORMED_HELLO, out, out_n)
        if hello.cookie != NULL:
            if seq == 1 and self._good_cookie(hello.cookie, hello.cookie_n, place, now):
                return self._leave(body, n, received, record, seq, end, False)
            self._refused += 1
            # RFC 9147 section 5.1 [9147-5.1-11], decision A7.
            return self._maybe_alert(ILLEGAL_PARAMETER, record, now, BAD_COOKIE, out, out_n)
        if seq != 0:
            return MALFORMED_HELLO
        if known and PyBytes_FromStringAndSize(<const char*>hello.random, 32) in known:
            return self._leave(body, n, received, record, seq, end, False)
        if not self._strangers.admits(place, now):
            return UNDER_LOAD
        loaded = self._strangers.loaded(now)
        if self._asks_name or (
            # A ticket that may show the address.
            not loaded
            and hello.has_psks
            and (self._proof or (self._early and hello.has_early_data))
            and self._may_count(&hello)
        ):
            return self._leave(body, n, received, record, seq, end, True)
        return self._retry(&hello, body, n, received, record, end, place, now, loaded, out, out_n)

    cdef bint _may_count(self, const Hello* hello) except -1:
        """Whether the first key of a hello looks like a ticket of ours that has not counted."""
        cdef bytes identity = PyBytes_FromStringAndSize(<const char*>hello.identity, hello.identity_n)
        return self._ticket_keys.seems_ours(identity) and not self._strikes.struck(identity)

    cdef int _leave(
        self, const uint8_t* body, size_t n, size_t received, uint64_t record, int seq, size_t end, bint admitted
    ) except -3:
        cdef bytes whole = PyBytes_FromStringAndSize(<const char*>body, n)
        self._left = (whole, received, record, seq, end, admitted)
        return LEFT

    cdef int _unfit(self, const Hello* hello) noexcept:
        """The alert for what selection.check_hello refuses, else 0."""
        if not hello.compression_null:
            return ILLEGAL_PARAMETER
        if hello.has_legacy_cookie:
            return ILLEGAL_PARAMETER
        if not hello.has_psks:
            if not hello.has_schemes:
                return MISSING_EXTENSION
        elif hello.groups == NULL and not hello.has_shares:
            return 0
        if hello.groups == NULL or not hello.has_shares:
            return MISSING_EXTENSION
        return ILLEGAL_PARAMETER if _hello.shares_unfit(hello) else 0

    cdef int _suite_of(self, const Hello* hello) noexcept:
        """Place of the first common suite in our list, as selection.select finds it; -1 for none."""
        cdef int i, turn
        cdef bint fits
        cdef bint sorting = hello.has_psks and self._takes_psks
        for turn in range(2 if sorting else 1):
            for i in range(self._suites_n):
                if sorting:
                    # First those whose hash goes with a key the client offers.
                    fits = hello.binders48 if self._hash_bytes[i] == 48 else hello.binders32
                    if fits != (turn == 0):
                        continue
                if _hello.contains(hello.suites, hello.suites_n, self._suites[i]):
                    return i
        return -1

    cdef int _retry(
        self, const Hello* hello, const uint8_t* body, size_t n, size_t received, uint64_t record,
        size_t end, const Place* place, double now, bint loaded, uint8_t* out, int* out_n
    ) except -3:
        cdef int suite = self._suite_of(hello)
        cdef int group = -1, i, code
        cdef size_t m
        cdef bint psk_alone = False
        if suite < 0:
            return self._maybe_alert(HANDSHAKE_FAILURE, record, now, MALFORMED_HELLO, out, out_n)
        for i in range(self._groups_n):
            if _hello.contains(hello.groups, hello.groups_n, self._groups[i]):
                group = self._groups[i]
                break
        if self._psk_alone and hello.modes != NULL:
            for m in range(hello.modes_n):
                psk_alone = psk_alone or hello.modes[m] == 0
        if group < 0 and not (psk_alone and hello.has_psks):
            return self._maybe_alert(HANDSHAKE_FAILURE, record, now, MALFORMED_HELLO, out, out_n)
        if not self._require_cookie and not loaded:
            # Python says whether this one needs a retry at all.
            return self._leave(body, n, received, record, 0, end, True)
        self._early_rejected += hello.has_early_data
        if group >= 0 and _hello.has_share(hello, group):
            group = -1
        return self._write_retry(suite, group, body, n, received, record, place, now, out, out_n)

    cdef int _write_retry(
        self, int suite, int group, const uint8_t* body, size_t n, size_t received, uint64_t record,
        const Place* place, double now, uint8_t* out, int* out_n
    ) except -3:
        cdef int hash_n = self._hash_bytes[suite]
        cdef int cookie_n = COOKIE_HEAD + hash_n + COOKIE_MAC
        cdef int extensions_n = 6 + (6 if group >= 0 else 0) + 6 + cookie_n
        cdef int body_n = 2 + 32 + 1 + 2 + 1 + 2 + extensions_n
        cdef int whole_n = RECORD_HEADER + FRAGMENT_HEADER + body_n
        cdef uint8_t* at = out
        cdef int newest = 1 if self._macs[1] != NULL else 0
        if <size_t>whole_n > AMPLIFICATION * received:
            return OVER_BUDGET
        at[0] = HANDSHAKE
        at = put_number(at + 1, RECORD_VERSION, 2)
        # The number of the client's record: it grows with each hello, so ours never repeats.
        at = put_number(at, record, 8)
        at = put_number(at, FRAGMENT_HEADER + body_n, 2)
        at[0] = SERVER_HELLO
        at = put_number(at + 1, body_n, 3)
        at = put_number(at, 0, 5)
        at = put_number(at, body_n, 3)
        at = put_number(at, LEGACY_VERSION, 2)
        memcpy(at, <const uint8_t*>_retry_random, 32)
        at[32] = 0
        at = put_number(at + 33, self._suites[suite], 2)
        at[0] = 0
        at = put_number(at + 1, extensions_n, 2)
        at = put_number(at, 43, 2)
        at = put_number(at, 2, 2)
        at = put_number(at, VERSION, 2)
        if group >= 0:
            at = put_number(at, 51, 2)
            at = put_number(at, 2, 2)
            at = put_number(at, group, 2)
        at = put_number(at, 44, 2)
        at = put_number(at, cookie_n + 2, 2)
        at = put_number(at, cookie_n, 2)
        # The cookie, as CookieJar.make writes it.
        at[0] = <uint8_t>self._names[newest]
        put_number(at + 1, <uint64_t>(now * 1000), 6)
        put_number(at + 7, self._suites[suite], 2)
        put_number(at + 9, group if group >= 0 else 0, 2)
        if not self._hash_hello(hash_n, body, n, at + COOKIE_HEAD):
            return STRANGE
        if not self._mac(self._macs[newest], place, at, COOKIE_HEAD + hash_n, at + COOKIE_HEAD + hash_n):
            return STRANGE
        self._retries += 1
        self._sent += whole_n
        self._strangers.answered(whole_n)
        out_n[0] = whole_n
        return ANSWERED

    # --- cookies ---------------------------------------------------------------------------

    cdef bint _hash_hello(self, int hash_n, const uint8_t* body, size_t n, uint8_t* out) noexcept:
        """The hash of the hello in TLS form."""
        cdef uint8_t lead[4]
        lead[0] = <uint8_t>CLIENT_HELLO
        put_number(lead + 1, n, 3)
        return _hashes.sha(self._hash, hash_n, lead, 4, body, n, out)

    cdef bint _mac(self, void* context, const Place* place, const uint8_t* body, size_t n, uint8_t* out) noexcept:
        """COOKIE_MAC bytes to `out`: CookieJar's MAC over place and cookie."""
        cdef uint8_t text[2 + TEXT_BYTES + 1 + COOKIE_HEAD + 64]
        cdef uint8_t found[MAC_BYTES]
        cdef size_t m = place.text_n
        put_number(text, m + 1, 2)
        memcpy(text + 2, place.text, m)
        text[2 + m] = 0
        memcpy(text + 3 + m, body, n)
        if not _hashes.mac(context, text, 3 + m + n, found):
            return False
        memcpy(out, found, COOKIE_MAC)
        return True

    cdef bint _good_cookie(self, const uint8_t* cookie, size_t n, const Place* place, double now) noexcept:
        """Whether CookieJar.check would find facts in it."""
        cdef uint8_t found[COOKIE_MAC]
        cdef int i
        cdef double age
        if n != COOKIE_HEAD + 32 + COOKIE_MAC and n != COOKIE_HEAD + 48 + COOKIE_MAC:
            # No other length was ever made.
            return False
        for i in range(2):
            if self._macs[i] != NULL and self._names[i] == cookie[0]:
                if not self._mac(self._macs[i], place, cookie, n - COOKIE_MAC, found):
                    return False
                if not _hashes.same(found, cookie + n - COOKIE_MAC, COOKIE_MAC):
                    return False
                age = now - <double>number(cookie + 1, 6) / 1000
                return age <= self._lifetime
        return False

    # --- alerts ----------------------------------------------------------------------------

    cdef int _maybe_alert(self, int alert, uint64_t record, double now, int otherwise, uint8_t* out, int* out_n) noexcept:
        if not self._strangers.may_alert(now):
            return otherwise
        return self._alert(alert, record, out, out_n)

    cdef int _alert(self, int alert, uint64_t record, uint8_t* out, int* out_n) noexcept:
        out[0] = ALERT_TYPE
        put_number(out + 1, RECORD_VERSION, 2)
        put_number(out + 3, record, 8)
        put_number(out + 11, 2, 2)
        out[13], out[14] = 2, alert
        out_n[0] = 15
        self._sent += 15
        return ANSWERED


cdef bint may_be_hello(const uint8_t* data, Py_ssize_t n) noexcept nogil:
    return n > 13 and data[0] == HANDSHAKE and data[13] == CLIENT_HELLO
