# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The flow table, compiled: the answers of `flows`, byte for byte.

A walk over a block of the file is one call with the GIL released: record header, decode, keyed
hash, flow, expiry.  A flow is a Record; its second packet adds an Extension.  Both come from slabs
that are taken as they are needed and named by 32-bit numbers, 0 being none.  Two lists hold every
flow by age: `alive` by last packet, `ending` by the end of its linger, so that what is due is always
at the front of one of them.  Finished flows wait as rows until take().
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from sealwire.probe._ahead cimport AHEAD, Ahead, Filter, fetch_extension, fetch_record, look, place, prefetch
from sealwire.probe._decode cimport REASONS, UNKNOWN_INTERFACE, Packet
from sealwire.probe._features cimport (
    ACK, DISSECTED, ENDING, FIN, RST, SYN, UPWARD, Entry, Extension, Record, Row, Sequence, fill_row, replay,
    start_record, update,
)
from sealwire.probe._records cimport (
    BUDGET, FULL, MORE, NO_MEMORY, RECORD, STRANGER, Input, Interface, RingPacket, first_in_block, next_record,
    ring_packet,
)
from sealwire.probe._rows cimport Rows, add_block, keep_large_blocks, last_end, new_row, take_rows
from sealwire.probe._siphash cimport siphash
from sealwire.probe._table cimport (
    Fragments, List, Pool, by_first_packet, fragment, free_pool, give_piece, grow, is_of, piece, put_last,
    put_out, take_piece,
)
from sealwire.probe.dissect._hot cimport (
    Desk, desk_close, desk_forget, desk_full, desk_packet, desk_take, end_desk, start_desk,
)

from sealwire.probe.files import Kind, Stop
from sealwire.probe.counters import ProbeCounters
from sealwire.probe.discards import PacketDiscard
from sealwire.probe.features import EndReason
from sealwire.probe.settings import nanoseconds

cdef enum:
    FULL_ROWS = 8192
    RECORD_BYTES = 136
    EXTENSION_BYTES = 376
    FIRST_BUCKETS = 1024

    ENDS = 7
    IDLE = 1
    ACTIVE = 2
    END_FIN = 3
    END_RST = 4
    INPUT_END = 5
    EVICTED = 6

cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF

assert sizeof(Record) == 128 and sizeof(Extension) == EXTENSION_BYTES and sizeof(Row) == 368


@cython.final
cdef class Table:
    """See :class:`sealwire.probe.flows.Table`."""

    cdef Pool _records
    cdef Pool _extensions
    cdef uint32_t* _buckets
    cdef uint32_t _bucket_mask
    cdef List _alive
    cdef List _ending
    cdef uint64_t _key[2]
    cdef uint64_t _shard
    cdef uint64_t _shards
    cdef int64_t _idle_ns
    cdef int64_t _active_ns
    cdef int64_t _linger_ns
    cdef uint64_t _max_flows
    cdef uint64_t _max_bytes
    cdef uint64_t _extension_cost
    cdef int _first_packets
    cdef bint _tunnels
    cdef Rows _rows
    cdef readonly size_t row_bytes
    cdef uint64_t* _left  # pairs of first packet and number
    cdef size_t _left_count
    cdef size_t _left_next
    cdef Fragments _fragments
    cdef bint _finishing
    cdef bint _busy
    cdef bint _no_memory
    cdef uint64_t _packets, _wire_bytes, _flow_packets, _flow_bytes, _flows, _exported
    cdef uint64_t _active, _peak, _held, _peak_held, _backwards, _clamped
    cdef uint64_t _discards[REASONS]
    cdef uint64_t _ends[ENDS]
    cdef Filter _filter
    cdef Desk _desk
    cdef bint _dissecting
    cdef bytes _facts
    #: Latest packet time, ns.
    cdef readonly int64_t clock

    def __cinit__(self, settings, key=bytes(16), *, shard=0, shards=1):
        cdef bytes secret = bytes(key)
        if len(secret) != 16:
            raise ValueError(f"key must have 16 bytes, not {len(secret)}")
        memcpy(self._key, PyBytes_AS_STRING(secret), 16)
        self._shard, self._shards = shard, shards
        self._idle_ns = nanoseconds(settings.idle_timeout)
        self._active_ns = nanoseconds(settings.active_timeout)
        self._linger_ns = nanoseconds(settings.linger)
        self._max_flows, self._max_bytes = settings.max_flows, settings.max_bytes
        self._tunnels, self._first_packets = settings.tunnels, settings.first_packets
        self._records.piece, self._extensions.piece = sizeof(Record), sizeof(Extension)
        self.row_bytes = sizeof(Row)
        if self._first_packets:
            self._extensions.piece += sizeof(Sequence) + self._first_packets * sizeof(Entry)
            self.row_bytes += self._first_packets * sizeof(Entry)
        self._rows.size = self.row_bytes
        self._extension_cost, self._bucket_mask = self._extensions.piece, FIRST_BUCKETS - 1
        self._buckets = <uint32_t*>calloc(FIRST_BUCKETS, sizeof(uint32_t))
        if self._buckets == NULL:
            raise MemoryError
        keep_large_blocks()
        self._facts = b""
        if settings.dissect:
            self._dissecting = True
            start_desk(&self._desk, settings.max_dissection_bytes)

    def __dealloc__(self):
        if self._dissecting:
            end_desk(&self._desk)
        free_pool(&self._records)
        free_pool(&self._extensions)
        free(self._buckets)
        free(self._rows.data)
        free(self._rows.blocks)
        free(self._left)

    # --- input ---------------------------------------------------------------------------------

    def feed(self, layout, data, int64_t at, int64_t budget, filters=None):
        """See :meth:`sealwire.probe.flows.Table.feed`."""
        cdef Py_buffer view
        cdef Interface* faces
        cdef Input input
        cdef int stop
        if self._busy:
            raise RuntimeError("this table is in use by another thread")
        input.face_count = <uint32_t>len(layout.interfaces)
        input.big, input.plain = layout.big, layout.kind == Kind.PCAP
        input.record_header, input.record_limit = layout.record_header, layout.record_limit
        input.at = at
        faces = <Interface*>calloc(input.face_count + 1, sizeof(Interface))
        if faces == NULL:
            raise MemoryError
        input.faces = faces
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        input.data, input.n = <const uint8_t*>view.buf, view.len
        self._busy = True
        try:
            for i, one in enumerate(layout.interfaces):
                self._describe(&faces[<uint32_t>i], one, filters[i] if filters else None)
            if input.plain:
                input.unit = 1000000000 // faces[0].multiplier
            if not 0 <= at <= view.len:
                raise ValueError("offset outside the data")
            with nogil:
                stop = self._walk(&input, budget)
        finally:
            self._busy = False
            PyBuffer_Release(&view)
            free(faces)
        if stop == NO_MEMORY:
            raise MemoryError
        return input.at, Stop(stop)

    cdef int _describe(self, Interface* to, one, passing) except -1:
        to.link, to.snaplen, to.shift = one.link, one.snaplen, one.shift
        to.multiplier, to.divisor, to.offset = one.multiplier, one.divisor, one.offset
        return self._let_pass(to, passing)

    cdef int _let_pass(self, Interface* to, passing) except -1:
        if passing is not None:
            self._filter = <Filter><uintptr_t>passing.function
            to.program = <const void*><uintptr_t>passing.instructions
        return 0

    def packet(self, data, uint32_t wire_bytes, uint32_t link, int64_t time, bint cut=False, passing=None, int vlan=-1):
        """See :meth:`sealwire.probe.flows.Table.packet`."""
        cdef Py_buffer view
        cdef Interface face
        cdef int done
        if self._busy:
            raise RuntimeError("this table is in use by another thread")
        memset(&face, 0, sizeof(face))
        face.link = link
        self._let_pass(&face, passing)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            done = self._single(<const uint8_t*>view.buf, 0, <uint32_t>view.len, wire_bytes, time, cut, &face, vlan)
        finally:
            PyBuffer_Release(&view)
        if done == NO_MEMORY:
            raise MemoryError
        return done == MORE

    cdef int _single(self, const uint8_t* data, int64_t body, uint32_t captured, uint32_t wire_bytes, int64_t time, bint cut, const Interface* face, int vlan) noexcept nogil:
        # A packet at its turn.
        cdef Ahead one
        one.record.body, one.record.captured, one.record.wire = body, captured, wire_bytes
        one.record.time, one.record.cut, one.record.face = time, cut, face
        look(&one, data, self._filter, self._tunnels)
        return self._packet(&one, data, vlan)

    def feed_block(self, data, int64_t block, int64_t at, uint32_t left, uint32_t link):
        """See :meth:`sealwire.probe.flows.Table.feed_block`."""
        cdef Py_buffer view
        cdef int stop
        if self._busy:
            raise RuntimeError("this table is in use by another thread")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        self._busy = True
        try:
            with nogil:
                stop = self._walk_block(<const uint8_t*>view.buf, view.len, block, &at, &left, link)
        finally:
            self._busy = False
            PyBuffer_Release(&view)
        if stop == NO_MEMORY:
            raise MemoryError
        return at, left

    def tick(self, int64_t time):
        """See :meth:`sealwire.probe.flows.Table.tick`."""
        return self._advance(time)

    cdef int _walk_block(self, const uint8_t* data, int64_t n, int64_t block, int64_t* at, uint32_t* left, uint32_t link) noexcept nogil:
        cdef RingPacket packet
        cdef Interface face
        cdef int status
        memset(&face, 0, sizeof(face))
        face.link = link
        if at[0] == 0 and not first_in_block(data, n, block, at, left):
            return MORE
        while left[0]:
            if not ring_packet(data, n, at[0], &packet):
                left[0] = 0
                break
            prefetch(data + at[0] + packet.next)
            prefetch(data + at[0] + packet.next + 64)
            status = self._single(data, packet.body, packet.captured, packet.wire, packet.time, False, &face, packet.vlan)
            if status != MORE:
                return status
            left[0] -= 1
            at[0] += packet.next
        return MORE

    cdef int _walk(self, Input* input, int64_t budget) noexcept nogil:
        # A packet's flow is mostly not in the cache.  So packets are decoded some turns before they
        # are counted, and what counting will touch is asked for a turn at a time: the index, the
        # record it names, the extension that names.  Looking ahead changes nothing; after a stop the
        # packets looked at are found again.
        cdef Input scout = input[0]
        cdef Ahead ring[AHEAD]
        cdef Ahead* one
        cdef uint64_t found = 0, done = 0
        cdef int status, stop = RECORD
        while True:
            while stop == RECORD and found < done + AHEAD:
                one = &ring[found & (AHEAD - 1)]
                status = next_record(&scout, &one.record)
                if status != RECORD and status != STRANGER:
                    stop = status
                    break
                scout.at = one.record.next
                if status == STRANGER:
                    one.status = UNKNOWN_INTERFACE
                else:
                    prefetch(scout.data + one.record.next)
                    prefetch(scout.data + one.record.next + 64)
                    look(one, scout.data, self._filter, self._tunnels)
                    if one.status == 0 and not one.packet.fragment:
                        place(one, self._key)
                        prefetch(&self._buckets[<uint32_t>one.hash & self._bucket_mask])
                found += 1
                if found >= done + 3:
                    fetch_record(&ring[(found - 3) & (AHEAD - 1)], self._buckets, self._bucket_mask, &self._records)
                if found >= done + 6:
                    one = &ring[(found - 6) & (AHEAD - 1)]
                    fetch_extension(one, self._buckets, self._bucket_mask, &self._records, &self._extensions)
            if found == done:
                input.at = scout.at
                return stop
            # Asked only now, so that what is behind the last packet is looked at, too.
            if budget <= 0:
                return BUDGET
            one = &ring[done & (AHEAD - 1)]
            if one.record.timeless:  # it happened after what was before it
                one.record.time = self.clock
            status = self._packet(one, scout.data, -1)
            if status != MORE:
                return status
            input.at = one.record.next
            done += 1
            budget -= 1

    cdef int _packet(self, Ahead* one, const uint8_t* data, int vlan) noexcept nogil:
        # Count a packet that was looked at.
        cdef Packet* p = &one.packet
        cdef int64_t time = one.record.time
        cdef int status = one.status
        if not self._advance(time):
            return NO_MEMORY if self._no_memory else FULL
        self._packets += 1
        self._wire_bytes += one.record.wire
        self._backwards += time < self.clock
        self._clamped += one.record.cut
        if status == 0 and p.fragment:
            status = fragment(&self._fragments, p)
        if status < 0:
            self._discards[-1 - status] += 1
            return MORE
        if vlan >= 0:
            p.vlan_inner = p.vlan
            p.vlan = <uint16_t>vlan
        if not one.placed:
            place(one, self._key)
        return self._count(one, data + one.record.body)

    # --- the table -----------------------------------------------------------------------------

    cdef inline Record* _record(self, uint32_t number) noexcept nogil:
        return <Record*>piece(&self._records, number)

    cdef inline Extension* _extension(self, uint32_t number) noexcept nogil:
        return <Extension*>piece(&self._extensions, number)

    cdef int _count(self, const Ahead* one, const uint8_t* data) noexcept nogil:
        cdef const Packet* p = &one.packet
        cdef int64_t time = one.record.time
        cdef uint32_t wire_bytes = one.record.wire
        cdef bint upward = one.upward
        cdef uint64_t hash = one.hash
        cdef uint32_t found, extension
        cdef Record* r
        cdef Extension* e
        cdef uint32_t part = 0, inherited = 0
        cdef uint8_t flags, others, dissected = 0
        if self._shards > 1 and (hash >> 32) % self._shards != self._shard:
            return MORE
        self._flow_packets += 1
        self._flow_bytes += p.ip_bytes
        found = self._buckets[<uint32_t>hash & self._bucket_mask]
        while found:
            r = self._record(found)
            if r.hash == <uint32_t>hash and is_of(r, p, upward):
                break
            found = r.next
        if found:
            if r.state & ENDING and p.tcp and p.fragment == 0 and p.flags & (SYN | ACK | RST | FIN) == SYN:
                self._export(found, self._end_of(r), self.clock)
                found = 0
            elif self._active_ns and not r.state & ENDING and self.clock - r.started >= self._active_ns:
                part = r.part + 1
                inherited, dissected = r.case, r.state & DISSECTED
                self._export(found, ACTIVE, self.clock)
                found = 0
        if not found:
            self._make_room(RECORD_BYTES, 0)
            found = self._open(p, hash, upward, part, time, wire_bytes)
            if not found:
                return NO_MEMORY
            r = self._record(found)
            r.case = inherited
            r.state |= dissected
            flags, others = p.flags, 0
        else:
            if not r.state & ENDING:
                r.due = self.clock
                if self._alive.newest != found:
                    put_out(&self._records, &self._alive, r)
                    put_last(&self._records, &self._alive, found, r)
            if not r.extension:
                self._make_room(self._extension_cost, found)
                extension = take_piece(&self._extensions)
                if not extension:
                    return NO_MEMORY
                r.extension = extension
                self._hold(self._extension_cost)
                replay(r, &r.marks, self._extension(extension), self._first_packets)
            e = self._extension(r.extension)
            update(e, &r.marks, p, time, wire_bytes, upward != (r.state & UPWARD), self._first_packets)
            flags, others = e.ways[0].flags, e.ways[1].flags
        if self._dissecting and p.captured and not r.state & DISSECTED:
            e = self._extension(r.extension) if r.extension else NULL
            if desk_packet(&self._desk, &r.case, r, e, p, data, upward != ((r.state & UPWARD) != 0), self.clock):
                r.state |= DISSECTED
            self._no_memory |= self._desk.budget.no_memory
        if self._linger_ns and p.protocol == 6 and not r.state & ENDING:
            if (flags | others) & RST or flags & others & FIN:
                put_out(&self._records, &self._alive, r)
                r.state |= ENDING
                r.due = self.clock + self._linger_ns
                put_last(&self._records, &self._ending, found, r)
        return NO_MEMORY if self._no_memory else MORE

    cdef uint32_t _open(self, const Packet* p, uint64_t hash, bint upward, uint32_t part, int64_t time, uint32_t wire_bytes) noexcept nogil:
        cdef uint32_t number = take_piece(&self._records)
        cdef Record* r
        cdef uint32_t* bucket
        if not number:
            return 0
        if self._active > self._bucket_mask:
            grow(&self._records, &self._buckets, &self._bucket_mask)
        r = self._record(number)
        start_record(r, p, upward, part, time, wire_bytes)
        r.first_packet = self._packets
        r.started = r.due = self.clock
        r.hash = <uint32_t>hash
        bucket = &self._buckets[r.hash & self._bucket_mask]
        r.next = bucket[0]
        bucket[0] = number
        put_last(&self._records, &self._alive, number, r)
        self._flows += 1
        self._active += 1
        if self._active > self._peak:
            self._peak = self._active
        self._hold(RECORD_BYTES)
        return number

    cdef inline void _hold(self, uint64_t n) noexcept nogil:
        self._held += n
        if self._held > self._peak_held:
            self._peak_held = self._held

    cdef void _make_room(self, uint64_t n, uint32_t keep) noexcept nogil:
        cdef uint32_t victim
        while (keep == 0 and self._active >= self._max_flows) or self._held + n > self._max_bytes:
            victim = self._alive.oldest
            if not victim or victim == keep:
                victim = self._ending.oldest
            if not victim or victim == keep:
                return
            self._export(victim, EVICTED, self.clock)

    cdef int _end_of(self, const Record* r) noexcept nogil:
        cdef uint8_t flags = r.flags
        cdef Extension* e
        if r.extension:
            e = self._extension(r.extension)
            flags = e.ways[0].flags | e.ways[1].flags
        return END_RST if flags & RST else END_FIN

    # --- ways out ------------------------------------------------------------------------------

    cdef bint _advance(self, int64_t time) noexcept nogil:
        cdef int64_t idle_end, ending_end, end
        cdef uint32_t number
        if self._no_memory or self._rows.count >= 4 * FULL_ROWS or desk_full(&self._desk):
            return False
        if time < self.clock:
            return True
        while True:
            idle_end = ending_end = NEVER
            if self._idle_ns and self._alive.oldest:
                idle_end = self._record(self._alive.oldest).due + self._idle_ns
            if self._ending.oldest:
                ending_end = self._record(self._ending.oldest).due
            if idle_end < ending_end:
                number, end = self._alive.oldest, idle_end
            else:
                number, end = self._ending.oldest, ending_end
            if end > time or not number:
                break
            if self._rows.count >= FULL_ROWS and last_end(&self._rows) != end:
                self.clock = max(self.clock, end)
                return False
            self._export(number, IDLE if idle_end < ending_end else self._end_of(self._record(number)), end)
        self.clock = time
        return True

    cdef void _export(self, uint32_t number, int reason, int64_t ended) noexcept nogil:
        cdef Record* r = self._record(number)
        cdef uint32_t* link = &self._buckets[r.hash & self._bucket_mask]
        cdef Row* row = new_row(&self._rows)
        cdef Extension* e
        # An extension with the longest sequence: 376 + 16 + 255 * 8 bytes.
        cdef uint64_t first[304]
        cdef int i
        while link[0] != number:
            link = &self._record(link[0]).next
        link[0] = r.next
        put_out(&self._records, &self._ending if r.state & ENDING else &self._alive, r)
        self._active -= 1
        self._held -= RECORD_BYTES
        if r.extension:
            self._held -= self._extension_cost
        if row != NULL:
            if r.extension:
                e = self._extension(r.extension)
            else:
                e = <Extension*>first
                replay(r, &r.marks, e, self._first_packets)
            fill_row(row, r, e, <uint8_t>reason, ended)
            if r.case:
                # Behind the active timeout the case goes on with the next part.
                if reason != ACTIVE:
                    desk_close(&self._desk, r.case, r, e if r.extension else NULL, ended)
                row.facts_bytes = add_block(&self._rows, &self._desk, r.case, &self._no_memory)
            if self._first_packets:
                memcpy(row + 1, <Sequence*>(e + 1) + 1, self._first_packets * sizeof(Entry))
        else:
            self._no_memory = True
        if r.extension:
            give_piece(&self._extensions, r.extension)
        if r.case and reason != ACTIVE:
            desk_forget(&self._desk, r.case)
        give_piece(&self._records, number)
        self._exported += 1
        self._ends[reason] += 1

    def finish(self):
        """See :meth:`sealwire.probe.flows.Table.finish`."""
        cdef uint32_t number
        cdef size_t count = 0
        cdef int i
        if not self._finishing:
            self._finishing = True
            self._left = <uint64_t*>malloc((self._active + 1) * 2 * sizeof(uint64_t))
            if self._left == NULL:
                raise MemoryError
            for number in (self._alive.oldest, self._ending.oldest):
                while number:
                    self._left[2 * count] = self._record(number).first_packet
                    self._left[2 * count + 1] = number
                    count += 1
                    number = self._record(number).newer
            self._left_count = count
            with nogil:
                qsort(self._left, count, 2 * sizeof(uint64_t), by_first_packet)
        count = 0
        with nogil:
            while count < FULL_ROWS and self._left_next < self._left_count:
                number = <uint32_t>self._left[2 * self._left_next + 1]
                i = self._end_of(self._record(number)) if self._record(number).state & ENDING else INPUT_END
                self._export(number, i, self.clock)
                self._left_next += 1
                count += 1
        if self._no_memory:
            raise MemoryError
        return count > 0

    def take(self):
        """See :meth:`sealwire.probe.flows.Table.take`."""
        taken, self._facts = take_rows(&self._rows, self.clock, self._finishing or self._rows.count >= 4 * FULL_ROWS)
        return taken

    def take_facts(self):
        """See :meth:`sealwire.probe.flows.Table.take_facts`."""
        taken, self._facts = self._facts, b""
        return taken

    def take_events(self):
        """See :meth:`sealwire.probe.flows.Table.take_events`."""
        return desk_take(&self._desk, self.clock, self._finishing) if self._dissecting else b""

    def longest_chain(self):
        """Flows in the fullest place of the hash index, for tests."""
        cdef uint32_t i, number, longest = 0, length
        for i in range(self._bucket_mask + 1):
            length = 0
            number = self._buckets[i]
            while number:
                length += 1
                number = self._record(number).next
            longest = max(longest, length)
        return longest

    def counters(self):
        """See :meth:`sealwire.probe.flows.Table.counters`."""
        counted = ProbeCounters(
            packets=self._packets, wire_bytes=self._wire_bytes, flow_packets=self._flow_packets,
            flow_bytes=self._flow_bytes, flows=self._flows, exported=self._exported, active=self._active,
            peak=self._peak, held_bytes=self._held, peak_bytes=self._peak_held, backwards=self._backwards,
            clamped_times=self._clamped, dissected=self._desk.opened, undissected=self._desk.refused,
            dissection_bytes=self._desk.budget.held, dissection_peak=self._desk.budget.peak,
            dissection_refusals=self._desk.budget.refused, events=self._desk.told,
        )
        counted.discards = {PacketDiscard(i): self._discards[i] for i in range(REASONS) if self._discards[i]}
        counted.ends = {EndReason(i): self._ends[i] for i in range(ENDS) if self._ends[i]}
        return counted


def siphash_of(bytes key, bytes words):
    """The hash of whole 64-bit words, for tests."""
    if len(key) != 16 or len(words) % 8:
        raise ValueError("16 bytes of key, whole words")
    return siphash(<const uint64_t*>PyBytes_AS_STRING(key), <const uint64_t*>PyBytes_AS_STRING(words), <int>(len(words) // 8))
