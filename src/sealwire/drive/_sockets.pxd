# What compiled drivers need of the kernel's sockets.  Linux's numbers are written out: older headers lack some.

from libc.stdint cimport uint8_t

cdef extern from "Python.h":
    object PyErr_SetFromErrno(object kind)

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct sockaddr_storage:
        pass
    int recvmmsg(int fd, mmsghdr* messages, unsigned int n, int flags, void* timeout)
    int sendmmsg(int fd, mmsghdr* messages, unsigned int n, int flags)
    cmsghdr* CMSG_FIRSTHDR(msghdr* message)
    cmsghdr* CMSG_NXTHDR(msghdr* message, cmsghdr* control)
    uint8_t* CMSG_DATA(cmsghdr* control)
    size_t CMSG_LEN(size_t n)
    size_t CMSG_SPACE(size_t n)
    int SOL_SOCKET, MSG_DONTWAIT

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP

cdef enum:
    PKTINFO = 8  # linux/in.h: IP_PKTINFO, in6.h: IPV6_PKTINFO
    PKTINFO6 = 50
