"""Every implementation of the record layer, side by side."""

from __future__ import annotations

from typing import Final

from sealwire.errors import ProtocolError
from sealwire.record import bulk_reference, protect
from sealwire.record.train import Train
from tests.fuzzing.targets.promise import Script, Target, known
from tests.record_layers import LAYERS, PROVIDER, SPECS, datagram_keys, stream_keys


def _open_datagrams(data: bytes) -> None:
    script = Script(data)
    spec = SPECS[script.byte(len(SPECS))]
    cid = (b"", b"\x01", b"connection id")[script.byte(3)]
    window = (64, 128, 256)[script.byte(3)]
    # One key for sealing all: the reference does it, so that whoever opens is alone with the bytes.
    sealer = LAYERS[0].sealer(PROVIDER, spec, datagram_keys(spec), 3, cid)
    openers = [layer.opener(PROVIDER, spec, datagram_keys(spec), 3, cid, window) for layer in LAYERS]
    datagrams: list[bytes] = []
    while not script.over and len(datagrams) < 40:
        match script.byte(7):
            case 0 | 1 | 2:
                content = bytes(script.byte()) if script.byte(2) else script.piece()
                record = sealer.seal(
                    (23, 23, 23, 22, 21, 26)[script.byte(6)],
                    content,
                    script.byte(4) * 17,
                    short_sequence=bool(script.byte(2)),
                    with_length=bool(script.byte(4)),
                )
                datagrams.append(record)
            case 3 if datagrams:
                datagrams.append(script.damaged(datagrams[script.byte(len(datagrams))]))
            case 4 if datagrams:
                # No longer than UDP carries: doubled again and again, it would only take time.
                datagrams.append((datagrams[script.byte(len(datagrams))] + datagrams[-1])[:65_507])
            case 5:
                datagrams.append(script.piece())
            case _:
                sealer = LAYERS[0].sealer(
                    PROVIDER, spec, datagram_keys(spec), 3, cid, sequence=sealer.sequence + script.word()
                )
    outcomes: list[object] = []
    for opener in openers:
        outcome: list[object] = []
        index = offset = 0
        while index < len(datagrams):
            entries, at, where = opener.open_run(datagrams, index, offset)
            outcome.append((entries, at, where))
            if (at, where) == (index, offset):
                # Not for these keys: whoever walks goes on with the next datagram.
                at, where = index + 1, 0
            assert (at, where) > (index, offset)
            index, offset = at, where
        outcome.append((opener.highest, opener.opened, opener.forged, opener.overlong))
        outcomes.append(outcome)
    assert all(outcome == outcomes[0] for outcome in outcomes), "the twins differ"


def _open_stream(data: bytes) -> None:
    script = Script(data)
    spec = SPECS[script.byte(len(SPECS))]
    sealer = LAYERS[0].stream_sealer(PROVIDER, spec, stream_keys(spec), 3)
    wire = b""
    for _ in range(1 + script.byte(5)):
        wire += sealer.seal((23, 22, 21)[script.byte(3)], script.piece(), script.byte(4) * 9)
    for _ in range(script.byte(3)):
        wire = script.damaged(wire)
    outcomes: list[object] = []
    for layer in LAYERS:
        opener = layer.stream_opener(PROVIDER, spec, stream_keys(spec), 3)
        outcome: list[object] = []
        rest = wire
        while rest:
            n = 5 + int.from_bytes(rest[3:5], "big")
            try:
                outcome.append(opener.open(rest[:n]))
            except ProtocolError as error:
                known(error)
                outcome.append((error.alert, error.reason))
            rest = rest[n:]
        outcomes.append((outcome, opener.sequence, opener.opened))
    assert all(outcome == outcomes[0] for outcome in outcomes), "the twins differ"


def _seal_runs(data: bytes) -> None:
    script = Script(data)
    spec = SPECS[script.byte(len(SPECS))]
    block = (0, 2, 16, 128)[script.byte(4)]
    messages = [
        bytes(script.word()) if script.byte(8) == 0 else script.piece() for _ in range(script.byte(80))
    ]
    outcomes: list[object] = []
    for layer in LAYERS:
        sealer = layer.sealer(PROVIDER, spec, datagram_keys(spec), 3, b"cid")
        try:
            outcomes.append((sealer.seal_run(23, messages, block), sealer.sequence))
        except ValueError as error:
            outcomes.append((str(error), sealer.sequence))
    assert all(outcome == outcomes[0] for outcome in outcomes), "the twins differ"


def _open_trains(data: bytes) -> None:
    """Datagrams laid end to end, damaged, cut anywhere, among single ones."""
    script = Script(data)
    spec = SPECS[script.byte(len(SPECS))]
    cid = (b"", b"\x01", b"connection id")[script.byte(3)]
    sealer = LAYERS[0].sealer(PROVIDER, spec, datagram_keys(spec), 3, cid)
    given: list[bytes | Train] = []
    while not script.over and len(given) < 12:
        sizes = [script.byte()] * script.byte(20)
        if script.byte(3) == 0:
            sizes.append(script.word() % 16_000)
        kind = (23, 23, 23, 22)[script.byte(4)]
        for one in bulk_reference.seal_trains(sealer, kind, list(map(bytes, sizes)), 0, 1 << 14):
            whole = one.data if isinstance(one, Train) else one
            if script.byte(3) == 0:
                whole = script.damaged(whole)
            # What the kernel puts together need not be what was sent together.
            size = one.size if isinstance(one, Train) and script.byte(4) else 1 + script.word() % 1400
            given.append(Train(whole, size) if script.byte(4) and whole else whole)
    start = (script.byte(len(given) + 1), script.byte() if script.byte(4) == 0 else 0)
    outcomes: list[object] = []
    for layer in LAYERS:
        opener = layer.opener(PROVIDER, spec, datagram_keys(spec), 3, cid, 128)
        outcome: list[object] = []
        index, offset = start
        while index < len(given):
            found = protect.open_data(opener, given, index, offset)
            outcome.append(found)
            at, where = found[-2:]
            if (at, where) == (index, offset):
                at, where = index + 1, 0
            assert (at, where) > (index, offset)
            index, offset = at, where
        outcome.append((opener.highest, opener.opened, opener.forged, opener.overlong))
        outcomes.append(outcome)
    assert all(outcome == outcomes[0] for outcome in outcomes), "the twins differ"


RECORDS: Final[tuple[Target, ...]] = (_open_datagrams, _open_stream, _seal_runs, _open_trains)
