"""The directory of a store as the store sees it: folders of files, appended to and synced by name.

One level deep: ``probe/file``.  `Folders` is the real one; tests have another that forgets what was not
synced, runs full, and fails when told to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Protocol

from sealwire.errors import ConfigurationError

#: No room is not a failure of the disk.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: A file that is being made; whoever finds one may remove it.
UNFINISHED: Final = ".new"


class Disk(Protocol):
    """What a store asks of its directory.  Every method raises OSError."""

    def folders(self) -> list[str]: ...

    def within(self, folder: str) -> list[str]:
        """Names of the files of a folder, "" being the directory itself; none where there is no folder."""

    def read(self, name: str) -> bytes: ...

    def size(self, name: str) -> int: ...

    def create(self, name: str) -> None:
        """Make an empty file, and its folder; durable with the next sync of it."""

    def append(self, name: str, data: bytes) -> None:
        """Add to the end; on an error some of it may be there."""

    def sync(self, name: str) -> None:
        """Make a file's content, and that it exists, durable."""

    def truncate(self, name: str, size: int) -> None: ...

    def remove(self, name: str) -> None: ...

    def replace(self, name: str, data: bytes) -> None:
        """Give a small file this content, durably, all or nothing."""

    def path(self, name: str) -> Path:
        """Where a file is, for libraries that want a path."""


def sync_folder(path: Path) -> None:
    """Make durable which files a directory has."""
    names = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(names)
    finally:
        os.close(names)


class Folders:
    """A directory as a Disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._name = ""
        self._file = -1

    def path(self, name: str) -> Path:
        return self._path / name

    def folders(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._path) if entry.is_dir(follow_symlinks=False))

    def within(self, folder: str) -> list[str]:
        try:
            entries = list(os.scandir(self._path / folder))
        except FileNotFoundError:
            return []
        return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def size(self, name: str) -> int:
        return (self._path / name).stat().st_size

    def create(self, name: str) -> None:
        folder = (self._path / name).parent
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            sync_folder(self._path)
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
        fresh = self._path / f"{name}{UNFINISHED}"
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path / name)
        sync_folder(fresh.parent)

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


def checked(path: str | os.PathLike[str]) -> Path:
    """A store's directory, made where there is none.

    Raises ConfigurationError where others may write to it: who can remove a file can remove evidence.
    """
    place = Path(path)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = place.stat()
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"{place} belongs to user {status.st_uid}, not to the one who stores")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"others may write to {place}: chmod go-w {place}")
    return place


class Lock:
    """A file that one process holds at a time.  Raises ConfigurationError where another one has it."""

    def __init__(self, path: Path, who: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise ConfigurationError(f"{who} at {path.parent} already") from None

    def release(self) -> None:
        """Give it up.  May be called twice."""
        if self._file != -1:
            os.close(self._file)
            self._file = -1
