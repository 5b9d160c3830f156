"""Whom a server lets in: the lists of its endpoints, on the clock its sockets run by."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealwire import dtls


class Doorkeeper(ABC):
    """Verbs of a server that has DTLS endpoints.  Prefixes are as `ipaddress` writes them."""

    @abstractmethod
    def _guarded(self) -> Iterable[dtls.Endpoint]:
        """The endpoints."""

    def allow(self, prefix: str, seconds: float = float("inf")) -> None:
        """Let `prefix` in whatever it opens or sends, for so long; the server's other limits hold.

        Raises:
            ValueError: this is no prefix.
            LimitReached: ``Limits.list_entries`` are listed.
        """
        now = time.monotonic()
        for endpoint in self._guarded():
            endpoint.doors.lists.allow(prefix, now, seconds)

    def block(self, prefix: str, seconds: float = float("inf")) -> None:
        """Admit no new connection from `prefix`, for so long; those it has live on.  Errors as `allow`."""
        now = time.monotonic()
        for endpoint in self._guarded():
            endpoint.doors.lists.block(prefix, now, seconds)

    def unlist(self, prefix: str) -> bool:
        """Take `prefix` off the lists; whether it was on one."""
        return sum(endpoint.doors.lists.remove(prefix) for endpoint in self._guarded()) > 0

    def listed(self) -> dict[str, tuple[str, float]]:
        """What is listed: "allowed" or "blocked", and for how many seconds yet."""
        now = time.monotonic()
        return {
            str(entry.prefix): (entry.listed.value, entry.expires - now)
            for endpoint in self._guarded()
            for entry in endpoint.doors.lists.entries(now)
        }
