# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Flows, facts and transactions as leaves, compiled: deterministic CBOR out of a batch and back.

`leaves` is the same in plain Python and has the words; `_leaf` has the bytes.  The order of columns is
read from there once; each becomes an offset and a kind.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from sealwire.probe.seal._cbor cimport head, number, put, string
from sealwire.probe.seal._leaf cimport (
    ADDRESS, BLOCK_HEAD, FACT_HEAD, FIRST_BYTES, FIRST_ROOM, FRAME_ROOM, HISTORY, LEAF_ROOM, LEAST_FIRST, LEAST_FLOW,
    LEAST_TRANSACTION, MOST_BLOCK, S64, SCHEMA_DISSECTED, SCHEMA_FLOW, SCHEMA_TRANSACTION, U8, U16, U32, U64,
    Column, Layout, Times, note, put_columns, put_facts, put_flow, put_framed, take_columns, take_facts, take_flow,
)

from sealwire.probe.batch import OFFSETS
from sealwire.probe.dissect import facts as blocks
from sealwire.probe.features import ROW_BYTES
from sealwire.probe.seal import leaves as twin
from sealwire.probe.seal.leaves import BadLeaf, Decoded, Encoded

cdef Layout _layout
cdef int _row_bytes, _facts_bytes_at, _ended_at, _event_bytes, _time_at

_KINDS = {"B": U8, "H": U16, "I": U32, "Q": U64, "q": S64, "16s": ADDRESS, "20s": HISTORY}


cdef int _lay_out(Column* plan, names, offsets) except -1:
    for i, name in enumerate(names):
        plan[i].offset, code = offsets[name]
        plan[i].kind = _KINDS[code]
    return len(names)


_layout.flow.n = _lay_out(_layout.flow.columns, twin.COLUMNS, OFFSETS)
_layout.flow.version_at = OFFSETS["ip_version"][0]
_layout.transaction.n = _lay_out(_layout.transaction.columns, twin.TRANSACTION_COLUMNS, twin.TRANSACTION_OFFSETS)
_layout.transaction.version_at = twin.TRANSACTION_OFFSETS["ip_version"][0]
_layout.n_way = _lay_out(_layout.forward, twin.FORWARD, OFFSETS)
_lay_out(_layout.backward, twin.BACKWARD, OFFSETS)
for _i, _value in enumerate(twin.NO_PACKETS):
    _layout.nothing[_i] = _value
_row_bytes = _layout.row_bytes = ROW_BYTES
_facts_bytes_at = OFFSETS["facts_bytes"][0]
_ended_at = OFFSETS["ended"][0]
_event_bytes = blocks.EVENT_HEAD.size
_time_at = twin.TRANSACTION_OFFSETS["time"][0]
assert (blocks.BLOCK_HEAD.size, blocks.FACT_HEAD.size) == (BLOCK_HEAD, FACT_HEAD)
assert (twin.FLOW, twin.DISSECTED, twin.TRANSACTION) == (SCHEMA_FLOW, SCHEMA_DISSECTED, SCHEMA_TRANSACTION)
assert twin.BLOCK_MAXIMUM_BYTES == MOST_BLOCK


# What is encoded.


cdef object _encoded(bytes out, Py_ssize_t n, Py_ssize_t count, Py_ssize_t end, Times times):
    return Encoded(out[:n], count, end, (times.earliest, times.latest) if count else None)


def encode(
    bytes rows, Py_ssize_t stride, Py_ssize_t first, bytes facts, Py_ssize_t begin,
    uint64_t sequence, Py_ssize_t most, Py_ssize_t room,
):
    """As leaves.encode."""
    cdef Py_ssize_t total = len(rows), blocks_end = len(facts), done = 0, leaf, n, capacity
    cdef int firsts
    cdef int64_t ended
    cdef uint32_t size
    cdef Times times = Times(INT64_MAX, INT64_MIN)
    if (stride < _row_bytes or (stride - _row_bytes) % FIRST_BYTES or total % stride or first < 0 or begin < 0
            or begin > blocks_end):
        raise ValueError("these bytes are no rows")
    firsts = (stride - _row_bytes) // FIRST_BYTES
    n = min(max(total // stride - first, 0), max(most, 0))
    # The longest leaf; all of them; and no more than one beyond the room.
    leaf = LEAF_ROOM + FIRST_ROOM * firsts + FRAME_ROOM + 2 * min(blocks_end - begin, MOST_BLOCK)
    capacity = n * (LEAF_ROOM + FIRST_ROOM * firsts + FRAME_ROOM) + 2 * (blocks_end - begin)
    if max(room, 0) < capacity - leaf:
        capacity = max(room, 0) + leaf
    cdef bytes out = PyBytes_FromStringAndSize(NULL, capacity + leaf)
    cdef uint8_t* start = <uint8_t*>PyBytes_AS_STRING(out)
    # The leaf is made behind everything, and moved to its head.
    cdef uint8_t* at = start
    cdef uint8_t* end
    cdef uint8_t* scratch = start + capacity
    cdef const uint8_t* row = <const uint8_t*>PyBytes_AS_STRING(rows) + first * stride
    cdef const uint8_t* block = <const uint8_t*>PyBytes_AS_STRING(facts)
    with nogil:
        while done < n and at - start < room:
            memcpy(&size, row + _facts_bytes_at, 4)
            if size > blocks_end - begin:
                break
            end = put_flow(&_layout, scratch, row, block + begin, size, sequence + done, firsts)
            if end == NULL:
                break
            at = put_framed(at, scratch, end - scratch)
            memcpy(&ended, row + _ended_at, 8)
            note(&times, ended)
            row += stride
            begin += size
            done += 1
    if done < n and at - start < room:
        raise ValueError("a row is not a flow's")
    return _encoded(out, at - start, done, begin, times)


def encode_transactions(bytes events, Py_ssize_t begin, uint64_t sequence, Py_ssize_t most, Py_ssize_t room):
    """As leaves.encode_transactions."""
    cdef Py_ssize_t total = len(events), done = 0, leaf, capacity
    cdef uint32_t size
    cdef int64_t time
    cdef Times times = Times(INT64_MAX, INT64_MIN)
    if begin < 0 or begin > total:
        raise ValueError("these bytes are no events")
    # An event's leaf has less than twice its bytes.
    leaf = FRAME_ROOM + 2 * min(total - begin, MOST_BLOCK + _event_bytes)
    capacity = 2 * (total - begin)
    if max(room, 0) < capacity - leaf:
        capacity = max(room, 0) + leaf
    cdef bytes out = PyBytes_FromStringAndSize(NULL, capacity + leaf)
    cdef uint8_t* start = <uint8_t*>PyBytes_AS_STRING(out)
    cdef uint8_t* at = start
    cdef uint8_t* end = start
    cdef uint8_t* scratch = start + capacity
    cdef const uint8_t* all_events = <const uint8_t*>PyBytes_AS_STRING(events)
    cdef const uint8_t* event
    with nogil:
        while begin < total and done < most and at - start < room and end != NULL:
            event = all_events + begin
            size = 0
            if total - begin >= _event_bytes:
                memcpy(&size, event, 4)
            if size < <uint32_t>_event_bytes or size > total - begin or size - _event_bytes > MOST_BLOCK:
                end = NULL
                break
            end = put(scratch, 4, 3 + _layout.transaction.n)
            end = put(end, 0, SCHEMA_TRANSACTION)
            end = put(end, 0, sequence + done)
            end = put_columns(end, event, &_layout.transaction)
            if end != NULL:
                end = put_facts(end, event + _event_bytes, size - _event_bytes)
            if end == NULL:
                break
            at = put_framed(at, scratch, end - scratch)
            memcpy(&time, event + _time_at, 8)
            note(&times, time)
            begin += size
            done += 1
    if end == NULL:
        raise ValueError("these bytes are no events")
    return _encoded(out, at - start, done, begin, times)


# What is decoded.


cdef class _Taking:
    """Room for what the leaves of one segment hold, and what is in it.

    The room is a bounded multiple of the bytes that are left when the first leaf of a kind comes: leaves have
    at least so many bytes, and facts more than half of their block.
    """

    cdef bytes rows, facts, transactions
    cdef Py_ssize_t rows_n, facts_n, transactions_n
    cdef int firsts
    cdef Times times

    def __cinit__(self):
        self.rows = self.facts = self.transactions = b""
        self.firsts = -1
        self.times = Times(INT64_MAX, INT64_MIN)

    cdef int flow(self, const uint8_t* at, const uint8_t* end, bint dissected, Py_ssize_t leaves, Py_ssize_t left) except -1:
        """Take a flow, with `leaves` leaves and `left` bytes from here to the end; 0, or 1 if it is none."""
        cdef int found = 0
        cdef uint32_t size = 0
        cdef int64_t ended
        cdef uint8_t* row
        cdef uint8_t* block
        if self.firsts < 0:
            # The first flow says how many first packets there are: decoded once to see.
            room = bytes(_row_bytes)
            if take_flow(&_layout, at, end, <uint8_t*>PyBytes_AS_STRING(room), 0, &found) == NULL:
                return 1
            self.firsts = found
            leaves = min(leaves, left // (LEAST_FLOW + LEAST_FIRST * found) + 1)
            self.rows = PyBytes_FromStringAndSize(NULL, leaves * (_row_bytes + FIRST_BYTES * found))
        if dissected and not self.facts:
            self.facts = PyBytes_FromStringAndSize(NULL, 2 * left)
        row = <uint8_t*>PyBytes_AS_STRING(self.rows) + self.rows_n
        block = <uint8_t*>PyBytes_AS_STRING(self.facts) + self.facts_n
        with nogil:
            memset(row, 0, _row_bytes + FIRST_BYTES * self.firsts)
            at = take_flow(&_layout, at, end, row, self.firsts, &found)
            if dissected and at != NULL:
                at = take_facts(at, end, block, &size)
        if at != end:
            return 1
        if found != self.firsts:
            return 2
        memcpy(row + _facts_bytes_at, &size, 4)
        memcpy(&ended, row + _ended_at, 8)
        note(&self.times, ended)
        self.rows_n += _row_bytes + FIRST_BYTES * self.firsts
        self.facts_n += size
        return 0

    cdef int transaction(self, const uint8_t* at, const uint8_t* end, Py_ssize_t leaves, Py_ssize_t left) except -1:
        """Take a transaction; 0, or 1 if it is none."""
        cdef uint32_t size = 0
        cdef int64_t time
        cdef uint8_t* event
        if not self.transactions:
            leaves = min(leaves, left // LEAST_TRANSACTION + 1)
            self.transactions = PyBytes_FromStringAndSize(NULL, leaves * _event_bytes + 2 * left)
        event = <uint8_t*>PyBytes_AS_STRING(self.transactions) + self.transactions_n
        memset(event, 0, _event_bytes)
        at = take_columns(at, end, event, &_layout.transaction)
        if at == NULL or take_facts(at, end, event + _event_bytes, &size) != end:
            return 1
        size += _event_bytes
        memcpy(event, &size, 4)
        memcpy(&time, event + _time_at, 8)
        note(&self.times, time)
        self.transactions_n += size
        return 0


def decode(bytes framed, uint64_t sequence):
    """As leaves.decode; the rare refusals get their words from the twin."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(framed)
    cdef const uint8_t* end = at + len(framed)
    cdef const uint8_t* leaf
    cdef const uint8_t* inside
    cdef uint64_t n = 0, schema = 0, found_sequence = 0, elements = 0
    cdef int major = 0, wrong
    cdef Py_ssize_t index = 0, leaves = 0
    cdef _Taking taken = _Taking()
    cdef list others = []
    while at < end:
        at = string(at, end, 2, &n)
        if at == NULL:
            raise ValueError("a leaf is no byte string")
        at += n
        leaves += 1
    cdef bytes kinds = PyBytes_FromStringAndSize(NULL, leaves)
    at = <const uint8_t*>PyBytes_AS_STRING(framed)
    while at < end:
        leaf = string(at, end, 2, &n)
        at = leaf + n
        inside = head(leaf, at, &major, &elements)
        if inside != NULL and (major != 4 or elements < 2):
            inside = NULL
        inside = number(inside, at, <uint64_t>-1, &schema)
        inside = number(inside, at, <uint64_t>-1, &found_sequence)
        if inside == NULL:
            raise BadLeaf(index, "it is no array that begins with schema and sequence")
        if found_sequence != sequence + <uint64_t>index:
            raise BadLeaf(index, f"its sequence is {found_sequence}, not {sequence + <uint64_t>index}")
        wrong = 0
        if schema == SCHEMA_FLOW or schema == SCHEMA_DISSECTED:
            wrong = elements != <uint64_t>(2 + _layout.flow.n + (3 if schema == SCHEMA_FLOW else 4))
            wrong = wrong or taken.flow(inside, at, schema == SCHEMA_DISSECTED, leaves - index, end - leaf)
        elif schema == SCHEMA_TRANSACTION:
            wrong = elements != <uint64_t>(3 + _layout.transaction.n)
            wrong = wrong or taken.transaction(inside, at, leaves - index, end - leaf)
        else:
            others.append((index, (<const char*>leaf)[: at - leaf]))
            schema = 0
        if wrong == 2:
            raise BadLeaf(index, "another number of first packets than in the leaf before")
        if wrong:
            raise _refused(index, (<const char*>leaf)[: at - leaf])
        (<uint8_t*>PyBytes_AS_STRING(kinds))[index] = <uint8_t>schema
        index += 1
    return Decoded(
        kinds, taken.rows[: taken.rows_n], max(taken.firsts, 0), taken.facts[: taken.facts_n],
        taken.transactions[: taken.transactions_n], others,
        (taken.times.earliest, taken.times.latest) if taken.rows_n or taken.transactions_n else None,
    )


def _refused(index, leaf):
    """Why the twin would refuse this leaf."""
    try:
        twin.record_of(leaf)
    except ValueError as error:
        return BadLeaf(index, str(error))
    except twin.struct.error as error:
        return BadLeaf(index, str(error))
    return BadLeaf(index, "it is not what its schema says")
