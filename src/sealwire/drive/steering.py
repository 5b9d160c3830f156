"""Several sockets on one port, and a program in the kernel that says which of them a datagram is for.

A server has two: protected records go to the data socket, everything strangers can make (hellos above
all) to a small handshake socket.  A flood then fills the small one's buffer and not the buffer of the
peers that are connected, and it is drained when those have been served.

The sockets are one SO_REUSEPORT group and the program is classic BPF over the UDP payload
(SO_ATTACH_REUSEPORT_CBPF, Linux 4.5): it answers with an index, in the order the sockets were bound.
The first socket is bound alone, so a port that is in use is refused as ever.

N workers have 2N sockets: 0 to N-1 are their data sockets, N to 2N-1 their handshake sockets.  The first
byte of a connection id says whose record it is; what carries none goes by the peer's address and port,
so that hellos and records of one peer come to one worker.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import secrets
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
# BPF_LDX | BPF_B | BPF_MSH; BPF_LD with BPF_H | BPF_IND, BPF_H | BPF_ABS, BPF_W | BPF_ABS, BPF_IMM; BPF_ST;
# BPF_LDX | BPF_MEM; BPF_JMP | BPF_JA; BPF_RET | BPF_A; arithmetic with a constant or with X.
_LOAD_HEADER_LENGTH: Final = 0xB1
_LOAD_HALF_AT_X: Final = 0x48
_LOAD_HALF: Final = 0x28
_LOAD_WORD: Final = 0x20
_LOAD_CONSTANT: Final = 0x00
_STORE: Final = 0x02
_LOAD_X: Final = 0x61
_JUMP: Final = 0x05
_RETURN_A: Final = 0x16
_SHIFT_RIGHT: Final = 0x74
_MULTIPLY: Final = 0x24
_REMAINDER: Final = 0x94
_XOR_X: Final = 0xAC
_ADD_X: Final = 0x0C
# SKF_NET_OFF: offsets from here on are those of the IP header.
_NETWORK: Final = 0xFFF0_0000

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


def by_worker(workers: int, key: int) -> tuple[Instruction, ...]:
    """The program for a group of `workers` data sockets and as many handshake sockets behind them.

    Args:
        key: an odd number of 32 bits nobody knows, so that nobody chooses ports that meet at one worker.
    """
    return (
        (_LOAD_BYTE, 0, 0, 0),
        (_AND, 0, 0, 0xF0),
        # RFC 9147 section 4: 0011 begins a record with a connection id, which follows; 0010 one without.
        (_JUMP_IF_EQUAL, 0, 3, 0x30),
        (_LOAD_BYTE, 0, 0, 1),
        (_REMAINDER, 0, 0, workers),
        (_RETURN_A, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 2, 0x20),
        (_LOAD_CONSTANT, 0, 0, 0),
        (_JUMP, 0, 0, 1),
        (_LOAD_CONSTANT, 0, 0, workers),
        (_STORE, 0, 0, 0),
        # The sender: low 32 bits of the address, and the port behind a header of either IP version.  Behind
        # extension headers of IPv6 it is no port, and the same for a sender's next datagram all the same.
        (_LOAD_BYTE, 0, 0, _NETWORK),
        (_SHIFT_RIGHT, 0, 0, 4),
        (_JUMP_IF_EQUAL, 0, 5, 4),
        (_LOAD_HEADER_LENGTH, 0, 0, _NETWORK),
        (_LOAD_HALF_AT_X, 0, 0, _NETWORK),
        (_STORE, 0, 0, 1),
        (_LOAD_WORD, 0, 0, _NETWORK + 12),
        (_JUMP, 0, 0, 3),
        (_LOAD_HALF, 0, 0, _NETWORK + 40),
        (_STORE, 0, 0, 1),
        (_LOAD_WORD, 0, 0, _NETWORK + 20),
        (_LOAD_X, 0, 0, 1),
        (_XOR_X, 0, 0, 0),
        (_MULTIPLY, 0, 0, key | 1),
        (_SHIFT_RIGHT, 0, 0, 16),
        (_REMAINDER, 0, 0, workers),
        (_LOAD_X, 0, 0, 0),
        (_ADD_X, 0, 0, 0),
        (_RETURN_A, 0, 0, 0),
    )


@dataclass(frozen=True, slots=True)
class Division:
    """How one port is shared out among workers.

    Attributes:
        data: the socket of each worker, in order.
        handshakes: the socket of each for everything but protected records; empty where `data` has it all.
        why: in one sentence.
    """

    data: tuple[socket.socket, ...]
    handshakes: tuple[socket.socket, ...]
    why: str

    def close(self) -> None:
        for sock in (*self.data, *self.handshakes):
            sock.close()


def divide(first: socket.socket, workers: int, *, steer: bool = True) -> Division:
    """Share out the port of `first`, a bound UDP socket, which becomes the first worker's.

    Where the kernel takes no program it spreads peers over the data sockets by its own hash, and workers
    hand on what carries another one's id.

    Raises:
        OSError: the kernel does not share the port.  `first` stays open.
    """
    if workers > 1 and sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, "only Linux spreads datagrams over sockets of one port")
    others: list[socket.socket] = []
    try:
        # Where one of them cannot be had, `others` has those before it.
        others.extend(join(first) for _ in range(workers - 1))
        if not steer:
            return Division((first, *others), (), "the kernel spreads peers over workers, as was asked for")
        try:
            others.extend(join(first) for _ in range(workers))
            attach(first, by_worker(workers, secrets.randbits(32)))
            for sock in others[workers - 1 :]:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HANDSHAKE_BUFFER_BYTES)
        except OSError as error:
            for sock in others[workers - 1 :]:
                sock.close()
            del others[workers - 1 :]
            reason = error.strerror or str(error)
            words = f"the kernel refused to steer by connection id ({reason}): it spreads peers by address"
            return Division((first, *others), (), words)
    except BaseException:
        for sock in others:
            sock.close()
        raise
    data, fronts = (first, *others[: workers - 1]), tuple(others[workers - 1 :])
    return Division(data, fronts, "records go to the worker in their connection id, all else by address")


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
