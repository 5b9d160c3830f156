"""When connections of an endpoint are put to sleep: after a time of silence, or sooner if memory is short.

`Peers.established` has those in use in the order of their last use.  Who is silent for `Limits.idle_seconds`
goes over to `Peers.resting`, and sleeps there if nothing of it waits (dtls/hibernation.py); who is heard or
sent something comes back.  At most some hundred go in one look, so that no turn becomes long.

First hellos are forgotten here, too, once the cookies that came with them are too old to be good again.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from sealwire.dtls.connection import Connection
from sealwire.dtls.peers import Peers
from sealwire.limits import Ledger, Limits, Pressure

# At 30 us each a turn is 8 ms longer.
_AT_ONCE: Final = 256
# While more are due, how soon the next look is.
_SOON_SECONDS: Final = 0.02
# The order of use is kept to the second, so nobody is looked for more often.
_LEAST_SECONDS: Final = 1.0
# When the ledger is at 90 % and above, silence of so long is enough.
_PRESSED_SECONDS: Final = 2.0
_NEVER: Final = float("inf")


class Resting:
    """Puts an endpoint's connections to sleep."""

    __slots__ = ("_due", "_limits", "ledger", "peers")

    def __init__(self, peers: Peers, ledger: Ledger, limits: Limits) -> None:
        self.peers = peers
        self.ledger = ledger
        self._limits = limits
        # Not before then, whatever is due.
        self._due = 0.0

    @property
    def _seconds(self) -> float:
        pressed = self.ledger.level >= Pressure.HIGH
        return min(self._limits.idle_seconds, _PRESSED_SECONDS) if pressed else self._limits.idle_seconds

    @property
    def deadline(self) -> float | None:
        """When :meth:`look` is due, None if never."""
        due = min(self._rest_due(), self._hellos_due)
        return None if due == _NEVER else max(due, self._due)

    @property
    def _hellos_due(self) -> float:
        return self.peers.hello_since + self._limits.cookie_seconds

    def _rest_due(self) -> float:
        first = next(iter(self.peers.established.values()), None)
        return _NEVER if first is None else first + self._seconds

    def look(self, now: float) -> None:
        """Put to sleep whose time has come, and forget hellos whose cookies are too old to come again."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        if self._hellos_due <= now:
            self.peers.forget_hellos(now - self._limits.cookie_seconds, _AT_ONCE)
        silent: list[Connection] = []
        if self._rest_due() <= now:
            latest = now - self._seconds
            used = islice(self.peers.established.items(), _AT_ONCE)
            silent = [connection for connection, at in used if at <= latest]
        for connection in silent:
            self.peers.rest(connection)
            if connection.hibernate(now):
                self.ledger.note("idle_seconds")
        more = len(silent) == _AT_ONCE or self._hellos_due <= now
        self._due = now + (_SOON_SECONDS if more else _LEAST_SECONDS)

    def relieve(self, now: float) -> None:
        """Memory is nearly used up: everybody who can sleeps, but who was in use just now."""
        latest = now - _PRESSED_SECONDS
        for connection, at in list(self.peers.established.items()):
            if at > latest:
                break
            self.peers.rest(connection)
            connection.hibernate(now)

    def stirred(self, connection: Connection, now: float) -> None:
        """Something was sent to a peer, or a connection woke."""
        if not connection.asleep:
            self.peers.used(connection, now)
