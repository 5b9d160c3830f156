"""Keys that seal tickets, so that a server need remember nothing about the clients it has met.

A ticket is key name, salt, and the AES-256-GCM ciphertext of time and state; key and nonce of that
one ticket are derived from the ticket key and the salt, so a key shared by many hosts for long never
repeats a nonce.  Processes and hosts that hold the same keys open each other's tickets: the first
key seals, all open.  Without keys given, random ones are made and replaced by themselves; processes
that share a ratchet replace them together.

Whatever is wrong with a ticket has one answer, None: another key's, changed, too old, from the
future, cut short.  Time is wall-clock seconds, because hosts have no other clock in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers import Aead, CryptoProvider, default_provider
from sealwire.crypto.ratchet import KeyRatchet
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import ConfigurationError

__all__ = ["TICKET_KEY_BYTES", "TICKET_OVERHEAD_BYTES", "TicketKeys", "Unsealed"]

#: Shortest key accepted, and the length of those made here.
TICKET_KEY_BYTES: Final = 32

_NAME_BYTES: Final = 16
_SALT_BYTES: Final = 16
_TIME_BYTES: Final = 8
_TAG_BYTES: Final = 16
#: Bytes a ticket is longer than the state in it.
TICKET_OVERHEAD_BYTES: Final = _NAME_BYTES + _SALT_BYTES + _TIME_BYTES + _TAG_BYTES

# RFC 8446 section 4.6.1 [8446-PSK-4]: seven days at most, whatever the ticket says.
_LIFETIME_MAXIMUM_SECONDS: Final = 7 * 86_400.0
# Clocks of hosts that share keys may differ by this much.
_SKEW_SECONDS: Final = 60.0

_SPEC: Final = SUITES[CipherSuite.TLS_AES_256_GCM_SHA384]


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What was in a ticket: the state, and when it was sealed (wall-clock seconds)."""

    state: bytes
    sealed_at: float


@dataclass(frozen=True, slots=True)
class _Key:
    name: bytes
    secret: Secret
    made_at: float


class TicketKeys:
    """Seals and opens tickets under keys that rotate.

    Args:
        keys: secrets of 32 bytes or more, the same on every process and host that shares tickets; the first
            seals.  Empty for random ones, known to this object alone and replaced by themselves.
        lifetime_seconds: a ticket older than this is not opened; at most seven days.
        rotation_seconds: how long a random key seals; given keys are replaced by :meth:`replace` only.
        provider: cryptography to use.

    Raises:
        ConfigurationError: a key that is too short or there twice, a lifetime that cannot be.
    """

    __slots__ = ("_given", "_keys", "_provider", "_shared", "lifetime_seconds", "rotation_seconds")

    def __init__(
        self,
        keys: Sequence[bytes] = (),
        *,
        lifetime_seconds: float = 86_400.0,
        rotation_seconds: float = 43_200.0,
        provider: CryptoProvider | None = None,
    ) -> None:
        if not 0 < lifetime_seconds <= _LIFETIME_MAXIMUM_SECONDS:
            raise ConfigurationError("tickets live for more than 0 and at most 604,800 seconds (seven days)")
        if not rotation_seconds > 0:
            raise ConfigurationError("ticket keys rotate after more than 0 seconds")
        self._provider = provider or default_provider()
        self.lifetime_seconds: Final = lifetime_seconds
        self.rotation_seconds: Final = rotation_seconds
        self._given = bool(keys)
        self._shared: KeyRatchet | None = None
        # Replaced as a whole, never changed, so that a reader sees one state or the other.
        self._keys: tuple[_Key, ...] = self._checked(keys) if keys else ()

    def __repr__(self) -> str:
        return f"<TicketKeys {len(self._keys)} {'given' if self._given else 'random'}>"

    def replace(self, keys: Sequence[bytes]) -> None:
        """Go on with `keys`: the first seals, all open, and what is not among them is forgotten.

        To rotate keys on many hosts, give every host the new key second, then first, then without the old.

        Raises:
            ConfigurationError: no key, one that is too short or there twice.  Nothing has changed then.
        """
        if not keys:
            raise ConfigurationError("no ticket key given: pass at least one")
        self._keys = self._checked(keys)
        self._given = True
        self._shared = None

    @property
    def given(self) -> bool:
        """Whether the keys were given, and are not random ones of this object's own."""
        return self._given

    def share(self, ratchet: KeyRatchet) -> None:
        """Go on with the keys of `ratchet`, in step with all who have it.

        Its period, in wall-clock seconds, takes the place of `rotation_seconds`.

        Raises:
            ConfigurationError: it forgets keys whose tickets may live.  Nothing has changed then.
        """
        if ratchet.period * ratchet.keep < self.lifetime_seconds:
            raise ConfigurationError("the shared keys are forgotten before their tickets end")
        self._shared = ratchet
        self._given = True
        self._keys = ()

    def _follow(self, now: float) -> None:
        """Have the keys the others have by now."""
        if self._shared is None:
            return
        before = self._shared.newest
        keys = self._shared.keys(now)
        if not self._keys or self._shared.newest != before:
            self._keys = tuple(self._key(key, 0.0) for key in reversed(keys.values()))

    def _checked(self, keys: Sequence[bytes]) -> tuple[_Key, ...]:
        for key in keys:
            if len(key) < TICKET_KEY_BYTES:
                raise ConfigurationError(
                    f"a ticket key of {len(key)} bytes is too short: use {TICKET_KEY_BYTES} random bytes"
                )
        made = tuple(self._key(key, 0.0) for key in keys)
        if len({key.name for key in made}) != len(made):
            raise ConfigurationError("a ticket key is given twice")
        return made

    def _key(self, key: bytes, now: float) -> _Key:
        secret = self._provider.hkdf_extract("sha256", b"sealwire ticket key", key)
        # The name tells which key a ticket needs, and nothing about the key.
        name = self._provider.hkdf_expand("sha256", secret, b"name", _NAME_BYTES)
        return _Key(name, Secret(secret), now)

    def _aead(self, key: _Key, salt: bytes) -> tuple[Aead, bytes]:
        n = _SPEC.key_bytes
        derived = self._provider.hkdf_expand("sha256", key.secret, b"ticket" + salt, n + _SPEC.iv_bytes)
        return self._provider.aead(_SPEC, derived[:n]), derived[n:]

    def _sealing(self, now: float) -> _Key:
        """The key that seals; a random one is replaced when its time is over."""
        self._follow(now)
        keys = self._keys
        if self._given or (keys and now - keys[0].made_at < self.rotation_seconds):
            return keys[0]
        fresh = self._key(self._provider.random(TICKET_KEY_BYTES), now)
        # An older key stays for as long as something it sealed may live.
        reach = self.rotation_seconds + self.lifetime_seconds
        self._keys = (fresh, *(key for key in keys if now - key.made_at < reach))
        return fresh

    def seal(self, state: bytes, now: float, context: bytes = b"") -> bytes:
        """A ticket that holds `state` and the time.

        Args:
            now: wall-clock seconds, as of ``time.time()``.
            context: what the ticket is bound to without carrying it; :meth:`open` needs the same.
        """
        key = self._sealing(now)
        salt = self._provider.random(_SALT_BYTES)
        aead, nonce = self._aead(key, salt)
        time = max(round(now * 1000), 0).to_bytes(_TIME_BYTES, "big")
        head = key.name + salt
        return head + aead.seal(nonce, time + state, head + context)

    def seems_ours(self, ticket: bytes) -> bool:
        """Whether `ticket` names a key of ours, which anybody can write; if not it opens by none."""
        return len(ticket) >= TICKET_OVERHEAD_BYTES and any(ticket.startswith(one.name) for one in self._keys)

    def open(self, ticket: bytes, now: float, context: bytes = b"") -> Unsealed | None:
        """What :meth:`seal` was given, on this host or another; None for any other ticket."""
        if len(ticket) < TICKET_OVERHEAD_BYTES:
            return None
        self._follow(now)
        name, head = ticket[:_NAME_BYTES], ticket[: _NAME_BYTES + _SALT_BYTES]
        # Names are public, so comparing them may take its time.
        key = next((one for one in self._keys if one.name == name), None)
        if key is None:
            return None
        aead, nonce = self._aead(key, head[_NAME_BYTES:])
        opened = aead.open(nonce, ticket[len(head) :], head + context)
        if opened is None:
            return None
        sealed_at = int.from_bytes(opened[:_TIME_BYTES], "big") / 1000
        if not -_SKEW_SECONDS <= now - sealed_at <= self.lifetime_seconds:
            return None
        return Unsealed(opened[_TIME_BYTES:], sealed_at)
