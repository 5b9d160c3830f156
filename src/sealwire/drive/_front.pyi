import socket
from collections.abc import Collection
from typing import final

from sealwire.context import Config
from sealwire.dtls._gate import Sieve
from sealwire.dtls.cookie import Address

@final
class Front:
    taken: int
    answered: int
    lost: int
    rest: list[tuple[bytes, Address]]

    def __init__(self, sock: socket.socket) -> None: ...
    def fill(self) -> int: ...
    def sift(
        self, sieve: Sieve, config: Config, now: float, known: Collection[bytes], others: bool
    ) -> tuple[bytes, Address] | None: ...
    def reply(self) -> int: ...
