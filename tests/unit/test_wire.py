"""Reader and Writer: round trips, bounds, and that every cut is decode_error and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import wire
from sealwire.crypto.hkdf import Secret
from sealwire.errors import Alert, ProtocolError
from sealwire.wire import Buffer, Reader, Writer

INTEGERS: list[tuple[int, Callable[[Writer, int], None], Callable[[Reader], int]]] = [
    (1, Writer.u8, Reader.u8),
    (2, Writer.u16, Reader.u16),
    (3, Writer.u24, Reader.u24),
    (4, Writer.u32, Reader.u32),
    (6, Writer.u48, Reader.u48),
    (8, Writer.u64, Reader.u64),
]
VECTORS: list[tuple[int, Callable[[Writer, Buffer], None], Callable[..., bytes], Callable[..., Reader]]] = [
    (1, Writer.vector8, Reader.vector8, Reader.sub8),
    (2, Writer.vector16, Reader.vector16, Reader.sub16),
    (3, Writer.vector24, Reader.vector24, Reader.sub24),
]
every_integer = pytest.mark.parametrize(("size", "write", "read"), INTEGERS)
every_vector = pytest.mark.parametrize(("size", "write", "read", "sub"), VECTORS)
buffers = pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])


def refused(read: Callable[[], object], what: str = "message") -> None:
    with pytest.raises(ProtocolError) as caught:
        read()
    assert caught.value.alert is Alert.DECODE_ERROR
    assert what in caught.value.reason


@every_integer
@given(data=st.data())
def test_integers_round_trip_and_every_prefix_is_refused(
    size: int, write: Callable[[Writer, int], None], read: Callable[[Reader], int], data: st.DataObject
) -> None:
    value = data.draw(st.integers(0, (1 << 8 * size) - 1))
    writer = Writer()
    write(writer, value)
    encoded = writer.finish()
    assert encoded == value.to_bytes(size, "big")
    reader = Reader(encoded)
    assert read(reader) == value
    reader.finish()
    for n in range(size):
        short = Reader(encoded[:n])
        refused(lambda short=short: read(short))  # type: ignore[misc]
        # A refused read moves nothing.
        assert short.position == 0


@every_integer
def test_an_integer_that_does_not_fit_is_our_bug(
    size: int, write: Callable[[Writer, int], None], read: Callable[[Reader], int]
) -> None:
    for value in (-1, 1 << 8 * size):
        with pytest.raises((OverflowError, ValueError)):
            write(Writer(), value)


@every_vector
@buffers
@given(content=st.binary(max_size=255))
def test_vectors_round_trip_and_every_prefix_is_refused(
    size: int,
    write: Callable[[Writer, Buffer], None],
    read: Callable[..., bytes],
    sub: Callable[..., Reader],
    kind: Callable[[bytes], Buffer],
    content: bytes,
) -> None:
    writer = Writer()
    write(writer, kind(content))
    encoded = writer.finish()
    assert encoded == len(content).to_bytes(size, "big") + content
    assert read(Reader(kind(encoded))) == content
    assert sub(Reader(kind(encoded))).rest() == content
    for n in range(len(encoded)):
        refused(lambda n=n: read(Reader(kind(encoded[:n]))))  # type: ignore[misc]
        refused(lambda n=n: sub(Reader(kind(encoded[:n]))))  # type: ignore[misc]


@every_vector
def test_vectors_keep_to_their_bounds(
    size: int,
    write: Callable[[Writer, Buffer], None],
    read: Callable[..., bytes],
    sub: Callable[..., Reader],
) -> None:
    writer = Writer()
    write(writer, bytes(5))
    encoded = writer.finish()
    assert read(Reader(encoded), 5, 5) == bytes(5)
    refused(lambda: read(Reader(encoded), 6))
    refused(lambda: read(Reader(encoded), 0, 4))


def test_a_vector_too_long_for_its_length_is_our_bug() -> None:
    with pytest.raises((OverflowError, ValueError)):
        Writer().vector8(bytes(256))
    with pytest.raises((OverflowError, ValueError)):
        Writer().vector16(bytes(65536))
    writer = Writer()
    with pytest.raises((OverflowError, ValueError)), writer.length8():
        writer.raw(bytes(256))


def test_a_sub_reader_ends_where_its_length_says() -> None:
    reader = Reader(b"\x02ab\x01cd", "outer")
    inner = reader.sub8("inner")
    assert inner.take(2) == b"ab"
    # The parent's next byte is there, and not the inner reader's to take.
    refused(inner.u8, "inner")
    assert (inner.remaining, reader.position, reader.remaining) == (0, 3, 3)
    deeper = reader.sub8()
    assert deeper.what == "outer"
    refused(lambda: deeper.take(2), "outer")
    assert deeper.rest() == b"c"
    assert reader.rest() == b"d"


def test_a_sub_reader_cannot_outgrow_its_parent() -> None:
    outer = Reader(b"\x03\x05abcdefgh").sub8()
    refused(outer.sub8)
    refused(lambda: Reader(b"\x03\x05abcdefgh").sub8().vector8())


def test_positions_count_from_the_start_of_the_buffer() -> None:
    reader = Reader(b"0123456789", "piece", 2, 6)
    assert (reader.position, reader.remaining) == (2, 4)
    assert reader.take(3) == b"234"
    assert reader.position == 5
    refused(reader.u16, "piece")
    assert reader.rest() == b"5"
    reader.finish()


def test_trailing_bytes_are_refused() -> None:
    reader = Reader(b"ab")
    reader.u8()
    refused(reader.finish)
    reader.u8()
    reader.finish()


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=50))
def test_lists_of_16_bit_values(values: list[int]) -> None:
    writer = Writer()
    with writer.length16():
        for value in values:
            writer.u16(value)
    encoded = writer.finish()
    assert Reader(encoded).list16_of_u16() == tuple(values)
    for n in range(len(encoded)):
        refused(lambda n=n: Reader(encoded[:n]).list16_of_u16())  # type: ignore[misc]


@pytest.mark.parametrize("encoded", [b"\0\0", b"\0\1a", b"\0\3abc"])
def test_lists_are_neither_empty_nor_odd(encoded: bytes) -> None:
    refused(Reader(encoded).list16_of_u16)


def test_lengths_nest_and_are_patched() -> None:
    writer = Writer()
    writer.u8(9)
    with writer.length24():
        with writer.length16():
            writer.vector8(b"ab")
        with writer.length8():
            pass
    assert writer.finish() == b"\x09" + b"\0\0\x06" + b"\0\x03" + b"\x02ab" + b"\0"
    assert len(writer) == 10


Tree = list["Tree"] | bytes
trees: st.SearchStrategy[Tree] = st.recursive(
    st.binary(max_size=20), lambda children: st.lists(children, max_size=4), max_leaves=12
)


def write_tree(writer: Writer, tree: Tree) -> None:
    if isinstance(tree, bytes):
        writer.u8(0)
        writer.vector16(tree)
    else:
        writer.u8(1)
        with writer.length16():
            for child in tree:
                write_tree(writer, child)


def read_tree(reader: Reader) -> Tree:
    if reader.u8() == 0:
        return reader.vector16()
    inner = reader.sub16()
    children: list[Tree] = []
    while inner.remaining:
        children.append(read_tree(inner))
    inner.finish()
    return children


@given(trees, st.data())
def test_nested_structures_round_trip_and_survive_any_change(tree: Tree, data: st.DataObject) -> None:
    writer = Writer()
    write_tree(writer, tree)
    encoded = writer.finish()
    reader = Reader(encoded)
    assert read_tree(reader) == tree
    reader.finish()
    for n in range(len(encoded)):
        refused(lambda n=n: read_tree(Reader(encoded[:n])))  # type: ignore[misc]
    changed = bytearray(encoded)
    changed[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    reader = Reader(changed)
    try:
        read_tree(reader)
    except ProtocolError as error:
        assert error.alert is Alert.DECODE_ERROR  # noqa: PT017
    assert reader.position <= len(changed)


# --- the compiled ones and their twins --------------------------------------------------------

NUMBERS = st.sampled_from(["u8", "u16", "u24", "u32", "u48", "u64"])
READS = st.one_of(
    st.tuples(
        st.one_of(NUMBERS, st.sampled_from(["rest", "list16_of_u16", "u64s", "finish", "enter", "leave"]))
    ),
    st.tuples(st.sampled_from(["take", "sub"]), st.integers(0, 40)),
    st.tuples(st.sampled_from(["sub8", "sub16", "sub24"])),
    st.tuples(st.sampled_from(["vector8", "vector16", "vector24"]), st.integers(0, 4), st.integers(4, 300)),
)


def read_all(reader: Any, steps: list[tuple[Any, ...]]) -> list[object]:
    """What a reader answers to `steps`; the readers it gives are read from next."""
    told: list[object] = []
    stack = [reader]
    for name, *arguments in steps:
        one = stack[-1]
        try:
            answer = getattr(one, name)(*arguments)
        except ProtocolError as error:
            answer = (error.alert, error.reason)
        except AttributeError:
            # "enter" and "leave" go into the last inner reader and out of it.
            if name == "leave" and len(stack) > 1:
                stack.pop()
            answer = None
        if isinstance(answer, wire.PlainReader | wire.Reader):
            stack.append(answer)
            answer = answer.what
        told.append((answer, one.position, one.remaining))
    return told


@given(
    st.binary(max_size=80),
    st.lists(READS, max_size=12),
    st.sampled_from([bytes, bytearray, memoryview]),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_readers_agree(
    data: bytes, steps: list[tuple[Any, ...]], kind: Callable[[bytes], Buffer], start: int, cut: int
) -> None:
    start = min(start, len(data))
    end = max(start, len(data) - cut)
    twin = wire.PlainReader(kind(data), "a thing", start, end)
    assert read_all(Reader(kind(data), "a thing", start, end), steps) == read_all(twin, steps)


WRITES = st.one_of(
    st.tuples(NUMBERS, st.one_of(st.integers(0, 300), st.integers(-5, 1 << 70))),
    st.tuples(
        st.sampled_from(["raw", "vector8", "hidden8", "vector16", "vector24"]), st.binary(max_size=260)
    ),
    st.tuples(st.sampled_from(["length8", "length16", "length24"]), st.binary(max_size=260)),
)


def written(writer: Any, steps: list[tuple[Any, ...]]) -> list[object]:
    told: list[object] = []
    for name, value in steps:
        try:
            if name.startswith("length"):
                with getattr(writer, name)():
                    writer.raw(value)
                    with writer.length16():
                        writer.u8(7)
            else:
                getattr(writer, name)(value)
        except (OverflowError, ValueError) as error:
            told.append(type(error))
            break
        told.append(len(writer))
    return [*told, writer.finish()]


@given(st.lists(WRITES, max_size=10))
def test_writers_agree(steps: list[tuple[Any, ...]]) -> None:
    assert written(Writer(), steps) == written(wire.PlainWriter(), steps)


def test_which_ones_are_used() -> None:
    pure = os.environ.get("SEALWIRE_PURE") == "1"
    if not pure:
        pytest.importorskip("sealwire._wire")
    assert (Reader is wire.PlainReader) is pure
    assert (Writer is wire.PlainWriter) is pure


def test_they_have_the_same_methods() -> None:
    for compiled, twin in ((Reader, wire.PlainReader), (Writer, wire.PlainWriter)):
        assert {name for name in dir(twin) if name[0] != "_"} == {
            name for name in dir(compiled) if name[0] != "_"
        }


def test_a_secret_is_hidden_until_the_end() -> None:
    for one in (Writer(), wire.PlainWriter()):
        one.u8(1)
        one.hidden8(Secret(b"never lies about"))
        with one.length8():
            one.u8(2)
        assert one.finish() == b"\x01\x10never lies about\x01\x02"
