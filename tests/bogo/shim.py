#!/usr/bin/env python3
"""A BoGo shim over sealwire: BoringSSL's test runner plays the peer, right and wrong, against our engines.

The runner starts it once per test with the flags of that test; see tests/bogo/README.md.  Exit codes:
0 passed, 1 failed as a connection may fail (the runner judges whether it should have), 89 the test
needs what we do not have, 90 something is not as the test says, or the shim itself broke.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bogo.flags import Flags

_UNIMPLEMENTED = 89
_BROKEN = 90


def main(arguments: list[str]) -> int:
    """Run one test."""
    if "-is-handshaker-supported" in arguments:
        print("No")
        return 0
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root), str(root / "src")]
    from tests.bogo.flags import UnknownFlag, parse

    try:
        flags = parse(arguments)
        return _run(flags)
    except UnknownFlag as flag:
        print(f"not implemented: {flag}", file=sys.stderr)
        return _UNIMPLEMENTED


def _run(flags: dict[str, Flags]) -> int:
    from sealwire.crypto.ticketkeys import TicketKeys
    from sealwire.errors import ConfigurationError, Error
    from tests.bogo import boring, checks, dialogue, policy, wire

    clock = wire.Clock()
    ticket_keys = TicketKeys()
    strikes = policy.strike_register()
    ticket = None
    for count in range(flags["initial"].number("-resume-count") + 1):
        now = flags["resume" if count else "initial"]
        if not policy.speaks(now):
            return _UNIMPLEMENTED
        boring.adopt(now)
        witness = policy.Witness(clock)
        connected = wire.connect(now)
        try:
            config = policy.configuration(now, flags["retry"], ticket_keys, strikes, witness)
            talk: dialogue.Dialogue
            if "-dtls" in now:
                talk = dialogue.DatagramDialogue(wire.DatagramWire(connected), now, config, clock, ticket)
            else:
                talk = dialogue.StreamDialogue(connected, now, config, clock, ticket)
                talk.retry = flags["retry"]
            talk.run(is_resume=count > 0, witness=witness)
            ticket = talk.new_ticket
        except ConfigurationError as error:
            print(dialogue.failure(error), file=sys.stderr)
            return 1
        except (Error, TimeoutError, ConnectionError, EOFError) as error:
            print(dialogue.failure(error), file=sys.stderr)
            return 1
        except checks.Unexpected as error:
            # No failure that a test may have wanted.
            print(dialogue.failure(error), file=sys.stderr)
            return _BROKEN
        finally:
            wire.hang_up(connected)
        clock.microseconds += 1_000_000 * now.number("-resumption-delay")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception:
        import traceback

        traceback.print_exc()
        sys.exit(_BROKEN)
