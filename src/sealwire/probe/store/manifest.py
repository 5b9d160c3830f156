"""What has been compacted of a probe: the one small file that says which others count.

It is replaced as a whole, so whoever is killed before leaves what was true before; files that it does
not name are leftovers, and the next compaction removes them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from sealwire.errors import ConfigurationError
from sealwire.probe.store.disk import Disk

MANIFEST: Final = "manifest"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class File:
    """A file of segments whose rows are in tables."""

    name: str
    first_segment: int
    last_segment: int
    first_event: int
    last_event: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Unit:
    """The tables of some files of segments that follow each other."""

    first_segment: int
    last_segment: int
    #: Latest time at which one of the segments came, nanoseconds since 1970.
    received: int
    #: File of each table; a table without rows has none.
    tables: dict[str, str]
    rows: dict[str, int]
    bytes: int


@dataclass(slots=True)
class Manifest:
    """The compacted part of a probe."""

    files: list[File] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    #: Retention removed everything up to this segment.
    removed: int = -1

    @classmethod
    def read(cls, disk: Disk, probe: str) -> Self:
        """A probe's manifest, empty where it has none.  Raises ConfigurationError for a damaged one."""
        try:
            said = json.loads(disk.read(f"{probe}/{MANIFEST}"))
        except FileNotFoundError:
            return cls()
        except ValueError:
            raise _damaged(disk, probe) from None
        if not isinstance(said, dict) or said.get("version") != _VERSION:
            raise _damaged(disk, probe)
        try:
            return cls(
                [File(**_checked(entry, File)) for entry in said["files"]],
                [Unit(**_checked(entry, Unit)) for entry in said["units"]],
                int(said["removed"]),
            )
        except (LookupError, TypeError, ValueError):
            raise _damaged(disk, probe) from None

    def write(self, disk: Disk, probe: str) -> None:
        """Make this what counts.  Raises OSError; then what counted before still does."""
        said = {
            "version": _VERSION,
            "removed": self.removed,
            "files": [asdict(file) for file in self.files],
            "units": [asdict(unit) for unit in self.units],
        }
        disk.replace(f"{probe}/{MANIFEST}", json.dumps(said, separators=(",", ":")).encode())

    @property
    def through(self) -> int:
        """The last segment that is in tables, or was removed; -1 before the first."""
        return max((self.removed, *(unit.last_segment for unit in self.units)))


def _checked(entry: Any, kind: type[File | Unit]) -> dict[str, Any]:
    """An entry whose values are of the kinds its fields have; names that lead nowhere else."""
    for name, wanted in kind.__annotations__.items():
        value = entry[name]
        if wanted == "int" and type(value) is not int:
            raise ValueError(name)
        if wanted == "str" and not _plain(value):
            raise ValueError(name)
        if wanted == "dict[str, str]" and not all(map(_plain, value.values())):
            raise ValueError(name)
    found: dict[str, Any] = entry
    return found


def _plain(name: object) -> bool:
    return isinstance(name, str) and "/" not in name and not name.startswith(".")


def _damaged(disk: Disk, probe: str) -> ConfigurationError:
    return ConfigurationError(
        f"{disk.path(f'{probe}/{MANIFEST}')} is damaged; remove it, and the rows are made again"
    )
