"""Chains that were accepted, so that a peer seen again costs no signatures.

Nothing is remembered but acceptance, for the very same bytes, name and purpose by the very same
verifier, and only while every certificate relied upon is in date: whatever else a verification
looks at cannot have changed since.  Revocation is no part of it and is judged each time.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sealwire.crypto.certificates import VerifiedPeer
    from sealwire.crypto.purpose import Purpose

# What strangers show never enters, and what a peer shows is bounded (48 KiB by default), so this is too.
_ENTRIES: Final = 64


@dataclass(frozen=True, slots=True)
class Question:
    """All that an answer depends on, but the time: what was shown, and what it was judged for."""

    chain: tuple[bytes, ...]
    purpose: Purpose
    name: str | None
    #: Longest list, and with it path, that the one who asks accepts.
    max_chain_length: int


@dataclass(frozen=True, slots=True)
class _Answer:
    peer: VerifiedPeer
    not_before: datetime.datetime
    not_after: datetime.datetime


class AcceptedChains:
    """The last chains one verifier accepted.  Threads may share it."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: dict[Question, _Answer] = {}

    def find(self, question: Question, now: datetime.datetime) -> VerifiedPeer | None:
        """What was answered before, if it would be answered again at `now`."""
        answer = self._answers.get(question)
        if answer is None or not answer.not_before <= now <= answer.not_after:
            return None
        return answer.peer

    def keep(self, question: Question, peer: VerifiedPeer) -> None:
        """Remember that the answer was `peer`; the oldest one makes room."""
        if len(self._answers) >= _ENTRIES:
            for oldest in tuple(self._answers)[:1]:
                # Another thread may have been here first.
                self._answers.pop(oldest, None)
        self._answers[question] = _Answer(
            peer,
            max(certificate.not_valid_before_utc for certificate in peer.issued),
            min(certificate.not_valid_after_utc for certificate in peer.issued),
        )
