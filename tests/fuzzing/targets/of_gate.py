"""What strangers send, to the compiled gate and to the plain one: the same answers, and tables as they were.

The compiled one reads bytes of whoever can send a datagram, in C, before anything is proved.
"""

from __future__ import annotations

from typing import Final

from sealwire.dtls.gate import AMPLIFICATION
from sealwire.limits import Limits
from tests.fuzzing.targets.promise import Script, Target
from tests.unit.dtls.hellos import Hello, body, hello, pieces
from tests.unit.dtls.test_sieve import COMPILED, CONFIGS, FIRST, PLACES, Batch, Twins

# Few slots, so that hellos in pieces push each other out; few replies, so that a batch brings load on.
_LIMITS: Final = Limits(
    hello_slots=8, hello_replies_per_second=12, hello_replies_per_prefix_per_second=9, hello_slot_bytes=2048
)
_SECONDS: Final = (0.0, 0.001, 0.4, 1.0, 3.1, 7.0, 61.0, 400.0, -2.0)


def _judge_hellos(data: bytes) -> None:
    if not COMPILED:
        return
    script = Script(data)
    config, require_cookie = CONFIGS[script.byte(len(CONFIGS))]
    twins = Twins(config, _LIMITS, require_cookie=require_cookie)
    now, asked, answered = 100.0, 0, 0
    made: list[bytes] = [hello(FIRST[0])]
    for _ in range(6):
        if script.over:
            break
        batch: Batch = []
        for _ in range(1 + script.byte(12)):
            place = PLACES[script.byte(len(PLACES))]
            content = FIRST[script.byte(len(FIRST))]
            match script.byte(8):
                case 0:
                    batch.append((hello(content, seq=script.byte(3), number=script.word()), place))
                case 1:
                    batch.append((script.damaged(hello(content)), place))
                case 2:
                    cut = pieces(content, 1 + script.byte() * 5, seq=script.byte(2), number=script.byte())
                    batch += [(one, place) for one in cut[:9]]
                case 3:
                    cut = pieces(content, 40 + script.byte())
                    batch += [(cut[script.byte(len(cut))], place), (script.damaged(cut[-1]), place)]
                case 4:
                    batch.append((script.piece(), place))
                case 5:
                    batch.append((made[script.byte(len(made))], place))
                case 6:
                    batch.append((script.damaged(made[script.byte(len(made))]), place))
                case _:
                    batch.append((hello(_rebuilt(script, content), seq=script.byte(2)), place))
        replies = twins.ask(batch, now, known=(bytes(32),), others=bool(script.byte(2)))
        asked += sum(len(datagram) for datagram, _ in batch)
        answered += sum(len(datagram) for datagram, _ in replies)
        # Pieces of earlier batches count as well, so the sums are compared.
        assert answered <= AMPLIFICATION * asked
        for reply, _ in replies[:2]:
            if reply[0] == 22 and len(made) < 12:
                made += [one for one in _second(reply) if len(one) < 4000]
        now += _SECONDS[script.byte(len(_SECONDS))]
    twins.same_tables()


def _rebuilt(script: Script, content: bytes) -> bytes:
    """A hello with another extension block: of damaged, repeated, invented extensions."""
    at = 34 + 1 + content[34]
    at += 1 + content[at]
    at += 2 + int.from_bytes(content[at : at + 2], "big")
    at += 1 + content[at]
    fixed, block = content[:at], content[at + 2 :]
    for _ in range(script.byte(3)):
        block = script.damaged(block)
    for _ in range(script.byte(4)):
        code, value = (
            (43, 10, 13, 51, 45, 41, 42, 44, 0, 5, 54, script.word())[script.byte(12)],
            script.piece(),
        )
        block += code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    if script.byte(4) == 0:
        fixed = script.damaged(fixed)
    return fixed + (len(block) & 0xFFFF).to_bytes(2, "big") + block


def _second(request: bytes) -> list[bytes]:
    """The hello with the cookie, as our client sends it in answer; nothing if it takes no such answer."""
    client = Hello()
    client.client.receive(request, 0.0)
    second = client.client.transmit(0.0)
    return [*second, hello(body(second), seq=1)] if second and second[0][0] == 22 else []


GATE: Final[tuple[Target, ...]] = (_judge_hellos,)
