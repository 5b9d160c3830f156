# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs of records as trains of datagrams, compiled: the answers of `bulk_reference`.

Sealing writes the records of a train straight into the one bytes object that is handed to the
kernel; opening reads a train that came from it where it lies, and writes each message into the object
the application gets.  What is large is done without the GIL.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

from sealwire.crypto._lending cimport borrow, give_back
from sealwire.record._record cimport (
    APPLICATION_DATA, MAX_CONTENT_BYTES, MAX_INNER_BYTES, PORTION, PORTION_BYTES, RELEASE_BYTES, Found, Opener,
    Sealer, block_padding, check, enter,
)

from sealwire.errors import Discard
from sealwire.record.bounds import check_block, internal_error
from sealwire.record.reference import DISCARDS
from sealwire.record.train import MOST_BYTES as _MOST_BYTES, MOST_DATAGRAMS as _MOST_DATAGRAMS, Train

cdef Py_ssize_t MOST_BYTES = _MOST_BYTES
# A portion of the record layer is what one train holds at most.
cdef int MOST_DATAGRAMS = min(PORTION, _MOST_DATAGRAMS)
cdef int EMPTY = DISCARDS.index(Discard.EMPTY)
cdef int AUTHENTICATION = DISCARDS.index(Discard.AUTHENTICATION)
cdef enum:
    # After a forgery so many portions are opened into a scratch buffer: forgeries make no objects.
    WARY_PORTIONS = 64
    REASONS = 16  # at least as many as DISCARDS has
assert len(DISCARDS) <= REASONS


def weigh(messages):
    """See :func:`sealwire.record.bulk_reference.weigh`."""
    cdef list taken = []
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t longest = 0
    cdef Py_ssize_t n
    for message in messages:
        if type(message) is not bytes:
            message = bytes(memoryview(message))
        n = PyBytes_GET_SIZE(<bytes>message)
        total += n
        longest = max(longest, n)
        taken.append(message)
    return taken, total, longest


def seal_trains(Sealer sealer, long content_type, messages, Py_ssize_t block, Py_ssize_t longest):
    """See :func:`sealwire.record.bulk_reference.seal_trains`."""
    # A list of its own: the caller's may change while the GIL is free.
    cdef list held = list(messages)
    cdef Py_ssize_t count = len(held)
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t n
    cdef int64_t sequence
    cdef list trains = []
    for message in held:
        n = len(<bytes>message) if type(message) is bytes else memoryview(message).nbytes
        check(content_type, n, 0)
    check(content_type, 0, 0)
    if block < 0 or not 0 <= longest <= MAX_INNER_BYTES:
        check_block(block, longest)
    block = min(block, MAX_INNER_BYTES)
    enter(sealer._busy)
    sealer._busy = True
    try:
        sequence = sealer._reserve(count)
        borrow(&sealer._keys, &sealer._lent)
        while start < count:
            start += _seal_train(
                sealer, sequence + start, <uint8_t>content_type, held, start, trains, <int>block, <int>longest
            )
    finally:
        give_back(&sealer._keys, &sealer._lent)
        sealer._busy = False
    return trains


cdef int _seal_train(
    Sealer sealer, int64_t sequence, uint8_t content_type, list messages, Py_ssize_t start, list trains, int block,
    int longest
) except -1:
    """Seal as many of the messages from `start` on as one train takes; how many those are."""
    cdef Py_buffer views[PORTION]
    cdef uint8_t* outs[PORTION]
    cdef int paddings[PORTION]
    cdef Py_ssize_t sizes[PORTION]
    cdef Py_ssize_t left = len(messages) - start
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t size
    cdef int viewed = 0
    cdef int count = 0
    cdef int n
    cdef bint sealed
    cdef bytes data
    cdef uint8_t* out
    try:
        while count < left and count < MOST_DATAGRAMS:
            if count and sizes[count - 1] < sizes[0]:
                break
            PyObject_GetBuffer(messages[start + count], &views[count], PyBUF_SIMPLE)
            viewed += 1
            if views[count].len > MAX_CONTENT_BYTES:
                raise BufferError("a message grew while it was being sealed")
            paddings[count] = max(
                block_padding(<int>views[count].len, block, longest), sealer._least - <int>views[count].len
            )
            size = sealer.overhead + views[count].len + paddings[count]
            if count and (size > sizes[0] or total + size > MOST_BYTES):
                break
            sizes[count] = size
            total += size
            count += 1
        data = PyBytes_FromStringAndSize(NULL, total)
        out = <uint8_t*>PyBytes_AS_STRING(data)
        for n in range(count):
            outs[n] = out
            out += sizes[n]
        if total < RELEASE_BYTES:
            sealed = sealer._seal_views(sequence, content_type, views, outs, paddings, count)
        else:
            with nogil:
                sealed = sealer._seal_views(sequence, content_type, views, outs, paddings, count)
        if not sealed:
            raise internal_error("libcrypto could not seal a record")
        trains.append(Train(data, sizes[0]) if count > 1 else data)
    finally:
        for n in range(viewed):
            PyBuffer_Release(&views[n])
    return count


def open_data(Opener opener, datagrams, Py_ssize_t index, Py_ssize_t offset):
    """See :func:`sealwire.record.bulk_reference.open_data`."""
    cdef list messages = []
    cdef int dropped[REASONS]
    cdef int64_t highest = -1
    cdef int n
    if index < 0 or offset < 0:
        raise ValueError("a run starts at an index and offset from 0 on")
    memset(dropped, 0, sizeof(dropped))
    enter(opener._busy)
    opener._busy = True
    cdef list found = [None]
    try:
        borrow(&opener._keys, &opener._lent)
        while _open_portion(opener, datagrams, &index, &offset, messages, dropped, &highest, found):
            pass
    finally:
        give_back(&opener._keys, &opener._lent)
        opener._busy = False
    return messages, [(n, dropped[n]) for n in range(REASONS) if dropped[n]], found[0], highest, index, offset


cdef int _make_room(Opener opener, Found* record, PyObject** made, uint8_t* tiny) except -1:
    """Have a record without padding opened into the bytes object that is given out: nothing is copied."""
    cdef Py_ssize_t n = record.body - opener._tag_bytes - 1
    cdef bytes content
    if record.dropped:
        return 0
    if n <= 0:
        # The empty bytes object is everybody's.
        record.inner = tiny
        return 0
    content = PyBytes_FromStringAndSize(NULL, n)
    Py_INCREF(content)
    made[0] = <PyObject*>content
    record.inner = <uint8_t*>PyBytes_AS_STRING(content)
    return 0


cdef bint _open_portion(
    Opener opener, object datagrams, Py_ssize_t* index, Py_ssize_t* offset, list messages, int* dropped,
    int64_t* highest, list other
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
    cdef PyObject* made[PORTION]
    cdef uint8_t tiny[PORTION]
    cdef bint direct = opener.wary == 0
    cdef const uint8_t* data
    cdef Py_ssize_t n, size, end
    cdef bint ended = False
    cdef Found* record
    memset(made, 0, sizeof(made))
    try:
        # Every item looked at yields at least one record or ends the loop, except the first.
        while at < many and count < PORTION and total < PORTION_BYTES and viewed < PORTION:
            one = datagrams[at]
            size = 0
            if type(one) is Train:
                size = one.size
                one = one.data
            PyObject_GetBuffer(one, &views[viewed], PyBUF_SIMPLE)
            data = <const uint8_t*>views[viewed].buf
            n = views[viewed].len
            viewed += 1
            if size <= 0:
                size = n
            if n == 0:
                record = &found[count]
                memset(record, 0, sizeof(Found))
                record.dropped = EMPTY
                record.at = at
                count += 1
            while start < n and count < PORTION and total < PORTION_BYTES:
                # RFC 9147 section 4.1 [9147-4.1-2]: the top three bits are 001.
                if data[start] & 0xE3 != opener._first:
                    ended = True
                    break
                record = &found[count]
                memset(record, 0, sizeof(Found))
                record.at = at
                end = (start // size + 1) * size
                start = opener._parse(data, start, min(end, n), record)
                record.end = start
                if record.dropped == 0:
                    total += record.body
                count += 1
            if ended or start < n:
                break
            at += 1
            start = 0
        if direct:
            for n in range(count):
                _make_room(opener, &found[n], &made[n], &tiny[n])
        elif total:
            scratch = <uint8_t*>PyMem_RawMalloc(total)
            if scratch == NULL:
                raise MemoryError
            inner = scratch
            for n in range(count):
                found[n].inner = inner
                if found[n].dropped == 0:
                    inner += found[n].body
        if total < RELEASE_BYTES:
            opened = opener._open_found(found, count)
        else:
            with nogil:
                opened = opener._open_found(found, count)
        if opener.wary:
            opener.wary -= 1
        for n in range(opened):
            record = &found[n]
            if record.dropped:
                dropped[record.dropped] += 1
                if record.dropped == AUTHENTICATION:
                    opener.wary = WARY_PORTIONS
                continue
            if made[n] != NULL and PyBytes_GET_SIZE(<bytes>made[n]) == record.content:
                # The type stands where every bytes object has a zero.
                record.inner[record.content] = 0
                content = <bytes>made[n]
            else:
                content = PyBytes_FromStringAndSize(<char*>record.inner, record.content)
            if record.content_type == APPLICATION_DATA:
                messages.append(content)
                highest[0] = max(highest[0], record.sequence)
                continue
            other[0] = (record.content_type, record.sequence, content)
            ended = True
            # What was gathered behind this record is for the next call.
            at = record.at
            start = record.end
            if start == views[at - index[0]].len:
                at += 1
                start = 0
    finally:
        PyMem_RawFree(scratch)
        for n in range(count):
            Py_XDECREF(made[n])
        for n in range(viewed):
            PyBuffer_Release(&views[n])
    index[0] = at
    offset[0] = start if at < many else 0
    return not ended and at < many
