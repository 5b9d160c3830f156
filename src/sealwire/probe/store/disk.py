"""The directory of a store as the store sees it: folders of files, one level deep, ``probe/file``."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from sealwire.errors import ConfigurationError
from sealwire.probe import disk
from sealwire.probe.disk import Lock, sync_folder


class Disk(disk.Disk, Protocol):
    """What a store asks of its directory."""

    def folders(self) -> list[str]: ...

    def within(self, folder: str) -> list[str]:
        """Names of the files of a folder, "" being the directory itself; none where there is no folder."""

    def create(self, name: str) -> None:
        """Make an empty file, and its folder; durable with the next sync of it."""

    def path(self, name: str) -> Path:
        """Where a file is, for libraries that want a path."""


class Folders(disk.Files):
    """A directory as a Disk."""

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

    def create(self, name: str) -> None:
        folder = (self._path / name).parent
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            sync_folder(self._path)
        super().create(name)


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


def locked(store: Path, name: str, who: str) -> Lock:
    """A lock of a store's own.  Raises ConfigurationError that begins with `who` where another has it."""
    return Lock(store / name, f"{who} at {store} already")
