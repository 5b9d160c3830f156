"""Checks on message mode: frames, control frames, and what was agreed on."""

# ruff: noqa: E501 - the text of the sources stands here as it stands there

from __future__ import annotations

from typing import Final

from tests.mutation.mutant import Mutant, unit

_MESSAGES: Final = unit("stcp", "messages")
_EARLY: Final = unit("stcp", "early_messages")

MUTANTS: Final = (
    Mutant(
        "message mode is agreed on by both sides",
        "stcp/association.py",
        "        if agreed is None:\n",
        "        if False:\n",
        "bytes of one side are messages to the other",
        _MESSAGES,
    ),
    Mutant(
        "no message is longer than message_bytes",
        "stcp/frames.py",
        "        raise too_long(word)",
        "        return False",
        "memory for what a peer declares",
        _MESSAGES,
        twin=True,
    ),
    Mutant(
        "reserved bits of a frame are zero",
        "stcp/frames.py",
        "        if word & _RESERVED:",
        "        if False:",
        "frames of another version are read as these",
        _MESSAGES,
        twin=True,
    ),
    Mutant(
        "a control frame is as long as its kind",
        "stcp/frames.py",
        "        if CONTROL_BODY_BYTES.get(kind) != len(body):",
        "        if kind not in (1, 2, 3):",
        "a malformed frame is acted on",
        _MESSAGES,
        twin=True,
    ),
    Mutant(
        "pings are few",
        "stcp/messages.py",
        "            if self._pings_received > self._limits.pings_per_second:",
        "            if False:",
        "a peer keeps us answering",
        _MESSAGES,
    ),
    Mutant(
        "a pong answers a ping of ours",
        "stcp/messages.py",
        "            if not self._pings_answered < number <= self._pings_made - (Control.PING in self._controls):",
        "            if False:",
        "a peer says how far away it is",
        _MESSAGES,
    ),
    Mutant(
        "a peer goes away once",
        "stcp/messages.py",
        "            if self.peer_going_away:",
        "            if False:",
        "a peer fills our queue of events",
        _MESSAGES,
    ),
    Mutant(
        "the end of a stream is between two frames",
        "stcp/association.py",
        "        if self._messages is not None and self._messages.cut:",
        "        if False:",
        "a cut message is taken for the end",
        _MESSAGES,
    ),
    Mutant(
        "early data ends between two messages",
        "stcp/association.py",
        "            if self._early.cut:",
        "            if False:",
        "a message is put together from two keys",
        _EARLY,
    ),
    Mutant(
        "early data has no control frames",
        "stcp/early.py",
        "        if frames.feed(bytes(content)):",
        "        if frames.feed(bytes(content)) and False:",
        "what can be replayed acts on a connection",
        _EARLY,
    ),
    Mutant(
        "early data in messages is sent under a ticket of messages only",
        "stcp/connection.py",
        "            early_data = False  # what would be sent is for another protocol than the ticket",
        "            pass",
        "early data means something else to its receiver",
        _EARLY,
    ),
    Mutant(
        "what waits in message mode is charged",
        "stcp/messages.py",
        "        if more <= 0 or self._account.charge(Purpose.RECEIVE_QUEUE, more):",
        "        if more or not more:",
        "memory beyond every limit",
        _MESSAGES,
        twin=True,
    ),
)
