"""Reader and Writer: round trips, bounds, and that every cut is decode_error and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
