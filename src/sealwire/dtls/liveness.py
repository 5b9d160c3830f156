"""Keepalive: whether the peer is still there, and that translators between remember us.

A peer that answers return routability checks (RFC 9853) is asked for one when nothing authentic came
for a while; without an answer to several it is gone.  Of any other peer nothing can be proved: an
empty record of application data goes out when we sent nothing for a while, which keeps the mapping
of a translator alive and no more.  Never the heartbeat of RFC 6520.
"""

from __future__ import annotations

from typing import Final

# A challenge may be lost, and its answer.
_RETRY_SECONDS: Final = 2.0


class Liveness:
    """Watches one peer.

    Attributes:
        challenge_due: a challenge is to be sent now.
        empty_due: an empty record is to be sent now.
    """

    __slots__ = ("_at", "_interval", "_provable", "_tries", "_unanswered", "challenge_due", "empty_due")

    def __init__(self, interval: float, tries: int, provable: bool, now: float) -> None:
        """`provable`: the peer answers return routability checks."""
        self._interval = interval
        self._tries = tries
        self._provable = provable
        self._unanswered = 0
        self._at = now + interval
        self.challenge_due = self.empty_due = False

    @property
    def deadline(self) -> float:
        """When :meth:`wake` is due."""
        return self._at

    def heard(self, now: float) -> None:
        """Something authentic came."""
        if self._provable:
            self._unanswered = 0
            self._at = now + self._interval

    def sent(self, now: float) -> None:
        """Something was sent."""
        if not self._provable:
            self._at = now + self._interval

    def wake(self, now: float) -> None:
        """Do what is due.

        Raises:
            TimeoutError: the peer answered none of several challenges.
        """
        if now < self._at:
            return
        if not self._provable:
            self.empty_due = True
            self._at = now + self._interval
            return
        if self._unanswered >= self._tries:
            raise TimeoutError(f"the peer did not answer {self._tries} checks whether it is there")
        self._unanswered += 1
        self.challenge_due = True
        self._at = now + min(self._interval, _RETRY_SECONDS)
