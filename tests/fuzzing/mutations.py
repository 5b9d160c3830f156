"""Systematic damage: every prefix, and every byte replaced in four ways."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_WAYS = 4


def damage_count(data: bytes) -> int:
    """How many numbers :func:`damage` takes for `data`."""
    return len(data) * (1 + _WAYS)


def damage(data: bytes, number: int) -> bytes:
    """The `number`-th damaged form: first the prefixes, then each byte ^0x01, ^0x80, 0x00 and 0xff.

    It may equal `data` where a byte was 0x00 or 0xff already.  Numbers beyond the last begin again.
    """
    number %= damage_count(data)
    if number < len(data):
        return data[:number]
    position, way = divmod(number - len(data), _WAYS)
    value = data[position]
    other = (value ^ 0x01, value ^ 0x80, 0x00, 0xFF)[way]
    return data[:position] + bytes((other,)) + data[position + 1 :]


def mutations(data: bytes) -> Iterator[bytes]:
    """Every damaged form of `data` that differs from it, each once."""
    seen: set[bytes] = {data}
    for number in range(damage_count(data)):
        damaged = damage(data, number)
        if number < len(data):
            yield damaged
        elif damaged not in seen:
            seen.add(damaged)
            yield damaged


def sample(items: Sequence[T], count: int, seed: str) -> list[T]:
    """`count` of `items`, the same ones for the same `seed`; all of them if there are no more."""
    if len(items) <= count:
        return list(items)
    return random.Random(seed).sample(items, count)
