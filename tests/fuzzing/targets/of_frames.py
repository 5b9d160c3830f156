"""Frames: cut anywhere, as docs/wire-stcp.md has them; and two sides that say what a script says."""

from __future__ import annotations

from typing import Final

from sealwire.errors import Alert, LimitReached, ProtocolError
from sealwire.limits import Account, Ledger, Limits, Purpose
from sealwire.stcp.frames import MESSAGE_OVERHEAD_BYTES
from sealwire.stcp.lane import FrameReader
from sealwire.stcp.messages import Keepalive, MessageMode
from sealwire.telemetry import ConnectionCounters
from tests.fuzzing.targets.promise import Script, Target

LIMIT: Final = 3_000
Outcome = tuple[list[bytes], list[tuple[int, bytes]], Alert | None]


def as_the_page_says(stream: bytes) -> tuple[Outcome, bytes]:
    """docs/wire-stcp.md, read slowly: messages, control frames, an alert; and what is left of a frame."""
    messages: list[bytes] = []
    controls: list[tuple[int, bytes]] = []
    while True:
        if stream and stream[0] & 0b0111_1100:
            return (messages, controls, Alert.DECODE_ERROR), b""
        if len(stream) < 4:
            return (messages, controls, None), stream
        length = int.from_bytes(stream[:4], "big") & 0x03FF_FFFF
        if stream[0] & 0x80:
            if not 1 <= length <= 9:
                return (messages, controls, Alert.DECODE_ERROR), b""
        elif length > LIMIT:
            return (messages, controls, Alert.ILLEGAL_PARAMETER), b""
        if len(stream) < 4 + length:
            return (messages, controls, None), stream
        is_control, body, stream = bool(stream[0] & 0x80), stream[4 : 4 + length], stream[4 + length :]
        if not is_control:
            messages.append(body)
        elif (body[0], length) in ((1, 9), (2, 9), (3, 1)):
            controls.append((body[0], body[1:]))
        else:
            return (messages, controls, Alert.DECODE_ERROR), b""


def read(stream: bytes, cuts: list[int]) -> tuple[Outcome, FrameReader]:
    """What a FrameReader makes of it, fed piece by piece."""
    reader = FrameReader(LIMIT)
    controls: list[tuple[int, bytes]] = []
    alert = None
    at = 0
    try:
        for size in [*cuts, len(stream)]:
            if at < len(stream):
                controls += reader.feed(stream[at : at + size])
                at += size
    except ProtocolError as error:
        alert = error.alert
    return (list(reader.messages), controls, alert), reader


def _reader(data: bytes) -> None:
    script = Script(data)
    cuts = [1 + script.byte(40) for _ in range(script.byte(20))]
    stream = b""
    while not script.over and len(stream) < 20_000:
        match script.byte(6):
            case 0:
                body = script.piece()
                stream += len(body).to_bytes(4, "big") + body
            case 1:
                stream += script.word().to_bytes(4, "big")
            case 2:
                stream += b"\x80\x00\x00" + bytes((script.byte(12),)) + script.piece()
            case 3:
                body = bytes(script.word() % (LIMIT + 2))
                stream += len(body).to_bytes(4, "big") + body
            case 4:
                stream = script.damaged(stream)
            case _:
                stream += script.piece()
    wanted, rest = as_the_page_says(stream)
    found, reader = read(stream, cuts)
    # Control frames of a piece that ends in an error are never acted on.
    assert found[0] == wanted[0]
    assert found[2] == wanted[2]
    assert found[1] == wanted[1][: len(found[1])]
    if found[2] is None:
        assert found[1] == wanted[1]
        assert reader.cut == bool(rest)
        held = sum(len(message) + MESSAGE_OVERHEAD_BYTES for message in reader.messages)
        # Of a frame in progress its body is held, or its word as far as it came.
        assert reader.held == held + (len(rest) if len(rest) < 4 else len(rest) - 4)
    reader.drop_partial()
    reader.take_all()
    assert reader.held == 0


class _Side:
    """One side of a conversation, with an account of its own."""

    def __init__(self, limits: Limits) -> None:
        self.account = Account(Ledger(limits), limits.connection_bytes)
        self.mode = MessageMode(self.account, ConnectionCounters(), limits, Keepalive(after=5, within=2), 0.0)
        self.written: list[bytes] = []
        self.received: list[bytes] = []
        self.dead = False

    def pull(self) -> bytes:
        stream = b""
        while self.mode.has_more:
            run, _ = self.mode.run()
            self.mode.sealed()
            stream += run
        return stream


def _conversation(data: bytes) -> None:
    """Two sides; what one writes comes out at the other, as long as nobody touches it."""
    script = Script(data)
    limits = Limits(message_bytes=80_000, send_queue_bytes=100_000, connection_bytes=300_000)
    sides = (_Side(limits), _Side(limits))
    touched = False
    now = 0.0
    for _ in range(60):
        if script.over:
            break
        here = script.byte(2)
        side, peer = sides[here], sides[1 - here]
        match script.byte(8):
            case 0 | 1:
                message = script.piece()
                _write(side, message)
            case 2:
                _write(side, bytes(script.word() + script.byte()))
            case 3:
                side.mode.ping(now)
            case 4:
                side.mode.go_away()
            case 5:
                now += (0.1, 1.0, 6.0)[script.byte(3)]
                for one in sides:
                    try:
                        one.mode.wake(now)
                    except TimeoutError:
                        one.dead = True
            case _:
                stream = side.pull()
                if stream and script.byte(8) == 7:
                    stream, touched = script.damaged(stream), True
                size = 1 + script.word() + len(stream) // 100
                for at in range(0, len(stream), size):
                    if not peer.dead:
                        _receive(peer, stream[at : at + size], now, touched)
        for one in sides:
            one.received += one.mode.take_all() if script.byte(2) else []
            assert one.account.held <= limits.connection_bytes
            assert one.dead or one.mode.deadline is None or one.mode.deadline > now, "a deadline in the past"
    for one, other in (sides, sides[::-1]):
        one.received += one.mode.take_all()
        if not touched:
            assert one.received == other.written[: len(one.received)]
    for one in sides:
        one.mode.drop()
        one.mode.take_all()
        assert one.account.held == 0
        assert one.account.held_for(Purpose.SEND_QUEUE) == 0


def _write(side: _Side, message: bytes) -> None:
    try:
        side.mode.write(message)
    except LimitReached:
        return
    side.written.append(message)


def _receive(side: _Side, stream: bytes, now: float, touched: bool) -> None:
    try:
        side.mode.receive(stream, now)
        return
    except ProtocolError as error:
        refused = error
    except LimitReached:
        side.dead = True
        return
    side.dead = True
    assert touched or refused.limit == "pings_per_second", "an honest peer was refused"


FRAMES: Final[tuple[Target, ...]] = (_reader, _conversation)
