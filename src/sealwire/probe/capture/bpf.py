"""Filters in tcpdump's language, compiled and run by libpcap, which is asked for only here.

libpcap is loaded at run time (ctypes), so nothing is linked and machines without it lose filters
only.  A program is handed to the compiled flow table as two addresses, and to the kernel for live
capture as its instructions.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools

from sealwire.errors import ConfigurationError
from sealwire.probe.decode import LinkType

#: File link types whose number differs from the DLT_ libpcap compiles for (Linux).
_DLT = {LinkType.RAW: 12, LinkType.RAW_OPENBSD: 12}
_SNAPLEN = 262_144


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


@functools.cache
def _library() -> ctypes.CDLL:
    for name in ("libpcap.so.0.8", "libpcap.so.1", ctypes.util.find_library("pcap")):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_compile.argtypes = (
            *(ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32),
        )
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_geterr.argtypes = (ctypes.c_void_p,)
        library.pcap_close.argtypes = (ctypes.c_void_p,)
        library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
        library.bpf_filter.restype = ctypes.c_uint
        library.bpf_filter.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint)
        return library
    raise ConfigurationError("filters need libpcap, which is not on this machine: apt-get install libpcap0.8")


def available() -> bool:
    """Whether libpcap can be loaded."""
    try:
        _library()
    except ConfigurationError:
        return False
    return True


class Program:
    """A filter for one link type.  Raises ConfigurationError for one libpcap does not understand."""

    def __init__(self, expression: str, link: int) -> None:
        library = _library()
        if "\0" in expression:
            raise ConfigurationError("a filter contains no zero bytes")
        handle = library.pcap_open_dead(
            _DLT.get(LinkType(link), link) if link in list(LinkType) else link, _SNAPLEN
        )
        program = _Program()
        try:
            if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, 0xFFFFFFFF) != 0:
                reason = library.pcap_geterr(handle).decode("utf-8", "replace")
                raise ConfigurationError(f"the filter {expression!r} does not compile: {reason}")
        finally:
            library.pcap_close(handle)
        count = program.length
        self._code = (_Instruction * count)(*program.instructions[:count])
        library.pcap_freecode(ctypes.byref(program))
        self._run = library.bpf_filter
        #: Addresses of bpf_filter() and of the instructions, for the compiled table.
        self.function = ctypes.cast(library.bpf_filter, ctypes.c_void_p).value or 0
        self.instructions = ctypes.addressof(self._code)
        self.count = count

    def __call__(self, data: memoryview, wire_bytes: int) -> bool:
        return bool(self._run(self.instructions, bytes(data), wire_bytes, len(data)))

    def raw(self) -> bytes:
        """The instructions as the kernel takes them."""
        return bytes(self._code)
