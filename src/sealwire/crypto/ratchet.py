"""KeyRatchet: processes that began with one secret change keys at the same moments, without a word.

Time is cut into steps of `period` seconds, on a clock the processes share.  Each step has a key made of
a chain, and the chain goes on by a one-way function, as the key schedule does with KeyUpdates: who
learns it reads what comes, not what was.  A ratchet forgets what is older than `keep` steps, and so
does a process that begins later with what another one has by then.
"""

from __future__ import annotations

from typing import Final

from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import CryptoProvider, default_provider

__all__ = ["RATCHET_SECRET_BYTES", "KeyRatchet"]

RATCHET_SECRET_BYTES: Final = 32


class KeyRatchet:
    """The keys of now and of `keep` steps before.

    Args:
        secret: 32 random bytes, the chain of step `number`.
        number: that step.
        period: seconds a key is the newest.
        keep: earlier keys there are beside it.

    Raises:
        ValueError: a secret of another length, a period that is not positive, a `keep` below 0.
    """

    __slots__ = ("_begun", "_keys", "_provider", "keep", "newest", "period")

    def __init__(
        self,
        secret: bytes,
        *,
        number: int,
        period: float,
        keep: int = 1,
        provider: CryptoProvider | None = None,
    ) -> None:
        if len(secret) != RATCHET_SECRET_BYTES:
            raise ValueError(f"a ratchet begins with {RATCHET_SECRET_BYTES} bytes, not {len(secret)}")
        if not period > 0 or keep < 0 or number < 0:
            raise ValueError("a ratchet has a positive period, and numbers that are not negative")
        self._provider = provider or default_provider()
        self.period: Final = period
        self.keep: Final = keep
        # The oldest step whose key there still is, and its chain; replaced as a whole, for threads' sake.
        self._begun = (number, Secret(secret))
        #: The newest step that was asked for.
        self.newest = number
        self._keys: dict[int, bytes] = {}

    @classmethod
    def begin(
        cls, now: float, *, period: float, keep: int = 1, provider: CryptoProvider | None = None
    ) -> KeyRatchet:
        """A fresh one, of which another process may be given :meth:`state`."""
        chosen = provider or default_provider()
        # From `keep` steps ago, so that whoever joins soon has what the first ones have.
        number = max(int(now // period) - keep, 0)
        return cls(
            chosen.random(RATCHET_SECRET_BYTES), number=number, period=period, keep=keep, provider=chosen
        )

    def __repr__(self) -> str:
        return f"<KeyRatchet step {self.newest}, {self.period:g} s each>"

    def state(self, now: float) -> tuple[bytes, int]:
        """Secret and number with which another process has the same keys as this one at `now`."""
        self.keys(now)
        number, chain = self._begun
        return bytes(chain), number

    def keys(self, now: float) -> dict[int, bytes]:
        """The keys by step, the newest last.  A clock that goes back changes nothing."""
        newest = max(int(now // self.period), self.newest)
        if newest == self.newest and self._keys:
            return self._keys
        begun, secret = self._begun
        oldest, chain = max(newest - self.keep, begun), bytes(secret)
        for _ in range(begun, oldest):
            chain = self._derive(chain, b"next")
        self._begun = oldest, Secret(chain)
        keys: dict[int, bytes] = {}
        for number in range(oldest, newest + 1):
            keys[number] = self._derive(chain, b"key")
            chain = self._derive(chain, b"next")
        self._keys, self.newest = keys, newest
        return keys

    def _derive(self, chain: bytes, label: bytes) -> bytes:
        return self._provider.hkdf_expand("sha256", chain, b"sealwire ratchet " + label, RATCHET_SECRET_BYTES)
