# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Record protection, compiled: the answers of `reference`, on libcrypto directly.

Work is done in portions of at most 64 records: gather pointers with the GIL, do all the
cryptography of the portion without looking at a Python object, hand out results with the GIL
again.  While a large portion is computed the GIL is free; `_busy` keeps a second thread from
using the same keys until the run is done.  Between runs there are keys only: contexts are
borrowed for each (crypto/_lending).  Record number masks of a portion are one call.  Sealing
fills the bytes objects it returns; opening goes through a scratch buffer, so that a forged record
leaves no object behind.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport NONCE_BYTES, SAMPLE_BYTES
from sealwire.crypto._lending cimport borrow, discard, give_back, keep

from sealwire.crypto.suites import AeadKind
from sealwire.errors import Discard
from sealwire.record.bounds import check_block, check_content, check_start, internal_error
from sealwire.record.reference import DISCARDS

cdef int64_t MAX_SEQUENCE = max_sequence()

# Entries of dropped records, by number; the numbers are those of DISCARDS.
cdef list _dropped = [(-n, 0, b"") for n in range(len(DISCARDS))]
cdef int EMPTY = DISCARDS.index(Discard.EMPTY)
cdef int TRUNCATED_HEADER = DISCARDS.index(Discard.TRUNCATED_HEADER)
cdef int TRUNCATED_RECORD = DISCARDS.index(Discard.TRUNCATED_RECORD)
cdef int SHORT_CIPHERTEXT = DISCARDS.index(Discard.SHORT_CIPHERTEXT)
cdef int OVERSIZED_RECORD = DISCARDS.index(Discard.OVERSIZED_RECORD)
cdef int UNKNOWN_CID = DISCARDS.index(Discard.UNKNOWN_CID)
cdef int AUTHENTICATION = DISCARDS.index(Discard.AUTHENTICATION)
cdef int REPLAY = DISCARDS.index(Discard.REPLAY)
cdef int TOO_OLD = DISCARDS.index(Discard.TOO_OLD)
cdef int EMPTY_CONTENT = DISCARDS.index(Discard.EMPTY_CONTENT)


cdef _evp.Algorithm algorithm_of(object spec) except *:
    if spec.aead is AeadKind.CHACHA20_POLY1305:
        return _evp.CHACHA20_POLY1305
    if spec.aead is AeadKind.AES_GCM:
        return _evp.AES_128_GCM if spec.key_bytes == 16 else _evp.AES_256_GCM
    if spec.aead is AeadKind.AES_CCM and spec.key_bytes == 16:
        return _evp.AES_128_CCM_8 if spec.tag_bytes == 8 else _evp.AES_128_CCM
    raise ValueError(f"{spec.name} has no compiled implementation")


cdef const uint8_t* checked(object key, object n, str what) except NULL:
    # Where it lies: a copy would have to be erased.
    if not isinstance(key, bytes) or len(key) != n:
        raise ValueError(f"{what} must have {n} bytes, not {len(key)}")
    return <const uint8_t*>PyBytes_AS_STRING(key)


cdef int check(long content_type, Py_ssize_t n, Py_ssize_t padding) except -1:
    if not (1 <= content_type <= 255 and 0 <= padding <= MAX_CONTENT_BYTES and n + padding <= MAX_CONTENT_BYTES):
        check_content(content_type, <object>n + <object>padding, padding)
    return 0


@cython.final
cdef class Sealer:
    """See :class:`sealwire.record.reference.Sealer`."""

    def __cinit__(self, provider, spec, keys, epoch, cid=b"", *, sequence=0):
        check_start(cid, sequence, 0, MAX_SEQUENCE + 1)
        cdef const uint8_t* key = checked(keys.key, spec.key_bytes, "key")
        cdef const uint8_t* sn_key = checked(keys.sn_key, spec.key_bytes, "sn_key")
        cdef const uint8_t* iv = checked(keys.iv, NONCE_BYTES, "iv")
        _evp.api()
        keep(&self._keys, algorithm_of(spec), True, key, spec.key_bytes, sn_key, iv)
        self.epoch = epoch
        self.sequence = sequence
        self._tag_bytes = _evp.tag_bytes(self._keys.algorithm)
        # RFC 9147 section 4.2.3 [9147-4.2.3-4]: content and padding that make a whole sample.
        self._least = max(SAMPLE_BYTES - self._tag_bytes - 1, 0)
        self.seal_limit = spec.seal_limit
        self.cid = cid

    def __dealloc__(self):
        discard(&self._keys)

    @property
    def cid(self):
        return self._cid

    @cid.setter
    def cid(self, cid):
        check_start(cid, 0, 0, 0)
        enter(self._busy)
        self._busy = True
        try:
            self._cid = bytes(cid)
            self._cid_start, self._cid_bytes = PyBytes_AS_STRING(self._cid), <int>len(self._cid)
            # RFC 9147 section 4 [9147-4-11]: 0 0 1, then C, S, L and two epoch bits.
            # RFC 9147 section 4 [9147-4-7]: a negotiated connection id is in every record.
            self._first = 0x20 | (0x10 if self._cid_bytes else 0) | <uint8_t>(self.epoch & 3)
            self.overhead = 1 + self._cid_bytes + 4 + 1 + self._tag_bytes
        finally:
            self._busy = False

    def seal(self, long content_type, content, Py_ssize_t padding=0, *, bint short_sequence=False, bint with_length=True):
        """See :meth:`sealwire.record.reference.Sealer.seal`."""
        cdef Py_buffer view
        cdef int header = 1 + self._cid_bytes + (1 if short_sequence else 2) + (2 if with_length else 0)
        cdef int64_t sequence
        cdef bytes record
        cdef uint8_t* out
        cdef uint8_t masked[SAMPLE_BYTES]
        PyObject_GetBuffer(content, &view, PyBUF_SIMPLE)
        if self._busy:
            PyBuffer_Release(&view)
        enter(self._busy)
        self._busy = True
        try:
            check(content_type, view.len, padding)
            padding = max(padding, self._least - view.len)
            sequence = self._reserve(1)
            borrow(&self._keys, &self._lent)
            record = PyBytes_FromStringAndSize(NULL, header + view.len + 1 + padding + self._tag_bytes)
            out = <uint8_t*>PyBytes_AS_STRING(record)
            if not (
                self._protect(
                    sequence, <uint8_t>content_type, <const uint8_t*>view.buf, <int>view.len, <int>padding,
                    short_sequence, with_length, out
                )
                and _evp.mask(self._lent.mask, self._keys.algorithm, out + header, 1, masked)
            ):
                raise internal_error("libcrypto could not seal a record")
            _apply_mask(out + 1 + self._cid_bytes, masked, 1 if short_sequence else 2)
            return record
        finally:
            give_back(&self._keys, &self._lent)
            self._busy = False
            PyBuffer_Release(&view)

    def seal_run(self, long content_type, messages, Py_ssize_t block=0, Py_ssize_t longest=MAX_INNER_BYTES):
        """See :meth:`sealwire.record.reference.Sealer.seal_run`."""
        # A list of its own: the caller's may change while the GIL is free.
        cdef list held = list(messages)
        cdef Py_ssize_t count = len(held)
        cdef Py_ssize_t start, n
        cdef int64_t sequence
        cdef list records = []
        for message in held:
            # bytes is what comes nearly always and cannot change its length any more.
            n = len(<bytes>message) if type(message) is bytes else memoryview(message).nbytes
            check(content_type, n, 0)
        check(content_type, 0, 0)
        if block < 0 or not 0 <= longest <= MAX_INNER_BYTES:
            check_block(block, longest)
        # A block that no record reaches is the same as the longest record.
        block = min(block, MAX_INNER_BYTES)
        enter(self._busy)
        self._busy = True
        try:
            sequence = self._reserve(count)
            borrow(&self._keys, &self._lent)
            for start in range(0, count, PORTION):
                self._seal_portion(
                    sequence + start, <uint8_t>content_type, held, start, min(count - start, PORTION), records,
                    <int>block, <int>longest
                )
        finally:
            give_back(&self._keys, &self._lent)
            self._busy = False
        return records

    cdef int64_t _reserve(self, int64_t n) except -1:
        # An error after this function wastes numbers and never uses one twice.
        # RFC 9147 section 4.2.1 [9147-4.2.1-6]: stop rather than wrap.
        cdef int64_t sequence = self.sequence
        if n > MAX_SEQUENCE + 1 - sequence:
            raise internal_error(f"record numbers of epoch {self.epoch} are used up")
        self.sequence += n
        self.sealed += n
        return sequence

    cdef int _seal_portion(
        self,
        int64_t sequence,
        uint8_t content_type,
        list messages,
        Py_ssize_t start,
        int count,
        list records,
        int block,
        int longest,
    ) except -1:
        cdef Py_buffer views[PORTION]
        cdef uint8_t* outs[PORTION]
        cdef int paddings[PORTION]
        cdef int viewed = 0
        cdef Py_ssize_t total = 0
        cdef int n
        cdef bint sealed
        cdef bytes record
        try:
            for n in range(count):
                PyObject_GetBuffer(messages[start + n], &views[n], PyBUF_SIMPLE)
                viewed += 1
                if views[n].len > MAX_CONTENT_BYTES:
                    raise BufferError("a message grew while it was being sealed")
                paddings[n] = max(block_padding(<int>views[n].len, block, longest), self._least - <int>views[n].len)
                record = PyBytes_FromStringAndSize(NULL, self.overhead + views[n].len + paddings[n])
                outs[n] = <uint8_t*>PyBytes_AS_STRING(record)
                records.append(record)
                total += views[n].len
            if total < RELEASE_BYTES:
                sealed = self._seal_views(sequence, content_type, views, outs, paddings, count)
            else:
                with nogil:
                    sealed = self._seal_views(sequence, content_type, views, outs, paddings, count)
            if not sealed:
                raise internal_error("libcrypto could not seal a record")
        finally:
            for n in range(viewed):
                PyBuffer_Release(&views[n])
        return 0

    cdef bint _seal_views(
        self, int64_t sequence, uint8_t content_type, Py_buffer* views, uint8_t** outs, int* paddings, int count
    ) noexcept nogil:
        cdef uint8_t samples[PORTION * SAMPLE_BYTES]
        cdef uint8_t masks[PORTION * SAMPLE_BYTES]
        cdef int header = 1 + self._cid_bytes + 4
        cdef int n
        for n in range(count):
            if not self._protect(
                sequence + n, content_type, <const uint8_t*>views[n].buf, <int>views[n].len,
                paddings[n], False, True, outs[n]
            ):
                return False
            memcpy(samples + n * SAMPLE_BYTES, outs[n] + header, SAMPLE_BYTES)
        if not _evp.mask(self._lent.mask, self._keys.algorithm, samples, count, masks):
            return False
        for n in range(count):
            _apply_mask(outs[n] + 1 + self._cid_bytes, masks + n * SAMPLE_BYTES, 2)
        return True

    cdef bint _protect(
        self,
        int64_t sequence,
        uint8_t content_type,
        const uint8_t* content,
        int n,
        int padding,
        bint short_sequence,
        bint with_length,
        uint8_t* out,
    ) noexcept nogil:
        # Everything but the mask, which the caller puts on.
        cdef uint8_t nonce[NONCE_BYTES]
        cdef int inner = n + 1 + padding
        cdef int at = 1 + self._cid_bytes
        out[0] = self._first | (0 if short_sequence else 0x08) | (0x04 if with_length else 0)
        memcpy(out + 1, self._cid_start, self._cid_bytes)
        if not short_sequence:
            out[at] = <uint8_t>(sequence >> 8)
            at += 1
        out[at] = <uint8_t>sequence
        at += 1
        if with_length:
            out[at] = <uint8_t>((inner + self._tag_bytes) >> 8)
            out[at + 1] = <uint8_t>(inner + self._tag_bytes)
            at += 2
        out[at + n] = content_type
        memset(out + at + n + 1, 0, padding)
        make_nonce(self._keys.iv, sequence, nonce)
        # RFC 9147 section 4 [9147-4-10]: the associated data is the header before masking.
        return _evp.seal_with_tail(
            self._lent.aead, self._keys.algorithm, nonce, out, at, content, n, inner - n, out + at
        )


@cython.final
cdef class Opener:
    """See :class:`sealwire.record.reference.Opener`."""

    def __cinit__(self, provider, spec, keys, epoch, cid=b"", int64_t window=256, *, highest=-1):
        check_start(cid, highest, -1, MAX_SEQUENCE)
        if window <= 0 or window % 64:
            raise ValueError(f"replay window of {window} records is not a positive multiple of 64")
        cdef const uint8_t* key = checked(keys.key, spec.key_bytes, "key")
        cdef const uint8_t* sn_key = checked(keys.sn_key, spec.key_bytes, "sn_key")
        cdef const uint8_t* iv = checked(keys.iv, NONCE_BYTES, "iv")
        _evp.api()
        keep(&self._keys, algorithm_of(spec), False, key, spec.key_bytes, sn_key, iv)
        self._tag_bytes = _evp.tag_bytes(self._keys.algorithm)
        self._seen = <uint64_t*>PyMem_Malloc(window // 8)
        if self._seen == NULL:
            raise MemoryError
        memset(self._seen, 0xFF if highest >= 0 else 0, window // 8)
        self._window = window
        self._cid = bytes(cid)
        self._cid_start = PyBytes_AS_STRING(self._cid)
        self._cid_bytes = <int>len(self._cid)
        self.epoch = epoch
        self._first = 0x20 | <uint8_t>(self.epoch & 3)
        # RFC 9147 section 4.5.1 [9147-4.5.1-2]: a new epoch starts at zero.
        self.highest = highest
        self.forgery_limit = spec.forgery_limit
        self.inner_limit = MAX_INNER_BYTES

    def __dealloc__(self):
        discard(&self._keys)
        PyMem_Free(self._seen)

    @property
    def cid(self):
        return self._cid

    @cid.setter
    def cid(self, cid):
        if len(cid) != self._cid_bytes:
            raise ValueError(f"a connection id of {len(cid)} bytes cannot follow one of {self._cid_bytes}")
        enter(self._busy)
        self._busy = True
        try:
            self._cid = bytes(cid)
            self._cid_start = PyBytes_AS_STRING(self._cid)
        finally:
            self._busy = False

    def open_run(self, datagrams, Py_ssize_t index, Py_ssize_t offset):
        """See :meth:`sealwire.record.reference.Opener.open_run`."""
        cdef list entries = []
        if index < 0 or offset < 0:
            raise ValueError("a run starts at an index and offset from 0 on")
        enter(self._busy)
        self._busy = True
        try:
            borrow(&self._keys, &self._lent)
            while self._open_portion(datagrams, &index, &offset, entries):
                pass
        finally:
            give_back(&self._keys, &self._lent)
            self._busy = False
        return entries, index, offset

    def would_open(self, datagram, Py_ssize_t offset):
        """See :meth:`sealwire.record.reference.Opener.would_open`."""
        cdef Py_buffer view
        cdef Found record
        cdef Py_ssize_t end
        cdef uint8_t mask[SAMPLE_BYTES]
        PyObject_GetBuffer(datagram, &view, PyBUF_SIMPLE)
        if self._busy:
            PyBuffer_Release(&view)
        enter(self._busy)
        self._busy = True
        memset(&record, 0, sizeof(Found))
        try:
            if not 0 <= offset < view.len:
                raise ValueError("a record starts inside of its datagram")
            end = self._parse(<const uint8_t*>view.buf, offset, view.len, &record)
            if record.dropped == 0:
                record.inner = <uint8_t*>PyMem_RawMalloc(record.body)
                if record.inner == NULL:
                    raise MemoryError
                borrow(&self._keys, &self._lent)
                if not (
                    _evp.mask(self._lent.mask, self._keys.algorithm, record.start + record.header, 1, mask)
                    and self._authentic(&record, mask)
                ):
                    record.dropped = AUTHENTICATION
                else:
                    record.dropped = self._seen_before(record.sequence)
            return record.dropped, end
        finally:
            give_back(&self._keys, &self._lent)
            PyMem_RawFree(record.inner)
            self._busy = False
            PyBuffer_Release(&view)

    cdef bint _open_portion(
        self, object datagrams, Py_ssize_t* index, Py_ssize_t* offset, list entries
    ) except -1:
        """Open up to PORTION records and move on; False when the run ends here."""
        cdef Py_buffer views[PORTION]
        cdef Found found[PORTION]
        cdef int viewed = 0
        cdef int count = 0
        cdef int opened = 0
        cdef Py_ssize_t at = index[0]
        cdef Py_ssize_t start = offset[0]
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t many = len(datagrams)
        cdef uint8_t* scratch = NULL
        cdef uint8_t* inner
        cdef const uint8_t* data
        cdef Py_ssize_t n
        cdef bint ended = False
        cdef Found* record
        try:
            # Every datagram looked at yields at least one record or ends the loop, except the first.
            while at < many and count < PORTION and total < PORTION_BYTES and viewed < PORTION:
                PyObject_GetBuffer(datagrams[at], &views[viewed], PyBUF_SIMPLE)
                data = <const uint8_t*>views[viewed].buf
                n = views[viewed].len
                viewed += 1
                if n == 0:
                    record = &found[count]
                    memset(record, 0, sizeof(Found))
                    record.dropped = EMPTY
                    record.at = at
                    count += 1
                while start < n and count < PORTION and total < PORTION_BYTES:
                    # RFC 9147 section 4.1 [9147-4.1-2]: the top three bits are 001.
                    if data[start] & 0xE3 != self._first:
                        ended = True
                        break
                    record = &found[count]
                    memset(record, 0, sizeof(Found))
                    record.at = at
                    start = self._parse(data, start, n, record)
                    record.end = start
                    if record.dropped == 0:
                        total += record.body
                    count += 1
                if ended or start < n:
                    break
                at += 1
                start = 0
            if total:
                scratch = <uint8_t*>PyMem_RawMalloc(total)
                if scratch == NULL:
                    raise MemoryError
                inner = scratch
                for n in range(count):
                    found[n].inner = inner
                    if found[n].dropped == 0:
                        inner += found[n].body
            if total < RELEASE_BYTES:
                opened = self._open_found(found, count)
            else:
                with nogil:
                    opened = self._open_found(found, count)
            for n in range(opened):
                record = &found[n]
                if record.dropped:
                    entries.append(_dropped[record.dropped])
                else:
                    entries.append((
                        record.content_type,
                        record.sequence,
                        PyBytes_FromStringAndSize(<char*>record.inner, record.content),
                    ))
            if opened and found[opened - 1].dropped == 0 and found[opened - 1].content_type != APPLICATION_DATA:
                ended = True
                # What was gathered behind this record is for the next call.
                at = found[opened - 1].at
                start = found[opened - 1].end
                if start == views[at - index[0]].len:
                    at += 1
                    start = 0
        finally:
            PyMem_RawFree(scratch)
            for n in range(viewed):
                PyBuffer_Release(&views[n])
        index[0] = at
        offset[0] = start if at < many else 0
        return not ended and at < many

    cdef Py_ssize_t _parse(self, const uint8_t* data, Py_ssize_t start, Py_ssize_t n, Found* record) noexcept nogil:
        # Fill `record` from the header at `start`; the offset behind the record.
        cdef uint8_t first = data[start]
        cdef Py_ssize_t at = start + 1 + self._cid_bytes
        cdef Py_ssize_t end = n
        if ((first & 0x10) != 0) != (self._cid_bytes > 0):
            record.dropped = UNKNOWN_CID
            return n
        record.start = data + start
        record.number_bytes = 2 if first & 0x08 else 1
        at += record.number_bytes
        if first & 0x04:
            at += 2
        if at > n:
            record.dropped = TRUNCATED_HEADER
            return n
        # RFC 9147 section 4 [9147-4-6]: a record without a length takes the rest of the datagram.
        if first & 0x04:
            end = at + (<Py_ssize_t>data[at - 2] << 8 | data[at - 1])
            # RFC 9147 section 4.3 [9147-4.3-5]: records do not span datagrams.
            if end > n:
                record.dropped = TRUNCATED_RECORD
                return n
        # RFC 9147 section 4 [9147-4-9]: a foreign connection id condemns the rest of the datagram.
        if memcmp(record.start + 1, self._cid_start, self._cid_bytes) != 0:
            record.dropped = UNKNOWN_CID
            return n
        record.header = <int>(at - start)
        # RFC 9147 section 4.5.2 [9147-4.5.2-1]: what follows drops this record only.
        # RFC 9147 section 4.2.3 [9147-4.2.3-3]: below a sample there is nothing to make a mask from.
        if end - at < SAMPLE_BYTES:
            record.dropped = SHORT_CIPHERTEXT
        elif end - at > MAX_INNER_BYTES + self._tag_bytes:
            record.dropped = OVERSIZED_RECORD
        else:
            record.body = <int>(end - at)
        return end

    cdef int _open_found(self, Found* found, int count) noexcept nogil:
        # Opens in order until one is not application data; how many were dealt with.
        cdef uint8_t samples[PORTION * SAMPLE_BYTES]
        cdef uint8_t masks[PORTION * SAMPLE_BYTES]
        cdef int sampled = 0
        cdef int n
        for n in range(count):
            if found[n].dropped == 0:
                memcpy(samples + sampled * SAMPLE_BYTES, found[n].start + found[n].header, SAMPLE_BYTES)
                sampled += 1
        if sampled and not _evp.mask(self._lent.mask, self._keys.algorithm, samples, sampled, masks):
            # Without a mask the number cannot be read, and no record can authenticate.
            memset(masks, 0, sizeof(masks))
        sampled = 0
        for n in range(count):
            if found[n].dropped == 0:
                self._open_one(&found[n], masks + sampled * SAMPLE_BYTES)
                sampled += 1
                if found[n].dropped == 0 and found[n].content_type != APPLICATION_DATA:
                    return n + 1
        return count

    cdef bint _authentic(self, Found* record, const uint8_t* mask) noexcept nogil:
        cdef uint8_t header[1 + 255 + 4]
        cdef uint8_t nonce[NONCE_BYTES]
        cdef uint8_t* number = header + 1 + self._cid_bytes
        cdef int64_t low
        memcpy(header, record.start, record.header)
        _apply_mask(number, mask, record.number_bytes)
        low = number[0]
        if record.number_bytes == 2:
            low = low << 8 | number[1]
        record.sequence = _reconstruct(low, 8 * record.number_bytes, self.highest + self.ahead)
        make_nonce(self._keys.iv, record.sequence, nonce)
        return _evp.open(
            self._lent.aead, self._keys.algorithm, nonce, header, record.header,
            record.start + record.header, record.body, record.inner
        )

    cdef void _open_one(self, Found* record, const uint8_t* mask) noexcept nogil:
        if not self._authentic(record, mask):
            # RFC 9147 section 4.5.3 [9147-4.5.3-3]: forgeries are counted per key.
            self.forged += 1
            record.dropped = AUTHENTICATION
            return
        self.opened += 1
        # RFC 9147 section 4.5.1 [9147-4.5.1-4], [9147-4.5.1-6]: the window is consulted and moved
        # after authentication only, so that neither time nor a forgery tells or changes it.
        record.dropped = self._test_and_set(record.sequence)
        if record.dropped:
            return
        # RFC 8449 section 4 [8449-1]: padding counts, as what a receiver must hold.
        if record.body - self._tag_bytes > self.inner_limit:
            self.overlong += 1
            record.dropped = OVERSIZED_RECORD
            return
        # RFC 8446 section 5.4: the type is the last byte that is not zero.
        record.content = content_bytes(record.inner, record.body - self._tag_bytes)
        if record.content < 0:
            record.dropped = EMPTY_CONTENT
            return
        record.content_type = record.inner[record.content]

    cdef int _seen_before(self, int64_t sequence) noexcept nogil:
        cdef int64_t n = sequence % self._window
        if self.highest - sequence >= self._window:
            return TOO_OLD
        if sequence <= self.highest and self._seen[n >> 6] >> (n & 63) & 1:
            return REPLAY
        return 0

    cdef int _test_and_set(self, int64_t sequence) noexcept nogil:
        # As _seen_before, and from here on it was.
        cdef int64_t n
        cdef int64_t behind = self.highest - sequence
        if behind >= self._window:
            return TOO_OLD
        if behind <= -self._window:
            memset(self._seen, 0, <size_t>(self._window // 8))
            self.highest = sequence
        elif behind < 0:
            # The bits of the numbers passed over stood for others, a window further back.
            for n in range(self.highest + 1, sequence + 1):
                self._seen[n % self._window >> 6] &= ~(<uint64_t>1 << (n & 63))
            self.highest = sequence
        n = sequence % self._window
        if self._seen[n >> 6] >> (n & 63) & 1:
            return REPLAY
        self._seen[n >> 6] |= <uint64_t>1 << (n & 63)
        return 0
