"""The limits of message mode, each forced (docs/stcp.md)."""

from __future__ import annotations

import pytest

from sealwire.errors import LimitReached, ProtocolError
from sealwire.limits import Limits
from sealwire.stcp.frames import Control, control_frame, word_of
from tests.unit.stcp.message_pair import MessagePair


def test_message_bytes() -> None:
    pair = MessagePair(limits=Limits(message_bytes=100))
    with pytest.raises(LimitReached, match="message_bytes"):
        pair.client.write_message(bytes(101))
    assert pair.ledger.reached == {"message_bytes": 1}
    pair.send_to_server(word_of(101))
    assert isinstance(pair.server.error, ProtocolError)
    assert pair.server.error.limit == "message_bytes"
    assert pair.ledger.reached == {"message_bytes": 2}


def test_message_bytes_above_what_the_format_has() -> None:
    Limits(message_bytes=32 * 1024 * 1024)
    with pytest.raises(ValueError, match="message_bytes"):
        Limits(message_bytes=32 * 1024 * 1024 + 1)


def test_pings_per_second() -> None:
    pair = MessagePair(limits=Limits(pings_per_second=3))
    ping = control_frame(Control.PING, bytes(8))
    for second in range(5):
        pair.now = float(second)
        for _ in range(3):
            pair.send_to_server(ping)
    errors = [pair.server.error]
    pair.send_to_server(ping)
    errors.append(pair.server.error)
    assert errors[0] is None
    assert isinstance(errors[1], ProtocolError)
    assert errors[1].limit == "pings_per_second"
    assert pair.ledger.reached == {"pings_per_second": 1}
