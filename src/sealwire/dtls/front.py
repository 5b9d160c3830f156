"""What an endpoint asks of a handshake socket that hands datagrams to the compiled gate itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from sealwire.context import Config
from sealwire.dtls.cookie import Address

if TYPE_CHECKING:
    from sealwire.dtls._gate import Sieve


class Front(Protocol):
    """Datagrams that are no objects yet; see ``sealwire.drive._front.Front``."""

    @property
    def taken(self) -> int: ...
    @property
    def rest(self) -> list[tuple[bytes, Address]]: ...
    def sift(
        self, sieve: Sieve, config: Config, now: float, known: Collection[bytes], others: bool
    ) -> tuple[bytes, Address] | None: ...
    def reply(self) -> int: ...
