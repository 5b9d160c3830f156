"""What a connection sees to by itself once it is established: is the peer there, what does the path carry.

Both ask by return routability challenges (RFC 9853) to the peer's own address, padded where their size is
the question; this is where the cookies of those challenges are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealwire.crypto.providers import CryptoProvider
from sealwire.dtls.liveness import Liveness
from sealwire.dtls.pathmtu import MtuSearch
from sealwire.dtls.upkeep import DEFAULT_UPKEEP, Upkeep

_COOKIE_BYTES: Final = 8
# Challenges whose answers may still come: three probes of one size and some of liveness.
_MAX_COOKIES: Final = 8


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge to send, in a datagram of `size` bytes; 0 for as short as it is."""

    cookie: bytes
    size: int


class Care:
    """Idle until :meth:`begin`."""

    __slots__ = ("_cookies", "_liveness", "_provider", "_search", "_upkeep")

    def __init__(self, upkeep: Upkeep, provider: CryptoProvider | None) -> None:
        """Without a provider nothing can be asked."""
        self._upkeep = upkeep
        self._provider = provider
        self._liveness: Liveness | None = None
        self._search: MtuSearch | None = None
        # Cookie of a challenge -> size of its datagram; None before the first one.
        self._cookies: dict[bytes, int] | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody asks for anything, so that there is nothing to remember."""
        return self._liveness is None and self._search is None and not self._cookies

    def begin(self, mtu: int, longest: int, routable: bool, now: float) -> None:
        """The handshake is complete; `routable` says whether the peer answers challenges.

        `longest` is the largest datagram that a record of the peer's limit makes.
        """
        upkeep = self._upkeep
        if upkeep.keepalive is not None:
            self._liveness = Liveness(upkeep.keepalive, upkeep.keepalive_tries, routable, now)
        most = min(upkeep.max_mtu or mtu, longest)
        if most > mtu:
            self._search = MtuSearch(mtu, most, now, provable=routable)

    def end(self) -> None:
        """One side has closed: what comes or goes behind that is ignored, so nothing can be asked."""
        self._liveness = self._search = None

    def path_changed(self, now: float) -> None:
        """Another path carries what it carries."""
        if self._search is not None:
            self._search.restart(now)

    @property
    def mtu(self) -> int:
        """The largest datagram proved; 0 where nobody asks."""
        return 0 if self._search is None else self._search.size

    @property
    def most_mtu(self) -> int:
        """The largest datagram worth trying; 0 where nobody looks for one."""
        return 0 if self._search is None else self._search.most

    @property
    def deadline(self) -> float | None:
        """When :meth:`wake` is due, None if never."""
        due = [one.deadline for one in (self._liveness, self._search) if one is not None]
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        """Do what is due.  TimeoutError if the peer is gone."""
        if self._liveness is not None:
            self._liveness.wake(now)
        if self._search is not None:
            self._search.wake(now)

    def data_sent(self) -> None:
        """Data went out, so it matters what the path carries."""
        if self._search is not None:
            self._search.used = True

    def heard(self, now: float) -> None:
        """Something authentic came."""
        if self._liveness is not None:
            self._liveness.heard(now)

    def sent(self, now: float) -> None:
        """Something was sent."""
        if self._liveness is not None:
            self._liveness.sent(now)

    @property
    def empty_due(self) -> bool:
        """Whether an empty record is to be sent now; asked once for each."""
        liveness = self._liveness
        if liveness is None or not liveness.empty_due:
            return False
        liveness.empty_due = False
        return True

    def challenges(self, now: float) -> list[Challenge]:
        """Challenges to send now."""
        due = []
        search, liveness = self._search, self._liveness
        if search is not None and search.probe_due:
            due.append(self._challenge(search.asking))
            search.sent(now)
        if liveness is not None and liveness.challenge_due:
            liveness.challenge_due = False
            due.append(self._challenge(0))
        return due

    def _challenge(self, size: int) -> Challenge:
        assert self._provider is not None
        cookie = self._provider.random(_COOKIE_BYTES)
        if self._cookies is None:
            self._cookies = {}
        self._cookies[cookie] = size
        if len(self._cookies) > _MAX_COOKIES:
            del self._cookies[next(iter(self._cookies))]
        return Challenge(cookie, size)

    def answered(self, cookie: bytes, now: float) -> bool:
        """A response came: whether it answers a challenge of ours."""
        size = self._cookies.pop(cookie, None) if self._cookies else None
        if size is None:
            return False
        if size and self._search is not None:
            self._search.answered(size, now)
        return True

    def confirmed(self, size: int, now: float) -> None:
        """The application knows that a datagram of `size` bytes arrived."""
        if self._search is not None:
            self._search.answered(size, now)

    def refused(self, size: int, now: float) -> bool:
        """A hint that datagrams of `size` bytes do not pass: whether it was taken into account here."""
        if self._search is None:
            return False
        self._search.refused(size, now)
        return True


# Nothing ever changes in one that asks for nothing, so one is enough.
_NOTHING: Final = Care(DEFAULT_UPKEEP, None)


def care_of(upkeep: Upkeep, provider: CryptoProvider) -> Care:
    """What a connection with this `upkeep` sees to."""
    return _NOTHING if upkeep.keepalive is None and upkeep.max_mtu is None else Care(upkeep, provider)
