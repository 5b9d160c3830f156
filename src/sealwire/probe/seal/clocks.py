"""The clocks of this machine as a `Moment`: wall time, uptime, and the kernel's word on them."""

from __future__ import annotations

import ctypes
import struct
import sys
import time
from typing import Final

from sealwire.probe.seal.segment import ClockState, Moment

# struct timex of Linux on 64-bit machines: maxerror and status; adjtimex(2).
_TIMEX_BYTES: Final = 256
_MAXERROR: Final = struct.Struct("<24xq")
_STATUS: Final = struct.Struct("<40xi")
_STA_UNSYNC: Final = 0x40
_TIME_ERROR: Final = 5


def moment() -> Moment:
    """Now."""
    state, error = _kernel()
    return Moment(time.time_ns(), uptime(), state, error)


def uptime() -> int:
    """Nanoseconds since the machine started, sleep included where the system can tell."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _kernel() -> tuple[ClockState, int]:
    """Whether the kernel believes its clock, and the error it admits, microseconds."""
    if sys.platform != "linux" or struct.calcsize("P") != 8 or sys.byteorder != "little":
        return ClockState.UNKNOWN, 0
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only ask
    try:
        answer = ctypes.CDLL(None).adjtimex(timex)
    except (OSError, AttributeError):
        return ClockState.UNKNOWN, 0
    if answer < 0:
        return ClockState.UNKNOWN, 0
    unsynchronised = answer == _TIME_ERROR or _STATUS.unpack_from(timex)[0] & _STA_UNSYNC
    state = ClockState.UNSYNCHRONISED if unsynchronised else ClockState.SYNCHRONISED
    return state, max(_MAXERROR.unpack_from(timex)[0], 0)
