"""The file secrets are written to for packet analysers, where the application asks for it."""

from __future__ import annotations

import os
import weakref

from sealwire.crypto.credentials import PathName
from sealwire.errors import ConfigurationError

__all__ = ["KeyLog"]


class KeyLog:
    """An open key log: secrets in the NSS format (RFC 9850), for debugging with a packet analyser."""

    __slots__ = ("__weakref__", "_fd", "name")

    def __init__(self, name: PathName) -> None:
        self.name = os.fspath(name)
        try:
            # Whoever reads this file reads the traffic: nobody but its owner may.
            self._fd = os.open(self.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "this is no file name"
            raise ConfigurationError(f"cannot open key log {self.name!r}: {why}; check the path") from None
        weakref.finalize(self, os.close, self._fd)

    def __call__(self, line: str) -> None:
        try:
            # One write in append mode, so that lines of several processes do not mix.
            os.write(self._fd, line.rstrip("\n").encode("ascii") + b"\n")
        except OSError:
            # A full disk costs the log a line, not the peer its connection.
            return
