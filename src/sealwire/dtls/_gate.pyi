from collections.abc import Collection, Sequence
from typing import final

from sealwire.context import Config
from sealwire.crypto.providers import CryptoProvider
from sealwire.dtls.cookie import Address
from sealwire.dtls.gate import Gate
from sealwire.wire import Buffer

@final
class Sieve:
    def __init__(self, gate: Gate, provider: CryptoProvider) -> None: ...
    def sift(
        self,
        batch: Sequence[tuple[Buffer, Address]],
        index: int,
        config: Config,
        now: float,
        replies: list[tuple[bytes, Address]],
        known: Collection[bytes],
        others: bool,
    ) -> int: ...
    def take_left(self) -> tuple[bytes, int, int, int, int, bool] | None: ...
