"""Estate: where a program that serves leaves its connections to the next one on the same port.

A directory of its owner's alone: a key under which states are sealed, a place for each slot (one
without workers), and how many slots there are, since connection ids lead to slots.  One program at a
time has it.  States and their claims are durable, so that a machine that fails brings back no older ones;
in memory (/run) that costs nothing, and a reboot takes them along, as it takes the peers' patience.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Final

from sealwire.drive.succession import Succession
from sealwire.dtls.handover import KEY_BYTES
from sealwire.errors import ConfigurationError

_KEY: Final = "key"
_SLOTS: Final = "slots"
_LOCK: Final = "lock"


class Estate:
    """What one program leaves and the next one takes.

    Args:
        directory: made, for its owner only, if it is not there.
        slots: how many processes serve.

    Raises:
        ConfigurationError: it cannot be used, others may read or write it, a program has it, or what is in it
            was left by another number of processes.
    """

    def __init__(self, directory: str | os.PathLike[str], slots: int) -> None:
        self._directory = Path(directory)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            status = self._directory.stat()
            if status.st_mode & 0o077 or status.st_uid != os.geteuid():
                raise ConfigurationError(
                    f"connections left in {str(self._directory)!r} could be read or replaced by others: "
                    "chmod 700 it"
                )
            self._lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check_slots(slots)
            self._key = self._own_key()
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigurationError(f"another program has {str(self._directory)!r}") from None
        except OSError as error:
            os.close(self._lock)
            raise self._unusable(error) from None
        except BaseException:
            os.close(self._lock)
            raise

    def succession(self, slot: int) -> Succession:
        """What the slot's process leaves and takes."""
        place = self._directory / str(slot)
        place.mkdir(mode=0o700, exist_ok=True)
        return Succession(place, self._key, lasting=True)

    def close(self) -> None:
        """Let the next program have it."""
        os.close(self._lock)

    def __enter__(self) -> Estate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unusable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"cannot leave connections in {str(self._directory)!r}: {(error.strerror or str(error)).lower()}"
        )

    def _check_slots(self, slots: int) -> None:
        path = self._directory / _SLOTS
        before = path.read_text("ascii") if path.exists() else ""
        if before != str(slots):
            if any(self._directory.glob("*/*/*.state")):
                raise ConfigurationError(
                    f"connections in {str(self._directory)!r} are of {before} processes and their ids lead "
                    "to those: serve with as many, or remove it"
                )
            path.write_text(str(slots), "ascii")

    def _own_key(self) -> bytes:
        path = self._directory / _KEY
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = secrets.token_bytes(KEY_BYTES)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(key)
        if len(key) != KEY_BYTES:
            raise ConfigurationError(
                f"{str(path)!r} is no key of {KEY_BYTES} bytes: remove {self._directory}"
            )
        return key
