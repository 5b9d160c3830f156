"""Several sockets on one port, and a program in the kernel that says which of them a datagram is for.

A server has two: protected records go to the data socket, everything strangers can make (hellos above
all) to a small handshake socket.  A flood then fills the small one's buffer and not the buffer of the
peers that are connected, and it is drained when those have been served.

The sockets are one SO_REUSEPORT group and the program is classic BPF over the UDP payload
(SO_ATTACH_REUSEPORT_CBPF, Linux 4.5): it answers with an index, in the order the sockets were bound.
The first socket is bound alone, so a port that is in use is refused as ever.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# linux/asm-generic/socket.h; Python names some of them on some systems.
_SO_REUSEPORT: Final = 15
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_MEMINFO: Final = 55
# linux/sock_diag.h: the ninth number of SO_MEMINFO is what SO_RXQ_OVFL would say with every datagram.
_MEMINFO_NUMBERS: Final = 9
_MEMINFO_DROPS: Final = 8

# linux/bpf_common.h: BPF_LD | BPF_B | BPF_ABS, BPF_ALU | BPF_AND | BPF_K, BPF_JMP | BPF_JEQ | BPF_K,
# BPF_RET | BPF_K.
_LOAD_BYTE: Final = 0x30
_AND: Final = 0x54
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06

#: What the handshake socket may hold: some thousand hellos, which is a few milliseconds of a flood.
HANDSHAKE_BUFFER_BYTES: Final = 1024 * 1024

Instruction = tuple[int, int, int, int]

#: RFC 9147 section 4.1: protected records begin with the bits 001 and go to socket 0, all others to 1.  Of an
#: empty datagram nothing can be loaded, which the kernel takes for 0.
BY_FIRST_BYTE: Final[tuple[Instruction, ...]] = (
    (_LOAD_BYTE, 0, 0, 0),
    (_AND, 0, 0, 0xE0),
    (_JUMP_IF_EQUAL, 0, 1, 0x20),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 1),
)


@dataclass(frozen=True, slots=True)
class Steering:
    """How a server's port is shared out.

    Attributes:
        handshakes: the socket for everything but protected records; None where one socket has it all.
        why: in one sentence, for whoever asks the server.
    """

    handshakes: socket.socket | None
    why: str


def attach(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Have `program` choose within the group of `sock`.

    Raises:
        OSError: the kernel does not take it.
    """
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    # struct sock_fprog: the number of instructions, and where they are.
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_REUSEPORT_CBPF,
        struct.pack("HL", len(program), ctypes.addressof(code)),
    )


def join(first: socket.socket) -> socket.socket:
    """Another socket on the port of `first`, which is bound and was alone on it.

    Raises:
        OSError: the kernel does not share the port.
    """
    first.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 1)
    second = socket.socket(first.family, first.type, first.proto)
    try:
        second.setblocking(False)
        second.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        second.bind(first.getsockname())
    except BaseException:
        second.close()
        raise
    return second


def split(data: socket.socket) -> Steering:
    """Give `data`, a bound UDP socket, a handshake socket beside it, if this kernel can."""
    if sys.platform != "linux":
        return Steering(None, "one socket has all datagrams: only Linux steers them")
    if data.getsockopt(socket.SOL_SOCKET, _SO_REUSEPORT):
        return Steering(None, "one socket has all datagrams: other processes may share its port")
    handshakes = None
    try:
        handshakes = join(data)
        attach(data, BY_FIRST_BYTE)
        handshakes.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HANDSHAKE_BUFFER_BYTES)
    except OSError as error:
        if handshakes is not None:
            handshakes.close()
        with contextlib.suppress(OSError):
            data.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 0)
        reason = error.strerror or str(error)
        return Steering(None, f"one socket has all datagrams: the kernel refused to steer them ({reason})")
    return Steering(handshakes, "handshakes have a socket of their own beside the data's")


def dropped(sock: socket.socket) -> int:
    """Datagrams the kernel dropped because the buffer of `sock` was full; 0 where it does not say."""
    if sys.platform != "linux":
        return 0
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _MEMINFO_NUMBERS)
    except OSError:
        return 0
    numbers = array.array("I", found)
    return numbers[_MEMINFO_DROPS] if len(numbers) >= _MEMINFO_NUMBERS else 0
