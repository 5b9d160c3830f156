# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A handshake socket read in C: datagrams go from the kernel to the gate and answers back, without objects.

recvmmsg fills slots that are taken once; the gate judges each where it lies and writes its answer into
the slot's other half; sendmmsg sends the answers from the address their hellos reached.  Only what
the gate leaves becomes Python's bytes and address.  What the kernel does not take at once is lost, as
any datagram may be: clients repeat their hellos.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from sealwire.drive._sockets cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, IPPROTO_IP, IPPROTO_IPV6, MSG_DONTWAIT, PKTINFO, PKTINFO6,
    PyErr_SetFromErrno, cmsghdr, iovec, mmsghdr, msghdr, recvmmsg, sendmmsg, sockaddr_storage,
)
from sealwire.dtls cimport _gate
from sealwire.dtls._gate cimport Sieve
from sealwire.dtls._places cimport Place, place_of_sockaddr

from sealwire.drive.peers import Reached, unpack_address

cdef extern from "<errno.h>" nogil:
    int errno, EAGAIN, EINTR

cdef enum:
    SLOTS = 64
    # The longest datagram.  Pages that no datagram reached are never touched.
    SLOT_BYTES = 65536
    CONTROL_BYTES = 64
    PKTINFO_BYTES = 12
    PKTINFO6_BYTES = 20
    # RFC 7983 section 7: first bytes of DTLS.
    FIRST = 20
    LAST = 63

cdef struct Slot:
    sockaddr_storage name
    iovec incoming
    iovec outgoing
    uint8_t control[CONTROL_BYTES]
    uint8_t answer[_gate.REPLY_ROOM]


@cython.final
cdef class Front:
    """Reads one socket, which stays open for as long as this is used.

    Attributes:
        taken: datagrams this object finished, or gave out one by one, since it was filled last.
        answered: answers sent of those.
        lost: answers the kernel did not take, ever.
        rest: what the gate has nothing to say about, as datagrams and addresses.
    """

    cdef int _fd
    cdef int _count, _next, _answers
    cdef Slot* _slots
    cdef uint8_t* _data
    cdef mmsghdr _received[SLOTS]
    cdef mmsghdr _sent[SLOTS]
    cdef readonly int taken, answered
    cdef readonly unsigned long lost
    cdef readonly list rest

    def __init__(self, sock):
        self._fd = sock.fileno()
        self._slots = <Slot*>PyMem_RawCalloc(SLOTS, sizeof(Slot))
        self._data = <uint8_t*>PyMem_RawCalloc(SLOTS, SLOT_BYTES)
        if self._slots == NULL or self._data == NULL:
            raise MemoryError
        self.rest = []

    def __dealloc__(self):
        PyMem_RawFree(self._slots)
        PyMem_RawFree(self._data)

    def fill(self):
        """Take what has arrived; how many datagrams, 0 for none.

        Raises:
            OSError: the network reported something, or the socket is broken.
        """
        cdef int n
        cdef Slot* slot
        self._count = self._next = self._answers = self.taken = self.answered = 0
        self.rest = []
        for n in range(SLOTS):
            slot = &self._slots[n]
            slot.incoming.iov_base = self._data + n * SLOT_BYTES
            slot.incoming.iov_len = SLOT_BYTES
            memset(&self._received[n], 0, sizeof(mmsghdr))
            self._received[n].msg_hdr.msg_name = &slot.name
            self._received[n].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
            self._received[n].msg_hdr.msg_iov = &slot.incoming
            self._received[n].msg_hdr.msg_iovlen = 1
            self._received[n].msg_hdr.msg_control = slot.control
            self._received[n].msg_hdr.msg_controllen = CONTROL_BYTES
        with nogil:
            n = recvmmsg(self._fd, self._received, SLOTS, MSG_DONTWAIT, NULL)
        if n < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            PyErr_SetFromErrno(OSError)
        self._count = n
        return n

    def sift(self, Sieve sieve, config, double now, known, bint others):
        """Have the gate judge what was taken.

        Returns:
            A datagram that Gate.receive has to be given before this is called again, with its address;
            None at the end.
        """
        cdef Place place
        cdef const uint8_t* data
        cdef Slot* slot
        cdef int n, outcome, out_n, at
        sieve.prepare(config, now)
        while self._next < self._count:
            at = self._next
            self._next += 1
            slot = &self._slots[at]
            data = self._data + at * SLOT_BYTES
            n = <int>self._received[at].msg_len
            if n == 0:
                outcome = _gate.EMPTY
            elif not FIRST <= data[0] <= LAST and not others:
                outcome = _gate.OTHER_PROTOCOL
            elif not _gate.may_be_hello(data, n) or not place_of_sockaddr(&place, <uint8_t*>&slot.name):
                self.rest.append(self._object(at))
                continue
            else:
                out_n = 0
                outcome = sieve.judge_datagram(data, n, &place, now, known, others, slot.answer, &out_n)
                if out_n:
                    self._queue(at, out_n)
            self.taken += 1
            if outcome < 0:
                sieve.settle()
                return self._object(at)
            sieve.discards[outcome] += outcome > 0
        sieve.settle()
        return None

    cdef void _queue(self, int at, int n) noexcept:
        """Put an answer behind the others, to where and from where its hello came."""
        cdef mmsghdr* message = &self._sent[self._answers]
        cdef Slot* slot = &self._slots[at]
        cdef msghdr* header = &self._received[at].msg_hdr
        cdef cmsghdr* control = CMSG_FIRSTHDR(header)
        memset(message, 0, sizeof(mmsghdr))
        slot.outgoing.iov_base = slot.answer
        slot.outgoing.iov_len = n
        message.msg_hdr.msg_name = &slot.name
        message.msg_hdr.msg_namelen = header.msg_namelen
        message.msg_hdr.msg_iov = &slot.outgoing
        message.msg_hdr.msg_iovlen = 1
        # As peers.Reached.arrived: the local address, and the interface of a link-local one only.
        if control != NULL and control.cmsg_level == IPPROTO_IP and control.cmsg_type == PKTINFO:
            memset(CMSG_DATA(control), 0, 4)
            memset(CMSG_DATA(control) + 8, 0, 4)
            message.msg_hdr.msg_control = slot.control
            message.msg_hdr.msg_controllen = CMSG_SPACE(PKTINFO_BYTES)
        elif control != NULL and control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == PKTINFO6:
            if CMSG_DATA(control)[0] != 0xFE or CMSG_DATA(control)[1] & 0xC0 != 0x80:
                memset(CMSG_DATA(control) + 16, 0, 4)
            message.msg_hdr.msg_control = slot.control
            message.msg_hdr.msg_controllen = CMSG_SPACE(PKTINFO6_BYTES)
        self._answers += 1

    cdef tuple _object(self, int at):
        cdef msghdr* header = &self._received[at].msg_hdr
        cdef cmsghdr* control = CMSG_FIRSTHDR(header)
        cdef uint8_t* value
        address = unpack_address((<uint8_t*>header.msg_name)[: header.msg_namelen])
        if control != NULL:
            value = CMSG_DATA(control)
            if control.cmsg_level == IPPROTO_IP and control.cmsg_type == PKTINFO:
                address = Reached.arrived(address, (IPPROTO_IP, PKTINFO, value[:PKTINFO_BYTES]))
            elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == PKTINFO6:
                address = Reached.arrived(address, (IPPROTO_IPV6, PKTINFO6, value[:PKTINFO6_BYTES]))
        data = PyBytes_FromStringAndSize(<char*>(self._data + at * SLOT_BYTES), self._received[at].msg_len)
        return data, address

    def reply(self):
        """Send the answers; how many the kernel took."""
        cdef int done = 0, n
        while done < self._answers:
            with nogil:
                n = sendmmsg(self._fd, self._sent + done, self._answers - done, MSG_DONTWAIT)
            if n < 0:
                if errno == EAGAIN:
                    break
                # This one cannot be sent; those behind it perhaps.
                self.lost += 1
                n = 1
            else:
                self.answered += n
            done += n
        self.lost += self._answers - done
        self._answers = 0
        return self.answered
