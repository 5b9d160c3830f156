"""What the machine, or the cgroup this process is in, allows: memory, descriptors, receive buffers.

cgroup v2 has one tree; the limit of every level from the process's own up to the root holds, so the
least counts.  cgroup v1 has a tree for memory apart, whose number without a limit is a huge one.  In a
container the tree is often mounted from the process's own level on, so paths that are not there are
looked for nearer to the root.
"""

from __future__ import annotations

import resource
import warnings
from pathlib import Path
from typing import Final

from sealwire.limits import Limits, Machine, check_limits, fit

# cgroup v1 writes "no limit" as the largest multiple of a page; nothing real is above it.
_UNLIMITED_BYTES: Final = 1 << 60


def read_machine(root: Path = Path("/")) -> Machine:
    """Read it; what cannot be read sets no bound.  `root` stands for the file system's, in tests."""
    memory, source = _memory(root)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(
        memory_bytes=memory,
        memory_source=source,
        descriptors=None if soft == resource.RLIM_INFINITY else soft,
        receive_buffer_bytes=_number(root / "proc/sys/net/core/rmem_max"),
    )


class LimitsWarning(RuntimeWarning):
    """Two limits of a server, or a limit and the machine, do not agree."""


def default_limits() -> Limits:
    """The limits of a server that was given none: the default ones, as far as the machine allows them."""
    return fit(Limits(), read_machine())


def limits_at_start(limits: Limits | None, *, streams: bool = False) -> Limits:
    """The limits a server starts with: those given, after a LimitsWarning for each two that do not agree."""
    if limits is None:
        return default_limits()
    for one in check_limits(limits, read_machine(), streams=streams):
        warnings.warn(str(one), LimitsWarning, stacklevel=4)
    return limits


def _memory(root: Path) -> tuple[int | None, str]:
    found = []
    for source, path in _limit_files(root):
        limit = _number(path)
        if limit is not None and limit < _UNLIMITED_BYTES:
            found.append((limit, source))
    physical = _physical(root)
    if physical is not None:
        found.append((physical, "MemTotal"))
    return min(found, default=(None, "memory"), key=lambda one: one[0])


def _limit_files(root: Path) -> list[tuple[str, Path]]:
    files: list[tuple[str, Path]] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            files += _levels(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            files += _levels(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return files


def _levels(mount: Path, path: str, name: str) -> list[tuple[str, Path]]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [(f"cgroup {name}", mount.joinpath(*parts[:n], name)) for n in range(len(parts) + 1)]


def _physical(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal" and rest.split()[:1] and rest.split()[0].isdigit():
            return int(rest.split()[0]) * 1024
    return None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
