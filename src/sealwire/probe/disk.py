"""Files that are appended to and synced by name, one open at a time, and small ones replaced all at once.

What both a spool and a store ask of a directory (`Disk`), and what gives it to them (`Files`).  Tests have
another that forgets what was not synced, runs full, and fails when told to.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from sealwire.errors import ConfigurationError

#: No room is not a failure of the disk.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: A file that is being made; whoever finds one may remove it.
UNFINISHED: Final = ".new"


class Disk(Protocol):
    """What is asked of a directory's files.  Every method raises OSError."""

    def read(self, name: str) -> bytes: ...

    def size(self, name: str) -> int: ...

    def create(self, name: str) -> None:
        """Make an empty file; durable with the next sync of it."""

    def append(self, name: str, data: bytes) -> None:
        """Add to the end; on an error some of it may be there."""

    def sync(self, name: str) -> None:
        """Make a file's content, and that it exists, durable."""

    def truncate(self, name: str, size: int) -> None: ...

    def remove(self, name: str) -> None: ...

    def replace(self, name: str, data: bytes) -> None:
        """Give a small file this content, durably, all or nothing."""


def sync_folder(path: Path) -> None:
    """Make durable which files a directory has."""
    names = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(names)
    finally:
        os.close(names)


def replace_file(path: Path, data: bytes, unfinished: str = UNFINISHED) -> None:
    """Give a small file this content, durably, all or nothing; made under a name ending in `unfinished`."""
    fresh = path.with_name(path.name + unfinished)
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync_folder(path.parent)


class Files:
    """The files of a directory as a Disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._name = ""
        self._file = -1

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def size(self, name: str) -> int:
        return (self._path / name).stat().st_size

    def create(self, name: str) -> None:
        self._enter(name, os.O_CREAT | os.O_EXCL)

    def append(self, name: str, data: bytes) -> None:
        file, rest = self._enter(name), memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    def sync(self, name: str) -> None:
        os.fsync(self._enter(name))
        sync_folder((self._path / name).parent)

    def truncate(self, name: str, size: int) -> None:
        os.ftruncate(self._enter(name), size)

    def remove(self, name: str) -> None:
        if name == self._name:
            self.leave()
        os.unlink(self._path / name)
        sync_folder((self._path / name).parent)

    def replace(self, name: str, data: bytes) -> None:
        replace_file(self._path / name, data)

    def leave(self) -> None:
        """Close the file that is open."""
        if self._file != -1:
            os.close(self._file)
            self._file, self._name = -1, ""

    def _enter(self, name: str, flags: int = 0) -> int:
        if name != self._name or flags:
            self.leave()
            self._file = os.open(self._path / name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
            self._name = name
        return self._file


class Lock:
    """A file that one process holds at a time.

    Raises ConfigurationError(`taken`) where another one has it.
    """

    def __init__(self, path: Path, taken: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise ConfigurationError(taken) from None

    def release(self) -> None:
        """Give it up.  May be called twice."""
        if self._file != -1:
            os.close(self._file)
            self._file = -1
