# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Batches of datagrams in one system call each, compiled: the answers of `batches`.

recvmmsg fills slots of 64 KiB, because with UDP_GRO a shorter one would lose datagrams silently.  A
slot that a train filled is handed out as it is, without a copy; what is short is copied out and the
slot used again.  sendmmsg sends trains by UDP_SEGMENT and single datagrams alike, each to its address
and from the local address its peer spoke to.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from sealwire.drive._sockets cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_NXTHDR, CMSG_SPACE, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, MSG_DONTWAIT,
    PKTINFO, PKTINFO6, SOL_SOCKET, PyErr_SetFromErrno, cmsghdr, iovec, mmsghdr, msghdr, recvmmsg, sendmmsg,
    sockaddr_storage,
)

from sealwire.drive.batches import MOST_RECEIVED, MOST_SENT
from sealwire.drive.peers import Reached, pack_address, unpack_address
from sealwire.dtls import Train

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** data, Py_ssize_t n) except -1

cdef enum:
    SLOTS = 16
    SENDS = 64
    SLOT_BYTES = 65535
    # Below this a slot is worth more than the copy.
    COPY_BYTES = 8192
    CONTROL_BYTES = 128
    SEGMENT = 103  # linux/udp.h: UDP_SEGMENT, UDP_GRO
    GRO = 104
    RXQ_OVFL = 40  # asm-generic/socket.h: SO_RXQ_OVFL
    TOS = 1  # linux/in.h: IP_TOS, in6.h: IPV6_TCLASS
    TCLASS = 67
    CONGESTION = 3  # RFC 3168: both ECN bits

# Slots nobody uses now.  Taken and given back with the GIL.
cdef list _spare = []
# What addresses look like on either side; emptied when full, since they are the network's to choose.
cdef enum:
    KNOWN = 4096
cdef dict _names = {}
cdef dict _packed = {}

assert (SLOTS, SENDS) == (MOST_RECEIVED, MOST_SENT)


cdef struct Slot:
    sockaddr_storage name
    iovec vector
    uint8_t control[CONTROL_BYTES]


cdef class Receiver:
    """See :class:`sealwire.drive.batches.PlainReceiver`."""

    # The kernel keeps what it met behind a batch, and the socket stays readable.
    cdef readonly object error
    cdef readonly unsigned long lost
    cdef readonly unsigned long marked

    def receive(self, sock, int most=SLOTS):
        """See :meth:`sealwire.drive.batches.PlainReceiver.receive`."""
        cdef int fd = sock.fileno()
        cdef mmsghdr messages[SLOTS]
        cdef Slot* slots = <Slot*>PyMem_Malloc(SLOTS * sizeof(Slot))
        cdef list held = []
        cdef list batch = []
        cdef int n, count
        cdef bytes slot
        if slots == NULL:
            raise MemoryError
        try:
            memset(messages, 0, sizeof(messages))
            most = max(min(most, SLOTS), 1)
            for n in range(most):
                slot = _spare.pop() if _spare else PyBytes_FromStringAndSize(NULL, SLOT_BYTES)
                held.append(slot)
                slots[n].vector.iov_base = PyBytes_AS_STRING(slot)
                slots[n].vector.iov_len = SLOT_BYTES
                messages[n].msg_hdr.msg_name = &slots[n].name
                messages[n].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
                messages[n].msg_hdr.msg_iov = &slots[n].vector
                messages[n].msg_hdr.msg_iovlen = 1
                messages[n].msg_hdr.msg_control = slots[n].control
                messages[n].msg_hdr.msg_controllen = CONTROL_BYTES
            slot = None
            with nogil:
                count = recvmmsg(fd, messages, most, MSG_DONTWAIT, NULL)
            if count < 0:
                _give_back(held)
                PyErr_SetFromErrno(OSError)
            held.reverse()
            for n in range(count):
                self._take(&messages[n], held, batch)
            _give_back(held)
        finally:
            PyMem_Free(slots)
        return batch

    cdef int _take(self, mmsghdr* message, list held, list batch) except -1:
        cdef msghdr* header = &message.msg_hdr
        cdef Py_ssize_t n = message.msg_len
        cdef int size = 0
        cdef uint32_t lost
        cdef object own = None
        cdef cmsghdr* control = CMSG_FIRSTHDR(header)
        cdef uint8_t* value
        while control != NULL:
            value = CMSG_DATA(control)
            if control.cmsg_level == IPPROTO_UDP and control.cmsg_type == GRO:
                memcpy(&size, value, sizeof(int))
            elif control.cmsg_level == SOL_SOCKET and control.cmsg_type == RXQ_OVFL:
                memcpy(&lost, value, 4)
                self.lost += <uint32_t>(lost - <uint32_t>self.lost)
            elif control.cmsg_level == IPPROTO_IP and control.cmsg_type == TOS:
                self.marked += (value[0] & CONGESTION) == CONGESTION
            elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == TCLASS:
                self.marked += (value[0] & CONGESTION) == CONGESTION
            elif control.cmsg_level == IPPROTO_IP and control.cmsg_type == PKTINFO:
                own = (IPPROTO_IP, PKTINFO, value[: 12])
            elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == PKTINFO6:
                own = (IPPROTO_IPV6, PKTINFO6, value[: 20])
            control = CMSG_NXTHDR(header, control)
        cdef object address = _name((<uint8_t*>header.msg_name)[: header.msg_namelen], own)
        cdef bytes slot = held.pop()
        cdef bytes data
        cdef PyObject* taken
        if n > COPY_BYTES:
            # The list gave up the other reference, so that this may shrink where it is.
            taken = <PyObject*>slot
            Py_INCREF(slot)
            slot = None
            _PyBytes_Resize(&taken, n)
            data = <bytes>taken
            Py_DECREF(data)
        else:
            data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(slot), n)
            if len(_spare) < SLOTS:
                _spare.append(slot)
        batch.append((Train(data, size) if 0 < size < n else data, address))
        return 0


cdef int _give_back(list held) except -1:
    for slot in held:
        if len(_spare) < SLOTS:
            _spare.append(slot)
    return 0


cdef object _name(bytes raw, object own):
    key = raw if own is None else (raw, own)
    address = _names.get(key)
    if address is None:
        address = unpack_address(raw)
        if own is not None:
            address = Reached.arrived(address, own)
        if len(_names) >= KNOWN:
            _names.clear()
        _names[key] = address
    return address


cdef bytes _pack(object address):
    cdef object packed = _packed.get(address)
    if packed is None:
        packed = pack_address(address)
        if len(_packed) >= KNOWN:
            _packed.clear()
        _packed[tuple(address)] = packed
    return packed


def send(sock, entries, bint connected):
    """See :func:`sealwire.drive.batches.plain_send`."""
    cdef int fd = sock.fileno()
    cdef mmsghdr messages[SENDS]
    cdef Slot* slots = <Slot*>PyMem_Malloc(SENDS * sizeof(Slot))
    cdef list held = []
    cdef int count = 0
    cdef int sent
    cdef uint16_t size
    cdef bytes data, packed, value
    cdef msghdr* header
    cdef cmsghdr* control
    if slots == NULL:
        raise MemoryError
    try:
        memset(messages, 0, sizeof(messages))
        for one, address in entries:
            if count == SENDS:
                break
            size = 0
            if type(one) is Train:
                data, size = one.data, one.size
            else:
                # What applications send beside DTLS may be another buffer.
                data = one if type(one) is bytes else bytes(one)
            header = &messages[count].msg_hdr
            if not connected:
                try:
                    packed = _pack(address)
                except ValueError:
                    if count == 0:
                        raise
                    break
                held.append(packed)
                header.msg_name = PyBytes_AS_STRING(packed)
                header.msg_namelen = <unsigned int>PyBytes_GET_SIZE(packed)
            held.append(data)
            slots[count].vector.iov_base = PyBytes_AS_STRING(data)
            slots[count].vector.iov_len = PyBytes_GET_SIZE(data)
            header.msg_iov = &slots[count].vector
            header.msg_iovlen = 1
            memset(slots[count].control, 0, CONTROL_BYTES)
            header.msg_control = slots[count].control
            header.msg_controllen = CONTROL_BYTES
            control = CMSG_FIRSTHDR(header)
            header.msg_controllen = 0
            if size:
                control.cmsg_level = IPPROTO_UDP
                control.cmsg_type = SEGMENT
                control.cmsg_len = CMSG_LEN(sizeof(uint16_t))
                memcpy(CMSG_DATA(control), &size, sizeof(uint16_t))
                header.msg_controllen = CMSG_SPACE(sizeof(uint16_t))
                control = <cmsghdr*>(slots[count].control + header.msg_controllen)
            if not connected and type(address) is Reached:
                control.cmsg_level, control.cmsg_type, value = address.own
                control.cmsg_len = CMSG_LEN(PyBytes_GET_SIZE(value))
                memcpy(CMSG_DATA(control), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
                header.msg_controllen += CMSG_SPACE(PyBytes_GET_SIZE(value))
            if header.msg_controllen == 0:
                header.msg_control = NULL
            count += 1
        with nogil:
            sent = sendmmsg(fd, messages, count, MSG_DONTWAIT)
        if sent < 0:
            PyErr_SetFromErrno(OSError)
    finally:
        PyMem_Free(slots)
    return sent
