"""Stateless cookies: the proof that a client receives what is sent to its address.

A cookie must be (a) impossible to make for anybody but us, (b) good for one address and one first
ClientHello, (c) good for a short time, (d) cheap, and (e) enough to go on without having kept
anything (RFC 9147 sections 5.1 and 11).  So it is the facts themselves with a MAC over them and the
address: time, suite, group asked for, hash of the first hello (which is what the transcript needs;
it tells nothing about the hello [9147-11-5]).

Keys are random and never leave the process.  They rotate; a cookie names the generation of its key,
and only the current and the previous one exist [9147-5.1-5].  A key lives at least as long as a
cookie, so a cookie's age is what ends it.  Processes that serve one port have them of one ratchet.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from sealwire.crypto.groups import Group
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.ratchet import KeyRatchet
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import ProtocolError
from sealwire.wire import Reader, Writer

Address = tuple[object, ...]


def address_text(address: Address) -> bytes:
    """An address as bytes, no two alike: its parts with a zero byte, which none contains, between them."""
    return "\0".join(map(str, address)).encode()


_MAC_BYTES: Final = 16
_KEY_BYTES: Final = 32
_KEY_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class CookieFacts:
    """What a server must know of a handshake it kept nothing of."""

    suite: CipherSuite
    #: The group the HelloRetryRequest asked a share for; None if it did not.
    group: Group | None
    client_hello_1_hash: bytes
    #: Seconds since the cookie was made: the round trip, or more if a hello was repeated.
    age: float = 0.0


class CookieJar:
    """Makes and checks cookies.  `now` is in seconds on any steady clock.

    Attributes:
        generation: that of the key cookies are made with.
        keys: the current and the previous key, by generation.
        lifetime: age in seconds at which a cookie ends.
    """

    __slots__ = ("_provider", "_rotate_at", "_shared", "generation", "keys", "lifetime")

    def __init__(
        self,
        provider: CryptoProvider,
        lifetime: float,
        now: float = 0.0,
        shared: KeyRatchet | None = None,
    ) -> None:
        """`shared`: keys other processes have as well, on the clock of `now`.

        Raises:
            ValueError: keys of `shared` end before a cookie does.
        """
        self._provider = provider
        self._shared = shared
        self.lifetime = lifetime
        self.keys: dict[int, bytes]
        if shared is not None:
            if shared.period < lifetime or shared.keep != 1:
                raise ValueError("a shared cookie key lives at least as long as a cookie, and two exist")
            # None until the first cookie: only then is it known what time it is.
            self.generation, self.keys, self._rotate_at = -1, {}, float("-inf")
            return
        self.generation = 0
        self.keys = {0: provider.random(_KEY_BYTES)}
        self._rotate_at = now + max(_KEY_SECONDS, lifetime)

    def make(self, facts: CookieFacts, address: Address, now: float) -> bytes:
        """A cookie for a client at `address`."""
        self.rotate(now)
        writer = Writer()
        writer.u8(self.generation & 0xFF)
        writer.u48(int(now * 1000))
        writer.u16(facts.suite)
        writer.u16(facts.group or 0)
        writer.raw(facts.client_hello_1_hash)
        body = writer.finish()
        return body + self._mac(self.keys[self.generation], body, address)

    def check(self, cookie: bytes, address: Address, now: float) -> CookieFacts | None:
        """The facts of a genuine, fresh cookie of this address; None for any other bytes.

        RFC 9147 section 5.1 [9147-5.1-10]: the facts bind it to the handshake it was made in.
        """
        self.rotate(now)
        if len(cookie) <= _MAC_BYTES:
            return None
        body, mac = cookie[:-_MAC_BYTES], cookie[-_MAC_BYTES:]
        key = next((key for generation, key in self.keys.items() if generation & 0xFF == body[0]), None)
        # RFC 9147 section 11 [9147-11-2, 9147-11-3]: authentic first, then read.
        if key is None or not hmac.compare_digest(mac, self._mac(key, body, address)):
            return None
        try:
            reader = Reader(body, "cookie")
            reader.u8()
            made = reader.u48() / 1000
            spec = SUITES[CipherSuite(reader.u16())]
            group = reader.u16()
            digest = reader.take(spec.hash_bytes)
            reader.finish()
        except (ProtocolError, KeyError):
            return None
        age = max(now - made, 0.0)
        if age > self.lifetime:
            return None
        return CookieFacts(spec.suite, Group(group) if group else None, digest, age)

    def _mac(self, key: bytes, body: bytes, address: Address) -> bytes:
        place = address_text(address) + b"\0"
        return self._provider.hmac("sha256", key, len(place).to_bytes(2, "big") + place + body)[:_MAC_BYTES]

    def rotate(self, now: float) -> None:
        """Replace the keys where it is time."""
        if now < self._rotate_at:
            return
        if self._shared is not None:
            self.keys = dict(self._shared.keys(now))
            self.generation = self._shared.newest
            self._rotate_at = (self.generation + 1) * self._shared.period
            return
        # RFC 9147 section 11 [9147-11-6].  After a long silence both keys are older than any cookie that
        # could still be good.
        self.generation += 1
        self.keys = {
            self.generation - 1: self.keys[self.generation - 1],
            self.generation: self._provider.random(_KEY_BYTES),
        }
        self._rotate_at = now + max(_KEY_SECONDS, self.lifetime)
