"""How every verb speaks: words for people, one JSON object per line for programs.

Text goes where the verb says (data owns stdout in `serve` and `connect`, so their words go to
stderr); with --json everything is an object on stdout.  A failure is one sentence and the next
step, and its exit code is one of four.
"""

from __future__ import annotations

import base64
import enum
import json
import sys
from dataclasses import dataclass
from typing import TextIO


class Exit(enum.IntEnum):
    """Exit codes of every verb."""

    OK = 0
    #: The answer is no: a peer was reached and one side refused, or a check failed.
    NO = 1
    #: The command line is wrong.
    USAGE = 2
    #: This machine or the network lacks something: a file, a port, a peer.
    ENVIRONMENT = 3


class Failure(Exception):
    """Ends a verb: what is wrong, what to do next (unless `wrong` says that too), and the exit code.

    `facts` are further members of the JSON object; never a secret.
    """

    def __init__(self, code: Exit, wrong: str, next_step: str, **facts: object) -> None:
        super().__init__(f"{wrong}; {next_step}" if next_step else wrong)
        self.code = code
        self.wrong = wrong
        self.next_step = next_step
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Say:
    """Where a verb's words go."""

    json: bool
    text: TextIO

    def fact(self, event: str, words: str, **facts: object) -> None:
        """Report one thing: `words` to people, or `event` and `facts` as an object to programs."""
        if self.json:
            _write(sys.stdout, json.dumps({"event": event, **facts}, default=str))
        else:
            _write(self.text, words)

    def record(self, event: str, **facts: object) -> None:
        """Tell programs what people are told in another shape."""
        if self.json:
            _write(sys.stdout, json.dumps({"event": event, **facts}, default=str))

    def words(self, words: str) -> None:
        """Tell people something that programs have no use for."""
        if not self.json:
            _write(self.text, words)

    def data(self, data: bytes, **facts: object) -> None:
        """Pass on what a peer sent: raw, or as an object that keeps its boundaries."""
        if self.json:
            encoded = base64.b64encode(data).decode()
            _write(sys.stdout, json.dumps({"event": "data", **facts, "base64": encoded}))
        else:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def failure(self, failure: Failure) -> None:
        """Report the sentence that ends the program."""
        if self.json:
            facts = {"event": "error", "exit": int(failure.code), "message": failure.wrong}
            _write(sys.stdout, json.dumps({**facts, "next": failure.next_step, **failure.facts}, default=str))
        else:
            _write(sys.stderr, f"sealwire: {failure}")


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()
