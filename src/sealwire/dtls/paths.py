"""Return routability: whether a peer's new address answers (RFC 9853).

An authenticated record from a new address may have been copied and sent on by somebody who wants the
answers to go elsewhere.  So nothing but a small challenge goes there until the peer, which alone has
the keys, answers it from there.  The enhanced check asks the old address first: if the peer still
answers there, it has not moved, and the new address is a copier's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealwire.crypto.providers import CryptoProvider
from sealwire.dtls.connection import Connection
from sealwire.dtls.cookie import Address
from sealwire.dtls.routability import PathMessage

_COOKIE_BYTES: Final = 8
#: RFC 9853 [9853-2]: bytes sent to an address nobody proved, for each that came from there.
AMPLIFICATION: Final = 3
# RFC 9853 section 5.3: one second where the round trip is not known better.
_CHECK_SECONDS: Final = 1.0
# Challenges of one check: the path may lose some.
_CHALLENGES: Final = 3


@dataclass(slots=True)
class _Check:
    """One check under way."""

    old: Address
    new: Address
    #: Where the challenge goes now: to `old` in the first half of an enhanced check, then to `new`.
    target: Address
    cookie: bytes
    sent: int
    resend_at: float
    ends_at: float
    #: Bytes that may still go to `new`, which nobody has proved.
    budget: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer or a timer brought: datagrams to send, and the address that was proved, if one was."""

    datagrams: list[tuple[bytes, Address]]
    moved_to: Address | None = None


class PathChecks:
    """The checks of one endpoint, at most one for each connection."""

    __slots__ = ("_checks", "_enhanced", "_provider")

    def __init__(self, provider: CryptoProvider, *, enhanced: bool) -> None:
        self._provider = provider
        self._enhanced = enhanced
        self._checks: dict[Connection, _Check] = {}

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._checks

    def heard(self, connection: Connection, address: Address, received_bytes: int) -> None:
        """So much came for `connection` from an address that is not its own, authentic or not."""
        check = self._checks.get(connection)
        if check is not None and check.new == address:
            check.budget += AMPLIFICATION * received_bytes

    def start(
        self, connection: Connection, old: Address, new: Address, received_bytes: int, now: float
    ) -> Outcome:
        """A newer record than all before came from `new`, in a datagram of so many bytes."""
        running = self._checks.get(connection)
        if running is not None and running.new == new:
            return Outcome([])
        check = _Check(
            old, new, old if self._enhanced else new, b"", 0, now, now, AMPLIFICATION * received_bytes
        )
        self._checks[connection] = check
        return self._ask(connection, check, check.target, now)

    def _ask(self, connection: Connection, check: _Check, target: Address, now: float) -> Outcome:
        check.target = target
        check.cookie = self._provider.random(_COOKIE_BYTES)
        check.sent = 0
        check.ends_at = now + _CHECK_SECONDS
        return self._challenge(connection, check, now)

    def _challenge(self, connection: Connection, check: _Check, now: float) -> Outcome:
        check.sent += 1
        check.resend_at = now + _CHECK_SECONDS / _CHALLENGES
        if connection.held_back:
            # No record number is left for it before the next checkpoint.
            return Outcome([])
        datagram = connection.path_record(PathMessage.CHALLENGE, check.cookie)
        if check.target == check.new:
            if len(datagram) > check.budget:
                # Rather no challenge than one that floods a bystander.
                return Outcome([])
            check.budget -= len(datagram)
        return Outcome([(datagram, check.target)])

    def answered(
        self, connection: Connection, kind: int, cookie: bytes, address: Address, now: float
    ) -> Outcome | None:
        """A response or drop came from `address`; None if it answers nothing [9853-4]."""
        check = self._checks.get(connection)
        if check is None or cookie != check.cookie:
            return None
        if check.target == check.new:
            if kind != PathMessage.RESPONSE or address != check.new:
                return None
            del self._checks[connection]
            return Outcome([], moved_to=check.new)
        # The first half of an enhanced check [9853-3].
        if kind == PathMessage.RESPONSE and address == check.old:
            del self._checks[connection]
            return Outcome([])
        if kind == PathMessage.DROP:
            return self._ask(connection, check, check.new, now)
        return None

    @property
    def deadline(self) -> float | None:
        """When :meth:`wake` is due, None if never."""
        return min((min(check.resend_at, check.ends_at) for check in self._checks.values()), default=None)

    def wake(self, now: float) -> list[tuple[bytes, Address]]:
        """Ask again, go on to the new address, or give up."""
        datagrams: list[tuple[bytes, Address]] = []
        for connection, check in list(self._checks.items()):
            if check.ends_at <= now:
                if check.target == check.old != check.new:
                    # Silence on the old path: perhaps the peer left it.
                    datagrams += self._ask(connection, check, check.new, now).datagrams
                else:
                    del self._checks[connection]
            elif check.resend_at <= now and check.sent < _CHALLENGES:
                datagrams += self._challenge(connection, check, now).datagrams
            elif check.resend_at <= now:
                check.resend_at = check.ends_at
        return datagrams

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._checks.pop(connection, None)
