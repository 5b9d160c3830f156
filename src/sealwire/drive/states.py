"""Where checkpoints of associations are kept: a directory that several processes share.

One file per association holds its newest state; another one how far its generations are claimed.  A
state is durable before :meth:`save` returns, so :meth:`sealwire.dtls.Connection.checkpoint`'s promise
holds; a claim is one step under a lock, so of several processes that want to go on with an
association one does.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sealwire.dtls.handover import NAME_BYTES, label, last_of_its_process
from sealwire.errors import ConfigurationError, Error

_GENERATION_BYTES: Final = 8


class StateDirectory:
    """Sealed states by association.

    Args:
        directory: made, for its owner only, if it is not there.
        durable: states and claims survive the machine; off where a machine that fails ends them anyway.

    Raises:
        ConfigurationError: it cannot be made or used, or others may read or write it.
    """

    def __init__(self, directory: str | os.PathLike[str], *, durable: bool = True) -> None:
        self._directory = Path(directory)
        self._durable = durable
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            status = self._directory.stat()
        except OSError as error:
            raise ConfigurationError(
                f"cannot use {str(self._directory)!r} for states: {error.strerror}"
            ) from None
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise ConfigurationError(
                f"states in {str(self._directory)!r} could be read or replaced by others: chmod 700 it"
            )

    def __iter__(self) -> Iterator[bytes]:
        """The newest state of each association that was saved and not removed."""
        for path in sorted(self._directory.glob("*.state")):
            try:
                yield path.read_bytes()
            except FileNotFoundError:
                continue

    def save(self, state: bytes) -> None:
        """Make `state` the association's newest, durably.

        Raises:
            Error: another process goes on with the association, so this one must stop.
            OSError: it could not be written; the one before is still there.
        """
        name, generation = label(state)
        with self._locked(name) as claims:
            if generation <= _claimed(claims):
                raise Error("another process goes on with this association: this one must not")
            self._replace(self._file(name, "state"), state)

    def claim(self, name: bytes, generation: int) -> bool:
        """Whether this process goes on from that state: True once, and never for an older one."""
        with self._locked(name) as claims:
            try:
                newest = label(self._file(name, "state").read_bytes())[1]
            except FileNotFoundError:
                newest = generation
            if generation <= _claimed(claims) or generation < newest:
                return False
            os.pwrite(claims, last_of_its_process(generation).to_bytes(_GENERATION_BYTES, "big"), 0)
            if self._durable:
                os.fsync(claims)
            return True

    def remove(self, name: bytes) -> None:
        """Forget an association that is over.  What was claimed of it stays claimed."""
        with self._locked(name):
            self._file(name, "state").unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything, what was claimed as well: for when nobody can bring an older state any more."""
        for path in self._directory.glob("*.state"):
            path.unlink(missing_ok=True)
        # No state may outlive its claim, whenever the machine fails.
        self._settle()
        for path in self._directory.glob("*.claims"):
            path.unlink(missing_ok=True)

    def _file(self, name: bytes, kind: str) -> Path:
        assert len(name) == NAME_BYTES
        return self._directory / f"{name.hex()}.{kind}"

    @contextmanager
    def _locked(self, name: bytes) -> Iterator[int]:
        descriptor = os.open(self._file(name, "claims"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _replace(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._settle()

    def _settle(self) -> None:
        """Make names durable."""
        if not self._durable:
            return
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _claimed(descriptor: int) -> int:
    """The highest generation claimed, -1 for none."""
    data = os.pread(descriptor, _GENERATION_BYTES, 0)
    return int.from_bytes(data, "big") if len(data) == _GENERATION_BYTES else -1
